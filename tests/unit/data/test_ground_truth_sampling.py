"""Objects of other frames pasted into a frame: their points, boxes and pixels."""

import numpy as np
import pytest
import torch

from decahub.data.box_geometry import compute_corners, find_bev_overlaps, find_points_inside, project
from decahub.data.catalog import NUSCENES_CLASSES
from decahub.data.frame_augmentation import compute_lidar2img
from decahub.data.ground_truth_sampling import (
    TARGET_COUNTS,
    ObjectSampler,
    SampledObject,
    build_database,
    find_rectangles,
    read_target_counts,
)
from tests.tiny.driving_frames import build_decoded


NUM_FRAMES = 6


def build_frame(index):
    frame = build_decoded(index)
    frame["boxes"][:, 3:6] *= 1.04  # points lie on the surfaces; as inside they are found whatever the rounding
    return {**frame, "lidar2img": compute_lidar2img(frame)}


@pytest.fixture(scope="module")
def frames():
    return [build_frame(index) for index in range(NUM_FRAMES)]


@pytest.fixture
def draw():
    np.random.seed(0)


def test_database_has_the_objects_with_enough_points(frames):
    database = build_database(frames, min_points=5)

    for label in range(len(NUSCENES_CLASSES)):
        expected = [
            box
            for frame in frames
            for box, own, inside in zip(
                frame["boxes"], frame["labels"], find_points_inside(frame["points"], frame["boxes"]), strict=True
            )
            if own == label and inside.sum() >= 5
        ]
        found = [item.box for item in database.get(label, [])]
        assert np.array_equal(np.array(found), np.array(expected))
        for item in database.get(label, []):
            assert find_points_inside(item.points, item.box[None]).all()


def test_database_keeps_the_first_objects(frames):
    database = build_database(frames, min_points=1, max_objects=2)

    assert max(map(len, database.values())) == 2


def test_pasted_objects_fill_the_frame_without_overlaps(frames, draw):
    database = build_database(frames[1:])
    sampler = ObjectSampler(database, dict.fromkeys(database, 3))
    frame = frames[0]

    filled = sampler(frame)

    boxes, own = filled["boxes"], len(frame["boxes"])
    assert len(boxes) > own
    np.testing.assert_array_equal(boxes[:own], frame["boxes"])
    overlaps = find_bev_overlaps(boxes, boxes)
    assert not overlaps[own:, :own].any()
    assert overlaps[own:, own:].sum() == len(boxes) - own  # each with itself
    for label in database:
        assert (filled["labels"] == label).sum() <= max(3, (frame["labels"] == label).sum())
    assert len(filled["labels"]) == len(filled["num_points"]) == len(filled["attributes"]) == len(boxes)


def test_points_are_those_of_the_pasted_objects(frames, draw):
    database = build_database(frames[1:])
    frame = frames[0]

    filled = ObjectSampler(database, dict.fromkeys(database, 3))(frame)

    own = len(frame["boxes"])
    pasted = filled["boxes"][own:]
    sources = {item.box.tobytes(): item.points for objects in database.values() for item in objects}
    expected = sum(len(sources[box.tobytes()]) for box in pasted)
    inside_before = find_points_inside(frame["points"], pasted).any(0)
    assert len(filled["points"]) == len(frame["points"]) - inside_before.sum() + expected
    inside = find_points_inside(filled["points"], pasted)
    for box, is_in in zip(pasted, inside, strict=True):
        assert np.array_equal(filled["points"][is_in], sources[box.tobytes()])  # and no others


def build_flat_object(box, value, size=(5, 7)):
    patch = torch.full((3, *size), value, dtype=torch.uint8)
    return SampledObject(box, np.zeros((5, 5), np.float32), {"CAM_FRONT": patch})


