"""Relations between tokens and the losses that compare them (2301.01296, section 3.2).

For states M and N of one block, `A = M N^T / sqrt(head_dim)` are scores and `R = softmax(A)` relations; a student
learns to have the relations of its teacher, head by head: `mean over heads and tokens of KL(R_teacher || R_student)`.
"""

from collections.abc import Mapping, Sequence

import torch
from torch.nn import functional


def compute_scores(states: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Scaled products of all pairs of tokens, in float32 at least, even under autocast.

    Args:
        states (`torch.Tensor` of shape `(batch_size, num_heads, num_tokens, head_dim)`): query, key or value.
        other (`torch.Tensor` of the same shape): the one that `states` are compared with.

    Returns:
        `torch.FloatTensor` of shape `(batch_size, num_heads, num_tokens, num_tokens)`.
    """
    dtype = torch.promote_types(states.dtype, torch.float32)
    with torch.autocast(states.device.type, enabled=False):
        return states.to(dtype) @ other.to(dtype).transpose(-1, -2) * states.shape[-1] ** -0.5


def compute_relations(
    states: Mapping[str, torch.Tensor], pairs: Sequence[Sequence[str]], softmax: bool = True
) -> tuple[torch.Tensor, ...]:
    """One relation for each pair of states.

    Args:
        states (`Mapping[str, torch.Tensor]`): `q`, `k`, `v`, as far as `pairs` need them, each of shape
            `(batch_size, num_heads, num_tokens, head_dim)`.
        pairs (`Sequence`): pairs of their names.
        softmax (`bool`): distributions over tokens; otherwise scaled scores.

    Returns:
        `tuple` of `torch.FloatTensor` of shape `(batch_size, num_heads, num_tokens, num_tokens)`.
    """
    scores = (compute_scores(states[first], states[second]) for first, second in pairs)
    return tuple(score.softmax(-1) if softmax else score for score in scores)


def compute_divergence(student_scores: torch.Tensor, teacher_log_relations: torch.Tensor) -> torch.Tensor:
    """Mean over samples, heads and tokens of KL(teacher || student).

    Logarithms are never taken of a softmax, so that a relation that vanishes in the student gives a large but finite
    loss, where the authors' code gives infinity.

    Args:
        student_scores (`torch.FloatTensor` of shape `(batch_size, num_heads, num_tokens, num_tokens)`): scores.
        teacher_log_relations (`torch.FloatTensor` of the same shape): logarithms of the teacher's relations.
    """
    student_log_relations = student_scores.log_softmax(-1)
    total = functional.kl_div(student_log_relations, teacher_log_relations, reduction="sum", log_target=True)
    return total / student_scores.shape[:-1].numel()


def compute_relation_loss(
    student_scores: torch.Tensor,
    *,
    teacher_scores: torch.Tensor | None = None,
    teacher_relations: torch.Tensor | None = None,
    softmax: bool = True,
    loss: str = "kl",
    beta: float = 2.0,
) -> torch.Tensor:
    """Distance between the relations of a student and those of its teacher.

    Args:
        student_scores (`torch.FloatTensor` of shape `(batch_size, num_heads, num_tokens, num_tokens)`): scores.
        teacher_scores (`torch.FloatTensor` of the same shape, *optional*): scores of the teacher.
        teacher_relations (`torch.FloatTensor` of the same shape, *optional*): instead of `teacher_scores`, what the
            teacher was found to give: relations if `softmax`, else scores. Of any precision.
        softmax (`bool`): compare relations rather than scores.
        loss (`str`): `"kl"`, `"mse"` or `"smooth_l1"`.
        beta (`float`): of `"smooth_l1"`.

    Raises:
        ValueError: If the shapes differ, or neither target is given.
    """
    target = teacher_relations if teacher_scores is None else teacher_scores
    if target is None:
        raise ValueError("`teacher_scores` or `teacher_relations` must be given; got neither.")
    if target.shape != student_scores.shape:
        raise ValueError(
            f"relations of the teacher must have the student's shape {tuple(student_scores.shape)} (batch_size, "
            f"num_heads, num_tokens, num_tokens); got {tuple(target.shape)}."
        )
    target = target.to(student_scores.dtype)
    if loss == "kl":
        if teacher_scores is not None:
            return compute_divergence(student_scores, target.log_softmax(-1))
        return compute_divergence(student_scores, target.clamp_min(torch.finfo(target.dtype).tiny).log())
    student = student_scores.softmax(-1) if softmax else student_scores
    if softmax and teacher_scores is not None:
        target = target.softmax(-1)
    if loss == "mse":
        return functional.mse_loss(student, target)
    return functional.smooth_l1_loss(student, target, beta=beta)


def gather_tokens(states: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """Some tokens of each sample.

    Args:
        states (`torch.Tensor` of shape `(batch_size, ..., num_tokens, width)`): states of all tokens.
        indices (`torch.LongTensor` of shape `(batch_size, num_kept)`): which tokens.

    Returns:
        `torch.Tensor` of shape `(batch_size, ..., num_kept, width)`.
    """
    between = states.ndim - 3
    index = indices.reshape(indices.shape[0], *(1,) * between, indices.shape[1], 1)
    return states.gather(-2, index.expand(*states.shape[:-2], -1, states.shape[-1]))


def gather_relations(relations: torch.Tensor, indices: torch.Tensor, softmax: bool = True) -> torch.Tensor:
    """Relations among some tokens of each sample; distributions are normalized again.

    Args:
        relations (`torch.Tensor` of shape `(batch_size, num_pairs, num_heads, num_tokens, num_tokens)`): relations.
        indices (`torch.LongTensor` of shape `(batch_size, num_kept)`): which tokens.
        softmax (`bool`): whether `relations` are distributions.
    """
    rows = gather_tokens(relations, indices)
    kept = gather_tokens(rows.transpose(-1, -2), indices).transpose(-1, -2)
    return kept / kept.sum(-1, keepdim=True) if softmax else kept


def flip_relations(relations: torch.Tensor, grid: tuple[int, int], num_prefix_tokens: int = 1) -> torch.Tensor:
    """Relations of the images mirrored left to right, by exchange of tokens.

    What a teacher gives for a mirrored image is near to this, not equal: its positions know left from right.

    Args:
        relations (`torch.Tensor` of shape `(..., num_tokens, num_tokens)`): relations.
        grid (`tuple[int, int]`): rows and columns of patches.
        num_prefix_tokens (`int`): tokens before the patches.
    """
    patches = torch.arange(grid[0] * grid[1], device=relations.device).reshape(grid).flip(1).flatten()
    prefix = torch.arange(num_prefix_tokens, device=relations.device)
    order = torch.cat([prefix, patches + num_prefix_tokens])
    return relations.index_select(-2, order).index_select(-1, order)


__all__ = [
    "compute_divergence",
    "compute_relation_loss",
    "compute_relations",
    "compute_scores",
    "flip_relations",
    "gather_relations",
    "gather_tokens",
]
