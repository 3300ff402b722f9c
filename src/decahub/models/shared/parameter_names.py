"""Names of parameters without what wrappers put in front of them."""

import re
from collections.abc import Iterator

from torch import nn


# torch.compile, PEFT, and data parallel training; as often as they are wrapped.
WRAPPERS = re.compile(r"^(?:_orig_mod\.|base_model\.model\.|module\.)+")


def iterate_trained(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Name in the unwrapped model, and parameter, of all that require gradients."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            yield WRAPPERS.sub("", name), parameter


def is_free_of_decay(name: str, parameter: nn.Parameter) -> bool:
    """Whether it is a bias or has one dimension, as the weights of norms."""
    return parameter.ndim <= 1 or name.endswith(".bias")


def split_groups(free: list[bool], parameters: list[nn.Parameter], weight_decay: float) -> list[dict]:
    """Parameter groups for AdamW: those with weight decay, then those without."""
    pairs = list(zip(free, parameters, strict=True))
    return [
        {"params": [parameter for is_free, parameter in pairs if not is_free], "weight_decay": weight_decay},
        {"params": [parameter for is_free, parameter in pairs if is_free], "weight_decay": 0.0},
    ]
