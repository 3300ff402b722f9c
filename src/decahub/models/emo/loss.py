"""Losses of EMO's task classes, and the checks of their labels."""

import torch
from torch.nn import functional

from .configuration_emo import EmoConfig


CROSS_ENTROPY_IGNORE_INDEX = -100  # torch's own default for labels that count for nothing


def check_labels(labels: torch.Tensor, num_labels: int, ignore_index: int) -> None:
    """Raises a `ValueError` if class ids are out of range.

    On accelerators, where looking at values would wait for the device, and while a graph is traced, ids are taken on
    trust.
    """
    if labels.is_floating_point():
        raise ValueError(f"`labels` must hold integer class ids; got {labels.dtype}.")
    if torch.compiler.is_compiling() or labels.device.type != "cpu":
        return
    wrong = labels[((labels < 0) | (labels >= num_labels)) & (labels != ignore_index)]
    if len(wrong):
        raise ValueError(
            f"`labels` must hold class ids in [0, {num_labels}) or {ignore_index} (ignored); got {wrong[0].item()}, "
            f"and {len(wrong)} such values in all. Set `num_labels` of the config to the number of classes."
        )


def compute_classification_loss(logits: torch.Tensor, labels: torch.Tensor, config: EmoConfig) -> torch.Tensor:
    """Loss of an image classifier.

    Args:
        logits (`torch.FloatTensor` of shape `(batch_size, num_labels)`): scores.
        labels (`torch.LongTensor` of shape `(batch_size,)`): class ids. With `config.problem_type` of
            `"multi_label_classification"` or `"regression"`: floats of the shape of `logits`.
        config ([`EmoConfig`]): gives `problem_type`, `num_labels` and `label_smoothing`.

    Raises:
        ValueError: If shape, type or range of `labels` do not fit.
    """
    problem_type = config.problem_type or _infer_problem_type(labels, config.num_labels)
    if problem_type == "single_label_classification":
        if labels.shape != logits.shape[:1]:
            raise ValueError(f"`labels` must have shape {tuple(logits.shape[:1])}; got {tuple(labels.shape)}.")
        check_labels(labels, config.num_labels, CROSS_ENTROPY_IGNORE_INDEX)
        return functional.cross_entropy(logits, labels.long(), label_smoothing=config.label_smoothing)
    if labels.numel() != logits.numel():
        raise ValueError(f"`labels` must have shape {tuple(logits.shape)}; got {tuple(labels.shape)}.")
    targets = labels.reshape(logits.shape).to(logits.dtype)
    if problem_type == "regression":
        return functional.mse_loss(logits, targets)
    return functional.binary_cross_entropy_with_logits(logits, targets)


def _infer_problem_type(labels: torch.Tensor, num_labels: int) -> str:
    if num_labels == 1:
        return "regression"
    return "multi_label_classification" if labels.is_floating_point() else "single_label_classification"


def compute_segmentation_loss(
    logits: torch.Tensor, labels: torch.Tensor, ignore_index: int, average_over_labeled: bool
) -> torch.Tensor:
    """Cross entropy per pixel at the size of the labels, to which logits are resized bilinearly.

    Args:
        logits (`torch.FloatTensor` of shape `(batch_size, num_labels, height, width)`): at any resolution.
        labels (`torch.LongTensor` of shape `(batch_size, label_height, label_width)`): class ids or `ignore_index`.
        ignore_index (`int`): label of pixels that count for nothing.
        average_over_labeled (`bool`): whether to divide by the number of labeled pixels or, as the authors' code, by
            that of all pixels.

    Raises:
        ValueError: If shape, type or range of `labels` do not fit.
    """
    if labels.ndim != 3 or len(labels) != len(logits):
        raise ValueError(f"`labels` must have shape ({len(logits)}, height, width); got {tuple(labels.shape)}.")
    check_labels(labels, logits.shape[1], ignore_index)
    resized = functional.interpolate(logits, size=labels.shape[-2:], mode="bilinear", align_corners=False)
    total = functional.cross_entropy(resized, labels.long(), ignore_index=ignore_index, reduction="sum")
    num_pixels = (labels != ignore_index).sum().clamp(min=1) if average_over_labeled else labels.numel()
    return total / num_pixels
