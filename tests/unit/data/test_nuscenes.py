"""The reader of nuScenes on tables of two scenes that are written here, in the official layout."""

import json

import numpy as np
import pytest
from PIL import Image

from decahub.data import load_dataset
from decahub.data.frames import decode_row
from decahub.data.nuscenes import VALIDATION_SCENES, NuScenesTables, build_pose, read_nuscenes


ATOL_FLOAT32 = 1e-4  # boxes and points are stored in float32
INTERVAL = 500_000  # microseconds between samples
SPEED = np.array([2.0, -1.0])  # of the moving box, global
CAMERA = "CAM_FRONT"
CATEGORIES = ("vehicle.car", "human.pedestrian.adult", "animal", "static_object.bicycle_rack")


def build_quaternion(yaw):
    return [np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)]


def build_point_cloud(shift):
    points = np.array([[5.0, 1, 0, 30, 4], [20, -3, 1, 200, 7], [0.5, 0.5, 0, 9, 1], [-12, 8, -1, 60, 2]], np.float32)
    points[:, 0] += np.float32(shift)
    return points


class Fixture:
    """Tables with `num_samples` samples in each of the scenes; between two samples there is one sweep."""

    def __init__(self, root, version, scenes, num_samples=4):
        self.root, self.tables = root, {}
        for channel in ("LIDAR_TOP", CAMERA):
            (root / "samples" / channel).mkdir(parents=True, exist_ok=True)
        (root / "sweeps" / "LIDAR_TOP").mkdir(parents=True, exist_ok=True)
        for name, channel in (("s0", "LIDAR_TOP"), ("s1", CAMERA), ("s2", "RADAR_FRONT")):
            self.add("sensor", name, channel=channel, modality="")
        self.add(
            "calibrated_sensor", "c0", sensor_token="s0", translation=[0.9, 0.0, 1.8],
            rotation=build_quaternion(-np.pi / 2), camera_intrinsic=[],
        )  # fmt: skip
        self.add(
            "calibrated_sensor", "c1", sensor_token="s1", translation=[1.7, 0.0, 1.5], rotation=[0.5, -0.5, 0.5, -0.5],
            camera_intrinsic=[[60.0, 0, 31.5], [0, 60, 23.5], [0, 0, 1]],
        )  # fmt: skip
        self.add("calibrated_sensor", "c2", sensor_token="s2", translation=[3, 0, 0], rotation=[1, 0, 0, 0])
        for index, name in enumerate(CATEGORIES):
            self.add("category", f"k{index}", name=name)
        self.add("attribute", "a0", name="vehicle.moving")
        for scene in scenes:
            self.add_scene(scene, num_samples)
        folder = root / version
        folder.mkdir()
        for name, records in self.tables.items():
            (folder / f"{name}.json").write_text(json.dumps(records))

    def add(self, table, token, **values):
        self.tables.setdefault(table, []).append({"token": token, **values})
        return token

    def link(self, name, index, last):
        return {"prev": f"{name}{index - 1}" if index else "", "next": f"{name}{index + 1}" if index < last else ""}

    def add_pose(self, token, time):
        """The vehicle drives along x and turns."""
        seconds = time * 1e-6
        return self.add(
            "ego_pose", token, translation=[100 + 4 * seconds, 50, 0], rotation=build_quaternion(0.3 + 0.1 * seconds),
            timestamp=time,
        )  # fmt: skip

    def add_scene(self, scene, num_samples):
        last = num_samples - 1
        self.add("scene", f"{scene}-token", name=scene, first_sample_token=f"{scene}-sample0")
        for index in range(4):
            self.add("instance", f"{scene}-instance{index}", category_token=f"k{index}")
        for index in range(num_samples):
            time = INTERVAL * index
            sample = f"{scene}-sample{index}"
            self.add("sample", sample, timestamp=time, scene_token=f"{scene}-token",
                     **self.link(f"{scene}-sample", index, last))  # fmt: skip
            self.add_recording(
                f"{scene}-camera{index}", sample, "c1", time + 20_000, True, f"{CAMERA}/{scene}{index}.jpg"
            )
            self.add_recording(f"{scene}-radar{index}", sample, "c2", time, True, "radar.pcd")
            for part in range(2 if index < last else 1):
                number = 2 * index + part
                channel = f"LIDAR_TOP/{scene}{number}.pcd.bin"
                self.add_recording(f"{scene}-lidar{number}", sample, "c0", time + part * INTERVAL // 2, not part,
                                   channel, **self.link(f"{scene}-lidar", number, 2 * last))  # fmt: skip
            for box in range(4):
                self.add_annotation(scene, sample, index, box, last)

    def add_recording(self, token, sample, sensor, time, is_key_frame, file, prev="", next=""):
        path = self.root / ("samples" if is_key_frame else "sweeps") / file
        if sensor == "c0":
            build_point_cloud(time * 1e-6).tofile(path)
        elif sensor == "c1":
            Image.new("RGB", (64, 48), (10, 20, 30)).save(path)
        self.add(
            "sample_data", token, sample_token=sample, calibrated_sensor_token=sensor, timestamp=time,
            ego_pose_token=self.add_pose(f"{token}-pose", time), is_key_frame=is_key_frame,
            filename=str(path.relative_to(self.root)), prev=prev, next=next,
        )  # fmt: skip

    def add_annotation(self, scene, sample, index, box, last):
        start = np.array([110.0 + 5 * box, 52.0 - box, 1.0])
        start[:2] += SPEED * INTERVAL * 1e-6 * index * (box == 0)
        self.add(
            "sample_annotation", f"{scene}-box{box}-{index}", sample_token=sample,
            instance_token=f"{scene}-instance{box}", attribute_tokens=["a0"] if box == 0 else [],
            translation=start.tolist(), size=[1.9, 4.5, 1.6], rotation=build_quaternion(1.0 + 0.1 * box),
            num_lidar_pts=3 + box, num_radar_pts=box, **self.link(f"{scene}-box{box}-", index, last),
        )  # fmt: skip


