"""The yardstick of RELIANT's benchmarks computes the same as what it measures."""

import pytest
import torch


pytest.importorskip("torch_geometric", reason="torch-geometric is not installed")

from benchmarks.reliant import build_student_pair, build_teacher_pair


ATOL = 1e-5  # float32, two orders of summation, through three optimizer steps
SIZES = {"num_nodes": 40, "num_edges": 200, "hidden_size": 8}


def test_epochs_of_the_reference_equal_ours():
    (ours, reference), _ = build_student_pair(**SIZES)

    for _ in range(3):
        torch.testing.assert_close(ours(), reference(), atol=ATOL, rtol=0)


def test_steps_of_the_reference_teacher_equal_ours():
    ours, reference = build_teacher_pair(**SIZES)

    for _ in range(3):
        torch.testing.assert_close(ours(), reference(), atol=ATOL, rtol=0)


def test_inference_of_the_reference_equals_ours():
    _, (ours, reference) = build_student_pair(**SIZES)

    torch.testing.assert_close(ours(), reference(), atol=ATOL, rtol=0)
