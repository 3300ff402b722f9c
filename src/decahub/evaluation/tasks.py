"""What evaluating means for each task: family of data, prediction, metric, figures. One record per task."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel


Figures = dict[str, float]
TOP_K = (1, 5)


@dataclass(frozen=True)
class EvaluationTask:
    """How one task is evaluated.

    Args:
        name: Key in `TASKS`; the Hub's name of the task.
        family: Family of data: the module `decahub.data.<family>` with `-` read as `_`, which gives
            `build_eval_transform` and `collate`.
        metric: Name for `decahub.load_metric`.
        model_class: Auto class of transformers that loads the model.
        processor_class: Auto class of transformers that loads what turns rows into tensors.
        predict: `predict(model, processor, batch)` gives the arguments of the metric's `add_batch`.
        summarize: `summarize(metric, label_names)` gives the figures of all that was added.
    """

    name: str
    family: str
    metric: str
    model_class: str
    processor_class: str
    predict: Callable[[Any, Any, Mapping[str, Any]], dict[str, Any]]
    summarize: Callable[[Any, Sequence[str]], Figures]


def _predict_class_scores(model: Any, processor: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    return {"predictions": model(**inputs).logits.float().cpu(), "references": batch["labels"].cpu()}


def _summarize_top_k(metric: Any, label_names: Sequence[str]) -> Figures:
    return metric.compute(k=[k for k in TOP_K if k < len(label_names)])


def _predict_masks(model: Any, processor: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
    outputs = model(pixel_values=batch["pixel_values"])
    target_sizes = [tuple(labels.shape) for labels in batch["labels"]]
    masks = processor.post_process_semantic_segmentation(outputs, target_sizes=target_sizes)
    return {"predictions": [mask.cpu() for mask in masks], "references": [labels.cpu() for labels in batch["labels"]]}


def _summarize_mean_iou(metric: Any, label_names: Sequence[str]) -> Figures:
    result = metric.compute(num_labels=len(label_names))
    figures = {name: result[name] for name in ("mean_iou", "mean_accuracy", "overall_accuracy")}
    by_class = zip(label_names, result["per_category_iou"], strict=True)
    # A class that the data set lacks has no figure.
    return figures | {f"iou_{name}": value for name, value in by_class if not math.isnan(value)}


TASKS: dict[str, EvaluationTask] = {
    task.name: task
    for task in (
        EvaluationTask(
            name="image-classification",
            family="image-classification",
            metric="top_k_accuracy",
            model_class="AutoModelForImageClassification",
            processor_class="AutoImageProcessor",
            predict=_predict_class_scores,
            summarize=_summarize_top_k,
        ),
        EvaluationTask(
            name="semantic-segmentation",
            family="semantic-segmentation",
            metric="mean_iou",
            model_class="AutoModelForSemanticSegmentation",
            processor_class="AutoImageProcessor",
            predict=_predict_masks,
            summarize=_summarize_mean_iou,
        ),
    )
}


def move_to_model(batch: Mapping[str, Any], model: PreTrainedModel) -> dict[str, Any]:
    """A batch with its tensors on the device of `model`, floating ones in its precision."""

    def move(value: Any) -> Any:
        if isinstance(value, list):
            return [move(item) for item in value]
        if not isinstance(value, torch.Tensor):
            return value
        return value.to(model.device, model.dtype if value.is_floating_point() else None)

    return {name: move(value) for name, value in batch.items()}


__all__ = ["TASKS", "EvaluationTask", "Figures", "move_to_model"]
