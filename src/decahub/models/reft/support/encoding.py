"""Support images -> class centers, support object queries and prototypes."""

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from transformers.utils import logging

from ...shared.checks import can_look_at
from ..configuration_reft import RefTConfig
from ..masks.values import check_mask_values
from ..references import compute_class_centers, normalize
from .memory import ClassSupport, RefTSupport


logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class EncodedShots:
    """What a shot contributes; the first axis counts shots.

    Args:
        sums (`tuple[torch.Tensor]` of shape `(num_images, feature_size)`): masked sums of each level, coarse to fine.
        areas (`tuple[torch.Tensor]` of shape `(num_images,)`): mask areas at each level.
        object_queries (`torch.Tensor` of shape `(num_images, support_topk, hidden_dim)`): selected, best first.
        scores (`torch.Tensor` of shape `(num_images, support_topk)`): by which they were selected.
        indices (`torch.LongTensor` of shape `(num_images, support_topk)`): which they are.
    """

    sums: tuple[torch.Tensor, ...]
    areas: tuple[torch.Tensor, ...]
    object_queries: torch.Tensor
    scores: torch.Tensor
    indices: torch.Tensor


def encode_in_chunks(
    encode: Callable[[torch.Tensor, torch.Tensor], EncodedShots],
    pixel_values: torch.Tensor,
    masks: torch.Tensor,
    chunk_size: int,
) -> EncodedShots:
    """Encodes a few images at a time, which bounds memory."""
    chunks = [encode(*chunk) for chunk in zip(pixel_values.split(chunk_size), masks.split(chunk_size), strict=True)]
    joined = {}
    for field in fields(EncodedShots):
        values = [getattr(chunk, field.name) for chunk in chunks]
        is_levels = isinstance(values[0], tuple)
        joined[field.name] = tuple(map(torch.cat, zip(*values, strict=True))) if is_levels else torch.cat(values)
    return EncodedShots(**joined)


def prepare_shots(
    support_pixel_values: torch.Tensor, support_masks: torch.Tensor | None, support_valid: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Checks a support set and gives it a batch axis.

    Returns:
        Pixels `(batch_size or 1, num_ways, num_shots, 3, height, width)`, masks, and which shots are valid.

    Raises:
        ValueError: If a shape does not fit.
    """
    if support_masks is None:
        raise ValueError("`support_masks` must be given with `support_pixel_values`: one mask for each shot.")
    if support_pixel_values.ndim not in (5, 6):
        raise ValueError(
            "`support_pixel_values` must have shape ([batch_size,] num_ways, num_shots, 3, height, width); got "
            f"{tuple(support_pixel_values.shape)}."
        )
    lead, size = support_pixel_values.shape[:-3], support_pixel_values.shape[-2:]
    if support_masks.shape != (*lead, *size):
        raise ValueError(
            f"`support_masks` must have shape {(*lead, *size)}, that of the support images; got "
            f"{tuple(support_masks.shape)}."
        )
    if support_valid is not None and support_valid.shape != lead:
        raise ValueError(f"`support_valid` must have shape {tuple(lead)}; got {tuple(support_valid.shape)}.")
    check_mask_values(support_masks, "support_masks")
    masks = support_masks.to(support_pixel_values.dtype)
    is_filled = (support_masks != 0).flatten(-2).any(-1)
    valid = is_filled if support_valid is None else is_filled & support_valid.bool()
    if support_valid is not None and can_look_at(is_filled) and (support_valid.bool() & ~is_filled).any():
        logger.warning_once("`support_masks` has masks without a pixel; their shots are left out.")
    if support_pixel_values.ndim == 5:
        return support_pixel_values[None], masks[None], valid[None]
    return support_pixel_values, masks, valid


def build_support(shots: EncodedShots, support_valid: torch.Tensor, config: RefTConfig) -> RefTSupport:
    """Reduces the shots of each class.

    Args:
        shots ([`EncodedShots`]): of `batch_size * num_ways * num_shots` images.
        support_valid (`torch.BoolTensor` of shape `(batch_size, num_ways, num_shots)`): which are valid.
        config ([`RefTConfig`]): `shot_reduction` and `max_support_queries_per_class`.
    """
    lead, dtype = support_valid.shape, shots.object_queries.dtype
    centers = []
    for sums, areas in zip(shots.sums, shots.areas, strict=True):
        center, _ = compute_class_centers(
            sums.unflatten(0, lead), areas.unflatten(0, lead), support_valid, config.shot_reduction
        )
        centers.append(center.to(dtype))
    object_queries = shots.object_queries.unflatten(0, lead)  # (batch, ways, shots, topk, hidden)
    prototypes = _average_prototypes(object_queries[..., 0, :], support_valid)
    token_mask = support_valid[..., None].expand(*lead, object_queries.shape[3])
    object_queries, token_mask = object_queries.flatten(2, 3), token_mask.flatten(2)
    maximum = config.max_support_queries_per_class
    if maximum is not None and maximum < token_mask.shape[2]:
        scores = shots.scores.unflatten(0, lead).flatten(2).masked_fill(~token_mask, float("-inf"))
        best = scores.sort(dim=-1, descending=True, stable=True).indices[..., :maximum].sort(dim=-1).values
        object_queries = object_queries.gather(2, best[..., None].expand(-1, -1, -1, object_queries.shape[-1]))
        token_mask = token_mask.gather(2, best)
    return RefTSupport(tuple(centers), support_valid.any(-1), object_queries, token_mask, prototypes)


def _average_prototypes(first_queries: torch.Tensor, support_valid: torch.Tensor) -> torch.Tensor:
    """Mean over valid shots of the normalized first object queries; their direction is what counts."""
    weights = support_valid.to(first_queries.dtype)[..., None]
    return (normalize(first_queries) * weights).sum(-2) / weights.sum(-2).clamp(min=1)


def build_class_support(shots: EncodedShots, class_id: int | None, shot_reduction: str) -> ClassSupport:
    """The support of one class, of which all shots are valid."""
    valid = torch.ones(len(shots.scores), dtype=torch.bool, device=shots.scores.device)
    centers, weights = zip(
        *(
            compute_class_centers(sums, areas, valid, shot_reduction)
            for sums, areas in zip(shots.sums, shots.areas, strict=True)
        ),
        strict=True,
    )
    return ClassSupport(
        class_id=class_id,
        num_shots=len(valid),
        centers=torch.stack(centers).to(shots.object_queries.dtype),
        center_weights=torch.stack(weights).double().cpu(),
        object_queries=shots.object_queries.flatten(0, 1),
        object_query_scores=shots.scores.flatten(),
        prototype=_average_prototypes(shots.object_queries[:, 0], valid),
    )


__all__ = ["EncodedShots", "build_class_support", "build_support", "encode_in_chunks", "prepare_shots"]
