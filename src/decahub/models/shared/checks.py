"""Checks of what comes from outside: names, fields of configurations, values of tensors."""

import difflib
from collections.abc import Collection, Iterable
from typing import Any

import torch


def can_look_at(tensor: torch.Tensor) -> bool:
    """Whether values may be checked: on accelerators it would wait for the device, in a traced graph break it."""
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()


def refuse_unknown(names: Iterable[str], allowed: Collection[str], what: str) -> None:
    """Refuses names that are not allowed, with the nearest that is.

    Args:
        names (`Iterable[str]`): names that were given.
        allowed (`Collection[str]`): names that exist.
        what (`str`): what they name, such as "a field of EmoConfig".

    Raises:
        ValueError: For the first unknown name.
    """
    for name in names:
        if name not in allowed:
            nearest = difflib.get_close_matches(name, allowed, n=1)
            hint = f" Did you mean `{nearest[0]}`?" if nearest else ""
            raise ValueError(f"`{name}` must be {what}; it does not exist.{hint}")


def check_minimum(config: Any, minimum: float, *names: str) -> None:
    """Refuses a configuration in which one of the named fields is set and less than `minimum`."""
    for name in names:
        value = getattr(config, name)
        if value is not None and value < minimum:
            raise ValueError(f"`{name}` must be at least {minimum}; got {value}.")


def check_rates(config: Any, *names: str) -> None:
    """Refuses a configuration in which one of the named probabilities lies outside [0, 1)."""
    for name in names:
        if not 0 <= getattr(config, name) < 1:
            raise ValueError(f"`{name}` must lie in [0, 1); got {getattr(config, name)}.")
