"""Random transforms of frames: points, boxes and projections move together, and draws are repeated."""

import numpy as np
import pytest
import torch

from decahub.data import SeededTransform
from decahub.data.box_geometry import compute_corners, find_points_inside, project
from decahub.data.frame_augmentation import (
    AugmentedFrames,
    build_scene_transform,
    build_train_transform,
    compute_lidar2img,
    drop_empty_boxes,
    filter_range,
    transform_scene,
)
from decahub.data.ground_truth_sampling import ObjectSampler, build_database
from decahub.data.object_detection_3d import build_eval_transform, collate
from decahub.data.sampling import balance_classes
from tests.tiny.driving_frames import RANGE, build_decoded, build_processor, build_row


ATOL_FLOAT32 = 1e-4  # points and boxes of up to 40 m are stored in float32
NONE = {
    "rotation": 0.0, "scale_range": (1.0, 1.0), "translation_std": 0.0, "flip_prob": 0.0, "resize_range": (1.0, 1.0),
    "image_flip_prob": 0.0, "grid_mask_prob": 0.0, "camera_mask_prob": 0.0, "lidar_mask_prob": 0.0, "min_points": 0,
}  # fmt: skip
MOTIONS = {
    "rotation": {"rotation": 0.9},
    "scale": {"scale": 1.3},
    "translation": {"translation": (1.0, -2.0, 0.5)},
    "flip_x": {"flip_x": True},
    "flip_y": {"flip_y": True},
    "all": {"rotation": -2.0, "scale": 0.8, "translation": (3.0, 1.0, -0.2), "flip_x": True, "flip_y": False},
}


def build_frame(index=0):
    frame = build_decoded(index)
    return {**frame, "lidar2img": compute_lidar2img(frame)}


def sort_corners(corners):
    """Corners of each box in an order that does not depend on how they are numbered."""
    return np.stack([own[np.lexsort(own.round(3).T)] for own in corners])


# The scene


@pytest.mark.parametrize("motion", MOTIONS.values(), ids=MOTIONS)
def test_a_corner_keeps_its_pixel(motion):
    frame = build_frame()

    moved = transform_scene(frame, build_scene_transform(**motion))

    for old, new in zip(frame["lidar2img"], moved["lidar2img"], strict=True):
        pixels, depths = project(compute_corners(frame["boxes"]), old)
        new_pixels, new_depths = project(compute_corners(moved["boxes"]), new)
        seen = (depths > 1).all(1)
        assert seen.any()
        rows = [np.concatenate([p, d[..., None]], -1)[seen] for p, d in ((pixels, depths), (new_pixels, new_depths))]
        np.testing.assert_allclose(sort_corners(rows[0]), sort_corners(rows[1]), atol=2e-3)


@pytest.mark.parametrize("motion", MOTIONS.values(), ids=MOTIONS)
def test_a_point_keeps_its_pixel_and_its_box(motion):
    frame = build_frame()
    grown = frame["boxes"].copy()
    grown[:, 3:6] *= 1.05  # points lie on the surfaces

    moved = transform_scene({**frame, "boxes": grown}, build_scene_transform(**motion))

    inside = find_points_inside(frame["points"], grown)
    assert (find_points_inside(moved["points"], moved["boxes"]) == inside).all()
    assert inside.any()
    pixels, depths = project(frame["points"][:, :3].astype(float), frame["lidar2img"][0])
    new_pixels, _ = project(moved["points"][:, :3].astype(float), moved["lidar2img"][0])
    np.testing.assert_allclose(new_pixels[depths > 1], pixels[depths > 1], atol=2e-3)
    np.testing.assert_array_equal(moved["points"][:, 3:], frame["points"][:, 3:])


