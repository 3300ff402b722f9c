"""One optimizer and the step that feeds it: what a method hands to the loop."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


@dataclass
class Update:
    """One (optimizer, step) pair of an iteration.

    Args:
        optimizer (`torch.optim.Optimizer`): its parameters learn from this update, and no others.
        step (`Callable`): `step(model, batch, **companions) -> {"loss": Tensor, <further terms>: Tensor}`, without
            backward pass. All tensors are scalars; the terms go to the log. The model is called, not
            looked into: with several processes it is wrapped.
        scheduler (`LRScheduler` or `Callable`, *optional*): stepped each time the update runs. A function
            `(optimizer, num_training_steps) -> LRScheduler`, such as `LoopArguments.build_scheduler`, is called by the
            loop with the number of times the update will run.
        every (`int`): run once in this many iterations, in the first one too.
        name (`str`, *optional*): stands before the terms in the log (`<name>/loss`) when there are several updates.
    """

    optimizer: Optimizer
    step: Callable[..., Mapping[str, torch.Tensor]]
    scheduler: LRScheduler | Callable[[Optimizer, int], LRScheduler] | None = None
    every: int = 1
    name: str | None = None

    def __post_init__(self):
        if not isinstance(self.optimizer, Optimizer):
            raise TypeError(f"`optimizer` must be a torch.optim.Optimizer; got {type(self.optimizer).__name__}.")
        if not callable(self.step):
            raise TypeError(f"`step` must be a function of (model, batch, **companions); got {self.step!r}.")
        if self.every < 1:
            raise ValueError(f"`every` must be at least 1; got {self.every!r}.")

    def count_runs(self, num_iterations: int) -> int:
        """How often the update runs in the first `num_iterations` iterations."""
        return -(-num_iterations // self.every)


def check_terms(terms: Any) -> Mapping[str, torch.Tensor]:
    """Return what a step returned, if it is a mapping of scalar tensors with a `loss` that can be differentiated."""
    if not isinstance(terms, Mapping) or "loss" not in terms:
        given = list(terms) if isinstance(terms, Mapping) else type(terms).__name__
        raise TypeError(f"`step` must return a mapping with the key 'loss'; got {given}.")
    for name, value in terms.items():
        if not isinstance(value, torch.Tensor) or value.dim() != 0:
            given = f"shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
            raise TypeError(f"`{name}` in what `step` returns must be a tensor of shape (); got {given}.")
    if not terms["loss"].requires_grad:
        raise ValueError("`loss` must require a gradient; got one that does not. Is every parameter frozen?")
    return terms


__all__ = ["Update", "check_terms"]
