"""Calibration of cameras: from what datasets give to the matrices that project points into images.

A matrix `a2b` takes homogeneous points from frame a to frame b. All are float64: depths reach 60 m and pixels 1600, so
float32 would shift points by visible amounts after an inverse.
"""

from collections.abc import Sequence

import numpy as np
import torch


ROTATION_ATOL = 1e-3  # calibrations are often stored as float32, or as quaternions of a few digits
LAST_ROW_ATOL = 1e-6  # an inverse may leave rounding
SINGULAR_RTOL = 1e-12  # of the product of the row norms, which bounds the determinant


def read_matrices(values: object, name: str, shape: tuple[int, int], labels: Sequence[str]) -> torch.Tensor:
    """Matrices of numbers as float64.

    Args:
        values: anything that numpy turns into an array.
        name (`str`): What the message calls them.
        shape (`tuple[int, int]`): Rows and columns of each.
        labels (`Sequence[str]`): What the message calls each of them, such as "camera CAM_BACK".

    Returns:
        `torch.DoubleTensor` of shape `(num_matrices, *shape)`.

    Raises:
        ValueError: If they have another shape or are not finite.
    """
    if isinstance(values, torch.Tensor):
        values = values.numpy(force=True)
    wanted = (len(labels), *shape)
    try:
        matrices = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`{name}` must hold numbers in the shape {wanted}; {error}.") from error
    if matrices.shape != wanted:
        raise ValueError(f"`{name}` must have the shape {wanted}; got {matrices.shape}. Is there one per image?")
    for matrix, label in zip(matrices, labels, strict=True):
        if not np.isfinite(matrix).all():
            raise ValueError(f"`{name}` must be finite; that of {label} holds NaN or infinity.")
    return torch.from_numpy(matrices)


def check_rigid(matrices: torch.Tensor, name: str, labels: Sequence[str]) -> None:
    """Refuses matrices that are anything but a rotation and a translation.

    Args:
        matrices (`torch.DoubleTensor` of shape `(num_matrices, 4, 4)`): The matrices.
        name (`str`): What the message calls them.
        labels (`Sequence[str]`): What the message calls each of them, such as "camera CAM_BACK".

    Raises:
        ValueError: For the first matrix with another last row than (0, 0, 0, 1), or whose upper left part R is no
            rotation: R R^T differs from the identity, or R mirrors.
    """
    check_last_row(matrices, name, labels)
    for matrix, label in zip(matrices, labels, strict=True):
        rotation = matrix[:3, :3]
        deviation = (rotation @ rotation.T - torch.eye(3, dtype=matrix.dtype)).abs().max().item()
        if deviation > ROTATION_ATOL:
            raise ValueError(
                f"`{name}` must hold rotations; that of {label} differs from one by {deviation:.3g} (R R^T - I). "
                "Normalize its quaternion; give a scaled or mirrored scene as `lidar2img`."
            )
        if torch.linalg.det(rotation) < 0:
            raise ValueError(
                f"`{name}` must hold rotations; that of {label} mirrors (determinant -1). Is an axis flipped?"
            )


def check_last_row(matrices: torch.Tensor, name: str, labels: Sequence[str]) -> None:
    """Refuses homogeneous matrices, camera matrices too, whose last row is anything but 0, ..., 0, 1.

    Raises:
        ValueError: For the first one, with its label.
    """
    wanted = torch.eye(matrices.shape[-1], dtype=matrices.dtype)[-1]
    for matrix, label in zip(matrices, labels, strict=True):
        if (matrix[-1] - wanted).abs().max() > LAST_ROW_ATOL:
            raise ValueError(
                f"`{name}` must have the last row {_show(wanted)}; that of {label} has {_show(matrix[-1])}. Is it "
                "transposed?"
            )


def check_invertible(matrices: torch.Tensor, name: str, labels: Sequence[str]) -> None:
    """Refuses singular matrices, from which no ray of a pixel can be computed.

    Raises:
        ValueError: For the first one, with its label.
    """
    for matrix, label in zip(matrices, labels, strict=True):
        bound = torch.linalg.vector_norm(matrix, dim=-1).prod().item()
        if abs(torch.linalg.det(matrix).item()) <= SINGULAR_RTOL * bound:
            raise ValueError(f"`{name}` must be invertible; that of {label} is singular. Is its calibration missing?")


def compose_lidar2cam(
    cam2ego: torch.Tensor,
    lidar2ego: torch.Tensor,
    ego2global: torch.Tensor | None = None,
    camera_ego2global: torch.Tensor | None = None,
) -> torch.Tensor:
    """LiDAR to cameras through the vehicle, which has moved between the sensors' time stamps.

    Args:
        cam2ego (`torch.DoubleTensor` of shape `(num_cameras, 4, 4)`): Mounting of the cameras.
        lidar2ego (`torch.DoubleTensor` of shape `(4, 4)`): Mounting of the LiDAR.
        ego2global (`torch.DoubleTensor` of shape `(4, 4)`, *optional*): Vehicle at the time of the points.
        camera_ego2global (`torch.DoubleTensor` of shape `(num_cameras, 4, 4)`, *optional*): Vehicle at the time of
            each image. Without it the vehicle stands still.

    Returns:
        `torch.DoubleTensor` of shape `(num_cameras, 4, 4)`.
    """
    lidar2ego_at_image = lidar2ego.expand_as(cam2ego)
    if camera_ego2global is not None:
        lidar2ego_at_image = torch.linalg.inv(camera_ego2global) @ ego2global @ lidar2ego
    return torch.linalg.inv(cam2ego) @ lidar2ego_at_image


def compose_lidar2img(intrinsics: torch.Tensor, lidar2cam: torch.Tensor) -> torch.Tensor:
    """Projection of LiDAR points: (u d, v d, d, 1) of (x, y, z, 1).

    Args:
        intrinsics (`torch.DoubleTensor` of shape `(num_cameras, 3, 3)`): Camera matrices, in pixels.
        lidar2cam (`torch.DoubleTensor` of shape `(num_cameras, 4, 4)`): Poses.

    Returns:
        `torch.DoubleTensor` of shape `(num_cameras, 4, 4)`.
    """
    return to_homogeneous(intrinsics) @ lidar2cam


def to_homogeneous(matrices: torch.Tensor) -> torch.Tensor:
    """3x3 matrices as the upper left parts of 4x4 identities."""
    result = torch.eye(4, dtype=matrices.dtype).repeat(*matrices.shape[:-2], 1, 1)
    result[..., :3, :3] = matrices
    return result


def _show(row: torch.Tensor) -> str:
    return "(" + ", ".join(f"{value:g}" for value in row.tolist()) + ")"


__all__ = [
    "check_invertible",
    "check_last_row",
    "check_rigid",
    "compose_lidar2cam",
    "compose_lidar2img",
    "read_matrices",
    "to_homogeneous",
]
