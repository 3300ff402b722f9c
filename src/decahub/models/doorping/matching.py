"""Gradient matching (DC, arXiv 2006.05929): synthetic images whose gradients point where those of real images do.

For the weights of a layer as a matrix with one row for each output, the distance of two gradients `A` and `B` is

    D(A, B) = sum over rows of 1 - <A_i, B_i> / (|A_i| |B_i| + 1e-6),

summed over layers. Vectors (biases, scales of norms) do not count. A row of zeros counts 1.
"""

from collections.abc import Callable, Sequence

import torch
from torch.nn import functional
from transformers.modeling_utils import PreTrainedModel

from .networks import ClassifierLogits, split_batch


EPS = 1e-6
DISTANCES = ("layerwise_cosine", "mse", "cosine")


def compute_distance(
    synthetic: Sequence[torch.Tensor], real: Sequence[torch.Tensor], distance: str = "layerwise_cosine"
) -> torch.Tensor:
    """Distance of two gradients of a network.

    Args:
        synthetic (`Sequence[torch.FloatTensor]`): Gradient of each parameter, in order.
        real (`Sequence[torch.FloatTensor]`): The same for real images.
        distance (`str`): `"layerwise_cosine"` (the formula above), `"mse"` (squared norm of the difference of all
            values) or `"cosine"` (of all values as one vector).

    Returns:
        `torch.FloatTensor` of shape `()`.
    """
    if distance == "layerwise_cosine":
        pairs = [(a.flatten(1), b.flatten(1)) for a, b in zip(synthetic, real, strict=True) if a.ndim > 1]
        return torch.stack([_compute_row_distances(a, b).sum() for a, b in pairs]).sum()
    flat, flat_real = (torch.cat([gradient.flatten() for gradient in all_]) for all_ in (synthetic, real))
    if distance == "mse":
        return (flat - flat_real).square().sum()
    return _compute_row_distances(flat[None], flat_real[None])[0]


def _compute_row_distances(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    # The gradient of a norm at 0 is 0 in torch, so dead rows cost 1 and give no gradient.
    norms = torch.linalg.vector_norm(first, dim=1) * torch.linalg.vector_norm(second, dim=1)
    return 1 - (first * second).sum(1) / (norms + EPS)


def select_parameters(network: PreTrainedModel, distance: str) -> list[torch.Tensor]:
    """Parameters whose gradients a distance looks at: with the layer-wise one, vectors need none."""
    return [value for value in network.parameters() if distance != "layerwise_cosine" or value.ndim > 1]


def compute_class_distance(
    network: PreTrainedModel,
    synthetic_images: torch.Tensor,
    real_images: torch.Tensor,
    label: int,
    distance: str = "layerwise_cosine",
    augment: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> torch.Tensor:
    """Distance of the gradients of one class, differentiable by its synthetic images.

    Args:
        network ([`DistillNetwork`]): The network; its gradients are those of the mean cross entropy.
        synthetic_images (`torch.FloatTensor` of shape `(num_images, num_channels, height, width)`): Of the class.
        real_images (`torch.FloatTensor` of shape `(batch_size, num_channels, height, width)`): Of the class.
        label (`int`): The class.
        distance (`str`): As in [`compute_distance`].
        augment (`Callable`, *optional*): Applied to both, with equal draws.

    Returns:
        `torch.FloatTensor` of shape `()`.
    """
    logits, parameters = ClassifierLogits(network), select_parameters(network, distance)
    if augment is not None:
        synthetic_images, real_images = augment(synthetic_images), augment(real_images)
    labels = torch.full((max(len(synthetic_images), len(real_images)),), label, device=real_images.device)
    real: list[torch.Tensor] = []
    for part in split_batch(network, len(real_images)):
        loss = functional.cross_entropy(logits(real_images[part]), labels[part], reduction="sum") / len(real_images)
        gradients = torch.autograd.grad(loss, parameters)
        real = [total + gradient for total, gradient in zip(real, gradients, strict=True)] if real else list(gradients)
    loss = functional.cross_entropy(logits(synthetic_images), labels[: len(synthetic_images)])
    return compute_distance(torch.autograd.grad(loss, parameters, create_graph=True), real, distance)


__all__ = ["DISTANCES", "compute_class_distance", "compute_distance", "select_parameters"]
