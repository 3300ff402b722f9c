"""The calibration of one frame, in any of the ways that datasets give it, as one projection for each camera."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from .calibration import (
    check_invertible,
    check_last_row,
    check_rigid,
    compose_lidar2cam,
    compose_lidar2img,
    read_matrices,
)


CALIBRATION_NAMES = (
    "intrinsics", "lidar2cam", "lidar2img", "cam2ego", "lidar2ego", "ego2global", "camera_ego2global",
)  # fmt: skip
WAYS = (
    ("lidar2img",),
    ("intrinsics", "lidar2cam"),
    ("intrinsics", "cam2ego", "lidar2ego"),
    ("intrinsics", "cam2ego", "lidar2ego", "ego2global", "camera_ego2global"),
)


def name_cameras(cameras: Sequence[str] | None, num_images: int) -> list[str]:
    """What messages call each camera.

    Raises:
        ValueError: If the number of names differs from that of images, or a name is given twice.
    """
    if cameras is None:
        return [f"camera {index}" for index in range(num_images)]
    if isinstance(cameras, str) or any(not isinstance(camera, str) for camera in cameras):
        raise ValueError(f"`cameras` must be a list of names for each frame; got {cameras!r}.")
    names = list(cameras)
    duplicates = sorted({name for name in names if names.count(name) > 1})
    if duplicates:
        count = names.count(duplicates[0])
        raise ValueError(f"`cameras` must name each camera once; got {duplicates[0]!r} {count} times.")
    if len(names) != num_images:
        raise ValueError(
            f"`cameras` must name {num_images} cameras, one for each image; got {len(names)}: {', '.join(names)}. "
            "Leave a missing camera out of names, images and calibration."
        )
    return [f"camera {name}" for name in names]


def read_lidar2img(calibration: Mapping[str, Any], cameras: Sequence[str]) -> torch.Tensor:
    """Projections of a frame.

    Args:
        calibration (`Mapping[str, Any]`): by [`CALIBRATION_NAMES`]; what is not given is absent or `None`.
        cameras (`Sequence[str]`): what messages call each camera.

    Returns:
        `torch.DoubleTensor` of shape `(num_cameras, 4, 4)`.

    Raises:
        ValueError: If the matrices given are none of [`WAYS`], have another shape, are not finite, are not rigid where
            they are poses, or are singular.
    """
    given = {name: value for name, value in calibration.items() if value is not None}
    if not any(set(given) == set(way) for way in WAYS):
        ways = "; or ".join(" and ".join(f"`{name}`" for name in way) for way in WAYS)
        got = " and ".join(f"`{name}`" for name in given) or "none"
        raise ValueError(f"The calibration of the cameras must be {ways}; got {got}.")
    if "lidar2img" in given:
        lidar2img = read_matrices(given["lidar2img"], "lidar2img", (4, 4), cameras)
        check_last_row(lidar2img, "lidar2img", cameras)
        check_invertible(lidar2img, "lidar2img", cameras)
        return lidar2img
    intrinsics = read_matrices(given["intrinsics"], "intrinsics", (3, 3), cameras)
    check_last_row(intrinsics, "intrinsics", cameras)
    check_invertible(intrinsics, "intrinsics", cameras)
    poses = {
        name: _read_poses(given[name], name, cameras if _is_per_camera(name) else None)
        for name in given
        if name != "intrinsics"
    }
    return compose_lidar2img(intrinsics, poses["lidar2cam"] if "lidar2cam" in poses else compose_lidar2cam(**poses))


def read_pose(pose: Any, name: str) -> torch.Tensor:
    """One rigid transform, `torch.DoubleTensor` of shape `(4, 4)`.

    Raises:
        ValueError: If it has another shape, is not finite or not rigid.
    """
    return _read_poses(pose, name, None)


def _is_per_camera(name: str) -> bool:
    return name in ("lidar2cam", "cam2ego", "camera_ego2global")


def _read_poses(values: Any, name: str, cameras: Sequence[str] | None) -> torch.Tensor:
    labels = ["the vehicle"] if cameras is None else cameras
    matrices = read_matrices(values if cameras is not None else [values], name, (4, 4), labels)
    check_rigid(matrices, name, labels)
    return matrices if cameras is not None else matrices[0]


__all__ = ["CALIBRATION_NAMES", "name_cameras", "read_lidar2img", "read_pose"]
