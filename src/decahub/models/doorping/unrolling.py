"""Unrolled training (DD, arXiv 1811.10959): images and step sizes with which a few steps train a given network.

    w_{t+1} = w_t - eta_t * gradient of CE(f(x_t; w_t), y_t),    eta_t = softplus(raw_t)

The loss of real images at the last weights is differentiable by all images and step sizes.
"""

from collections.abc import Iterable, Mapping

import torch
from torch.func import functional_call
from torch.nn import functional
from transformers.modeling_utils import PreTrainedModel

from .networks import ClassifierLogits


PREFIX = "network."

Weights = dict[str, torch.Tensor]
Step = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def copy_weights(network: PreTrainedModel) -> Weights:
    """Weights of a network by name, detached from it."""
    return {name: value.detach().clone() for name, value in network.named_parameters()}


def flatten_weights(weights: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Weights as one vector in the order of modules, which is how the authors hold them."""
    return torch.cat([value.reshape(-1) for value in weights.values()])


def unflatten_weights(network: PreTrainedModel, flat: torch.Tensor) -> Weights:
    """Weights by name of such a vector.

    Raises:
        ValueError: If its length is not that of the network's weights.
    """
    shapes = {name: value.shape for name, value in network.named_parameters()}
    total = sum(shape.numel() for shape in shapes.values())
    if flat.numel() != total:
        raise ValueError(f"`flat` must hold the {total} weights of {type(network).__name__}; got {flat.numel()}.")
    parts = flat.split([shape.numel() for shape in shapes.values()])
    return {name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}


def compute_logits(network: PreTrainedModel, weights: Weights, pixel_values: torch.Tensor) -> torch.Tensor:
    """Logits of a network with other weights than its own."""
    named = {PREFIX + name: value for name, value in weights.items()}
    return functional_call(ClassifierLogits(network), named, (pixel_values,))


def unroll(
    network: PreTrainedModel, weights: Weights, steps: Iterable[Step], *, differentiable: bool = True
) -> Weights:
    """Weights after gradient descent on synthetic images.

    Args:
        network ([`DistillNetwork`]): Gives the architecture; its own weights are not used.
        weights (`dict[str, torch.Tensor]`): The first weights.
        steps (`Iterable`): Images, labels and step size of each step.
        differentiable (`bool`): Whether the result keeps the graph to images and step sizes.

    Returns:
        `dict[str, torch.Tensor]`: The last weights.
    """
    weights = {name: value.detach().requires_grad_() for name, value in weights.items()}
    with torch.enable_grad():
        for images, labels, step_size in steps:
            loss = functional.cross_entropy(compute_logits(network, weights, images), labels)
            gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=differentiable)
            weights = {
                name: value - step_size * gradient
                for (name, value), gradient in zip(weights.items(), gradients, strict=True)
            }
            if not differentiable:
                weights = {name: value.detach().requires_grad_() for name, value in weights.items()}
    return weights if differentiable else {name: value.detach() for name, value in weights.items()}


__all__ = ["Weights", "compute_logits", "copy_weights", "flatten_weights", "unflatten_weights", "unroll"]
