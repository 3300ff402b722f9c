"""The authors' names of CMT's tensors, ours, and how each side stores them."""

from collections.abc import Iterable, Mapping

import torch
from transformers import PreTrainedConfig

from decahub import CmtConfig, CmtForObjectDetection3D, CmtLidarConfig, CmtVovNetConfig

from .checkpoint import ConversionError, rename, shapes_of
from .layouts_cmt_head import HEAD_KEY_MAP, pack_projections, split_projections
from .layouts_cmt_lidar import (
    BEV_BACKBONE_KEY_MAP,
    BEV_NECK_KEY_MAP,
    SPARSE_WEIGHT_DIMENSIONS,
    build_sparse_encoder_key_map,
    to_spconv2_layout,
)
from .name_map import NameMap


LAST_SPARSE_KERNEL = "pts_middle_encoder.conv_out.0.weight"
PLAIN_PARTS = (("conv", "convolution"), ("norm", "normalization"))
SEPARABLE_PARTS = (("dw_conv3x3", "depthwise"), ("pw_conv1x1", "convolution"), ("pw_norm", "normalization"))
_BLOCK, _OUR_BLOCK = "OSA{stage+2}_{block+1}", "stages.{stage}.blocks.{block}"
VOVNET_FIRST_LAYER = ("stem.stem_1", "stem.layers.0")
VOVNET_LAYERS = (
    ("stem.stem_{layer+1}", "stem.layers.{layer}"),
    (f"stage{{stage+2}}.{_BLOCK}.layers.{{layer}}.{_BLOCK}_{{layer}}", f"{_OUR_BLOCK}.layers.{{layer}}"),
)
"""Layers that a depth-wise network makes separable."""
VOVNET_PROJECTIONS = (
    (f"stage{{stage+2}}.{_BLOCK}.conv_reduction.{_BLOCK}_reduction_0", f"{_OUR_BLOCK}.reduction"),
    (f"stage{{stage+2}}.{_BLOCK}.concat.{_BLOCK}_concat", f"{_OUR_BLOCK}.projection"),
)
VOVNET_GATE = (f"stage{{stage+2}}.{_BLOCK}.ese.fc.*", f"{_OUR_BLOCK}.gate.projection.*")

RESNET_KEY_MAP = (
    ("conv1.*", "embedder.embedder.convolution.*"),
    ("bn1.*", "embedder.embedder.normalization.*"),
    *(
        (
            f"layer{{stage+1}}.{{block}}.{official}{{layer+1}}.*",
            f"encoder.stages.{{stage}}.layers.{{block}}.layer.{{layer}}.{ours}.*",
        )
        for official, ours in (("conv", "convolution"), ("bn", "normalization"))
    ),
    ("layer{stage+1}.{block}.downsample.0.*", "encoder.stages.{stage}.layers.{block}.shortcut.convolution.*"),
    ("layer{stage+1}.{block}.downsample.1.*", "encoder.stages.{stage}.layers.{block}.shortcut.normalization.*"),
)
"""torchvision's names of a ResNet with bottlenecks -> transformers'."""

IMAGE_NECK_KEY_MAP = (
    ("lateral_convs.{level}.conv.*", "lateral_convolutions.{level}.*"),
    ("fpn_convs.0.conv.*", "output_convolution.*"),
)


def build_vovnet_key_map(use_depthwise: bool) -> list[tuple[str, str]]:
    """The authors' templates of a VoVNet -> ours."""
    layers = SEPARABLE_PARTS if use_depthwise else PLAIN_PARTS
    rows = _combine([VOVNET_FIRST_LAYER], PLAIN_PARTS)  # never separable, hence before the other layers of the stem
    return [*rows, *_combine(VOVNET_LAYERS, layers), *_combine(VOVNET_PROJECTIONS, PLAIN_PARTS), VOVNET_GATE]


