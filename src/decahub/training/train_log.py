"""The log of a run: one JSON object a line, means over the steps since the line before."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from .checkpoint import CheckpointError


LOG_FILE = "train_log.jsonl"
EVALUATED = "eval_"  # stands before each score of an evaluation
SIGNIFICANT_DIGITS = 7  # what float32 holds


class TermWindow:
    """Means of the terms of all steps since the last line of the log, over all processes."""

    def __init__(self) -> None:
        self.sums: dict[str, torch.Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, terms: Mapping[str, torch.Tensor]) -> None:
        """Add one value of each term; values stay on their device, so that nothing waits for them."""
        for name, value in terms.items():
            self.sums[name] = self.sums.get(name, 0) + value.detach().float()
            self.counts[name] = self.counts.get(name, 0) + 1

    def gather(self, accelerator: Accelerator) -> list[dict[str, list[float]]]:
        """[sum, count] of each term in each process; called by all of them."""
        names = sorted(self.sums)
        if not names:
            return [{} for _ in range(accelerator.num_processes)]
        sums = torch.stack([self.sums[name].to(accelerator.device) for name in names])
        counts = sums.new_tensor([self.counts[name] for name in names])
        gathered = accelerator.gather(torch.stack([sums, counts], dim=-1)[None])  # (processes, terms, 2)
        return [dict(zip(names, totals, strict=True)) for totals in gathered.tolist()]

    def restore(self, totals: Mapping[str, list[float]]) -> None:
        """Go on from what `gather` returned for this process."""
        self.sums = {name: torch.tensor(total) for name, (total, _) in totals.items()}
        self.counts = {name: int(count) for name, (_, count) in totals.items()}

    def clear(self) -> None:
        self.sums, self.counts = {}, {}


def compute_means(windows: Sequence[Mapping[str, list[float]]]) -> dict[str, float]:
    """Mean of each term over all processes, from what `TermWindow.gather` returned."""
    return {
        name: sum(window[name][0] for window in windows) / sum(window[name][1] for window in windows)
        for name in windows[0]
    }


class TrainLog:
    """`train_log.jsonl` of a run folder; written by the main process only."""

    def __init__(self, output_dir: str | Path):
        self.path = Path(output_dir) / LOG_FILE

    def append(self, record: Mapping[str, Any]) -> None:
        """Add one line; scores that are not finite become null."""
        line = json.dumps({name: _to_json(value) for name, value in record.items()}, allow_nan=False)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def truncate(self, step: int, evaluated_step: int) -> None:
        """Drop what a run that goes on from `step` writes again: later lines, later evaluations, a line cut off."""
        if not self.path.exists():
            return
        lines = self.path.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if _read_step(line) <= (evaluated_step if f'"{EVALUATED}' in line else step)]
        partial = self.path.with_suffix(".partial")
        partial.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        os.replace(partial, self.path)


def _read_step(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except json.JSONDecodeError:
        return math.inf  # cut off by a kill
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            f"{LOG_FILE} in `output_dir` must be the log of a run; got the line {line[:80]!r}. Choose another folder."
        ) from error


def _to_json(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}") if math.isfinite(value) else None
