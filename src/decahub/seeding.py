"""Seeds derived from names and counters, so that no draw depends on what was drawn before it."""

import functools
import hashlib
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.random import mtrand


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


# One of these stands in for numpy's global bit generator while a seeded block runs: swapping the object takes a
# microsecond, whereas copying its state out and in, or making a new one, takes two hundred. Blocks may be nested.
_SPARE_GENERATORS: list[np.random.MT19937] = []


@contextmanager
def preserved_random_state() -> Iterator[Callable[..., None]]:
    """Run a block that seeds the global generators, then put their state back as it was.

    To read and write Python's and torch's state takes longer than to seed them, so a loop over items does so once.

    Yields:
        `seed(*key)`, which seeds Python's `random`, numpy's legacy global generator and torch's CPU generator by parts
        (`int` or `str`) that the draws belong to; the same parts give the same draws on every machine.
    """
    python_state = random.getstate()
    torch_state = torch.get_rng_state()
    numpy_generator = mtrand.get_bit_generator()
    stand_in = _SPARE_GENERATORS.pop() if _SPARE_GENERATORS else np.random.MT19937()
    try:
        mtrand.set_bit_generator(stand_in)
        yield _seed_state
    finally:
        mtrand.set_bit_generator(numpy_generator)
        _SPARE_GENERATORS.append(stand_in)
        torch.set_rng_state(torch_state)
        random.setstate(python_state)


def _seed_state(*key: int | str) -> None:
    seed = int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "little")
    random.seed(seed)
    # `torch.manual_seed` would also queue a call for each kind of accelerator: ten times a small transform's time.
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed % NUMPY_SEED_LIMIT)


@contextmanager
def seeded_random_state(*key: int | str) -> Iterator[None]:
    """Run a block under random state derived from `key`, then put the global random state back as it was.

    Covers Python's `random`, numpy's legacy global generator and torch's CPU generator.

    Args:
        key (`int` or `str`): what the draws belong to; the same parts give the same draws on every machine.
    """
    with preserved_random_state() as seed:
        seed(*key)
        yield


@functools.cache
def _has_accelerator() -> bool:
    return torch.accelerator.is_available()


__all__ = ["derive_seed", "preserved_random_state", "seed_everything", "seeded_random_state"]
