"""The authors' names of EMO's tensors, ours, and the kinds of checkpoint they come in."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from decahub import EmoBackbone, EmoConfig, EmoForImageClassification, EmoForSemanticSegmentation

from .checkpoint import shapes_of
from .name_map import NameMap


BLOCK_KEY_MAP = (
    ("qk.conv.*", "query_key.*"),
    ("v.conv.*", "value.*"),
    ("conv_local.conv.*", "depthwise.convolution.*"),
    ("conv_local.norm.*", "depthwise.normalization.*"),
    ("se.conv_reduce.*", "squeeze_excitation.reduce.*"),
    ("se.conv_expand.*", "squeeze_excitation.expand.*"),
    ("proj.conv.*", "projection.*"),
)
"""Names inside a block, but for its norm, whose name depends on the kind of norm."""

BACKBONE_KEY_MAP = (
    ("stage0.0.convs.0.0.*", "stem.patch_embedding.convolution.*"),
    *((f"stage0.1.{official}", f"stem.block.{ours}") for official, ours in BLOCK_KEY_MAP),
    *(
        (f"stage{{stage+1}}.{{block}}.{official}", f"stages.{{stage}}.blocks.{{block}}.{ours}")
        for official, ours in BLOCK_KEY_MAP
    ),
)

CLASSIFIER_KEY_MAP = (("pre_head.0.*", "pre_classifier.*"), ("head.*", "classifier.*"))

HEAD_LAYERS = (
    ("decode_head.image_pool.1", "decode_head.image_pooling"),
    ("decode_head.aspp_modules.{branch}", "decode_head.branches.{branch}"),
    ("decode_head.psp_modules.{level}.1", "decode_head.pyramid.{level}"),
    ("decode_head.bottleneck", "decode_head.bottleneck"),
    ("decode_head.convs.{level}", "decode_head.projections.{level}"),
    ("decode_head.fusion_conv", "decode_head.fusion"),
    # Every odd place of a scale head is an upsampling without weights.
    ("decode_head.scale_heads.{level}.{2*place}", "decode_head.scale_branches.{level}.{place}"),
    ("auxiliary_head.convs.0", "auxiliary_head.block"),
)
"""Layers of a convolution (`conv` there, `convolution` here) and a batch norm (`bn`, `normalization`)."""

SEGMENTATION_KEY_MAP = (
    *((f"{official}.conv.*", f"{ours}.convolution.*") for official, ours in HEAD_LAYERS),
    *((f"{official}.bn.*", f"{ours}.normalization.*") for official, ours in HEAD_LAYERS),
    ("neck.lateral_convs.{level}.conv.*", "decode_head.lateral_convolutions.{level}.*"),
    ("neck.fpn_convs.{level}.conv.*", "decode_head.output_convolutions.{level}.*"),
    ("decode_head.conv_seg.*", "decode_head.classifier.*"),
    ("auxiliary_head.conv_seg.*", "auxiliary_head.classifier.*"),
)

DROPPED = (
    (r"(bbox|rpn|roi|mask)_head\..*", "head of a detector, of which only the backbone is converted"),
    (r"neck\..*", "neck of a detector, of which only the backbone is converted"),
)
"""Pattern and reason, for files without a decode head."""


@dataclass(frozen=True)
class Layout:
    """A kind of checkpoint: the class of ours that it becomes, and where the backbone's names begin on both sides."""

    architecture: type[PreTrainedModel]
    official_prefix: str
    our_prefix: str
    head_key_map: tuple[tuple[str, str], ...] = ()
    has_final_norm: bool = False


CLASSIFICATION = Layout(EmoForImageClassification, "", "emo.", CLASSIFIER_KEY_MAP, has_final_norm=True)
SEGMENTATION = Layout(EmoForSemanticSegmentation, "backbone.", "emo.", SEGMENTATION_KEY_MAP)
BACKBONE = Layout(EmoBackbone, "backbone.", "")


def find_official_layout(names: Iterable[str]) -> Layout:
    """The kind of checkpoint that has these names of the authors."""
    names = list(names)
    if any(name.startswith("decode_head.") for name in names):
        return SEGMENTATION
    return BACKBONE if any(name.startswith("backbone.") for name in names) else CLASSIFICATION


def find_our_layout(names: Iterable[str]) -> Layout:
    """The kind of checkpoint that has these names of ours."""
    names = list(names)
    if any(name.startswith("decode_head.") for name in names):
        return SEGMENTATION
    return CLASSIFICATION if any(name.startswith("emo.") for name in names) else BACKBONE


def find_dropped(names: Iterable[str]) -> dict[str, str]:
    """The authors' names that have no place in decahub, each with the reason."""
    names = list(names)
    if find_official_layout(names) is not BACKBONE:
        return {}
    return {name: reason for name in names for pattern, reason in DROPPED if re.fullmatch(pattern, name)}


def build_name_map(config: EmoConfig, layout: Layout) -> NameMap:
    """The table of names for one architecture."""
    rows = list(BACKBONE_KEY_MAP)
    rows.append(_norm_row("stage0.0.convs.0.1", "stem.patch_embedding.normalization", config.norm_types[0]))
    for stage, norm_type in enumerate(config.norm_types):
        rows.append(_norm_row(f"stage{stage + 1}.{{block}}.norm", f"stages.{stage}.blocks.{{block}}.norm", norm_type))
    if layout.has_final_norm:
        rows.append(_norm_row("norm", "norm", config.norm_types[-1]))
    backbone = [(layout.official_prefix + official, layout.our_prefix + ours) for official, ours in rows]
    return NameMap([*backbone, *layout.head_key_map])


def _norm_row(official: str, ours: str, norm_type: str) -> tuple[str, str]:
    # The authors' layer norm sits inside a module that turns the axes, hence a second `norm`.
    return (f"{official}.norm.*" if norm_type == "layer_norm" else f"{official}.*", f"{ours}.*")


def build_shapes(config: EmoConfig, layout: Layout) -> dict[str, tuple[int, ...]]:
    """Our names and shapes, without memory for the values."""
    with torch.device("meta"):
        return shapes_of(layout.architecture(config).state_dict())


def build_official_shapes(config: EmoConfig, layout: Layout) -> dict[str, tuple[int, ...]]:
    """The authors' names and shapes."""
    name_map = build_name_map(config, layout)
    return {name_map.revert(name): shape for name, shape in build_shapes(config, layout).items()}
