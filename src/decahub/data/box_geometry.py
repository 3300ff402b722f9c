"""Geometry of 3D boxes in numpy: corners, points inside, overlaps in the bird's-eye view, projections into images.

A box is x, y, z of its center, length, width, height (m), yaw (rad, counter-clockwise from +x), vx, vy (m/s).
"""

import numpy as np


BOX_SIZE = 9
# Signs of the corners along length, width and height; bottom face first, each counter-clockwise from front left.
CORNER_SIGNS = np.array(
    [(x, y, z) for z in (-1, 1) for x, y in ((1, 1), (-1, 1), (-1, -1), (1, -1))], dtype=np.float64
)


def compute_corners(boxes: np.ndarray) -> np.ndarray:
    """Corners of boxes.

    Args:
        boxes (`numpy.ndarray` of shape `(num_boxes, 7 or more)`): Boxes.

    Returns:
        `numpy.ndarray` of shape `(num_boxes, 8, 3)`: in meters; the bottom face first.
    """
    boxes = np.asarray(boxes, dtype=np.float64)
    local = CORNER_SIGNS * boxes[:, None, 3:6] / 2
    return rotate(local, boxes[:, None, 6]) + boxes[:, None, :3]


def rotate(vectors: np.ndarray, angle: np.ndarray | float) -> np.ndarray:
    """Vectors of shape `(..., 2 or more)` turned about the z axis, counter-clockwise; other components stay."""
    cosine, sine = np.cos(angle), np.sin(angle)
    x, y = vectors[..., 0], vectors[..., 1]
    turned = [cosine * x - sine * y, sine * x + cosine * y]
    turned += [np.broadcast_to(vectors[..., axis], turned[0].shape) for axis in range(2, vectors.shape[-1])]
    return np.stack(turned, axis=-1)


def wrap_angle(angle: np.ndarray) -> np.ndarray:
    """Angles in [-pi, pi)."""
    return (angle + np.pi) % (2 * np.pi) - np.pi


def find_points_inside(points: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Which points lie in which boxes; those on a face do.

    Args:
        points (`numpy.ndarray` of shape `(num_points, 3 or more)`): Points, whose first three values are x, y, z.
        boxes (`numpy.ndarray` of shape `(num_boxes, 7 or more)`): Boxes.

    Returns:
        `numpy.ndarray` of shape `(num_boxes, num_points)`: booleans.
    """
    inside = np.zeros((len(boxes), len(points)), dtype=bool)
    for index, box in enumerate(np.asarray(boxes, dtype=np.float64)):
        offsets = points[:, :3] - box[:3]
        # Only points within the circle about the box are rotated: with many points this is most of the time.
        near = np.flatnonzero((np.abs(offsets[:, :2]) <= np.hypot(box[3], box[4]) / 2).all(1))
        inside[index, near] = (np.abs(rotate(offsets[near], -box[6])) <= box[3:6] / 2).all(1)
    return inside


def find_bev_overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Which boxes overlap which others in the bird's-eye view (separating axis theorem).

    Args:
        boxes (`numpy.ndarray` of shape `(num_boxes, 7 or more)`): Boxes.
        others (`numpy.ndarray` of shape `(num_others, 7 or more)`): Boxes.

    Returns:
        `numpy.ndarray` of shape `(num_boxes, num_others)`: booleans; boxes that only touch do not overlap.
    """
    boxes, others = np.asarray(boxes, dtype=np.float64)[:, None], np.asarray(others, dtype=np.float64)[None]
    offsets = boxes[..., :2] - others[..., :2]
    overlaps = np.ones(offsets.shape[:2], dtype=bool)
    for yaw in (boxes[..., 6], boxes[..., 6] + np.pi / 2, others[..., 6], others[..., 6] + np.pi / 2):
        distance = np.abs(offsets[..., 0] * np.cos(yaw) + offsets[..., 1] * np.sin(yaw))
        reach = sum(
            np.abs(np.cos(box[..., 6] - yaw)) * box[..., 3] + np.abs(np.sin(box[..., 6] - yaw)) * box[..., 4]
            for box in (boxes, others)
        )
        overlaps &= distance < reach / 2
    return overlaps


def project(points: np.ndarray, lidar2img: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and depths of points.

    Args:
        points (`numpy.ndarray` of shape `(..., 3)`): In the LiDAR frame, in meters.
        lidar2img (`numpy.ndarray` of shape `(4, 4)`): Projection: `(u d, v d, d, 1) = lidar2img (x, y, z, 1)`.

    Returns:
        `tuple[numpy.ndarray, numpy.ndarray]`: pixels (u, v) of shape `(..., 2)` and depths of shape `(...)`. Pixels of
        points behind the camera, whose depth is not positive, mean nothing.
    """
    projected = points @ lidar2img[:3, :3].T + lidar2img[:3, 3]
    depth = projected[..., 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        return projected[..., :2] / depth[..., None], depth


__all__ = [
    "BOX_SIZE",
    "compute_corners",
    "find_bev_overlaps",
    "find_points_inside",
    "project",
    "rotate",
    "wrap_angle",
]
