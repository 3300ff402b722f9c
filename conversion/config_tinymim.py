"""TinyMIM's configuration from the shapes of the authors' tensors and the name of a variant."""

import math
import re
from collections.abc import Mapping
from typing import Any

import torch

from decahub import TinyMimConfig
from decahub.models.tinymim.configuration_tinymim import VARIANTS

from .checkpoint import ConversionError, shapes_of
from .layouts_tinymim import (
    BACKBONE,
    CLASSIFICATION,
    ENCODER,
    MAE_DECODER,
    PRETRAINING,
    SEGMENTATION,
    Layout,
)


TRACELESS_FIELDS = ("num_attention_heads", "feature_layer", "layer_norm_eps", "hidden_act")
"""What no tensor shows: taken from the variant, the command line or the authors' code."""

Shapes = Mapping[str, tuple[int, ...]]


def infer_config(
    official: Mapping[str, torch.Tensor], layout: Layout, variant: str = "auto", **overrides: Any
) -> TinyMimConfig:
    """Configuration that the shapes of a checkpoint tell.

    Args:
        official (`Mapping[str, torch.Tensor]`): the authors' tensors.
        layout (`Layout`): what they become.
        variant (`str`): name of a published variant; `"auto"` finds it by its width and depth. It supplies the number
            of attention heads, which leaves no trace in the tensors.
        overrides: fields of [`TinyMimConfig`] that win over everything else.

    Raises:
        ConversionError: If the tensors are not those of a TinyMIM, if `variant` is another one, or if they are of no
            published variant and `num_attention_heads` is not given.
        ValueError: If `variant` is unknown.
    """
    if variant not in ("auto", *VARIANTS):
        raise ValueError(f"`variant` must be one of {['auto', *VARIANTS]}; got {variant!r}.")
    shapes = shapes_of(official)
    prefix = layout.official_prefix
    encoder = {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}
    fields = _infer_encoder_fields(encoder, overrides.get("image_size"))
    names = find_variants(fields)
    if variant != "auto" and variant not in names:
        raise ConversionError(
            f"`variant` must be that of the checkpoint; got {variant!r} for `hidden_size` {fields['hidden_size']} and "
            f"`num_hidden_layers` {fields['num_hidden_layers']}, which are those of {names or 'no published variant'}."
        )
    if not names and "num_attention_heads" not in overrides:
        raise ConversionError(
            "`checkpoint` must be of a published variant, for the number of attention heads leaves no trace in "
            f"tensors; got `hidden_size` {fields['hidden_size']} and `num_hidden_layers` "
            f"{fields['num_hidden_layers']}. Give `--num_attention_heads`."
        )
    name = variant if variant != "auto" else next(iter(names), None)
    fields |= _infer_head_fields(shapes, layout, fields["num_hidden_layers"])
    if layout in (PRETRAINING, ENCODER) and not _is_autoencoder(official, variant):
        # The last block of a student is trained up to its projections only.
        fields["feature_layer"] = -1 if fields["num_hidden_layers"] == 1 else -2
    return TinyMimConfig(**{**(VARIANTS[name] if name else {}), **fields, **overrides})


def find_variants(fields: Mapping[str, Any]) -> list[str]:
    """Names of the published variants with these sizes; students before teachers of the same sizes."""
    default = TinyMimConfig()
    keys = ("hidden_size", "num_hidden_layers", "intermediate_size", "use_distillation_token")
    return [
        name
        for name, variant in VARIANTS.items()
        if all(variant.get(key, getattr(default, key)) == fields[key] for key in keys)
    ]


def infer_grid(position_shape: tuple[int, ...], num_prefix_tokens: int) -> tuple[int, int] | None:
    """Rows and columns of a square grid of patches; `None` if it is not square."""
    side = math.isqrt(max(0, position_shape[1] - num_prefix_tokens))
    return (side, side) if side and side * side == position_shape[1] - num_prefix_tokens else None


def _is_autoencoder(names: Mapping[str, torch.Tensor], variant: str) -> bool:
    return variant.startswith("mae-") or any(re.fullmatch(MAE_DECODER, name) for name in names)


def _infer_encoder_fields(shapes: Shapes, image_size: int | list[int] | None) -> dict[str, Any]:
    hidden_size, num_channels, patch_size = _get_shape(shapes, "patch_embed.proj.weight", 4)[:3]
    blocks = [int(found[1]) for name in shapes if (found := re.match(r"blocks\.(\d+)\.", name))]
    has_distillation_token = "dist_token" in shapes
    grid = infer_grid(_get_shape(shapes, "pos_embed", 3), 1 + has_distillation_token)
    if grid is None and image_size is None:
        raise ConversionError(
            f"`pos_embed` must belong to a square grid of patches; got {shapes['pos_embed'][1]} rows. Give the height "
            "and width of its images as `--image_size`."
        )
    fields = {
        "image_size": image_size if grid is None else grid[0] * patch_size,
        "patch_size": patch_size,
        "num_channels": num_channels,
        "hidden_size": hidden_size,
        "num_hidden_layers": 1 + max(blocks, default=-1),
        "intermediate_size": _get_shape(shapes, "blocks.0.mlp.fc1.weight", 2)[0],
        "qkv_bias": "blocks.0.attn.qkv.bias" in shapes,
        "use_distillation_token": has_distillation_token,
        "use_relative_position_bias": "blocks.0.attn.relative_position_bias_table" in shapes,
    }
    if "blocks.0.gamma_1" in shapes:
        fields["layer_scale_init_value"] = 1.0
    if "conv1x1.1.weight" in shapes:
        fields["pre_logits_dim"] = _get_shape(shapes, "conv1x1.1.weight", 2)[0]
    return fields


def _infer_head_fields(shapes: Shapes, layout: Layout, depth: int) -> dict[str, Any]:
    if layout is CLASSIFICATION:
        return {
            "num_labels": _get_shape(shapes, "head.weight", 2)[0],
            "pooling": "mean" if "fc_norm.weight" in shapes else "cls",
        }
    if layout is BACKBONE:
        indices = TinyMimConfig(num_hidden_layers=depth).pyramid_indices
        return {"use_feature_pyramid": True, "out_indices": indices}
    if layout is not SEGMENTATION:
        return {}
    num_labels, decode_hidden_size = _get_shape(shapes, "decode_head.conv_seg.weight", 4)[:2]
    fields = {"num_labels": num_labels, "decode_hidden_size": decode_hidden_size}
    fields["use_auxiliary_head"] = any(name.startswith("auxiliary_head.") for name in shapes)
    if fields["use_auxiliary_head"]:
        fields["auxiliary_hidden_size"] = _get_shape(shapes, "auxiliary_head.conv_seg.weight", 4)[1]
    return fields


def _get_shape(shapes: Shapes, name: str, num_axes: int) -> tuple[int, ...]:
    if name not in shapes:
        raise ConversionError(
            f"`checkpoint` must have a tensor named {name}; it has none. Is it a TinyMIM or MAE checkpoint?"
        )
    if len(shapes[name]) != num_axes:
        raise ConversionError(f"`checkpoint` must have {num_axes} axes in {name}; got {list(shapes[name])}.")
    return shapes[name]
