"""The authors' names of CMT's tensors, ours, and how each side stores them."""

from collections.abc import Iterable, Mapping

import torch
from transformers import PreTrainedConfig

from decahub import CmtConfig, CmtForObjectDetection3D, CmtLidarConfig, CmtVovNetConfig

from .checkpoint import ConversionError, rename, shapes_of
from .name_map import NameMap


PACKED_PROJECTIONS = ("q_proj", "k_proj", "v_proj")
"""What the authors keep in one tensor, in this order."""
LAST_SPARSE_KERNEL = "pts_middle_encoder.conv_out.0.weight"
BRANCHES = {
    "center": "center",
    "height": "height",
    "dim": "size",
    "rot": "rotation",
    "vel": "velocity",
    "cls_logits": "classes",
}
"""Branches of a task head: the authors' name -> ours."""

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


LIDAR_KEY_MAP = (
    ("pts_middle_encoder.conv_input.0.*", "encoder.stem.convolution.*"),
    ("pts_middle_encoder.conv_input.1.*", "encoder.stem.normalization.*"),
    *(
        (
            f"pts_middle_encoder.encoder_layers.encoder_layer{{stage+1}}.{{block}}.{official}{{layer+1}}.*",
            f"encoder.stages.{{stage}}.blocks.{{block}}.layers.{{layer}}.{ours}.*",
        )
        for official, ours in (("conv", "convolution"), ("bn", "normalization"))
    ),
    ("pts_middle_encoder.conv_out.0.*", "encoder.output_layer.convolution.*"),
    ("pts_middle_encoder.conv_out.1.*", "encoder.output_layer.normalization.*"),
    # Every third place of a block is a ReLU.
    ("pts_backbone.blocks.{block}.{3*layer}.*", "bev_backbone.blocks.{block}.{layer}.convolution.*"),
    ("pts_backbone.blocks.{block}.{3*layer+1}.*", "bev_backbone.blocks.{block}.{layer}.normalization.*"),
    ("pts_neck.deblocks.{level}.0.*", "bev_neck.levels.{level}.convolution.*"),
    ("pts_neck.deblocks.{level}.1.*", "bev_neck.levels.{level}.normalization.*"),
)
"""Names of the LiDAR branch, but for its strided convolutions, whose place is the number of blocks before them."""

_LAYER, _OUR_LAYER = "transformer.decoder.layers.{layer}", "model.decoder.layers.{layer}"
DECODER_KEY_MAP = (
    *(
        (f"{_LAYER}.attentions.{index}.attn.{projection}.*", f"{_OUR_LAYER}.{attention}.{projection}.*")
        for index, attention in enumerate(("self_attention", "cross_attention"))
        for projection in (*PACKED_PROJECTIONS, "out_proj")
    ),
    *(
        (f"{_LAYER}.norms.{index}.*", f"{_OUR_LAYER}.{norm}.*")
        for index, norm in enumerate(("self_attention_norm", "cross_attention_norm", "mlp_norm"))
    ),
    (f"{_LAYER}.ffns.0.layers.0.0.*", f"{_OUR_LAYER}.fc1.*"),
    (f"{_LAYER}.ffns.0.layers.1.*", f"{_OUR_LAYER}.fc2.*"),
    ("transformer.decoder.post_norm.*", "model.decoder.layernorm.*"),
)
HEAD_KEY_MAP = (
    ("shared_conv.conv.*", "model.bev_projection.conv.*"),
    ("shared_conv.bn.*", "model.bev_projection.norm.*"),
    ("reference_points.*", "model.reference_points.*"),
    *(
        (f"{official}.{{2*place}}.*", f"model.{ours}.fc{{place+1}}.*")
        for official, ours in (("bev_embedding", "bev_position_embedding"), ("rv_embedding", "ray_position_embedding"))
    ),
    *DECODER_KEY_MAP,
    *(
        (f"task_heads.{{task}}.{branch}.{place}.*", f"task_heads.{{task}}.{our_branch}.{layer}.*")
        for branch, our_branch in BRANCHES.items()
        for place, layer in ((0, "conv1"), (1, "norm"), (3, "conv2"))
    ),
)
"""Names of what the authors call the head: everything after the backbones."""


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
    rows = list(LIDAR_KEY_MAP)
    for stage, depth in enumerate(config.depths[:-1]):
        official = f"pts_middle_encoder.encoder_layers.encoder_layer{stage + 1}.{depth}"
        ours = f"encoder.stages.{stage}.downsample"
        rows += [(f"{official}.0.*", f"{ours}.convolution.*"), (f"{official}.1.*", f"{ours}.normalization.*")]
    return rows


def split_packed(official: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The authors' tensors with one each for queries, keys and values, which they pack into one."""
    tensors = {}
    for name, tensor in official.items():
        stem, mark, kind = name.rpartition("in_proj_")
        if not mark:
            tensors[name] = tensor
            continue
        for projection, part in zip(PACKED_PROJECTIONS, tensor.chunk(len(PACKED_PROJECTIONS)), strict=True):
            tensors[f"{stem}{projection}.{kind}"] = part
    return tensors


def merge_packed(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The inverse of [`split_packed`]."""
    official = {}
    first, *others = PACKED_PROJECTIONS
    for name, tensor in tensors.items():
        if any(f".{projection}." in name for projection in others):
            continue
        if f".{first}." in name:
            parts = [tensors[name.replace(f".{first}.", f".{projection}.")] for projection in PACKED_PROJECTIONS]
            stem, _, kind = name.rpartition(f"{first}.")
            official[f"{stem}in_proj_{kind}"] = torch.cat(parts)
        else:
            official[name] = tensor
    return official


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
    return _permute_sparse(official, (4, 0, 1, 2, 3) if layout == "spconv1" else None)


def from_spconv2(official: Mapping[str, torch.Tensor], layout: str) -> dict[str, torch.Tensor]:
    """The inverse of [`to_spconv2`]."""
    return _permute_sparse(official, (1, 2, 3, 4, 0) if layout == "spconv1" else None)


def _permute_sparse(official: Mapping[str, torch.Tensor], axes: tuple[int, ...] | None) -> dict[str, torch.Tensor]:
    return {
        name: tensor.permute(axes) if axes and name.startswith("pts_middle_encoder.") and tensor.ndim == 5 else tensor
        for name, tensor in official.items()
    }


def build_shapes(config: CmtConfig) -> dict[str, tuple[int, ...]]:
    """Our names and shapes, without memory for the values."""
    with torch.device("meta"):
        return shapes_of(CmtForObjectDetection3D(config).state_dict())


def build_official_shapes(config: CmtConfig, sparse_layout: str = "spconv2") -> dict[str, tuple[int, ...]]:
    """The authors' names and shapes."""
    name_map = NameMap(build_key_map(config))
    ours = {name: torch.empty(shape, device="meta") for name, shape in build_shapes(config).items()}
    return shapes_of(from_spconv2(merge_packed(rename(ours, name_map.revert)), sparse_layout))
