"""Losses of RELIANT: the smooth fairness penalty, distances to a teacher, and checks of labels and groups.

Sections and equations are those of "RELIANT: Fair Knowledge Distillation for Graph Neural Networks", arXiv 2301.01150.
"""

import torch
from torch.nn import functional
from transformers.utils import logging

from ..shared.checks import can_look_at
from ..shared.ignore_index import IGNORED_CLASS
from ..shared.losses import select_labels
from .adjacency import to_full_precision
from .configuration_reliant import ReliantConfig


logger = logging.get_logger(__name__)

POSITIVE_LABEL = 1
DEGREES = (1, 3, 5, 7, 9)
INTEGRALS = (1 / 2, -1 / 8, 1 / 16, -5 / 128, 7 / 256)
"""Of the Legendre polynomials of these degrees over [0, 1]."""
LEGENDRE_POLYNOMIALS = (
    (1.0,),
    (-3 / 2, 5 / 2),
    (15 / 8, -70 / 8, 63 / 8),
    (-35 / 16, 315 / 16, -693 / 16, 429 / 16),
    (315 / 128, -4620 / 128, 18018 / 128, -25740 / 128, 12155 / 128),
)
"""Coefficients of the odd powers, lowest first."""


def _expand(factors: tuple[float, ...]) -> tuple[float, ...]:
    """Coefficients of the odd powers of `sum of factor * integral * polynomial`, lowest first."""
    totals = [0.0] * len(DEGREES)
    for factor, integral, polynomial in zip(factors, INTEGRALS, LEGENDRE_POLYNOMIALS, strict=True):
        for power, coefficient in enumerate(polynomial):
            totals[power] += factor * integral * coefficient
    return tuple(totals)


SURROGATES = {
    # The authors' series lacks the factors (2 n + 1) / 2, so that it reaches from .074 to .926 only.
    "legendre9": _expand((1.0,) * len(DEGREES)),
    "legendre9_normalized": _expand(tuple((2 * degree + 1) / 2 for degree in DEGREES)),
    "identity": (0.5, 0.0, 0.0, 0.0, 0.0),
}


def compute_surrogate(probabilities: torch.Tensor, surrogate: str = "legendre9") -> torch.Tensor:
    """A polynomial of degree 9 in place of the step from 0 to 1 at probability one half.

    Computed in float32 at least, whatever autocast says: powers cancel each other.

    Args:
        probabilities (`torch.FloatTensor`): of any shape.
        surrogate (`str`): as in [`ReliantConfig`].

    Returns:
        `torch.FloatTensor` of the same shape, 1/2 where the probability is 1/2.
    """
    centered = 2 * to_full_precision(probabilities) - 1
    square, total = centered.square(), torch.zeros_like(centered)
    for coefficient in reversed(SURROGATES[surrogate]):
        total = total * square + coefficient
    return 0.5 + centered * total


def compute_fairness_penalty(
    logits: torch.Tensor,
    sensitive: torch.Tensor,
    selected: torch.Tensor,
    labels: torch.Tensor | None = None,
    surrogate: str = "legendre9",
) -> torch.Tensor:
    """Squared gap between two groups in how often each class is predicted, summed over classes.

    Both classes of a binary problem count, so the value is twice that of one of them.

    Args:
        logits (`torch.FloatTensor` of shape `(num_nodes, num_labels)`): scores.
        sensitive (`torch.LongTensor` of shape `(num_nodes,)`): group of each node, 0 or 1.
        selected (`torch.BoolTensor` of shape `(num_nodes,)`): nodes that count.
        labels (`torch.LongTensor` of shape `(num_nodes,)`, *optional*): if given, only selected nodes of label 1
            count, which is equal opportunity. Otherwise statistical parity.
        surrogate (`str`): as in [`ReliantConfig`].

    Returns:
        `torch.FloatTensor` of shape `()`; 0, with one warning, where a group is empty.
    """
    if labels is not None:
        selected = selected & (labels == POSITIVE_LABEL)
    with torch.autocast(logits.device.type, enabled=False):
        decisions = compute_surrogate(to_full_precision(logits).softmax(-1), surrogate)
        groups = torch.stack([selected & (sensitive == 0), selected & (sensitive == 1)]).to(decisions.dtype)
        sizes = groups.sum(1, keepdim=True)
        if not sizes.all():
            logger.warning_once(
                "The fairness penalty is 0, since one group of `sensitive` has no node among those that count"
                + (" with label 1." if labels is not None else ".")
            )
            return decisions.sum() * 0.0
        means = (groups / sizes) @ decisions  # (2, num_labels)
        return (means[0] - means[1]).square().sum()


