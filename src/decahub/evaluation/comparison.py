"""One rule for the verdict on every claim, and the file that keeps claim, runs and verdict.

Runs of two models are paired by seed, and by split where there are several. The mean of the paired differences has a
95 % interval by Student's t over the pairs. With fewer than three pairs a comparison is "undecided"; otherwise it
"holds" if the whole interval lies on the claimed side of the margin, "does not hold" if the whole interval lies on
the other side, and is "undecided" if the margin is inside. A claim holds if all its comparisons hold, does not hold
if one of them does not, and is undecided otherwise. Intervals are not corrected for the number of comparisons.
"""

import math
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from decahub.environment import describe_command, describe_hardware, describe_versions

from .record import check_is_list, check_keys, read_json, write_json


HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided"
DIRECTIONS = ("higher", "lower", "equal", "nearer")
MIN_PAIRS = 3
CONFIDENCE = 0.95
REL_TOL = 1e-6  # scores pass through JSON, perhaps rounded to float32
RUN_FILE = "run.json"

ORIGIN_KEYS = ("command", "hardware", "versions")
FILE_KEYS = ("method", "claim", "verdict", "comparisons", "rows", *ORIGIN_KEYS)
ROW_KEYS = ("model", "dataset", "metric", "value", "spread", "n", "seeds", "runs", "paper", "paper_source", "minutes")
EFFECT_KEYS = ("difference", "interval", "num_pairs", "verdict")


