"""Frames, a processor and a model folder of CMT for tests."""

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
