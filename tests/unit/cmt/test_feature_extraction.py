"""CMT's feature extractor: batches, inputs that users try, sweeps, options, files."""

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoFeatureExtractor

from decahub import CmtPointCloudFeatureExtractor
from decahub.models.cmt.lidar.point_cloud import merge_sweeps


OPTIONS = {
    "voxel_size": [1.0, 0.5, 0.5],
    "point_cloud_range": [-8.0, -6.0, -2.0, 8.0, 6.0, 2.0],
    "sparse_shape": None,
    "max_points_per_voxel": 3,
    "max_voxels": 60,
    "max_training_voxels": 20,
}
RTOL = 1e-6


def build(**overrides) -> CmtPointCloudFeatureExtractor:
    return CmtPointCloudFeatureExtractor(**{**OPTIONS, **overrides})


def build_points(num_points: int = 90, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    points = generator.uniform([-9, -7, -2, 0, 0], [9, 7, 2, 255, 0.5], (num_points, 5))
    return points.astype(np.float32)


@pytest.fixture(autouse=True)
def no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_batch_is_its_samples_one_after_the_other():
    extractor = build()
    clouds = [build_points(70, seed=1), np.zeros((0, 5)), build_points(30, seed=2)]

    batch = extractor(clouds, return_tensors="pt")

    singles = [extractor(cloud) for cloud in clouds]
    assert batch["num_voxels"].tolist() == [len(single["voxels"]) for single in singles]
    assert batch["voxel_coords"].dtype == batch["num_points_per_voxel"].dtype == torch.int64
    for sample, single in enumerate(singles):
        rows = batch["voxel_coords"][:, 0] == sample
        assert np.array_equal(batch["voxels"][rows].numpy(), single["voxels"])
        assert np.array_equal(batch["voxel_coords"][rows, 1:].numpy(), single["voxel_coords"][:, 1:])
        assert np.array_equal(batch["num_points_per_voxel"][rows].numpy(), single["num_points_per_voxel"])


@pytest.mark.parametrize(
    "kind", [list, torch.from_numpy, np.float64, tuple], ids=["list", "torch", "float64", "tuple"]
)
def test_kinds_of_input(kind):
    points = build_points()
    given = kind(points.tolist()) if kind in (list, tuple) else kind(points)

    assert np.array_equal(build()(given)["voxels"], build()(points)["voxels"])


def test_batch_of_lists():
    points = build_points(5)

    assert build()([points.tolist(), [], points.tolist()])["num_voxels"].tolist()[1] == 0


def test_half_precision_is_accepted():
    points = build_points().astype(np.float16)

    assert np.array_equal(build()(points)["voxels"], build()(points.astype(np.float32))["voxels"])


def test_missing_time_lag_is_zero():
    points = build_points()
    expected = points.copy()
    expected[:, 4] = 0

    assert np.array_equal(build()(points[:, :4])["voxels"], build()(expected)["voxels"])


def test_input_is_left_alone():
    points = build_points()
    before = points.copy()

    build()(points)

    assert np.array_equal(points, before)


@pytest.mark.parametrize(
    "points", [[], np.zeros((0, 5)), [np.zeros((0, 4))], np.full((3, 4), 1e4)], ids=["list", "5", "batch", "far"]
)
@pytest.mark.parametrize(("voxelization", "num_slots"), [("hard", 3), ("dynamic", 1)])
def test_no_point_in_range(points, voxelization, num_slots):
    inputs = build(voxelization=voxelization)(points, return_tensors="pt")

    assert inputs["voxels"].shape == (0, num_slots, 5)
    assert inputs["num_points_per_voxel"].shape == (0,)
    assert inputs["voxel_coords"].shape == (0, 4)
    assert inputs["num_voxels"].tolist() == [0]


def test_one_point():
    inputs = build()([[0.1, 0.1, 0.1, 7.0, 0.0]])

    assert inputs["num_voxels"].tolist() == [1]
    assert inputs["voxel_coords"].tolist() == [[0, 4, 12, 8]]


def test_points_that_are_not_finite_are_dropped_with_their_number():
    points = build_points()
    points[3, 0], points[5, 3], points[6] = np.nan, np.inf, -np.inf

    with pytest.warns(UserWarning, match="3 of 90 points in `points` hold NaN or infinity") as caught:
        inputs = build()(points)

    assert len(caught) == 1
    assert np.array_equal(inputs["voxels"], build()(np.delete(points, [3, 5, 6], axis=0))["voxels"])


def test_points_too_far_for_float32_are_dropped():
    points = build_points().astype(np.float64)
    points[2, 1] = 1e300

    with pytest.warns(UserWarning, match="1 of 90 points in `points` hold NaN or infinity") as caught:
        build()(points)

    assert len(caught) == 1


def test_ring_numbers_in_place_of_time_lags_are_noticed():
    points = build_points()
    points[:, 4] = np.arange(len(points)) % 32

    with pytest.warns(UserWarning, match="whole numbers up to 31, like the ring numbers"):
        build()(points)


@pytest.mark.parametrize(
    ("points", "error", "message"),
    [
        (np.zeros((4, 3)), ValueError, r"shape \(num_points, 5\).*got \(4, 3\).*intensity is missing"),
        (np.zeros((4, 6)), ValueError, r"shape \(num_points, 5\).*got \(4, 6\)"),
        (np.zeros(5), ValueError, r"shape \(num_points, 5\).*got \(5,\)"),
        ([np.zeros((4, 5)), np.zeros((4, 3))], ValueError, r"`points\[1\]` must have shape"),
        (np.array([["a"] * 5]), TypeError, "`points` must hold real numbers"),
        (None, TypeError, "`points` must hold real numbers"),
        (np.zeros((2, 5), dtype=complex), TypeError, "`points` must hold real numbers"),
        (torch.zeros(2, 5, dtype=torch.complex64), TypeError, "`points` must hold real numbers"),
        (torch.zeros(2, 5, dtype=torch.bool), TypeError, "`points` must hold real numbers; got an array of bool"),
        ([[0.0] * 5, [0.0] * 4], ValueError, "`points` must have as many values for each point"),
    ],
    ids=["no intensity", "too wide", "flat", "second", "text", "none", "complex", "torch complex", "bool", "ragged"],
)
def test_refuses_points(points, error, message):
    with pytest.raises(error, match=message):
        build()(points)


def test_limits_of_training_and_evaluation():
    points = build_points(2000)

    assert build()(points)["num_voxels"].tolist() == [60]
    assert build()(points, training=True)["num_voxels"].tolist() == [20]


def test_dynamic_voxels_have_no_limit():
    points = build_points(2000)

    inputs = build(voxelization="dynamic")(points, training=True)

    assert len(inputs["voxels"]) > 60
    assert inputs["num_points_per_voxel"].tolist() == [1] * len(inputs["voxels"])


def test_voxels_beyond_the_sparse_shape_are_dropped_first():
    points = build_points(2000)
    points[:, 0] = np.abs(points[:, 0])  # x index of at least 8 of 16

    clipped = build(sparse_shape=[9, 24, 12])(points)
    whole = build(sparse_shape=[9, 24, 12], clip_to_sparse_shape=False)(points)

    assert clipped["voxel_coords"][:, 3].max() == 11
    assert len(clipped["voxels"]) == 60  # dropped voxels do not count
    assert whole["voxel_coords"][:, 3].max() == 15


BAD_OPTIONS = {
    "unknown": ({"voxel_sizes": [1, 1, 1]}, "Did you mean `voxel_size`"),
    "voxel": ({"voxel_size": [1.0, 0.0, 1.0]}, "`voxel_size` must be above 0"),
    "axes": ({"voxel_size": [1.0, 1.0]}, "`voxel_size` must hold 3 numbers"),
    "range": ({"point_cloud_range": [8, -6, -2, -8, 6, 2]}, "`point_cloud_range` must hold a voxel"),
    "nan": ({"point_cloud_range": [-8, float("nan"), -2, 8, 6, 2]}, "`point_cloud_range` must hold finite"),
    "kind": ({"voxelization": "soft"}, r"`voxelization` must be one of \['hard', 'dynamic'\]; got 'soft'"),
    "points": ({"max_points_per_voxel": 0}, "`max_points_per_voxel` must be a whole number of at least 1; got 0"),
    "voxels": ({"max_voxels": 2.5}, "`max_voxels` must be a whole number of at least 1; got 2.5"),
    "shape": ({"sparse_shape": [9, 0, 16]}, "`sparse_shape` must be a whole number of at least 1"),
}


@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS.values(), ids=BAD_OPTIONS)
def test_refuses_options(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


@pytest.mark.parametrize("load", [CmtPointCloudFeatureExtractor, AutoFeatureExtractor], ids=["class", "auto"])
def test_saved_extractor_equals_the_loaded_one(tmp_path, load):
    extractor = build(voxelization="dynamic", clip_to_sparse_shape=False)
    extractor.save_pretrained(tmp_path)

    loaded = load.from_pretrained(tmp_path)

    assert type(loaded) is CmtPointCloudFeatureExtractor
    assert loaded.to_dict() == extractor.to_dict()
    assert np.array_equal(loaded(build_points())["voxels"], extractor(build_points())["voxels"])


@pytest.mark.parametrize(("size", "num_voxels"), [(0.075, 17509), (0.1, 15347)], ids=["0.075", "0.1"])
def test_real_frame(size, num_voxels):
    """The spec's number of voxels; those of 0.1 m without the 26 beyond the sparse shape of CMT-R50."""
    if "DECAHUB_DATA_DIR" not in os.environ:
        pytest.skip("DECAHUB_DATA_DIR must name the folder that holds nuscenes_sample.")
    points = np.load(Path(os.environ["DECAHUB_DATA_DIR"]) / "nuscenes_sample" / "lidar_top.npy", allow_pickle=False)
    shape = {0.075: [41, 1440, 1440], 0.1: [41, 1024, 1024]}[size]

    inputs = CmtPointCloudFeatureExtractor(voxel_size=[size, size, 0.2], sparse_shape=shape)(points[:, :4])

    assert inputs["num_voxels"].tolist() == [num_voxels]


# --- Sweeps


def rotate_and_move(angle: float, translation: tuple[float, float, float]) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix[:3, 3] = translation
    return matrix


def test_sweeps_are_moved_into_the_key_frame():
    key, sweep = build_points(4)[:, :4], np.array([[2.0, 0.0, 1.0, 30.0]])

    merged = merge_sweeps(key, [sweep], [rotate_and_move(np.pi / 2, (10, 0, 0.5))], [0.05])

    assert merged.dtype == np.float32
    assert np.array_equal(merged[:4], np.pad(key, ((0, 0), (0, 1))))
    np.testing.assert_allclose(merged[4:], [[10.0, 2.0, 1.5, 30.0, 0.05]], rtol=RTOL, atol=1e-6)


def test_ring_of_a_key_frame_becomes_a_time_lag_of_zero():
    key = build_points(6)
    key[:, 4] = [0, 5, 9, 20, 30, 31]

    merged = CmtPointCloudFeatureExtractor.merge_sweeps(key, [], [], [])

    assert merged[:, 4].tolist() == [0.0] * 6
    assert np.array_equal(merged[:, :4], key[:, :4])


def test_points_near_the_sensor_stay_unless_told():
    key = np.zeros((1, 4))
    sweep = np.array([[0.5, 0.5, 0, 1], [0.5, 1.5, 0, 2], [-1.5, 0.5, 0, 3], [0.5, -0.5, 3, 4]])
    move = rotate_and_move(0.0, (100, 0, 0))

    assert merge_sweeps(key, [sweep], [move], [0.1])[:, 3].tolist() == [0, 1, 2, 3, 4]
    assert merge_sweeps(key, [sweep], [move], [0.1], min_distance=1.0)[:, 3].tolist() == [0, 2, 3]


IDENTITY = np.eye(4)
BAD_SWEEPS = {
    "transforms": (([np.zeros((2, 4))], [], [0.1]), "must have one entry for each of 1 sweeps; got 0 and 1"),
    "matrix": (([np.zeros((2, 4))], [2 * IDENTITY], [0.1]), r"`transforms\[0\]` must be a 4x4 matrix of a rotation"),
    "shape": (([np.zeros((2, 4))], [IDENTITY[:3]], [0.1]), r"`transforms\[0\]` must be a 4x4 matrix.*shape \(3, 4\)"),
    "age": (([np.zeros((2, 4))], [IDENTITY], [-0.1]), r"`time_lags\[0\]` must be an age"),
    "points": (([np.zeros((2, 3))], [IDENTITY], [0.1]), r"`sweeps\[0\]` must have shape"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD_SWEEPS.values(), ids=BAD_SWEEPS)
def test_refuses_sweeps(arguments, message):
    with pytest.raises(ValueError, match=message):
        merge_sweeps(np.zeros((3, 4)), *arguments)
