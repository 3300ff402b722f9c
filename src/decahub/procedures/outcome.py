"""What a procedure returns: a trained model, its processor and its scores, ready to be saved."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decahub.tasks import Measurement
from decahub.training import TrainingResult


@dataclass(frozen=True)
class Outcome:
    """Result of a run; `decahub.hub.save_run` takes its parts.

    Args:
        result ([`~decahub.training.TrainingResult`]): Holds the model to save.
        processor: What the model was trained with.
        measurement ([`~decahub.tasks.Measurement`], *optional*): Scores of the model. `None` in processes other than
            the main one, and where the data has nothing to measure with.
        task (`str`): What was measured, a key of `decahub.registry.TASKS`.
        dataset (`str`): Name or folder of the dataset.
        split (`str`): Split that was measured.
        minutes (`float`): Duration of the measurement.
        images (`Sequence[Path]`): PNG files for the model card.
        reports (`Sequence[Path]`): JSON files that the card shows as tables.
    """

    result: TrainingResult
    processor: Any
    measurement: Measurement | None
    task: str
    dataset: str
    split: str
    minutes: float = 0.0
    images: Sequence[Path] = ()
    reports: Sequence[Path] = ()


def conclude(
    result: TrainingResult, processor: Any, measure: Callable[[], Measurement | None], **facts: Any
) -> Outcome:
    """Measure the model of a run, in the main process, and gather what is to be saved.

    Args:
        result ([`~decahub.training.TrainingResult`]): What `train` returned.
        processor: What the model was trained with.
        measure (`Callable`): Gives the scores of `result.model`.
        facts: `task`, `dataset`, `split`, `images` and `reports` of the [`Outcome`].
    """
    started = time.monotonic()
    measurement = measure() if result.is_main_process else None
    return Outcome(result, processor, measurement, minutes=(time.monotonic() - started) / 60, **facts)


__all__ = ["Outcome", "conclude"]
