"""What RefT's training stages need of an optimizer: parameter groups, and which parts a stage trains.

Parameter groups are those of Mask2Former; the frozen parts of the second stage are our reading of the paper.
"""

import re
from typing import Literal

from torch import nn

from ..shared.parameter_names import WRAPPERS, iterate_trained


Setting = Literal["base", "fsis", "gfsis", "ifsis"]

BACKBONE = "model.pixel_level_module.encoder."
FREE_MODULES = (nn.LayerNorm, nn.GroupNorm, nn.BatchNorm2d, nn.Embedding)
FREE_NAMES = ("level_embed", "relative_position_bias_table", "logit_scale")
TRAINED_IN_IFSIS = re.compile(
    r"model\.pixel_level_module\.decoder\.input_projections\..*|model\.(feature|query)_reference\..*|class_predictor\..*"
)


def build_parameter_groups(
    model: nn.Module, learning_rate: float, weight_decay: float = 0.05, backbone_factor: float = 0.1
) -> list[dict]:
    """Parameter groups for AdamW.

    Args:
        model ([`RefTForFewShotInstanceSegmentation`]): its parameters that require gradients are taken.
        learning_rate (`float`): of everything but the backbone.
        weight_decay (`float`): of everything but norms, embeddings and tables of relative positions.
        backbone_factor (`float`): learning rate of the backbone as a share of the others.

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
        rate = learning_rate * (backbone_factor if name.startswith(BACKBONE) else 1)
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


__all__ = ["build_parameter_groups", "freeze_for_setting"]
