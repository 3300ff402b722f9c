"""Mask2Former's loss: match object queries with instances, then compare classes, and masks at random points.

One set of points serves all images and all predictions of a step, which shares most of the work. `parity_mode` draws
points for each match and each mask instead, in the order of transformers, so that its numbers come out under its seed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import distributed, nn
from torch.nn import functional as F
from transformers.utils import logging

from ...shared.matching import match_sets
from ..configuration_reft import RefTConfig
from .point_sampling import choose_uncertain_points, count_points, sample_maps


logger = logging.get_logger(__name__)

Matches = list[tuple[torch.Tensor, torch.Tensor]]


@dataclass
class Prediction:
    """What one decoder layer predicts.

    Args:
        class_logits (`torch.FloatTensor` of shape `(batch_size, num_queries, num_labels + 1)`): last no object.
        mask_logits (`torch.FloatTensor` of shape `(batch_size, num_queries, height, width)`): of stride 4.
    """

    class_logits: torch.Tensor
    mask_logits: torch.Tensor


@dataclass
class MaskRows:
    """Matched masks of a prediction, a row for each pair.

    Args:
        logits (`torch.FloatTensor` of shape `(num_rows, height, width)`): predicted masks.
        targets (`torch.LongTensor` of shape `(num_rows,)`): their targets, counted through the batch.
    """

    logits: torch.Tensor
    targets: torch.Tensor


def compute_matching_cost(
    mask_logits: torch.Tensor,
    class_probabilities: torch.Tensor,
    target_values: torch.Tensor,
    target_classes: torch.Tensor,
    weights: tuple[float, float, float],
) -> torch.Tensor:
    r"""Cost of each pair: $ -w_c p_{class} + w_m BCE + w_d Dice $ over the points.

    Args:
        mask_logits (`torch.FloatTensor` of shape `(num_queries, num_points)`): predicted masks at the points.
        class_probabilities (`torch.FloatTensor` of shape `(num_queries, num_labels + 1)`): after softmax.
        target_values (`torch.FloatTensor` of shape `(num_targets, num_points)`): targets at the points.
        target_classes (`torch.LongTensor` of shape `(num_targets,)`): class ids.
        weights (`tuple[float, float, float]`): of class, mask and dice.

    Returns:
        `torch.FloatTensor` of shape `(num_queries, num_targets)`.
    """
    num_points = mask_logits.shape[1]
    probabilities = mask_logits.sigmoid()
    # BCE(x, t) = softplus(x) - x t, so that one product serves all pairs.
    entropy = (F.softplus(mask_logits).sum(1)[:, None] - mask_logits @ target_values.T) / num_points
    areas = probabilities.sum(1)[:, None] + target_values.sum(1)
    dice = 1 - (2 * probabilities @ target_values.T + 1) / (areas + 1)
    class_weight, mask_weight, dice_weight = weights
    return mask_weight * entropy - class_weight * class_probabilities[:, target_classes] + dice_weight * dice


def compute_mask_losses(point_logits: torch.Tensor, point_labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Binary cross entropy and dice loss $ 1 - (2 \sum p t + 1) / (\sum p + \sum t + 1) $ of each mask.

    Args:
        point_logits (`torch.FloatTensor` of shape `(num_masks, num_points)`): predictions.
        point_labels (`torch.FloatTensor` of shape `(num_masks, num_points)`): targets in [0, 1].
    """
    entropy = F.binary_cross_entropy_with_logits(point_logits, point_labels, reduction="none").mean(1)
    probabilities = point_logits.sigmoid()
    overlaps = 2 * (probabilities * point_labels).sum(1) + 1
    return entropy, 1 - overlaps / (probabilities.sum(1) + point_labels.sum(1) + 1)


