"""Sensors that fail: which images and points are left, errors of calibration, what is refused."""

import numpy as np
import pytest

from decahub.models.cmt.sensor_failures import CmtSensorDropout, estimate_rings


NAMES = ["front", "left", "back"]
ATOL = 1e-12  # float64


def build_frame(num_points: int = 400, **fields):
    generator = np.random.default_rng(0)
    points = generator.normal(size=(num_points, 5)).astype(np.float32) * 10
    poses = np.tile(np.eye(4), (3, 1, 1))
    poses[:, :3, 3] = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    return {
        "images": ["image of front", "image of left", "image of back"],
        "cameras": list(NAMES),
        "intrinsics": np.arange(27, dtype=np.float64).reshape(3, 3, 3),
        "lidar2cam": poses,
        "points": points,
        "token": "frame",
        **fields,
    }


def test_nothing_fails_by_default():
    frame = build_frame()

    left = CmtSensorDropout()(frame)

    assert left.keys() == frame.keys()
    assert np.array_equal(left["points"], frame["points"])
    assert left["images"] == frame["images"]


def test_missing_cameras_leave_in_all_fields():
    frame = build_frame()

    left = CmtSensorDropout(missing_cameras=("left",))(frame)

    assert left["images"] == ["image of front", "image of back"]
    assert left["cameras"] == ["front", "back"]
    assert np.array_equal(left["intrinsics"], frame["intrinsics"][[0, 2]])
    assert np.array_equal(left["lidar2cam"], frame["lidar2cam"][[0, 2]])
    assert frame["cameras"] == NAMES


def test_all_cameras_missing_is_no_camera():
    left = CmtSensorDropout(missing_cameras=tuple(NAMES))(build_frame())

    assert [left[name] for name in ("images", "cameras", "intrinsics", "lidar2cam")] == [None] * 4
    assert len(left["points"]) == 400


def test_missing_lidar_is_no_cloud():
    left = CmtSensorDropout(is_lidar_missing=True)(build_frame())

    assert left["points"] is None
    assert len(left["images"]) == 3


@pytest.mark.parametrize(("num_beams", "kept"), [(1, [4]), (2, [2, 6]), (4, [1, 3, 5, 7]), (8, list(range(8)))])
def test_beams_are_spread_evenly_over_the_rings(num_beams, kept):
    frame = build_frame(rings=np.arange(400) % 8)

    left = CmtSensorDropout(num_beams=num_beams, num_sensor_beams=8)(frame)

    assert sorted(set(left["rings"])) == kept
    assert np.array_equal(left["points"], frame["points"][np.isin(frame["rings"], kept)])


def test_rings_are_told_by_elevation():
    rings = np.repeat(np.arange(16), 25)
    elevations = np.radians(-25 + 2.5 * rings)
    azimuths, distances = np.random.default_rng(1).uniform([0, 3], [2 * np.pi, 60], (400, 2)).T
    points = np.stack(
        [np.cos(azimuths) * np.cos(elevations), np.sin(azimuths) * np.cos(elevations), np.sin(elevations)], axis=1
    )

    assert np.array_equal(estimate_rings(points * distances[:, None], 16), rings)


def test_a_single_elevation_is_one_ring():
    assert estimate_rings(np.array([[1.0, 0, 0], [0, 2.0, 0]]), 16).tolist() == [0, 0]


@pytest.mark.parametrize("field_of_view", [60, 120, 180, 360])
@pytest.mark.parametrize("turn", [None, 0.0, 2.0], ids=["lidar", "ego", "turned"])
def test_field_of_view_is_centered_forward(field_of_view, turn):
    frame, forward = build_frame(), np.array([0.0, 1.0])
    if turn is not None:
        pose = np.eye(4)  # the vehicle's axes are turned by `turn` against those of the LiDAR
        pose[:2, :2] = [[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]
        frame["lidar2ego"], forward = pose, np.array([np.cos(turn), np.sin(turn)])

    left = CmtSensorDropout(field_of_view=field_of_view)(frame)

    planar = frame["points"][:, :2].astype(np.float64)
    cosines = planar @ forward / np.linalg.norm(planar, axis=1)
    assert np.array_equal(left["points"], frame["points"][cosines >= np.cos(np.radians(field_of_view / 2))])


def test_calibration_is_off_by_the_angle_and_distance():
    frame = build_frame()

    left = CmtSensorDropout(rotation_error=3.0, translation_error=0.25)(frame)

    errors = left["lidar2cam"] @ np.linalg.inv(frame["lidar2cam"])
    traces = np.trace(errors[:, :3, :3], axis1=1, axis2=2)
    np.testing.assert_allclose(np.degrees(np.arccos((traces - 1) / 2)), 3.0, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(errors[:, :3, 3], axis=1), 0.25, atol=ATOL)
    rotations = left["lidar2cam"][:, :3, :3]
    np.testing.assert_allclose(rotations @ rotations.transpose(0, 2, 1), np.tile(np.eye(3), (3, 1, 1)), atol=ATOL)
    assert not np.allclose(errors[0], errors[1])


def test_errors_follow_seed_and_frame():
    frame, failure = build_frame(), CmtSensorDropout(rotation_error=3.0, seed=5)

    first, again, other_frame = failure(frame, 1), failure(frame, 1), failure(frame, 2)
    other_seed = CmtSensorDropout(rotation_error=3.0, seed=6)(frame, 1)

    assert np.array_equal(first["lidar2cam"], again["lidar2cam"])
    assert not np.allclose(first["lidar2cam"], other_frame["lidar2cam"])
    assert not np.allclose(first["lidar2cam"], other_seed["lidar2cam"])


def test_empty_cloud_stays_empty():
    left = CmtSensorDropout(num_beams=4, field_of_view=90)(build_frame(points=np.zeros((0, 5), np.float32)))

    assert left["points"].shape == (0, 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"missing_cameras": ("rear",)}, "name cameras of the frame, front, left, back; got 'rear'"),
        ({"missing_cameras": tuple(NAMES), "is_lidar_missing": True}, "must keep a sensor"),
        ({"missing_cameras": "front"}, "`missing_cameras` must be a tuple of names; got 'front'"),
        ({"num_beams": 0}, r"`num_beams` must lie in \[1, 32\]; got 0"),
        ({"num_beams": 33}, r"`num_beams` must lie in \[1, 32\]; got 33"),
        ({"num_sensor_beams": 0}, "`num_sensor_beams` must be at least 1; got 0"),
        ({"field_of_view": 0}, r"`field_of_view` must lie in \(0, 360\] degrees; got 0"),
        ({"rotation_error": -1.0}, "`rotation_error` must be at least 0; got -1.0"),
        ({"translation_error": float("nan")}, "`translation_error` must be at least 0; got nan"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        CmtSensorDropout(**arguments)(build_frame())
