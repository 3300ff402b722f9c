"""Text that keeps a drum performance whole: every tick, pitch, velocity, tempo and meter.

The form, line by line:

    drums 1                      the word, and the version of the form
    ticks_per_quarter 480
    time_signature 0 4 4         tick, numerator, denominator; one line for each, or none
    tempo 0 500000               tick, microseconds for each quarter note; one line for each, or none
    0 36 101                     ticks since the note before, pitch, velocity; one line for each note, in order
    118 42 64
"""

import numpy as np

from .performance import MAX_TICK, DrumPerformance


HEADER = "drums 1"
NUM_FIELDS = {"ticks_per_quarter": 1, "time_signature": 3, "tempo": 2}
FIELDS_OF_NOTE = 3
MAX_DIGITS = len(str(MAX_TICK))


def format_expressive_text(performance: DrumPerformance) -> str:
    """The text of a performance, from which [`parse_expressive_text`] gives it back unchanged.

    Args:
        performance (`DrumPerformance`): The notes.

    Returns:
        `str`: Lines in the form that stands at the top of this file.
    """
    lines = [HEADER, f"ticks_per_quarter {performance.ticks_per_quarter}"]
    lines += [f"time_signature {tick} {over} {under}" for tick, over, under in performance.time_signatures]
    lines += [f"tempo {tick} {microseconds}" for tick, microseconds in performance.tempos]
    deltas = np.diff(performance.ticks, prepend=0)
    columns = (deltas.tolist(), performance.pitches.tolist(), performance.velocities.tolist())
    lines += [f"{delta} {pitch} {velocity}" for delta, pitch, velocity in zip(*columns, strict=True)]
    return "\n".join(lines) + "\n"


def parse_expressive_text(text: str) -> DrumPerformance:
    """The performance that a text of [`format_expressive_text`] holds.

    Args:
        text (`str`): Lines in the form that stands at the top of this file.

    Returns:
        `DrumPerformance`: Equal to the one that was written.

    Raises:
        ValueError: If a line is not of that form, or a value lies outside its range; the message names the line.
    """
    lines = text.splitlines()
    if not lines or lines[0] != HEADER:
        raise ValueError(f"`text` must begin with the line {HEADER!r}; got {text[:40]!r}.")
    settings: dict[str, list[tuple[int, ...]]] = {name: [] for name in NUM_FIELDS}
    notes: list[tuple[int, ...]] = []
    for number, line in enumerate(lines[1:], start=2):
        words = line.split(" ")
        if words[0] in NUM_FIELDS:
            settings[words[0]].append(_parse_integers(words[1:], NUM_FIELDS[words[0]], number, line))
        else:
            notes.append(_parse_integers(words, FIELDS_OF_NOTE, number, line))
    if len(settings["ticks_per_quarter"]) != 1:
        raise ValueError(
            f"`text` must state `ticks_per_quarter` once; got {len(settings['ticks_per_quarter'])} times."
        )
    deltas, pitches, velocities = np.array(notes, dtype=np.int64).reshape(-1, FIELDS_OF_NOTE).T
    return DrumPerformance(
        ticks=deltas.cumsum(),
        pitches=pitches,
        velocities=velocities,
        ticks_per_quarter=settings["ticks_per_quarter"][0][0],
        time_signatures=[
            (tick, numerator, denominator) for tick, numerator, denominator in settings["time_signature"]
        ],
        tempos=[(tick, microseconds) for tick, microseconds in settings["tempo"]],
    )


def _parse_integers(words: list[str], num_fields: int, number: int, line: str) -> tuple[int, ...]:
    are_numbers = all(word.isascii() and word.isdigit() and len(word) <= MAX_DIGITS for word in words)
    if len(words) != num_fields or not are_numbers:
        raise ValueError(f"`text` must have {num_fields} whole numbers in line {number}; got {line[:40]!r}.")
    return tuple(map(int, words))


__all__ = ["format_expressive_text", "parse_expressive_text"]
