"""The weights of the best evaluation of a run, kept beside its checkpoints."""

import math
import os
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load_model, save_model
from torch import nn


BEST_FILE = "best.safetensors"


class BestWeights:
    """`best.safetensors` in the run's folder.

    Args:
        output_dir (`str` or `Path`): folder of the run.
        metric (`str`, *optional*): figure that decides; `None` keeps nothing.
        greater_is_better (`bool`): direction of the figure.
    """

    def __init__(self, output_dir: str | Path, metric: str | None, greater_is_better: bool = True):
        self.path = Path(output_dir) / BEST_FILE
        self.metric = metric
        self.greater_is_better = greater_is_better

    def is_better(self, metrics: Mapping[str, float], best: Mapping[str, float]) -> bool:
        """Whether `metrics` beat the `best` so far; the earlier of two equal ones stays, and NaN never wins.

        Raises:
            ValueError: If the figure is not among `metrics`.
        """
        if self.metric is None:
            return False
        if self.metric not in metrics:
            raise ValueError(
                f"`metric_for_best_model` must be a figure of `evaluate` ({', '.join(metrics)}); got {self.metric!r}."
            )
        value = metrics[self.metric]
        if math.isnan(value):
            return False
        if not best:
            return True
        return value > best[self.metric] if self.greater_is_better else value < best[self.metric]

    def save(self, model: nn.Module) -> None:
        """Replace the kept weights by those of `model`."""
        partial = self.path.with_suffix(".partial")
        save_model(model, str(partial))
        os.replace(partial, self.path)

    def load(self, model: nn.Module) -> None:
        """Put the kept weights into `model`."""
        load_model(model, str(self.path))


__all__ = ["BEST_FILE", "BestWeights"]
