"""The authors' names of TinyMIM's tensors, ours, and the kinds of checkpoint they come in."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from decahub import (
    TinyMimBackbone,
    TinyMimConfig,
    TinyMimForImageClassification,
    TinyMimForPreTraining,
    TinyMimForSemanticSegmentation,
    TinyMimModel,
)
from decahub.models.tinymim.relative_position import build_relative_position_index

from .checkpoint import shapes_of
from .name_map import NameMap


BLOCK_KEY_MAP = (
    ("norm1.*", "layernorm_before.*"),
    ("attn.qkv.*", "attention.qkv.*"),
    ("attn.proj.*", "attention.output.*"),
    ("attn.relative_position_bias_table", "attention.relative_position_bias_table"),
    ("gamma_1", "layer_scale_attention"),
    ("gamma_2", "layer_scale_mlp"),
    ("norm2.*", "layernorm_after.*"),
    ("mlp.fc1.*", "mlp.fc1.*"),
    ("mlp.fc2.*", "mlp.fc2.*"),
)
"""Names inside a block."""

ENCODER_KEY_MAP = (
    ("cls_token", "embeddings.cls_token"),
    ("dist_token", "embeddings.distillation_token"),
    ("pos_embed", "embeddings.position_embeddings"),
    ("patch_embed.proj.*", "embeddings.patch_embeddings.*"),
    *((f"blocks.{{block}}.{official}", f"layers.{{block}}.{ours}") for official, ours in BLOCK_KEY_MAP),
    ("norm.*", "layernorm.*"),
    ("conv1x1.0.*", "pre_logits.layernorm.*"),
    ("conv1x1.1.*", "pre_logits.projection.*"),
)

CLASSIFIER_KEY_MAP = (("fc_norm.*", "fc_norm.*"), ("head.*", "classifier.*"))

PYRAMID_KEY_MAP = (
    ("backbone.fpn1.{place}.*", "pyramid.finest.{place}.*"),
    ("backbone.fpn2.0.*", "pyramid.fine.0.*"),
    ("backbone.fpn3.*", "pyramid.coarse.*"),
    ("backbone.fpn4.0.*", "pyramid.coarsest.0.*"),
)

HEAD_LAYERS = (
    "decode_head.psp_modules.{level}.1",
    "decode_head.bottleneck",
    "decode_head.lateral_convs.{level}",
    "decode_head.fpn_convs.{level}",
    "decode_head.fpn_bottleneck",
    "auxiliary_head.convs.{level}",
)
"""Layers of a convolution and a batch norm: `bn` in mmsegmentation, `batch_norm` in transformers."""

SEGMENTATION_KEY_MAP = (
    *PYRAMID_KEY_MAP,
    *((f"{layer}.conv.*", f"{layer}.conv.*") for layer in HEAD_LAYERS),
    *((f"{layer}.bn.*", f"{layer}.batch_norm.*") for layer in HEAD_LAYERS),
    ("decode_head.conv_seg.*", "decode_head.classifier.*"),
    ("auxiliary_head.conv_seg.*", "auxiliary_head.classifier.*"),
)

INDEX_NAME = "blocks.{block}.attn.relative_position_index"
"""A buffer of the authors that follows from the size of the grid; ours is no part of the state dict."""


@dataclass(frozen=True)
class Layout:
    """A kind of checkpoint: the class of ours that it becomes, and where the encoder's names begin on both sides."""

    task: str
    architecture: type[PreTrainedModel]
    official_prefix: str
    our_prefix: str
    head_key_map: tuple[tuple[str, str], ...] = ()


PRETRAINING = Layout("pretraining", TinyMimForPreTraining, "", "tinymim.")
ENCODER = Layout("image-feature-extraction", TinyMimModel, "", "")
CLASSIFICATION = Layout("image-classification", TinyMimForImageClassification, "", "tinymim.", CLASSIFIER_KEY_MAP)
SEGMENTATION = Layout(
    "semantic-segmentation", TinyMimForSemanticSegmentation, "backbone.", "tinymim.", SEGMENTATION_KEY_MAP
)
BACKBONE = Layout("backbone", TinyMimBackbone, "backbone.", "", PYRAMID_KEY_MAP)
LAYOUTS = {layout.task: layout for layout in (PRETRAINING, ENCODER, CLASSIFICATION, SEGMENTATION, BACKBONE)}

MAE_DECODER = r"mask_token|decoder_(embed|pos_embed|blocks|norm|pred)(\..*)?"
HEAD_OF_DISTILLATION = r"head_dist\..*"
FINAL_NORM = r"norm\..*"


def find_official_layouts(names: Iterable[str]) -> list[Layout]:
    """The kinds of checkpoint that these names of the authors may become, the usual one first."""
    names = list(names)
    if any(name.startswith("decode_head.") for name in names):
        return [SEGMENTATION]
    if any(name.startswith("backbone.") for name in names):
        return [BACKBONE]
    if any(name.startswith("head.") for name in names):
        return [CLASSIFICATION]
    # Extra tokens and layers belong to fine-tuned models.
    return [ENCODER] if any(name.startswith("conv1x1.") for name in names) else [PRETRAINING, ENCODER]


def find_our_layout(names: Iterable[str]) -> Layout:
    """The kind of checkpoint that has these names of ours."""
    names = list(names)
    if any(name.startswith("decode_head.") for name in names):
        return SEGMENTATION
    if any(name.startswith("pyramid.") for name in names):
        return BACKBONE
    if any(name.startswith("classifier.") for name in names):
        return CLASSIFICATION
    return PRETRAINING if any(name.startswith("tinymim.") for name in names) else ENCODER


def find_dropped(names: Iterable[str]) -> dict[str, str]:
    """The authors' names that have no place in decahub, each with the reason."""
    names = list(names)
    reasons = {
        MAE_DECODER: "decoder of a masked autoencoder, which nothing but its own pre-training needs",
        HEAD_OF_DISTILLATION: "classifier of the distillation token; predictions come from `head`",
    }
    if any(name.startswith("fc_norm.") for name in names):
        reasons[FINAL_NORM] = "mean pooling goes without the final norm of the encoder"
    return {name: reason for name in names for pattern, reason in reasons.items() if re.fullmatch(pattern, name)}


def build_name_map(layout: Layout) -> NameMap:
    """The table of names for one kind of checkpoint."""
    encoder = [(layout.official_prefix + official, layout.our_prefix + ours) for official, ours in ENCODER_KEY_MAP]
    return NameMap([*encoder, *layout.head_key_map])


def build_shapes(config: TinyMimConfig, layout: Layout) -> dict[str, tuple[int, ...]]:
    """Our names and shapes, without memory for the values."""
    with torch.device("meta"):
        return shapes_of(layout.architecture(config).state_dict())


def build_indices(config: TinyMimConfig, layout: Layout) -> dict[str, torch.Tensor]:
    """The buffers of the authors that are computed anew, one for each block."""
    if not config.use_relative_position_bias:
        return {}
    index = build_relative_position_index(config.grid_size, config.num_prefix_tokens)
    blocks = range(config.num_hidden_layers)
    return {layout.official_prefix + INDEX_NAME.format(block=block): index for block in blocks}


def build_official_shapes(config: TinyMimConfig, layout: Layout) -> dict[str, tuple[int, ...]]:
    """The authors' names and shapes."""
    name_map = build_name_map(layout)
    shapes = {name_map.revert(name): shape for name, shape in build_shapes(config, layout).items()}
    return shapes | shapes_of(build_indices(config, layout))