class RefTLoss(nn.Module):
    """The loss of Mask2Former over all predictions.

    Args:
        config ([`RefTConfig`]): weights, numbers of points.
    """

    def __init__(self, config: RefTConfig):
        super().__init__()
        self.weights = (config.class_weight, config.mask_weight, config.dice_weight)
        self.no_object_weight = config.no_object_weight
        self.num_points = config.train_num_points
        self.num_candidates, self.num_uncertain = count_points(
            config.train_num_points, config.oversample_ratio, config.importance_sample_ratio
        )
        self.draws_in_order = config.parity_mode == "transformers"
        self.register_buffer("empty_weight", build_class_weights(config.num_labels, config.no_object_weight))

    def forward(
        self,
        predictions: Sequence[Prediction],
        mask_labels: Sequence[torch.Tensor],
        class_labels: Sequence[torch.Tensor],
    ) -> tuple[dict[str, torch.Tensor], Matches]:
        """Weighted terms of the loss.

        Args:
            predictions (`Sequence[Prediction]`): the final one first, then those of the layers before it.
            mask_labels (`Sequence[torch.Tensor]` of shape `(num_targets, height, width)`): for each image.
            class_labels (`Sequence[torch.LongTensor]` of shape `(num_targets,)`): for each image.

        Returns:
            Terms by the names of transformers (`loss_mask`, `loss_dice`, `loss_cross_entropy`, and with `_0`, ... for
            the layers), whose sum is the loss; and the matches of the final prediction.
        """
        num_queries = predictions[0].mask_logits.shape[1]
        if any(len(labels) > num_queries for labels in class_labels):
            logger.warning_once(
                f"An image has more instances than there are object queries ({num_queries}); those that match worst "
                "are not learned. Raise `num_queries`."
            )
        predictions = [_to_float32(prediction) for prediction in predictions]
        num_masks = self.count_masks(class_labels)
        compute = self._compute_in_order if self.draws_in_order else self._compute_together
        terms, matches = compute(predictions, mask_labels, class_labels)
        losses = {}
        for index, (prediction, (entropy, dice), pairs) in enumerate(zip(predictions, terms, matches, strict=True)):
            suffix = "" if index == 0 else f"_{index - 1}"
            class_weight, mask_weight, dice_weight = self.weights
            losses[f"loss_mask{suffix}"] = mask_weight * entropy.sum() / num_masks
            losses[f"loss_dice{suffix}"] = dice_weight * dice.sum() / num_masks
            class_loss = self.compute_class_loss(prediction.class_logits, class_labels, pairs)
            losses[f"loss_cross_entropy{suffix}"] = class_weight * class_loss
        return losses, matches[0]

    def count_masks(self, class_labels: Sequence[torch.Tensor]) -> torch.Tensor:
        """Targets of the batch, averaged over processes; at least 1."""
        count = self.empty_weight.new_tensor(sum(len(labels) for labels in class_labels), dtype=torch.float32)
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(count)
            count = count / distributed.get_world_size()
        return count.clamp(min=1)

    def compute_class_loss(
        self, class_logits: torch.Tensor, class_labels: Sequence[torch.Tensor], matches: Matches
    ) -> torch.Tensor:
        """Cross entropy, in which no object has less weight; a weighted mean over all object queries."""
        num_labels = class_logits.shape[-1] - 1
        targets = torch.full(class_logits.shape[:2], num_labels, device=class_logits.device)
        for image, (queries, indices) in enumerate(matches):
            targets[image, queries] = class_labels[image][indices]
        weight = self.empty_weight
        if len(weight) != num_labels + 1:  # the classes of an episode
            weight = build_class_weights(num_labels, self.no_object_weight).to(weight)
        return F.cross_entropy(class_logits.flatten(0, 1), targets.flatten(), weight=weight.to(class_logits.dtype))

    def _compute_together(
        self,
        predictions: Sequence[Prediction],
        mask_labels: Sequence[torch.Tensor],
        class_labels: Sequence[torch.Tensor],
    ) -> tuple[list[tuple[torch.Tensor, torch.Tensor]], list[Matches]]:
        """Mask losses of the matched masks and matches of each prediction, over one set of points."""
        first = predictions[0].mask_logits
        num_random = self.num_points - self.num_uncertain
        points = torch.rand(self.num_candidates + num_random, 2, device=first.device)
        candidates, further = points.split([self.num_candidates, num_random])
        target_values = torch.cat([sample_maps(masks.to(first), points) for masks in mask_labels])
        matching_values = target_values[:, : self.num_points].split([len(labels) for labels in class_labels])
        matches = self._match_all(predictions, matching_values, class_labels, points[: self.num_points])

        rows = [
            _gather_rows(prediction.mask_logits, pairs, class_labels)
            for prediction, pairs in zip(predictions, matches, strict=True)
        ]
        logits, targets = torch.cat([row.logits for row in rows]), torch.cat([row.targets for row in rows])
        with torch.no_grad():
            chosen = choose_uncertain_points(sample_maps(logits, candidates), self.num_uncertain)
        where = torch.cat([candidates[chosen], further.expand(len(chosen), -1, -1)], dim=1)
        values = target_values[targets]
        labels = torch.cat([values.gather(1, chosen), values[:, self.num_candidates :]], dim=1)
        entropy, dice = compute_mask_losses(sample_maps(logits, where), labels)
        counts = [len(row.targets) for row in rows]
        return list(zip(entropy.split(counts), dice.split(counts), strict=True)), matches

    @torch.no_grad()
    def _match_all(
        self,
        predictions: Sequence[Prediction],
        target_values: Sequence[torch.Tensor],
        class_labels: Sequence[torch.Tensor],
        points: torch.Tensor,
    ) -> list[Matches]:
        costs: list[torch.Tensor] = []
        for prediction in predictions:  # not all at once: values at the points are many
            values = sample_maps(prediction.mask_logits.flatten(0, 1), points)
            values = values.view(*prediction.mask_logits.shape[:2], -1)
            probabilities = prediction.class_logits.softmax(-1)
            costs += [
                compute_matching_cost(values[image], probabilities[image], target_values[image], labels, self.weights)
                for image, labels in enumerate(class_labels)
            ]
        pairs = _match_on_cpu(costs)
        num_images = len(class_labels)
        return [pairs[start : start + num_images] for start in range(0, len(pairs), num_images)]

    def _compute_in_order(
        self,
        predictions: Sequence[Prediction],
        mask_labels: Sequence[torch.Tensor],
        class_labels: Sequence[torch.Tensor],
    ) -> tuple[list[tuple[torch.Tensor, torch.Tensor]], list[Matches]]:
        """As `_compute_together`, with the draws of transformers in their order."""
        terms, matches = [], []
        for prediction in predictions:
            device = prediction.mask_logits.device
            with torch.no_grad():
                costs = []
                for image, labels in enumerate(class_labels):
                    points = torch.rand(1, self.num_points, 2, device=device)[0]
                    logits = prediction.mask_logits[image]
                    values = sample_maps(mask_labels[image].to(logits), points)
                    probabilities = prediction.class_logits[image].softmax(-1)
                    sampled = sample_maps(logits, points)
                    costs.append(compute_matching_cost(sampled, probabilities, values, labels, self.weights))
                matches.append(_match_on_cpu(costs))
            rows = _gather_rows(prediction.mask_logits, matches[-1], class_labels)
            num_rows = len(rows.targets)
            candidates = torch.rand(num_rows, self.num_candidates, 2, device=device)
            with torch.no_grad():
                chosen = choose_uncertain_points(sample_maps(rows.logits, candidates), self.num_uncertain)
            where = candidates.gather(1, chosen[..., None].expand(-1, -1, 2))
            num_random = self.num_points - self.num_uncertain
            if num_random > 0:
                where = torch.cat([where, torch.rand(num_rows, num_random, 2, device=device)], dim=1)
            masks = torch.cat([masks.to(rows.logits) for masks in mask_labels])[rows.targets]
            terms.append(compute_mask_losses(sample_maps(rows.logits, where), sample_maps(masks, where)))
        return terms, matches


