"""Frames, their projection, a processor and a model folder of CMT for tests."""

from pathlib import Path

import torch

from decahub import CmtForObjectDetection3D, CmtImageProcessor, CmtPointCloudFeatureExtractor, CmtProcessor
from decahub.data.driving_scenes import SceneSettings, build_frame

from .cmt import IMAGE_SIZE, tiny_config


NUSCENES = [
    "car", "truck", "construction_vehicle", "bus", "trailer", "barrier", "motorcycle", "bicycle", "pedestrian",
    "traffic_cone",
]  # fmt: skip


def tiny_frame(seed: int = 0, num_cameras: int = 3) -> dict:
    """A generated frame with few points, as a row of a dataset."""
    settings = SceneSettings(num_cameras=num_cameras, image_size=IMAGE_SIZE, num_azimuths=60, num_beams=8)
    return build_frame((7, seed), settings, token=f"frame {seed}")


def build_processor(config) -> CmtProcessor:
    height, width = IMAGE_SIZE
    lidar = config.lidar_backbone_config
    voxels = {} if lidar is None else {"voxel_size": lidar.voxel_size, "sparse_shape": lidar.sparse_shape}
    return CmtProcessor.from_config(
        config,
        CmtImageProcessor(size={"height": height, "width": width}),
        CmtPointCloudFeatureExtractor(point_cloud_range=config.point_cloud_range, max_points_per_voxel=4, **voxels),
    )


def build_model_folder(folder: Path, modality: str = "fusion", **overrides) -> Path:
    """A folder with random weights and a processor for the classes of nuScenes."""
    config = tiny_config(modality, **{"tasks": [NUSCENES], **overrides})
    torch.manual_seed(0)
    CmtForObjectDetection3D(config).save_pretrained(folder)
    build_processor(config).save_pretrained(folder)
    return folder


def project_points(points: torch.Tensor, lidar2img: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels of points in each camera.

    Args:
        points (`torch.Tensor` of shape `(num_points, 3)`): x, y, z in meters, LiDAR frame.
        lidar2img (`torch.DoubleTensor` of shape `(num_cameras, 4, 4)`): Projections.

    Returns:
        Pixels (u, v) of shape `(num_cameras, num_points, 2)`, and depths in meters of shape `(num_cameras,
        num_points)`. Pixels of points that are not in front of a camera (depth of at most 0) mean nothing.
    """
    points = points.to(lidar2img.dtype)
    homogeneous = torch.cat([points, torch.ones_like(points[:, :1])], dim=1)
    projected = homogeneous @ lidar2img.transpose(-1, -2)
    depths = projected[..., 2]
    return projected[..., :2] / depths.where(depths.abs() > 1e-6, torch.full_like(depths, 1e-6))[..., None], depths
