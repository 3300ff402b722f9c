r"""Losses of CMT: a focal loss of the classes and an L1 loss of coded boxes, after a one-to-one matching.

Each layer of the decoder, each sample and each task is matched by itself, with the cost of query $q$ for box $g$

$$2 \cdot [\alpha (1-p)^\gamma (-\log p) - (1-\alpha) p^\gamma (-\log(1-p))] + 0.25 \cdot |w \odot (b_q - b_g)|_1$$

where $p$ is the score of the class of $g$; velocities do not count here. Numbers of boxes are those of this process,
as in the authors' code.
"""

from collections.abc import Sequence

import torch
from torch.nn import functional

from ...shared.matching import match_sets
from ..configuration_cmt import CmtConfig
from .coder import encode_boxes
from .denoising import DenoisingQueries


LOG_EPS = 1e-12
COUNT_EPS = torch.finfo(torch.float32).eps
NUM_MATCHED_SLOTS = 8  # without velocity
UNIT_SPHERE_SHARE = 3.14159 / 6  # of the cube in which the noise lies; the authors' digits


def compute_focal_loss(logits: torch.Tensor, targets: torch.Tensor, alpha: float, gamma: float) -> torch.Tensor:
    """Sigmoid focal loss of each score, not reduced.

    Args:
        logits (`torch.FloatTensor`): scores.
        targets (`torch.FloatTensor` of the same shape): 1 for the class, else 0.
        alpha (`float`): weight of what is 1; 1 - alpha is that of the rest.
        gamma (`float`): exponent of how wrong a score is.
    """
    probability = logits.sigmoid()
    error = probability * (1 - targets) + (1 - probability) * targets
    weight = alpha * targets + (1 - alpha) * (1 - targets)
    return functional.binary_cross_entropy_with_logits(logits, targets, reduction="none") * weight * error**gamma


@torch.no_grad()
def compute_matching_cost(
    logits: torch.Tensor,
    coded: torch.Tensor,
    target_classes: torch.Tensor,
    target_codes: torch.Tensor,
    config: CmtConfig,
) -> torch.Tensor:
    """Cost of every pair of query and box.

    Args:
        logits (`torch.FloatTensor` of shape `(..., num_queries, num_classes)`): scores of one task.
        coded (`torch.FloatTensor` of shape `(..., num_queries, 10)`): coded boxes.
        target_classes (`torch.LongTensor` of shape `(num_boxes,)`): classes within the task.
        target_codes (`torch.FloatTensor` of shape `(num_boxes, 10)`): coded boxes.
        config ([`CmtConfig`]): the weights.

    Returns:
        `torch.FloatTensor` of shape `(..., num_queries, num_boxes)`.
    """
    alpha, gamma = config.focal_alpha, config.focal_gamma
    probability = logits.sigmoid()
    present = alpha * (1 - probability) ** gamma * -(probability + LOG_EPS).log()
    absent = (1 - alpha) * probability**gamma * -(1 - probability + LOG_EPS).log()
    class_cost = (present - absent)[..., target_classes]
    weights = coded.new_tensor(config.code_weights)[:NUM_MATCHED_SLOTS]
    difference = coded[..., None, :NUM_MATCHED_SLOTS] - target_codes[:, :NUM_MATCHED_SLOTS]
    box_cost = (difference.abs() * weights).sum(-1)
    return config.class_cost * class_cost + config.box_cost * box_cost


