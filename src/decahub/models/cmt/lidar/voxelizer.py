"""Points to voxels: the reference's order and limits, without a loop over points."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch


class Voxels(NamedTuple):
    """Voxels of one point cloud, in the order of their first points.

    Args:
        points (`numpy.ndarray` of shape `(num_voxels, max_points, num_features)`): Points of each voxel, then zeros.
        num_points (`numpy.ndarray` of shape `(num_voxels,)`): Number of points that are kept.
        coords (`numpy.ndarray` of shape `(num_voxels, 3)`): z, y, x of each voxel.
    """

    points: np.ndarray
    num_points: np.ndarray
    coords: np.ndarray


def compute_grid_shape(voxel_size: Sequence[float], point_cloud_range: Sequence[float]) -> tuple[int, int, int]:
    """Number of voxels, (z, y, x), that the range holds.

    Args:
        voxel_size (`Sequence[float]`): Size of a voxel in meters, (x, y, z).
        point_cloud_range (`Sequence[float]`): Nearest and farthest corner in meters, each (x, y, z).
    """
    lower, upper = np.asarray(point_cloud_range, dtype=np.float64).reshape(2, 3)
    width, height, depth = np.round((upper - lower) / np.asarray(voxel_size, dtype=np.float64)).astype(int).tolist()
    return depth, height, width


def voxelize_hard(
    points: np.ndarray,
    voxel_size: Sequence[float],
    point_cloud_range: Sequence[float],
    grid_shape: Sequence[int],
    max_points: int,
    max_voxels: int,
) -> Voxels:
    """Voxels with at most `max_points` points each: the first voxels that a point falls in, and their first points.

    Args:
        points (`numpy.ndarray` of shape `(num_points, num_features)`): float32; x, y, z come first.
        voxel_size (`Sequence[float]`): Size of a voxel in meters, (x, y, z).
        point_cloud_range (`Sequence[float]`): Nearest and farthest corner in meters, each (x, y, z).
        grid_shape (`Sequence[int]`): Number of voxels, (z, y, x); points beyond them are dropped.
        max_points (`int`): Points of a voxel.
        max_voxels (`int`): Voxels.
    """
    points, coords = _keep_inside(points, voxel_size, point_cloud_range, grid_shape)
    voxel_of_point, first_points = _number_voxels(coords, grid_shape)
    num_voxels = min(len(first_points), max_voxels)
    order = np.argsort(voxel_of_point, kind="stable")
    sorted_voxels = voxel_of_point[order]
    starts = np.searchsorted(sorted_voxels, np.arange(len(first_points)))
    places = np.arange(len(order)) - starts[sorted_voxels]
    is_kept = (places < max_points) & (sorted_voxels < num_voxels)
    voxels = np.zeros((num_voxels, max_points, points.shape[1]), dtype=points.dtype)
    voxels[sorted_voxels[is_kept], places[is_kept]] = points[order[is_kept]]
    num_points = np.bincount(sorted_voxels[is_kept], minlength=num_voxels)
    return Voxels(voxels, num_points, coords[first_points[:num_voxels]])


def voxelize_dynamic(
    points: np.ndarray, voxel_size: Sequence[float], point_cloud_range: Sequence[float], grid_shape: Sequence[int]
) -> Voxels:
    """All voxels, each with one point: the mean of all points in it. Arguments as in [`voxelize_hard`]."""
    points, coords = _keep_inside(points, voxel_size, point_cloud_range, grid_shape)
    voxel_of_point, first_points = _number_voxels(coords, grid_shape)
    num_voxels = len(first_points)
    counts = np.bincount(voxel_of_point, minlength=num_voxels)
    sums = [np.bincount(voxel_of_point, weights=column, minlength=num_voxels) for column in points.T]  # float64
    means = (np.stack(sums, axis=1) / counts[:, None]).astype(points.dtype)
    return Voxels(means[:, None], np.ones(num_voxels, dtype=np.int64), coords[first_points])


def average_voxels(voxels: torch.Tensor, num_points_per_voxel: torch.Tensor) -> torch.Tensor:
    """Mean of the points of each voxel.

    Args:
        voxels (`torch.FloatTensor` of shape `(num_voxels, max_points, num_features)`): Points, then zeros.
        num_points_per_voxel (`torch.LongTensor` of shape `(num_voxels,)`): Number of points.

    Returns:
        `torch.FloatTensor` of shape `(num_voxels, num_features)`.
    """
    return voxels.sum(dim=1) / num_points_per_voxel[:, None].to(voxels.dtype)


def _keep_inside(
    points: np.ndarray, voxel_size: Sequence[float], point_cloud_range: Sequence[float], grid_shape: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Points inside of the grid, and (z, y, x) of their voxels."""
    # float32 as in the reference: which voxel a point on a border falls in depends on it.
    lower = np.asarray(point_cloud_range[:3], dtype=np.float32)
    cells = np.floor((points[:, :3].astype(np.float32) - lower) / np.asarray(voxel_size, dtype=np.float32))
    is_inside = ((cells >= 0) & (cells < np.asarray(grid_shape)[::-1])).all(axis=1)
    return points[is_inside], cells[is_inside, ::-1].astype(np.int64)


def _number_voxels(coords: np.ndarray, grid_shape: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Number of each point's voxel, counted in the order of first points, and the first point of each voxel."""
    _, first_points, voxel_of_point = np.unique(
        np.ravel_multi_index(tuple(coords.T), tuple(grid_shape)), return_index=True, return_inverse=True
    )
    order = np.argsort(first_points)
    numbers = np.empty_like(order)
    numbers[order] = np.arange(len(order))
    return numbers[voxel_of_point], first_points[order]
