"""What training RAW-GNN needs: the step of one epoch, and the parameter group of the authors' optimizer.

The authors' recipe (their main script): Adam, learning rate 0.05, weight decay 1e-3 as L2 inside Adam, full batch, at
most 200 epochs, the weights of the best validation accuracy, stopped 40 epochs after the last best one.
"""

from collections.abc import Mapping

import torch
from torch import nn


INPUTS = ("node_features", "edge_index", "labels", "train_mask", "target_nodes")


def build_parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """The one parameter group of `torch.optim.Adam`: everything decays, biases included.

    Args:
        model (`torch.nn.Module`): its parameters that require gradients are taken.
        weight_decay (`float`): 0.001 in the authors' code.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [{"params": parameters, "weight_decay": weight_decay}]


def training_step(model: nn.Module, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Loss on the training nodes, with walks that torch's generator draws anew.

    Args:
        model ([`RawGnnForNodeClassification`]): the model in training mode, possibly wrapped.
        batch (`Mapping`): `node_features`, `edge_index`, `labels`, and `train_mask` or `target_nodes` with their
            labels; further keys are left alone.

    Returns:
        `dict` with `loss`.
    """
    return {"loss": model(**{name: batch[name] for name in INPUTS if name in batch}).loss}


__all__ = ["build_parameter_groups", "training_step"]
