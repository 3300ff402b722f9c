"""Frames with 3D boxes: rows, the transform of evaluation, batches, and folders of a user."""

import json

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from decahub.data import InMemoryDataset, load_dataset
from decahub.data import object_detection_3d as family
from decahub.data.box_geometry import find_points_inside, project
from decahub.data.catalog import NUSCENES_CLASSES
from decahub.data.frame_augmentation import compute_lidar2img
from decahub.data.frames import decode_row
from decahub.models.cmt import configuration_cmt
from tests.tiny.driving_frames import build_processor, build_row


FAMILY_NAME = "object-detection-3d"
EYE = np.eye(4).tolist()


def write_frame(folder, name="frame", **overrides):
    """A frame with one camera, two points and a box, in `<split>/<name>.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 8), (1, 2, 3)).save(folder / f"{name}.png")
    np.save(folder / f"{name}.npy", np.array([[1, 2, 3, 40, 7], [4, 5, 6, 80, 9]], np.float32))
    table = {
        "lidar": {"file": f"{name}.npy", "columns": ["x", "y", "z", "intensity", "ring"], "lidar2ego": EYE},
        "cameras": [
            {"name": "FRONT", "file": f"{name}.png", "intrinsics": np.eye(3).tolist(), "lidar2cam": EYE},
        ],
        "annotations": [
            {"class": "bus", "box": [1, 2, 3, 4, 5, 6, 0.5], "velocity": [1, 2], "num_lidar_pts": 3,
             "num_radar_pts": 1, "attribute": "vehicle.moving"},
            {"class": None, "box": [1, 2, 3, 4, 5, 6, 0.5]},
            {"class": "car", "box": [7, 2, 3, 4, 5, 6, 0.5], "velocity": None},
        ],
    }  # fmt: skip
    table.update(overrides)
    (folder / f"{name}.json").write_text(json.dumps({key: value for key, value in table.items() if value is not None}))
    return folder


# The family


def test_classes_are_those_of_the_model():
    assert NUSCENES_CLASSES == configuration_cmt.NUSCENES_CLASSES


@pytest.mark.parametrize("modality", ["fusion", "camera", "lidar"])
def test_example_has_the_sensors_of_the_model(modality):
    row = build_row()

    example = family.build_eval_transform(build_processor(modality))(row)

    images, voxels = {"pixel_values", "lidar2img"}, {"voxels", "num_points_per_voxel", "voxel_coords", "num_voxels"}
    expected = {"fusion": images | voxels, "camera": images, "lidar": voxels}[modality]
    assert set(example) == expected | {"labels", "frame"}
    assert torch.equal(example["labels"]["boxes"], torch.from_numpy(row["boxes"]))
    assert example["labels"]["class_labels"].tolist() == row["labels"]
    assert example["frame"]["num_points"] == row["num_points"]


def test_example_is_what_the_processor_gives_for_one_frame():
    row, processor = build_row(), build_processor()

    example = family.build_eval_transform(processor)(row)

    names = ("images", "cameras", "points", "intrinsics", "lidar2cam")
    direct = processor(**{name: row[name] for name in names}, return_tensors="pt")
    for name, values in direct.items():
        assert torch.equal(example[name], values[0] if name in ("pixel_values", "lidar2img") else values), name
    assert example["lidar2img"].dtype == torch.float64


def test_unknown_velocities_reach_the_metric():
    row = build_row()
    row["boxes"][0, 7:] = np.nan

    example = family.build_eval_transform(build_processor())(row)

    assert np.isnan(example["frame"]["boxes"][0, 7:]).all()


def test_batch_is_what_the_processor_gives_for_several_frames():
    rows, processor = [build_row(index) for index in range(3)], build_processor()
    transform = family.build_eval_transform(processor)

    batch = family.collate([transform(row) for row in rows])

    names = ("images", "cameras", "points", "intrinsics", "lidar2cam")
    direct = processor(**{name: [row[name] for row in rows] for name in names}, return_tensors="pt")
    for name, values in direct.items():
        assert torch.equal(batch[name], values), name
    assert [len(label["boxes"]) for label in batch["labels"]] == [len(row["boxes"]) for row in rows]
    assert [frame["token"] for frame in batch["frames"]] == [row["token"] for row in rows]


def test_collate_leaves_examples_as_they_are():
    example = family.build_eval_transform(build_processor())(build_row())

    family.collate([example, example])

    assert (example["voxel_coords"][:, 0] == 0).all()


def test_refuses_a_batch_with_different_numbers_of_cameras():
    examples = [family.build_eval_transform(build_processor())(build_row(index)) for index in range(2)]
    for name in ("pixel_values", "lidar2img"):
        examples[1][name] = examples[1][name][:2]

    with pytest.raises(ValueError, match="`pixel_values` of one batch must have one shape; got .*batch size 1"):
        family.collate(examples)


def test_a_batch_may_have_frames_without_points():
    transform, whole = family.build_eval_transform(build_processor()), build_row(0)
    examples = [transform(row) for row in (whole, {**build_row(1), "points": None}, {**build_row(2), "points": []})]

    batch = family.collate(examples)

    assert batch["modality_mask"].tolist() == [[True, True], [True, False], [True, False]]
    assert batch["num_voxels"].tolist() == [len(examples[0]["voxels"]), 0, 0]
    for alike in (examples[:1], examples[1:]):
        assert "modality_mask" not in family.collate(alike)
    assert "voxels" not in family.collate(examples[1:])


def test_a_cloud_without_points_is_no_missing_lidar():
    example = family.build_eval_transform(build_processor())({**build_row(), "points": np.zeros((0, 5), np.float32)})

    assert "modality_mask" not in example
    assert example["num_voxels"].tolist() == [0]


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_refuses_a_batch_with_different_sensors(order):
    transform = family.build_eval_transform(build_processor())
    examples = [transform(build_row()), transform({**build_row(), "images": None})]

    with pytest.raises(ValueError, match="must have the same sensors; `lidar2img` is in some .*batch size 1"):
        family.collate([examples[index] for index in order])


def test_rows_in_memory_are_rows():
    rows = [build_row(index) for index in range(2)]
    kept = InMemoryDataset(rows, family.decode_row)
    transform = family.build_eval_transform(build_processor())

    first, again = transform(rows[1]), transform(kept[1])

    assert torch.equal(first["voxels"], again["voxels"])
    assert torch.equal(first["pixel_values"], again["pixel_values"])


# Datasets


def test_a_dataset_that_is_saved_as_parquet_is_read_with_arrays(tmp_path):
    row = build_row()
    saved = datasets.Dataset.from_list([row], features=family.FEATURES)
    saved.to_parquet(tmp_path / "train.parquet")

    loaded = load_dataset(tmp_path, family=FAMILY_NAME)["train"][0]

    assert isinstance(loaded["points"], np.ndarray)
    np.testing.assert_array_equal(loaded["points"], row["points"])
    np.testing.assert_array_equal(loaded["intrinsics"], row["intrinsics"])  # float64 to the last bit


def test_refuses_labels_without_names(tmp_path):
    features = family.FEATURES.copy()
    features["labels"] = datasets.List(datasets.Value("int64"))
    datasets.Dataset.from_list([build_row()], features=features).to_parquet(tmp_path / "train.parquet")

    with pytest.raises(TypeError, match="column `labels` of split 'train' .* must be a `datasets.List` of"):
        load_dataset(tmp_path, family=FAMILY_NAME)


def test_reads_a_folder_of_frames(tmp_path):
    write_frame(tmp_path / "train")
    write_frame(tmp_path / "test", "a")
    write_frame(tmp_path / "test", "b")

    loaded = load_dataset(tmp_path, family=FAMILY_NAME)

    row = decode_row(loaded["train"][0])
    assert {split: len(rows) for split, rows in loaded.items()} == {"train": 1, "test": 2}
    np.testing.assert_array_equal(row["points"], [[1, 2, 3, 40, 0], [4, 5, 6, 80, 0]])  # the ring is no time
    np.testing.assert_array_equal(row["boxes"][0], np.array([1, 2, 3, 4, 5, 6, 0.5, 1, 2], np.float32))
    assert np.isnan(row["boxes"][1, 7:]).all()
    assert [NUSCENES_CLASSES[label] for label in row["labels"]] == ["bus", "car"]
    assert row["num_points"] == [4, None]
    assert row["attributes"] == ["vehicle.moving", None]
    assert row["images"][0].shape == (3, 8, 12)
    assert (row["ego2global"], row["token"]) == (None, "frame")


def test_reads_own_classes(tmp_path):
    write_frame(tmp_path / "train", annotations=[{"class": "tram", "box": [1, 2, 3, 4, 5, 6, 0]}])
    (tmp_path / "classes.txt").write_text("bike\ntram\n")

    loaded = load_dataset(tmp_path, family=FAMILY_NAME)

    assert loaded["train"].features["labels"].feature.names == ["bike", "tram"]
    assert loaded["train"][0]["labels"] == [1]


def test_own_classes_may_have_spaces(tmp_path):
    write_frame(tmp_path / "train", annotations=[{"class": "cargo bike", "box": [1, 2, 3, 4, 5, 6, 0.5]}])
    (tmp_path / "classes.txt").write_text("tram\n\n cargo bike \n", encoding="utf-8-sig")

    loaded = load_dataset(tmp_path, family=FAMILY_NAME)

    assert loaded["train"].features["labels"].feature.names == ["tram", "cargo bike"]
    assert loaded["train"][0]["labels"] == [1]


@pytest.mark.parametrize("content", ["", "tram\nbike\ntram\n"])
def test_refuses_classes_that_are_named_twice_or_not_at_all(tmp_path, content):
    write_frame(tmp_path / "train")
    (tmp_path / "classes.txt").write_text(content)

    with pytest.raises(ValueError, match="classes.txt must name each class once, one a line"):
        load_dataset(tmp_path, family=FAMILY_NAME)


def test_reads_frames_without_lidar_or_without_cameras(tmp_path):
    write_frame(tmp_path / "train", "a", lidar=None)
    write_frame(tmp_path / "train", "b", cameras=None, annotations=None)

    first, second = map(decode_row, load_dataset(tmp_path, family=FAMILY_NAME)["train"])

    assert first["points"] is None
    assert second["images"] == []
    assert second["boxes"].shape == (0, 9)


def test_sweeps_are_merged(tmp_path):
    folder = write_frame(tmp_path / "train")
    table = json.loads((folder / "frame.json").read_text())
    np.save(folder / "old.npy", np.array([[3, 0, 0, 10, 5], [0.2, 0.1, 0, 10, 5]], np.float32))
    moved = np.eye(4)
    moved[0, 3] = 0.5
    table["lidar"]["sweeps"] = [{"file": "old.npy", "sensor2key": moved.tolist(), "time_lag": 0.1}]
    (folder / "frame.json").write_text(json.dumps(table))

    row = decode_row(load_dataset(tmp_path, family=FAMILY_NAME)["train"][0])

    np.testing.assert_allclose(row["points"][2:], [[3.5, 0, 0, 10, 0.1]])  # the other point is the vehicle itself


def test_refuses_frames_below_the_folder_of_their_split(tmp_path):
    write_frame(tmp_path / "train")
    write_frame(tmp_path / "test" / "drive_1")

    with pytest.raises(ValueError, match="must be in the folder of their split, .*; got test/drive_1/frame.json"):
        load_dataset(tmp_path, family=FAMILY_NAME)


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        ({"annotations": [{"class": "tram", "box": [1] * 7}]}, ValueError, "`class` in .*frame.json .* got tram"),
        ({"annotations": [{"class": "car", "box": [1, 2, 3]}]}, ValueError, "`box` in .*frame.json must hold x, y, z"),
        ({"annotations": [{"class": "car", "box": [1, 2, 3, 0, 1, 1, 0]}]}, ValueError, "positive length"),
        ({"lidar": {"file": "none.npy"}}, FileNotFoundError, "names none.npy for lidar; .* does not exist"),
        ({"lidar": None, "cameras": None}, ValueError, "must be a table with `lidar` or `cameras`"),
        ({"cameras": [{"file": "frame.png", "intrinsics": [[1]]}]}, ValueError, "`intrinsics` of camera 0 .* 3 rows"),
        (
            {"cameras": [{"name": "REAR", "file": "frame.png", "intrinsics": np.eye(3).tolist()}]},
            ValueError,
            "`lidar2cam` of REAR .* is missing",
        ),
    ],
    ids=["class", "short_box", "flat_box", "no_file", "no_sensor", "intrinsics", "no_pose"],
)  # fmt: skip
def test_refuses_a_wrong_table(tmp_path, overrides, error, message):
    write_frame(tmp_path / "train", **overrides)

    with pytest.raises(error, match=message):
        load_dataset(tmp_path, family=FAMILY_NAME)


def test_refuses_frames_outside_of_a_split(tmp_path):
    write_frame(tmp_path)

    with pytest.raises(ValueError, match="a folder of frames for each split"):
        load_dataset(tmp_path, family=FAMILY_NAME)


# The real frame: facts of its README


@pytest.fixture(scope="module")
def sample(data_dir):
    return decode_row(load_dataset("nuscenes_sample", data_dir)["test"][0])


CAMERAS = ("CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_FRONT_LEFT", "CAM_BACK", "CAM_BACK_LEFT", "CAM_BACK_RIGHT")


def count_shown(points, lidar2img, size):
    pixels, depths = project(points.astype(np.float64), lidar2img)
    return int(((depths > 0) & (pixels >= 0).all(1) & (pixels < size).all(1)).sum())


def test_real_frame_has_the_described_boxes(sample):
    near = (np.abs(sample["boxes"][:, :2]) < 54).all(1)
    counts = np.array(sample["num_points"])

    assert len(sample["boxes"]) == 68
    assert near.sum() == 53
    names, numbers = np.unique([NUSCENES_CLASSES[label] for label in sample["labels"][near]], return_counts=True)
    assert dict(zip(names.tolist(), numbers.tolist(), strict=True)) == {
        "barrier": 22, "pedestrian": 21, "car": 4, "traffic_cone": 3, "truck": 2, "bus": 1,
    }  # fmt: skip
    assert (counts[near] >= 1).sum() == 52
    assert np.isnan(sample["boxes"][:, 7:]).any(1).sum() == 2  # of unknown velocity


def test_real_frame_projects_as_described(sample):
    near = (np.abs(sample["boxes"][:, :2]) < 54).all(1)
    centers = sample["boxes"][:, :3]

    projections = compute_lidar2img(sample)
    found = [
        tuple(count_shown(points, matrix, [1600, 900]) for points in (centers, centers[near], sample["points"][:, :3]))
        for matrix in projections
    ]

    assert sample["cameras"] == list(CAMERAS)
    assert found == [
        (46, 31, 3067), (16, 13, 3079), (1, 1, 3704), (10, 10, 4826), (2, 2, 4097), (4, 4, 3379),
    ]  # fmt: skip


def test_real_frame_has_points_in_its_boxes(sample, data_dir):
    table = json.loads((data_dir / "nuscenes_sample" / "sample.json").read_text())
    counts = np.array([box["num_lidar_pts"] for box in table["annotations"] if box["class"] is not None])
    assert sample["points"].shape == (34688, 5)
    assert (sample["points"][:, 4] == 0).all()  # the file has rings where models expect the time

    inside = find_points_inside(sample["points"], sample["boxes"]).sum(1)

    assert (inside == counts).mean() == pytest.approx(0.88, abs=0.005)
    assert np.abs(inside - counts).mean() == pytest.approx(0.42, abs=0.01)
