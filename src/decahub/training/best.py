"""The weights of the best evaluation of a run, kept in its checkpoints."""

import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file, save_file
from torch import nn


OLD_BEST_FILE = "best.safetensors"  # beside the checkpoints, in runs that began before it was one of their files
BEST_PREFIX = "best-"
TIES = ("first", "last")


@dataclass
class BestWeights:
    """The weights of the best evaluation so far: `best-<step>.safetensors` in the newest checkpoint.

    They wait in memory until the next checkpoint is written, of which they are a part: early in a run every evaluation
    may be the best so far, and what was found after the last checkpoint is found again when the run goes on from it.
    """

    metric: str | None  # `None` keeps nothing
    greater_is_better: bool = True
    ties: Literal["first", "last"] = "first"  # which of two equal evaluations is kept
    unwritten: dict[str, torch.Tensor] = field(default_factory=dict)
    path: Path | None = None  # the file that was last written or resumed from

    def is_better(self, metrics: Mapping[str, float], best: Mapping[str, float]) -> bool:
        """Whether `metrics` take the place of the `best` so far; NaN never does."""
        if self.metric is None:
            return False
        if self.metric not in metrics:
            raise ValueError(
                f"`metric_for_best_model` must be a score of `evaluate` ({', '.join(metrics)}); got {self.metric!r}."
            )
        value = metrics[self.metric]
        if math.isnan(value):
            return False
        if not best:
            return True
        if value == best[self.metric]:
            return self.ties == "last"
        return value > best[self.metric] if self.greater_is_better else value < best[self.metric]

    def keep(self, model: nn.Module) -> None:
        """Remember the weights of `model` as they are."""
        self.unwritten = {
            name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in model.state_dict().items()
        }

    def write(self, path: Path) -> None:
        """Write what `keep` remembered since the last call, or else copy the file that was written before."""
        if self.unwritten:
            save_file(self.unwritten, str(path))
            self.unwritten = {}
        elif self.path is not None:
            shutil.copyfile(self.path, path)

    def load(self, model: nn.Module) -> None:
        """Put the weights of the file into `model`."""
        model.load_state_dict(load_file(str(self.path)))


def get_best_name(step: int | str) -> str:
    """Name of the file with the weights of the evaluation after `step`."""
    return f"{BEST_PREFIX}{step}.safetensors"
