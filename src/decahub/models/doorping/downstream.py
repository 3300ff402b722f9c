"""How a network is trained on a distilled dataset of DC, and how the authors count its success."""

from collections.abc import Callable

import torch
from torch.nn import functional
from transformers.modeling_utils import PreTrainedModel

from .networks import ClassifierLogits, split_batch


LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 0.01, 0.9, 5e-4
DECAY_FACTOR = 0.1
EPOCHS = 300
BATCH_SIZE = 256


def train_epoch(
    logits: ClassifierLogits,
    optimizer: torch.optim.Optimizer,
    images: torch.Tensor,
    labels: torch.Tensor,
    batch_size: int = BATCH_SIZE,
    augment: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> float:
    """One pass over images in random order; returns the accuracy during it."""
    num_right = 0
    # The order does not matter for a single batch.
    order = torch.randperm(len(images)) if len(images) > batch_size else torch.arange(len(images))
    for part in order.split(batch_size):
        batch, classes = images[part], labels[part]
        batch = batch if augment is None else augment(batch)
        optimizer.zero_grad(set_to_none=True)
        for piece in split_batch(logits, len(batch)):
            given = logits(batch[piece])
            (functional.cross_entropy(given, classes[piece], reduction="sum") / len(batch)).backward()
            num_right += int((given.detach().argmax(1) == classes[piece]).sum())
        optimizer.step()
    return num_right / len(images)


def train_on_images(
    network: PreTrainedModel,
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    epochs: int = EPOCHS,
    learning_rate: float = LEARNING_RATE,
    momentum: float = MOMENTUM,
    weight_decay: float = WEIGHT_DECAY,
    batch_size: int = BATCH_SIZE,
    augment: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> float:
    """Train a network on images as the authors' evaluation of DC does; it ends in evaluation mode.

    There are `epochs + 1` passes. After pass `epochs // 2 + 1` (counted from 0) the learning rate falls to a tenth,
    with a new optimizer, so that momentum starts at zero again.

    Args:
        network (`PreTrainedModel`): Trained in place.
        images (`torch.FloatTensor` of shape `(num_images, num_channels, height, width)`): Normalized.
        labels (`torch.LongTensor` of shape `(num_images,)`): Their classes.
        epochs (`int`): Passes but one.
        learning_rate (`float`): Of SGD.
        momentum (`float`): Of SGD.
        weight_decay (`float`): Of SGD.
        batch_size (`int`): Images of a step.
        augment (`Callable`, *optional*): Applied to every batch.

    Returns:
        `float`: Accuracy on the images in the last pass.

    Raises:
        ValueError: If there is no image, or not one label for each, or if `epochs` is negative.
    """
    if epochs < 0:
        raise ValueError(f"`epochs` must be at least 0; got {epochs}.")
    if len(images) == 0 or labels.shape != images.shape[:1]:
        raise ValueError(
            f"`labels` must have one class for each of at least one image; got {tuple(labels.shape)} for "
            f"{tuple(images.shape)}."
        )
    logits = ClassifierLogits(network).train()
    options = {"momentum": momentum, "weight_decay": weight_decay}
    optimizer = torch.optim.SGD(network.parameters(), lr=learning_rate, **options)
    images = images.detach()
    accuracy = 0.0
    for epoch in range(epochs + 1):
        accuracy = train_epoch(logits, optimizer, images, labels, batch_size, augment)
        if epoch == epochs // 2 + 1:
            optimizer = torch.optim.SGD(network.parameters(), lr=learning_rate * DECAY_FACTOR, **options)
    network.eval()
    return accuracy


__all__ = ["train_epoch", "train_on_images"]
