"""Numbers too small for the processor's fast paths."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Run a block in which the CPU takes results below the smallest normal number (1.2e-38 in float32) for zero.

    A CPU needs many times as long for such numbers, and gradients are full of them once a network is sure of
    most of its answers: of attention weights that are almost zero, above all.

    The setting belongs to a thread, and threads that start later inherit it. So a program that computes on several
    threads enters this block before its first tensor operation, as `decahub train` does.
    """
    before = _flushes_denormals()
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def _flushes_denormals() -> bool:
    smallest = torch.finfo(torch.float32).tiny
    return not (torch.tensor(smallest) * 0.5).item()


__all__ = ["flushed_denormals"]
