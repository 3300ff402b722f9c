"""A made-up frame: three cameras around the vehicle, some points and boxes, and its calibration in all ways."""

import numpy as np
from PIL import Image

from decahub import CmtImageProcessor, CmtPointCloudFeatureExtractor, CmtProcessor


NAMES = ["front", "left", "back"]
IMAGE_SIZE = (45, 80)  # height, width
SIZE = {"height": 32, "width": 64}
CLASSES = [["car", "truck"], ["pedestrian"]]


def build_processor(**settings) -> CmtProcessor:
    return CmtProcessor(
        CmtImageProcessor(size=SIZE),
        CmtPointCloudFeatureExtractor(voxel_size=[1.5, 2.0, 0.2], sparse_shape=None),
        **{"tasks": CLASSES, **settings},
    )


def rotate_z(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])


def build_pose(rotation: np.ndarray, translation) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation, translation
    return pose


def build_frame(seed: int = 0) -> dict:
    """Everything that a frame may have; pick what a call needs with `choose`."""
    generator = np.random.default_rng(seed)
    height, width = IMAGE_SIZE
    pixels = generator.integers(0, 256, (3, height, width, 3), dtype=np.uint8)
    # A camera looks along its +z, with +x to the right and +y down; the vehicle's +x is forward, +z up.
    camera_axes = np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0]], dtype=np.float64)
    cam2ego = np.stack(
        [
            build_pose(rotate_z(angle) @ camera_axes, [np.cos(angle), np.sin(angle), 1.5])
            for angle in (0.0, np.pi / 2, np.pi)
        ]
    )
    lidar2ego = build_pose(rotate_z(-np.pi / 2 + 0.01), [0.9, 0.0, 1.8])
    ego2global = build_pose(rotate_z(0.7), [410.0, 1180.0, 0.5])
    camera_ego2global = np.stack(
        [build_pose(rotate_z(0.7 + 0.01 * step), [410.0 + 0.3 * step, 1180.0 - 0.2 * step, 0.5]) for step in (1, 2, 3)]
    )
    intrinsics = np.tile([[60.0, 0, 40.0], [0, 62.0, 22.0], [0, 0, 1]], (3, 1, 1))
    lidar2cam = np.linalg.inv(cam2ego) @ lidar2ego
    projection = np.tile(np.eye(4), (3, 1, 1))
    projection[:, :3, :3] = intrinsics
    boxes = np.zeros((2, 9))
    boxes[:, :3] = generator.uniform(-20, 20, (2, 3)) * [1, 1, 0.05]
    boxes[:, 3:6] = [[4.2, 1.8, 1.5], [0.7, 0.6, 1.7]]
    boxes[:, 6] = [0.3, 4.0]
    boxes[:, 7:] = [[1.0, 2.0], [np.nan, np.nan]]
    return {
        "images": [Image.fromarray(image) for image in pixels],
        "points": np.concatenate(
            [generator.uniform(-40, 40, (60, 2)), generator.uniform(-2, 2, (60, 1)), np.zeros((60, 2))], axis=1
        ).astype(np.float32),
        "intrinsics": intrinsics,
        "lidar2cam": lidar2cam,
        "lidar2img": projection @ lidar2cam,
        "cam2ego": cam2ego,
        "lidar2ego": lidar2ego,
        "ego2global": ego2global,
        "camera_ego2global": camera_ego2global,
        "cameras": list(NAMES),
        "boxes": boxes,
        "class_labels": np.array([0, 2]),
    }


def choose(frame: dict, *names: str) -> dict:
    return {name: frame[name] for name in names}
