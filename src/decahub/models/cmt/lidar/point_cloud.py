"""Point clouds as they come from outside: checked, and merged from several sweeps."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch


NUM_POINT_FEATURES = 5
"""x, y, z in meters, intensity from 0 to 255, time lag in seconds."""
TIME_LAG = 4


def read_points(points: Any, name: str = "points") -> np.ndarray:
    """A point cloud as float32 with five values a point; points that are not finite are dropped with a warning.

    Time lags that look like ring numbers, which nuScenes' files have in their place, give a warning too.

    Args:
        points: array, tensor or list of shape `(num_points, 5)`: x, y, z, intensity, time lag; or `(num_points, 4)`,
            which gets a time lag of 0. It may have no points.
        name (`str`): what messages call it.

    Returns:
        `numpy.ndarray` of shape `(num_finite_points, 5)`.

    Raises:
        TypeError: If it does not hold numbers.
        ValueError: If it has another shape.
    """
    array = _to_array(points, name)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"`{name}` must hold real numbers; got an array of {array.dtype}.")
    if array.size == 0 and array.ndim <= 2:
        return np.zeros((0, NUM_POINT_FEATURES), dtype=np.float32)
    if array.ndim != 2 or array.shape[1] not in (TIME_LAG, NUM_POINT_FEATURES):
        missing = " The intensity is missing; add a column of 0 to 255." if array.shape[1:] == (3,) else ""
        raise ValueError(
            f"`{name}` must have shape (num_points, 5): x, y, z, intensity, time lag; or (num_points, 4) without the "
            f"time lag; got {array.shape}.{missing}"
        )
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is dropped below
        array = array.astype(np.float32)
    if array.shape[1] == TIME_LAG:
        array = np.pad(array, ((0, 0), (0, 1)))
    is_finite = np.isfinite(array).all(axis=1)
    if not is_finite.all():
        warnings.warn(
            f"{(~is_finite).sum()} of {len(array)} points in `{name}` hold NaN or infinity; they are dropped.",
            stacklevel=2,
        )
        array = array[is_finite]
    if len(array) and array[:, TIME_LAG].max() > 1 and (array[:, TIME_LAG] % 1 == 0).all():
        warnings.warn(
            f"Time lags in `{name}` are whole numbers up to {array[:, TIME_LAG].max():g}, like the ring numbers of "
            "nuScenes' files. Set the last column to 0 for a key frame.",
            stacklevel=2,
        )
    return array


def merge_sweeps(
    points: Any,
    sweeps: Sequence[Any],
    transforms: Sequence[Any],
    time_lags: Sequence[float],
    min_distance: float = 0.0,
) -> np.ndarray:
    """One point cloud from a key frame and earlier sweeps.

    Points of sweeps are moved into the frame of the key frame, and get their age as time lag; those of the key frame
    get 0.

    Args:
        points (`numpy.ndarray` of shape `(num_points, 4)` or more): Key frame: x, y, z, intensity. Further columns,
            such as the ring of nuScenes, are not used.
        sweeps (`Sequence[numpy.ndarray]`): Sweeps with the same columns, each in the frame of its own sensor.
        transforms (`Sequence[numpy.ndarray]`): 4x4 matrix of each sweep, from its frame to that of the key frame.
        time_lags (`Sequence[float]`): Age of each sweep in seconds, at least 0.
        min_distance (`float`, defaults to 0): Points of sweeps whose x and y are both nearer to the sensor than this
            are dropped. The authors keep them; 1 meter removes the vehicle itself.

    Returns:
        `numpy.ndarray` of shape `(num_all_points, 5)`, float32: x, y, z, intensity, time lag.

    Raises:
        ValueError: If there are not as many transforms and time lags as sweeps, or one is no rigid 4x4 matrix or no
            age.
    """
    if not len(sweeps) == len(transforms) == len(time_lags):
        raise ValueError(
            f"`transforms` and `time_lags` must have one entry for each of {len(sweeps)} sweeps; got "
            f"{len(transforms)} and {len(time_lags)}."
        )
    merged = [_read_sweep(points, "points")]
    for index, (sweep, transform, time_lag) in enumerate(zip(sweeps, transforms, time_lags, strict=True)):
        moved = _read_sweep(sweep, f"sweeps[{index}]")
        matrix = np.asarray(transform, dtype=np.float64)
        if matrix.shape != (4, 4) or not np.allclose(matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3), atol=1e-3):
            raise ValueError(
                f"`transforms[{index}]` must be a 4x4 matrix of a rotation and a translation; got "
                f"{matrix.tolist() if matrix.shape == (4, 4) else f'shape {matrix.shape}'}."
            )
        if not 0 <= time_lag < np.inf:
            raise ValueError(f"`time_lags[{index}]` must be an age in seconds of at least 0; got {time_lag}.")
        moved = moved[(np.abs(moved[:, :2]) >= min_distance).any(axis=1)]
        moved[:, :3] = moved[:, :3] @ matrix[:3, :3].T + matrix[:3, 3]
        moved[:, TIME_LAG] = time_lag
        merged.append(moved)
    return np.concatenate(merged)


def _read_sweep(points: Any, name: str) -> np.ndarray:
    array = _to_array(points, name)
    return read_points(array[:, :TIME_LAG] if array.ndim == 2 else array, name)


def _to_array(points: Any, name: str) -> np.ndarray:
    if isinstance(points, torch.Tensor):
        # numpy has no bfloat16.
        return (points.float() if points.is_floating_point() else points).numpy(force=True)
    try:
        return np.asarray(points)
    except ValueError as error:  # rows of different lengths
        raise ValueError(f"`{name}` must have as many values for each point; {error}.") from error
