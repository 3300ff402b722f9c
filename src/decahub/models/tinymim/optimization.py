"""What TinyMIM's recipes need of an optimizer: parameter groups, the learning rate by epoch, and training steps.

The recipes are those of the authors' code for ImageNet-1k pre-training and fine-tuning.
"""

import math
import re
from collections.abc import Mapping

import torch
from torch import nn

from ..shared.parameter_names import is_free_of_decay, iterate_trained, split_groups


LAYER_NAME = re.compile(r"(?:^|\.)layers\.(\d+)\.")
# Learned tokens and positions, which have more than one dimension but are no weights of a layer.
TOKENS = ("cls_token", "distillation_token", "position_embeddings")


def build_pretraining_parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Parameter groups for AdamW in pre-training: no decay for biases and other one-dimensional parameters.

    The class token is decayed, as in the authors' code.

    Args:
        model (`torch.nn.Module`): its parameters that require gradients are taken.
        weight_decay (`float`): decay of the others, 0.05 in the paper.

    Returns:
        Two dictionaries with `params` and `weight_decay`.
    """
    named = list(iterate_trained(model))
    return split_groups([is_free_of_decay(*item) for item in named], [item[1] for item in named], weight_decay)


def get_layer_id(name: str, num_hidden_layers: int) -> int:
    """Depth of a parameter: 0 for embeddings, 1 to `num_hidden_layers` for blocks, one more for all else."""
    if "embeddings." in name:
        return 0
    match = LAYER_NAME.search(name)
    # Layers of other parts, such as a decoder, come after the blocks.
    if match and name.removeprefix("tinymim.").startswith("layers."):
        return int(match.group(1)) + 1
    return num_hidden_layers + 1


def build_layer_decay_parameter_groups(
    model: nn.Module,
    learning_rate: float,
    weight_decay: float,
    layer_decay: float = 0.65,
    decay_embeddings: bool = False,
) -> list[dict]:
    """Parameter groups for AdamW in fine-tuning: the learning rate falls from the last layer to the first.

    A parameter of depth `id` gets `learning_rate * layer_decay ** (num_hidden_layers + 1 - id)`; schedules that scale
    the rates of groups keep these ratios, at their lower end as well.

    Args:
        model ([`TinyMimForImageClassification`] or [`TinyMimForSemanticSegmentation`]): its parameters that require
            gradients are taken.
        learning_rate (`float`): of the head.
        weight_decay (`float`): 0.05 in the paper; biases, other one-dimensional parameters and, unless
            `decay_embeddings`, learned tokens and positions are free of it.
        layer_decay (`float`): ratio of neighboring layers in (0, 1]: 0.65 for ImageNet, 0.75 (base) or 0.8
            (TinyMIM*-T) for ADE20K; 1 for none.
        decay_embeddings (`bool`): the authors' segmentation code decays tokens and positions, too, because it looks
            for them under other names.

    Returns:
        Dictionaries with `params`, `lr`, `lr_scale`, `weight_decay`, first layers first.

    Raises:
        ValueError: If `layer_decay` is out of range.
    """
    if not 0 < layer_decay <= 1:
        raise ValueError(f"`layer_decay` must lie in (0, 1]; got {layer_decay}.")
    depth = getattr(model, "module", model).config.num_hidden_layers  # data parallel wrappers have no `config`
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in iterate_trained(model):
        is_token = not decay_embeddings and name.rsplit(".", 1)[-1] in TOKENS
        is_free = is_free_of_decay(name, parameter) or is_token
        groups.setdefault((get_layer_id(name, depth), is_free), []).append(parameter)
    described = []
    for (layer_id, is_free), parameters in sorted(groups.items(), key=lambda item: item[0]):
        scale = layer_decay ** (depth + 1 - layer_id)
        described.append(
            {
                "params": parameters,
                "lr": learning_rate * scale,
                "lr_scale": scale,
                "weight_decay": 0.0 if is_free else weight_decay,
            }
        )
    return described


def compute_learning_rate(
    epoch: float,
    *,
    num_epochs: float,
    num_warmup_epochs: float = 0.0,
    learning_rate: float = 2.4e-3,
    min_learning_rate: float = 0.0,
) -> float:
    """Learning rate of the authors' recipes at a fractional epoch: linear warm-up from exactly 0, then half a cosine.

    Args:
        epoch (`float`): epochs done, with the share of the present one.
        num_epochs (`float`): of the whole run.
        num_warmup_epochs (`float`): of the linear part.
        learning_rate (`float`): top of the cosine: 1.5e-4 * batch size / 256 in pre-training, 5e-4 * batch size / 256
            in fine-tuning.
        min_learning_rate (`float`): end of the cosine: 0 in pre-training, 1e-6 in fine-tuning.
    """
    if epoch < num_warmup_epochs:
        return learning_rate * epoch / num_warmup_epochs
    share = (epoch - num_warmup_epochs) / (num_epochs - num_warmup_epochs)
    return min_learning_rate + (learning_rate - min_learning_rate) * 0.5 * (1 + math.cos(math.pi * share))


def reconstruction_step(model: nn.Module, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Loss of a masked autoencoder on a batch.

    Args:
        model (`ViTMAEForPreTraining`): of transformers, possibly wrapped.
        batch (`Mapping`): `pixel_values`; anything else is left alone.
    """
    return {"loss": model(pixel_values=batch["pixel_values"]).loss}


def distillation_step(model: nn.Module, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Loss of a student on a batch, and its terms.

    Args:
        model ([`TinyMimForPreTraining`]): with a teacher unless the batch has its targets, possibly wrapped.
        batch (`Mapping`): `pixel_values` and, as they apply, `teacher_pixel_values`, `teacher_relations`,
            `teacher_features`.

    Returns:
        `dict` with `loss`; `relation_loss_<index>` for each pair, `feature_loss`, `reconstruction_loss` where they
        apply.
    """
    outputs = model(**{name: value for name, value in batch.items() if name != "labels"})
    terms = {"loss": outputs["loss"]}
    if outputs.get("relation_losses") is not None:
        terms |= {f"relation_loss_{index}": loss for index, loss in enumerate(outputs["relation_losses"])}
    terms |= {name: outputs[name] for name in ("feature_loss", "reconstruction_loss") if outputs.get(name) is not None}
    return terms


__all__ = [
    "build_layer_decay_parameter_groups",
    "build_pretraining_parameter_groups",
    "compute_learning_rate",
    "distillation_step",
    "get_layer_id",
    "reconstruction_step",
]
