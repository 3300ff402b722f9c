"""Masks at random points, as PointRend and Mask2Former compare them: cheaper than whole masks, sharp at borders."""

import torch
from torch.nn import functional as F


def sample_maps(maps: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Values of maps at points, bilinear.

    Args:
        maps (`torch.FloatTensor` of shape `(num_maps, height, width)`): maps.
        points (`torch.FloatTensor`): x and y in [0, 1] of the map, of shape `(num_points, 2)` for all maps, or
            `(num_maps, num_points, 2)`.

    Returns:
        `torch.FloatTensor` of shape `(num_maps, num_points)`.
    """
    grid = 2 * points.to(maps.dtype) - 1
    if points.ndim == 2:  # one grid for all maps, which are its channels
        return F.grid_sample(maps[None], grid[None, None], align_corners=False)[0, :, 0]
    return F.grid_sample(maps[:, None], grid[:, None], align_corners=False)[:, 0, 0]


def count_points(num_points: int, oversample_ratio: float, importance_sample_ratio: float) -> tuple[int, int]:
    """How many points to draw as candidates, and how many of them to keep because the mask is uncertain there.

    The rest of `num_points` are further random points.
    """
    return int(num_points * oversample_ratio), int(importance_sample_ratio * num_points)


def choose_uncertain_points(candidate_logits: torch.Tensor, num_chosen: int) -> torch.Tensor:
    """Indices of the candidates whose logits are nearest to 0.

    Args:
        candidate_logits (`torch.FloatTensor` of shape `(num_masks, num_candidates)`): mask logits.
        num_chosen (`int`): how many.

    Returns:
        `torch.LongTensor` of shape `(num_masks, num_chosen)`.
    """
    return candidate_logits.abs().topk(num_chosen, dim=1, largest=False).indices


__all__ = ["choose_uncertain_points", "count_points", "sample_maps"]
