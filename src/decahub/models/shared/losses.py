"""Losses of classifiers of images, pixels and nodes, and the checks of their labels.

Floats that are given for class ids are probabilities, compared by cross entropy, as mixup makes them. Binary cross
entropy needs `problem_type="multi_label_classification"`.
"""

from collections.abc import Sequence

import torch
from torch.nn import functional
from transformers.configuration_utils import PreTrainedConfig

from .checks import can_look_at
from .ignore_index import IGNORED_CLASS


PROBABILITY_TOLERANCE = 1e-2  # sums of probabilities that are stored in half precision


def check_labels(labels: torch.Tensor, num_labels: int, ignore_index: int) -> torch.Tensor:
    """Class ids as int64; raises a `ValueError` if they are out of range, where values may be looked at."""
    if labels.is_floating_point():
        raise ValueError(f"`labels` must hold integer class ids; got {labels.dtype}.")
    labels = labels.long()
    if can_look_at(labels):
        wrong = labels[((labels < 0) | (labels >= num_labels)) & (labels != ignore_index)]
        if len(wrong):
            raise ValueError(
                f"`labels` must hold class ids in [0, {num_labels}) or {ignore_index} (ignored); got "
                f"{wrong[0].item()}, and {len(wrong)} such values in all. Set `num_labels` of the config to the "
                "number of classes."
            )
    return labels


def check_probabilities(labels: torch.Tensor, shape: torch.Size) -> None:
    """Raises a `ValueError` if rows do not sum to 1, where values may be looked at."""
    if labels.shape != shape:
        raise ValueError(f"`labels` must have shape {tuple(shape)}; got {tuple(labels.shape)}.")
    if can_look_at(labels):
        sums = labels.sum(-1, dtype=torch.float32)
        # NaN fails both comparisons.
        is_valid = ((sums - 1).abs() <= PROBABILITY_TOLERANCE) & (labels >= 0).all(-1)
        if not is_valid.all():
            row = int((~is_valid).nonzero()[0])
            raise ValueError(
                f"`labels` must hold probabilities, which sum to 1 for each image; got a sum of "
                f"{sums[row].item():.4g} for image {row}. Set `problem_type` of the config to "
                "'multi_label_classification' or 'regression' for other floats."
            )


def compute_cross_entropy(
    logits: torch.Tensor,
    labels: torch.Tensor,
    ignore_index: int,
    *,
    label_smoothing: float = 0.0,
    average_over_all: bool = False,
) -> torch.Tensor:
    """Cross entropy of whatever has a label, divided by its number, or by that of all; 0 where nothing has one."""
    total = functional.cross_entropy(
        logits, labels, ignore_index=ignore_index, label_smoothing=label_smoothing, reduction="sum"
    )
    return total / (labels.numel() if average_over_all else (labels != ignore_index).sum().clamp(min=1))


def compute_classification_loss(logits: torch.Tensor, labels: torch.Tensor, config: PreTrainedConfig) -> torch.Tensor:
    """Loss of an image classifier.

    Args:
        logits (`torch.FloatTensor` of shape `(batch_size, num_labels)`): scores.
        labels (`torch.Tensor`): class ids of shape `(batch_size,)`, -100 for none; or floats of the shape of
            `logits`, which are probabilities unless `config.problem_type` is `"multi_label_classification"` or
            `"regression"`. With one label and no `problem_type` they are the target of a regression.
        config (`PreTrainedConfig`): gives `problem_type`, `num_labels` and `label_smoothing` (of class ids).

    Returns:
        `torch.FloatTensor` of shape `()`; 0 if every image has the label -100.

    Raises:
        ValueError: If shape, type or range of `labels` do not fit.
    """
    problem_type = config.problem_type or ("regression" if config.num_labels == 1 else "single_label_classification")
    if problem_type == "single_label_classification" and not labels.is_floating_point():
        if labels.shape != logits.shape[:1]:
            raise ValueError(f"`labels` must have shape {tuple(logits.shape[:1])}; got {tuple(labels.shape)}.")
        labels = check_labels(labels, config.num_labels, IGNORED_CLASS)
        return compute_cross_entropy(logits, labels, IGNORED_CLASS, label_smoothing=config.label_smoothing)
    if labels.numel() != logits.numel():
        raise ValueError(f"`labels` must have shape {tuple(logits.shape)}; got {tuple(labels.shape)}.")
    targets = labels.reshape(logits.shape).to(logits.dtype)
    if problem_type == "regression":
        return functional.mse_loss(logits, targets)
    if problem_type == "multi_label_classification":
        return functional.binary_cross_entropy_with_logits(logits, targets)
    check_probabilities(labels, logits.shape)
    return functional.cross_entropy(logits, targets)


