"""Names of Mask2Former's tensors: in its own releases (detectron2), in old files of transformers, and ours."""

import re
from collections.abc import Mapping

import torch

from .checkpoint import ConversionError
from .name_map import NameMap, Template


ENCODER = "model.pixel_level_module.encoder."
DECODER = "model.pixel_level_module.decoder."
TRANSFORMER = "model.transformer_module."
PIXEL = "sem_seg_head.pixel_decoder."
PREDICTOR = "sem_seg_head.predictor."
SWIN_BLOCK = "backbone.layers.{stage}.blocks.{block}"
OUR_SWIN_BLOCK = f"{ENCODER}swin.encoder.layers.{{stage}}.blocks.{{block}}"
RESNET_LAYER = f"{ENCODER}encoder.stages.{{stage}}.layers.{{block}}.layer.{{layer}}"
RESNET_SHORTCUT = f"{ENCODER}encoder.stages.{{stage}}.layers.0.shortcut"
ENCODER_LAYER = f"{DECODER}encoder.layers.{{layer}}"
DECODER_LAYER = f"{TRANSFORMER}decoder.layers.{{layer}}"

KEY_MAP = (
    ("backbone.stem.conv1.weight", f"{ENCODER}embedder.embedder.convolution.weight"),
    ("backbone.stem.conv1.norm.*", f"{ENCODER}embedder.embedder.normalization.*"),
    ("backbone.res{stage+2}.{block}.conv{layer+1}.weight", f"{RESNET_LAYER}.convolution.weight"),
    ("backbone.res{stage+2}.{block}.conv{layer+1}.norm.*", f"{RESNET_LAYER}.normalization.*"),
    ("backbone.res{stage+2}.0.shortcut.weight", f"{RESNET_SHORTCUT}.convolution.weight"),
    ("backbone.res{stage+2}.0.shortcut.norm.*", f"{RESNET_SHORTCUT}.normalization.*"),
    ("backbone.patch_embed.proj.*", f"{ENCODER}swin.embeddings.patch_embeddings.projection.*"),
    ("backbone.patch_embed.norm.*", f"{ENCODER}swin.embeddings.norm.*"),
    (f"{SWIN_BLOCK}.norm1.*", f"{OUR_SWIN_BLOCK}.layernorm_before.*"),
    (f"{SWIN_BLOCK}.norm2.*", f"{OUR_SWIN_BLOCK}.layernorm_after.*"),
    (f"{SWIN_BLOCK}.attn.proj.*", f"{OUR_SWIN_BLOCK}.attention.o_proj.*"),
    (
        f"{SWIN_BLOCK}.attn.relative_position_bias_table",
        f"{OUR_SWIN_BLOCK}.attention.relative_position_bias.relative_position_bias_table",
    ),
    (f"{SWIN_BLOCK}.mlp.fc1.*", f"{OUR_SWIN_BLOCK}.mlp.fc1.*"),
    (f"{SWIN_BLOCK}.mlp.fc2.*", f"{OUR_SWIN_BLOCK}.mlp.fc2.*"),
    (
        "backbone.layers.{stage}.downsample.reduction.*",
        f"{ENCODER}swin.encoder.layers.{{stage}}.downsample.reduction.*",
    ),
    ("backbone.layers.{stage}.downsample.norm.*", f"{ENCODER}swin.encoder.layers.{{stage}}.downsample.norm.*"),
    ("backbone.norm{stage}.*", f"{ENCODER}hidden_states_norms.stage{{stage+1}}.*"),
    (f"{PIXEL}input_proj.{{level}}.{{part}}.*", f"{DECODER}input_projections.{{level}}.{{part}}.*"),
    (f"{PIXEL}transformer.level_embed", f"{DECODER}level_embed"),
    *(
        (f"{PIXEL}transformer.encoder.layers.{{layer}}.self_attn.{name}.*", f"{ENCODER_LAYER}.self_attn.{name}.*")
        for name in ("sampling_offsets", "attention_weights", "value_proj", "output_proj")
    ),
    *(
        (f"{PIXEL}transformer.encoder.layers.{{layer}}.{official}.*", f"{ENCODER_LAYER}.{ours}.*")
        for official, ours in (
            ("norm1", "self_attn_layer_norm"),
            ("linear1", "fc1"),
            ("linear2", "fc2"),
            ("norm2", "final_layer_norm"),
        )
    ),
    *(
        (f"{PIXEL}{name}_{{level+1}}.{official}*", f"{DECODER}{name}_{{level+1}}.{place}.*")
        for name in ("adapter", "layer")
        for official, place in (("", 0), ("norm.", 1))
    ),
    (f"{PIXEL}mask_features.*", f"{DECODER}mask_projection.*"),
    (f"{PREDICTOR}query_feat.*", f"{TRANSFORMER}queries_features.*"),
    (f"{PREDICTOR}query_embed.*", f"{TRANSFORMER}queries_embedder.*"),
    (f"{PREDICTOR}level_embed.*", f"{TRANSFORMER}level_embed.*"),
    (f"{PREDICTOR}input_proj.{{level}}.*", f"{TRANSFORMER}input_projections.{{level}}.*"),
    (
        f"{PREDICTOR}transformer_self_attention_layers.{{layer}}.self_attn.out_proj.*",
        f"{DECODER_LAYER}.self_attn.out_proj.*",
    ),
    (f"{PREDICTOR}transformer_self_attention_layers.{{layer}}.norm.*", f"{DECODER_LAYER}.self_attn_layer_norm.*"),
    (
        f"{PREDICTOR}transformer_cross_attention_layers.{{layer}}.multihead_attn.out_proj.*",
        f"{DECODER_LAYER}.cross_attn.out_proj.*",
    ),
    (f"{PREDICTOR}transformer_cross_attention_layers.{{layer}}.multihead_attn.*", f"{DECODER_LAYER}.cross_attn.*"),
    (f"{PREDICTOR}transformer_cross_attention_layers.{{layer}}.norm.*", f"{DECODER_LAYER}.cross_attn_layer_norm.*"),
    (f"{PREDICTOR}transformer_ffn_layers.{{layer}}.linear1.*", f"{DECODER_LAYER}.fc1.*"),
    (f"{PREDICTOR}transformer_ffn_layers.{{layer}}.linear2.*", f"{DECODER_LAYER}.fc2.*"),
    (f"{PREDICTOR}transformer_ffn_layers.{{layer}}.norm.*", f"{DECODER_LAYER}.final_layer_norm.*"),
    (f"{PREDICTOR}decoder_norm.*", f"{TRANSFORMER}decoder.layernorm.*"),
    (
        f"{PREDICTOR}mask_embed.layers.{{layer}}.*",
        f"{TRANSFORMER}decoder.mask_predictor.mask_embedder.{{layer}}.0.*",
    ),
    (f"{PREDICTOR}class_embed.*", "class_predictor.*"),
    ("criterion.empty_weight", "criterion.empty_weight"),
)
"""The template of Mask2Former's release -> ours."""

