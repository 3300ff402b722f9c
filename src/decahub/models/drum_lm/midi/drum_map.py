"""Which MIDI pitches make up a column of the drum roll: the method's six groups, and the usual nine."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


NUM_PITCHES = 128
DROPPED_PITCH = -1
UNKNOWN_PITCH = -2
PEDAL_HAT_PITCH = 44  # the hi-hat closed by foot, not struck


@dataclass(frozen=True)
class DrumMap:
    """Columns of a drum roll, from left to right. A pitch may be in one place only."""

    columns: tuple[str, ...]  # names
    pitches: tuple[tuple[int, ...], ...]  # that count as a hit of each column
    written: tuple[int, ...]  # the one pitch that is written for a hit of each column
    dropped: tuple[int, ...] = ()  # known and left out

    def __post_init__(self):
        num_columns = len(self.columns)
        if not num_columns or (len(self.pitches), len(self.written)) != (num_columns, num_columns):
            raise ValueError(
                "`columns`, `pitches` and `written` must have one entry for each column; got "
                f"{num_columns}, {len(self.pitches)} and {len(self.written)}."
            )
        known = [*(pitch for group in self.pitches for pitch in group), *self.dropped]
        wrong = sorted({pitch for pitch in known if not 0 <= pitch < NUM_PITCHES or known.count(pitch) > 1})
        if wrong:
            raise ValueError(f"`pitches` and `dropped` must hold each pitch of 0 to 127 at most once; got {wrong}.")
        for name, group, pitch in zip(self.columns, self.pitches, self.written, strict=True):
            if pitch not in group:
                raise ValueError(f"`written` must name a pitch of its own column; got {pitch} for {name!r} {group}.")

    @property
    def num_columns(self) -> int:
        return len(self.columns)

    def find_column(self, name: str) -> int:
        """Position of the column of that name."""
        if name not in self.columns:
            raise ValueError(f"`name` must be one of {', '.join(self.columns)}; got {name!r}.")
        return self.columns.index(name)

    def build_table(
        self, pedal_hat: str = "drop", pitch_map: Mapping[int | str, str | None] | None = None
    ) -> np.ndarray:
        """Column of each of the 128 pitches; `DROPPED_PITCH` or `UNKNOWN_PITCH` for those without one.

        With `pedal_hat="hihat"` the pedal hi-hat (44), where the map drops it, counts as the closed one (42).
        `pitch_map` has the columns of further pitches, or other ones of those of the map, such as `{60: "tom"}`;
        `None` drops a pitch.
        """
        table = np.full(NUM_PITCHES, UNKNOWN_PITCH, dtype=np.int64)
        table[list(self.dropped)] = DROPPED_PITCH
        for column, group in enumerate(self.pitches):
            table[list(group)] = column
        if pedal_hat == "hihat" and PEDAL_HAT_PITCH in self.dropped:
            table[PEDAL_HAT_PITCH] = table[42]
        for pitch, name in (pitch_map or {}).items():
            if str(pitch) not in map(str, range(NUM_PITCHES)) or name not in (None, *self.columns):
                raise ValueError(
                    f"`pitch_map` must map pitches from 0 to 127 to {', '.join(self.columns)}, or to None; got "
                    f"{pitch!r}: {name!r}."
                )
            table[int(pitch)] = DROPPED_PITCH if name is None else self.find_column(name)
        return table


GROOVE_MAP = DrumMap(
    columns=("crash", "ride", "snare", "kick", "hihat", "tom"),
    pitches=((49, 55, 57, 52), (51, 59, 53), (38, 40, 37), (36,), (42, 22, 46, 26), (50, 48, 47, 45, 43, 58)),
    written=(49, 51, 38, 36, 42, 50),
    dropped=(PEDAL_HAT_PITCH, 54, 56, 39),
)
"""The method's map, for the Roland TD-11 of the Groove dataset."""

DRUM_MAPS = {
    "six": DrumMap(
        columns=GROOVE_MAP.columns,
        pitches=(
            (49, 55, 57, 52),
            (51, 59, 53, 56),
            (38, 40, 37, 39),
            (36, 35),
            (42, 22, 46, 26, 54),
            (50, 48, 47, 45, 43, 58, 41),
        ),
        written=GROOVE_MAP.written,
        dropped=(PEDAL_HAT_PITCH,),
    ),
    "nine": DrumMap(
        columns=("kick", "snare", "closed_hihat", "open_hihat", "low_tom", "mid_tom", "high_tom", "crash", "ride"),
        pitches=(
            (36, 35),
            (38, 40, 37, 39),
            (42, 22, PEDAL_HAT_PITCH, 54),
            (46, 26),
            (43, 58, 41),
            (47, 45),
            (50, 48),
            (49, 55, 57, 52),
            (51, 59, 53, 56),
        ),
        written=(36, 38, 42, 46, 43, 47, 50, 49, 51),
    ),
}
"""Maps for the pitches 35 to 59 of General MIDI, and 22 and 26 of the Groove dataset: a clap counts as a snare, a
tambourine as a hi-hat, a cowbell as a ride. The percussion of 60 to 81 is unknown. `"six"` has the method's columns,
`"nine"` the usual reduction."""


def get_drum_map(columns: "str | DrumMap") -> DrumMap:
    """The map of that name, or the one given."""
    if isinstance(columns, DrumMap):
        return columns
    if columns not in DRUM_MAPS:
        raise ValueError(f"`columns` must be one of {', '.join(DRUM_MAPS)} or a `DrumMap`; got {columns!r}.")
    return DRUM_MAPS[columns]


__all__ = ["DROPPED_PITCH", "DRUM_MAPS", "GROOVE_MAP", "UNKNOWN_PITCH", "DrumMap", "get_drum_map"]
