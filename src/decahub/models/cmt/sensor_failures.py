"""Sensors that fail: a frame with cameras, beams or angles missing, or out of calibration.

These are failures that robustness benchmarks of fusion models apply ("MultiCorrupt", arXiv 2402.11677). They come
before the processor. A frame is a dictionary with `images`, `cameras` (names), `intrinsics`, `lidar2cam` and `points`,
and further entries that stay. It is never changed in place. A sensor that is missing altogether is `None`, as
[`CmtProcessor`] takes it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .boxes.geometry import find_forward_angle


CAMERA_FIELDS = ("images", "cameras", "intrinsics", "lidar2cam")
NUM_SENSOR_BEAMS = 32  # of the LiDAR of nuScenes
NEAR = 3.0  # m


@dataclass(frozen=True)
class CmtSensorDropout:
    r"""Makes sensors of a frame fail; by default all of them work.

    Args:
        missing_cameras (`tuple[str, ...]`): Names of cameras without an image.
        is_lidar_missing (`bool`): Whether there are no points.
        num_beams (`int`, *optional*): LiDAR beams that work, spread evenly over all. The beam of a point is `rings` of
            the frame, `(num_points,)`, or is estimated from its elevation, as if beams were evenly spaced.
        num_sensor_beams (`int`): Beams of the intact LiDAR.
        field_of_view (`float`, *optional*): Horizontal angle of the LiDAR in degrees, half to each side of the
            vehicle's forward direction: +x of the vehicle by the frame's `lidar2ego`, +y of the LiDAR without it.
        rotation_error (`float`): Degrees by which the orientation of each camera is wrong, about a random axis.
        translation_error (`float`): Meters by which the position of each camera is wrong, in a random direction.
        seed (`int`): Seed of axes and directions.

    Raises:
        ValueError: If an argument is outside its range.

    Example:
    ```python
    >>> import numpy as np
    >>> frame = {"images": None, "points": np.array([[0.0, 9.0, 0, 1, 0], [0.0, -9.0, 0, 1, 0]])}
    >>> CmtSensorDropout(field_of_view=180)(frame)["points"][:, 1].tolist()
    [9.0]

    ```
    """

    missing_cameras: tuple[str, ...] = ()
    is_lidar_missing: bool = False
    num_beams: int | None = None
    num_sensor_beams: int = NUM_SENSOR_BEAMS
    field_of_view: float | None = None
    rotation_error: float = 0.0
    translation_error: float = 0.0
    seed: int = 0

    def __post_init__(self):
        if isinstance(self.missing_cameras, str):
            raise ValueError(f"`missing_cameras` must be a tuple of names; got {self.missing_cameras!r}.")
        if self.num_sensor_beams < 1:
            raise ValueError(f"`num_sensor_beams` must be at least 1; got {self.num_sensor_beams}.")
        if self.num_beams is not None and not 1 <= self.num_beams <= self.num_sensor_beams:
            raise ValueError(f"`num_beams` must lie in [1, {self.num_sensor_beams}]; got {self.num_beams}.")
        if self.field_of_view is not None and not 0 < self.field_of_view <= 360:
            raise ValueError(f"`field_of_view` must lie in (0, 360] degrees; got {self.field_of_view}.")
        for name in ("rotation_error", "translation_error"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ValueError(f"`{name}` must be at least 0; got {value}.")

    def __call__(self, frame: Mapping[str, Any], index: int = 0) -> dict[str, Any]:
        """The frame with failed sensors.

        Args:
            frame (`Mapping[str, Any]`): the frame.
            index (`int`): number of the frame; another number draws other errors of calibration.

        Raises:
            ValueError: If a camera of `missing_cameras` is not in the frame, or no sensor is left.
        """
        failed = dict(frame)
        if self.missing_cameras:
            failed |= self._drop_cameras(frame)
        if (self.rotation_error or self.translation_error) and failed.get("lidar2cam") is not None:
            failed["lidar2cam"] = self._misalign(failed["lidar2cam"], index)
        if self.is_lidar_missing:
            failed["points"] = None
        elif frame.get("points") is not None:
            is_kept = self._select_points(frame)
            failed["points"] = np.asarray(frame["points"])[is_kept]
            if frame.get("rings") is not None:
                failed["rings"] = np.asarray(frame["rings"])[is_kept]
        if failed.get("images") is None and failed.get("points") is None:
            raise ValueError("A frame must keep a sensor; with these failures no image and no point is left.")
        return failed

    def _drop_cameras(self, frame: Mapping[str, Any]) -> dict[str, Any]:
        cameras = list(frame.get("cameras") or [])
        unknown = [name for name in self.missing_cameras if name not in cameras]
        if unknown:
            raise ValueError(
                f"`missing_cameras` must name cameras of the frame, {', '.join(cameras) or 'which has none'}; got "
                f"{unknown[0]!r}."
            )
        kept = [position for position, name in enumerate(cameras) if name not in self.missing_cameras]
        if not kept:
            return dict.fromkeys(CAMERA_FIELDS)
        return {
            "images": [frame["images"][position] for position in kept],
            "cameras": [cameras[position] for position in kept],
            "intrinsics": np.asarray(frame["intrinsics"], dtype=np.float64)[kept],
            "lidar2cam": np.asarray(frame["lidar2cam"], dtype=np.float64)[kept],
        }

    def _select_points(self, frame: Mapping[str, Any]) -> np.ndarray:
        """Which points are seen, `(num_points,)`."""
        points = np.asarray(frame["points"], dtype=np.float64)
        is_kept = np.ones(len(points), dtype=bool)
        if len(points) == 0:
            return is_kept
        if self.num_beams is not None:
            rings = frame.get("rings")
            rings = estimate_rings(points, self.num_sensor_beams) if rings is None else np.asarray(rings)
            chosen = ((np.arange(self.num_beams) + 0.5) * self.num_sensor_beams / self.num_beams).astype(int)
            is_kept &= np.isin(rings, chosen)
        if self.field_of_view is not None:
            angles = np.arctan2(points[:, 1], points[:, 0]) - find_forward_angle(frame.get("lidar2ego"))
            off_center = np.abs((angles + math.pi) % (2 * math.pi) - math.pi)
            is_kept &= off_center <= math.radians(self.field_of_view) / 2
        return is_kept

    def _misalign(self, lidar2cam: Any, index: int) -> np.ndarray:
        """Poses with an error of their own for each camera, in the frame of the camera; they stay rigid."""
        generator = np.random.default_rng((self.seed, index))
        poses = np.array(lidar2cam, dtype=np.float64)
        for pose in poses:
            axis, direction = (vector / np.linalg.norm(vector) for vector in generator.normal(size=(2, 3)))
            error = np.eye(4)
            error[:3, :3] = rotate_about(axis, math.radians(self.rotation_error))
            error[:3, 3] = direction * self.translation_error
            pose[:] = error @ pose
        return poses


def estimate_rings(points: np.ndarray, num_beams: int) -> np.ndarray:
    """Beam of each point by its elevation, from 0 for the lowest, as if beams were evenly spaced.

    The lowest and highest beam are those that occur. Points within 3 m do not count for this: they are often on the
    vehicle itself, at odd angles.

    Args:
        points (`np.ndarray` of shape `(num_points, 3)` or wider): points in the frame of the LiDAR.
        num_beams (`int`): beams of the LiDAR.
    """
    elevations = np.arctan2(points[:, 2], np.hypot(points[:, 0], points[:, 1]))
    is_far = np.hypot(points[:, 0], points[:, 1]) > NEAR
    far = elevations[is_far] if is_far.any() else elevations
    low, high = far.min(), far.max()
    steps = (elevations - low) / max(high - low, np.finfo(np.float64).tiny) * (num_beams - 1)
    return steps.round().clip(0, num_beams - 1).astype(int)


def rotate_about(axis: np.ndarray, angle: float) -> np.ndarray:
    r"""Rotation matrix, $R = I + \sin\alpha K + (1 - \cos\alpha) K^2$ with the cross product matrix $K$ of the axis.

    Args:
        axis (`np.ndarray` of shape `(3,)`): unit vector.
        angle (`float`): radians.
    """
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross


__all__ = ["CmtSensorDropout", "estimate_rings"]