def select_nodes(train_mask: torch.Tensor, nodes: str) -> torch.Tensor:
    """Mask of the nodes that `penalty_nodes` of a configuration names."""
    return {"train": train_mask, "unlabeled": ~train_mask, "all": torch.ones_like(train_mask)}[nodes]


def compute_label_propagation_loss(
    logits: torch.Tensor, teacher_logits: torch.Tensor, train_mask: torch.Tensor, kd_loss: str = "euclidean"
) -> torch.Tensor:
    """Distance of CPF's student to its teacher over all nodes outside training.

    Args:
        logits (`torch.FloatTensor` of shape `(num_nodes, num_labels)`): scores of the student.
        teacher_logits (`torch.FloatTensor` of shape `(num_nodes, num_labels)`): scores of the teacher.
        train_mask (`torch.BoolTensor` of shape `(num_nodes,)`): nodes that do not count.
        kd_loss (`str`): `"euclidean"`, one norm of the whole matrix of differences of probabilities and no mean;
            `"bce"` or `"kl"`, means over nodes.
    """
    log_probs = to_full_precision(logits[~train_mask]).log_softmax(-1)
    teacher_log_probs = to_full_precision(teacher_logits[~train_mask]).log_softmax(-1)
    if kd_loss == "euclidean":
        return torch.linalg.vector_norm(log_probs.exp() - teacher_log_probs.exp())
    if kd_loss == "bce":
        return functional.binary_cross_entropy(log_probs.exp(), teacher_log_probs.exp())
    return functional.kl_div(log_probs, teacher_log_probs, log_target=True, reduction="batchmean")