@pytest.fixture
def mini(tmp_path):
    Fixture(tmp_path, "v1.0-mini", ["scene-0061", "scene-0103"])
    return tmp_path


def find_lidar2global(time):
    seconds = time * 1e-6
    ego = build_pose({"rotation": build_quaternion(0.3 + 0.1 * seconds), "translation": [100 + 4 * seconds, 50, 0]})
    lidar = build_pose({"rotation": build_quaternion(-np.pi / 2), "translation": [0.9, 0, 1.8]})
    return ego @ lidar


def test_scenes_are_divided_as_by_the_devkit(mini):
    loaded = read_nuscenes(mini)

    assert {split: len(rows) for split, rows in loaded.items()} == {"train": 4, "validation": 4}
    assert loaded["validation"]["token"][:2] == ["scene-0103-sample0", "scene-0103-sample1"]


def test_the_official_validation_split_has_150_scenes():
    assert sum(last - first + 1 for first, last in VALIDATION_SCENES) == 150


def test_a_folder_in_the_official_layout_is_found(mini):
    loaded = load_dataset(mini, family="object-detection-3d")

    row = decode_row(loaded["train"][1])

    assert row["points"].shape[1] == 5
    assert row["images"][0].shape == (3, 48, 64)
    assert row["cameras"] == [CAMERA]


def test_the_catalog_reads_it_by_name(mini, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "nuscenes").symlink_to(mini)

    loaded = load_dataset("nuscenes_mini", tmp_path / "data")

    assert set(loaded) == {"train", "validation"}


def test_boxes_return_to_where_they_were_annotated(mini):
    for index, row in enumerate(map(decode_row, read_nuscenes(mini)["train"])):
        lidar2global = find_lidar2global(INTERVAL * index)
        boxes = row["boxes"].astype(float)

        centers = boxes[:, :3] @ lidar2global[:3, :3].T + lidar2global[:3, 3]
        headings = np.stack([np.cos(boxes[:, 6]), np.sin(boxes[:, 6]), np.zeros(2)], 1) @ lidar2global[:3, :3].T

        moved = [110 + SPEED[0] * 0.5 * index, 52 + SPEED[1] * 0.5 * index, 1]
        np.testing.assert_allclose(centers, [moved, [115, 51, 1]], atol=ATOL_FLOAT32)
        np.testing.assert_allclose(np.arctan2(headings[:, 1], headings[:, 0]), [1.0, 1.1], atol=1e-5)
        np.testing.assert_allclose(boxes[:, 3:6], [[4.5, 1.9, 1.6]] * 2, atol=1e-6)  # length, width, height


def test_classes_attributes_and_counts_follow_the_tables(mini):
    loaded = read_nuscenes(mini)["train"]

    names = loaded.features["labels"].feature.names
    assert [names[label] for label in loaded[0]["labels"]] == ["car", "pedestrian"]  # the animal is left out
    assert loaded[0]["attributes"] == ["vehicle.moving", ""]
    assert loaded[0]["num_points"] == [3, 5]  # LiDAR and radar
    assert np.shape(loaded[0]["bike_racks"]) == (1, 9)


