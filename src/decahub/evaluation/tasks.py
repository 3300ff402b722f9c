"""What evaluating means for each task: family of data, prediction, metric, scores. One record per task."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers import PreTrainedModel


Scores = dict[str, float]
Counts = dict[str, int]
TOP_K = (1, 5)
UNLABELED = -100  # what a node without a label carries
# What a graph brings along that is not for the model: answers, and which nodes they are for.
ANSWERS = ("labels", "sensitive", "train_mask", "validation_mask", "test_mask", "evaluation_mask")


def _count_nothing(result: Mapping[str, Any]) -> Counts:
    return {}


@dataclass(frozen=True)
class EvaluationTask:
    """How one task is evaluated.

    Args:
        name: Key in `TASKS`; the Hub's name of the task where it has the task.
        family: Family of data: the module `decahub.data.<family>` with `-` read as `_`, which gives
            `build_eval_transform` and `collate`, and `select_split` where a split is more than a name.
        metric: Name for `decahub.load_metric`.
        model_class: Auto class of transformers that loads the model.
        processor_class: Auto class of transformers that loads what turns rows into tensors.
        predict: `predict(model, processor, batch)` gives the arguments of the metric's `add_batch`.
        get_options: `get_options(label_names)` gives the arguments of the metric's `compute`.
        summarize: `summarize(result, label_names)` gives the scores in what `compute` returned, the headline first.
        count: `count(result)` gives the number of examples behind a score, where it is not that of all.
        unit: What is counted and limited: rows of the dataset, or nodes of the graphs in its rows.
        needs_groups: Whether the data must name the group of each example.
        num_fit_rows: Number of training rows on whose predictions the metric fits what it measures, where `compute`
            takes them as `train_predictions` and `train_references`; 0 where the model itself gives the answers.
    """

    name: str
    family: str
    metric: str
    model_class: str
    processor_class: str
    predict: Callable[[Any, Any, Mapping[str, Any]], dict[str, Any]]
    get_options: Callable[[Sequence[str]], dict[str, Any]]
    summarize: Callable[[Mapping[str, Any], Sequence[str]], Scores]
    count: Callable[[Mapping[str, Any]], Counts] = _count_nothing
    unit: Literal["row", "node"] = "row"
    needs_groups: bool = False
    num_fit_rows: int = 0


# Images


def _predict_class_scores(model: Any, processor: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    return {"predictions": model(**inputs).logits.float().cpu(), "references": batch["labels"].cpu()}


def _choose_k(label_names: Sequence[str]) -> dict[str, Any]:
    return {"k": [k for k in TOP_K if k < len(label_names)]}


def _take_all(result: Mapping[str, Any], label_names: Sequence[str]) -> Scores:
    return dict(result)


def _predict_features(model: Any, processor: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
    outputs = model(pixel_values=batch["pixel_values"])
    if outputs.get("pooler_output") is None:
        raise ValueError(
            f"`model` must return `pooler_output`, the features of an image; {type(model).__name__} does not. Load it "
            "with `AutoModel`."
        )
    return {"predictions": outputs.pooler_output.flatten(1).float().cpu(), "references": batch["labels"].cpu()}


def _predict_masks(model: Any, processor: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
    outputs = model(pixel_values=batch["pixel_values"])
    target_sizes = [tuple(labels.shape) for labels in batch["labels"]]
    masks = processor.post_process_semantic_segmentation(outputs, target_sizes=target_sizes)
    return {"predictions": [mask.cpu() for mask in masks], "references": [labels.cpu() for labels in batch["labels"]]}


def _use_defaults(label_names: Sequence[str]) -> dict[str, Any]:
    return {}


def _tell_num_labels(label_names: Sequence[str]) -> dict[str, Any]:
    return {"num_labels": len(label_names)}


def _summarize_mean_iou(result: Mapping[str, Any], label_names: Sequence[str]) -> Scores:
    scores = {name: result[name] for name in ("mean_iou", "mean_accuracy", "overall_accuracy")}
    by_class = zip(label_names, result["per_category_iou"], strict=True)
    # A class that the dataset lacks has no score.
    return scores | {f"iou_{name}": value for name, value in by_class if not math.isnan(value)}


# Nodes of graphs


def predict_nodes(model: Any, inputs: Mapping[str, Any]) -> torch.Tensor:
    """Class scores of all nodes of a graph, in float32 at least.

    Args:
        model (`PreTrainedModel`): A node classifier.
        inputs (`Mapping`): Tensors of one graph (`decahub.data.node_classification.build_graph_inputs`).
    """
    logits = model(**{name: value for name, value in inputs.items() if name not in ANSWERS}).logits
    return logits if logits.dtype == torch.float64 else logits.float()


def gather_nodes(logits: torch.Tensor, inputs: Mapping[str, Any], mask: torch.Tensor, needs_groups: bool) -> dict:
    """The arguments of a metric's `add_batch` for the labeled nodes of a mask.

    Raises:
        ValueError: If the groups of nodes are needed, and the graph has none.
    """
    chosen = (mask & (inputs["labels"] != UNLABELED)).nonzero().squeeze(1)
    columns = {"predictions": logits[chosen].detach().cpu(), "references": inputs["labels"][chosen].cpu()}
    if needs_groups:
        if inputs.get("sensitive") is None:
            raise ValueError(
                "the graph must have `sensitive`, the group of each node; got none. Add the column, or choose the "
                "task 'node-classification'."
            )
        columns["groups"] = inputs["sensitive"][chosen].cpu()
    return columns


def _predict_nodes(model: Any, processor: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
    return gather_nodes(predict_nodes(model, batch), batch, batch["evaluation_mask"], needs_groups=False)


def _predict_nodes_of_groups(model: Any, processor: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
    return gather_nodes(predict_nodes(model, batch), batch, batch["evaluation_mask"], needs_groups=True)


def _take_defined(result: Mapping[str, Any], label_names: Sequence[str]) -> Scores:
    return {name: value for name, value in result.items() if value is not None}


# Rates of each group: key in the result of the metric, name of the score, key of the number of nodes behind it.
GROUP_RATES = (
    ("group_accuracies", "accuracy", "group_counts"),
    ("group_positive_rates", "positive_rate", "group_counts"),
    ("group_true_positive_rates", "true_positive_rate", "group_positive_counts"),
)


def _spread_groups(result: Mapping[str, Any], values: str) -> dict[str, Any]:
    """A list over groups by `_group_<id>`; where it holds lists over classes, by `_group_<id>_class_<id>`."""
    spread: dict[str, Any] = {}
    for group, value in zip(result["groups"], result[values], strict=True):
        if isinstance(value, list):
            spread |= {f"_group_{group}_class_{label}": item for label, item in enumerate(value)}
        else:
            spread[f"_group_{group}"] = value
    return spread


def _summarize_fairness(result: Mapping[str, Any], label_names: Sequence[str]) -> Scores:
    scores = {name: value for name, value in result.items() if isinstance(value, float)}
    for values, name, _ in GROUP_RATES:
        rates = _spread_groups(result, values).items()
        scores |= {f"{name}{ending}": value for ending, value in rates if value is not None}
    return scores


def _count_groups(result: Mapping[str, Any]) -> Counts:
    counts = {}
    for values, name, numbers in GROUP_RATES:
        sizes = _spread_groups(result, numbers)
        for ending in _spread_groups(result, values):
            counts[f"{name}{ending}"] = sizes[ending] if ending in sizes else sizes[ending.split("_class_")[0]]
    return counts


# Grooves


def _predict_costs(model: Any, processor: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
    """Nats of what follows each prompt, when every token is predicted from those that truly stand before it."""
    inputs = {name: value for name, value in batch.items() if name != "is_mark"}
    losses = model(**inputs, use_cache=False, skip_logits=True).token_losses.double()
    positions = torch.arange(losses.shape[1], device=losses.device)
    # The loss at a position is that of the token after it.
    losses = losses * (positions >= batch["prompt_lengths"][:, None] - 1)
    marks = torch.nn.functional.pad(batch["is_mark"][:, 1:], (0, 1))
    return {
        "nll": losses.sum(1).tolist(),
        "separator_nll": (losses * marks).sum(1).tolist(),
        "num_steps": batch["num_steps"].tolist(),
    }


def _leave_out_intervals(label_names: Sequence[str]) -> dict[str, Any]:
    return {"num_resamples": 0}


def _summarize_costs(result: Mapping[str, Any], label_names: Sequence[str]) -> Scores:
    bits, separators = result["bits_per_step"], result["separator_bits_per_step"]
    return {"bits_per_step": bits, "bits_per_step_of_lines": bits - separators}


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
            get_options=_choose_k,
            summarize=_take_all,
        ),
        EvaluationTask(
            name="image-feature-extraction",
            family="image-classification",
            metric="feature_probe",
            model_class="AutoModel",
            processor_class="AutoImageProcessor",
            predict=_predict_features,
            get_options=_use_defaults,
            summarize=_take_all,
            num_fit_rows=6000,
        ),
        EvaluationTask(
            name="drum-generation",
            family="drum-generation",
            metric="drum_structure",
            model_class="AutoModelForCausalLM",
            processor_class="AutoProcessor",
            predict=_predict_costs,
            get_options=_leave_out_intervals,
            summarize=_summarize_costs,
        ),
        EvaluationTask(
            name="semantic-segmentation",
            family="semantic-segmentation",
            metric="mean_iou",
            model_class="AutoModelForSemanticSegmentation",
            processor_class="AutoImageProcessor",
            predict=_predict_masks,
            get_options=_tell_num_labels,
            summarize=_summarize_mean_iou,
        ),
        EvaluationTask(
            name="node-classification",
            family="node-classification",
            metric="node_accuracy",
            model_class="AutoModelForNodeClassification",
            processor_class="AutoFeatureExtractor",
            predict=_predict_nodes,
            get_options=_use_defaults,
            summarize=_take_defined,
            unit="node",
        ),
        EvaluationTask(
            name="fair-node-classification",
            family="node-classification",
            metric="group_fairness",
            model_class="AutoModelForNodeClassification",
            processor_class="AutoFeatureExtractor",
            predict=_predict_nodes_of_groups,
            get_options=_use_defaults,
            summarize=_summarize_fairness,
            count=_count_groups,
            unit="node",
            needs_groups=True,
        ),
    )
}


def get_task(name: str) -> EvaluationTask:
    """The record of a task.

    Raises:
        ValueError: If decahub evaluates no such task.
    """
    if name not in TASKS:
        raise ValueError(f"`task` must be one of {', '.join(TASKS)}; got {name!r}.")
    return TASKS[name]


@dataclass(frozen=True)
class Measurement:
    """What an evaluation found.

    Attributes:
        scores (`dict[str, float]`): The headline first.
        num_rows (`int`): Number of examples that were measured; of a graph, its labeled nodes in the split.
        counts (`dict[str, int]`): Number of examples behind a score, where it is not `num_rows`.
        num_fit_rows (`int`): Number of training rows that a probe was fitted on; 0 where none is.
    """

    scores: Scores
    num_rows: int
    counts: Counts
    num_fit_rows: int = 0

    @classmethod
    def from_result(
        cls,
        task: EvaluationTask,
        result: Mapping[str, Any],
        label_names: Sequence[str],
        num_rows: int,
        num_fit_rows: int = 0,
    ) -> "Measurement":
        """What a metric returned, as scores with their counts."""
        scores, counts = task.summarize(result, label_names), task.count(result)
        counts = {name: number for name, number in counts.items() if name in scores}
        return cls(scores, num_rows, counts, num_fit_rows)


def move_to_model(batch: Mapping[str, Any], model: PreTrainedModel) -> dict[str, Any]:
    """A batch with its tensors on the device of `model`, floating ones in its precision."""

    def move(value: Any) -> Any:
        if isinstance(value, list):
            return [move(item) for item in value]
        if not isinstance(value, torch.Tensor):
            return value
        return value.to(model.device, model.dtype if value.is_floating_point() else None)

    return {name: move(value) for name, value in batch.items()}


__all__ = [
    "TASKS",
    "EvaluationTask",
    "Scores",
    "Measurement",
    "gather_nodes",
    "get_task",
    "move_to_model",
    "predict_nodes",
]
