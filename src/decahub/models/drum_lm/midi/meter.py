"""Meters of a performance, and the bars that they make."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


STEPS_PER_WHOLE_NOTE, STEPS_PER_QUARTER = 16, 4
DEFAULT_METER = (4, 4)  # where a file states none, by the MIDI standard
DENOMINATORS = (1, 2, 4, 8, 16, 32, 64, 128)


class MeterError(ValueError):
    """A performance whose meter the codec cannot write: a reason to leave the file out."""


@dataclass(frozen=True)
class Section:
    """Bars of one meter: the tick at which the first begins, its number in the performance, and the meter."""

    start: int
    first_bar: int
    meter: tuple[int, int]

    def find_bars(self, ticks: np.ndarray, ticks_per_quarter: int) -> np.ndarray:
        """Bars of ticks of this section; half a step before a bar belongs to it, as in quantization."""
        numerator, denominator = self.meter
        eighths = 8 * (ticks - self.start) + ticks_per_quarter
        return self.first_bar + eighths * denominator // (32 * ticks_per_quarter * numerator)


def list_sections(time_signatures: Sequence[tuple[int, int, int]], ticks_per_quarter: int) -> list[Section]:
    """Sections of a performance, from the tick, numerator and denominator of each meter, in order.

    A change begins a new bar; of several meters at one tick, the last holds.
    """
    meters = {0: DEFAULT_METER} | {tick: (numerator, denominator) for tick, numerator, denominator in time_signatures}
    sections = [Section(0, 0, meters.pop(0))]
    for tick, meter in meters.items():
        last = sections[-1]
        if meter != last.meter:
            ticks_per_bar = 4 * ticks_per_quarter * last.meter[0]  # in units of the denominator
            num_bars = -(-(tick - last.start) * last.meter[1] // ticks_per_bar)
            sections.append(Section(tick, last.first_bar + num_bars, meter))
    return sections


def check_time_signature(time_signature: tuple[int, int]) -> None:
    """Refuses a meter that MIDI cannot state."""
    numerator, denominator = time_signature
    if not 0 < numerator < 256 or denominator not in DENOMINATORS:
        raise ValueError(
            "`time_signature` must have a numerator from 1 to 255 and a power of two up to 128 as denominator; got "
            f"{numerator}/{denominator}."
        )


def count_steps(time_signature: Sequence[int]) -> int:
    """Sixteenth notes of a bar; a `MeterError` if they are not whole."""
    numerator, denominator = time_signature
    steps, rest = divmod(STEPS_PER_WHOLE_NOTE * numerator, denominator)
    if rest:
        raise MeterError(f"`time_signature` must make a bar of whole sixteenth notes; got {numerator}/{denominator}.")
    return steps


def find_time_signature(steps_per_bar: int) -> tuple[int, int]:
    """A meter whose bar has this many sixteenth notes, in quarter notes if they are whole."""
    quarters, rest = divmod(steps_per_bar, STEPS_PER_QUARTER)
    return (steps_per_bar, STEPS_PER_WHOLE_NOTE) if rest else (quarters, 4)


__all__ = ["MeterError", "Section", "check_time_signature", "count_steps", "find_time_signature", "list_sections"]
