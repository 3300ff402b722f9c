"""Checkpoints of a run: whole or absent, checked before they are read, and never more than wanted.

A checkpoint is a folder `checkpoint-<step>` that was written under another name and renamed. It holds what Accelerate
saves (weights as safetensors, optimizer and schedule states), the average of the weights, the weights of the best
evaluation, and `progress.json` with the counters of the loop and the hash of every other file.
"""

import hashlib
import json
import logging
import os
import re
import shutil
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from safetensors import SafetensorError

from .best import BEST_PREFIX, BestWeights, get_best_name
from .ema import ExponentialMovingAverage


logger = logging.getLogger(__name__)

EMA_FILE = "ema.safetensors"
PROGRESS_FILE = "progress.json"
BEING_WRITTEN = ".writing-"
BEING_DELETED = ".deleting-"
CHECKPOINT_NAME = re.compile(r"checkpoint-(\d+)")


class CheckpointError(ValueError):
    """A run that cannot go on: its checkpoint is missing, damaged or of another run, or its folder is in use."""


@dataclass
class Progress:
    """How far a run has come: the counters of a checkpoint."""

    step: int = 0
    skipped_updates: int = 0  # their loss or gradient was not finite
    consecutive_skips: int = 0  # since the last update that was made
    seconds: float = 0.0  # over all starts of the run
    evaluated_step: int = -1  # step of the last evaluation; -1 before the first
    metrics: dict[str, Any] = field(default_factory=dict)  # what it returned
    best_metrics: dict[str, Any] = field(default_factory=dict)  # of the best evaluation so far
    best_step: int = -1
    evaluations_since_best: int = 0
    settings: dict[str, Any] = field(default_factory=dict)  # what must stay the same in all starts of the run
    recipe: dict[str, Any] = field(default_factory=dict)  # `fingerprint_recipe`; empty in old checkpoints
    data: str = ""  # `fingerprint_data`; empty in old checkpoints
    learning_rates: dict[str, float] = field(default_factory=dict)  # of each update's last run, by its name in the log
    windows: list[dict[str, list[float]]] = field(default_factory=list)  # what `TermWindow.gather` returned

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> "Progress":
        """The counters of a `progress.json`, which holds the hashes of files as well."""
        names = {item.name for item in fields(cls)}
        return cls(**{name: value for name, value in saved.items() if name in names})


