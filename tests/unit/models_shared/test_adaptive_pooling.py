"""Bins of adaptive pooling as matrices, which exported programs use."""

import pytest
import torch
from torch.nn import functional

from decahub.models.shared.adaptive_pooling import build_bins


@pytest.mark.parametrize(("height", "width", "num_bins"), [(5, 7, 3), (1, 2, 6), (4, 9, 6), (12, 3, 2), (7, 5, 1)])
def test_shares_give_the_means_of_adaptive_pooling(height, width, num_bins):
    maps = torch.randn(2, 3, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    means = build_bins(height, num_bins, maps) @ maps @ build_bins(width, num_bins, maps).T

    torch.testing.assert_close(means, functional.adaptive_avg_pool2d(maps, num_bins))
