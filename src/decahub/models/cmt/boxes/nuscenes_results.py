"""Boxes in the form of the nuScenes detection benchmark: global frame, quaternions, class ranges, attributes."""

import math
from typing import Any

import torch

from .geometry import rotate_xy


CLASS_RANGES = {
    "car": 50.0, "truck": 50.0, "bus": 50.0, "trailer": 50.0, "construction_vehicle": 50.0, "pedestrian": 40.0,
    "motorcycle": 40.0, "bicycle": 40.0, "barrier": 30.0, "traffic_cone": 30.0,
}  # fmt: skip
"""Distance from the vehicle in meters, in the ground plane, up to which boxes of a class are evaluated."""
MAX_BOXES = 500  # of a sample, more are refused by the benchmark
MOVING_SPEED = 0.2  # m/s
MOVING_ATTRIBUTES = {
    **dict.fromkeys(("car", "construction_vehicle", "bus", "truck", "trailer"), "vehicle.moving"),
    **dict.fromkeys(("bicycle", "motorcycle"), "cycle.with_rider"),
}
SLOW_ATTRIBUTES = {"pedestrian": "pedestrian.standing", "bus": "vehicle.stopped"}
DEFAULT_ATTRIBUTES = {
    **dict.fromkeys(("car", "construction_vehicle", "truck", "trailer"), "vehicle.parked"),
    **dict.fromkeys(("bicycle", "motorcycle"), "cycle.without_rider"),
    "pedestrian": "pedestrian.moving",
    "bus": "vehicle.moving",
    "barrier": "",
    "traffic_cone": "",
}


def choose_attribute(class_name: str, velocity: tuple[float, float]) -> str:
    """The attribute of a box, which CMT does not predict: what its class usually is at its speed."""
    chosen = MOVING_ATTRIBUTES if math.hypot(*velocity) > MOVING_SPEED else SLOW_ATTRIBUTES
    return chosen.get(class_name, DEFAULT_ATTRIBUTES[class_name])


def to_nuscenes_boxes(
    boxes: torch.Tensor,
    scores: torch.Tensor,
    class_names: list[str],
    token: str,
    lidar2ego: torch.Tensor,
    ego2global: torch.Tensor,
) -> list[dict[str, Any]]:
    """Boxes of one sample as the benchmark takes them.

    Boxes beyond the range of their class are left out, and all but the best 500.

    Args:
        boxes (`torch.Tensor` of shape `(num_boxes, 9)`): LiDAR frame, gravity centers.
        scores (`torch.Tensor` of shape `(num_boxes,)`): scores.
        class_names (`list[str]`): a class of nuScenes for each box.
        token (`str`): token of the sample.
        lidar2ego (`torch.DoubleTensor` of shape `(4, 4)`): mounting of the LiDAR.
        ego2global (`torch.DoubleTensor` of shape `(4, 4)`): pose of the vehicle.

    Returns:
        `list[dict]`: `sample_token`, `translation` (m), `size` (width, length, height; m), `rotation` (quaternion w,
        x, y, z), `velocity` (m/s, x and y), `detection_name`, `detection_score`, `attribute_name`.
    """
    boxes = boxes.detach().cpu().double()
    lidar2global = ego2global @ lidar2ego
    in_ego = boxes[:, :3] @ lidar2ego[:3, :3].T + lidar2ego[:3, 3]
    distances = torch.linalg.vector_norm(in_ego[:, :2], dim=-1)
    centers = boxes[:, :3] @ lidar2global[:3, :3].T + lidar2global[:3, 3]
    rotations = to_quaternions(lidar2global[:3, :3] @ build_yaw_rotations(boxes[:, 6]))
    flat_velocities = torch.cat([boxes[:, 7:9], torch.zeros_like(boxes[:, :1])], dim=1)
    velocities = (flat_velocities @ lidar2global[:3, :3].T)[:, :2]
    results: list[dict[str, Any]] = []
    for index in scores.argsort(descending=True, stable=True).tolist():
        name = class_names[index]
        if distances[index] > CLASS_RANGES[name] or len(results) == MAX_BOXES:
            continue
        velocity = velocities[index].tolist()
        results.append(
            {
                "sample_token": token,
                "translation": centers[index].tolist(),
                "size": boxes[index, [4, 3, 5]].tolist(),
                "rotation": rotations[index].tolist(),
                "velocity": velocity,
                "detection_name": name,
                "detection_score": float(scores[index]),
                "attribute_name": choose_attribute(name, (velocity[0], velocity[1])),
            }
        )
    return results


def build_yaw_rotations(yaw: torch.Tensor) -> torch.Tensor:
    """Rotations about the z axis, `(num_boxes, 3, 3)`, of angles in radians."""
    axes = torch.eye(3, dtype=yaw.dtype).expand(len(yaw), 3, 3)
    return rotate_xy(axes, yaw[:, None]).transpose(-1, -2)


def to_quaternions(rotations: torch.Tensor) -> torch.Tensor:
    """Unit quaternions w, x, y, z of rotation matrices `(num_rotations, 3, 3)`, with w of at least 0."""
    from scipy.spatial.transform import Rotation

    if len(rotations) == 0:
        return rotations.new_zeros(0, 4)
    quaternions = torch.from_numpy(Rotation.from_matrix(rotations.numpy()).as_quat(canonical=True))
    return quaternions[:, [3, 0, 1, 2]]


__all__ = ["CLASS_RANGES", "MAX_BOXES", "choose_attribute", "to_nuscenes_boxes"]