def test_velocities_are_differences_of_the_neighbors(mini):
    for index, row in enumerate(map(decode_row, read_nuscenes(mini)["train"])):
        rotation = find_lidar2global(INTERVAL * index)[:2, :2]

        velocities = row["boxes"][:, 7:9].astype(float) @ rotation.T

        np.testing.assert_allclose(velocities, [SPEED, [0, 0]], atol=ATOL_FLOAT32)


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([0.0, 0.5, 1.0], 2.0),  # central difference
        ([0.0, 1.4, 2.9], 2.0),  # each neighbor within 1.5 s
        ([0.0, 1.6, 3.1], None),  # 3.1 s in all are too long
        ([None, 0.0, 1.4], 2.0),
        ([None, 0.0, 1.6], None),
        ([0.0, 1.0, None], 2.0),
        ([None, 0.0, None], None),
    ],
    ids=["both", "slow", "too_slow", "first", "first_too_slow", "last", "alone"],
)
def test_velocity_needs_neighbors_within_time(tmp_path, times, expected):
    """The rule of the devkit's `box_velocity`."""
    Fixture(tmp_path, "v1.0-mini", ["scene-0061"], num_samples=1)
    folder = tmp_path / "v1.0-mini"
    samples, annotations, tokens = [], [], [f"box{index}" for index in range(3)]
    for index, time in enumerate(times):
        if time is None:
            continue
        neighbors = {"prev": index - 1, "next": index + 1}
        links = {
            name: tokens[other] if 0 <= other < 3 and times[other] is not None else ""
            for name, other in neighbors.items()
        }
        samples.append({"token": f"sample{index}", "timestamp": int(time * 1e6), "next": ""})
        annotations.append({"token": tokens[index], "sample_token": f"sample{index}",
                            "translation": [2.0 * time, 0, 0], **links})  # fmt: skip
    for name, records in (("sample", samples), ("sample_annotation", annotations), ("sample_data", [])):
        (folder / f"{name}.json").write_text(json.dumps(records))
    tables = NuScenesTables(folder)
    velocity = tables.compute_velocity(tables.annotations["box1"])

    assert (np.isnan(velocity).all() and expected is None) or velocity[0] == pytest.approx(expected)


def test_sweeps_are_merged_into_the_key_frame(mini):
    row = decode_row(read_nuscenes(mini)["train"][2])

    lags = np.unique(row["points"][:, 4])
    np.testing.assert_allclose(lags, [0, 0.25, 0.5, 0.75, 1.0], atol=1e-6)
    key = row["points"][row["points"][:, 4] == 0]
    np.testing.assert_array_equal(key[:, :4], build_point_cloud(1.0)[:, :4])  # all points of the key frame
    np.testing.assert_array_equal(np.bincount(np.rint(row["points"][:, 4] * 4).astype(int)), [4, 4, 4, 3, 3])
    for lag in (0.25, 1.0):
        time = INTERVAL * 2 - int(lag * 1e6)
        cloud = build_point_cloud(time * 1e-6)
        cloud = cloud[(np.abs(cloud[:, :2]) >= 1).any(1)][:, :3].astype(float)  # without the vehicle itself
        old, new = find_lidar2global(time), find_lidar2global(INTERVAL * 2)
        expected = (cloud @ old[:3, :3].T + old[:3, 3] - new[:3, 3]) @ new[:3, :3]
        found = row["points"][np.isclose(row["points"][:, 4], lag), :3]
        np.testing.assert_allclose(found, expected, atol=ATOL_FLOAT32)


@pytest.mark.parametrize(("num_sweeps", "expected"), [(0, 1), (2, 3), (10, 7)])
def test_as_many_sweeps_as_wanted_or_as_there_are(mini, num_sweeps, expected):
    loaded = read_nuscenes(mini, num_sweeps=num_sweeps)

    assert len(loaded["train"][3]["points"]) == expected


def test_camera_moves_with_the_vehicle_between_the_recordings(mini):
    row = decode_row(read_nuscenes(mini)["train"][1])
    seconds = 0.52  # the image is taken 20 ms after the points
    ego = build_pose({"rotation": build_quaternion(0.3 + 0.1 * seconds), "translation": [100 + 4 * seconds, 50, 0]})
    camera = build_pose({"rotation": [0.5, -0.5, 0.5, -0.5], "translation": [1.7, 0, 1.5]})

    expected = np.linalg.inv(ego @ camera) @ find_lidar2global(INTERVAL)

    np.testing.assert_allclose(row["lidar2cam"][0], expected, atol=1e-9)
    np.testing.assert_allclose(row["intrinsics"][0], [[60, 0, 31.5], [0, 60, 23.5], [0, 0, 1]])


