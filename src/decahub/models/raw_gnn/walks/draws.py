"""Random numbers that are addressed instead of drawn one after another: each is a hash of what it is for.

So a number is the same whatever else is asked for, in whatever order and by however many threads.
"""

from dataclasses import dataclass
from operator import index

import torch


# Multipliers and shifts of the finalizer of SplitMix64 (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number
# Generators", OOPSLA 2014), as signed numbers, since torch multiplies int64 modulo 2**64.
GOLDEN_GAMMA = 0x9E3779B97F4A7C15 - 2**64
MIX_ROUNDS = ((30, 0xBF58476D1CE4E5B9 - 2**64), (27, 0x94D049BB133111EB - 2**64), (31, None))
UNIFORM_BITS = 53


@dataclass(frozen=True)
class Draws:
    """Uniform numbers of one step of each walk.

    Args:
        walk_keys (`torch.LongTensor` of shape `(num_walks,)`): from [`hash_integers`].
        offset (`int`): number of the step's first draw; steps must be so far apart that their draws do not overlap.
    """

    walk_keys: torch.Tensor
    offset: int

    def uniform(self, number: int, walkers: torch.Tensor | None = None) -> torch.Tensor:
        """The step's draw `number` in [0, 1), with 53 random bits, of all walks or of those that `walkers` lists."""
        keys = self.walk_keys if walkers is None else self.walk_keys.index_select(0, walkers)
        bits = mix_bits(keys + wrap_integer(GOLDEN_GAMMA * (self.offset + number + 1)))
        return shift_right(bits, 64 - UNIFORM_BITS).double().mul_(2.0**-UNIFORM_BITS)


def hash_integers(*values: int | torch.Tensor) -> torch.Tensor:
    """One well-mixed 64-bit number for each combination of the values, which are broadcast against each other."""
    key = torch.zeros((), dtype=torch.int64)
    for value in values:
        if not isinstance(value, torch.Tensor):
            value = torch.tensor(wrap_integer(index(value)))
        key = mix_bits(key + GOLDEN_GAMMA * (value + 1))
    return key


def mix_bits(bits: torch.Tensor) -> torch.Tensor:
    for shift, multiplier in MIX_ROUNDS:
        bits = bits ^ shift_right(bits, shift)
        if multiplier is not None:
            bits = bits * multiplier
    return bits


def shift_right(bits: torch.Tensor, shift: int) -> torch.Tensor:
    """Shift that fills with zeros; that of int64 fills with the sign."""
    return (bits >> shift) & ((1 << (64 - shift)) - 1)


def wrap_integer(value: int) -> int:
    """The signed 64-bit integer that `value` is modulo 2**64."""
    return (value + 2**63) % 2**64 - 2**63


__all__ = ["Draws", "hash_integers"]
