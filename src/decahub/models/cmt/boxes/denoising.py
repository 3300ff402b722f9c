"""Denoising queries: noised copies of the ground truth that train the decoder beside the matched queries.

As in DN-DETR. Copies come in groups; a group holds each box once and cannot see the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass
class DenoisingQueries:
    """Noised copies of a batch. The n copies are ordered by group, then sample, then box.

    Attributes:
        reference_points (`torch.FloatTensor` of shape `(batch_size, num_slots, 3)`): noised centers in [0, 1]; 0 where
            a sample has fewer boxes than another.
        attention_mask (`torch.BoolTensor` of shape `(num_slots + num_queries,) * 2`): which queries (columns) a query
            (row) must not see. Matched queries see no copy, copies see their own group and the matched queries.
        sample (`torch.LongTensor` of shape `(n,)`): sample of each copy.
        slot (`torch.LongTensor` of shape `(n,)`): slot of each copy, `group * max(num_boxes) + box`.
        boxes (`torch.FloatTensor` of shape `(n, 9)`): the box without noise.
        class_labels (`torch.LongTensor` of shape `(n,)`): its class.
        is_background (`torch.BoolTensor` of shape `(n,)`): copies that are too far away to be of the class.
    """

    reference_points: torch.Tensor
    attention_mask: torch.Tensor
    sample: torch.Tensor
    slot: torch.Tensor
    boxes: torch.Tensor
    class_labels: torch.Tensor
    is_background: torch.Tensor

    @property
    def num_slots(self) -> int:
        """Slots before the matched queries."""
        return self.reference_points.shape[1]


def count_denoising_groups(num_boxes: Sequence[int], num_queries: int, max_groups: int) -> int:
    """Groups of copies: fewer than `max_groups` if a sample has more than `num_queries / max_groups` boxes."""
    most = max(num_boxes, default=0)
    return min(max_groups, num_queries // most) if most else 0


@torch.no_grad()
def build_denoising_queries(
    boxes: Sequence[torch.Tensor],
    class_labels: Sequence[torch.Tensor],
    *,
    num_queries: int,
    max_groups: int,
    point_cloud_range: Sequence[float],
    noise_scale: float = 1.0,
    threshold: float = 0.75,
    noise: torch.Tensor | None = None,
) -> DenoisingQueries | None:
    r"""Noised copies of the boxes of a batch.

    A center moves by $r \cdot (l, w, h) / 2$ along the axes of the LiDAR frame, not of the box, with $r$ uniform in
    $[-1, 1]^3$. Where $|r|$ exceeds the threshold, the copy counts as background.

    Args:
        boxes (`Sequence[torch.FloatTensor]`): for each sample `(num_boxes, 9)`.
        class_labels (`Sequence[torch.LongTensor]`): for each sample `(num_boxes,)`.
        num_queries (`int`): matched queries of the model.
        max_groups (`int`): copies of each box, if there is room.
        point_cloud_range (`Sequence[float]`): what centers are relative to.
        noise_scale (`float`): factor of the noise.
        threshold (`float`): length of `r` from which on a copy is background.
        noise (`torch.FloatTensor` of shape `(n, 3)`, *optional*): uniform in [0, 1], in the order of the copies; drawn
            from torch's generator by default.

    Returns:
        [`DenoisingQueries`], or `None` if there are no boxes or no groups.

    Raises:
        ValueError: If `noise` has another shape.
    """
    counts = [len(item) for item in boxes]
    num_groups = count_denoising_groups(counts, num_queries, max_groups)
    if num_groups == 0:
        return None
    device, most = boxes[0].device, max(counts)
    copies = torch.cat(list(boxes)).repeat(num_groups, 1)
    if noise is None:
        noise = torch.rand(len(copies), 3, device=device, dtype=copies.dtype)
    elif noise.shape != (len(copies), 3):
        raise ValueError(
            f"`denoising_noise` must have shape {(len(copies), 3)}, a row for each of {num_groups} copies of "
            f"{sum(counts)} boxes; got {tuple(noise.shape)}."
        )
    offset = 2 * noise.to(copies) - 1
    limits = copies.new_tensor(point_cloud_range)
    center = copies[:, :3] + noise_scale * offset * copies[:, 3:6] / 2
    center = ((center - limits[:3]) / (limits[3:] - limits[:3])).clamp(0, 1)

    sample = torch.cat([torch.full((count,), index, device=device) for index, count in enumerate(counts)])
    position = torch.cat([torch.arange(count, device=device) for count in counts])
    group = torch.arange(num_groups, device=device).repeat_interleave(sum(counts))
    sample, slot = sample.repeat(num_groups), group * most + position.repeat(num_groups)
    reference_points = center.new_zeros(len(boxes), num_groups * most, 3)
    reference_points[sample, slot] = center
    return DenoisingQueries(
        reference_points=reference_points,
        attention_mask=_build_mask(num_groups, most, num_queries, device),
        sample=sample,
        slot=slot,
        boxes=copies,
        class_labels=torch.cat(list(class_labels)).repeat(num_groups),
        is_background=offset.norm(dim=1) > threshold,
    )


def _build_mask(num_groups: int, group_size: int, num_queries: int, device: torch.device) -> torch.Tensor:
    groups = torch.arange(num_groups, device=device).repeat_interleave(group_size)
    owner = torch.cat([groups, groups.new_full((num_queries,), -1)])
    return (owner[None] != owner[:, None]) & (owner[None] >= 0)  # matched queries are seen by all


__all__ = ["DenoisingQueries", "build_denoising_queries", "count_denoising_groups"]
