"""Defenses that repair a classifier with a few clean images; effective are those that halve the success rate."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from .subject import DefenseResult, Subject, compute_logits, compute_representations


CLEAN_SHARE = 0.05
BREAKS = 0.5
MIN_SUCCESS = 0.2  # of a trigger that there is something to repair of
NOTHING_TO_REPAIR = "the trigger hardly works, so there is nothing to repair"
MAX_ACCURACY_LOSS = 0.05
ATTENTION_WEIGHT = 500.0


def _split(subject: Subject, share: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Clean images that a repair may learn from."""
    number = max(1, int(len(subject.images) * share))
    return subject.images[:number], subject.labels[:number]


def _train(
    network: Any,
    images: torch.Tensor,
    labels: torch.Tensor,
    epochs: int,
    learning_rate: float,
    further_loss: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> Any:
    """The network after some epochs of SGD with momentum on clean images."""
    network.requires_grad_(True)
    optimizer = torch.optim.SGD(network.parameters(), lr=learning_rate, momentum=0.9, weight_decay=5e-4)
    generator = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        for part in torch.randperm(len(images), generator=generator).split(64):
            loss = functional.cross_entropy(compute_logits(network, images[part]), labels[part])
            if further_loss is not None:
                loss = loss + further_loss(images[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return network.eval()


def _report(subject: Subject, name: str, repaired: Any, num_images: int, **scores: float) -> DefenseResult:
    # Measured on images that the repair did not see.
    rest = Subject(
        **{**subject.__dict__, "images": subject.images[num_images:], "labels": subject.labels[num_images:]}
    )
    before, after = rest.measure(), rest.measure(repaired)
    numbers = {f"{key}_before": value for key, value in before.items()}
    numbers |= {f"{key}_after": value for key, value in after.items()} | scores
    if before["asr_non_target"] < MIN_SUCCESS:
        return DefenseResult(name, "repair", None, numbers, NOTHING_TO_REPAIR)
    works = after["asr_non_target"] < BREAKS * before["asr_non_target"]
    return DefenseResult(name, "repair", works, numbers, "" if works else "the trigger still works")


def fine_tuning(
    subject: Subject, *, share: float = CLEAN_SHARE, epochs: int = 10, learning_rate: float = 0.01
) -> DefenseResult:
    """Fine-tuning on a share of clean images.

    Args:
        subject ([`Subject`]): The classifier and clean images.
        share (`float`): Of the clean images, to learn from.
        epochs (`int`): Passes.
        learning_rate (`float`): Of SGD.
    """
    images, labels = _split(subject, share)
    repaired = _train(deepcopy(subject.network), images, labels, epochs, learning_rate)
    return _report(subject, "fine_tuning", repaired, len(images))


def fine_pruning(
    subject: Subject, *, share: float = CLEAN_SHARE, epochs: int = 10, learning_rate: float = 0.01
) -> DefenseResult:
    """Fine-pruning: hidden units that clean images do not excite are cut off, then the rest is fine-tuned.

    Units before the classifier are removed in the order of their mean activation, as long as the accuracy on the clean
    share falls by less than five points.

    Args:
        subject ([`Subject`]): The classifier and clean images.
        share (`float`): Of the clean images, to prune and learn with.
        epochs (`int`): Passes.
        learning_rate (`float`): Of SGD.
    """
    images, labels = _split(subject, share)
    network = deepcopy(subject.network)
    last: Any = network.classifier[-1] if isinstance(network.classifier, nn.Sequential) else network.classifier
    hidden = compute_representations(network, images)
    order, whole = hidden.abs().mean(0).argsort(), last.weight.detach().clone()

    def find_accuracy(number: int) -> float:
        weight = whole.clone()
        weight[:, order[:number]] = 0
        given = functional.linear(hidden, weight, last.bias.detach())
        return float((given.argmax(1) == labels).double().mean())

    limit, number = find_accuracy(0) - MAX_ACCURACY_LOSS, 0
    step = max(1, len(order) // 20)
    while number + step < len(order) and find_accuracy(number + step) >= limit:
        number += step
    with torch.no_grad():
        last.weight[:, order[:number]] = 0
    repaired = _train(network, images, labels, epochs, learning_rate)
    with torch.no_grad():
        last.weight[:, order[:number]] = 0  # what training gave back
    return _report(subject, "fine_pruning", repaired, len(images), pruned_units=float(number))


def neural_attention_distillation(
    subject: Subject, *, share: float = CLEAN_SHARE, epochs: int = 10, learning_rate: float = 0.01
) -> DefenseResult:
    """NAD: the classifier learns the attention maps of a fine-tuned copy of itself.

    The map of a block is the sum of squares over channels, normalized; the squared distance of both networks' maps is
    added to the cross entropy for each block.

    Args:
        subject ([`Subject`]): The classifier and clean images.
        share (`float`): Of the clean images, to learn from.
        epochs (`int`): Passes, of the teacher and of the student.
        learning_rate (`float`): Of SGD.
    """
    images, labels = _split(subject, share)
    teacher = _train(deepcopy(subject.network), images, labels, epochs, learning_rate).requires_grad_(False)
    student = deepcopy(subject.network)

    def compare(batch: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            wanted = [_find_attention(maps) for maps in teacher.compute_feature_maps(batch)]
        given = [_find_attention(maps) for maps in student.compute_feature_maps(batch)]
        pairs = zip(given, wanted, strict=True)
        return ATTENTION_WEIGHT * torch.stack([(a - b).square().mean() for a, b in pairs]).sum()

    repaired = _train(student, images, labels, epochs, learning_rate, compare)
    return _report(subject, "nad", repaired, len(images))


def _find_attention(maps: torch.Tensor) -> torch.Tensor:
    return functional.normalize(maps.square().sum(1).flatten(1), dim=1)


__all__ = ["fine_pruning", "fine_tuning", "neural_attention_distillation"]
