"""Weights and inputs that anyone can compute again from a name: the stream behind the golden files.

For a tensor `name` and a `salt`, the seed is the CRC-32 of the UTF-8 bytes of `salt + name`; numbers come from
`numpy.random.RandomState(seed)` in C order, as float64 in [0, 1), and are shaped by the last piece of the name.
"""

import math
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch


NUM_BATCHES_TRACKED = 7


def random_state(name: str, salt: str = "") -> np.random.RandomState:
    """The generator that belongs to a name."""
    return np.random.RandomState(zlib.crc32((salt + name).encode()))


def sample_uniform(name: str, shape: Sequence[int], salt: str = "") -> np.ndarray:
    """The float64 stream in [0, 1) of a name, in C order."""
    return random_state(name, salt).random_sample(math.prod(shape)).reshape(shape)


def fill_tensor(name: str, shape: Sequence[int], salt: str = "") -> torch.Tensor:
    """The tensor that a state-dict entry gets.

    Args:
        name (`str`): the authors' name of the entry; its last piece decides the distribution.
        shape (`Sequence[int]`): the entry's shape; empty for a scalar.
        salt (`str`): any text; another salt gives other weights.

    Returns:
        `torch.Tensor`: float32, or int64 for `num_batches_tracked`.
    """
    shape, kind = tuple(shape), name.rpartition(".")[2]
    if kind == "num_batches_tracked":
        return torch.full(shape, NUM_BATCHES_TRACKED, dtype=torch.int64)
    uniform = sample_uniform(name, shape, salt)
    if kind in ("running_mean", "bias"):
        values = 0.4 * (uniform - 0.5)
    elif kind == "running_var" or len(shape) == 1:
        values = 0.5 + uniform
    else:
        # Unit variance of the product: a uniform number in [-b, b] has variance b * b / 3.
        values = (2 * uniform - 1) * math.sqrt(3 / math.prod(shape[1:]))
    return torch.from_numpy(np.asarray(values, dtype=np.float32))


def fill_state_dict(shapes: Mapping[str, Sequence[int]], salt: str = "") -> dict[str, torch.Tensor]:
    """A filled state dict for entries given by name and shape."""
    return {name: fill_tensor(name, shape, salt) for name, shape in shapes.items()}


def fill_input(case: str, shape: Sequence[int], salt: str = "") -> torch.Tensor:
    """Input of a golden case: float32 of mean 0 and variance 1, uniform."""
    uniform = sample_uniform(f"input/{case}", shape, salt)
    return torch.from_numpy(np.asarray((2 * uniform - 1) * math.sqrt(3), dtype=np.float32))


def fill_labels(case: str, shape: Sequence[int], num_labels: int, salt: str = "") -> torch.Tensor:
    """Class ids of a golden case: int64 in [0, num_labels)."""
    return torch.from_numpy(np.floor(sample_uniform(f"label/{case}", shape, salt) * num_labels).astype(np.int64))


__all__ = ["fill_input", "fill_labels", "fill_state_dict", "fill_tensor", "random_state", "sample_uniform"]
