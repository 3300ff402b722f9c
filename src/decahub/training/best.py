"""The weights of the best evaluation of a run, kept beside its checkpoints."""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file, save_file
from torch import nn


BEST_FILE = "best.safetensors"
TIES = ("first", "last")


class BestWeights:
    """`best.safetensors` in the run's folder.

    The weights wait in memory until the next checkpoint is written: early in a run every evaluation may be the best so
    far, and what was found after the last checkpoint is found again when the run goes on from it.

    Args:
        output_dir (`str` or `Path`): folder of the run.
        metric (`str`, *optional*): score that decides; `None` keeps nothing.
        greater_is_better (`bool`): direction of the score.
        ties (`str`): which of two equal evaluations is kept, "first" or "last".
    """

    def __init__(
        self,
        output_dir: str | Path,
        metric: str | None,
        greater_is_better: bool = True,
        ties: Literal["first", "last"] = "first",
    ):
        self.path = Path(output_dir) / BEST_FILE
        self.metric = metric
        self.greater_is_better = greater_is_better
        self.ties = ties
        self.unwritten: dict[str, torch.Tensor] = {}

    def is_better(self, metrics: Mapping[str, float], best: Mapping[str, float]) -> bool:
        """Whether `metrics` take the place of the `best` so far; NaN never does.

        Raises:
            ValueError: If the score is not among `metrics`.
        """
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

    def write(self) -> None:
        """Replace the file by what `keep` remembered since the last call, if anything."""
        if self.unwritten:
            partial = self.path.with_suffix(".partial")
            save_file(self.unwritten, str(partial))
            os.replace(partial, self.path)
            self.unwritten = {}

    def load(self, model: nn.Module) -> None:
        """Put the weights of the file into `model`."""
        model.load_state_dict(load_file(str(self.path)))


__all__ = ["BEST_FILE", "TIES", "BestWeights"]
