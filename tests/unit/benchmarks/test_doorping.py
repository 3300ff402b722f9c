"""The yardstick of the benchmarks computes the same as what it measures."""

import pytest
import torch

from benchmarks import reference_doorping
from benchmarks.doorping import build_matching, build_pair, build_trigger
from decahub.models.doorping.triggers import update_trigger


ATOL = 1e-4  # two summation orders in float32, through ten steps of Adam or two of SGD


@pytest.mark.parametrize("num_channels", [1, 3])
def test_reference_moves_the_trigger_alike(num_channels):
    network, reference = build_pair(8, num_channels)
    trigger, mask = build_trigger(num_channels)

    ours = update_trigger(network, trigger, mask, steps=10, loss_threshold=0.0).trigger

    torch.testing.assert_close(
        ours, reference_doorping.update_trigger(reference, trigger, mask, 10), atol=ATOL, rtol=0
    )
    assert not torch.equal(ours, trigger)


def test_reference_makes_the_same_iteration():
    run_ours, run_reference, ours, reference = build_matching(4)
    before = ours.detach().clone()

    run_ours()
    run_reference()

    torch.testing.assert_close(ours.detach(), reference.detach(), atol=ATOL, rtol=0)
    assert (ours.detach() - before).abs().max() > 10 * ATOL