def test_a_quaternion_becomes_its_rotation():
    axis, angle = np.array([1.0, 2.0, -2.0]) / 3, 0.8
    quaternion = [np.cos(angle / 2), *(np.sin(angle / 2) * axis)]

    rotation = build_pose({"rotation": quaternion, "translation": [0, 0, 0]})[:3, :3]

    vector = np.array([0.3, -1.0, 0.7])
    rodrigues = (
        vector * np.cos(angle) + np.cross(axis, vector) * np.sin(angle) + axis * (axis @ vector) * (1 - np.cos(angle))
    )
    np.testing.assert_allclose(rotation @ vector, rodrigues, atol=1e-12)


def test_a_file_of_splits_comes_before_the_official_ones(mini):
    (mini / "splits.json").write_text(json.dumps({"train": ["scene-0103"], "test": ["scene-0061"]}))

    loaded = read_nuscenes(mini)

    assert loaded["train"]["token"][0].startswith("scene-0103")
    assert set(loaded) == {"train", "test"}


def test_refuses_scenes_that_do_not_exist(mini):
    (mini / "splits.json").write_text(json.dumps({"train": ["scene-0001", "scene-0061"]}))

    with pytest.raises(ValueError, match="splits.json must name scenes of v1.0-mini; got 'scene-0001'"):
        read_nuscenes(mini)


def test_a_version_without_official_split_needs_one(tmp_path):
    Fixture(tmp_path, "v1.0-own", ["scene-0001"])

    with pytest.raises(ValueError, match="v1.0-own has no official split. Write one to .*splits.json"):
        read_nuscenes(tmp_path)


def test_refuses_a_folder_with_several_versions(mini):
    Fixture(mini, "v1.0-trainval", ["scene-0003"])

    with pytest.raises(ValueError, match="holds v1.0-mini, v1.0-trainval; which is meant"):
        load_dataset(mini, family="object-detection-3d")


def test_a_missing_table_is_named(mini):
    (mini / "v1.0-mini" / "instance.json").unlink()

    with pytest.raises(FileNotFoundError, match="must be in .*v1.0-mini; instance.json are missing"):
        read_nuscenes(mini)


def spoil(mini, table, change):
    path = mini / "v1.0-mini" / f"{table}.json"
    records = json.loads(path.read_text())
    change(records[-1])
    path.write_text(json.dumps(records))


@pytest.mark.parametrize(
    ("table", "key", "where"),
    [
        ("calibrated_sensor", "sensor_token", "calibrated_sensor"),
        ("instance", "category_token", "instance"),
        ("sample_annotation", "sample_token", "sample_annotation"),
        ("sample_annotation", "instance_token", "sample_annotation"),
        ("sample_annotation", "prev", "sample_annotation"),
        ("sample_data", "calibrated_sensor_token", "sample_data"),
        ("sample_data", "sample_token", "sample_data"),
        ("sample_data", "ego_pose_token", "sample_data"),
        ("sample_data", "prev", "sample_data"),
        ("sample", "next", "sample"),
        ("scene", "first_sample_token", "scene"),
    ],
)
def test_a_token_that_leads_nowhere_is_named(mini, table, key, where):
    spoil(mini, table, lambda record: record.update({key: "gone"}))

    with pytest.raises(ValueError, match=rf"`{key}` of .* in .*{where}.json must be a token .* got 'gone'"):
        read_nuscenes(mini)


def test_an_attribute_that_does_not_exist_is_named(mini):
    path = mini / "v1.0-mini" / "attribute.json"
    path.write_text("[]")

    with pytest.raises(ValueError, match="`attribute_tokens` of .* must be a token of the other tables; got 'a0'"):
        read_nuscenes(mini)


def test_samples_in_a_circle_are_refused(mini):
    spoil(mini, "sample", lambda record: record.update(next="scene-0103-sample1"))

    with pytest.raises(ValueError, match="samples of 'scene-0103' .* 'scene-0103-sample1' comes twice"):
        read_nuscenes(mini)


def test_a_sample_without_lidar_is_named(mini):
    spoil(mini, "sample_data", lambda record: record.update(is_key_frame=False))

    with pytest.raises(
        ValueError, match="sample 'scene-0103-sample3' must have a key frame of LIDAR_TOP .* CAM_FRONT"
    ):
        read_nuscenes(mini)


@pytest.mark.parametrize("table", ["scene", "sample_data"])
def test_a_table_that_is_cut_off_is_named(mini, table):
    path = mini / "v1.0-mini" / f"{table}.json"
    path.write_text(path.read_text()[:-20])

    with pytest.raises(ValueError, match=rf"{table}.json must hold JSON: .* Is it cut off"):
        read_nuscenes(mini)
