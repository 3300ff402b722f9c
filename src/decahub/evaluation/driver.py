"""One driver for all: model + processor + dataset + metric -> scores."""

import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from decahub.data import SeededTransform
from decahub.data.label_names import read_label_names
from decahub.metrics import load_metric

from .tasks import EvaluationTask, Measurement, Scores, get_task, move_to_model


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


def check_label_names(model: PreTrainedModel, label_names: Sequence[str] | None) -> list[str]:
    """Names of the classes, after checking that the model's and the dataset's agree in number, names and order.

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
            f"`model` must have as many classes as the dataset, {len(label_names)}; got {num_labels}. "
            "Is it trained on another dataset?"
        )
    if names == [f"LABEL_{index}" for index in range(num_labels)]:
        return list(label_names)
    for index, (name, wanted) in enumerate(zip(names, label_names, strict=True)):
        if name != wanted:
            raise ValueError(
                f"`model.config.id2label` must name the dataset's classes in their order; class {index} is "
                f"{wanted!r} in the dataset, got {name!r}. Is the model trained on another dataset?"
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
    return dataset.select(range(min(limit, len(dataset))))


@cache
def get_metric_class(name: str) -> Any:
    """The class of a metric: loading it copies its file, which would take longer than to measure a small graph."""
    return type(load_metric(name, keep_in_memory=True))


def measure_model(
    model: PreTrainedModel,
    processor: Any,
    dataset: Any,
    task: str,
    *,
    batch_size: int = 32,
    limit: int | None = None,
    label_names: Sequence[str] | None = None,
    train_dataset: Any = None,
    num_fit_rows: int | None = None,
    show_progress: bool = True,
) -> Measurement:
    """Measure a model on one split, and tell on how many examples.

    As [`evaluate_model`], whose arguments it takes.

    Returns:
        [`Measurement`]: what [`build_evaluation`] takes.

    Raises:
        ValueError: If the task is unknown, there is nothing to measure, or its classes are not the model's.
    """
    record = get_task(task)
    if limit is not None and limit < 1:
        raise ValueError(f"`limit` must be at least 1, or None for all {record.unit}s; got {limit}.")
    per_node = record.unit == "node"
    rows = _select_rows(dataset, None if per_node else limit)
    names = label_names if label_names is not None else read_label_names(dataset)
    fit_rows = None
    if record.num_fit_rows:  # a model without a head knows no classes
        fit_rows = select_fit_rows(train_dataset, record.num_fit_rows if num_fit_rows is None else num_fit_rows)
    else:
        names = check_label_names(model, names)
    family = importlib.import_module(f"decahub.data.{record.family.replace('-', '_')}")
    if hasattr(family, "read_grooves"):
        rows = family.read_grooves(rows, processor)
    metric = get_metric_class(record.metric)(keep_in_memory=True)
    options, num_rows = record.get_options(names or ()), 0
    # Models that draw in evaluation (walks on a graph) do so from a copy of the random state.
    with evaluation_mode(model), torch.random.fork_rng(devices=[]):
        if fit_rows is not None:
            loader = _build_loader(fit_rows, family, processor, batch_size, show_progress)
            options = {**options, **_collect_training(model, processor, loader, record)}
        for batch in _build_loader(rows, family, processor, 1 if per_node else batch_size, show_progress):
            columns = record.predict(model, processor, move_to_model(batch, model))
            if per_node and limit is not None:
                columns = {name: values[: limit - num_rows] for name, values in columns.items()}
            num_examples = len(next(iter(columns.values())))
            if not num_examples:
                continue
            metric.add_batch(**columns)
            num_rows += num_examples
    if not num_rows:
        raise ValueError("`dataset` must hold labeled nodes in the split; got none.")
    num_fit_rows = 0 if fit_rows is None else len(fit_rows)
    return Measurement.from_result(record, metric.compute(**options), names or (), num_rows, num_fit_rows)


def evaluate_model(
    model: PreTrainedModel,
    processor: Any,
    dataset: Any,
    task: str,
    *,
    batch_size: int = 32,
    limit: int | None = None,
    label_names: Sequence[str] | None = None,
    train_dataset: Any = None,
    num_fit_rows: int | None = None,
    show_progress: bool = True,
) -> Scores:
    """Measure a model on one split.

    The model is put into eval mode and gets its modes back; the global random state is left alone, so a call in the
    middle of training does not change what the run learns.

    Args:
        model (`PreTrainedModel`): On any device, in any precision.
        processor: What the model was trained with; images and graphs pass through it as a user's would.
        dataset (`datasets.Dataset`): One split with the columns of the task's family (`decahub.load_dataset`). Graphs
            go through `decahub.data.select_split(graphs, "test/0")` before.
        task (`str`): A key of `TASKS`.
        batch_size (`int`, *optional*, defaults to 32): Rows per forward pass; graphs go one by one.
        limit (`int`, *optional*): Use only the first `limit` rows, or nodes.
        label_names (`Sequence[str]`, *optional*): Classes of the dataset in the order of their ids; by default those
            of its column of class ids.
        train_dataset (`datasets.Dataset`, *optional*): Training split, for tasks that fit a probe on it.
        num_fit_rows (`int`, *optional*): Number of its rows that a probe is fitted on, drawn at random, always the
            same; by default that of the task.
        show_progress (`bool`, *optional*, defaults to `True`): Whether to show a progress bar.

    Returns:
        `dict[str, float]`, by task:

        - drum generation: `bits_per_step` after the prompt, and `bits_per_step_of_lines`, separators and end left out;
        - image classification: `accuracy` and, where there are more than five classes, `top_5_accuracy`;
        - image feature extraction: `linear_probe_accuracy` and `knn_accuracy` of probes on `pooler_output`;
        - semantic segmentation: `mean_iou`, `mean_accuracy`, `overall_accuracy` and `iou_<class>`;
        - node classification: `accuracy`, `macro_f1` and, for two classes, `roc_auc`;
        - fair node classification: `accuracy`, `roc_auc`, `f1`, `statistical_parity_difference`,
          `equal_opportunity_difference`, `majority_class_accuracy`, and for each group `accuracy_group_<id>`,
          `positive_rate_group_<id>`, `true_positive_rate_group_<id>`.

        What the data leaves undefined is left out.

    Raises:
        ValueError: If the task is unknown, there is nothing to measure, or its classes are not the model's.
    """
    measurement = measure_model(
        model,
        processor,
        dataset,
        task,
        batch_size=batch_size,
        limit=limit,
        label_names=label_names,
        train_dataset=train_dataset,
        num_fit_rows=num_fit_rows,
        show_progress=show_progress,
    )
    return measurement.scores


def select_fit_rows(train_dataset: Any, num_rows: int) -> Any:
    """Training rows for a probe, drawn at random, since files may be sorted by class; always the same ones.

    Args:
        train_dataset (`datasets.Dataset`): Training split.
        num_rows (`int`): Number of rows; all if there are fewer.

    Raises:
        ValueError: If there is no training split, or fewer than two rows are asked for.
    """
    if train_dataset is None:
        raise ValueError("`train_dataset` must be the training rows, on which probes are fitted; got None.")
    if num_rows < 2:
        raise ValueError(f"`num_fit_rows` must be at least 2; got {num_rows}.")
    order = torch.randperm(len(train_dataset), generator=torch.Generator().manual_seed(0))
    return train_dataset.select(order[:num_rows].tolist())


def _collect_training(model: Any, processor: Any, loader: Any, record: EvaluationTask) -> dict[str, torch.Tensor]:
    """What a metric fits a probe on."""
    columns = [record.predict(model, processor, move_to_model(batch, model)) for batch in loader]
    return {f"train_{name}": torch.cat([column[name] for column in columns]) for name in columns[0]}


def _build_loader(rows: Any, family: ModuleType, processor: Any, batch_size: int, show_progress: bool) -> Any:
    loader = DataLoader(
        SeededTransform(rows, family.build_eval_transform(processor)),
        batch_size=batch_size,
        collate_fn=family.collate,
        generator=torch.Generator(),  # the loader draws from it where it would draw from the global one
    )
    return tqdm(loader, desc="Evaluating", disable=not show_progress, leave=False)


__all__ = [
    "check_label_names",
    "evaluate_model",
    "evaluation_mode",
    "get_metric_class",
    "measure_model",
    "select_fit_rows",
]
