"""Exponential moving average of a model's whole state, batch norm statistics included."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn


def compute_ema_decay(decay: float, num_updates: int, *, warmup: bool = False) -> float:
    """Decay of the `num_updates`-th update (counted from 0).

    With `warmup` it is min(decay, (1 + t) / (10 + t)), so that a short run forgets its random start.
    """
    return min(decay, (1 + num_updates) / (10 + num_updates)) if warmup else decay


class ExponentialMovingAverage:
    """Average of all floating-point tensors of a model's state dict; other tensors (counters) are copied.

    The average starts as a copy of the model. Half-precision weights are averaged in float32, where a decay such as
    0.9998 still has an effect.

    The model, without its distributed wrapper, must be on the device where it trains: its tensors are looked up once,
    as doing so in each step costs more than the averaging.
    """

    def __init__(self, model: nn.Module, decay: float, *, warmup: bool = False):
        self.decay = decay
        self.warmup = warmup
        followed = model.state_dict()
        self.tensors = {name: _copy_for_average(tensor) for name, tensor in followed.items()}
        self._pairs = list(zip(self.tensors.values(), followed.values(), strict=True))

    @torch.no_grad()
    def update(self, num_updates: int) -> None:
        """Move the average towards the model's weights; `num_updates` is the number of updates made before."""
        weight = 1 - compute_ema_decay(self.decay, num_updates, warmup=self.warmup)
        for average, tensor in self._pairs:
            if average.is_floating_point():
                average.lerp_(tensor.to(average.dtype), weight)
            else:
                average.copy_(tensor)

    def copy_to(self, model: nn.Module) -> None:
        """Overwrite the weights of `model` with the average."""
        _copy(self.tensors, model.state_dict())

    @contextmanager
    def applied_to(self, model: nn.Module) -> Iterator[None]:
        """Context in which `model` carries the average; afterwards it has its own weights again, bit for bit."""
        own = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        self.copy_to(model)
        try:
            yield
        finally:
            _copy(own, model.state_dict())

    def save(self, path: str | Path) -> None:
        """Write the average as safetensors."""
        save_file({name: tensor.contiguous() for name, tensor in self.tensors.items()}, path)

    def load(self, path: str | Path) -> None:
        """Read an average that `save` wrote."""
        saved = load_file(path)
        if saved.keys() != self.tensors.keys():
            different = sorted(saved.keys() ^ self.tensors.keys())
            raise ValueError(
                f"`{Path(path).name}` must hold the tensors of the model; {len(different)} differ, the first is "
                f"{different[0]!r}. Was the checkpoint written by another model?"
            )
        _copy(saved, self.tensors)


@torch.no_grad()
def _copy(source: Mapping[str, torch.Tensor], target: Mapping[str, torch.Tensor]) -> None:
    for name, tensor in target.items():
        tensor.copy_(source[name])


def _copy_for_average(tensor: torch.Tensor) -> torch.Tensor:
    copy = tensor.detach().clone()
    return copy.to(torch.promote_types(copy.dtype, torch.float32)) if copy.is_floating_point() else copy
