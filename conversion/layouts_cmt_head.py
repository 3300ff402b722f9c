"""The authors' names of the tensors of CMT's head and decoder, and ours.

Query, key and value of an attention are one tensor in the authors' files and three in ours.
"""

from collections.abc import Mapping

import torch


_LAYER, _OUR_LAYER = "transformer.decoder.layers.{layer}", "model.decoder.layers.{layer}"
_ATTENTIONS = ("self_attention", "cross_attention")
_BRANCHES = (
    ("center", "center"),
    ("height", "height"),
    ("dim", "size"),
    ("rot", "rotation"),
    ("vel", "velocity"),
    ("cls_logits", "classes"),
)
_BRANCH_PARTS = (("0", "conv1"), ("1", "norm"), ("3", "conv2"))
PACKED_PROJECTIONS = ("q_proj", "k_proj", "v_proj")
_PACKED = "in_proj"

HEAD_KEY_MAP = (
    ("shared_conv.conv.*", "model.bev_projection.conv.*"),
    ("shared_conv.bn.*", "model.bev_projection.norm.*"),
    ("reference_points.*", "model.reference_points.*"),
    ("bev_embedding.0.*", "model.bev_position_embedding.fc1.*"),
    ("bev_embedding.2.*", "model.bev_position_embedding.fc2.*"),
    ("rv_embedding.0.*", "model.ray_position_embedding.fc1.*"),
    ("rv_embedding.2.*", "model.ray_position_embedding.fc2.*"),
    *(
        (f"{_LAYER}.attentions.{index}.attn.out_proj.*", f"{_OUR_LAYER}.{name}.out_proj.*")
        for index, name in enumerate(_ATTENTIONS)
    ),
    *(
        (f"{_LAYER}.attentions.{index}.attn.{_PACKED}_{leaf}", f"{_OUR_LAYER}.{name}.{_PACKED}.{leaf}")
        for index, name in enumerate(_ATTENTIONS)
        for leaf in ("weight", "bias")
    ),
    (f"{_LAYER}.ffns.0.layers.0.0.*", f"{_OUR_LAYER}.fc1.*"),
    (f"{_LAYER}.ffns.0.layers.1.*", f"{_OUR_LAYER}.fc2.*"),
    *(
        (f"{_LAYER}.norms.{index}.*", f"{_OUR_LAYER}.{name}.*")
        for index, name in enumerate(("self_attention_norm", "cross_attention_norm", "mlp_norm"))
    ),
    ("transformer.decoder.post_norm.*", "model.decoder.layernorm.*"),
    *(
        (f"task_heads.{{task}}.{theirs}.{number}.*", f"task_heads.{{task}}.{ours}.{part}.*")
        for theirs, ours in _BRANCHES
        for number, part in _BRANCH_PARTS
    ),
)
"""The authors' templates, below `pts_bbox_head`, -> ours. `in_proj` of ours stands for three tensors."""


def split_projections(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors with query, key and value apart: `x.in_proj.weight` becomes `x.q_proj.weight`, ..."""
    split = {}
    for name, tensor in tensors.items():
        module, _, leaf = name.rpartition(".")
        if module.endswith(f".{_PACKED}"):
            attention = module.removesuffix(_PACKED)
            parts = tensor.chunk(len(PACKED_PROJECTIONS))
            split |= {
                f"{attention}{part}.{leaf}": item.clone() for part, item in zip(PACKED_PROJECTIONS, parts, strict=True)
            }
        else:
            split[name] = tensor
    return split


def pack_projections(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The inverse of [`split_projections`]."""
    packed = {}
    for name, tensor in tensors.items():
        module, _, leaf = name.rpartition(".")
        attention, _, part = module.rpartition(".")
        if part == PACKED_PROJECTIONS[0]:
            parts = [tensors[f"{attention}.{other}.{leaf}"] for other in PACKED_PROJECTIONS]
            packed[f"{attention}.{_PACKED}.{leaf}"] = torch.cat(parts)
        elif part not in PACKED_PROJECTIONS:
            packed[name] = tensor
    return packed


__all__ = ["HEAD_KEY_MAP", "PACKED_PROJECTIONS", "pack_projections", "split_projections"]
