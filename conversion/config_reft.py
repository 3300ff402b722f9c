"""The configuration of a Mask2Former, read off the tensors of its release."""

import re
from collections.abc import Mapping
from typing import Any

import torch

from decahub import RefTConfig

from .checkpoint import ConversionError
from .layouts_reft import PIXEL, PREDICTOR


STAGES = [f"stage{stage}" for stage in range(1, 5)]
OFFSETS_PER_HEAD = 3 * 4 * 2  # levels, points, coordinates
TRACELESS_FIELDS = ("pre_norm", "train_num_points", "no_object_weight", "class_weight", "mask_weight", "dice_weight")
"""Fields that leave no trace in the tensors."""


def infer_config(official: Mapping[str, torch.Tensor], **fields: Any) -> RefTConfig:
    """The configuration that the tensors of a release belong to.

    Args:
        official (`Mapping[str, torch.Tensor]`): tensors under their current names in the release.
        fields: of [`RefTConfig`]; they win.

    Raises:
        ConversionError: If a tensor that shows a size is missing.
    """
    try:
        offsets = official[f"{PIXEL}transformer.encoder.layers.0.self_attn.sampling_offsets.bias"]
        classes = official[f"{PREDICTOR}class_embed.weight"]
        found = {
            "backbone_config": _infer_backbone(official),
            "feature_size": official[f"{PIXEL}mask_features.weight"].shape[1],
            "mask_feature_size": official[f"{PIXEL}mask_features.weight"].shape[0],
            "hidden_dim": classes.shape[1],
            "num_labels": classes.shape[0] - 1,
            "num_queries": official[f"{PREDICTOR}query_feat.weight"].shape[0],
            "num_attention_heads": len(offsets) // OFFSETS_PER_HEAD,
            "encoder_feedforward_dim": len(official[f"{PIXEL}transformer.encoder.layers.0.linear1.bias"]),
            "encoder_layers": _count(official, rf"{re.escape(PIXEL)}transformer\.encoder\.layers\.(\d+)\."),
            "dim_feedforward": len(official[f"{PREDICTOR}transformer_ffn_layers.0.linear1.bias"]),
            "decoder_layers": 1 + _count(official, rf"{re.escape(PREDICTOR)}transformer_ffn_layers\.(\d+)\."),
            "enforce_input_projection": f"{PREDICTOR}input_proj.0.weight" in official,
        }
    except (KeyError, ZeroDivisionError) as error:
        raise ConversionError(f"`checkpoint` must be a Mask2Former; the tensor {error} is missing.") from error
    if "id2label" in fields:
        found.pop("num_labels")
    return RefTConfig(**{**found, **fields})


def _infer_backbone(official: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    return _infer_swin(official) if "backbone.patch_embed.proj.weight" in official else _infer_resnet(official)


def _infer_resnet(official: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    has_bottleneck = "backbone.res2.0.conv3.weight" in official
    last = "conv3" if has_bottleneck else "conv2"
    return {
        "model_type": "resnet",
        "embedding_size": len(official["backbone.stem.conv1.weight"]),
        "hidden_sizes": [len(official[f"backbone.res{stage}.0.{last}.weight"]) for stage in range(2, 6)],
        "depths": [_count(official, rf"backbone\.res{stage}\.(\d+)\.") for stage in range(2, 6)],
        "layer_type": "bottleneck" if has_bottleneck else "basic",
        "out_features": STAGES,
    }


def _infer_swin(official: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    projection = official["backbone.patch_embed.proj.weight"]
    tables = [
        official[f"backbone.layers.{stage}.blocks.0.attn.relative_position_bias_table"] for stage in range(len(STAGES))
    ]
    return {
        "model_type": "swin",
        "embed_dim": len(projection),
        "patch_size": projection.shape[-1],
        "depths": [_count(official, rf"backbone\.layers\.{stage}\.blocks\.(\d+)\.") for stage in range(len(STAGES))],
        "num_heads": [table.shape[1] for table in tables],
        "window_size": (round(len(tables[0]) ** 0.5) + 1) // 2,
        "out_features": STAGES,
    }


def _count(official: Mapping[str, torch.Tensor], pattern: str) -> int:
    """One more than the largest number that the pattern finds."""
    numbers = [int(found[1]) for name in official if (found := re.match(pattern, name))]
    return max(numbers, default=-1) + 1


__all__ = ["TRACELESS_FIELDS", "infer_config"]