PARTS = ("q", "k", "v")
FUSED_KEY_MAP = (
    (f"{SWIN_BLOCK}.attn.qkv.*", f"{OUR_SWIN_BLOCK}.attention.%s_proj.*"),
    *(
        (
            f"{PREDICTOR}transformer_self_attention_layers.{{layer}}.self_attn.in_proj_{leaf}",
            f"{DECODER_LAYER}.self_attn.%s_proj.{leaf}",
        )
        for leaf in ("weight", "bias")
    ),
)
"""Query, key and value are one tensor there, in this order, and three of ours (`%s`)."""

DROPPED = {
    r".*\.relative_position_index": "computed from the window size",
    r".*\.num_batches_tracked": "counts training batches; frozen norms have none",
    r"pixel_(mean|std)": "in the processor",
}
"""Pattern of a name in the release, or in a file of transformers, and why it is not converted."""

OLD_SWIN_NAMES = (
    (r"\.attention\.self\.(query|key|value)\.", lambda found: f".attention.{found[1][0]}_proj."),
    (r"\.attention\.output\.dense\.", ".attention.o_proj."),
    (
        r"\.attention\.self\.relative_position_bias_table",
        ".attention.relative_position_bias.relative_position_bias_table",
    ),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"(?<!attention)\.output\.dense\.", ".mlp.fc2."),
    (rf"^{re.escape(ENCODER)}(embeddings\.|encoder\.layers\.|layernorm\.)", rf"{ENCODER}swin.\1"),
)
"""Names of Swin in files of transformers before version 5, in this order."""

