"""One optimizer and the step that feeds it: what a method hands to the loop."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


def call_model(model: nn.Module, batch: Mapping[str, Any], **companions: nn.Module) -> dict[str, torch.Tensor]:
    """The step of most methods: call the model with the batch and keep the scalar tensors of its output."""
    outputs = model(**batch)
    if not isinstance(outputs, Mapping):
        raise TypeError(
            f"The model must return a mapping such as a `ModelOutput`; got {type(outputs).__name__}. Give `Update` a "
            "`step` that returns {'loss': ...}."
        )
    return {name: value for name, value in outputs.items() if isinstance(value, torch.Tensor) and value.dim() == 0}


@dataclass
class Update:
    """One (optimizer, step) pair of an iteration.

    Args:
        optimizer (`torch.optim.Optimizer`, *optional*): its parameters learn from this update, and no others. Without
            one the step runs without gradients, and `loss` is optional.
        step (`Callable`): `step(model, batch, **companions) -> {"loss": Tensor, <further terms>: Tensor}`, without
            backward pass. All tensors are scalars; the terms go to the log. The model is called, not looked into:
            with several processes it is wrapped. By default the model is called with the batch, and the scalars of
            its output are the terms.
        scheduler (`LRScheduler` or `Callable`, *optional*): stepped each time the update runs. A function
            `(optimizer, num_training_steps) -> LRScheduler`, such as `LoopArguments.build_scheduler`, is called by the
            loop with the number of times the update will run.
        every (`int`): run once in this many iterations, in the first one too.
        name (`str`, *optional*): stands before the terms in the log (`<name>/loss`) when there are several updates.
        after (`Callable`, *optional*): `after(model, batch, **companions)`, called without gradients in every process
            once the update was made, and not if it was skipped. It gets the modules without wrappers and the last
            batch of the update.
    """

    optimizer: Optimizer | None = None
    step: Callable[..., Mapping[str, torch.Tensor]] = call_model
    scheduler: LRScheduler | Callable[[Optimizer, int], LRScheduler] | None = None
    every: int = 1
    name: str | None = None
    after: Callable[..., None] | None = None

    def __post_init__(self):
        if self.optimizer is not None and not isinstance(self.optimizer, Optimizer):
            raise TypeError(f"`optimizer` must be a torch.optim.Optimizer; got {type(self.optimizer).__name__}.")
        for name, function in (("step", self.step), ("after", self.after or call_model)):
            if not callable(function):
                raise TypeError(f"`{name}` must be a function of (model, batch, **companions); got {function!r}.")
        if self.optimizer is None and self.step is call_model:
            raise ValueError("`optimizer` or `step` must be given; got neither, so the update would do nothing.")
        if self.optimizer is None and self.scheduler is not None:
            raise ValueError("`scheduler` must come with an `optimizer`; got none. Drop it, or give an optimizer.")
        if self.every < 1:
            raise ValueError(f"`every` must be at least 1; got {self.every!r}.")

    def count_runs(self, num_iterations: int) -> int:
        """How often the update runs in the first `num_iterations` iterations."""
        return -(-num_iterations // self.every)


def check_terms(terms: Any, *, with_gradients: bool = True) -> Mapping[str, torch.Tensor]:
    """Return what a step returned, if it is a mapping of scalar tensors.

    With gradients, `loss` must be among them and require a gradient.
    """
    if not isinstance(terms, Mapping) or (with_gradients and "loss" not in terms):
        given = list(terms) if isinstance(terms, Mapping) else type(terms).__name__
        expected = "a mapping with the key 'loss'" if with_gradients else "a mapping"
        raise TypeError(f"`step` must return {expected}; got {given}.")
    for name, value in terms.items():
        if not isinstance(value, torch.Tensor) or value.dim() != 0:
            given = f"shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
            raise TypeError(f"`{name}` in what `step` returns must be a tensor of shape (); got {given}.")
    if with_gradients and not terms["loss"].requires_grad:
        raise ValueError("`loss` must require a gradient; got one that does not. Is every parameter frozen?")
    return terms
