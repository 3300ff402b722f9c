"""Generated scenes: points, pixels and boxes fit together, and a seed gives one scene."""

import numpy as np
import pytest

from decahub.data import driving_scenes
from decahub.data.box_geometry import (
    compute_corners,
    find_bev_overlaps,
    find_points_inside,
    project,
    rotate,
    wrap_angle,
)
from decahub.data.driving_scenes import KINDS, LIDAR_HEIGHT, SceneSettings, build_cameras, build_frame
from decahub.data.frames import decode_row
from decahub.data.loading import load_dataset
from decahub.data.scene_rendering import GROUND, NOTHING, intersect_box, render, scan


EXACT = SceneSettings(range_noise=0.0, drop_rate=0.0, num_sweeps=0)
ATOL_FLOAT32 = 2e-5  # points are stored in float32, at up to 27 m
NUM_SCENES = 8


def measure_outside(points, box):
    """Distance of points to the surface of a box along its axes, positive outside."""
    return (np.abs(rotate(points[:, :3] - box[:3], -box[6])) - box[3:6] / 2).max(1)


def build_boxes(generator, number, spread=20):
    boxes = np.zeros((number, 9))
    boxes[:, :2] = generator.uniform(-spread, spread, (number, 2))
    boxes[:, 3:6] = generator.uniform(0.5, 6, (number, 3))
    boxes[:, 6] = generator.uniform(-4, 4, number)
    return boxes


@pytest.mark.parametrize("index", range(NUM_SCENES))
def test_points_lie_on_the_surfaces_of_boxes_or_on_the_ground(index):
    frame = build_frame((5, index), EXACT)

    distances = np.stack([measure_outside(frame["points"], box) for box in frame["boxes"].astype(float)])
    on_box = np.abs(distances) < ATOL_FLOAT32 * 10
    on_ground = np.abs(frame["points"][:, 2] + LIDAR_HEIGHT) < ATOL_FLOAT32

    assert (on_box.any(0) | on_ground).all()
    assert (distances > -ATOL_FLOAT32 * 10).all()  # none is inside
    counted = [int((is_on & ~on_ground).sum()) for is_on in on_box]
    assert counted == [pytest.approx(count, abs=2) for count in frame["num_points"]]  # feet of boxes are on the ground


@pytest.mark.parametrize("index", range(3))
def test_a_scan_is_that_of_a_loop_over_all_rays(index):
    """The windows of rays that a box is tested against leave none out."""
    boxes = build_frame((6, index), EXACT)["boxes"].astype(float)
    elevations, azimuths = np.linspace(0.1, -0.4, 7), -np.pi + 0.05 + 2 * np.pi / 90 * np.arange(90)

    directions, hits = scan(boxes, elevations, azimuths, -LIDAR_HEIGHT)

    flat = directions.reshape(-1, 3)
    entries = np.stack([intersect_box(np.zeros(3), flat, box)[0] for box in boxes])
    with np.errstate(divide="ignore"):
        ground = np.where(flat[:, 2] < 0, -LIDAR_HEIGHT / flat[:, 2], np.inf)
    expected = np.minimum(entries.min(0), ground)
    np.testing.assert_allclose(hits.distances.ravel(), expected, rtol=1e-12)
    is_box = entries.min(0) < ground
    assert (hits.objects.ravel()[is_box] == entries.argmin(0)[is_box]).all()
    assert set(hits.objects.ravel()[~is_box]) <= {GROUND, NOTHING}


def test_a_ray_enters_where_a_fine_walk_along_it_does():
    generator = np.random.default_rng(0)
    box = np.array([6.0, 2.0, 0.5, 4.0, 2.0, 1.5, 0.7])
    directions = np.array([6.0, 2.0, 0.4]) + generator.normal(0, 0.7, (60, 3))

    distances, _ = intersect_box(np.zeros(3), directions, box)

    steps = np.linspace(0, 3, 30_001)
    for direction, distance in zip(directions, distances, strict=True):
        inside = np.flatnonzero(find_points_inside(steps[:, None] * direction, box[None])[0])
        expected = steps[inside[0]] if len(inside) else np.inf
        assert distance == pytest.approx(expected, abs=2e-4)
    assert 10 < np.isfinite(distances).sum() < 60


