"""The yardstick of TinyMIM's benchmarks computes the same as what it measures."""

import torch

from benchmarks.tinymim import build_distillation_pair


ATOL = 1e-5  # float32, two orders of summation, through three optimizer steps
STUDENT = {"hidden_size": 24, "num_attention_heads": 3, "intermediate_size": 40}
TEACHER = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 56}


def test_steps_of_the_reference_equal_ours():
    sizes = {"image_size": 16, "patch_size": 4}
    ours, reference = build_distillation_pair(STUDENT, TEACHER, sizes, depths=(2, 4), batch_size=3)

    losses = [(ours(), reference()) for _ in range(3)]

    for loss, expected in losses:
        torch.testing.assert_close(loss, expected, atol=ATOL, rtol=0)
    assert losses[-1][0] < losses[0][0]
