"""Measure a model folder again, on the dataset that its `evaluation.json` names or on another one."""

import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decahub.data import DATASETS, DatasetEntry, load_dataset
from decahub.data.loading import find_own_folder
from decahub.data.quality_splits import SPLITS_FILE, load_splits_file, restore_splits
from decahub.registry import TASKS
from decahub.tasks import Task, get_task

from .driver import evaluate_model
from .record import DATASET_KEYS, EVALUATION_FILE, build_evaluation, read_evaluation


logger = logging.getLogger(__name__)

DEFAULT_SPLIT, TRAIN_SPLIT = "test", "train"


@dataclass(frozen=True)
class FolderData:
    """What a model folder is measured on."""

    task: Task
    dataset: str  # a name, or the path of a user's own data
    split: str
    rows: Any
    train_rows: Any  # None if the dataset has no training split
    label_names: Sequence[str] | None  # of a dataset in the catalog
    facts: Mapping[str, Any]  # `Measurement.facts` of the measurement to repeat


def evaluate_folder(
    folder: str | os.PathLike,
    data_dir: str | os.PathLike | None = None,
    limit: int | None = None,
    *,
    dataset: str | os.PathLike | None = None,
    split: str | None = None,
    task: str | None = None,
    batch_size: int = 32,
    show_progress: bool = True,
) -> dict[str, Any]:
    """Load a model folder and measure it.

    Args:
        folder (`str` or path): Holds the model, its processor and, unless `dataset` is given, `evaluation.json`.
        data_dir (`str` or path, *optional*): Directory of the datasets; by default `$DECAHUB_DATA_DIR`.
        limit (`int`, *optional*): Measure a sample of this many rows, or nodes of graphs.
        dataset (`str` or path, *optional*): Name in the catalog, or a folder or Hub id of a user's own data; by
            default the dataset of `evaluation.json`.
        split (`str`, *optional*): By default the split of `evaluation.json`, or `"test"` where `dataset` is given. Of
            graphs with several splits of their nodes `"test/<number or name>"`.
        task (`str`, *optional*): A key of `decahub.registry.TASKS`; by default that of `evaluation.json`, or of
            the dataset's family.
        batch_size (`int`, *optional*, defaults to 32): Rows per forward pass; graphs go one by one.
        show_progress (`bool`, *optional*, defaults to `True`): Whether to show a progress bar.

    Returns:
        `dict`: As `evaluation.json`, for this measurement. Nothing is written.

    Raises:
        FileNotFoundError: If the folder has no `evaluation.json` and no `dataset` is given, or the data is absent.
        ValueError: If the task cannot be guessed, the split does not exist, or `limit` is less than 1.
    """
    check_limit(limit)
    data = load_folder_data(folder, data_dir, dataset=dataset, split=split, task=task)
    model, processor = data.task.load(folder)
    started = time.monotonic()
    measurement = evaluate_model(
        model,
        processor,
        data.rows,
        data.task.name,
        batch_size=batch_size,
        limit=limit,
        label_names=data.label_names,
        train_dataset=data.train_rows,
        facts=data.facts,
        show_progress=show_progress,
    )
    return build_evaluation(
        measurement,
        task=data.task.name,
        dataset=data.dataset,
        split=data.split,
        minutes=(time.monotonic() - started) / 60,
    )


def load_folder_data(
    folder: str | os.PathLike,
    data_dir: str | os.PathLike | None = None,
    *,
    dataset: str | os.PathLike | None = None,
    split: str | None = None,
    task: str | None = None,
) -> FolderData:
    """The split that a model folder is to be measured on; arguments and errors are those of [`evaluate_folder`]."""
    folder = Path(folder)
    published: dict[str, Any] = {}
    if dataset is None or (folder / EVALUATION_FILE).is_file():
        published = read_evaluation(folder)
    if dataset is None:
        dataset, split = published["dataset"]["name"], split or published["dataset"]["split"]
        is_own = str(dataset) not in DATASETS and "/" not in str(dataset)
        if is_own and find_own_folder(str(dataset), data_dir) is None:
            raise FileNotFoundError(f"`{folder}` was measured on your own data `{dataset}`; pass `--dataset PATH`.")
    entry = DATASETS.get(str(dataset))
    record = get_task(task or published.get("task") or _guess_task(entry))
    splits = load_dataset(dataset, data_dir, family=record.entry.family)
    if (folder / SPLITS_FILE).is_file():
        splits = _restore_splits(splits, folder / SPLITS_FILE, split or DEFAULT_SPLIT)
    return FolderData(
        task=record,
        dataset=str(dataset),
        split=split or DEFAULT_SPLIT,
        rows=_select_split(splits, split or DEFAULT_SPLIT, str(dataset), record),
        train_rows=splits.get(TRAIN_SPLIT),
        label_names=(entry.label_names or None) if entry else None,
        facts={name: value for name, value in published.get("dataset", {}).items() if name not in DATASET_KEYS},
    )


def check_limit(limit: int | None) -> None:
    """Refuses a sample of no rows."""
    if limit is not None and limit < 1:
        raise ValueError(f"`limit` must be at least 1; got {limit}. Leave it out to measure all rows.")


def _guess_task(entry: DatasetEntry | None) -> str:
    if entry is not None:
        candidates = [task.name for task in TASKS.values() if task.family == entry.family]
        return next((name for name in candidates if name.startswith("fair-") == bool(entry.sensitive)), candidates[0])
    raise ValueError(f"`task` must be given for data that is not in the catalog: one of {', '.join(TASKS)}; got None.")


def _restore_splits(splits: Any, path: Path, split: str) -> Any:
    """The splits that the run of a folder made; those of the dataset alone where they are of another one."""
    record = load_splits_file(path)
    try:
        return restore_splits(splits, record)
    except ValueError as error:
        if split in splits:
            logger.warning(f"Measuring the split {split!r} of the dataset, not that of {path.name}: {error}")
            return splits
        raise ValueError(f"`split` must be one of {', '.join(splits)}; got {split!r}. {path.name}: {error}") from error


def _select_split(splits: Any, split: str, source: str, task: Task) -> Any:
    if task.family.select_split is not None:  # a split of the nodes of each graph
        return task.family.select_split(splits, split)
    if split not in splits:
        raise ValueError(f"`split` of {source!r} must be one of {', '.join(splits)}; got {split!r}.")
    return splits[split]
