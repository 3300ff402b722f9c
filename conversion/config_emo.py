"""EMO's configuration from the authors' keywords, or from the shapes of their tensors."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from decahub import EmoConfig
from decahub.models.emo.configuration_emo import NUM_STAGES, VARIANTS

from .checkpoint import ConversionError, shapes_of
from .layouts_emo import BACKBONE, CLASSIFICATION, SEGMENTATION, Layout, find_official_layout


NORM_TYPES = {"bn_2d": "batch_norm", "ln_2d": "layer_norm"}

DECODE_HEAD_MARKS = {
    "deeplabv3": "decode_head.image_pool.",
    "pspnet": "decode_head.psp_modules.",
    "segformer": "decode_head.fusion_conv.",
    "sem_fpn": "decode_head.scale_heads.",
}
"""Names by which a decode head is known."""

OFFICIAL_FIELDS = {
    "dim_in": "num_channels",
    "num_classes": "num_labels",
    "depths": "depths",
    "stem_dim": "stem_hidden_size",
    "embed_dims": "hidden_sizes",
    "exp_ratios": "expansion_ratios",
    "norm_layers": "norm_types",
    "act_layers": "hidden_acts",
    "dw_kss": "depthwise_kernel_sizes",
    "se_ratios": "squeeze_excitation_ratios",
    "dim_heads": "head_dims",
    "window_sizes": "window_sizes",
    "attn_ss": "use_attention",
    "qkv_bias": "qkv_bias",
    "attn_drop": "attention_probs_dropout_prob",
    "drop": "hidden_dropout_prob",
    "drop_path": "drop_path_rate",
    "v_group": "grouped_value",
    "attn_pre": "attention_before_expansion",
    "pre_dim": "pre_classifier_size",
}
"""The authors' keyword -> field of [`EmoConfig`]."""

TRACELESS_FIELDS = ("head_dims", "window_sizes", "hidden_acts", "attention_before_expansion")
"""What no tensor shows: taken from the variant or from the command line."""


def config_from_official(keywords: Mapping[str, Any], **overrides) -> EmoConfig:
    """Configuration from the keywords of the authors' constructor; what is not given has the default of [`EmoConfig`].

    Raises:
        ValueError: If a keyword is not one of the authors'.
    """
    unknown = [keyword for keyword in keywords if keyword not in OFFICIAL_FIELDS]
    if unknown:
        raise ValueError(f"`keywords` must be of {sorted(OFFICIAL_FIELDS)}; got {unknown[0]!r}.")
    fields = {OFFICIAL_FIELDS[keyword]: value for keyword, value in keywords.items()}
    if "norm_types" in fields:
        fields["norm_types"] = [NORM_TYPES.get(norm_type, norm_type) for norm_type in fields["norm_types"]]
    return EmoConfig(**{**fields, **overrides})


def infer_config(official: Mapping[str, torch.Tensor], variant: str = "auto", **overrides) -> EmoConfig:
    """Configuration that the shapes of a checkpoint tell.

    Args:
        official (`Mapping[str, torch.Tensor]`): the authors' tensors: a classifier, a segmentor or a detector.
        variant (`str`): name of a published variant; `"auto"` finds it by its widths and depths. It supplies what
            leaves no trace in the tensors: head sizes, windows and activations.
        overrides: fields of [`EmoConfig`] that win over everything else.

    Raises:
        ConversionError: If the tensors are not those of an EMO, if `variant` is another one, or if they are of no
            published variant and `head_dims` is not given.
        ValueError: If `variant` is unknown.
    """
    if variant not in ("auto", *VARIANTS):
        raise ValueError(f"`variant` must be one of {['auto', *VARIANTS]}; got {variant!r}.")
    layout = find_official_layout(official)
    backbone = {
        name.removeprefix(layout.official_prefix): shape
        for name, shape in shapes_of(official).items()
        if name.startswith(layout.official_prefix)
    }
    fields = _infer_backbone_fields(ShapeTable(backbone))
    fields |= _infer_head_fields(ShapeTable(shapes_of(official)), layout)
    name = find_variant(fields)
    if variant not in ("auto", name):
        raise ConversionError(
            f"`variant` must be that of the checkpoint; got {variant!r} for `hidden_sizes` {fields['hidden_sizes']} "
            f"and `depths` {fields['depths']}, which are those of {repr(name) if name else 'no published variant'}."
        )
    if name is None and any(fields["use_attention"]) and "head_dims" not in {**fields, **overrides}:
        raise ConversionError(
            "`checkpoint` must be of a published variant, for the size of attention heads leaves no trace in tensors; "
            f"got `hidden_sizes` {fields['hidden_sizes']} and `depths` {fields['depths']}. Give `--head_dims`."
        )
    if name == "5m" and layout is SEGMENTATION:
        # The authors segment 512 pixels with this variant at stride 32, in one window.
        fields["window_sizes"] = [16] * NUM_STAGES
    defaults = VARIANTS[name] if name else {}
    return EmoConfig(**{**defaults, **fields, **overrides})


