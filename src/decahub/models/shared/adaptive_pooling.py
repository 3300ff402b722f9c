"""Means over a fixed number of bins of a map, also in exported programs whose maps have any size.

Exporters write adaptive pooling with the bins of the size that they saw. A product with matrices of shares, which are
made from the size at hand, holds for all.
"""

import torch
from torch import nn
from torch.nn import functional


def build_bins(length: int, num_bins: int, like: torch.Tensor) -> torch.Tensor:
    """Share of each position in each bin, `(num_bins, length)`.

    Bin i of n reaches from the floor of `i * length / n` to the ceiling of `(i + 1) * length / n`.
    """
    positions = torch.arange(length, device=like.device)
    bins = torch.arange(num_bins, device=like.device)[:, None]
    starts, ends = bins * length // num_bins, ((bins + 1) * length + num_bins - 1) // num_bins
    return ((positions >= starts) & (positions < ends)).to(like.dtype) / (ends - starts).to(like.dtype)


class AdaptiveMeans(nn.AdaptiveAvgPool2d):
    """`torch.nn.AdaptiveAvgPool2d` to a square, which exports with dynamic sizes."""

    def forward(self, feature_maps: torch.Tensor) -> torch.Tensor:
        return compute_bin_means(feature_maps, self.output_size)


def compute_bin_means(feature_maps: torch.Tensor, num_bins: int) -> torch.Tensor:
    """Mean of each of `num_bins` x `num_bins` overlapping parts of maps `(batch_size, channels, height, width)`."""
    if not torch.compiler.is_exporting():
        return functional.adaptive_avg_pool2d(feature_maps, num_bins)
    rows = build_bins(feature_maps.shape[2], num_bins, feature_maps)
    columns = build_bins(feature_maps.shape[3], num_bins, feature_maps)
    return rows @ feature_maps @ columns.T
