"""The counters of a run that a checkpoint carries beside weights and optimizer states."""

from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass
class Progress:
    """How far a run has come.

    Args:
        step (`int`): iterations made.
        skipped_updates (`int`): updates left out because their loss or gradient was not finite.
        consecutive_skips (`int`): those since the last update that was made.
        seconds (`float`): time spent, over all starts of the run.
        evaluated_step (`int`): step of the last evaluation; -1 before the first.
        metrics (`dict[str, float]`): what it returned.
        best_metrics (`dict[str, float]`): scores of the evaluation with the best `metric_for_best_model` so far.
        best_step (`int`): step of that evaluation; -1 before the first.
        evaluations_since_best (`int`): evaluations after that one.
        settings (`dict`): what must stay the same for the run to be continued exactly.
        recipe (`dict`): the arguments that identify the run (`fingerprint_recipe`); empty in old checkpoints.
        data (`str`): hash of the dataset (`fingerprint_data`); empty in old checkpoints.
        learning_rates (`dict[str, float]`): rate of each update's last run, by its name in the log.
        windows (`list`): sums and counts of the terms since the last line of the log, by process.
    """

    step: int = 0
    skipped_updates: int = 0
    consecutive_skips: int = 0
    seconds: float = 0.0
    evaluated_step: int = -1
    metrics: dict[str, Any] = field(default_factory=dict)
    best_metrics: dict[str, Any] = field(default_factory=dict)
    best_step: int = -1
    evaluations_since_best: int = 0
    settings: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    data: str = ""
    learning_rates: dict[str, float] = field(default_factory=dict)
    windows: list[dict[str, list[float]]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> "Progress":
        names = {item.name for item in fields(cls)}
        return cls(**{name: value for name, value in saved.items() if name in names})


__all__ = ["Progress"]
