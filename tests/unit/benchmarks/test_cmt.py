"""The yardstick of CMT's benchmark computes the same as what it measures."""

import torch

from benchmarks.cmt import run_reference
from decahub.models.cmt.configuration_cmt import CmtLidarConfig
from decahub.models.cmt.lidar.sparse_encoder import CmtSparseEncoder


def test_reference_equals_the_encoder():
    torch.manual_seed(0)
    config = CmtLidarConfig(
        sparse_shape=[17, 20, 28],
        num_point_features=3,
        hidden_sizes=[4, 5],
        depths=[1, 1],
        paddings=[[0, 1, 1]],
        output_size=6,
    )
    encoder = CmtSparseEncoder(config).double()
    cells = torch.randperm(17 * 20 * 28)[:200]
    coords = torch.stack([torch.zeros_like(cells), *torch.unravel_index(cells, (17, 20, 28))], dim=1)
    features = torch.randn(200, 3, dtype=torch.float64)

    expected = run_reference(encoder, features, coords, 1)

    torch.testing.assert_close(encoder(features, coords, 1), expected)
