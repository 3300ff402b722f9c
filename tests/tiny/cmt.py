"""A CMT small enough for a test: sides of the grid, of images and of the range all differ."""

import torch

from decahub import CmtConfig


VOVNET = {
    "model_type": "cmt_vovnet",
    "stem_sizes": [4, 5, 6],
    "layer_sizes": [4, 5, 6, 7],
    "hidden_sizes": [8, 9, 10, 11],
    "num_layers_per_block": 2,
    "depths": [1, 1, 1, 1],
}
LIDAR = {
    "voxel_size": [1.5, 2.0, 0.2],
    "sparse_shape": [41, 48, 64],
    "hidden_sizes": [4, 5, 6, 7],
    "depths": [1, 1, 1, 1],
    "output_size": 5,
    "bev_hidden_sizes": [6, 8],
    "bev_depths": [1, 1],
    "bev_neck_sizes": [7, 9],
}
CLASSES = ["car", "truck", "pedestrian"]
IMAGE_SIZE = (64, 96)


def tiny_config(modality: str = "fusion", **overrides) -> CmtConfig:
    """20 queries, 2 layers, images of 64 x 96 pixels, a map of 6 x 8 cells for 96 m x 96 m."""
    fields = {
        "modality": modality,
        "point_cloud_range": [-48.0, -40.0, -5.0, 48.0, 56.0, 3.0],
        "hidden_size": 32,
        "num_queries": 20,
        "num_depth_bins": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "head_hidden_size": 12,
        "tasks": [CLASSES],
        "max_detections": 15,
    }
    if modality != "lidar":
        fields["image_backbone_config"] = VOVNET
    if modality != "camera":
        fields["lidar_backbone_config"] = LIDAR
    return CmtConfig(**{**fields, **overrides})


def build_lidar2img(batch_size: int, num_cameras: int, image_size: tuple[int, int] = IMAGE_SIZE) -> torch.Tensor:
    """Projections of cameras around the origin that look outward, `(batch_size, num_cameras, 4, 4)`."""
    height, width = image_size
    intrinsics = torch.tensor(
        [[0.6 * width, 0, width / 2, 0], [0, 0.6 * width, height / 2, 0], [0, 0, 1, 0], [0, 0, 0, 1]],
        dtype=torch.float64,
    )
    matrices = []
    for camera in range(num_cameras):
        angle = torch.tensor(2 * torch.pi * camera / num_cameras, dtype=torch.float64)
        forward = torch.stack([angle.cos(), angle.sin(), torch.zeros_like(angle)])
        right = torch.stack([angle.sin(), -angle.cos(), torch.zeros_like(angle)])
        pose = torch.eye(4, dtype=torch.float64)
        pose[:3, :3] = torch.stack([right, torch.tensor([0.0, 0.0, -1.0], dtype=torch.float64), forward])
        pose[:3, 3] = torch.tensor([0.1, 0.2, 0.3]) * (camera + 1)
        matrices.append(intrinsics @ pose)
    return torch.stack(matrices).expand(batch_size, -1, -1, -1).clone()


def tiny_inputs(config: CmtConfig, batch_size: int = 2, num_cameras: int = 3, seed: int = 0) -> dict:
    """Inputs of the model; samples differ in their number of voxels."""
    generator = torch.Generator().manual_seed(seed)
    inputs = {}
    if config.has_camera:
        shape = (batch_size, num_cameras, 3, *IMAGE_SIZE)
        inputs["pixel_values"] = torch.randn(shape, generator=generator)
        inputs["lidar2img"] = build_lidar2img(batch_size, num_cameras)
    if config.has_lidar:
        counts = torch.arange(batch_size) * 5 + 40
        sizes = torch.tensor(config.lidar_backbone_config.sparse_shape)
        coords = []
        for sample, count in enumerate(counts.tolist()):
            keys = torch.randperm(int(sizes.prod()), generator=generator)[:count]
            z, rest = keys // (sizes[1] * sizes[2]), keys % (sizes[1] * sizes[2])
            coords.append(torch.stack([torch.full_like(z, sample), z, rest // sizes[2], rest % sizes[2]], dim=1))
        inputs["voxel_coords"] = torch.cat(coords)
        total = int(counts.sum())
        inputs["num_points_per_voxel"] = torch.randint(1, 4, (total,), generator=generator)
        is_point = torch.arange(3) < inputs["num_points_per_voxel"][:, None]
        inputs["voxels"] = torch.randn(total, 3, 5, generator=generator) * is_point[..., None]
        inputs["num_voxels"] = counts
    return inputs


def tiny_labels(config: CmtConfig, counts=(3, 2), seed: int = 1) -> list[dict]:
    """Boxes within the range; the number of samples is that of `counts`."""
    generator = torch.Generator().manual_seed(seed)
    low, high = torch.tensor(config.point_cloud_range[:3]), torch.tensor(config.point_cloud_range[3:])
    labels = []
    for count in counts:
        center = low + torch.rand(count, 3, generator=generator) * (high - low)
        size = 1 + 4 * torch.rand(count, 3, generator=generator)
        rest = torch.randn(count, 3, generator=generator)
        classes = torch.randint(config.num_labels, (count,), generator=generator)
        labels.append({"boxes": torch.cat([center, size, rest], dim=1), "class_labels": classes})
    return labels
