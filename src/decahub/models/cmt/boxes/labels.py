"""Checks of the ground truth that a model is given."""

from collections.abc import Sequence
from typing import Any

import torch

from .geometry import BOX_SIZE


NUM_FINITE = 7  # all but the velocity, which is unknown in some annotations


def check_labels(
    labels: Sequence[dict[str, Any]], batch_size: int, num_labels: int, num_queries: int, like: torch.Tensor
) -> list[dict[str, torch.Tensor]]:
    """Labels of a batch on the device and in the precision of the predictions.

    Args:
        labels (`Sequence[dict]`): for each sample `boxes` `(num_boxes, 9)` and `class_labels` `(num_boxes,)`.
        batch_size (`int`): number of samples.
        num_labels (`int`): number of classes.
        num_queries (`int`): most boxes of a sample.
        like (`torch.Tensor`): gives type and device.

    Raises:
        TypeError: If `labels` is no list of dictionaries, or classes are no integers.
        ValueError: If shapes or values do not fit.
    """
    if isinstance(labels, (dict, torch.Tensor)) or not all(isinstance(label, dict) for label in labels):
        raise TypeError(
            "`labels` must be a list of dictionaries with `boxes` and `class_labels`, one for each sample; got "
            f"{type(labels).__name__}."
        )
    if len(labels) != batch_size:
        raise ValueError(f"`labels` must hold a dictionary for each of {batch_size} samples; got {len(labels)}.")
    return [_check_label(label, sample, num_labels, num_queries, like) for sample, label in enumerate(labels)]


def _check_label(
    label: dict[str, Any], sample: int, num_labels: int, num_queries: int, like: torch.Tensor
) -> dict[str, torch.Tensor]:
    missing = {"boxes", "class_labels"} - label.keys()
    if missing:
        raise ValueError(
            f"`labels` must have `boxes` and `class_labels`; sample {sample} has no {sorted(missing)[0]!r}."
        )
    boxes, classes = torch.as_tensor(label["boxes"]), torch.as_tensor(label["class_labels"])
    if boxes.ndim != 2 or boxes.shape[1] != BOX_SIZE:
        raise ValueError(
            f"`boxes` must have shape (num_boxes, {BOX_SIZE}): x, y, z, l, w, h, yaw, vx, vy; got "
            f"{tuple(boxes.shape)} for sample {sample}."
        )
    if len(classes) and (classes.is_floating_point() or classes.is_complex() or classes.dtype == torch.bool):
        raise TypeError(f"`class_labels` must hold integers; got {classes.dtype} for sample {sample}.")
    if classes.shape != boxes.shape[:1]:
        raise ValueError(
            f"`class_labels` must have shape ({len(boxes)},), one for each box; got {tuple(classes.shape)} for "
            f"sample {sample}."
        )
    if len(boxes) > num_queries:
        raise ValueError(
            f"`boxes` must not be more than the {num_queries} queries of the model; got {len(boxes)} for sample "
            f"{sample}."
        )
    wrong = classes[(classes < 0) | (classes >= num_labels)]
    if len(wrong):
        raise ValueError(
            f"`class_labels` must lie in [0, {num_labels}), the classes of the config; got {int(wrong[0])} for sample "
            f"{sample}."
        )
    invalid = (~boxes[:, :NUM_FINITE].isfinite()).any(1).nonzero()
    if len(invalid):
        raise ValueError(
            f"`boxes` must have finite centers, sizes and yaws; got {boxes[int(invalid[0])].tolist()} for box "
            f"{int(invalid[0])} of sample {sample}."
        )
    if boxes[:, NUM_FINITE:].isinf().any():
        raise ValueError(f"`boxes` must have finite velocities, or NaN; got infinity in sample {sample}.")
    if len(boxes) and boxes[:, 3:6].min() < 0:
        raise ValueError(
            f"`boxes` must have sizes of at least 0; got {boxes[:, 3:6].min().item():.4g} in sample {sample}."
        )
    return {"boxes": boxes.to(like), "class_labels": classes.to(like.device, torch.long)}


__all__ = ["check_labels"]