class CheckpointFolder:
    """The checkpoints of one run."""

    def __init__(self, output_dir: str | Path, accelerator: Accelerator, *, total_limit: int | None = None):
        self.output_dir = Path(output_dir)
        self.accelerator = accelerator
        self.total_limit = total_limit

    def list_newest_first(self) -> list[Path]:
        """All checkpoints, the newest first."""
        found = [path for path in self.output_dir.glob("checkpoint-*") if CHECKPOINT_NAME.fullmatch(path.name)]
        return sorted(found, key=get_step, reverse=True)

    def clean(self) -> None:
        """Delete what a killed process left half written or half deleted."""
        for prefix in (BEING_WRITTEN, BEING_DELETED):
            for path in self.output_dir.glob(f"{prefix}*"):
                shutil.rmtree(path)

    def save(self, progress: dict[str, Any], ema: ExponentialMovingAverage | None, best: BestWeights) -> Path:
        """Write `checkpoint-<progress["step"]>`; called by all processes."""
        final = self.output_dir / f"checkpoint-{progress['step']}"
        partial = self.output_dir / f"{BEING_WRITTEN}{final.name}"
        has_best = progress["best_step"] >= 0
        best_name = get_best_name(progress["best_step"])
        try:
            self.accelerator.save_state(str(partial))
            self.accelerator.wait_for_everyone()
            if self.accelerator.is_main_process:
                if ema is not None:
                    ema.save(partial / EMA_FILE)
                if has_best:
                    best.write(partial / best_name)
                written = [path for path in sorted(partial.rglob("*")) if path.is_file()]
                files = {path.relative_to(partial).as_posix(): _compute_digest(path) for path in written}
                _write_json(partial / PROGRESS_FILE, {**progress, "files": files})
                self._delete(final)
                os.replace(partial, final)
        except (OSError, RuntimeError, SafetensorError) as error:
            shutil.rmtree(partial, ignore_errors=True)
            newest = next((path.name for path in self.list_newest_first()), "none")
            raise OSError(
                f"`{final.name}` could not be written to {self.output_dir}: {error}. "
                f"The newest checkpoint is still whole ({newest}); free some space and start again to resume from it."
            ) from error
        if has_best:
            best.path = final / best_name
        if self.accelerator.is_main_process and self.total_limit is not None:
            # A later one is damaged (else the run had gone on from it) and must not take the place of an intact one.
            earlier = [path for path in self.list_newest_first() if get_step(path) <= progress["step"]]
            for path in earlier[self.total_limit :]:
                self._delete(path)
        self.accelerator.wait_for_everyone()
        return final

    def replace_progress(self, path: Path, progress: dict[str, Any], best: BestWeights) -> None:
        """Give the checkpoint at `path` other counters and best weights, in one move; called by all processes."""
        best_name = get_best_name(progress["best_step"])
        if self.accelerator.is_main_process:
            files = read_progress(path)["files"]
            if best.unwritten:  # a file beside the old one, which counts until the new counters are in place
                best.write(path / best_name)
                files = {name: digest for name, digest in files.items() if not name.startswith(BEST_PREFIX)}
                files[best_name] = _compute_digest(path / best_name)
            partial = path / f"{BEING_WRITTEN}{PROGRESS_FILE}"
            _write_json(partial, {**progress, "files": files})
            os.replace(partial, path / PROGRESS_FILE)
            for superseded in path.glob(get_best_name("*")):
                if superseded.name not in files:
                    superseded.unlink()
        self.accelerator.wait_for_everyone()
        if (path / best_name).exists():
            best.path = path / best_name

    def load(self, path: Path, ema: ExponentialMovingAverage | None = None) -> None:
        """Read the checkpoint at `path` into what the accelerator holds and into `ema`."""
        if (ema is not None) != (path / EMA_FILE).exists():
            raise CheckpointError(
                f"`ema_decay` must be set or unset as it was in {path.name}; got {ema and ema.decay!r}. "
                "Start with the run's own arguments, or in another `output_dir`."
            )
        self.accelerator.load_state(str(path))
        if ema is not None:
            ema.load(path / EMA_FILE)

    def find(self, resume_from_checkpoint: str) -> Path | None:
        """The checkpoint that `LoopArguments.resume_from_checkpoint` means, checked; `None` to start anew."""
        if resume_from_checkpoint == "auto":
            return self._find_newest_intact()
        if resume_from_checkpoint == "none":
            self._refuse_newer_than(-1)
            return None
        path = Path(resume_from_checkpoint)
        problem = find_problem(path)
        if problem:
            raise CheckpointError(
                f"`resume_from_checkpoint` must be an intact checkpoint; got {str(path)!r}: {problem}."
            )
        self._refuse_newer_than(get_step(path))
        return path

    def _find_newest_intact(self) -> Path | None:
        candidates = self.list_newest_first()
        for path in candidates:
            problem = find_problem(path)
            if not problem:
                return path
            logger.warning("%s is skipped: %s.", path.name, problem)
        for path in candidates:  # better the run without its best weights so far than no run
            if not find_problem(path, ignore_best=True):
                return path
        if candidates:
            raise CheckpointError(
                f"`output_dir` must hold an intact checkpoint to resume from; none of the {len(candidates)} in "
                f"{self.output_dir} is ({candidates[0].name}: {find_problem(candidates[0])}). Delete them to start "
                "anew."
            )
        return None

    def _refuse_newer_than(self, step: int) -> None:
        newer = [path.name for path in self.list_newest_first() if get_step(path) > step]
        if newer:
            raise CheckpointError(
                f"`output_dir` must not hold later checkpoints than the one to start from; got {', '.join(newer)} in "
                f"{self.output_dir}. Delete them, or choose another `output_dir`."
            )

    def _delete(self, path: Path) -> None:
        """Delete a checkpoint so that a kill in between leaves nothing that looks like one."""
        if path.exists():
            doomed = path.with_name(f"{BEING_DELETED}{path.name}")
            os.replace(path, doomed)
            shutil.rmtree(doomed)


def get_step(path: Path) -> int:
    """Step in a checkpoint's name; -1 if it has none."""
    match = CHECKPOINT_NAME.fullmatch(path.name)
    return int(match.group(1)) if match else -1


def find_problem(path: Path, ignore_best: bool = False) -> str | None:
    """What is wrong with the checkpoint at `path`, in a few words; `None` if every file has its recorded hash.

    With `ignore_best` the weights of the best evaluation, which the steps to come do not need, may be anything.
    """
    if not path.is_dir():
        return "there is no such folder"
    try:
        files = read_progress(path)["files"]
    except FileNotFoundError:
        return f"{PROGRESS_FILE} is missing"
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
        return f"{PROGRESS_FILE} is not readable"
    for name, digest in files.items():
        if ignore_best and name.startswith(BEST_PREFIX):
            continue
        if not (path / name).is_file():
            return f"{name} is missing"
        if _compute_digest(path / name) != digest:
            return f"{name} was altered or cut off after it was written"
    return None


def read_progress(path: Path) -> dict[str, Any]:
    """The counters that were saved with the checkpoint at `path`."""
    return json.loads((path / PROGRESS_FILE).read_text(encoding="utf-8"))


def _write_json(path: Path, content: dict[str, Any]) -> None:
    """Scores may be NaN, which Python writes and reads back."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _compute_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
