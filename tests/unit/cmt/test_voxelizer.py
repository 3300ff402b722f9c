"""Voxels: a slow loop over points, limits, borders, averages."""

import numpy as np
import pytest
import torch

from decahub.models.cmt.lidar.voxelizer import average_voxels, compute_grid_shape, voxelize_dynamic, voxelize_hard


VOXEL_SIZE, RANGE = (0.5, 0.8, 1.0), (-2.0, -4.0, -1.0, 3.0, 4.0, 2.0)
GRID_SHAPE = (3, 10, 10)


def build_points(num_points: int = 400, seed: int = 0) -> np.ndarray:
    """Points, a part of them outside of the range."""
    spread = np.array([2.5, 3.0, 1.5, 9.0, 0.2])
    return (np.random.default_rng(seed).standard_normal((num_points, 5)) * spread).astype(np.float32)


def voxelize_slowly(points, max_points: int, max_voxels: int):
    """The reference: one point after the other."""
    voxels: dict[tuple[int, ...], list[np.ndarray]] = {}
    for point in points:
        cell = np.floor((point[:3] - np.float32(RANGE[:3])) / np.float32(VOXEL_SIZE)).astype(int)[::-1]
        if (cell < 0).any() or (cell >= GRID_SHAPE).any():
            continue
        if tuple(cell) not in voxels and len(voxels) == max_voxels:
            continue
        kept = voxels.setdefault(tuple(cell), [])
        if len(kept) < max_points:
            kept.append(point)
    return voxels


@pytest.mark.parametrize(("max_points", "max_voxels"), [(3, 1000), (1, 40), (100, 7), (2, 1)])
def test_hard_voxels_equal_a_loop_over_points(max_points, max_voxels):
    points = build_points()
    assert compute_grid_shape(VOXEL_SIZE, RANGE) == GRID_SHAPE

    voxels = voxelize_hard(points, VOXEL_SIZE, RANGE, GRID_SHAPE, max_points, max_voxels)

    expected = voxelize_slowly(points, max_points, max_voxels)
    assert voxels.points.dtype == np.float32
    assert [tuple(cell) for cell in voxels.coords.tolist()] == list(expected)
    assert voxels.num_points.tolist() == [len(kept) for kept in expected.values()]
    for row, kept in zip(voxels.points, expected.values(), strict=True):
        assert np.array_equal(row[: len(kept)], np.stack(kept))
        assert not row[len(kept) :].any()


def test_dynamic_voxels_are_means_of_all_points():
    points = build_points()

    voxels = voxelize_dynamic(points, VOXEL_SIZE, RANGE, GRID_SHAPE)

    expected = voxelize_slowly(points, 10**6, 10**6)
    assert [tuple(cell) for cell in voxels.coords.tolist()] == list(expected)
    assert voxels.num_points.tolist() == [1] * len(expected)
    means = np.stack([np.mean(kept, axis=0, dtype=np.float64) for kept in expected.values()])
    np.testing.assert_allclose(voxels.points[:, 0], means, rtol=1e-6, atol=1e-6)


def test_points_on_borders():
    """The lower border belongs to the range, the upper one does not."""
    lower, upper = np.array(RANGE[:3]), np.array(RANGE[3:])
    points = np.stack([lower, upper, np.nextafter(lower, -9), [0.5, 0, 0]]).astype(np.float32)
    points[2] -= 1e-6

    voxels = voxelize_hard(points, VOXEL_SIZE, RANGE, GRID_SHAPE, 5, 5)

    assert voxels.coords.tolist() == [[0, 0, 0], [1, 5, 5]]


@pytest.mark.parametrize("points", [np.zeros((0, 5), np.float32), np.full((4, 5), 99, np.float32)], ids=["no", "far"])
def test_no_point_in_the_range_gives_no_voxel(points):
    hard = voxelize_hard(points, VOXEL_SIZE, RANGE, GRID_SHAPE, 4, 10)
    dynamic = voxelize_dynamic(points, VOXEL_SIZE, RANGE, GRID_SHAPE)

    assert (hard.points.shape, hard.num_points.shape, hard.coords.shape) == ((0, 4, 5), (0,), (0, 3))
    assert (dynamic.points.shape, dynamic.num_points.shape, dynamic.coords.shape) == ((0, 1, 5), (0,), (0, 3))


def test_average_counts_points_only():
    voxels = torch.tensor([[[2.0, 4.0], [4.0, 8.0], [0.0, 0.0]], [[5.0, 6.0], [0.0, 0.0], [0.0, 0.0]]])

    average = average_voxels(voxels, torch.tensor([2, 1]))

    assert torch.equal(average, torch.tensor([[3.0, 6.0], [5.0, 6.0]]))
