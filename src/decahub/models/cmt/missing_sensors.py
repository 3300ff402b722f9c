"""Sensors that are missing: whole samples without their images or without their points.

The authors show a model zeros (section 3.4 of the paper, "masked-modal training"): images that were black before
normalization, or a cloud whose points all lie at the origin with all their values 0, which is one voxel. The other way
is to leave the tokens out.
"""

from collections.abc import Callable, Sequence

import torch

from .configuration_cmt import CmtConfig


CAMERA, LIDAR = 0, 1


def resolve_sensors(
    config: CmtConfig, modality_mask: torch.Tensor | None, batch_size: int, given: tuple[bool, bool]
) -> torch.Tensor:
    """Which sensors each sample has.

    Args:
        config ([`CmtConfig`]): `modality`.
        modality_mask (`torch.BoolTensor` of shape `(batch_size, 2)`, *optional*): camera and LiDAR of each sample.
        batch_size (`int`): number of samples.
        given (`tuple[bool, bool]`): whether there are images, and points.

    Returns:
        `torch.BoolTensor` of shape `(batch_size, 2)` on the CPU.

    Raises:
        TypeError: If `modality_mask` is not boolean.
        ValueError: If its shape does not fit, or a sample is left without a sensor.
    """
    used = torch.tensor([config.has_camera and given[CAMERA], config.has_lidar and given[LIDAR]])
    if modality_mask is None:
        return used.expand(batch_size, 2)
    if modality_mask.dtype != torch.bool:
        raise TypeError(f"`modality_mask` must be boolean, True for a sensor that works; got {modality_mask.dtype}.")
    if modality_mask.shape != (batch_size, 2):
        raise ValueError(
            f"`modality_mask` must have shape ({batch_size}, 2): camera and LiDAR of each sample; got "
            f"{tuple(modality_mask.shape)}."
        )
    sensors = modality_mask.cpu() & used
    if not sensors.any(1).all():
        sample = int((~sensors.any(1)).nonzero()[0])
        raise ValueError(
            f"`modality_mask` must leave each sample a sensor that the model has and that is given; sample {sample} "
            "has none."
        )
    return sensors


def blacken_images(pixel_values: torch.Tensor, is_seen: torch.Tensor, black_pixel: Sequence[float]) -> torch.Tensor:
    """Images `(batch_size, num_cameras, channels, height, width)`, black for samples whose cameras are masked."""
    if is_seen.all():
        return pixel_values
    black = pixel_values.new_tensor(black_pixel)[:, None, None]
    return torch.where(is_seen.to(pixel_values.device)[:, None, None, None, None], pixel_values, black)


def zero_clouds(
    voxel_features: torch.Tensor, voxel_coords: torch.Tensor, is_seen: torch.Tensor, config: CmtConfig
) -> tuple[torch.Tensor, torch.Tensor]:
    """Voxels of a batch with one voxel of zeros, at the origin, for each sample whose LiDAR is masked.

    Args:
        voxel_features (`torch.FloatTensor` of shape `(num_voxels, num_point_features)`): means of points.
        voxel_coords (`torch.LongTensor` of shape `(num_voxels, 4)`): sample, z, y, x.
        is_seen (`torch.BoolTensor` of shape `(batch_size,)`): samples whose LiDAR works.
        config ([`CmtConfig`]): range and size of voxels. A range without the origin gives empty clouds.
    """
    if is_seen.all():
        return voxel_features, voxel_coords
    kept = is_seen.to(voxel_coords.device)[voxel_coords[:, 0]]
    features, coords = voxel_features[kept], voxel_coords[kept]
    lidar = config.lidar_backbone_config
    low = torch.tensor(config.point_cloud_range[:3], dtype=torch.float32)
    size = torch.tensor(lidar.voxel_size, dtype=torch.float32)
    origin = ((0 - low) / size).floor().long().flip(0)  # z, y, x, in the arithmetic of the voxelizer
    if (origin < 0).any() or (origin >= torch.tensor(lidar.sparse_shape)).any():
        return features, coords
    masked = (~is_seen).nonzero()
    zeros = features.new_zeros(len(masked), features.shape[1])
    origins = torch.cat([masked, origin.expand(len(masked), 3)], dim=1).to(coords)
    return torch.cat([features, zeros]), torch.cat([coords, origins])


def run_where_present(
    is_present: torch.Tensor, compute: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor | None:
    """Features of the samples that have a sensor, zeros for the others; nothing runs if no sample has it.

    Args:
        is_present (`torch.BoolTensor` of shape `(batch_size,)`): samples that have the sensor.
        compute (`Callable`): from indices of samples to their features, `(num_indices, ...)`.
    """
    samples = is_present.nonzero()[:, 0]
    if len(samples) == 0:
        return None
    features = compute(samples)
    if len(samples) == len(is_present):
        return features
    rows = features.new_zeros(len(is_present), *features.shape[1:])
    return rows.index_copy(0, samples.to(features.device), features)


def select_samples(
    voxel_features: torch.Tensor, voxel_coords: torch.Tensor, samples: torch.Tensor, batch_size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The voxels of some samples of a batch, with the samples renumbered."""
    if len(samples) == batch_size:
        return voxel_features, voxel_coords
    number = torch.full((batch_size,), -1, device=voxel_coords.device)
    number[samples.to(number.device)] = torch.arange(len(samples), device=number.device)
    sample = number[voxel_coords[:, 0]]
    kept = sample >= 0
    return voxel_features[kept], torch.cat([sample[kept, None], voxel_coords[kept, 1:]], dim=1)


def build_key_mask(presence: Sequence[tuple[torch.Tensor | None, int]], device: torch.device) -> torch.Tensor | None:
    """Mask of the tokens that are missing.

    Args:
        presence (`Sequence[tuple[torch.BoolTensor, int]]`): for each sensor which samples have it, `None` for all, and
            the number of its tokens.
        device (`torch.device`): device of the mask.

    Returns:
        `torch.BoolTensor` of shape `(batch_size, num_tokens)`, or `None` if no sample misses any.
    """
    if all(is_present is None or bool(is_present.all()) for is_present, _ in presence):
        return None
    columns = [~is_present[:, None].expand(-1, count) for is_present, count in presence]
    return torch.cat(columns, dim=1).to(device)


__all__ = [
    "CAMERA",
    "LIDAR",
    "blacken_images",
    "build_key_mask",
    "resolve_sensors",
    "run_where_present",
    "select_samples",
    "zero_clouds",
]
