"""Stochastic depth: whole samples are dropped, the mean stays."""

import pytest
import torch

from decahub.models.shared.drop_path import drop_path


@pytest.mark.parametrize("shape", [(4000, 2, 3), (4000, 3, 2, 2)], ids=["tokens", "maps"])
def test_drops_samples_and_keeps_the_mean(shape):
    torch.manual_seed(0)
    ones = torch.ones(shape)

    dropped = drop_path(ones, 0.25, training=True).flatten(1)

    torch.testing.assert_close(dropped[:, 0].unique(), torch.tensor([0.0, 1 / 0.75]))
    assert (dropped == dropped[:, :1]).all()
    assert dropped.mean().item() == pytest.approx(1, abs=0.05)  # 4 standard deviations are 0.036


@pytest.mark.parametrize(("rate", "training"), [(0.25, False), (0.0, True)])
def test_drops_nothing_in_evaluation_or_at_rate_zero(rate, training):
    ones = torch.ones(4, 3)

    assert drop_path(ones, rate, training) is ones
