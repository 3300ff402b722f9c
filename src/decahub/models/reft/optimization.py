"""What training RefT needs of an optimizer: parameter groups, frozen parts, the rows of new classes, and the step."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
from torch import nn

from ..shared.parameter_names import is_free_of_decay, iterate_trained
from .classifiers import RefTPrototypeClassifier


Freeze = Literal["nothing", "backbone", "incremental"]
BACKBONE = "pixel_level_module.encoder."
PROJECTIONS = "pixel_level_module.decoder.input_projections."
# What learns new classes where all else is frozen: both references, the classifier, the inputs of the pixel decoder.
INCREMENTAL = re.compile(rf"(^|\.)({re.escape(PROJECTIONS)}|feature_reference\.|query_reference\.|class_predictor\.)")
# Learned queries, level embeddings and tables of relative positions are no weights of a layer.
EMBEDDINGS = re.compile(r"(queries_features|queries_embedder)\.weight$|level_embed|relative_position_bias_table$")
LAYER = re.compile(r"_\d+$")


def freeze(model: nn.Module, part: Freeze) -> None:
    """Freezes a part of a model; parameters that are frozen already stay so.

    Args:
        model ([`RefTForFewShotInstanceSegmentation`]): the model.
        part (`str`): "nothing"; "backbone"; or "incremental", which is all but the input projections of the pixel
            decoder, the references and the classifier.
    """
    if part not in ("nothing", "backbone", "incremental"):
        raise ValueError(f"`part` must be one of nothing, backbone, incremental; got {part!r}.")
    for name, parameter in model.named_parameters():
        if (part == "backbone" and BACKBONE in name) or (part == "incremental" and not INCREMENTAL.search(name)):
            parameter.requires_grad_(False)


def build_parameter_groups(
    model: nn.Module,
    learning_rate: float,
    weight_decay: float = 0.05,
    backbone_factor: float = 0.1,
    projection_factor: float = 1.0,
) -> list[dict[str, Any]]:
    """Parameter groups for AdamW: a smaller rate for the backbone; no decay for norms, biases and embeddings.

    Args:
        model ([`RefTForFewShotInstanceSegmentation`]): its parameters that require gradients are taken.
        learning_rate (`float`): of all that is not the backbone.
        weight_decay (`float`): of weights.
        backbone_factor (`float`): rate of the backbone in units of `learning_rate`.
        projection_factor (`float`): rate of the input projections of the pixel decoder.

    Returns:
        Dictionaries with `params`, `lr` and `weight_decay`, those with `learning_rate` first.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in iterate_trained(model):
        factor = backbone_factor if BACKBONE in name else projection_factor if PROJECTIONS in name else 1.0
        is_free = is_free_of_decay(name, parameter) or EMBEDDINGS.search(name) is not None
        groups.setdefault((factor, 0.0 if is_free else weight_decay), []).append(parameter)
    ordered = sorted(groups.items(), key=lambda item: (item[0][0] != 1.0, item[0]))
    return [
        {"params": parameters, "lr": learning_rate * factor, "weight_decay": decay}
        for (factor, decay), parameters in ordered
    ]


@torch.no_grad()
def reset_class_rows(model: nn.Module, label_ids: Iterable[int]) -> None:
    """Begins the rows of classes anew in a linear head, which base training has taught never to answer.

    Weights become small random numbers, biases the mean bias of the other classes. The rows of a cosine head come from
    the shots instead (`register_support(..., imprint=True)`), and a prototype head has none.

    Args:
        model ([`RefTForFewShotInstanceSegmentation`]): with a linear head.
        label_ids (`Iterable[int]`): classes.
    """
    predictor: Any = model.class_predictor
    if not isinstance(predictor, nn.Linear):
        kind = "prototype" if isinstance(predictor, RefTPrototypeClassifier) else "cosine"
        raise ValueError(f"`model` must have a linear classifier; got a {kind} classifier.")
    new = set(label_ids)
    others = [label for label in range(predictor.out_features - 1) if label not in new]
    for label in sorted(new):
        nn.init.normal_(predictor.weight[label], std=model.config.init_std)
        predictor.bias[label] = predictor.bias[others].mean() if others else 0.0


def training_step(model: nn.Module, batch: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The loss of a batch; beside it, for the log, each term summed over the decoder layers."""
    outputs = model(**batch)
    terms: dict[str, torch.Tensor] = {}
    for name, value in outputs.loss_dict.items():
        name = LAYER.sub("", name)
        terms[name] = terms.get(name, 0) + value.detach()
    return {"loss": outputs.loss, **terms}


__all__ = ["build_parameter_groups", "freeze", "reset_class_rows", "training_step"]