def compute_segmentation_loss(
    logits: torch.Tensor, labels: torch.Tensor, ignore_index: int, *, average_over_all: bool = False
) -> torch.Tensor:
    """Mean cross entropy of the labeled pixels, at the size of the labels, to which logits are resized bilinearly.

    Args:
        logits (`torch.FloatTensor` of shape `(batch_size, num_labels, height, width)`): at any resolution.
        labels (`torch.LongTensor` of shape `(batch_size, label_height, label_width)`): class ids or `ignore_index`.
        ignore_index (`int`): label of pixels that count for nothing.
        average_over_all (`bool`): whether to divide by the number of all pixels, as mmsegmentation does.

    Returns:
        `torch.FloatTensor` of shape `()`; 0 if no pixel is labeled.

    Raises:
        ValueError: If shape, type or range of `labels` do not fit.
    """
    if labels.ndim != 3 or len(labels) != len(logits):
        raise ValueError(f"`labels` must have shape ({len(logits)}, height, width); got {tuple(labels.shape)}.")
    labels = check_labels(labels, logits.shape[1], ignore_index)
    resized = functional.interpolate(logits, size=labels.shape[-2:], mode="bilinear", align_corners=False)
    return compute_cross_entropy(resized, labels, ignore_index, average_over_all=average_over_all)


def select_labels(labels: torch.Tensor, train_mask: torch.Tensor | None) -> torch.Tensor:
    """Labels of the nodes in a mask, and -100 elsewhere."""
    return labels if train_mask is None else labels.masked_fill(~train_mask, IGNORED_CLASS)


def compute_node_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    train_mask: torch.Tensor | None = None,
    class_weight: str | Sequence[float] | None = None,
) -> torch.Tensor:
    """Mean cross entropy over the labeled nodes of a mask, in float32 at least; weighted, if there are weights.

    Args:
        logits (`torch.FloatTensor` of shape `(num_nodes, num_labels)`): scores.
        labels (`torch.LongTensor` of shape `(num_nodes,)`): class ids; -100 is ignored.
        train_mask (`torch.BoolTensor` of shape `(num_nodes,)`, *optional*): nodes that count; all by default.
        class_weight (`str` or `Sequence[float]`, *optional*): weight of each class; `"balanced"` weighs each class by
            the inverse of its number among the nodes that count, so that all present ones have the same influence.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    labels = select_labels(labels, train_mask)
    weight = None
    if class_weight == "balanced":
        counts = functional.one_hot(labels.clamp(min=0), logits.shape[1])[labels != IGNORED_CLASS].sum(0)
        weight = counts.sum() / counts.clamp(min=1).to(logits.dtype)
    elif class_weight is not None:
        weight = logits.new_tensor(class_weight)
    return functional.cross_entropy(logits, labels, weight=weight, ignore_index=IGNORED_CLASS)


def check_class_weight(config: PreTrainedConfig) -> None:
    """Refuses a configuration whose `class_weight` is neither `"balanced"` nor a positive number for each class."""
    weight = config.class_weight
    if weight is None or weight == "balanced":
        return
    if isinstance(weight, str) or len(weight) != config.num_labels or not all(0 < w < float("inf") for w in weight):
        raise ValueError(
            f"`class_weight` must be 'balanced' or a positive number for each of {config.num_labels} classes "
            f"(`num_labels`); got {weight!r}."
        )
