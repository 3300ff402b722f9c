"""What RefT's training stages need of an optimizer: parameter groups, the parts a stage trains, new rows, the step.

Parameter groups are those of Mask2Former; the frozen parts of the second stage are our reading of the paper.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
from torch import nn

from ..shared.parameter_names import WRAPPERS, iterate_trained


Setting = Literal["base", "fsis", "gfsis", "ifsis"]

BACKBONE = "model.pixel_level_module.encoder."
PROJECTIONS = "model.pixel_level_module.decoder.input_projections."
LAYER = re.compile(r"_\d+$")  # of a term of the loss
FREE_MODULES = (nn.LayerNorm, nn.GroupNorm, nn.BatchNorm2d, nn.Embedding)
FREE_NAMES = ("level_embed", "relative_position_bias_table", "logit_scale")
TRAINED_IN_IFSIS = re.compile(
    r"model\.pixel_level_module\.decoder\.input_projections\..*|model\.(feature|query)_reference\..*|class_predictor\..*"
)


def build_parameter_groups(
    model: nn.Module,
    learning_rate: float,
    weight_decay: float = 0.05,
    backbone_factor: float = 0.1,
    projection_factor: float = 1.0,
) -> list[dict]:
    """Parameter groups for AdamW.

    Args:
        model ([`RefTForFewShotInstanceSegmentation`]): its parameters that require gradients are taken.
        learning_rate (`float`): of everything but the backbone.
        weight_decay (`float`): of everything but norms, embeddings and tables of relative positions.
        backbone_factor (`float`): learning rate of the backbone as a share of the others.
        projection_factor (`float`): that of the input projections of the pixel decoder.

    Returns:
        Dictionaries with `params`, `lr` and `weight_decay`; groups without parameters are left out.
    """
    free = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, FREE_MODULES)
        for parameter in module.parameters(recurse=False)
    }
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in iterate_trained(model):
        factors = {BACKBONE: backbone_factor, PROJECTIONS: projection_factor}
        rate = learning_rate * next((factor for part, factor in factors.items() if name.startswith(part)), 1)
        decay = 0.0 if id(parameter) in free or name.endswith(FREE_NAMES) else weight_decay
        groups.setdefault((rate, decay), []).append(parameter)
    return [{"params": parameters, "lr": rate, "weight_decay": decay} for (rate, decay), parameters in groups.items()]


def freeze_for_setting(model: nn.Module, setting: Setting) -> None:
    """Freezes what a training stage leaves alone.

    Args:
        model ([`RefTForFewShotInstanceSegmentation`]): changed in place.
        setting (`str`): `"base"` for the first stage, which trains everything; `"fsis"` and `"gfsis"` freeze the
            backbone; `"ifsis"` trains the input projections of the pixel decoder, the references and the class head.

    Raises:
        ValueError: If the setting does not exist.
    """
    if setting not in ("base", "fsis", "gfsis", "ifsis"):
        raise ValueError(f"`setting` must be one of base, fsis, gfsis, ifsis; got {setting!r}.")
    for name, parameter in model.named_parameters():
        name = WRAPPERS.sub("", name)
        if setting == "ifsis":
            is_frozen = TRAINED_IN_IFSIS.fullmatch(name) is None
        else:
            is_frozen = setting != "base" and name.startswith(BACKBONE)
        if is_frozen:
            parameter.requires_grad_(False)


@torch.no_grad()
def reset_class_rows(model: nn.Module, label_ids: Iterable[int]) -> None:
    """Begins the rows of classes anew in a linear head, which base training has taught never to answer.

    Weights become small random numbers, biases the mean bias of the other classes. The rows of a cosine head come from
    the shots instead (`register_support(..., imprint=True)`), and a prototype head has none.

    Args:
        model ([`RefTForFewShotInstanceSegmentation`]): with a linear head.
        label_ids (`Iterable[int]`): classes.

    Raises:
        ValueError: If the head is not linear.
    """
    predictor: Any = model.class_predictor
    if not isinstance(predictor, nn.Linear):
        raise ValueError(f"`model` must have a linear classifier; got {type(predictor).__name__}.")
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
        term = LAYER.sub("", name)
        terms[term] = terms.get(term, 0) + value.detach()
    return {"loss": outputs.loss, **terms}


__all__ = ["build_parameter_groups", "freeze_for_setting", "reset_class_rows", "training_step"]