def find_variant(fields: Mapping[str, Any]) -> str | None:
    """Name of the published variant with these widths and depths."""
    for name, variant in VARIANTS.items():
        if all(list(variant[key]) == list(fields[key]) for key in ("depths", "hidden_sizes", "expansion_ratios")):
            return name
    return None


class ShapeTable:
    """Names and shapes of a checkpoint, with questions that name the tensor when they cannot be answered."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]):
        self.shapes = shapes

    def find(self, pattern: str) -> dict[str, tuple[int, ...]]:
        return {name: shape for name, shape in self.shapes.items() if re.fullmatch(pattern, name)}

    def has(self, pattern: str) -> bool:
        return bool(self.find(pattern))

    def size(self, pattern: str, axis: int) -> int:
        """Size along an axis of the first tensor that matches."""
        for name, shape in self.find(pattern).items():
            if axis >= len(shape):
                raise ConversionError(f"`checkpoint` must have at least {axis + 1} axes in {name}; got {list(shape)}.")
            return shape[axis]
        raise ConversionError(
            f"`checkpoint` must have a tensor named like {pattern.replace(chr(92), '')}; it has none. Is it an EMO "
            "checkpoint?"
        )


def _infer_backbone_fields(table: ShapeTable) -> dict[str, Any]:
    stages = range(1, NUM_STAGES + 1)
    fields = {
        "num_channels": table.size(r"stage0\.0\.convs\.0\.0\.weight", 1),
        "stem_hidden_size": table.size(r"stage0\.0\.convs\.0\.0\.weight", 0),
        "depths": [_infer_depth(table, stage) for stage in stages],
        "hidden_sizes": [table.size(rf"stage{stage}\.\d+\.proj\.conv\.weight", 0) for stage in stages],
        "depthwise_kernel_sizes": [table.size(rf"stage{stage}\.\d+\.conv_local\.conv\.weight", 2) for stage in stages],
        "norm_types": [
            "layer_norm" if table.has(rf"stage{stage}\.\d+\.norm\.norm\.weight") else "batch_norm" for stage in stages
        ],
        "use_attention": [table.has(rf"stage{stage}\.\d+\.qk\.conv\.weight") for stage in stages],
        "qkv_bias": table.has(r"stage\d\.\d+\.v\.conv\.bias"),
    }
    in_sizes = [fields["stem_hidden_size"], *fields["hidden_sizes"]]
    fields["expansion_ratios"] = [_infer_expansion_ratio(table, stage, in_sizes) for stage in stages]
    fields["squeeze_excitation_ratios"] = [_infer_squeeze_ratio(table, stage) for stage in stages]
    fields |= _infer_grouped_value(table, fields)
    return fields


def _infer_depth(table: ShapeTable, stage: int) -> int:
    blocks = [int(name.split(".")[1]) for name in table.find(rf"stage{stage}\.\d+\..*")]
    if not blocks:
        raise ConversionError(
            f"`checkpoint` must have a tensor named like stage{stage}.0.proj.conv.weight; it has none."
        )
    return 1 + max(blocks)


def _infer_expansion_ratio(table: ShapeTable, stage: int, in_sizes: Sequence[int]) -> float:
    """Shortest decimal fraction that gives the width of every block of a stage."""
    widths = []
    for name in table.find(rf"stage{stage}\.\d+\.v\.conv\.weight"):
        # The first block of a stage comes from the stage before and is twice as wide.
        in_size, factor = (in_sizes[stage - 1], 2) if name.split(".")[1] == "0" else (in_sizes[stage], 1)
        widths.append((in_size, factor, table.size(re.escape(name), 0)))

    def fits(ratio: float) -> bool:
        return all(int(in_size * (ratio * factor)) == width for in_size, factor, width in widths)

    smallest = max((width / (in_size * factor) for in_size, factor, width in widths), default=0.0)
    ratio = _shortest_decimal(smallest, fits)
    if ratio is None or not widths:
        found = ", ".join(f"{width} channels from {in_size}" for in_size, _, width in widths) or "none"
        raise ConversionError(
            f"`checkpoint` must have one expansion ratio in stage{stage}.*.v.conv.weight; got {found}."
        )
    return ratio


def _infer_squeeze_ratio(table: ShapeTable, stage: int) -> float:
    widths = []
    for name in table.find(rf"stage{stage}\.\d+\.se\.conv_reduce\.weight"):
        widths.append((table.size(re.escape(name), 1), table.size(re.escape(name), 0)))
    if not widths:
        return 0.0

    def fits(ratio: float) -> bool:
        return all(round(width * ratio) == reduced for width, reduced in widths)

    ratio = _shortest_decimal(max((reduced - 0.5) / width for width, reduced in widths), fits)
    if ratio is None:
        raise ConversionError(
            f"`checkpoint` must have one reduction in stage{stage}.*.se.conv_reduce.weight; got {widths}."
        )
    return ratio


def _shortest_decimal(smallest: float, fits: Callable[[float], bool]) -> float | None:
    """The number of the fewest decimals, at or just above `smallest`, that fits."""
    for digits in range(7):
        first = int(smallest * 10**digits)
        for candidate in (first, first + 1):
            if fits(candidate / 10**digits):
                return candidate / 10**digits
    return None


def _infer_grouped_value(table: ShapeTable, fields: Mapping[str, Any]) -> dict[str, Any]:
    """With grouped values the size of a head shows: it is the width of a group."""
    head_dims = list(EmoConfig().head_dims)
    is_grouped = False
    for index, size in enumerate(fields["hidden_sizes"]):
        if fields["use_attention"][index]:
            group_size = table.size(rf"stage{index + 1}\.[1-9]\d*\.v\.conv\.weight", 1)
            if group_size != size:
                is_grouped, head_dims[index] = True, group_size
    return {"grouped_value": True, "head_dims": head_dims} if is_grouped else {}


def _infer_head_fields(table: ShapeTable, layout: Layout) -> dict[str, Any]:
    if layout is BACKBONE:
        return {"out_indices": list(range(1, NUM_STAGES + 1))}
    if layout is CLASSIFICATION:
        fields = {"num_labels": table.size(r"head\.(weight|bias)", 0) if table.has(r"head\.(weight|bias)") else 0}
        if table.has(r"pre_head\.0\.weight"):
            fields["pre_classifier_size"] = table.size(r"pre_head\.0\.weight", 0)
        return fields
    heads = [head for head, mark in DECODE_HEAD_MARKS.items() if table.has(re.escape(mark) + ".*")]
    if len(heads) != 1:
        raise ConversionError(
            f"`checkpoint` must have one decode head of {list(DECODE_HEAD_MARKS)}, known by "
            f"{list(DECODE_HEAD_MARKS.values())}; found {heads or 'none'}. Other heads of mmsegmentation are not part "
            "of decahub."
        )
    fields = {
        "decode_head": heads[0],
        "num_labels": table.size(r"decode_head\.conv_seg\.(weight|bias)", 0),
        "decode_hidden_size": table.size(r"decode_head\.conv_seg\.weight", 1),
        "use_auxiliary_head": table.has(r"auxiliary_head\..*"),
        "loss_avg_non_ignore": False,  # the authors' framework divides by the number of all pixels
    }
    if fields["use_auxiliary_head"]:
        fields["auxiliary_hidden_size"] = table.size(r"auxiliary_head\.conv_seg\.weight", 1)
    return fields