def test_pixels_are_blended_from_far_to_near(frames):
    """A far object of 200 and a near one of 40 before it, on 100: 150 behind, (40 + 150) / 2 = 95 in front."""
    frame = {**frames[0], "images": [torch.full((3, 40, 72), 100, dtype=torch.uint8)] * 3}
    frame |= {"boxes": np.zeros((0, 9), np.float32), "labels": np.zeros(0, np.int64)}
    far = np.array([0, 15, 0, 6, 6, 3.6, 0, 0, 0], np.float32)
    near = np.array([0, 6, 0, 1, 1, 1, 0, 0, 0], np.float32)
    camera = frame["cameras"].index("CAM_FRONT")

    images = ObjectSampler({}, {}).blend_images(
        frame, [build_flat_object(near, 40), build_flat_object(far, 200)], np.stack([near, far])
    )

    outer, inner = find_rectangles(np.stack([far, near]), frame["lidar2img"][camera], (40, 72))
    assert set(images[camera].unique().tolist()) == {95, 100, 150}
    assert (images[camera][:, inner[0] : inner[2], inner[1] : inner[3]] == 95).all()
    behind = images[camera][:, outer[0] : outer[2], outer[1] : outer[3]] != 95
    assert (images[camera][:, outer[0] : outer[2], outer[1] : outer[3]][behind] == 150).all()
    assert all((image == 100).all() for index, image in enumerate(images) if index != camera)


def test_own_objects_cover_pasted_ones_behind_them(frames):
    """A pasted object of 200 behind an own one of 100: its own pixels are blended over, (150 + 100) / 2 = 125."""
    near = np.array([[0, 6, 0, 1, 1, 1, 0, 0, 0]], np.float32)
    frame = {**frames[0], "images": [torch.full((3, 40, 72), 100, dtype=torch.uint8)] * 3, "boxes": near}
    far = np.array([0, 15, 0, 6, 6, 3.6, 0, 0, 0], np.float32)
    camera = frame["cameras"].index("CAM_FRONT")

    image = ObjectSampler({}, {}).blend_images(frame, [build_flat_object(far, 200)], far[None])[camera]

    top, left, bottom, right = find_rectangles(near, frame["lidar2img"][camera], (40, 72))[0]
    assert (image[:, top:bottom, left:right] == 125).all()
    assert set(image.unique().tolist()) == {100, 125, 150}


def test_rectangles_enclose_the_corners(frames):
    frame = frames[0]
    for projection in frame["lidar2img"]:
        pixels, depths = project(compute_corners(frame["boxes"]), projection)
        for corners, depth, rectangle in zip(
            pixels, depths, find_rectangles(frame["boxes"], projection, (40, 72)), strict=True
        ):
            is_seen = (depth > 0.1).all() and (corners.max(0) >= 0).all() and (corners.min(0) < [72, 40]).all()
            assert is_seen == (rectangle is not None)
            if rectangle is not None:
                top, left, bottom, right = rectangle
                assert 0 <= top < bottom <= 40
                assert 0 <= left < right <= 72
                assert left <= max(corners[:, 0].min(), 0) < left + 1


def test_the_frame_itself_is_not_changed(frames, draw):
    database = build_database(frames[1:])
    frame = frames[0]
    before = (frame["points"].copy(), [image.clone() for image in frame["images"]])

    ObjectSampler(database, dict.fromkeys(database, 4))(frame)

    assert np.array_equal(frame["points"], before[0])
    assert all(map(torch.equal, frame["images"], before[1]))


def test_a_frame_that_has_enough_stays_as_it_is(frames):
    database = build_database(frames[1:])

    filled = ObjectSampler(database, dict.fromkeys(database, 0))(frames[0])

    assert filled["boxes"] is frames[0]["boxes"]


def test_counts_are_named_by_class():
    counts = read_target_counts(TARGET_COUNTS, NUSCENES_CLASSES)

    assert [counts[label] for label in range(10)] == [2, 3, 7, 4, 6, 2, 6, 6, 2, 2]  # spec of the paper's recipe


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"tram": 2}, "`counts` must name classes of car, .*; got tram"),
        ({"car": -1}, "must not hold negative numbers"),
    ],
    ids=["class", "negative"],
)
def test_refuses_wrong_counts(counts, message):
    with pytest.raises(ValueError, match=message):
        read_target_counts(counts, NUSCENES_CLASSES)


def test_refuses_a_wrong_blend_factor():
    with pytest.raises(ValueError, match="`blend_factor` must be in .0, 1.; got 2"):
        ObjectSampler({}, {}, blend_factor=2)