def test_hidden_objects_have_no_points():
    boxes = np.array([[8.0, 0, 0, 1, 6, 4, 0, 0, 0], [12.0, 0, -1, 1, 1, 1, 0, 0, 0]])  # a wall before a crate
    objects = driving_scenes.Objects(boxes, np.array([3, 9]), ["", ""])

    _, counts = driving_scenes.scan_objects(np.random.default_rng(0), objects, EXACT)

    assert counts[0] > 20
    assert counts[1] == 0


@pytest.mark.parametrize("num_cameras", [2, 3, 4, 5, 6])
def test_pixels_of_a_box_fill_its_projection(num_cameras):
    """A lone box is seen within the outline of its corners, up to a pixel at its border, and in none other."""
    cameras = build_cameras(SceneSettings(num_cameras=num_cameras, image_size=(90, 150)))
    generator = np.random.default_rng(num_cameras)
    seen = 0
    for _ in range(20):
        box = build_boxes(generator, 1)[0]
        box[:2] *= 14 / np.hypot(*box[:2])
        for camera in cameras:
            _, hits = render(camera, box[None], np.array([[200, 10, 10]]), -LIDAR_HEIGHT)
            pixels, depths = project(compute_corners(box[None])[0], camera.lidar2img)
            rows, columns = np.nonzero(hits.objects == 0)
            if (depths < 0.1).any():
                continue
            low, high = pixels.min(0), pixels.max(0)
            is_inside = (low >= 0).all() and (high <= [149, 89]).all()
            if not len(rows):
                assert not is_inside
                continue
            seen += 1
            assert low[0] <= columns.min() <= columns.max() <= high[0]
            assert low[1] <= rows.min() <= rows.max() <= high[1]
            if is_inside and box[2] - box[5] / 2 > -LIDAR_HEIGHT:
                np.testing.assert_allclose([columns.min(), columns.max()], [low[0], high[0]], atol=1.0)
    assert seen >= 5


def test_points_project_onto_the_pixels_of_their_object():
    """What the LiDAR hits is what a camera shows there, but for the different places of the two and for borders."""
    settings = SceneSettings(range_noise=0.0, drop_rate=0.0, num_sweeps=0, image_size=(128, 320))
    agreements = []
    for index in range(NUM_SCENES):
        frame = build_frame((7, index), settings)
        boxes = frame["boxes"].astype(float)
        for camera in build_cameras(settings):
            _, hits = render(camera, boxes, np.zeros((len(boxes), 3)), -LIDAR_HEIGHT)
            pixels, depths = project(frame["points"][:, :3].astype(float), camera.lidar2img)
            nearest = np.rint(pixels)
            shown = (depths > 0.1) & (nearest >= 0).all(1) & (nearest < [320, 128]).all(1)
            columns, rows = nearest[shown].astype(int).T
            objects = np.full(len(depths), GROUND)
            for number, box in enumerate(boxes):
                objects[np.abs(measure_outside(frame["points"], box)) < 1e-3] = number
            agreements.append(hits.objects[rows, columns] == objects[shown])
    assert np.concatenate(agreements).mean() > 0.97


def test_front_and_rear_differ_in_color():
    camera = build_cameras(SceneSettings(num_cameras=4, image_size=(80, 120)))[0]
    ahead, back = [np.array([[0, 12.0, 0, 4, 2, 2, yaw, 0, 0]]) for yaw in (np.pi / 2, -np.pi / 2)]

    images = [render(camera, box, np.array([[90.0, 90, 200]]), -LIDAR_HEIGHT)[0] for box in (ahead, back)]

    rear, front = images[0][40, 60], images[1][40, 60]
    assert front.sum() > rear.sum() + 100


