"""Training and evaluation mode of a model."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Run a block with `model` in evaluation mode; afterwards every module is in the mode it was in.

    A frozen part may have been in evaluation mode inside a training model.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


__all__ = ["evaluation_mode"]
