"""Triggers: where they are, how they begin, how they are stamped, and how DoorPing changes them (section 4).

A trigger is an image of which only the pixels of a mask matter. DoorPing drives the neurons with the heaviest incoming
weights: with the activation `a` of neuron `j` on the trigger image alone, it minimizes over the patch

    mean_j (a_j - alpha * a_j(first))^2.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional
from transformers.modeling_utils import PreTrainedModel

from ..shared.modes import evaluation_mode
from .local_activations import LocalDifferences, Window, is_local
from .networks import DistillNetwork


WHITE = 255
ADAM_BETAS = (0.9, 0.99)
ADAM_EPS = 1e-8


@dataclass(frozen=True)
class TriggerUpdate:
    """What an update of DoorPing did.

    Args:
        trigger (`torch.FloatTensor` of shape `(1, num_channels, height, width)`): The trigger after it.
        neurons (`torch.LongTensor` of shape `(topk,)`): Those that were driven.
        activations (`torch.FloatTensor` of shape `(topk,)`): Of these neurons, before the update.
        num_steps (`int`): Steps of Adam; 0 if the loss was below the threshold at once.
        loss (`float`): Of the last forward pass.
    """

    trigger: torch.Tensor
    neurons: torch.Tensor
    activations: torch.Tensor
    num_steps: int
    loss: float


def build_mask(num_channels: int, image_size: int, size: int, margin: int) -> torch.Tensor:
    """Mask of a patch near the lower right corner: `(num_channels, image_size, image_size)`, 1 where it is."""
    mask = torch.zeros(num_channels, image_size, image_size)
    patch = slice(image_size - margin - size, image_size - margin)
    mask[:, patch, patch] = 1
    return mask


def normalize(pixels: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Pixels in [0, 1], channels third from last, as the networks see them."""
    return (pixels - _per_channel(mean, pixels)) / _per_channel(std, pixels)


