"""Point clouds to voxels for CMT."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import BatchFeature, FeatureExtractionMixin

from ..shared.checks import refuse_unknown_options
from .lidar.point_cloud import merge_sweeps, read_points
from .lidar.voxelizer import Voxels, compute_grid_shape, voxelize_dynamic, voxelize_hard


VOXELIZATIONS = ("hard", "dynamic")


class CmtPointCloudFeatureExtractor(FeatureExtractionMixin):
    """Checks point clouds and sorts their points into voxels.

    Points are rows of x, y, z in meters in the LiDAR's frame, intensity, and time lag in seconds: 0 for the key frame,
    the age for earlier sweeps. Published weights expect intensities from 0 to 255, as in nuScenes; multiply those from
    0 to 1 by 255.

    Args:
        voxel_size (`list[float]`): Size of a voxel in meters, (x, y, z).
        point_cloud_range (`list[float]`): Nearest and farthest corner in meters, each (x, y, z). Points outside are
            dropped.
        sparse_shape (`list[int]`, *optional*): Number of voxels, **(z, y, x)**, of the model's sparse encoder. By
            default what the range holds, plus one in z.
        clip_to_sparse_shape (`bool`, defaults to `True`): Whether points beyond `sparse_shape` are dropped. That of
            published CMT-R50 is smaller than its range; the model refuses voxels outside of it.
        voxelization (`str`, defaults to `"hard"`): `"hard"` keeps the first points of each voxel and the first voxels;
            `"dynamic"` averages all points and has no limits.
        max_points_per_voxel (`int`, defaults to 10): Points of a voxel, if hard.
        max_voxels (`int`, defaults to 160000): Voxels of a point cloud in evaluation, if hard.
        max_training_voxels (`int`, defaults to 120000): The same in training.

    Raises:
        ValueError: If an argument is unknown or has a value that is not allowed.

    Example:
    ```python
    >>> extractor = CmtPointCloudFeatureExtractor()
    >>> inputs = extractor([[1.0, 2.0, 0.5, 30.0], [1.01, 2.01, 0.5, 50.0]])
    >>> inputs["voxels"].shape, inputs["num_points_per_voxel"].tolist()
    ((1, 10, 5), [2])

    ```
    """

    model_input_names = ["voxels", "num_points_per_voxel", "voxel_coords", "num_voxels"]

    def __init__(
        self,
        voxel_size: Sequence[float] = (0.1, 0.1, 0.2),
        point_cloud_range: Sequence[float] = (-54.0, -54.0, -5.0, 54.0, 54.0, 3.0),
        sparse_shape: Sequence[int] | None = (41, 1024, 1024),
        clip_to_sparse_shape: bool = True,
        voxelization: str = "hard",
        max_points_per_voxel: int = 10,
        max_voxels: int = 160000,
        max_training_voxels: int = 120000,
        **kwargs: Any,
    ):
        refuse_unknown_options(self, kwargs)
        super().__init__(**kwargs)
        self.voxel_size = _read_numbers("voxel_size", voxel_size, 3)
        self.point_cloud_range = _read_numbers("point_cloud_range", point_cloud_range, 6)
        if min(self.voxel_size) <= 0:
            raise ValueError(f"`voxel_size` must be above 0; got {self.voxel_size}.")
        depth, height, width = compute_grid_shape(self.voxel_size, self.point_cloud_range)
        if min(depth, height, width) < 1:
            raise ValueError(
                f"`point_cloud_range` must hold a voxel on each axis, from the nearest to the farthest corner; got "
                f"{self.point_cloud_range} and voxels of {self.voxel_size}."
            )
        shape = (depth + 1, height, width) if sparse_shape is None else sparse_shape
        self.sparse_shape = [int(size) for size in _read_numbers("sparse_shape", shape, 3)]
        if voxelization not in VOXELIZATIONS:
            raise ValueError(f"`voxelization` must be one of {list(VOXELIZATIONS)}; got {voxelization!r}.")
        counts = {
            "max_points_per_voxel": max_points_per_voxel,
            "max_voxels": max_voxels,
            "max_training_voxels": max_training_voxels,
            "sparse_shape": min(self.sparse_shape),
        }
        for name, value in counts.items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"`{name}` must be a whole number of at least 1; got {value!r}.")
        self.clip_to_sparse_shape = clip_to_sparse_shape
        self.voxelization = voxelization
        self.max_points_per_voxel = max_points_per_voxel
        self.max_voxels = max_voxels
        self.max_training_voxels = max_training_voxels

    merge_sweeps = staticmethod(merge_sweeps)

    @property
    def grid_shape(self) -> tuple[int, int, int]:
        """Number of voxels, (z, y, x), in which points are kept."""
        depth, height, width = compute_grid_shape(self.voxel_size, self.point_cloud_range)
        if not self.clip_to_sparse_shape:
            return depth, height, width
        limits = self.sparse_shape
        return min(depth, limits[0]), min(height, limits[1]), min(width, limits[2])

    def __call__(self, points: Any, return_tensors: str | None = None, *, training: bool = False) -> BatchFeature:
        """Voxels of one point cloud or of a list of them.

        Args:
            points: array, tensor or list of shape `(num_points, 5)` (x, y, z, intensity, time lag) or
                `(num_points, 4)` (time lag 0); or a list of such arrays, one for each sample. A cloud may be empty.
                Points with NaN or infinity are dropped with a warning.
            return_tensors (`str`, *optional*): "pt" or "np"; unset: numpy arrays.
            training (`bool`, defaults to `False`): Whether `max_training_voxels` is the limit.

        Returns:
            `BatchFeature` with `voxels` of shape `(num_voxels, max_points_per_voxel, 5)`, `num_points_per_voxel` of
            shape `(num_voxels,)`, `voxel_coords` of shape `(num_voxels, 4)` (sample, z, y, x), and `num_voxels` of
            shape `(batch_size,)`, for all samples one after the other.

        Raises:
            TypeError: If a cloud does not hold numbers.
            ValueError: If a cloud has another shape.
        """
        clouds = _split_batch(points)
        samples = [self._voxelize(cloud, training) for cloud in clouds]
        coords = [
            np.pad(sample.coords, ((0, 0), (1, 0)), constant_values=index) for index, sample in enumerate(samples)
        ]
        features = {
            "voxels": np.concatenate([sample.points for sample in samples]),
            "num_points_per_voxel": np.concatenate([sample.num_points for sample in samples]).astype(np.int64),
            "voxel_coords": np.concatenate(coords),
            "num_voxels": np.array([len(sample.coords) for sample in samples], dtype=np.int64),
        }
        return BatchFeature(features, tensor_type=return_tensors)

    def _voxelize(self, points: np.ndarray, training: bool) -> Voxels:
        grid = (self.voxel_size, self.point_cloud_range, self.grid_shape)
        if self.voxelization == "dynamic":
            return voxelize_dynamic(points, *grid)
        max_voxels = self.max_training_voxels if training else self.max_voxels
        return voxelize_hard(points, *grid, self.max_points_per_voxel, max_voxels)


def _split_batch(points: Any) -> list[np.ndarray]:
    """The clouds of a batch: a list of arrays, or of lists of rows, has one for each sample."""
    if isinstance(points, (list, tuple)) and len(points) > 0 and _count_dimensions(points[0]) != 1:
        return [read_points(cloud, f"points[{index}]") for index, cloud in enumerate(points)]
    return [read_points(points)]


def _count_dimensions(value: Any) -> int:
    if hasattr(value, "ndim"):
        return 2 if value.ndim == 1 and len(value) == 0 else value.ndim  # nothing is an empty cloud, not a row
    if isinstance(value, (list, tuple)):
        return 1 + _count_dimensions(value[0]) if len(value) else 2
    return 0


def _read_numbers(name: str, values: Sequence[float], length: int) -> list[float]:
    if len(values) != length:
        raise ValueError(f"`{name}` must hold {length} numbers; got {list(values)}.")
    if not np.isfinite(values).all():
        raise ValueError(f"`{name}` must hold finite numbers; got {list(values)}.")
    return [value if isinstance(value, int) else float(value) for value in values]


__all__ = ["CmtPointCloudFeatureExtractor"]
