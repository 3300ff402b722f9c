"""What training Drum LM needs beside the model: parameter groups and the step."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


def build_parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameters that are trained: matrices with weight decay, and embeddings, norms and biases without."""
    embeddings = {id(parameter) for parameter in model.get_input_embeddings().parameters()}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trained:
        raise ValueError("`model` must have parameters that require a gradient; all are frozen.")
    decayed = [parameter for parameter in trained if parameter.dim() > 1 and id(parameter) not in embeddings]
    free = [parameter for parameter in trained if parameter.dim() < 2 or id(parameter) in embeddings]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def training_step(model: nn.Module, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Loss of one batch of grooves, and what it costs to write them in bits for each sixteenth note."""
    outputs = model(**batch, use_cache=False, skip_logits=True)
    terms = {"loss": outputs.loss}
    if outputs.bits_per_step is not None:
        terms["bits_per_step"] = outputs.bits_per_step.detach()
    if outputs.expression_errors is not None:
        velocity, offset, hits = outputs.expression_errors.detach().sum(0)
        terms |= {"velocity_error": velocity / hits.clamp_min(1), "timing_error": offset / hits.clamp_min(1)}
    return terms


__all__ = ["build_parameter_groups", "training_step"]
