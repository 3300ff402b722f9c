"""The yardstick of the benchmarks computes the same as what it measures."""

import torch

from benchmarks.pmt_iqa import build_crops, build_pair


ATOL = 1e-5  # two summation orders in float32


def test_reference_equals_the_model():
    model, reference = build_pair()
    crops = build_crops(2)

    with torch.inference_mode():
        outputs, (scores, logits) = model(crops), reference(crops[0])

    torch.testing.assert_close(outputs.crop_scores[0], scores[:, 0], atol=ATOL, rtol=1e-5)
    torch.testing.assert_close(outputs.level_logits[0], logits, atol=ATOL, rtol=1e-5)
