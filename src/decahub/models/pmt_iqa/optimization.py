"""Parameter groups, and the authors' schedule: a rate in steps of epochs, and an optimizer that forgets."""

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from ..shared.parameter_names import is_free_of_decay, iterate_trained, split_groups
from .weighting import official_learning_rate


BACKBONE = "pmt_iqa.backbone."


def build_parameter_groups(
    model: nn.Module, learning_rate: float, weight_decay: float, backbone_factor: float = 1.0
) -> list[dict]:
    """Parameter groups for AdamW: no decay for biases and norms, another rate for the backbone.

    Args:
        model ([`PmtIqaForImageQualityAssessment`]): Its parameters that require gradients are taken.
        learning_rate (`float`): Of branches and heads.
        weight_decay (`float`): Of matrices and convolutions.
        backbone_factor (`float`): Rate of the backbone relative to `learning_rate`.
    """
    groups = []
    for is_backbone, factor in ((True, backbone_factor), (False, 1.0)):
        named = [item for item in iterate_trained(model) if item[0].startswith(BACKBONE) == is_backbone]
        free = [is_free_of_decay(*item) for item in named]
        for group in split_groups(free, [item[1] for item in named], weight_decay):
            if group["params"]:
                groups.append({**group, "lr": learning_rate * factor})
    return groups


def build_official_optimizer(model: nn.Module, learning_rate: float, weight_decay: float) -> torch.optim.Adam:
    """The authors' optimizer: Adam over all parameters, whose decay is a part of the gradient (L2)."""
    parameters = [parameter for _, parameter in iterate_trained(model)]
    return torch.optim.Adam(parameters, lr=learning_rate, weight_decay=weight_decay)


class OfficialSchedule(LambdaLR):
    """The authors' learning rate, constant within an epoch, and an optimizer that starts anew in each.

    Args:
        optimizer (`torch.optim.Optimizer`): Whose groups carry the base rates.
        steps_per_epoch (`int`): Optimizer steps of an epoch.
        reset_optimizer (`bool`): Whether moments are forgotten after each epoch, as the authors' code does by building
            a new optimizer.
    """

    def __init__(self, optimizer: Optimizer, steps_per_epoch: int, reset_optimizer: bool = True):
        self.steps_per_epoch = steps_per_epoch
        self.reset_optimizer = reset_optimizer
        super().__init__(optimizer, lambda step: official_learning_rate(step // steps_per_epoch, 1.0))

    def step(self, epoch: int | None = None) -> None:
        super().step(epoch)
        if self.reset_optimizer and self.last_epoch and self.last_epoch % self.steps_per_epoch == 0:
            self.optimizer.state.clear()


__all__ = ["OfficialSchedule", "build_official_optimizer", "build_parameter_groups"]
