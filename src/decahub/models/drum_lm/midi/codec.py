"""Drum performances to rolls, rolls to text, and back: six characters a line, a line for each sixteenth note."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from transformers.utils import logging

from .drum_map import UNKNOWN_PITCH, DrumMap, get_drum_map
from .expressive import format_expressive_text, parse_expressive_text
from .performance import DrumPerformance
from .writer import write_midi


logger = logging.get_logger(__name__)

HIT, REST = "o", "-"
STEPS_PER_QUARTER = 4
MAX_MEAN_OFFSET = 0.2  # of a step; triplets and shuffles lie above
OPTIONS = {
    "quantize": ("exact", "official"),
    "unknown_pitch": ("ignore", "error"),
    "pedal_hat": ("drop", "hihat"),
    "time_signature": ("error", "last"),
}


class MeterError(ValueError):
    """A performance whose meter the codec cannot write: a reason to leave the file out."""


@dataclass(eq=False)
class DrumRoll:
    """Hits on a grid of sixteenth notes.

    Args:
        hits (`np.ndarray` of shape `(steps, columns)`, bool): Whether a group of drums is struck in a step.
        steps_per_bar (`int`, defaults to 16): Steps of a bar.
        time_signature (`tuple[int, int]`, *optional*): Numerator and denominator; by default what makes a bar of so
            many steps, in quarter notes if they are whole, else in sixteenth notes.
        tempo (`float`, defaults to 120.0): Quarter notes a minute.

    Raises:
        ValueError: If `hits` is not two-dimensional, or `steps_per_bar` not positive.
    """

    hits: np.ndarray
    steps_per_bar: int = 16
    time_signature: tuple[int, int] | None = None
    tempo: float = 120.0

    def __post_init__(self):
        self.hits = np.asarray(self.hits)
        if self.hits.ndim != 2:
            raise ValueError(f"`hits` must be of shape (steps, columns); got {self.hits.shape}.")
        self.hits = self.hits.astype(bool)
        if self.steps_per_bar < 1:
            raise ValueError(f"`steps_per_bar` must be positive; got {self.steps_per_bar!r}.")
        if self.time_signature is None:
            self.time_signature = find_time_signature(self.steps_per_bar)

    def __len__(self) -> int:
        return len(self.hits)

    @property
    def num_bars(self) -> int:
        """Bars, the last of which may be shorter."""
        return -(-len(self.hits) // self.steps_per_bar)


def find_time_signature(steps_per_bar: int) -> tuple[int, int]:
    """A meter whose bar has so many sixteenth notes."""
    quarters, rest = divmod(steps_per_bar, STEPS_PER_QUARTER)
    return (steps_per_bar, STEPS_PER_QUARTER * 4) if rest else (quarters, 4)


@dataclass(frozen=True)
class DrumCodec:
    r"""Turns drum performances into rolls and text, and back.

    Args:
        columns (`str` or [`DrumMap`], defaults to `"six"`): Groups of drums: `"six"`, `"nine"` or a map of your own.
        steps_per_bar (`int`, *optional*): Sixteenth notes of a bar, whatever the meter; by default four for each
            quarter note, and meters that do not count quarter notes are refused.
        bars (`int`, defaults to 16): Bars of a roll; what lies beyond is left out.
        quantize (`str`, defaults to `"exact"`): `"exact"` takes the nearest step, the later one of two. `"official"`
            divides the quarter note in whole ticks as the authors' code does: with 220 ticks and the like, some ticks
            then belong to no step, and reading ends at a note on such a tick.
        unknown_pitch (`str`, defaults to `"ignore"`): `"ignore"` leaves out pitches that the map does not know, with
            a warning; `"error"` refuses them.
        pedal_hat (`str`, defaults to `"drop"`): `"hihat"` counts the pedal hi-hat (44) as a hit of the hi-hat. The map
            `"nine"` always does.
        time_signature (`str`, defaults to `"error"`): `"error"` refuses a change of meter and takes 4/4 where none is
            stated. `"last"` takes the last meter for the whole, and refuses a file without one, as the authors do.
        allow_empty (`bool`, defaults to `False`): Whether a performance without a hit gives a silent roll.

    Raises:
        ValueError: If an option is not among those allowed.

    Example:
    ```python
    >>> from decahub.models.drum_lm.midi.codec import DrumCodec
    >>> from decahub.models.drum_lm.midi.reader import read_midi
    >>> kick_and_snare = read_midi(([(0, 36, 90), (480, 38, 70)], 480))
    >>> DrumCodec(bars=1).to_text(DrumCodec(bars=1).encode(kick_and_snare))[:35]
    '---o--\n------\n------\n------\n--o---\n'

    ```
    """

    columns: str | DrumMap = "six"
    steps_per_bar: int | None = None
    bars: int = 16
    quantize: Literal["exact", "official"] = "exact"
    unknown_pitch: Literal["ignore", "error"] = "ignore"
    pedal_hat: Literal["drop", "hihat"] = "drop"
    time_signature: Literal["error", "last"] = "error"
    allow_empty: bool = False

    def __post_init__(self):
        get_drum_map(self.columns)
        for name, allowed in OPTIONS.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"`{name}` must be one of {', '.join(allowed)}; got {getattr(self, name)!r}.")
        for name in ("bars", "steps_per_bar"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, (int, np.integer)) or value < 1):
                raise ValueError(f"`{name}` must be a whole number, at least 1; got {value!r}.")

    @classmethod
    def official(cls) -> "DrumCodec":
        """The codec that gives the same text as the authors' code for every file.

        The authors read all of track 0, whatever its channels: `read_midi(file, track=0)` where they differ.
        """
        return cls(quantize="official", unknown_pitch="error", time_signature="last", allow_empty=True)

    @property
    def drum_map(self) -> DrumMap:
        return get_drum_map(self.columns)

    # --- Performance to roll

    def encode(self, performance: DrumPerformance) -> DrumRoll:
        """The roll of a performance: a hit wherever a drum of a column is struck, however softly.

        Args:
            performance ([`DrumPerformance`]): Notes as `read_midi` gives them.

        Returns:
            [`DrumRoll`]: `bars * steps_per_bar` steps, silent after the last note.

        Raises:
            MeterError: If the meter changes, or does not count quarter notes.
            ValueError: If there is no hit and `allow_empty` is off, or a pitch is unknown and must not be.
        """
        time_signature, steps_per_bar = self._find_meter(performance)
        num_steps = self.bars * steps_per_bar
        steps = self._quantize(performance)
        within = steps < num_steps  # a prefix: steps are in order
        steps, pitches = steps[within], performance.pitches[: len(steps)][within]
        columns = self.drum_map.build_table(self.pedal_hat)[pitches]
        self._check_pitches(pitches[columns == UNKNOWN_PITCH])
        hits = np.zeros((num_steps, self.drum_map.num_columns), dtype=bool)
        hits[steps[columns >= 0], columns[columns >= 0]] = True
        if not self.allow_empty and not hits.any():
            raise ValueError(
                f"`performance` must hit a drum of the map within {self.bars} bars; got {len(performance)} notes and "
                "no hit. Pass `allow_empty=True` for silence."
            )
        return DrumRoll(hits, steps_per_bar, time_signature, performance.tempo)

    def _find_meter(self, performance: DrumPerformance) -> tuple[tuple[int, int], int]:
        """Time signature and steps of a bar."""
        changes = [(tick, (numerator, denominator)) for tick, numerator, denominator in performance.time_signatures]
        if self.time_signature == "last":
            if not changes:
                raise MeterError('`performance` must state a time signature with `time_signature="last"`; got none.')
            meter = changes[-1][1]
        else:
            meter = changes[0][1] if changes else (4, 4)
        steps_per_bar = self.steps_per_bar
        if steps_per_bar is None:
            if meter[1] != 4:
                raise MeterError(
                    f"`time_signature` must count quarter notes; got {meter[0]}/{meter[1]}. Pass `steps_per_bar`."
                )
            steps_per_bar = STEPS_PER_QUARTER * meter[0]
        if self.time_signature == "error":
            self._refuse_changes(performance, changes, meter, steps_per_bar)
        return meter, steps_per_bar

    def _refuse_changes(
        self, performance: DrumPerformance, changes: Any, meter: tuple[int, int], steps_per_bar: int
    ) -> None:
        ticks_per_bar = performance.ticks_per_quarter * steps_per_bar / STEPS_PER_QUARTER
        for tick, (numerator, denominator) in changes:
            if (numerator, denominator) != meter and tick < self.bars * ticks_per_bar:
                raise MeterError(
                    f"`time_signature` must stay the same; it changes from {meter[0]}/{meter[1]} to "
                    f'{numerator}/{denominator} in bar {int(tick // ticks_per_bar) + 1}. Pass `time_signature="last"`.'
                )

    def _quantize(self, performance: DrumPerformance) -> np.ndarray:
        """Step of each note; of fewer notes where reading ends early."""
        ticks, ticks_per_quarter = performance.ticks, performance.ticks_per_quarter
        if self.quantize == "official":
            return self._quantize_officially(ticks, ticks_per_quarter)
        doubled = 8 * ticks + ticks_per_quarter
        steps = doubled // (2 * ticks_per_quarter)
        if len(steps):
            offset = np.abs(doubled - ticks_per_quarter - steps * 2 * ticks_per_quarter).mean() / (
                2 * ticks_per_quarter
            )
            if offset > MAX_MEAN_OFFSET:
                logger.warning_once(
                    f"The notes lie more than {MAX_MEAN_OFFSET:.0%} of a step off the grid of sixteenth notes on "
                    "average: triplets and shuffles are moved to it."
                )
        return steps

    def _quantize_officially(self, ticks: np.ndarray, ticks_per_quarter: int) -> np.ndarray:
        ticks_per_step, half = ticks_per_quarter // 4, ticks_per_quarter // 8
        if not half:
            raise ValueError(
                f'`ticks_per_quarter` must be at least 8 with `quantize="official"`; got {ticks_per_quarter}.'
            )
        steps, remainders = np.divmod(ticks + half, ticks_per_step)
        outside = np.flatnonzero(remainders >= 2 * half)
        return steps[: outside[0]] if len(outside) else steps

    def _check_pitches(self, unknown: np.ndarray) -> None:
        if not len(unknown):
            return
        pitches = np.unique(unknown).tolist()
        if self.unknown_pitch == "error":
            raise ValueError(
                f'`performance` must have pitches of the map; got {pitches}. Pass `unknown_pitch="ignore"`.'
            )
        logger.warning_once(f"Pitches that the drum map does not know are left out: {pitches}.")

    # --- Roll to text and MIDI

    def to_text(self, roll: DrumRoll | np.ndarray) -> str:
        """One line for each step, with `o` for a hit and `-` for none.

        Args:
            roll ([`DrumRoll`] or `np.ndarray` of shape `(steps, columns)`): Hits.

        Returns:
            `str`: The lines, each with its newline.
        """
        hits = self._get_hits(roll)
        characters = np.full((len(hits), hits.shape[1] + 1), ord("\n"), dtype=np.uint8)
        characters[:, :-1] = np.where(hits, ord(HIT), ord(REST))
        return characters.tobytes().decode("ascii")

    def parse_text(self, text: str, strict: bool = True, *, separator: str = "SEP", end: str = "END") -> np.ndarray:
        r"""Hits of a text; lines that are a separator or an end mark are left out.

        Lines may end with `\r\n`, and blank lines may follow the last.

        Args:
            text (`str`): Lines of `o` and `-`, one character for each column.
            strict (`bool`, defaults to `True`): `False` also takes `O`, `x` and `X` for a hit, and leaves out
                blank lines and blanks at the ends of lines.
            separator (`str`, defaults to `"SEP"`): Line after a bar.
            end (`str`, defaults to `"END"`): Last line.

        Returns:
            `np.ndarray` of shape `(steps, columns)`, bool.

        Raises:
            ValueError: If a line is of another width or holds another character; the message names line and column.
        """
        rows = []
        width = self.drum_map.num_columns
        for number, line in enumerate(_split_lines(text), start=1):
            if not strict:
                line = line.strip().translate(LENIENT_CHARACTERS) if line.strip() not in (separator, end) else ""
                if not line:
                    continue
            if line in (separator, end):
                continue
            if len(line) != width:
                raise ValueError(
                    f"`text` must have {width} characters in each line; line {number} has {len(line)}: {line[:40]!r}."
                )
            if line.strip(HIT + REST):
                column = next(index for index, character in enumerate(line) if character not in HIT + REST)
                raise ValueError(
                    f"`text` must hold only {HIT!r} and {REST!r}; got {line[column]!r} in line {number}, column "
                    f"{column + 1}."
                )
            rows.append(line)
        characters = np.frombuffer("".join(rows).encode("ascii"), dtype=np.uint8)
        return (characters == ord(HIT)).reshape(-1, width)

    def to_midi(self, roll: DrumRoll | np.ndarray, mode: str = "standard") -> bytes:
        """A MIDI file that plays a roll, at its tempo and in its meter; see `write_midi` for the modes.

        Args:
            roll ([`DrumRoll`] or `np.ndarray` of shape `(steps, columns)`): Hits.
            mode (`str`, defaults to `"standard"`): `"standard"`, or `"official"` for the bytes of the authors' code.

        Returns:
            `bytes`: The file.
        """
        roll = roll if isinstance(roll, DrumRoll) else DrumRoll(roll)
        return write_midi(roll.hits, self.drum_map, mode=mode, tempo=roll.tempo, time_signature=roll.time_signature)

    def to_expressive_text(self, performance: DrumPerformance) -> str:
        """Text that keeps every tick, pitch, velocity, tempo and meter; see `format_expressive_text`."""
        return format_expressive_text(performance)

    def parse_expressive_text(self, text: str) -> DrumPerformance:
        """The performance of such a text; see `parse_expressive_text`."""
        return parse_expressive_text(text)

    def _get_hits(self, roll: DrumRoll | np.ndarray) -> np.ndarray:
        hits = roll.hits if isinstance(roll, DrumRoll) else DrumRoll(roll).hits
        if hits.shape[1] != self.drum_map.num_columns:
            raise ValueError(f"`roll` must have {self.drum_map.num_columns} columns; got shape {hits.shape}.")
        return hits


LENIENT_CHARACTERS = str.maketrans({"O": HIT, "x": HIT, "X": HIT})


def _split_lines(text: str) -> list[str]:
    """Lines up to the last that is not blank; unlike for `str.splitlines`, only a newline ends one."""
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    while lines and not lines[-1].strip():
        lines.pop()
    return lines


__all__ = ["DrumCodec", "DrumRoll", "MeterError"]
