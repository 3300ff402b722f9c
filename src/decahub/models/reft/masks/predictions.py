"""Logits of object queries -> instances of an image (Mask2Former's instance inference)."""

from dataclasses import dataclass

import torch
from torch.nn import functional as F


AREA_EPS = 1e-6
MASK_CHUNK = 16  # masks at full size are large


@dataclass(frozen=True)
class Instances:
    """Instances of an image, best first.

    Args:
        masks (`torch.BoolTensor` of shape `(num_instances, height, width)`): at the target size.
        label_ids (`torch.LongTensor` of shape `(num_instances,)`): classes.
        scores (`torch.FloatTensor` of shape `(num_instances,)`): class probability times mask quality.
    """

    masks: torch.Tensor
    label_ids: torch.Tensor
    scores: torch.Tensor


def find_instances(
    class_logits: torch.Tensor,
    mask_logits: torch.Tensor,
    input_size: tuple[int, int],
    visible_size: tuple[int, int],
    target_size: tuple[int, int],
    threshold: float,
    max_detections: int,
) -> Instances:
    r"""The pairs of an object query and a class with the highest scores.

    The score is the class probability times the mean mask probability over the mask's pixels. Logits are resized to
    the input, freed of its padding and resized to the image; only then are they compared with 0.

    Args:
        class_logits (`torch.FloatTensor` of shape `(num_queries, num_labels + 1)`): of one image.
        mask_logits (`torch.FloatTensor` of shape `(num_queries, height, width)`): of one image.
        input_size (`tuple[int, int]`): height and width of the padded input.
        visible_size (`tuple[int, int]`): height and width of the image in it.
        target_size (`tuple[int, int]`): height and width of the masks.
        threshold (`float`): least score.
        max_detections (`int`): most instances.
    """
    dtype = torch.promote_types(class_logits.dtype, torch.float32)
    probabilities = class_logits.to(dtype).softmax(-1)[:, :-1]
    num_labels = probabilities.shape[1]
    best = probabilities.flatten().topk(min(max_detections, probabilities.numel()))
    queries, label_ids = best.indices // num_labels, best.indices % num_labels
    # The mask quality is at most 1, so that what is below the threshold already will stay there.
    kept = best.values >= threshold
    queries, label_ids, class_scores = queries[kept], label_ids[kept], best.values[kept]

    if len(queries) == 0:
        empty = torch.zeros((0, *target_size), dtype=torch.bool, device=mask_logits.device)
        return Instances(empty, label_ids, class_scores)
    unique, places = queries.unique(return_inverse=True)
    masks, qualities = [], []
    for logits in mask_logits[unique].to(dtype).split(MASK_CHUNK):
        resized = F.interpolate(logits[None], size=input_size, mode="bilinear", align_corners=False)
        resized = resized[..., : visible_size[0], : visible_size[1]]
        if target_size != visible_size:
            resized = F.interpolate(resized, size=target_size, mode="bilinear", align_corners=False)
        mask = resized[0] > 0
        quality = (resized[0].sigmoid() * mask).sum((1, 2)) / (mask.sum((1, 2)) + AREA_EPS)
        masks.append(mask)
        qualities.append(quality)
    mask, scores = torch.cat(masks)[places], class_scores * torch.cat(qualities)[places]
    order = scores.argsort(descending=True, stable=True)
    order = order[(scores[order] >= threshold) & mask.flatten(1).any(1)[order]]
    return Instances(mask[order], label_ids[order], scores[order])


def draw_map(instances: Instances) -> torch.Tensor:
    """A map `(height, width)` of places in `instances`, the best on top; -1 where there is none."""
    painted = torch.full(instances.masks.shape[1:], -1, dtype=torch.int32, device=instances.masks.device)
    for place in range(len(instances.masks) - 1, -1, -1):
        painted[instances.masks[place]] = place
    return painted


__all__ = ["Instances", "draw_map", "find_instances"]