def test_scene_has_no_overlaps_and_stands_on_the_ground():
    for index in range(NUM_SCENES):
        boxes = build_frame((1, index))["boxes"].astype(float)

        overlaps = find_bev_overlaps(boxes, boxes)

        assert overlaps.sum() == len(boxes)  # each with itself
        np.testing.assert_allclose(boxes[:, 2] - boxes[:, 5] / 2, -LIDAR_HEIGHT, atol=1e-5)
        low, high = SceneSettings().distances
        assert ((np.hypot(boxes[:, 0], boxes[:, 1]) >= low) & (np.hypot(boxes[:, 0], boxes[:, 1]) <= high)).all()


def test_earlier_sweep_shows_moving_objects_behind_their_place():
    settings = SceneSettings(range_noise=0.0, drop_rate=0.0, num_sweeps=2, sweep_interval=0.4, moving_prob=1.0)
    frame = build_frame((2, 0), settings)
    boxes = frame["boxes"].astype(float)
    moving = np.flatnonzero(np.hypot(boxes[:, 7], boxes[:, 8]) > 2)

    for lag in (0.0, 0.4, 0.8):
        points = frame["points"][np.isclose(frame["points"][:, 4], lag)]
        earlier = boxes.copy()
        earlier[:, :2] -= lag * boxes[:, 7:9]
        distances = np.stack([measure_outside(points, box) for box in earlier])
        assert (distances > -1e-3).all()
        assert any((np.abs(distances[index]) < 1e-3).sum() > 10 for index in moving)


def test_velocity_follows_the_heading_and_matches_the_attribute():
    for index in range(NUM_SCENES):
        frame = build_frame((3, index))
        boxes = frame["boxes"].astype(float)
        speed = np.hypot(boxes[:, 7], boxes[:, 8])
        forward = np.cos(boxes[:, 6]) * boxes[:, 7] + np.sin(boxes[:, 6]) * boxes[:, 8]
        np.testing.assert_allclose(forward, speed, atol=1e-5)
        kinds = [list(KINDS.values())[label] for label in frame["labels"]]
        expected = [kind.attributes[0 if moves else 1] for kind, moves in zip(kinds, speed > 0, strict=True)]
        assert frame["attributes"] == expected


@pytest.mark.parametrize("pair", [("truck", "bus"), ("motorcycle", "bicycle")])
def test_only_color_tells_these_classes_apart(pair):
    first, second = (KINDS[name] for name in pair)

    assert (first.size, first.reflectivity, first.speeds) == (second.size, second.reflectivity, second.speeds)
    assert np.abs(np.subtract(first.color, second.color)).max() > 100


def test_a_key_gives_one_scene():
    first, again, other = build_frame((0, 1, 2)), build_frame((0, 1, 2)), build_frame((0, 1, 3))

    assert np.array_equal(first["points"], again["points"])
    assert all(np.array_equal(a, b) for a, b in zip(first["images"], again["images"], strict=True))
    assert not np.array_equal(first["points"][:100], other["points"][:100])


def test_dataset_has_disjoint_splits_whose_beginning_does_not_depend_on_their_size():
    small = driving_scenes.build_dataset({"train": 2, "validation": 2, "test": 1}, seed=3)
    large = driving_scenes.build_dataset({"train": 3}, seed=3)

    assert {split: len(rows) for split, rows in small.items()} == {"train": 2, "validation": 2, "test": 1}
    boxes = {tuple(np.ravel(row["boxes"])) for rows in small.values() for row in rows}
    assert len(boxes) == 5
    assert large["train"][1]["boxes"] == small["train"][1]["boxes"]
    assert small["test"][0]["token"] == "test-00000"


def test_a_row_of_the_dataset_is_the_frame(monkeypatch):
    monkeypatch.setattr(driving_scenes, "SPLITS", {"train": 1, "validation": 1, "test": 2})
    loaded = load_dataset("driving_scenes")

    row, frame = decode_row(loaded["test"][1]), decode_row(build_frame((0, 2, 1)))

    for name in ("intrinsics", "lidar2cam", "points", "boxes", "labels", "lidar2ego", "ego2global"):
        assert np.array_equal(row[name], frame[name]), name
        assert row[name].dtype == frame[name].dtype
    assert all((a == b).all() for a, b in zip(row["images"], frame["images"], strict=True))
    assert row["num_points"] == frame["num_points"]