def compute_softened_loss(logits: torch.Tensor, teacher_logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """Divergence between softened probabilities over all nodes, times the square of the temperature.

    Args:
        logits (`torch.FloatTensor` of shape `(num_nodes, num_labels)`): scores of the student.
        teacher_logits (`torch.FloatTensor` of shape `(num_nodes, num_labels)`): scores of the teacher.
        temperature (`float`): both are divided by it.
    """
    log_probs = (to_full_precision(logits) / temperature).log_softmax(-1)
    teacher_log_probs = (to_full_precision(teacher_logits) / temperature).log_softmax(-1)
    return temperature**2 * functional.kl_div(log_probs, teacher_log_probs, log_target=True, reduction="batchmean")


def compute_logits_distance(logits: torch.Tensor, teacher_logits: torch.Tensor, l1_target: str) -> torch.Tensor:
    """Mean over nodes of the L1 distance between scores, a term of adversarial distillation.

    Args:
        logits (`torch.FloatTensor` of shape `(num_nodes, num_labels)`): scores of the student.
        teacher_logits (`torch.FloatTensor` of shape `(num_nodes, num_labels)`): scores of the teacher.
        l1_target (`str`): as in [`ReliantConfig`].
    """
    logits, teacher_logits = to_full_precision(logits), to_full_precision(teacher_logits)
    if l1_target == "both_log_probs":
        logits = logits.log_softmax(-1)
    if l1_target != "logits":
        teacher_logits = teacher_logits.log_softmax(-1)
    return (logits - teacher_logits).abs().sum() / logits.shape[0]


def check_labels(
    labels: torch.Tensor | None,
    train_mask: torch.Tensor | None,
    num_nodes: int,
    num_labels: int,
    name: str = "labels",
) -> None:
    """Raises a `TypeError` or `ValueError` if labels or their mask do not fit.

    Values are looked at on the CPU only, and not while a graph is traced.
    """
    if train_mask is not None:
        if train_mask.dtype != torch.bool:
            raise TypeError(f"`train_mask` must be of type torch.bool; got {train_mask.dtype}.")
        if train_mask.shape != (num_nodes,):
            raise ValueError(f"`train_mask` must have shape ({num_nodes},); got {tuple(train_mask.shape)}.")
    if labels is None:
        return
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise TypeError(f"`{name}` must hold integer class ids; got {labels.dtype}.")
    if labels.shape != (num_nodes,):
        raise ValueError(f"`{name}` must have shape ({num_nodes},); got {tuple(labels.shape)}.")
    if not can_look_at(labels):
        return
    wrong = labels[((labels < 0) | (labels >= num_labels)) & (labels != IGNORED_CLASS)]
    if wrong.numel():
        raise ValueError(
            f"`{name}` must hold class ids in [0, {num_labels}) or {IGNORED_CLASS} (ignored); got {wrong[0].item()}, "
            f"and {wrong.numel()} such values in all. Set `num_labels` of the config to the number of classes."
        )
    if name == "labels" and (select_labels(labels, train_mask) == IGNORED_CLASS).all():
        raise ValueError("`labels` must name the class of at least one node of `train_mask`; none is labeled.")


def check_sensitive(sensitive: torch.Tensor | None, num_nodes: int) -> torch.Tensor:
    """The sensitive attribute, if it is binary.

    Raises:
        ValueError: If it is missing, has another shape, or other values than 0 and 1.
    """
    if sensitive is None:
        raise ValueError(
            "`sensitive` must be given: the group, 0 or 1, of each node. Name its column by `sensitive_column` of "
            "`ReliantFeatureExtractor`, or set `fairness_weight=0`."
        )
    if sensitive.shape != (num_nodes,):
        raise ValueError(f"`sensitive` must have shape ({num_nodes},); got {tuple(sensitive.shape)}.")
    if sensitive.device.type == "cpu":
        wrong = sensitive[(sensitive != 0) & (sensitive != 1)]
        if wrong.numel():
            raise ValueError(
                f"`sensitive` must be 0 or 1; got {wrong[0].item()}, and {wrong.numel()} such values in all. Map "
                "other values to two groups by `sensitive_values` of `ReliantFeatureExtractor`."
            )
    return sensitive


def check_teacher_logits(teacher_logits: torch.Tensor | None, logits: torch.Tensor) -> torch.Tensor:
    """Scores of the teacher in the precision of the student's, if they fit these.

    Raises:
        ValueError: If they are missing or have another shape.
    """
    if teacher_logits is None or teacher_logits.shape != logits.shape:
        given = None if teacher_logits is None else tuple(teacher_logits.shape)
        raise ValueError(
            f"`teacher_logits` must have shape {tuple(logits.shape)}, as the student's have; got {given}. Add what "
            "`TeacherKnowledge.to_batch` returns to the batch."
        )
    return teacher_logits.to(logits.dtype)


def compute_penalty_of_batch(
    config: ReliantConfig, logits: torch.Tensor, batch: dict[str, torch.Tensor], nodes: str
) -> torch.Tensor:
    """The penalty that a configuration asks for, on the nodes of a batch that `nodes` names."""
    return compute_fairness_penalty(
        logits,
        check_sensitive(batch.get("sensitive"), logits.shape[0]),
        select_nodes(batch["train_mask"], nodes),
        labels=batch["labels"] if config.fairness_metric == "eo" else None,
        surrogate=config.surrogate,
    )


__all__ = [
    "check_labels",
    "check_sensitive",
    "check_teacher_logits",
    "compute_fairness_penalty",
    "compute_label_propagation_loss",
    "compute_logits_distance",
    "compute_penalty_of_batch",
    "compute_softened_loss",
    "compute_surrogate",
    "select_nodes",
]
