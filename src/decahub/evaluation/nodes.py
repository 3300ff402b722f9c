"""Scores of the nodes of one graph, from tensors that are at hand: cheap enough for every epoch of a training run."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as functional
from transformers import PreTrainedModel

from .driver import evaluation_mode, get_metric_class
from .tasks import UNLABELED, Measurement, Scores, gather_nodes, get_task, move_to_model, predict_nodes


def measure_nodes(
    model: PreTrainedModel,
    inputs: Mapping[str, Any],
    mask: torch.Tensor,
    task: str = "node-classification",
) -> Measurement:
    """Measure a model on some nodes of a graph, and tell on how many.

    As [`evaluate_nodes`] with a single mask.

    Returns:
        [`Measurement`]: what [`build_evaluation`] takes.
    """
    return _measure(_predict(model, inputs), inputs, mask, task, model)


def evaluate_nodes(
    model: PreTrainedModel,
    inputs: Mapping[str, Any],
    mask: torch.Tensor | Mapping[str, torch.Tensor],
    task: str = "node-classification",
    *,
    with_loss: bool = False,
) -> Scores:
    """Measure a model on some nodes of a graph: the scores of [`evaluate_model`], without reading the graph again.

    The model is put into eval mode and gets its modes back; the global random state is left alone.

    Args:
        model (`PreTrainedModel`): A node classifier, on any device, in any precision.
        inputs (`Mapping`): Tensors of one graph (`decahub.data.node_classification.build_graph_inputs`); all but
            labels, groups and masks are passed to the model.
        mask (`torch.BoolTensor` of shape `(num_nodes,)`, or several by name): Nodes to measure; those without a label
            are left out. Several share one forward pass, and their scores are called `<name>_<score>`.
        task (`str`, *optional*, defaults to `"node-classification"`): Or `"fair-node-classification"`, for which
            `inputs` holds `sensitive`.
        with_loss (`bool`, *optional*, defaults to `False`): Whether to add `loss`, the mean cross entropy.

    Returns:
        `dict[str, float]`: the headline first; what the data leaves undefined is left out.

    Raises:
        ValueError: If the task is unknown, or a mask holds no labeled node.
    """
    logits = _predict(model, inputs)
    scores: Scores = {}
    masks = mask if isinstance(mask, Mapping) else {"": mask}
    for name, nodes in masks.items():
        part = _measure(logits, inputs, nodes, task, model).scores
        if with_loss:
            labels = inputs["labels"].masked_fill(~nodes, UNLABELED).to(logits.device)
            part["loss"] = float(functional.cross_entropy(logits, labels, ignore_index=UNLABELED))
        scores |= {f"{name}_{score}" if name else score: value for score, value in part.items()}
    return scores


def _predict(model: PreTrainedModel, inputs: Mapping[str, Any]) -> torch.Tensor:
    with evaluation_mode(model), torch.random.fork_rng(devices=[]):
        return predict_nodes(model, move_to_model(inputs, model))


def _measure(
    logits: torch.Tensor, inputs: Mapping[str, Any], mask: torch.Tensor, task: str, model: PreTrainedModel
) -> Measurement:
    record = get_task(task)
    if record.unit != "node":
        raise ValueError(f"`task` must be one of nodes; got {task!r}. Use `evaluate_model`.")
    if mask.shape != inputs["labels"].shape or mask.dtype != torch.bool:
        raise ValueError(
            f"`mask` must be booleans of shape {tuple(inputs['labels'].shape)}; got {mask.dtype} of shape "
            f"{tuple(mask.shape)}."
        )
    columns = gather_nodes(logits.to(mask.device), inputs, mask, record.needs_groups)
    if not len(columns["references"]):
        raise ValueError(f"`mask` must select at least one labeled node; got {int(mask.sum())} nodes, none labeled.")
    result = get_metric_class(record.metric)(keep_in_memory=True).measure(**columns)
    id2label: Any = model.config.id2label
    return Measurement.from_result(record, result, list(id2label.values()), len(columns["references"]))


__all__ = ["evaluate_nodes", "measure_nodes"]
