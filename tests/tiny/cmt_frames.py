"""Frames, a processor and a model folder of CMT for tests."""

import json
from pathlib import Path

import numpy as np
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


def write_frame(folder: Path, frame: dict, name: str = "frame") -> Path:
    """The files of a frame: its table, images and points."""
    folder.mkdir(parents=True, exist_ok=True)
    cameras = []
    calibrations = zip(frame["cameras"], frame["images"], frame["intrinsics"], frame["lidar2cam"], strict=True)
    for camera, image, intrinsics, lidar2cam in calibrations:
        image.save(folder / f"{name}_{camera}.png")
        matrices = {"intrinsics": np.asarray(intrinsics).tolist(), "lidar2cam": np.asarray(lidar2cam).tolist()}
        cameras.append({"name": camera, "file": f"{name}_{camera}.png", **matrices})
    np.save(folder / f"{name}.npy", np.asarray(frame["points"], dtype=np.float32))
    annotations = [
        {"class": NUSCENES[label], "box": list(map(float, box[:7])), "velocity": list(map(float, box[7:]))}
        for box, label in zip(frame["boxes"], frame["labels"], strict=True)
    ]
    lidar = {"file": f"{name}.npy", "lidar2ego": np.asarray(frame["lidar2ego"]).tolist()}
    table = {"sample_token": frame["token"], "lidar": lidar, "cameras": cameras, "annotations": annotations}
    path = folder / f"{name}.json"
    path.write_text(json.dumps(table))
    return path
