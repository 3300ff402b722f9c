import subprocess
import sys

import pytest
import torch

from decahub.training import flushed_denormals


TINY = torch.finfo(torch.float32).tiny


def halve_smallest() -> float:
    return (torch.tensor(TINY) * 0.5).item()


def test_results_below_the_smallest_normal_number_are_zero_within_the_block():
    with flushed_denormals():
        assert halve_smallest() == 0
    assert halve_smallest() == TINY / 2


def test_the_setting_is_that_of_before_after_an_error_and_after_nested_blocks():
    with flushed_denormals():
        with pytest.raises(RuntimeError, match="stop"), flushed_denormals():
            raise RuntimeError("stop")
        assert halve_smallest() == 0
    assert halve_smallest() == TINY / 2


def test_threads_that_start_within_the_block_inherit_the_setting():
    code = (
        "import torch\n"
        "from decahub.training import flushed_denormals\n"
        "torch.set_num_threads(2)\n"
        "with flushed_denormals():\n"
        f"    halved = torch.full((1_000_000,), {TINY!r}) * 0.5\n"
        "assert not halved.any()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
