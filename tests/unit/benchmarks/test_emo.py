"""The yardstick of the benchmarks computes the same as what it measures, and ratios come from interleaved medians."""

import statistics

import torch

from benchmarks.reference_emo import ReferenceEmo
from benchmarks.timing import interleave
from conversion.convert_emo import revert_state_dict
from decahub import EmoConfig, EmoForImageClassification


LOGITS_ATOL = 5e-6  # two summation orders in float32, as for the golden numbers


def test_reference_equals_the_model():
    torch.manual_seed(0)
    config = EmoConfig.from_variant("1m", num_labels=7)
    model = EmoForImageClassification(config).eval()
    reference = ReferenceEmo(config).eval()
    reference.load_state_dict(revert_state_dict(model.state_dict(), config))
    pixel_values = torch.randn(2, 3, 65, 97)

    with torch.inference_mode():
        expected, fused = reference(pixel_values), model.fuse()(pixel_values).logits

    torch.testing.assert_close(fused, expected, atol=LOGITS_ATOL, rtol=0)


def test_interleaving_takes_turns():
    calls = []

    ours, reference = interleave(lambda: calls.append("ours") or 1.0, lambda: calls.append("reference") or 2.0, 0.0)

    assert len(ours) == len(reference) >= 3
    assert statistics.median(reference) / statistics.median(ours) == 2.0
    assert calls.count("ours") - len(ours) == calls.count("reference") - len(reference)