def run_once(folder: str | os.PathLike, compute: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """The record of a run: that of `run.json` if the run is finished, otherwise computed and written.

    Args:
        folder (`str` or path): Folder of the run.
        compute (`Callable`): Makes the run and returns what to keep as JSON. It may delete the folder.
    """
    path = Path(folder) / RUN_FILE
    if not path.exists():
        write_json(path, compute())
    return read_json(path)


def build_row(
    model: str,
    dataset: str,
    metric: str,
    values: Sequence[float],
    seeds: Sequence[int] = (),
    *,
    splits: Sequence[int | str] | None = None,
    paper: float | None = None,
    paper_source: str | None = None,
    minutes: float | None = None,
    **facts: Any,
) -> dict[str, Any]:
    """One row of a comparison: the runs of one model, their mean and their sample deviation.

    Args:
        model (`str`): What the tables call it.
        dataset (`str`): Name of the dataset.
        metric (`str`): Name of the metric; "(%)" at its end means that differences are points.
        values (`Sequence[float]`): One value a run.
        seeds (`Sequence[int]`): Seed of each run; empty for a single value without any randomness.
        splits (`Sequence`, *optional*): Split of each run, if runs differ in it.
        paper (`float`, *optional*): What is published, from `paper_source`.
        paper_source (`str`, *optional*): Where it is published.
        minutes (`float`, *optional*): Duration of all runs together.
        facts: Further columns: `split`, `checkpoint`, `num_parameters`, `steps`, `batch_size`.
    """
    row = {
        "model": model,
        "dataset": dataset,
        "metric": metric,
        "value": statistics.mean(values),
        "spread": statistics.stdev(values) if len(values) > 1 else None,
        "n": len(values),
        "seeds": list(seeds),
        **({} if splits is None else {"splits": list(splits)}),
        "runs": list(values),
        **facts,
        "paper": paper,
        "paper_source": paper_source,
        "minutes": minutes,
    }
    check_row(row, f"the row of {model!r}")
    return row


@dataclass(frozen=True)
class Comparison:
    """One part of a claim: the runs of one model beside those of another, or beside a published value.

    Runs are paired by seed and split; those that only one side has are left out. A row without seeds has nothing
    random in it: its one value belongs to every pair. Pairs count as independent, although some share a split.

    Args:
        dataset (`str`): Dataset of the rows.
        metric (`str`): Metric of the rows.
        first (`str`): Model that the claim is about.
        second (`str` or `float`): Model it is compared with, or a published value, which is then one side of each
            pair.
        direction (`str`): What is claimed of `first - second`: "higher" (above `margin`), "lower" (below `-margin`),
            "equal" (between both), or "nearer": the distance of `first` from `reference` is smaller than that of
            `second` by more than `margin`.
        margin (`float`): At least 0 for "equal". A negative one allows a loss: "higher" with -3 claims that `first`
            is at most 3 worse.
        split (`str`, *optional*): Split of the rows, where there are rows of several.
        reference (`str`, *optional*): Model that is the aim of "nearer".
    """

    dataset: str
    metric: str
    first: str
    second: str | float
    direction: str = "higher"
    margin: float = 0.0
    split: str | None = None
    reference: str | None = None

    def __post_init__(self):
        if self.direction not in DIRECTIONS:
            raise ValueError(f"`direction` must be one of {', '.join(DIRECTIONS)}; got {self.direction!r}.")
        if self.direction == "equal" and self.margin <= 0:
            raise ValueError(f"`margin` must be above 0 for the direction 'equal'; got {self.margin!r}.")
        if (self.reference is not None) != (self.direction == "nearer"):
            raise ValueError(f"`reference` must be given for the direction 'nearer' alone; got {self.reference!r}.")

    def compute_differences(self, rows: Sequence[Mapping[str, Any]]) -> list[float]:
        """`first - second` for each seed and split that both have; of distances for "nearer"."""
        sides = [self._collect_runs(name, rows) for name in (self.first, self.second, self.reference or 0.0)]
        keyed = [runs for runs in sides if isinstance(runs, dict)]
        keys: list[Any] = [key for key in keyed[0] if all(key in runs for runs in keyed)] if keyed else [None]
        pairs = [[runs[key] if isinstance(runs, dict) else runs for runs in sides] for key in keys]
        if self.direction == "nearer":
            return [abs(first - aim) - abs(second - aim) for first, second, aim in pairs]
        return [first - second for first, second, _ in pairs]

    def _collect_runs(self, name: str | float, rows: Sequence[Mapping[str, Any]]) -> dict[tuple, float] | float:
        """Runs by seed and split, or one value that has neither."""
        if not isinstance(name, str):
            return name
        wanted = {"model": name, "dataset": self.dataset, "metric": self.metric}
        wanted |= {} if self.split is None else {"split": self.split}
        found = [row for row in rows if all(row.get(key) == value for key, value in wanted.items())]
        if len(found) != 1:
            raise ValueError(f"A comparison must name one row; got {len(found)} with {wanted}.")
        row = found[0]
        return dict(zip(_get_keys(row), row["runs"], strict=True)) if row["seeds"] else row["runs"][0]

    def measure(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Mean difference, its interval, the number of pairs, and the verdict."""
        differences = self.compute_differences(rows)
        interval = compute_interval(differences)
        return {
            "difference": statistics.mean(differences) if differences else None,
            "interval": interval,
            "num_pairs": len(differences),
            "verdict": UNDECIDED if interval is None else self.decide(*interval),
        }

    def decide(self, low: float, high: float) -> str:
        """Verdict by an interval of the difference."""
        if self.direction == "equal":
            holds = -self.margin < low and high < self.margin
            fails = high < -self.margin or low > self.margin
        else:
            low, high = (low, high) if self.direction == "higher" else (-high, -low)
            holds, fails = low > self.margin, high < self.margin
        return HOLDS if holds else FAILS if fails else UNDECIDED


def compute_interval(differences: Sequence[float]) -> list[float] | None:
    """The 95 % interval of the mean by Student's t; `None` for fewer than three differences."""
    n = len(differences)
    if n < MIN_PAIRS:
        return None
    try:
        from scipy.stats import t
    except ImportError as error:
        raise ImportError('Intervals need scipy: pip install "decahub[train]".') from error
    mean = statistics.mean(differences)
    half = float(t.ppf((1 + CONFIDENCE) / 2, n - 1)) * statistics.stdev(differences) / math.sqrt(n)
    return [mean - half, mean + half]


def combine_verdicts(verdicts: Sequence[str]) -> str:
    """Verdict on a claim by those on its comparisons."""
    if FAILS in verdicts:
        return FAILS
    return HOLDS if verdicts and all(verdict == HOLDS for verdict in verdicts) else UNDECIDED


def write_comparison(
    path: str | os.PathLike,
    *,
    method: str,
    claim: str,
    comparisons: Sequence[Comparison],
    rows: Sequence[Mapping[str, Any]],
    notes: Sequence[str] = (),
) -> str:
    """Write a claim with its runs and its verdict, which is computed from them, and the command of this process.

    Args:
        path (`str` or path): The file, `docs/results/<method>.json` for the main claim of a method.
        method (`str`): Name in the table of methods.
        claim (`str`): What is examined, as one sentence.
        comparisons (`Sequence[Comparison]`): What the verdict is made of; without any it is "undecided".
        rows (`Sequence[Mapping]`): What `build_row` returned; there may be more rows than are compared.
        notes (`Sequence[str]`): What a reader must know besides.

    Returns:
        `str`: The verdict.
    """
    content = {"method": method, "claim": claim, **_conclude(comparisons, rows), "rows": list(rows)}
    content |= {"notes": list(notes)} if notes else {}
    origin = {"command": describe_command(), "hardware": describe_hardware(), "versions": describe_versions()}
    write_json(path, {**content, **origin})
    return content["verdict"]


def _conclude(comparisons: Sequence[Comparison], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    parts = [
        {**{key: value for key, value in asdict(part).items() if value is not None}, **part.measure(rows)}
        for part in comparisons
    ]
    return {"verdict": combine_verdicts([part["verdict"] for part in parts]), "comparisons": parts}


def read_comparison(path: str | os.PathLike) -> dict[str, Any]:
    """Read a claim and compute it again from its runs.

    Raises:
        ValueError: If the file is damaged or incomplete, or a mean, an interval or a verdict is not what the runs
            give; the message names it.
    """
    content = read_json(path)
    check_keys(content, FILE_KEYS, str(path))
    check_is_list(content["rows"], f"`rows` of {path}")
    for index, row in enumerate(content["rows"]):
        check_row(row, f"row {index} of {path}")
    names = [item.name for item in fields(Comparison)]
    stored = content["comparisons"]
    for index, part in enumerate(stored):
        check_keys(part, ("dataset", "metric", "first", "second", *EFFECT_KEYS), f"comparison {index} of {path}")
    try:
        parts = [Comparison(**{key: value for key, value in part.items() if key in names}) for part in stored]
        expected = _conclude(parts, content["rows"])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    for index, (part, computed) in enumerate(zip(stored, expected["comparisons"], strict=True)):
        for key in EFFECT_KEYS:
            _check_equal(part[key], computed[key], f"`{key}` in comparison {index} of {path}")
    _check_equal(content["verdict"], expected["verdict"], f"`verdict` of {path}")
    return content


def check_row(row: Any, where: str) -> None:
    """Refuse a row whose summary is not that of its runs, or whose runs cannot be paired."""
    check_keys(row, ROW_KEYS, where)
    runs = row["runs"]
    check_is_list(runs, f"`runs` in {where}")
    _check_equal(row["n"], len(runs), f"`n` in {where}")
    _check_equal(row["value"], statistics.mean(runs), f"`value` in {where}")
    _check_equal(row["spread"], statistics.stdev(runs) if len(runs) > 1 else None, f"`spread` in {where}")
    if not row["seeds"] and len(runs) == 1:
        return
    for name in ("seeds", *(["splits"] if "splits" in row else [])):
        if len(row[name]) != len(runs):
            raise ValueError(f"`{name}` in {where} must have one item a run ({len(runs)}); got {len(row[name])}.")
    keys = _get_keys(row)
    twice = next((key for key in keys if keys.count(key) > 1), None)
    if twice is not None:
        raise ValueError(f"Runs in {where} must differ in seed or split; got (seed, split) = {twice} twice.")


def _get_keys(row: Mapping[str, Any]) -> list[tuple]:
    """Seed and split of each run."""
    return list(zip(row["seeds"], row.get("splits") or [None] * len(row["seeds"]), strict=True))


def _check_equal(given: Any, expected: Any, where: str) -> None:
    lists = isinstance(given, list) and isinstance(expected, list) and len(given) == len(expected)
    pairs = list(zip(given, expected, strict=True)) if lists else [(given, expected)]
    for one, other in pairs:
        numbers = all(isinstance(value, int | float) for value in (one, other))
        if not (math.isclose(one, other, rel_tol=REL_TOL, abs_tol=1e-9) if numbers else one == other):
            raise ValueError(f"{where} must be {expected!r}, as `runs` give it; got {given!r}.")