class CmtLoss:
    """All terms of the loss.

    Args:
        config ([`CmtConfig`]): classes, weights and how boxes are coded.
    """

    def __init__(self, config: CmtConfig):
        self.config = config
        self.task_sizes = config.task_sizes
        self.offsets = [sum(self.task_sizes[:task]) for task in range(len(self.task_sizes))]

    def __call__(
        self,
        logits: torch.Tensor,
        coded: torch.Tensor,
        labels: Sequence[dict[str, torch.Tensor]],
        denoising: DenoisingQueries | None = None,
        denoising_logits: torch.Tensor | None = None,
        denoising_coded: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Terms by name.

        `loss_cls` and `loss_bbox` are those of the last layer, `d0.loss_cls`, ... those of the layers before, and
        names with `dn_` those of denoising queries.

        Args:
            logits (`torch.FloatTensor` of shape `(num_layers, batch_size, num_queries, num_labels)`): scores.
            coded (`torch.FloatTensor` of shape `(num_layers, batch_size, num_tasks, num_queries, 10)`): coded boxes.
            labels (`Sequence[dict]`): `boxes` `(num_boxes, 9)` and `class_labels` `(num_boxes,)` of each sample.
            denoising ([`DenoisingQueries`], *optional*): noised copies.
            denoising_logits (`torch.FloatTensor`, *optional*): their scores, as `logits`.
            denoising_coded (`torch.FloatTensor`, *optional*): their boxes, as `coded`.

        Raises:
            ValueError: If a prediction is not finite.
        """
        predictions = {"logits": logits, "pred_boxes": coded}
        if denoising_logits is not None and denoising_coded is not None:
            predictions |= {"denoising_logits": denoising_logits, "denoising_boxes": denoising_coded}
        for name, tensor in predictions.items():
            check_finite(name, tensor)
        matched, copied = [], []
        for task in range(len(self.task_sizes)):
            classes = slice(self.offsets[task], self.offsets[task] + self.task_sizes[task])
            matched.append(self.compute_matched_terms(logits[..., classes], coded[:, :, task], labels, task))
            if denoising is not None and denoising_logits is not None and denoising_coded is not None:
                at = (slice(None), denoising.sample, denoising.slot)
                copied.append(
                    self.compute_denoising_terms(
                        denoising_logits[at][..., classes], denoising_coded[:, :, task][at], denoising, task
                    )
                )
        terms = _name_terms("loss", torch.stack(matched).sum(0))
        if copied:
            terms |= _name_terms("dn_loss", self.config.denoising_coefficient * torch.stack(copied).sum(0))
        return terms

    def assign(
        self, logits: torch.Tensor, coded: torch.Tensor, labels: Sequence[dict[str, torch.Tensor]], task: int
    ) -> torch.Tensor:
        """Boxes that queries are matched with.

        Args:
            logits (`torch.FloatTensor` of shape `(num_layers, batch_size, num_queries, num_classes)`): of the task.
            coded (`torch.FloatTensor` of shape `(num_layers, batch_size, num_queries, 10)`): of the task.
            labels (`Sequence[dict]`): as in the call.
            task (`int`): index of the task.

        Returns:
            `torch.LongTensor` of shape `(num_layers, batch_size, num_queries)`: 0 for background, else 1 + index into
            the boxes of the task, which are sorted by class and then by position.
        """
        assigned = torch.zeros(logits.shape[:3], dtype=torch.long, device=logits.device)
        for sample, label in enumerate(labels):
            boxes, classes = self.select_task(label, task)
            if len(boxes) == 0:
                continue
            codes = encode_boxes(boxes, self.config.box_slot_order)
            costs = compute_matching_cost(logits[:, sample], coded[:, sample], classes, codes, self.config)
            for layer, (queries, targets) in enumerate(match_sets(costs.unbind())):
                assigned[layer, sample, queries] = targets + 1
        return assigned

    def select_task(self, label: dict[str, torch.Tensor], task: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Boxes of a task, sorted by class and then by position, and their classes within the task."""
        classes = label["class_labels"] - self.offsets[task]
        own = ((classes >= 0) & (classes < self.task_sizes[task])).nonzero()[:, 0]
        own = own[classes[own].sort(stable=True).indices]
        return label["boxes"][own], classes[own]

    def compute_matched_terms(
        self, logits: torch.Tensor, coded: torch.Tensor, labels: Sequence[dict[str, torch.Tensor]], task: int
    ) -> torch.Tensor:
        """Class and box term of each layer, `(num_layers, 2)`."""
        assigned = self.assign(logits, coded, labels, task)
        class_targets = torch.zeros_like(logits)
        box_targets = torch.zeros_like(coded)
        for sample, label in enumerate(labels):
            boxes, classes = self.select_task(label, task)
            layer, query = assigned[:, sample].nonzero(as_tuple=True)
            index = assigned[layer, sample, query] - 1
            class_targets[layer, sample, query, classes[index]] = 1
            box_targets[layer, sample, query] = encode_boxes(boxes, self.config.box_slot_order)[index].to(coded)
        positive = assigned > 0
        num_positive = positive.sum((1, 2)).to(logits.dtype)
        num_negative = positive[0].numel() - num_positive
        norm = (num_positive + self.config.background_weight * num_negative).clamp(min=1)
        class_terms = self.compute_class_loss(logits, class_targets).sum((1, 2, 3)) / norm
        box_terms = self.compute_box_loss(coded, box_targets, positive).sum((1, 2)) / (num_positive + COUNT_EPS)
        return torch.stack([class_terms, box_terms], dim=1)

    def compute_denoising_terms(
        self, logits: torch.Tensor, coded: torch.Tensor, denoising: DenoisingQueries, task: int
    ) -> torch.Tensor:
        """Class and box term of each layer, `(num_layers, 2)`, from predictions `(num_layers, num_copies, ...)`."""
        classes = denoising.class_labels - self.offsets[task]
        is_own = (classes >= 0) & (classes < self.task_sizes[task])
        class_targets = torch.zeros_like(logits[0])
        known = (is_own & ~denoising.is_background).nonzero()[:, 0]
        class_targets[known, classes[known]] = 1
        codes = encode_boxes(denoising.boxes, self.config.box_slot_order).to(coded)
        count = len(classes)
        norm = max(count * UNIT_SPHERE_SHARE * self.config.denoising_threshold**3, 1.0)
        class_terms = self.compute_class_loss(logits, class_targets.expand_as(logits)).sum((1, 2)) / norm
        # A copy that counts as background still has to find its box.
        box_terms = self.compute_box_loss(coded, codes.expand_as(coded), is_own.expand(len(coded), -1)).sum(1) / count
        return torch.stack([class_terms, box_terms], dim=1)

    def compute_class_loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        loss = compute_focal_loss(logits, targets, self.config.focal_alpha, self.config.focal_gamma)
        return self.config.class_loss_coefficient * loss

    def compute_box_loss(self, coded: torch.Tensor, targets: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
        """Weighted L1 distance of each box, 0 where it does not count or its target is not finite."""
        counted = counted & targets.isfinite().all(-1)
        difference = (coded - torch.where(counted[..., None], targets, coded.detach())).abs()
        return self.config.box_loss_coefficient * (difference * coded.new_tensor(self.config.code_weights)).sum(-1)


def check_finite(name: str, tensor: torch.Tensor) -> None:
    """Refuses NaN and infinity, which would end in a matching without meaning."""
    if torch.compiler.is_compiling() or tensor.isfinite().all():
        return
    raise ValueError(
        f"`{name}` must be finite in training; got {int((~tensor.isfinite()).sum())} values of {tensor.numel()} that "
        "are not. Lower the learning rate, clip gradients, or train in float32 or bfloat16."
    )


def _name_terms(name: str, terms: torch.Tensor) -> dict[str, torch.Tensor]:
    """Names of class and box terms of all layers, `(num_layers, 2)`."""
    last = len(terms) - 1
    prefixes = [f"d{layer}." if layer < last else "" for layer in range(len(terms))]
    return {
        f"{prefix}{name}_{kind}": term
        for prefix, pair in zip(prefixes, terms, strict=True)
        for kind, term in zip(("cls", "bbox"), pair, strict=True)
    }


__all__ = ["CmtLoss", "check_finite", "compute_focal_loss", "compute_matching_cost"]
