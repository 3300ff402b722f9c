"""Parameter groups of CMT's training recipe.

Source: the authors' configurations (AdamW; the image backbone at a hundredth of the learning rate, the image neck at a
tenth).
"""

from torch import nn

from ..shared.parameter_names import iterate_trained


BACKBONE_RATE_FACTOR, BACKBONE_DECAY_FACTOR, NECK_RATE_FACTOR = 0.01, 5.0, 0.1


def build_parameter_groups(
    model: nn.Module,
    learning_rate: float,
    weight_decay: float,
    backbone_rate_factor: float = BACKBONE_RATE_FACTOR,
    backbone_decay_factor: float = BACKBONE_DECAY_FACTOR,
    neck_rate_factor: float = NECK_RATE_FACTOR,
) -> list[dict]:
    """Parameter groups for AdamW: the image backbone, the image neck, and the rest; empty groups are left out.

    The published factors are for image backbones with pre-trained weights; one that starts from random weights needs a
    factor of 1.

    Args:
        model ([`CmtForObjectDetection3D`]): Only parameters that require gradients are included.
        learning_rate (`float`): Base learning rate, 1e-4 in the paper.
        weight_decay (`float`): 0.01 in the paper; biases and norms decay, too.
        backbone_rate_factor (`float`): Learning rate of the image backbone, relative to the base.
        backbone_decay_factor (`float`): Weight decay of the image backbone, relative to `weight_decay`.
        neck_rate_factor (`float`): Learning rate of the image neck, relative to the base.

    Returns:
        Up to three dictionaries with `params`, `lr` and `weight_decay`.
    """
    factors = {
        "image_backbone": (backbone_rate_factor, backbone_decay_factor),
        "image_neck": (neck_rate_factor, 1.0),
        "": (1.0, 1.0),
    }
    parameters: dict[str, list[nn.Parameter]] = {part: [] for part in factors}
    for name, parameter in iterate_trained(model):
        parts = name.split(".")
        parameters[next((part for part in factors if part in parts), "")].append(parameter)
    return [
        {"params": parameters[part], "lr": rate * learning_rate, "weight_decay": decay * weight_decay}
        for part, (rate, decay) in factors.items()
        if parameters[part]
    ]


__all__ = ["build_parameter_groups"]
