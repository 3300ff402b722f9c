"""Initialization of single layers; weights that were loaded stay."""

from torch import nn
from transformers import initialization as init


def reset_as_torch(layer: nn.Linear | nn.Conv1d) -> None:
    """What torch does by itself, which transformers would replace by a normal distribution."""
    init.kaiming_uniform_(layer.weight, a=5**0.5)
    if layer.bias is not None:
        bound = layer.weight[0].numel() ** -0.5
        init.uniform_(layer.bias, -bound, bound)


def reset_by_xavier(layer: nn.Linear, gain: float = 1.0) -> None:
    """Xavier's uniform distribution, and biases of zero."""
    init.xavier_uniform_(layer.weight, gain=gain)
    init.zeros_(layer.bias)


__all__ = ["reset_as_torch", "reset_by_xavier"]