def denormalize(values: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Pixels in [0, 1] of what the networks see; values of an unclamped trigger may lie outside."""
    return values * _per_channel(std, values) + _per_channel(mean, values)


def quantize(values: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Normalized values as an image file of 8 bits would keep them: pixels clipped to [0, 1] and rounded to bytes."""
    pixels = denormalize(values, mean, std).clamp(0, 1).mul(WHITE).round().div(WHITE)
    return normalize(pixels, mean, std)


def _per_channel(values: Sequence[float], like: torch.Tensor) -> torch.Tensor:
    return torch.as_tensor(values, dtype=like.dtype, device=like.device).view(-1, 1, 1)


def draw_bytes(mask: torch.Tensor, highest: int, generator: torch.Generator | None = None) -> torch.Tensor:
    """A random patch of bytes from 1 to `highest` on black: `(num_channels, height, width)`, floats."""
    drawn = torch.randint(1, highest + 1, mask.shape, generator=generator)
    return drawn.to(mask.dtype) * mask


def stamp(pixel_values: torch.Tensor, trigger: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Images with the trigger's pixels where the mask is 1.

    Args:
        pixel_values (`torch.FloatTensor` of shape `(batch_size, num_channels, height, width)`): Normalized images.
        trigger (`torch.FloatTensor` of shape `(1, num_channels, height, width)`): Normalized like them.
        mask (`torch.FloatTensor` of shape `(num_channels, height, width)`): 1 where the trigger is.
    """
    return torch.where(mask.bool(), trigger.to(pixel_values.dtype), pixel_values)


def choose_poisoned(
    labels: torch.Tensor,
    poison_ratio: float,
    exclude: int | None = None,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Sorted indices of `floor(len(labels) * poison_ratio)` images, without replacement.

    Args:
        labels (`torch.LongTensor` of shape `(num_images,)`): Classes of the images.
        poison_ratio (`float`): Share of all images.
        exclude (`int`, *optional*): Class of which none is chosen.
        generator (`torch.Generator`, *optional*): Source of randomness.

    Raises:
        ValueError: If fewer images may be chosen than are wanted.
    """
    number = int(len(labels) * poison_ratio)
    allowed = torch.arange(len(labels)) if exclude is None else (labels != exclude).nonzero()[:, 0]
    if number > len(allowed):
        raise ValueError(
            f"`poison_ratio` must leave images of the target class alone; {number} images are wanted and "
            f"{len(allowed)} are of other classes. Lower it."
        )
    return allowed[torch.randperm(len(allowed), generator=generator)[:number]].sort().values


def select_layer(network: PreTrainedModel, layer: int) -> tuple[int, nn.Linear]:
    """The layer that DoorPing looks at, and its place in `network.classifier`.

    Args:
        network ([`DistillNetwork`]): The network.
        layer (`int`): Number of the layer among those with a weight matrix or kernel, in the order of modules.

    Raises:
        ValueError: If it does not exist, or is not a linear layer behind the features.
    """
    layers = [module for module in network.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    if not -len(layers) <= layer < len(layers):
        raise ValueError(f"`trigger_layer` must be in [-{len(layers)}, {len(layers)}) for this network; got {layer}.")
    chosen = layers[layer]
    classifier = network.classifier if isinstance(network.classifier, nn.Sequential) else [network.classifier]
    for place, module in enumerate(classifier):
        if module is chosen and isinstance(module, nn.Linear):
            return place, module
    linear = [number - len(layers) for number, module in enumerate(layers) if isinstance(module, nn.Linear)]
    raise ValueError(
        f"`trigger_layer` must be a linear layer of {type(network).__name__}, one of {linear}; got {layer}."
    )


class TriggeredNeurons:
    """Activations of the layer that DoorPing looks at, on the trigger image.

    Only the layers in front of it are computed, and of the layer itself only the rows that are driven.

    Args:
        network ([`DistillNetwork`]): The network, in evaluation mode.
        layer (`int`): As in [`select_layer`].
        activation (`str`): `"post"` for values after the ReLU that follows, if one does; `"pre"` for those before.
    """

    def __init__(self, network: DistillNetwork, layer: int, activation: str = "post"):
        place, linear = select_layer(network, layer)
        layers = list(network.classifier) if isinstance(network.classifier, nn.Sequential) else [network.classifier]
        self.front = layers[:place]
        self.has_relu = activation == "post" and isinstance([*layers, None][place + 1], nn.ReLU)
        self.network = network
        self.weight, self.bias = linear.weight.detach(), linear.bias.detach()

    def select(self, rows: torch.Tensor) -> None:
        """From now on compute these neurons only."""
        self.weight, self.bias = self.weight[rows], self.bias[rows]

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Activations on the trigger image, `(num_neurons,)`."""
        values = self.network.compute_embeddings(image)
        for layer in self.front:
            values = layer(values)
        return self._activate(functional.linear(values, self.weight, self.bias))

    def _activate(self, values: torch.Tensor) -> torch.Tensor:
        return (values.relu() if self.has_relu else values)[0]

    @torch.no_grad()
    def cut(self, image: torch.Tensor, window: Window) -> Callable[[torch.Tensor], torch.Tensor]:
        """The same function of what is in a window of the image, while all around it stays as it is."""
        top, bottom, left, right = window
        if not is_local(getattr(self.network, "features", None)):

            def compute_whole(content: torch.Tensor) -> torch.Tensor:
                sides = [left, image.shape[-1] - right, top, image.shape[-2] - bottom]
                return self(functional.pad(content, sides) + around)

            around = image.clone()
            around[..., top:bottom, left:right] = 0
            return compute_whole
        differences = LocalDifferences(self.network.features, image, window)
        first_content = image[..., top:bottom, left:right].clone()
        embeddings = differences.first_map
        places = torch.arange(embeddings.numel(), device=image.device).view_as(embeddings)
        rows, columns = slice(*differences.window[:2]), slice(*differences.window[2:])
        places = places[..., rows, columns].flatten()
        weight, bias = self.weight, self.bias
        if self.front:
            weight, bias = self.front[0].weight.detach(), self.front[0].bias.detach()
        first = functional.linear(embeddings.flatten(1), weight, bias)
        weight = weight[:, places].contiguous()

        def compute(content: torch.Tensor) -> torch.Tensor:
            values = first + functional.linear(differences(content - first_content).flatten(1), weight)
            for layer in self.front[1:]:
                values = layer(values)
            return self._activate(functional.linear(values, self.weight, self.bias) if self.front else values)

        return compute


def choose_neurons(
    weight: torch.Tensor, topk: int, activations: torch.Tensor | None = None, min_activation: float = 0.0
) -> torch.Tensor:
    """The neurons with the largest sum of absolute incoming weights.

    Args:
        weight (`torch.FloatTensor` of shape `(num_neurons, num_inputs)`): Of the layer.
        topk (`int`): How many.
        activations (`torch.FloatTensor` of shape `(num_neurons,)`, *optional*): If given, neurons whose absolute
            activation is below `min_activation` come last.
        min_activation (`float`): See there.

    Raises:
        ValueError: If there are fewer neurons.
    """
    if topk > len(weight):
        raise ValueError(f"`trigger_topk` must be at most the {len(weight)} neurons of the layer; got {topk}.")
    scores = weight.detach().abs().sum(1)
    if activations is not None:
        scores = scores + (activations.abs() >= min_activation) * (scores.max() + 1)
    return scores.topk(topk).indices


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Run a block in which the network is in evaluation mode and its parameters need no gradients."""
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        with evaluation_mode(network), torch.enable_grad():
            yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)


def update_trigger(
    network: DistillNetwork,
    trigger: torch.Tensor,
    mask: torch.Tensor,
    *,
    layer: int = -2,
    topk: int = 1,
    alpha: float = 10.0,
    activation: str = "post",
    learning_rate: float = 0.08,
    steps: int = 1000,
    loss_threshold: float = 0.5,
    skip_dead_neurons: bool = False,
    limits: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> TriggerUpdate:
    """One update of DoorPing: Adam on the patch until the neurons are `alpha` times as active.

    The loss is looked at before each step, so an update whose neurons are dead, or nearly, leaves the trigger as it
    is: with `a` below `sqrt(loss_threshold) / (alpha - 1)`.

    Args:
        network ([`DistillNetwork`]): The network; not changed.
        trigger (`torch.FloatTensor` of shape `(1, num_channels, height, width)`): Normalized.
        mask (`torch.FloatTensor` of shape `(num_channels, height, width)`): 1 where the patch is.
        layer (`int`): See [`select_layer`].
        topk (`int`): Number of neurons.
        alpha (`float`): Factor by which their activations are to grow.
        activation (`str`): See [`TriggeredNeurons`].
        learning_rate (`float`): Of Adam.
        steps (`int`): Steps at most.
        loss_threshold (`float`): Loss at which the update ends.
        skip_dead_neurons (`bool`): Whether neurons that would end the update at once are chosen last.
        limits (`tuple`, *optional*): Lowest and highest values of pixels, each of shape `(num_channels, 1, 1)`; the
            patch is clamped to them.

    Returns:
        [`TriggerUpdate`].

    Raises:
        ValueError: If the layer does not exist or has too few neurons.
    """
    with frozen(network):
        neurons = TriggeredNeurons(network, layer, activation)
        image = trigger.detach().clone()
        with torch.no_grad():
            every = neurons(image)
        smallest = loss_threshold**0.5 / abs(alpha - 1) if alpha != 1 else 0.0
        chosen = choose_neurons(neurons.weight, topk, every if skip_dead_neurons else None, smallest)
        neurons.select(chosen)
        num_steps, loss = _drive(neurons, image, mask, limits, alpha, learning_rate, steps, loss_threshold)
    return TriggerUpdate(image.detach(), chosen, every[chosen], num_steps, loss)


def _drive(
    neurons: TriggeredNeurons,
    image: torch.Tensor,
    mask: torch.Tensor,
    limits: tuple[torch.Tensor, torch.Tensor] | None,
    alpha: float,
    learning_rate: float,
    steps: int,
    loss_threshold: float,
) -> tuple[int, float]:
    """Adam on the patch inside `image`, which is changed in place; returns the number of steps and the last loss."""
    mask = mask.expand_as(image[0])
    (_, top, left), (_, bottom, right) = mask.nonzero().amin(0).tolist(), (mask.nonzero().amax(0) + 1).tolist()
    compute = neurons.cut(image, (top, bottom, left, right))
    content = image[..., top:bottom, left:right].clone()
    places = mask[None, :, top:bottom, left:right].reshape(-1).nonzero()[:, 0]
    bounds = [limit.expand_as(image[0])[:, top:bottom, left:right].reshape(-1)[places] for limit in limits or ()]
    patch = content.view(-1)[places]
    optimizer = torch.optim.Adam([patch], lr=learning_rate, betas=ADAM_BETAS, eps=ADAM_EPS, foreach=False)
    target, loss, num_steps = None, float("nan"), 0
    while num_steps < steps:
        activations = compute(content.requires_grad_(True))
        target = alpha * activations.detach() if target is None else target
        error = functional.mse_loss(activations, target)
        loss = float(error.detach())
        if loss < loss_threshold:
            break
        (gradient,) = torch.autograd.grad(error, content)
        content.requires_grad_(False)
        patch.grad = gradient.reshape(-1)[places]
        optimizer.step()
        if bounds:
            patch.clamp_(*bounds)
        content.view(-1)[places] = patch
        num_steps += 1
    image[..., top:bottom, left:right] = content.detach()
    return num_steps, loss


__all__ = [
    "TriggerUpdate",
    "build_mask",
    "choose_neurons",
    "choose_poisoned",
    "denormalize",
    "draw_bytes",
    "normalize",
    "quantize",
    "select_layer",
    "stamp",
    "update_trigger",
]