@pytest.mark.parametrize("motion", MOTIONS.values(), ids=MOTIONS)
def test_velocity_and_heading_are_those_of_the_moved_box(motion):
    """A box and where it is a second later, with its front, move alike."""
    frame = build_frame()
    matrix = build_scene_transform(**motion)

    def find_later(boxes):
        later, front = boxes[:, :3].astype(float), boxes[:, :3].astype(float)
        later[:, :2] += boxes[:, 7:9]
        front[:, 0] += boxes[:, 3] / 2 * np.cos(boxes[:, 6])
        front[:, 1] += boxes[:, 3] / 2 * np.sin(boxes[:, 6])
        return later, front

    moved = transform_scene(frame, matrix)

    assert np.abs(frame["boxes"][:, 7:9]).max() > 1
    for old, new in zip(find_later(frame["boxes"]), find_later(moved["boxes"]), strict=True):
        np.testing.assert_allclose(new, old @ matrix[:3, :3].T + matrix[:3, 3], atol=ATOL_FLOAT32)


def test_motions_are_applied_in_order():
    """Rotation by a quarter turn, then scale, then translation, then mirroring."""
    matrix = build_scene_transform(np.pi / 2, 2.0, (1.0, 0.0, 0.0), flip_x=True)

    np.testing.assert_allclose(matrix @ [3.0, 0, 5, 1], [-1, 6, 10, 1], atol=1e-12)


def test_a_frame_is_not_changed_in_place():
    frame = build_frame()
    before = {name: frame[name].copy() for name in ("points", "boxes", "lidar2img")}

    transform_scene(frame, build_scene_transform(0.3, 1.2, (1, 1, 1), True, True))
    filter_range(frame, RANGE)

    assert all(np.array_equal(frame[name], value) for name, value in before.items())


# Filters


def test_only_what_is_in_range_is_kept():
    frame = build_frame()
    low, high = [-50.0, -28.0, -1.0], [float(np.median(frame["boxes"][:, 0])), 28.0, 1.0]

    kept = filter_range(frame, [*low, *high])

    assert 0 < len(kept["points"]) < len(frame["points"])
    assert ((kept["points"][:, :3] > low) & (kept["points"][:, :3] < high)).all()
    expected = [
        index for index, box in enumerate(frame["boxes"]) if low[0] < box[0] < high[0] and low[1] < box[1] < high[1]
    ]
    assert 0 < len(expected) < len(frame["boxes"])
    np.testing.assert_array_equal(kept["boxes"][:, :6], frame["boxes"][expected, :6])
    np.testing.assert_array_equal(kept["labels"], frame["labels"][expected])
    assert kept["num_points"] == [frame["num_points"][index] for index in expected]
    assert kept["attributes"] == [frame["attributes"][index] for index in expected]


def test_yaw_is_wrapped():
    frame = build_frame()
    frame["boxes"][:, 6] += np.float32(2 * np.pi)

    kept = filter_range(frame, RANGE)

    assert (np.abs(kept["boxes"][:, 6]) <= np.pi).all()


@pytest.mark.parametrize(("counts", "kept"), [([0, 1, 4], [1, 2]), ([None, 0, 2], [0, 2]), (None, [0, 1, 2])])
def test_boxes_without_points_are_dropped(counts, kept):
    frame = {"boxes": np.arange(27.0).reshape(3, 9), "labels": np.arange(3), "num_points": counts}

    found = drop_empty_boxes(frame, 1)

    assert found["labels"].tolist() == kept


# The whole transform


def test_without_augmentation_examples_are_those_of_evaluation():
    row, processor = build_row(), build_processor()
    transform = build_train_transform(processor, point_cloud_range=[-50, -50, -5, 50, 50, 5], **NONE)

    example, expected = SeededTransform([row], transform)[0], build_eval_transform(processor)(row)

    assert torch.equal(example["pixel_values"], expected["pixel_values"])
    torch.testing.assert_close(example["lidar2img"], expected["lidar2img"])
    assert example["num_voxels"] == expected["num_voxels"]  # points are shuffled
    torch.testing.assert_close(example["labels"]["boxes"], expected["labels"]["boxes"])
    assert set(example) == set(expected) - {"frame"}


def test_training_has_a_limit_of_voxels_of_its_own():
    row, processor = build_row(), build_processor()
    processor.feature_extractor.max_training_voxels = 7
    transform = build_train_transform(processor, point_cloud_range=[-50, -50, -5, 50, 50, 5], **NONE)

    assert SeededTransform([row], transform)[0]["num_voxels"].item() == 7
    assert build_eval_transform(processor)(row)["num_voxels"].item() > 7