def build_class_weights(num_labels: int, no_object_weight: float) -> torch.Tensor:
    """Weights of the classes in the cross entropy, no object last."""
    weights = torch.ones(num_labels + 1)
    weights[-1] = no_object_weight
    return weights


def _to_float32(prediction: Prediction) -> Prediction:
    """The prediction in float32 at least: a sum over thousands of points needs it."""
    dtype = torch.promote_types(prediction.mask_logits.dtype, torch.float32)
    return Prediction(prediction.class_logits.to(dtype), prediction.mask_logits.to(dtype))


def _gather_rows(mask_logits: torch.Tensor, matches: Matches, class_labels: Sequence[torch.Tensor]) -> MaskRows:
    images, queries, targets, offset = [], [], [], 0
    for image, (matched, indices) in enumerate(matches):
        images.append(torch.full_like(matched, image))
        queries.append(matched)
        targets.append(indices + offset)
        offset += len(class_labels[image])
    return MaskRows(mask_logits[torch.cat(images), torch.cat(queries)], torch.cat(targets))


def _match_on_cpu(costs: Sequence[torch.Tensor]) -> Matches:
    """Matches of all costs, which are moved to the CPU at once: every transfer waits for the device."""
    device = costs[0].device
    values = torch.cat([cost.flatten() for cost in costs]).cpu()
    on_cpu = [
        value.view(cost.shape)
        for value, cost in zip(values.split([cost.numel() for cost in costs]), costs, strict=True)
    ]
    return [(queries.to(device), targets.to(device)) for queries, targets in match_sets(on_cpu)]


__all__ = [
    "Prediction",
    "RefTLoss",
    "build_class_weights",
    "compute_mask_losses",
    "compute_matching_cost",
]
