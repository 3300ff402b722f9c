"""Batches for fine-tuning: images mixed with each other, and balanced subsets of labeled rows."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torchvision.transforms import v2

from .image_classification import collate


class MixingCollate:
    """Stack examples and mix each image of the batch with its neighbor.

    It draws from the global generators, which the training loop seeds for each batch.

    Args:
        mix: Transform of images and labels, such as torchvision's `MixUp`.
    """

    def __init__(self, mix: Callable):
        self.mix = mix

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        batch = collate(examples)
        pixel_values, labels = self.mix(batch["pixel_values"], batch["labels"])
        return {"pixel_values": pixel_values, "labels": labels}


def build_collate(num_labels: int, mixup_alpha: float = 0.0, cutmix_alpha: float = 0.0) -> Callable:
    """Collator for classification, with MixUp (1710.09412) and CutMix (1905.04899) if wanted.

    With both, each batch gets one or the other with equal probability.

    Args:
        num_labels (`int`): Number of classes.
        mixup_alpha (`float`): Parameter of the distribution of MixUp's shares; 0 for none.
        cutmix_alpha (`float`): The same of CutMix.

    Returns:
        `Callable`: Examples to `{"pixel_values", "labels"}`; labels are class ids `(batch_size,)`, or probabilities
        `(batch_size, num_labels)` where images are mixed.

    Raises:
        ValueError: If a parameter is negative or infinite, or no number.
    """
    for name, alpha in (("mixup_alpha", mixup_alpha), ("cutmix_alpha", cutmix_alpha)):
        if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not 0 <= alpha < float("inf"):
            raise ValueError(f"`{name}` must be a number of at least 0; got {alpha!r}. Use 0 for none.")
    mixtures = []
    if mixup_alpha:
        mixtures.append(v2.MixUp(alpha=mixup_alpha, num_classes=num_labels))
    if cutmix_alpha:
        mixtures.append(v2.CutMix(alpha=cutmix_alpha, num_classes=num_labels))
    if not mixtures:
        return collate
    return MixingCollate(v2.RandomChoice(mixtures))


def select_balanced(rows: Any, num_per_class: int, seed: int = 0) -> Any:
    """The same number of rows of each class, drawn at random, in the order of the dataset.

    Args:
        rows (`datasets.Dataset`): With a column `label` of class ids.
        num_per_class (`int`): Rows of each class.
        seed (`int`): Of the draw; the same one gives the same rows.

    Raises:
        ValueError: If a class has fewer rows.
    """
    if num_per_class < 1:
        raise ValueError(f"`num_per_class` must be at least 1; got {num_per_class}.")
    labels = np.asarray(rows["label"][:])  # the whole column at once
    generator = np.random.default_rng(seed)
    chosen = []
    for label in np.unique(labels):
        candidates = np.flatnonzero(labels == label)
        if len(candidates) < num_per_class:
            raise ValueError(
                f"`num_per_class` must be at most {len(candidates)}, the rows of class {label}; got {num_per_class}."
            )
        chosen.append(generator.choice(candidates, num_per_class, replace=False))
    return rows.select(np.sort(np.concatenate(chosen)))


__all__ = ["MixingCollate", "build_collate", "select_balanced"]
