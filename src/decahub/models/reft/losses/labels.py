"""Checks of the labels that a model is given, before anything is matched."""

from collections.abc import Sequence

import torch

from ...shared.checks import can_look_at
from ..masks.values import check_mask_values


def check_class_ids(support_class_ids: torch.Tensor | None, num_classes: int) -> None:
    """Refuses ids of support classes that the head does not have."""
    if support_class_ids is None or not can_look_at(support_class_ids):
        return
    wrong = support_class_ids[(support_class_ids < 0) | (support_class_ids >= num_classes)]
    if len(wrong):
        raise ValueError(f"`support_class_ids` must be in [0, {num_classes}); got {int(wrong[0])}.")


def check_labels(
    pixel_values: torch.Tensor,
    mask_labels: Sequence[torch.Tensor] | None,
    class_labels: Sequence[torch.Tensor] | None,
    num_classes: int,
) -> None:
    """Refuses labels that do not fit the images or the head."""
    if mask_labels is None or class_labels is None:
        missing = "mask_labels" if mask_labels is None else "class_labels"
        raise ValueError(f"`{missing}` must be given as well: the loss compares masks and classes.")
    batch_size, _, *size = pixel_values.shape
    for name, labels in (("mask_labels", mask_labels), ("class_labels", class_labels)):
        if len(labels) != batch_size:
            raise ValueError(f"`{name}` must hold one tensor per image ({batch_size}); got {len(labels)}.")
    for image, (masks, classes) in enumerate(zip(mask_labels, class_labels, strict=True)):
        if masks.shape != (len(classes), *size):
            raise ValueError(
                f"`mask_labels` must have shape {(len(classes), *size)}, a mask of the padded image's size for each "
                f"of the `class_labels`; image {image} has {tuple(masks.shape)}."
            )
        check_mask_values(masks, "mask_labels")
        if can_look_at(classes) and ((classes < 0) | (classes >= num_classes)).any():
            wrong = classes[(classes < 0) | (classes >= num_classes)][0]
            raise ValueError(f"`class_labels` must be in [0, {num_classes}); image {image} has {int(wrong)}.")


__all__ = ["check_class_ids", "check_labels"]