@pytest.mark.parametrize("flip", [0.0, 1.0], ids=["plain", "mirrored"])
def test_boxes_stay_on_their_pixels_after_all_transforms(flip):
    """Pixel of a box's center in the final image shows the pixel of the original one: traced by a painted image."""
    row = build_row()
    processor = build_processor()
    processor.image_processor.exact_intrinsics = True
    ramp = torch.stack(torch.meshgrid(torch.arange(40), torch.arange(72), indexing="ij")).to(torch.uint8)
    row["images"] = [torch.cat([ramp, ramp[:1]])] * 3  # red: row, green: column
    transform = build_train_transform(
        processor, camera_mask_prob=0.0, lidar_mask_prob=0.0, grid_mask_prob=0.0, image_flip_prob=flip, min_points=0,
        point_cloud_range=[-100, -100, -9, 100, 100, 9],
    )  # fmt: skip
    before = compute_lidar2img(build_decoded())
    traced = 0
    for seed in range(5):
        example = SeededTransform([row], transform, seed)[0]
        mean, std = (torch.tensor(getattr(processor.image_processor, name)) for name in ("image_mean", "image_std"))
        pixels = (example["pixel_values"] * std[:, None, None] + mean[:, None, None]) * 255  # blue, green, red
        for camera in range(3):
            old, old_depths = project(row["boxes"][:, :3].astype(float), before[camera])
            new, _ = project(example["labels"]["boxes"][:, :3].double().numpy(), example["lidar2img"][camera].numpy())
            for source, target, depth in zip(old, new, old_depths, strict=True):
                column, line = np.rint(target).astype(int)
                if depth < 1 or not (2 < column < 61 and 2 < line < 29 and 2 < source[0] < 69 and 2 < source[1] < 37):
                    continue
                traced += 1
                assert pixels[camera, 2, line, column].item() == pytest.approx(source[1], abs=1.5)
                assert pixels[camera, 1, line, column].item() == pytest.approx(source[0], abs=1.5)
    assert traced > 10


def test_draws_depend_on_seed_epoch_and_row_alone():
    rows = [build_row(index) for index in range(3)]
    frames = SeededTransform(rows, build_train_transform(build_processor()), seed=1)
    again = SeededTransform(rows, build_train_transform(build_processor()), seed=1)

    first = [frames[index] for index in range(3)]
    repeated = {index: again[index] for index in (2, 0, 1)}  # in another order
    again.set_epoch(1)

    for index, example in enumerate(first):
        for name in ("pixel_values", "voxels", "lidar2img", "modality_mask"):
            assert torch.equal(example[name], repeated[index][name])
        assert torch.equal(example["labels"]["boxes"], repeated[index]["labels"]["boxes"])
    assert not torch.equal(again[0]["lidar2img"], first[0]["lidar2img"])


def test_shares_of_masked_sensors():
    transform = build_train_transform(build_processor(), camera_mask_prob=0.25, lidar_mask_prob=0.25)
    np.random.seed(0)

    masks = torch.stack([transform._draw_modality_mask() for _ in range(4000)])

    assert masks.any(1).all()  # one sensor always works
    assert (~masks).float().mean(0).tolist() == pytest.approx([0.25, 0.25], abs=0.03)


@pytest.mark.parametrize("modality", ["camera", "lidar"])
def test_a_model_with_one_sensor_has_none_masked(modality):
    example = build_train_transform(build_processor(modality))(build_row())

    assert "modality_mask" not in example
    assert ("pixel_values" in example) == (modality == "camera")


def test_masks_of_a_batch_are_stacked():
    frames = SeededTransform([build_row(index) for index in range(2)], build_train_transform(build_processor()))

    batch = collate([frames[0], frames[1]])

    assert batch["modality_mask"].shape == (2, 2)
    assert batch["modality_mask"].dtype == torch.bool


def test_unknown_velocities_are_zero_in_training():
    row = build_row()
    row["boxes"][:, 7:] = np.nan

    example = build_train_transform(build_processor(), **(NONE | {"rotation": 0.5}))(row)

    assert (example["labels"]["boxes"][:, 7:] == 0).all()


