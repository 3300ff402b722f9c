"""`splits.json`: what the recipe of a model gives on every split of its data, not only on the one of the weights."""

import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .folder import read_json


SPLITS = "splits.json"
KEYS = ("metric", "rows", "mean", "spread", "command")
ROW_KEYS = ("split", "value")
ROUNDING = 5e-5  # a mean may be written with four digits


@dataclass(frozen=True)
class SplitResults:
    """Results over all splits.

    Attributes:
        metric (`str`): score that the rows hold.
        rows (`list[dict]`): one for each split, all with the same keys: `split` and `value` (the mean where there are
            several seeds), and as wanted `seeds`, `spread`, `n`, `model`, ...
        mean (`float`): mean of the values.
        spread (`float`): their sample standard deviation.
        command (`str`): what made them.
    """

    metric: str
    rows: list[dict[str, Any]]
    mean: float
    spread: float
    command: str

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns of the table."""
        return tuple(self.rows[0])


def read_split_results(folder: Path) -> SplitResults | None:
    """The results over all splits of a folder; `None` where it has no `splits.json`.

    Raises:
        ValueError: If a key is missing, rows differ in their keys, or `mean` and `spread` are not those of the rows.
    """
    if not (folder / SPLITS).exists():
        return None
    content = read_json(folder / SPLITS)
    missing = [key for key in KEYS if key not in content]
    if missing:
        raise ValueError(f"{SPLITS} must hold {', '.join(KEYS)}; {', '.join(missing)} is missing.")
    results = SplitResults(**{key: content[key] for key in KEYS})
    _check_rows(results.rows)
    values = [float(row["value"]) for row in results.rows]
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    for name, given, computed in (
        ("mean", results.mean, statistics.fmean(values)),
        ("spread", results.spread, spread),
    ):
        if not math.isclose(given, computed, rel_tol=0, abs_tol=ROUNDING):
            raise ValueError(f"`{name}` in {SPLITS} must be that of its rows, {computed:.6f}; got {given}.")
    return results


def _check_rows(rows: Any) -> None:
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"`rows` in {SPLITS} must be a list of objects, one for each split; got {rows!r}.")
    for number, row in enumerate(rows):
        if any(key not in row for key in ROW_KEYS) or list(row) != list(rows[0]):
            raise ValueError(
                f"`rows` in {SPLITS} must hold {' and '.join(ROW_KEYS)} and the same keys in each; got "
                f"{', '.join(row)} in row {number}."
            )


__all__ = ["SPLITS", "SplitResults", "read_split_results"]
