"""Checks of the inputs of a model."""

import torch

from ..shared.checks import can_look_at
from .configuration_cmt import CmtConfig


PROJECTION_DTYPES = (torch.float32, torch.float64)


def check_inputs(
    config: CmtConfig,
    pixel_values: torch.Tensor | None,
    lidar2img: torch.Tensor | None,
    voxels: torch.Tensor | None,
    num_points_per_voxel: torch.Tensor | None,
    voxel_coords: torch.Tensor | None,
    num_voxels: torch.Tensor | None,
) -> int:
    """Number of samples, after checks of all inputs of [`CmtModel`].

    Raises:
        TypeError: If images or points are not floating point, or projections are of half precision.
        ValueError: If an input is missing, not meant for this model, or does not fit the others.
    """
    camera = {"pixel_values": pixel_values, "lidar2img": lidar2img}
    lidar = {
        "voxels": voxels,
        "num_points_per_voxel": num_points_per_voxel,
        "voxel_coords": voxel_coords,
        "num_voxels": num_voxels,
    }
    for inputs, is_used in ((camera, config.has_camera), (lidar, config.has_lidar)):
        given = [name for name, value in inputs.items() if value is not None]
        if given and not is_used:
            raise ValueError(
                f"`{given[0]}` must not be given to a model of `modality={config.modality!r}`, which has no such "
                "sensor."
            )
        if given and len(given) < len(inputs):
            missing = next(name for name, value in inputs.items() if value is None)
            raise ValueError(f"`{missing}` must be given together with `{given[0]}`.")
    sizes = {}
    if pixel_values is not None:
        _check_images(config, pixel_values, lidar2img)
        sizes["pixel_values"] = len(pixel_values)
    if voxels is not None:
        _check_voxels(config, voxels, num_points_per_voxel, voxel_coords, num_voxels)
        sizes["num_voxels"] = len(num_voxels)
    if not sizes:
        sensors = {"fusion": "`pixel_values` or `voxels`", "camera": "`pixel_values`", "lidar": "`voxels`"}
        raise ValueError(f"{sensors[config.modality]} must be given.")
    if len(set(sizes.values())) > 1:
        raise ValueError(
            f"`num_voxels` must have an entry for each of {sizes['pixel_values']} samples of `pixel_values`; got "
            f"{sizes['num_voxels']}."
        )
    return next(iter(sizes.values()))


def _check_images(config: CmtConfig, pixel_values: torch.Tensor, lidar2img: torch.Tensor) -> None:
    if not pixel_values.is_floating_point():
        raise TypeError(
            f"`pixel_values` must be floating point; got {pixel_values.dtype}. Prepare images with `CmtProcessor`."
        )
    num_channels = len(config.black_pixel)
    if pixel_values.ndim != 5 or pixel_values.shape[2] != num_channels or 0 in pixel_values.shape:
        raise ValueError(
            f"`pixel_values` must have shape (batch_size, num_cameras, {num_channels}, height, width); got "
            f"{tuple(pixel_values.shape)}."
        )
    if lidar2img.shape != (*pixel_values.shape[:2], 4, 4):
        raise ValueError(
            f"`lidar2img` must have shape {(*pixel_values.shape[:2], 4, 4)}, a matrix for each image; got "
            f"{tuple(lidar2img.shape)}."
        )
    if lidar2img.dtype not in PROJECTION_DTYPES:
        raise TypeError(
            f"`lidar2img` must be float32 or float64, as half precision is off by several pixels; got "
            f"{lidar2img.dtype}. Cast `pixel_values` and `voxels` only."
        )
    for name, values in (("pixel_values", pixel_values), ("lidar2img", lidar2img)):
        if can_look_at(values) and not values.sum(dtype=torch.float64).isfinite():
            raise ValueError(f"`{name}` must be finite; got NaN or infinity.")


def _check_voxels(
    config: CmtConfig,
    voxels: torch.Tensor,
    num_points_per_voxel: torch.Tensor,
    voxel_coords: torch.Tensor,
    num_voxels: torch.Tensor,
) -> None:
    if not voxels.is_floating_point():
        raise TypeError(f"`voxels` must be floating point; got {voxels.dtype}. Prepare points with `CmtProcessor`.")
    num_features = config.lidar_backbone_config.num_point_features
    if voxels.ndim != 3 or voxels.shape[2] != num_features:
        raise ValueError(
            f"`voxels` must have shape (num_voxels, max_points, {num_features}); got {tuple(voxels.shape)}."
        )
    count = len(voxels)
    for name, values, shape in (
        ("num_points_per_voxel", num_points_per_voxel, (count,)),
        ("voxel_coords", voxel_coords, (count, 4)),
    ):
        if values.shape != shape:
            raise ValueError(f"`{name}` must have shape {shape}, a row for each voxel; got {tuple(values.shape)}.")
    if num_voxels.ndim != 1 or len(num_voxels) == 0:
        raise ValueError(f"`num_voxels` must have shape (batch_size,); got {tuple(num_voxels.shape)}.")
    if not can_look_at(voxels):
        return
    if int(num_voxels.sum()) != count:
        raise ValueError(f"`num_voxels` must sum to the {count} voxels; got {num_voxels.tolist()}.")
    _check_samples(voxel_coords[:, 0].long(), num_voxels)
    if (num_points_per_voxel < 1).any():
        raise ValueError("`num_points_per_voxel` must be at least 1; got 0. Leave empty voxels out.")
    if (num_points_per_voxel > voxels.shape[1]).any():
        raise ValueError(
            f"`num_points_per_voxel` must be at most the {voxels.shape[1]} points that `voxels` has room for; got "
            f"{int(num_points_per_voxel.max())}."
        )
    if not voxels.sum(dtype=torch.float64).isfinite():
        raise ValueError("`voxels` must be finite; got NaN or infinity.")


def _check_samples(samples: torch.Tensor, num_voxels: torch.Tensor) -> None:
    """Refuses samples of voxels that are not as many as `num_voxels` says."""
    is_outside = (samples < 0) | (samples >= len(num_voxels))
    if is_outside.any():
        raise ValueError(
            f"`voxel_coords` must begin with a sample in [0, {len(num_voxels)}); got {int(samples[is_outside][0])}."
        )
    counted = torch.bincount(samples, minlength=len(num_voxels))
    if not torch.equal(counted, num_voxels.long()):
        raise ValueError(
            f"`num_voxels` must be how often `voxel_coords` names each sample, {counted.tolist()}; got "
            f"{num_voxels.tolist()}."
        )


__all__ = ["check_inputs"]
