"""What each drum text adds to the scores of a set of texts: sums, from its bars as arrays of hits."""

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np

from .structure import compute_stability, divide_exactly, split_two_means, take_nearer


MIN_FILL_GAP = 4  # cells by which fills must differ more than steady bars do
Sums = dict[str, tuple[float, float]]


def _split_lines(text: str) -> list[str]:
    """Lines with their ends; unlike for `str.splitlines`, only a newline is one."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def drop_marks(text: str, marks: Iterable[str]) -> str:
    """The text without the lines that are a separator or an end mark."""
    if not any(mark in text for mark in marks):
        return text
    return "".join(line for line in _split_lines(text) if line.rstrip("\n") not in marks)


def check_text(text: str, marks: Sequence[str], num_columns: int, bar_lines: int) -> str:
    """The text with plain line ends. One that is well formed by another meter or another number of columns is refused.

    Broken lines and bars are measured as they are; what is the same all through is no accident.
    """
    text = text.replace("\r\n", "\n")
    separator = marks[0]
    lines = text.removesuffix("\n").split("\n")
    widths = {len(line) for line in lines if line not in marks and not line.strip("-o")}
    if len(widths) == 1 and widths != {num_columns} and 0 not in widths:
        raise ValueError(
            f"`columns` must name each character of a line; got {num_columns} names, and lines of {widths.pop()}."
        )
    places = [number for number, line in enumerate(lines) if line == separator]
    sizes = {second - first - 1 for first, second in pairwise([-1, *places])} - {0}
    if len(sizes) == 1 and sizes != {bar_lines}:
        raise ValueError(
            f"`bar_lines` must be the lines between two separators; got {bar_lines}, and bars of {sizes.pop()}."
        )
    return text


def drop_silence(text: str, bar_lines: int, *, at_start: bool, at_end: bool) -> str:
    """The text without the silent bars at its beginning or its end; an incomplete bar at the beginning stays."""
    lines = _split_lines(text)
    played = [number for number, line in enumerate(lines) if "o" in line]
    first = played[0] if played else len(lines)
    start = first // bar_lines * bar_lines if at_start else 0
    stop = -(-(played[-1] + 1 if played else 0) // bar_lines) * bar_lines if at_end else len(lines)
    return "".join(lines[start:stop])


def parse_bars(text: str, num_columns: int, bar_lines: int, max_bars: int | None) -> np.ndarray:
    """Hits of the bars of a text up to the last one with a hit, `(num_bars, bar_lines, num_columns)`.

    What is no `o` is no hit, and a line of another width is cut or filled, so that broken texts can be measured, too.
    """
    lines = text.removesuffix("\n").split("\n") if text else []
    lines = lines[: None if max_bars is None else max_bars * bar_lines]
    lines += [""] * (-len(lines) % bar_lines)
    cells = "".join(line[:num_columns].ljust(num_columns) for line in lines).encode("ascii", "replace")
    bars = (np.frombuffer(cells, dtype=np.uint8) == ord("o")).reshape(-1, bar_lines, num_columns)
    played = np.flatnonzero(bars.any((1, 2)))
    return bars[: played[-1] + 1 if len(played) else 0]


def pack_bars(bars: np.ndarray) -> list[bytes]:
    """A key for each bar, equal for equal bars."""
    return [bar.tobytes() for bar in bars]


def sum_paper(text: str, bar_lines: int, max_bars: int | None, cluster: str) -> Sums:
    """Sums of the paper's scores: distances in characters."""
    stabilities = compute_stability(text, bar_lines, max_bars)
    gap, spread = split_two_means(stabilities, cluster)
    return {
        "stability": (sum(stabilities), len(stabilities)),
        "centre_gap": (0, 0) if np.isnan(gap) else (gap, 1),
        "centre_spread": (0, 0) if np.isnan(spread) else (spread, 1),
    }


def sum_validity(text: str, num_columns: int, num_lines: int) -> Sums:
    """Sums of the shares of well-formed lines and texts, and of texts with the wanted number of lines."""
    lines = text.removesuffix("\n").split("\n") if text else []
    num_valid = sum(len(line) == num_columns and not line.strip("-o") for line in lines)
    return {
        "valid_line_rate": (num_valid, len(lines)),
        "valid_text_rate": (bool(lines) and num_valid == len(lines), 1),
        "exact_length_rate": (len(lines) == num_lines, 1),
    }


def sum_steadiness(bars: np.ndarray) -> Sums:
    """Sums of what compares neighboring bars, all those of a text, cell by cell."""
    differences = [int((first != second).sum()) for first, second in pairwise(bars)]
    stabilities = np.array(take_nearer(differences), dtype=np.float64)
    gap, _ = split_two_means(stabilities)
    num_fills = int(divide_exactly(stabilities).sum()) if gap >= MIN_FILL_GAP else 0  # NaN is not
    onsets = np.any(bars, axis=2)
    moved = [float(share) for share in (onsets[1:] != onsets[:-1]).mean(1)]
    return {
        "num_bars": (len(bars), 1),
        "hamming_stability": (float(stabilities.sum()), len(stabilities)),
        "zero_share": (int((stabilities == 0).sum()), len(stabilities)),
        "fill_rate": (0, 0) if np.isnan(gap) else (num_fills, len(stabilities)),
        "groove_consistency": (1 - float(np.mean(moved)), 1) if moved else (0, 0),
    }


def sum_novelty(bars: np.ndarray, prompt_bars: int, train_bars: set[bytes] | None) -> Sums:
    """Sums of the shares of bars after the prompt that are copies: of the prompt, of any earlier bar, of training."""
    keys = pack_bars(bars)
    places = range(prompt_bars, len(keys))
    sums: Sums = {"repeat_rate": (sum(keys[place] in keys[:place] for place in places), len(places))}
    if prompt_bars:
        sums["copy_rate"] = (sum(keys[place] in keys[:prompt_bars] for place in places), len(places))
    if train_bars is not None:  # silence is no copy
        copied = sum(keys[place] in train_bars and bool(bars[place].any()) for place in places)
        sums["train_copy_rate"] = (copied, len(places))
    return sums


def sum_hits(bars: np.ndarray, names: Sequence[str]) -> Sums:
    """Sums of hits for each bar, in all and by column."""
    hits = bars.sum((0, 1))
    by_column = {f"hits_per_bar_{name}": (int(count), len(bars)) for name, count in zip(names, hits, strict=True)}
    return {"hits_per_bar": (int(hits.sum()), len(bars)), **by_column}


def count_lines(bars: np.ndarray) -> np.ndarray:
    """How often each possible line occurs; the first column is the most significant bit of its number."""
    num_columns = bars.shape[2]
    numbers = bars.reshape(-1, num_columns) @ (1 << np.arange(num_columns)[::-1])
    return np.bincount(numbers, minlength=1 << num_columns)


def count_onsets(bars: np.ndarray) -> np.ndarray:
    """How often each column is hit in each step of a bar, flattened."""
    return bars.sum(0).ravel()
