"""What EMO's training recipes need of an optimizer: parameter groups, learning-rate schedules, and the training step.

The recipes are those of the authors' configurations for ImageNet-1k and ADE20K (paper, section 4.1 and 4.3).
"""

import math

import torch
from torch import nn

from ..shared.parameter_names import is_free_of_decay, iterate_trained, split_groups


LR_NOISE_LIMIT = 0.67  # draws beyond it are repeated
LR_NOISE_RANGE = (0.42, 0.9)  # of all steps


def build_parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Parameter groups for AdamW: no decay for biases and other one-dimensional parameters.

    Args:
        model (`torch.nn.Module`): its parameters that require gradients are taken.
        weight_decay (`float`): decay of the others, 0.05 in the paper.

    Returns:
        Two dictionaries with `params` and `weight_decay`.
    """
    named = list(iterate_trained(model))
    return split_groups([is_free_of_decay(*item) for item in named], [item[1] for item in named], weight_decay)


def build_segmentation_parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Parameter groups of the authors' segmentation recipe: only the backbone's own norms are free of decay.

    Norms inside the decode heads and all biases do decay there.

    Args:
        model ([`EmoForSemanticSegmentation`]): the model.
        weight_decay (`float`): 0.01 in the paper.
    """
    named = list(iterate_trained(model))
    free = [name.startswith("emo.") and "norm" in name for name, _ in named]
    return split_groups(free, [item[1] for item in named], weight_decay)


def compute_learning_rate(
    step: int,
    *,
    num_training_steps: int,
    num_warmup_steps: int = 0,
    learning_rate: float = 6e-3,
    min_learning_rate: float = 1e-6,
    warmup_learning_rate: float = 1e-6,
    add_noise: bool = False,
    noise_seed: int = 42,
    noise_limit: float = LR_NOISE_LIMIT,
    noise_range: tuple[float, float] = LR_NOISE_RANGE,
) -> float:
    """Learning rate of the ImageNet-1k recipe at a step: linear warm-up, then a cosine whose phase counts from step 0.

    The authors' logs of the 1M and 2M models were made with noise on the rate (`add_noise`), which their published
    configuration turns off.

    Args:
        step (`int`): optimizer steps done before this one.
        num_training_steps (`int`): of the whole run.
        num_warmup_steps (`int`): of the linear part.
        learning_rate (`float`): top of the cosine.
        min_learning_rate (`float`): its end.
        warmup_learning_rate (`float`): start of the warm-up.
        add_noise (`bool`): multiplies by `1 + n` with `n` normal and `|n| < noise_limit`, drawn anew for each step.
        noise_seed (`int`): the generator of a step is seeded with `noise_seed + step`.
        noise_limit (`float`): bound on the noise.
        noise_range (`tuple[float, float]`): share of the training, from (included) and to (excluded), that has noise.
    """
    if step < num_warmup_steps:
        rate = warmup_learning_rate + step * (learning_rate - warmup_learning_rate) / num_warmup_steps
    else:
        phase = math.cos(math.pi * step / num_training_steps)
        rate = min_learning_rate + 0.5 * (learning_rate - min_learning_rate) * (1 + phase)
    first, last = (share * num_training_steps for share in noise_range)
    if add_noise and first <= step < last:
        rate *= 1 + _draw_noise(noise_seed + step, noise_limit)
    return rate


def _draw_noise(seed: int, limit: float) -> float:
    generator = torch.Generator().manual_seed(seed)
    while True:
        noise = torch.randn(1, generator=generator).item()
        if abs(noise) < limit:
            return noise


__all__ = [
    "build_parameter_groups",
    "build_segmentation_parameter_groups",
    "compute_learning_rate",
]
