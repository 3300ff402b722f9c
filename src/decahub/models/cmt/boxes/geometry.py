"""Geometry of oriented 3D boxes.

A box is a row `x, y, z, l, w, h, yaw[, vx, vy]`: center of gravity in meters, length (along the heading), width and
height in meters, yaw in radians counter-clockwise from +x as seen from above, velocity in m/s.
"""

import math
from typing import Any

import numpy as np
import torch


BOX_SIZE = 9
FORWARD_ANGLE = math.pi / 2  # of +y, where the LiDAR of nuScenes looks; for frames without `lidar2ego`
# Corners as signs of the half sizes: counter-clockwise from the front left one as seen from above, the bottom first.
_CORNER_SIGNS = (
    (1, 1, -1), (-1, 1, -1), (-1, -1, -1), (1, -1, -1),
    (1, 1, 1), (-1, 1, 1), (-1, -1, 1), (1, -1, 1),
)  # fmt: skip


def wrap_yaw(yaw: torch.Tensor) -> torch.Tensor:
    """Angles in radians, brought to [-pi, pi)."""
    return torch.remainder(yaw + math.pi, 2 * math.pi) - math.pi


def rotate_xy(vectors: torch.Tensor, angle: torch.Tensor | float) -> torch.Tensor:
    """Turns vectors about the z axis, counter-clockwise as seen from above.

    Args:
        vectors (`torch.Tensor` of shape `(..., 2)` or `(..., 3)`): vectors; z stays as it is.
        angle (`torch.Tensor` of shape `(...)` or `float`): radians.

    Returns:
        `torch.Tensor` of the shape of `vectors`.
    """
    angle = torch.as_tensor(angle, dtype=vectors.dtype, device=vectors.device)
    cosine, sine = angle.cos(), angle.sin()
    x, y = vectors[..., 0], vectors[..., 1]
    turned = torch.stack([x * cosine - y * sine, x * sine + y * cosine], dim=-1)
    return torch.cat([turned, vectors[..., 2:]], dim=-1)


def compute_corners(boxes: torch.Tensor) -> torch.Tensor:
    """Corners of boxes.

    Args:
        boxes (`torch.Tensor` of shape `(..., 7)` or wider): boxes.

    Returns:
        `torch.Tensor` of shape `(..., 8, 3)`: the four at the bottom, then the four at the top; each four start front
        left and go around counter-clockwise as seen from above.
    """
    offsets = boxes[..., None, 3:6] / 2 * boxes.new_tensor(_CORNER_SIGNS)
    return boxes[..., None, :3] + rotate_xy(offsets, boxes[..., None, 6])


def transform_boxes(boxes: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """Boxes in another frame, such as LiDAR to ego.

    Yaw and velocity turn with the heading; a pitch or roll between the frames changes neither sizes nor the upright
    position of the boxes.

    Args:
        boxes (`torch.Tensor` of shape `(num_boxes, 7)` or `(num_boxes, 9)`): boxes.
        matrix (`torch.Tensor` of shape `(4, 4)`): rigid transform from the old frame to the new one.

    Returns:
        `torch.Tensor` of the shape of `boxes`; yaw lies in [-pi, pi).
    """
    matrix = matrix.to(boxes)
    rotation, translation = matrix[:3, :3], matrix[:3, 3]
    heading = torch.stack([boxes[:, 6].cos(), boxes[:, 6].sin()], dim=-1) @ rotation[:2, :2].T
    yaw = torch.atan2(heading[:, 1], heading[:, 0])
    columns = [boxes[:, :3] @ rotation.T + translation, boxes[:, 3:6], wrap_yaw(yaw)[:, None]]
    if boxes.shape[1] > 7:
        columns.append(boxes[:, 7:9] @ rotation[:2, :2].T)
    return torch.cat(columns, dim=1)


def find_forward_angle(lidar2ego: Any | None) -> float:
    """Direction of the vehicle's +x in the ground plane of the LiDAR.

    Args:
        lidar2ego (array of shape `(4, 4)`, *optional*): mounting of the LiDAR; by default that of nuScenes, whose +y
            points forward.

    Returns:
        `float`: radians, counter-clockwise from +x of the LiDAR.
    """
    if lidar2ego is None:
        return FORWARD_ANGLE
    forward = np.asarray(lidar2ego, dtype=np.float64)[0, :3]  # row of the inverse rotation's first column
    return math.atan2(forward[1], forward[0])


def move_to_bottom(boxes: torch.Tensor) -> torch.Tensor:
    """Boxes whose z is that of the bottom face, as mmdetection3d stores them."""
    boxes = boxes.clone()
    boxes[..., 2] -= boxes[..., 5] / 2
    return boxes


__all__ = [
    "BOX_SIZE",
    "compute_corners",
    "find_forward_angle",
    "move_to_bottom",
    "rotate_xy",
    "transform_boxes",
    "wrap_yaw",
]
