"""The two losses: mean absolute error of the score, cross entropy of the level."""

import logging

import torch
from torch.nn import functional

from ..shared.checks import can_look_at


logger = logging.getLogger(__name__)
IGNORED_LEVEL = -100


def compute_score_loss(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """`mean |score - target|` over the crops whose target is a number, in float32 at least."""
    dtype = torch.promote_types(scores.dtype, torch.float32)
    known = targets.isfinite()
    differences = (scores.to(dtype) - targets.to(dtype).nan_to_num()).abs()
    return torch.where(known, differences, 0).sum() / known.sum().clamp(min=1)


def compute_level_loss(level_logits: torch.Tensor, level_labels: torch.Tensor) -> torch.Tensor:
    """Cross entropy over the crops with a level; -100 is none."""
    dtype = torch.promote_types(level_logits.dtype, torch.float32)
    losses = functional.cross_entropy(
        level_logits.to(dtype), level_labels, ignore_index=IGNORED_LEVEL, reduction="sum"
    )
    return losses / (level_labels != IGNORED_LEVEL).sum().clamp(min=1)


def check_labels(labels: torch.Tensor, batch_size: int, low: float, high: float) -> None:
    """Refuses labels of another shape and labels none of which is a number; warns of those out of range.

    Raises:
        ValueError: If the shape is not `(batch_size,)`, or all labels are NaN.
    """
    if tuple(labels.shape) != (batch_size,):
        raise ValueError(f"`labels` must have one score per image, shape ({batch_size},); got {tuple(labels.shape)}.")
    if not can_look_at(labels) or not labels.is_floating_point():
        return
    known = labels[labels.isfinite()]
    if not len(known):
        raise ValueError(f"`labels` must hold at least one finite score; got {batch_size} that are not.")
    if len(known) < batch_size:
        logger.warning(
            "%d of %d labels are not finite and are left out of the loss.", batch_size - len(known), batch_size
        )
    wrong = known[(known < low) | (known > high)]
    if len(wrong):
        logger.warning(
            "%d labels lie outside of [%g, %g] (`score_low`, `score_high`), the first is %g.",
            len(wrong), low, high, wrong[0],
        )  # fmt: skip


def check_levels(level_labels: torch.Tensor, batch_size: int, num_levels: int) -> None:
    """Refuses levels of another shape, kind or range.

    Raises:
        TypeError: If they are not integers.
        ValueError: If the shape is not `(batch_size,)`, or a level lies outside of `[0, num_levels)` and is not -100.
    """
    if tuple(level_labels.shape) != (batch_size,):
        raise ValueError(
            f"`level_labels` must have one level per image, shape ({batch_size},); got {tuple(level_labels.shape)}."
        )
    if level_labels.is_floating_point():
        raise TypeError(f"`level_labels` must be integers; got {level_labels.dtype}.")
    if can_look_at(level_labels):
        wrong = level_labels[(level_labels != IGNORED_LEVEL) & ((level_labels < 0) | (level_labels >= num_levels))]
        if len(wrong):
            raise ValueError(f"`level_labels` must be in [0, {num_levels}), or -100 for none; got {int(wrong[0])}.")


__all__ = ["IGNORED_LEVEL", "check_labels", "check_levels", "compute_level_loss", "compute_score_loss"]
