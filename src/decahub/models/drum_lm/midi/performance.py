"""A drum performance: what a drummer played, to the tick."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .meter import check_time_signature


DEFAULT_TEMPO = 120.0  # quarter notes a minute where a file states none, by the MIDI standard
MICROSECONDS_PER_MINUTE = 60_000_000
MAX_TEMPO_EVENT = 2**24 - 1  # microseconds; three bytes
MAX_TICK = 2**48  # beyond the longest file; sums of ticks stay far from the end of int64


@dataclass(eq=False)
class DrumPerformance:
    """The notes of a drummer, as played.

    Notes are brought into the order of their ticks; those of one tick keep the order in which they are given.

    Args:
        ticks (`np.ndarray` of shape `(num_notes,)`, int64): Onsets, counted from the start.
        pitches (`np.ndarray` of shape `(num_notes,)`, int64): MIDI pitches, 0 to 127.
        velocities (`np.ndarray` of shape `(num_notes,)`, int64): Strengths, 1 to 127.
        ticks_per_quarter (`int`): Ticks of a quarter note.
        time_signatures (`list[tuple[int, int, int]]`): Tick, numerator and denominator of each meter, in order.
        tempos (`list[tuple[int, int]]`): Tick and microseconds for each quarter note, in order.
        tracks (`tuple[str, ...]`): Tracks of the file that have notes, as messages list them.

    Raises:
        ValueError: If a value lies outside its range, or the three arrays differ in length.
    """

    ticks: np.ndarray
    pitches: np.ndarray
    velocities: np.ndarray
    ticks_per_quarter: int
    time_signatures: list[tuple[int, int, int]] = field(default_factory=list)
    tempos: list[tuple[int, int]] = field(default_factory=list)
    tracks: tuple[str, ...] = ()

    def __post_init__(self):
        if not 0 < self.ticks_per_quarter < 2**15:
            raise ValueError(f"`ticks_per_quarter` must be from 1 to 32767; got {self.ticks_per_quarter!r}.")
        arrays = {name: _to_integers(getattr(self, name), name) for name in ("ticks", "pitches", "velocities")}
        sizes = {name: len(array) for name, array in arrays.items()}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"`ticks`, `pitches` and `velocities` must have one entry for each note; got {sizes}.")
        for name, lowest, highest in (("ticks", 0, MAX_TICK), ("pitches", 0, 127), ("velocities", 1, 127)):
            outside = arrays[name][(arrays[name] < lowest) | (arrays[name] > highest)]
            if len(outside):
                raise ValueError(f"`{name}` must lie from {lowest} to {highest}; got {int(outside[0])}.")
        order = np.argsort(arrays["ticks"], kind="stable")
        self.ticks, self.pitches, self.velocities = (array[order] for array in arrays.values())
        self.time_signatures = sorted((tuple(event) for event in self.time_signatures), key=lambda event: event[0])
        self.tempos = sorted((tuple(event) for event in self.tempos), key=lambda event: event[0])
        for _, numerator, denominator in self.time_signatures:
            check_time_signature((numerator, denominator))
        for _, microseconds in self.tempos:
            if not 0 < microseconds <= MAX_TEMPO_EVENT:
                raise ValueError(f"`tempos` must lie from 1 to {MAX_TEMPO_EVENT} microseconds; got {microseconds!r}.")

    def __len__(self) -> int:
        return len(self.ticks)

    @property
    def tempo(self) -> float:
        """Quarter notes a minute where the first note is played; 120 without a tempo."""
        return self.find_tempo(int(self.ticks[0]) if len(self) else 0)

    def find_tempo(self, tick: int) -> float:
        """Quarter notes a minute at a tick, or half a sixteenth note after it, since notes come early."""
        stated = [microseconds for start, microseconds in self.tempos if 8 * (start - tick) <= self.ticks_per_quarter]
        return MICROSECONDS_PER_MINUTE / stated[-1] if stated else DEFAULT_TEMPO


def _to_integers(values: Any, name: str) -> np.ndarray:
    array = np.asarray(values)
    if array.size and array.dtype.kind not in "iu":
        raise TypeError(f"`{name}` must hold integers; got {array.dtype}.")
    return array.astype(np.int64).reshape(-1)


__all__ = ["DrumPerformance"]