NAME_MAP = NameMap(KEY_MAP)
FUSED = tuple((Template(official), tuple(Template(ours % part) for part in PARTS)) for official, ours in FUSED_KEY_MAP)


def is_release_layout(names: Mapping[str, torch.Tensor]) -> bool:
    """Whether names are those of Mask2Former's release.

    Raises:
        ConversionError: If they are of neither layout.
    """
    if any(name.startswith("sem_seg_head.") for name in names):
        return True
    if any(name.startswith("model.transformer_module.") for name in names):
        return False
    raise ConversionError(
        "`checkpoint` must be a Mask2Former, with names that begin with `sem_seg_head.` (its release) or "
        f"`model.transformer_module.` (transformers); got names such as {sorted(names)[:3]}."
    )


def find_dropped(names: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Names that are not converted, each with the reason."""
    return {
        name: reason
        for name in names
        for pattern, reason in DROPPED.items()
        if re.fullmatch(pattern, name) is not None
    }


def rename_old_swin(name: str) -> str:
    """A name of transformers as version 5 has it."""
    for pattern, replacement in OLD_SWIN_NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def rename_old_release(name: str) -> str:
    """A name of the release as its current version has it."""
    name = name.replace(f"{PREDICTOR}static_query.", f"{PREDICTOR}query_feat.")
    found = re.fullmatch(r"sem_seg_head\.(?!predictor\.|pixel_decoder\.)(.*)", name)
    return f"{PIXEL}{found[1]}" if found else name


def convert_release(official: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors of the release under our names; fused projections are split."""
    ours: dict[str, torch.Tensor] = {}
    for name, tensor in official.items():
        values = [(parts, fused.parse(name)) for fused, parts in FUSED]
        split = next(((parts, found) for parts, found in values if found is not None), None)
        if split is None:
            try:
                ours[NAME_MAP.convert(name)] = tensor
            except ValueError as error:
                raise ConversionError(f"`checkpoint` holds a tensor that no Mask2Former has: {name!r}.") from error
            continue
        parts, found = split
        if len(tensor) % len(PARTS):
            raise ConversionError(f"{name!r} must hold query, key and value; got {len(tensor)} rows.")
        ours |= {part.render(found): rows for part, rows in zip(parts, tensor.chunk(len(PARTS)), strict=True)}
    return ours


def revert_release(ours: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The inverse of [`convert_release`]."""
    official: dict[str, torch.Tensor] = {}
    for name, tensor in ours.items():
        for fused, parts in FUSED:
            found = parts[0].parse(name)
            if found is not None:
                official[fused.render(found)] = torch.cat([ours[part.render(found)] for part in parts])
                break
            if any(part.parse(name) is not None for part in parts[1:]):
                break
        else:
            official[NAME_MAP.revert(name)] = tensor
    return official


__all__ = [
    "FUSED_KEY_MAP",
    "KEY_MAP",
    "convert_release",
    "find_dropped",
    "is_release_layout",
    "rename_old_release",
    "rename_old_swin",
    "revert_release",
]
