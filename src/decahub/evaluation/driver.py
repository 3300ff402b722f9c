"""One driver for all: model + processor + data set + metric -> figures."""

import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from decahub.data import SeededTransform
from decahub.metrics import load_metric

from .tasks import TASKS, EvaluationTask, Figures, move_to_model


@contextmanager
def evaluation_mode(model: torch.nn.Module) -> Iterator[None]:
    """Run a block with `model` in eval mode and without gradients, then give every module its own mode back."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:  # one by one: a frozen part may have been in eval mode inside a training model
            module.training = mode


def get_task(name: str) -> EvaluationTask:
    """The record of a task.

    Raises:
        ValueError: If decahub evaluates no such task.
    """
    if name not in TASKS:
        raise ValueError(f"`task` must be one of {', '.join(TASKS)}; got {name!r}.")
    return TASKS[name]


def check_label_names(model: PreTrainedModel, label_names: Sequence[str] | None) -> list[str]:
    """Names of the classes, after checking that the model's and the data set's agree in number, names and order.

    A model that was never told its classes (`LABEL_0`, `LABEL_1`, ...) has only their number checked.

    Raises:
        ValueError: If they disagree.
    """
    config: Any = model.config
    num_labels = config.num_labels
    names = [config.id2label[index] for index in range(num_labels)]
    if label_names is None:
        return names
    if len(label_names) != num_labels:
        raise ValueError(
            f"`model` must have as many classes as the data set, {len(label_names)}; got {num_labels}. "
            "Is it trained on another data set?"
        )
    if names == [f"LABEL_{index}" for index in range(num_labels)]:
        return list(label_names)
    for index, (name, wanted) in enumerate(zip(names, label_names, strict=True)):
        if name != wanted:
            raise ValueError(
                f"`model.config.id2label` must name the data set's classes in their order; class {index} is "
                f"{wanted!r} in the data set, got {name!r}. Is the model trained on another data set?"
            )
    return names


def _select_rows(dataset: Any, limit: int | None) -> Any:
    if isinstance(dataset, dict):
        raise TypeError(
            f"`dataset` must be one split; got a dict of {', '.join(dataset)}. Choose one: `dataset['test']`."
        )
    if not len(dataset):
        raise ValueError("`dataset` must hold at least one row; got none.")
    if limit is None:
        return dataset
    if limit < 1:
        raise ValueError(f"`limit` must be at least 1, or None for all rows; got {limit}.")
    return dataset.select(range(min(limit, len(dataset))))


def _get_label_names(dataset: Any) -> Sequence[str] | None:
    """The names that a `ClassLabel` column carries; annotations of segmentation carry none."""
    feature = getattr(dataset, "features", {}).get("label")
    return getattr(feature, "names", None)


def evaluate_model(
    model: PreTrainedModel,
    processor: Any,
    dataset: Any,
    task: str,
    *,
    batch_size: int = 32,
    limit: int | None = None,
    label_names: Sequence[str] | None = None,
    show_progress: bool = True,
) -> Figures:
    """Measure a model on one split.

    The model is put into eval mode and gets its modes back; the global random state is left alone, so a call in the
    middle of training does not change what the run learns.

    Args:
        model (`PreTrainedModel`): On any device, in any precision.
        processor: What the model was trained with; images pass through it as a user's would.
        dataset (`datasets.Dataset`): One split with the columns of the task's family (`decahub.load_dataset`).
        task (`str`): A key of `TASKS`.
        batch_size (`int`, *optional*, defaults to 32): Rows per forward pass.
        limit (`int`, *optional*): Use only the first `limit` rows.
        label_names (`Sequence[str]`, *optional*): Classes of the data set in the order of their ids; by default those
            of its `label` column.
        show_progress (`bool`, *optional*, defaults to `True`): Whether to show a progress bar.

    Returns:
        `dict[str, float]`: `accuracy` and `top_5_accuracy` (where there are more than five classes) for image
        classification; `mean_iou`, `mean_accuracy`, `overall_accuracy` and `iou_<class>` for semantic segmentation.

    Raises:
        ValueError: If the task is unknown, the data set is empty, or its classes are not the model's.
    """
    record = get_task(task)
    rows = _select_rows(dataset, limit)
    names = check_label_names(model, label_names if label_names is not None else _get_label_names(dataset))
    family = importlib.import_module(f"decahub.data.{record.family.replace('-', '_')}")
    metric = load_metric(record.metric, keep_in_memory=True)
    with evaluation_mode(model):
        for batch in _build_loader(rows, family, processor, batch_size, show_progress):
            metric.add_batch(**record.predict(model, processor, move_to_model(batch, model)))
    return record.summarize(metric, names)


def _build_loader(rows: Any, family: ModuleType, processor: Any, batch_size: int, show_progress: bool) -> Any:
    loader = DataLoader(
        SeededTransform(rows, family.build_eval_transform(processor)),
        batch_size=batch_size,
        collate_fn=family.collate,
        generator=torch.Generator(),  # the loader draws from it where it would draw from the global one
    )
    return tqdm(loader, desc="Evaluating", disable=not show_progress, leave=False)


__all__ = ["check_label_names", "evaluate_model", "evaluation_mode", "get_task"]
