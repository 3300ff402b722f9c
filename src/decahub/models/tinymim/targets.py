"""What a student is compared with: relations of a teacher, its features, or its class token (2301.01296, section 3).

The study follows the feature distillation of arXiv 2205.14141: features of the teacher pass a layer norm without
parameters, the student's a linear layer.
"""

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional

from .configuration_tinymim import STATES, TinyMimConfig
from .layers import BlockStates, merge_heads, split_heads
from .relations import compute_relations, compute_scores, gather_relations, gather_tokens


WHITENING_EPS = 1e-6


def get_sources(config: TinyMimConfig) -> tuple[str, ...]:
    """Names of what the teacher is asked for: states of the relations, or one kind of feature."""
    if config.distillation_target == "relations":
        return tuple(name for name in STATES if any(name in pair for pair in config.relation_pairs))
    return ("block",) if config.distillation_target == "cls" else (config.feature_source,)


def get_features(states: BlockStates, source: str) -> torch.Tensor:
    """Features of a block, `(batch_size, num_tokens, width)`."""
    if source == "qkv":
        return torch.cat([merge_heads(getattr(states, name)) for name in STATES], dim=-1)
    features = getattr(states, source)
    return merge_heads(features) if source in STATES else features


def compute_feature_loss(student: torch.Tensor, teacher: torch.Tensor, config: TinyMimConfig) -> torch.Tensor:
    """Mean distance between features of a student, already projected, and those of its teacher.

    Args:
        student (`torch.Tensor` of shape `(batch_size, num_tokens, teacher_width)`): features.
        teacher (`torch.Tensor` of the same shape): features.
        config ([`TinyMimConfig`]): gives `feature_loss`, `normalize_teacher` and `smooth_l1_beta`.

    Raises:
        ValueError: If the shapes differ.
    """
    if student.shape != teacher.shape:
        raise ValueError(
            f"`teacher_features` must have shape {tuple(student.shape)} (batch_size, num_tokens, width); got "
            f"{tuple(teacher.shape)}."
        )
    dtype = torch.promote_types(student.dtype, torch.float32)
    student, teacher = student.to(dtype), teacher.to(dtype)
    if config.normalize_teacher:
        teacher = functional.layer_norm(teacher, teacher.shape[-1:], eps=WHITENING_EPS)
    if config.feature_loss == "cosine":
        return 1 - functional.cosine_similarity(student, teacher, dim=-1).mean()
    if config.feature_loss == "smooth_l1":
        return functional.smooth_l1_loss(student, teacher, beta=config.smooth_l1_beta)
    return (
        functional.l1_loss(student, teacher) if config.feature_loss == "l1" else functional.mse_loss(student, teacher)
    )


class TinyMimTargetProjection(nn.Module):
    """Linear layer from features of the student to the width of the teacher's."""

    def __init__(self, config: TinyMimConfig):
        super().__init__()
        num_parts = len(STATES) if get_sources(config) == ("qkv",) else 1
        teacher_size = config.teacher_hidden_size or config.hidden_size
        self.projection = nn.Linear(num_parts * config.hidden_size, num_parts * teacher_size)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.projection(features)


def select_tokens(states: torch.Tensor, config: TinyMimConfig) -> torch.Tensor:
    """Tokens of the student that the teacher has as well: class token and patches, or patches alone."""
    patches = states[..., config.num_prefix_tokens :, :]
    return torch.cat([states[..., :1, :], patches], dim=-2) if config.include_cls else patches


def align_heads(states: torch.Tensor, config: TinyMimConfig) -> torch.Tensor:
    """States as they are, or split anew into `num_relation_heads`."""
    if config.head_alignment != "relation_heads":
        return states
    return split_heads(merge_heads(states), config.num_relation_heads)


def compute_student_scores(states: BlockStates, config: TinyMimConfig) -> list[torch.Tensor]:
    """Scores of the student for each of `relation_pairs`, `(batch_size, num_heads, num_tokens, num_tokens)`."""
    chosen = {name: select_tokens(getattr(states, name), config) for name in get_sources(config)}
    aligned = {name: align_heads(value, config) for name, value in chosen.items()}
    return [compute_scores(aligned[first], aligned[second]) for first, second in config.relation_pairs]


def build_relation_targets(
    config: TinyMimConfig, asked: Mapping[str, torch.Tensor] | None, given: torch.Tensor | None, num_heads: int
) -> list[dict[str, torch.Tensor]]:
    """Arguments of [`compute_relation_loss`] that hold the teacher's side, for each of `relation_pairs`.

    Args:
        config ([`TinyMimConfig`]): gives `relation_pairs` and the alignment of heads.
        asked (`Mapping[str, torch.Tensor]`, *optional*): states of the teacher.
        given (`torch.Tensor` of shape `(batch_size, num_pairs, num_heads, num_tokens, num_tokens)`, *optional*): its
            relations, computed before.
        num_heads (`int`): of the student's scores.

    Raises:
        ValueError: If the shape of `given` does not fit.
    """
    if given is None:
        aligned = {name: align_heads(value, config) for name, value in (asked or {}).items()}
        return [{"teacher_scores": scores} for scores in compute_relations(aligned, config.relation_pairs, False)]
    num_pairs = len(config.relation_pairs)
    if given.ndim != 5 or given.shape[1:3] != (num_pairs, num_heads):
        raise ValueError(
            f"`teacher_relations` must have shape (batch_size, {num_pairs}, {num_heads}, num_tokens, num_tokens): "
            f"pairs, heads, tokens; got {tuple(given.shape)}."
        )
    return [{"teacher_relations": relations} for relations in given.unbind(1)]


def gather_given(given: torch.Tensor | None, kept: torch.Tensor | None, config: TinyMimConfig) -> torch.Tensor | None:
    """Targets computed before, for the tokens that a student with masked input sees."""
    if given is None or kept is None:
        return given
    if config.distillation_target == "relations":
        return gather_relations(given, kept, config.relation_softmax)
    return gather_tokens(given, kept)


__all__ = [
    "TinyMimTargetProjection",
    "build_relation_targets",
    "compute_feature_loss",
    "compute_student_scores",
    "gather_given",
    "get_features",
    "get_sources",
    "select_tokens",
]