def test_objects_are_pasted_until_the_fade():
    rows = [build_row(index) for index in range(3)]
    database = build_database([build_frame(index) for index in range(3)], min_points=1)
    sampler = ObjectSampler(database, dict.fromkeys(database, 5))
    transform = build_train_transform(build_processor(), sampler=sampler, **NONE)
    frames = AugmentedFrames(rows, transform, seed=0, fade_epoch=2)
    counts = []
    for epoch in range(4):
        frames.set_epoch(epoch)
        counts.append(len(frames[0]["labels"]["boxes"]))

    own = len(filter_range(build_frame(0), RANGE)["boxes"])
    assert min(counts[:2]) > own
    assert counts[2:] == [own, own]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flip_prob": 1.2}, "`flip_prob` must be in .0, 1.; got 1.2"),
        ({"camera_mask_prob": 0.7, "lidar_mask_prob": 0.6}, "must sum to at most 1; got 1.29"),
        ({"scale_range": (1.1, 0.9)}, r"`scale_range` must be two positive numbers .*; got \(1.1, 0.9\)"),
        ({"resize_range": 1.1}, "`resize_range` must be two positive numbers .*; got 1.1"),
        ({"rotation": -1.0}, "`rotation`, .* must not be negative; got -1.0"),
    ],
    ids=["probability", "masks", "range", "pair", "negative"],
)
def test_refuses_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        build_train_transform(build_processor(), **options)


# Rows


def test_rows_are_drawn_so_that_classes_are_balanced():
    generator = np.random.default_rng(0)
    classes = [
        [0, 0, 1] if generator.random() < 0.05 else ([2, 0] if generator.random() < 0.2 else [0]) for _ in range(2000)
    ]

    indices = balance_classes(classes, num_classes=3, seed=5)

    total = sum(len(set(held)) for held in classes)
    assert len(indices) == 3 * int(total / 3)
    thirds = indices.reshape(3, -1)
    assert all(label in classes[index] for label in range(3) for index in thirds[label])
    assert np.array_equal(indices, balance_classes(classes, num_classes=3, seed=5))


def test_a_class_without_rows_is_left_out():
    indices = balance_classes([[0], [0], [2]], num_classes=3)

    assert len(indices) == 2  # one of three counts for each class
    assert sorted(indices.tolist())[1] == 2


@pytest.mark.parametrize(
    ("missing", "sensor"),
    [({"points": None}, "pixel_values"), ({"images": None, "cameras": None}, "voxels")],
    ids=["points", "images"],
)
@pytest.mark.parametrize("masks", [(1.0, 0.0), (0.0, 1.0)], ids=["no cameras", "no LiDAR"])
def test_a_frame_with_one_sensor_keeps_it(missing, sensor, masks):
    options = {"camera_mask_prob": masks[0], "lidar_mask_prob": masks[1]}
    transform = build_train_transform(build_processor(), **{**NONE, **options})

    example = transform({**build_row(), **missing})

    assert example["modality_mask"].tolist() == [True, True]
    assert {"pixel_values", "voxels"} & example.keys() == {sensor}


def test_points_that_are_missing_are_masked_among_masked_frames():
    transform = build_train_transform(build_processor(), **{**NONE, "camera_mask_prob": 1.0})

    batch = collate([transform(build_row(0)), transform({**build_row(1), "points": None})])

    assert batch["modality_mask"].tolist() == [[False, True], [True, False]]


def test_objects_are_pasted_into_images_where_points_are_missing():
    sampler = ObjectSampler(build_database([build_frame(), {**build_frame(1), "points": None}]), {0: 20})
    frame = {**build_frame(2), "points": None}

    assert sampler(frame)["points"] is None


@pytest.mark.parametrize(("column", "value"), [(0, np.nan), (6, np.nan), (3, np.inf), (8, -np.inf)])
def test_refuses_boxes_that_are_not_finite(column, value):
    row = {**build_row(), "token": "odd"}
    row["boxes"][1, column] = value

    with pytest.raises(ValueError, match="`boxes` must be finite, .* for box 1 of frame 'odd'"):
        build_train_transform(build_processor(), **NONE)(row)