def test_settings_change_the_sensors():
    frame = build_frame((0,), SceneSettings(num_cameras=6, image_size=(32, 48), num_beams=4, num_azimuths=50))

    assert [image.size for image in frame["images"]] == [(48, 32)] * 6
    assert len(set(frame["cameras"])) == 6
    assert len(frame["points"]) <= 2 * 4 * 50


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_cameras": 1}, "`num_cameras` must be in .2, 6.; got 1"),
        ({"num_objects": (5, 3)}, "`num_objects` .* got 5 and 3"),
        ({"distances": (-1, 3)}, "`distances` .* got -1 and 3"),
        ({"drop_rate": 1.5}, "`drop_rate` must be in .0, 1.; got 1.5"),
        ({"num_beams": 0}, "`num_beams` must be at least 1; got 0"),
        ({"image_size": (0, 5)}, "`image_size` must be a positive height and width"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_refuses_settings_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        SceneSettings(**settings)


def test_refuses_an_unknown_split():
    with pytest.raises(ValueError, match="`sizes` must have the keys train, validation, test; got val"):
        driving_scenes.build_dataset({"val": 3})


def test_a_scene_without_objects_has_empty_columns():
    frame = build_frame((0,), SceneSettings(num_objects=(0, 0)))

    assert frame["boxes"].shape == (0, 9)
    assert frame["labels"] == frame["num_points"] == frame["attributes"] == []


# Geometry of boxes


def test_overlaps_are_those_of_densely_sampled_areas():
    generator = np.random.default_rng(1)
    boxes, others = build_boxes(generator, 12, spread=6), build_boxes(generator, 9, spread=6)
    grid = np.stack(np.meshgrid(*[np.linspace(-0.5, 0.5, 60)] * 2), -1).reshape(-1, 2)

    overlaps = find_bev_overlaps(boxes, others)

    for first, row in zip(boxes, overlaps, strict=True):
        inside = rotate(np.pad(grid * first[3:5], ((0, 0), (0, 1))), first[6]) + first[:3]
        flat = others.copy()
        flat[:, 5] = 100
        shared = find_points_inside(inside, flat).mean(1)
        assert (row[shared > 0]).all()
        assert not row[(shared == 0) & (find_gap(first, others) > 0.15)].any()
    assert 0.1 < overlaps.mean() < 0.9


def find_gap(box, others):
    """Smallest distance between the borders of rectangles, sampled."""

    def border(rectangle):
        corners = compute_corners(rectangle[None])[0, :4, :2]
        weights = np.linspace(0, 1, 40)[:, None]
        return np.concatenate([a + weights * (b - a) for a, b in zip(corners, np.roll(corners, -1, 0), strict=True)])

    edge = border(box)
    return np.array([np.linalg.norm(edge[:, None] - border(other)[None], axis=-1).min() for other in others])


def test_corners_are_the_extreme_points_of_a_box():
    boxes = build_boxes(np.random.default_rng(2), 5)

    corners = compute_corners(boxes)

    for box, own in zip(boxes, corners, strict=True):
        local = rotate(own - box[:3], -box[6])
        np.testing.assert_allclose(np.abs(local), np.broadcast_to(box[3:6] / 2, (8, 3)), atol=1e-12)
        assert len({tuple(np.sign(corner)) for corner in local}) == 8


def test_angles_are_wrapped():
    angles = np.array([np.pi, -np.pi, 7.0, -9.0, 0.5])

    wrapped = wrap_angle(angles)

    np.testing.assert_allclose(np.exp(1j * wrapped), np.exp(1j * angles), atol=1e-12)
    assert ((wrapped >= -np.pi) & (wrapped < np.pi)).all()
