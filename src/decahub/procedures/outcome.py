"""What a procedure returns: a trained model, its processor and its scores, ready to be saved."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from decahub.evaluation import evaluate_model
from decahub.tasks import Measurement
from decahub.training import TrainingResult

from .data_arguments import DataArguments, GraphDataArguments


@dataclass(frozen=True)
class Outcome:
    """Result of a run; `decahub.hub.save_run` takes its parts.

    There is no measurement in processes other than the main one, and where the data has nothing to measure with.
    """

    result: TrainingResult
    processor: Any
    measurement: Measurement | None
    task: str  # what was measured, a key of `decahub.registry.TASKS`
    dataset: str
    split: str
    minutes: float = 0.0  # duration of the measurement
    images: Sequence[Path] = ()  # PNG files for the model card
    reports: Sequence[Path] = ()  # JSON files that the card shows as tables


def measure_rows(
    arguments: Any, model: PreTrainedModel, processor: Any, rows: Any, task: str, **options: Any
) -> Measurement:
    """Scores of a model on rows, with the batch size and the sample size of a run."""
    batch_size, limit = arguments.per_device_eval_batch_size, arguments.max_eval_samples
    return evaluate_model(model, processor, rows, task, batch_size=batch_size, limit=limit, **options)


def conclude(
    arguments: DataArguments | GraphDataArguments,
    result: TrainingResult,
    processor: Any,
    measure: Callable[[], Measurement | None],
    task: str,
    **files: Sequence[Path],
) -> Outcome:
    """Measure the model of a run, in the main process, and gather what is to be saved."""
    started = time.monotonic()
    measurement = measure() if result.is_main_process else None
    minutes = (time.monotonic() - started) / 60
    split = f"test/{arguments.split}" if isinstance(arguments, GraphDataArguments) else arguments.eval_split
    return Outcome(result, processor, measurement, task, arguments.dataset, split, minutes, **files)
