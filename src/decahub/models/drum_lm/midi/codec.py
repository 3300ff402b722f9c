"""Drum performances to rolls, rolls to text, and back: six characters a line, a line for each sixteenth note."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from transformers.utils import logging

from .drum_map import GROOVE_MAP, UNKNOWN_PITCH, DrumMap, get_drum_map
from .meter import MeterError, Section, check_time_signature, count_steps, find_time_signature, list_sections
from .performance import DrumPerformance
from .writer import write_midi


logger = logging.get_logger(__name__)

HIT, REST = "o", "-"
MOST = 4096
MAX_VELOCITY = 127
MAX_MEAN_OFFSET = 0.2  # of a step; triplets and shuffles lie above
OPTIONS = {
    "quantize": ("exact", "official"),
    "unknown_pitch": ("ignore", "error"),
    "pedal_hat": ("drop", "hihat"),
    "time_signature": ("error", "last"),
}


@dataclass(eq=False)
class DrumRoll:
    """Hits on a grid of sixteenth notes.

    Args:
        hits (`np.ndarray` of shape `(steps, columns)`, bool): Whether a group of drums is struck in a step.
        steps_per_bar (`int`, defaults to 16): Steps of a bar.
        time_signature (`tuple[int, int]`, *optional*): Numerator and denominator, whose bar has `steps_per_bar` steps;
            by default in quarter notes if they are whole, else in sixteenth notes.
        tempo (`float`, defaults to 120.0): Quarter notes a minute.
        first_bar (`int`, defaults to 0): Where it begins in what it was read from, in bars counted from 0.
        source_bars (`int`, *optional*): Bars of what it was read from, up to the last note.
        dropped_pitches (`dict[int, int]`): Pitches of it that have no column, and how often each was struck.
        velocities (`np.ndarray` of shape `(steps, columns)`, *optional*): Strength of each hit, 1 to 127.
        offsets (`np.ndarray` of shape `(steps, columns)`, *optional*): How much later than its step each hit is
            played, in sixteenth notes; negative if earlier, and from -0.5 to 0.5. Goes with `velocities`.

    Raises:
        ValueError: If `hits` is not two-dimensional or holds anything but 0 and 1, or `steps_per_bar` is not positive
            or not what makes a bar of `time_signature`, or `velocities` or `offsets` do not fit.
    """

    hits: np.ndarray
    steps_per_bar: int = 16
    time_signature: tuple[int, int] | None = None
    tempo: float = 120.0
    first_bar: int = 0
    source_bars: int | None = None
    dropped_pitches: dict[int, int] = field(default_factory=dict)
    velocities: np.ndarray | None = None
    offsets: np.ndarray | None = None

    def __post_init__(self):
        hits = np.asarray(self.hits)
        if hits.ndim != 2:
            raise ValueError(f"`hits` must be of shape (steps, columns); got {hits.shape}.")
        self.hits = hits.astype(bool)
        wrong = hits[hits != self.hits]
        if len(wrong):
            raise ValueError(
                f"`hits` must be 1 for a hit and 0 for none; got {wrong[0].item()!r}. For velocities or "
                "probabilities, choose the least that is a hit, such as `hits > 0.5`."
            )
        if self.steps_per_bar < 1:
            raise ValueError(f"`steps_per_bar` must be positive; got {self.steps_per_bar!r}.")
        if self.time_signature is None:
            self.time_signature = find_time_signature(self.steps_per_bar)
        check_time_signature(self.time_signature)
        check_steps(self.steps_per_bar, self.time_signature)
        if self.is_expressive:
            self._check_expression()

    def _check_expression(self) -> None:
        if self.velocities is None or self.offsets is None:
            raise ValueError("`velocities` and `offsets` must be given together; got one of them.")
        for name, low, high in (("velocities", 1, MAX_VELOCITY), ("offsets", -0.5, 0.5)):
            values = np.where(self.hits, getattr(self, name), 0)  # refuses another shape
            wrong = values[self.hits & ~((values >= low) & (values <= high))]
            if len(wrong):
                raise ValueError(f"`{name}` must be from {low} to {high} at each hit; got {wrong[0].item()!r}.")
            setattr(self, name, values)

    @property
    def is_expressive(self) -> bool:
        """Whether the strength and the timing of its hits are known."""
        return self.velocities is not None or self.offsets is not None

    def change_steps(self, change: Callable[[np.ndarray], np.ndarray], **fields: Any) -> "DrumRoll":
        """A roll whose steps went through `change`, which takes and returns an array `(steps, columns)`.

        `fields` are others that change with them.
        """
        names = ("hits", "velocities", "offsets") if self.is_expressive else ("hits",)
        return replace(self, **{name: change(getattr(self, name)) for name in names}, **fields)

    def without_expression(self) -> "DrumRoll":
        """The same hits, all alike and on their steps."""
        return replace(self, velocities=None, offsets=None)

    def __len__(self) -> int:
        return len(self.hits)

    @property
    def num_bars(self) -> int:
        """Bars, the last of which may be shorter."""
        return -(-len(self.hits) // self.steps_per_bar)


def check_steps(steps_per_bar: int, meter: tuple[int, int]) -> None:
    """Refuses steps of a bar that are not those of its meter."""
    if steps_per_bar != count_steps(meter):
        wanted = "/".join(map(str, find_time_signature(steps_per_bar)))
        raise MeterError(
            f"`steps_per_bar` must be {count_steps(meter)}, the sixteenth notes of a bar of {meter[0]}/{meter[1]}; "
            f"got {steps_per_bar}. Leave it out, or give the meter of a groove that states none by `time_signature`, "
            f"such as {wanted}."
        )


@dataclass(frozen=True)
class DrumCodec:
    r"""Turns drum performances into rolls and text, and back.

    Args:
        columns (`str` or [`DrumMap`], defaults to `"six"`): Groups of drums: `"six"`, `"nine"` or a map of your own.
        steps_per_bar (`int`, *optional*): Sixteenth notes of a bar; by default those of the meter. Others are refused.
        bars (`int`, defaults to 16): Bars of a roll; what lies beyond is left out.
        quantize (`str`, defaults to `"exact"`): `"exact"` takes the nearest step, the later one of two. `"official"`
            divides the quarter note in whole ticks as the authors' code does: with 220 ticks and the like, some ticks
            then belong to no step, and reading ends at a note on such a tick.
        unknown_pitch (`str`, defaults to `"ignore"`): `"ignore"` leaves out pitches that the map does not know, with
            a warning, and the roll lists them; `"error"` refuses them.
        pedal_hat (`str`, defaults to `"drop"`): `"hihat"` counts the pedal hi-hat (44) as a hit of the hi-hat. The map
            `"nine"` always does.
        pitch_map (`Mapping[int, str]`, *optional*): Columns of further pitches, such as `{60: "tom"}`; see
            [`DrumMap.build_table`].
        time_signature (`str` or `tuple[int, int]`, defaults to `"error"`): `"error"` takes the meter in force where
            the roll begins, 4/4 where none is stated, and refuses a change within the bars that are used. A meter does
            the same and stands for one that is not stated. `"last"`, the authors' rule, takes the last meter for the
            whole, and refuses a file that states none or whose meter does not count quarter notes.
        allow_empty (`bool`, defaults to `False`): Whether a performance without a hit gives a silent roll.
        expressive (`bool`, defaults to `False`): Whether rolls keep how strong and how early or late each hit was
            played. Of several notes in a cell the strongest counts.

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
    pitch_map: Mapping[int | str, str | None] | None = None
    time_signature: Literal["error", "last"] | tuple[int, int] = "error"
    allow_empty: bool = False
    expressive: bool = False

    def __post_init__(self):
        self.drum_map.build_table(pitch_map=self.pitch_map)
        if not isinstance(self.time_signature, str):
            check_time_signature(self.time_signature)
        for name, allowed in OPTIONS.items():
            if isinstance(getattr(self, name), str) and getattr(self, name) not in allowed:
                raise ValueError(f"`{name}` must be one of {', '.join(allowed)}; got {getattr(self, name)!r}.")
        for name in ("bars", "steps_per_bar"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, (int, np.integer)) or value < 1):
                raise ValueError(f"`{name}` must be a whole number, at least 1; got {value!r}.")
            if value is not None and value > MOST:
                raise ValueError(f"`{name}` must be at most {MOST}; got {value!r}.")

    @classmethod
    def official(cls) -> "DrumCodec":
        """The codec that gives the same text as the authors' code for every file.

        The authors read all of track 0, whatever its channels: `read_midi(file, track=0)` where they differ.
        """
        return cls(GROOVE_MAP, quantize="official", unknown_pitch="error", time_signature="last", allow_empty=True)

    @property
    def drum_map(self) -> DrumMap:
        return get_drum_map(self.columns)

    # --- Performance to roll

    def encode(self, performance: DrumPerformance, start_bar: int | None = None) -> DrumRoll:
        """The roll of a performance: a hit wherever a drum of a column is struck, however softly.

        It has `bars * steps_per_bar` steps, silent after the last note, and begins with `start_bar`, counted from 0,
        or with the first bar of the meter in force at the first hit. Only what is used is checked: a meter or a pitch
        beyond the bars of the roll is no error.

        Raises:
            MeterError: If the meter changes, or its bar is not made of whole sixteenth notes.
            ValueError: If there is no hit and `allow_empty` is off, or a pitch is unknown and must not be.
        """
        columns = self._build_table()[performance.pitches]
        sections = self._list_sections(performance)
        bars = self._find_bars(performance, sections)
        struck = np.flatnonzero(columns >= 0)
        if start_bar is None:
            first = int(bars[struck[0]] if len(struck) else bars[0] if len(bars) else 0)
            section = [section for section in sections if section.first_bar <= first][-1]
            start_bar = section.first_bar
        else:
            section = [section for section in sections if section.first_bar <= start_bar][-1]
        steps_per_bar = self._count_steps(section.meter, performance)
        origin = 4 * section.start + (start_bar - section.first_bar) * steps_per_bar * performance.ticks_per_quarter
        steps = self._quantize(performance.ticks, origin, performance.ticks_per_quarter)
        used = np.flatnonzero((steps >= 0) & (steps < self.bars * steps_per_bar))
        steps, pitches, columns = steps[used], performance.pitches[used], columns[used]
        self._refuse_changes(sections, section, int(bars[used[-1]]) if len(used) else 0)
        self._check_pitches(pitches[columns == UNKNOWN_PITCH])
        self._warn_of_offsets(performance.ticks[used], steps, origin, performance.ticks_per_quarter)
        hits = np.zeros((self.bars * steps_per_bar, self.drum_map.num_columns), dtype=bool)
        hits[steps[columns >= 0], columns[columns >= 0]] = True
        if not self.allow_empty and not hits.any():
            raise ValueError(self._explain_silence(performance, bars[struck], start_bar))
        dropped, counts = np.unique(pitches[columns < 0], return_counts=True)
        expression = {}
        if self.expressive:
            offsets = (8 * performance.ticks[used] - 2 * origin) / (2 * performance.ticks_per_quarter) - steps
            expression = self._place(hits.shape, steps, columns, performance.velocities[used], offsets)
        return DrumRoll(
            hits,
            steps_per_bar,
            section.meter,
            performance.find_tempo(int(performance.ticks[used[0]])) if len(used) else performance.tempo,
            first_bar=start_bar,
            source_bars=int(bars[-1]) + 1 if len(bars) else 0,
            dropped_pitches=dict(zip(dropped.tolist(), counts.tolist(), strict=True)),
            **expression,
        )

    @staticmethod
    def _place(
        shape: tuple[int, int], steps: np.ndarray, columns: np.ndarray, velocities: np.ndarray, offsets: np.ndarray
    ) -> dict[str, np.ndarray]:
        """The velocities and offsets of notes in their cells."""
        order = np.argsort(velocities, kind="stable")
        order = order[columns[order] >= 0]  # the strongest note of a cell is written last
        cells = steps[order], columns[order]
        strengths, delays = np.zeros(shape, np.int64), np.zeros(shape, np.float32)
        strengths[cells], delays[cells] = velocities[order], offsets[order]
        return {"velocities": strengths, "offsets": delays}

    def find_first_bar(self, performance: DrumPerformance) -> int | None:
        """The first bar of a performance with a hit, counted from 0; `None` without a hit."""
        bars = self._find_bars(performance, self._list_sections(performance))
        struck = self._build_table()[performance.pitches] >= 0
        return int(bars[struck][0]) if struck.any() else None

    def _build_table(self) -> np.ndarray:
        return self.drum_map.build_table(self.pedal_hat, self.pitch_map)

    def _list_sections(self, performance: DrumPerformance) -> list[Section]:
        stated = performance.time_signatures
        if self.time_signature == "last":
            if not stated:
                raise MeterError('`performance` must state a time signature with `time_signature="last"`; got none.')
            stated = [(0, *stated[-1][1:])]
        elif not isinstance(self.time_signature, str) and not stated:
            stated = [(0, *self.time_signature)]
        return list_sections(stated, performance.ticks_per_quarter)

    def _find_bars(self, performance: DrumPerformance, sections: Sequence[Section]) -> np.ndarray:
        """The bar that each note is in."""
        ticks, ticks_per_quarter = performance.ticks, performance.ticks_per_quarter
        bars = sections[0].find_bars(ticks, ticks_per_quarter)
        for section in sections[1:]:
            inside = 8 * (ticks - section.start) + ticks_per_quarter >= 0
            bars[inside] = section.find_bars(ticks[inside], ticks_per_quarter)
        return bars

    def _count_steps(self, meter: tuple[int, int], performance: DrumPerformance) -> int:
        if self.time_signature == "last" and meter[1] != 4:
            raise MeterError(
                f'`performance` must count quarter notes with `time_signature="last"`; got {meter[0]}/{meter[1]}.'
            )
        if not isinstance(self.time_signature, str) and tuple(self.time_signature) != meter:
            own, wanted = ("/".join(map(str, pair)) for pair in (meter, self.time_signature))
            raise MeterError(f"`time_signature` must be that of the groove, {own}; got {wanted}. Leave it out.")
        if self.steps_per_bar is not None:
            check_steps(self.steps_per_bar, meter)
        return count_steps(meter)

    def _refuse_changes(self, sections: Sequence[Section], used: Section, last_bar: int) -> None:
        following = [section for section in sections if section.first_bar > used.first_bar]
        if following and last_bar >= following[0].first_bar:
            change = following[0]
            old, new = ("/".join(map(str, section.meter)) for section in (used, change))
            raise MeterError(
                f"`performance` must have one meter; it changes from {old} to {new} in bar {change.first_bar}, "
                f"counted from 0. Use only bars before it, or begin with it by `start_bar={change.first_bar}`."
            )

    def _check_pitches(self, unknown: np.ndarray) -> None:
        if not len(unknown):
            return
        pitches = np.unique(unknown).tolist()
        if self.unknown_pitch == "error":
            raise ValueError(
                f"`performance` must have pitches of the map; got {pitches}. Name their columns by `pitch_map`. "
                '`unknown_pitch="ignore"` leaves them out.'
            )
        logger.warning(
            f"Left out {len(unknown)} notes whose pitches the drum map does not know: {pitches}. Name their columns "
            "by `pitch_map`."
        )

    def _explain_silence(self, performance: DrumPerformance, hit_bars: np.ndarray, start_bar: int) -> str:
        """Why a roll has no hit, and what to do."""
        end = "Pass `allow_empty=True` for silence."
        if not len(performance):
            return f"`performance` must hold notes; it has none. {end}"
        if not len(hit_bars):
            pitches, counts = np.unique(performance.pitches, return_counts=True)
            most = sorted(zip(counts.tolist(), pitches.tolist(), strict=True), reverse=True)[:8]
            found = ", ".join(f"{pitch} ({count} times)" for count, pitch in most)
            tracks = f" For another track pass `track=`, one of {'; '.join(performance.tracks)}."
            return (
                f"`performance` must have pitches of the map; got {found}. Name their columns by `pitch_map`, such as "
                f"{{{most[0][1]}: {self.drum_map.columns[0]!r}}}.{tracks if len(performance.tracks) > 1 else ''} {end}"
            )
        later = hit_bars[hit_bars >= start_bar]
        first = int(later[0] if len(later) else hit_bars[0])
        more = f"at least {first - start_bar + 1} `bars`, or " if len(later) else ""
        return (
            f"`performance` must have a hit in the {self.bars} bars from bar {start_bar} on, counted from 0; its "
            f"{'next' if len(later) else 'first'} is in bar {first}. Pass {more}`start_bar={first}`. {end}"
        )

    def _quantize(self, ticks: np.ndarray, origin: int, ticks_per_quarter: int) -> np.ndarray:
        """Step of each note, counted from `origin` in quarters of a tick; of fewer notes where reading ends early."""
        if self.quantize == "exact":
            return (8 * ticks - 2 * origin + ticks_per_quarter) // (2 * ticks_per_quarter)
        ticks_per_step, half = ticks_per_quarter // 4, ticks_per_quarter // 8
        if not half:
            raise ValueError(
                f'`ticks_per_quarter` must be at least 8 with `quantize="official"`; got {ticks_per_quarter}.'
            )
        steps, remainders = np.divmod(ticks - origin // 4 + half, ticks_per_step)
        outside = np.flatnonzero(remainders >= 2 * half)
        return steps[: outside[0]] if len(outside) else steps

    def _warn_of_offsets(self, ticks: np.ndarray, steps: np.ndarray, origin: int, ticks_per_quarter: int) -> None:
        if self.quantize == "official" or not len(ticks):
            return
        step = 2 * ticks_per_quarter  # in eighths of a tick
        if np.abs(8 * ticks - 2 * origin - steps * step).mean() > MAX_MEAN_OFFSET * step:
            logger.warning_once(
                f"The notes lie more than {MAX_MEAN_OFFSET:.0%} of a step off the grid of sixteenth notes on "
                "average: triplets and shuffles are moved to it."
            )

    # --- Roll to text and MIDI

    def to_text(self, roll: DrumRoll | np.ndarray) -> str:
        """One line for each step of a roll or an array, with its newline: `o` for a hit and `-` for none."""
        hits = roll.hits if isinstance(roll, DrumRoll) else DrumRoll(roll).hits
        if hits.shape[1] != self.drum_map.num_columns:
            raise ValueError(f"`roll` must have {self.drum_map.num_columns} columns; got shape {hits.shape}.")
        characters = np.full((len(hits), hits.shape[1] + 1), ord("\n"), dtype=np.uint8)
        characters[:, :-1] = np.where(hits, ord(HIT), ord(REST))
        return characters.tobytes().decode("ascii")

    def parse_text(self, text: str, strict: bool = True, *, separator: str = "SEP", end: str = "END") -> np.ndarray:
        r"""Hits of a text, `(steps, columns)`; lines that are a separator or an end mark are left out.

        Lines may end with `\r\n`, and blank lines may follow the last. `strict=False` also takes `O`, `x` and `X` for
        a hit, and leaves out blank lines and blanks at the ends of lines. A `ValueError` names the line and the column
        of what is wrong.
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
        """A MIDI file that plays a roll, at its tempo and in its meter; see `write_midi` for the modes."""
        roll = roll if isinstance(roll, DrumRoll) else DrumRoll(roll)
        return write_midi(
            roll.hits,
            self.drum_map,
            mode=mode,
            tempo=roll.tempo,
            time_signature=roll.time_signature,
            velocities=roll.velocities,
            offsets=roll.offsets,
        )


LENIENT_CHARACTERS = str.maketrans({"O": HIT, "x": HIT, "X": HIT})


def _split_lines(text: str) -> list[str]:
    """Lines up to the last that is not blank; unlike for `str.splitlines`, only a newline ends one."""
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    while lines and not lines[-1].strip():
        lines.pop()
    return lines


__all__ = ["DrumCodec", "DrumRoll", "check_steps"]
