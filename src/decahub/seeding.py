"""Seeds derived from names and counters, so that no draw depends on what was drawn before it."""

import functools
import hashlib
import random

import numpy as np
import torch


NUMPY_SEED_LIMIT = 2**32  # `numpy.random.seed` refuses larger ones


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed that depends on every part and on their order, equal in every process and Python version.

    Args:
        parts (`int` or `str`): what the draw belongs to, such as `(seed, "order", epoch)`.
    """
    text = "\0".join(map(str, parts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def seed_everything(*parts: int | str) -> None:
    """Seed the global generators of torch, numpy and Python from `derive_seed(*parts)`.

    It is called several times a step, so without an accelerator it seeds the CPU's generator alone:
    `torch.manual_seed` then spends most of its time on devices that are not there.
    """
    seed = derive_seed(*parts)
    if _has_accelerator():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)
    np.random.seed(seed % NUMPY_SEED_LIMIT)
    random.seed(seed)


@functools.cache
def _has_accelerator() -> bool:
    return torch.accelerator.is_available()


__all__ = ["derive_seed", "seed_everything"]