def _combine(layers: Iterable[tuple[str, str]], parts: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    # The authors join the name of a layer and its part by a slash.
    return [(f"{official}/{theirs}.*", f"{ours}.{part}.*") for official, ours in layers for theirs, part in parts]


def build_key_map(config: CmtConfig) -> list[tuple[str, str]]:
    """The authors' templates -> ours, for one architecture."""
    rows = [(f"pts_bbox_head.{official}", ours) for official, ours in HEAD_KEY_MAP]
    if config.image_backbone_config is not None:
        backbone = build_backbone_key_map(config.image_backbone_config)
        rows += [(f"img_backbone.{official}", f"model.image_backbone.{ours}") for official, ours in backbone]
        rows += [(f"img_neck.{official}", f"model.image_neck.{ours}") for official, ours in IMAGE_NECK_KEY_MAP]
    if config.lidar_backbone_config is not None:
        lidar = build_lidar_key_map(config.lidar_backbone_config)
        rows += [(official, f"model.lidar_backbone.{ours}") for official, ours in lidar]
    return rows


def build_backbone_key_map(config: PreTrainedConfig) -> list[tuple[str, str]]:
    """The authors' templates of an image backbone -> ours, without prefixes.

    Raises:
        ConversionError: If the authors have no such backbone.
    """
    if isinstance(config, CmtVovNetConfig):
        return build_vovnet_key_map(config.use_depthwise)
    if config.model_type == "resnet":
        return list(RESNET_KEY_MAP)
    raise ConversionError(f"`image_backbone_config` must be a VoVNet or a ResNet; got {config.model_type!r}.")


def build_lidar_key_map(config: CmtLidarConfig) -> list[tuple[str, str]]:
    """The authors' templates of the LiDAR branch -> ours, without the prefix of ours."""
    parts = (
        ("pts_middle_encoder", "encoder", build_sparse_encoder_key_map(len(config.depths), list(config.depths))),
        ("pts_backbone", "bev_backbone", BEV_BACKBONE_KEY_MAP),
        ("pts_neck", "bev_neck", BEV_NECK_KEY_MAP),
    )
    return [
        (f"{their_part}.{official}", f"{our_part}.{ours}")
        for their_part, our_part, rows in parts
        for official, ours in rows
    ]


def find_sparse_layout(official: Mapping[str, torch.Tensor]) -> str:
    """Order of axes of the sparse convolutions in a file, told by the kernel of the last one, which is 3 x 1 x 1.

    Returns:
        `str`: `"spconv2"` for (out, z, y, x, in), `"spconv1"` for (z, y, x, in, out). Without LiDAR the former.

    Raises:
        ConversionError: If it is neither.
    """
    if LAST_SPARSE_KERNEL not in official:
        return "spconv2"
    shape = tuple(official[LAST_SPARSE_KERNEL].shape)
    for layout, kernel in (("spconv2", shape[1:4]), ("spconv1", shape[:3])):
        if len(shape) == 5 and kernel == (3, 1, 1):
            return layout
    raise ConversionError(
        f"{LAST_SPARSE_KERNEL} must have the shape (out, 3, 1, 1, in) of spconv 2 or (3, 1, 1, in, out) of spconv 1; "
        f"got {list(shape)}."
    )


def to_spconv2(official: Mapping[str, torch.Tensor], layout: str) -> dict[str, torch.Tensor]:
    """The authors' tensors with sparse kernels in the order of spconv 2, which is ours."""
    return dict(official) if layout == "spconv2" else dict(official) | to_spconv2_layout(_select_encoder(official))


def from_spconv2(official: Mapping[str, torch.Tensor], layout: str) -> dict[str, torch.Tensor]:
    """The inverse of [`to_spconv2`]."""
    if layout == "spconv2":
        return dict(official)
    encoder = _select_encoder(official)
    return dict(official) | {
        name: tensor.permute(1, 2, 3, 4, 0).contiguous()
        for name, tensor in encoder.items()
        if tensor.ndim == SPARSE_WEIGHT_DIMENSIONS
    }


def _select_encoder(official: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in official.items() if name.startswith("pts_middle_encoder.")}


def build_shapes(config: CmtConfig) -> dict[str, tuple[int, ...]]:
    """Our names and shapes, without memory for the values."""
    with torch.device("meta"):
        return shapes_of(CmtForObjectDetection3D(config).state_dict())


def build_official_shapes(config: CmtConfig, sparse_layout: str = "spconv2") -> dict[str, tuple[int, ...]]:
    """The authors' names and shapes."""
    name_map = NameMap(build_key_map(config))
    ours = {name: torch.empty(shape, device="meta") for name, shape in build_shapes(config).items()}
    return shapes_of(from_spconv2(rename(pack_projections(ours), name_map.revert), sparse_layout))


__all__ = [
    "HEAD_KEY_MAP",
    "IMAGE_NECK_KEY_MAP",
    "RESNET_KEY_MAP",
    "build_key_map",
    "build_lidar_key_map",
    "build_official_shapes",
    "build_shapes",
    "build_vovnet_key_map",
    "find_sparse_layout",
    "from_spconv2",
    "pack_projections",
    "split_projections",
    "to_spconv2",
]
