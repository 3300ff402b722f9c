"""What a defense looks at, and what it finds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from decahub.models.doorping.triggers import denormalize, normalize


BATCH_SIZE = 256
MAD_TO_DEVIATION = 1.4826  # of a normal distribution


@dataclass(frozen=True)
class Subject:
    """A classifier under suspicion, and the data to test it with.

    Args:
        network (`PreTrainedModel`): The classifier, in evaluation mode; defenses work on copies.
        images (`torch.FloatTensor` of shape `(num_images, num_channels, height, width)`): Clean test images,
            normalized, in random order.
        labels (`torch.LongTensor` of shape `(num_images,)`): Their classes.
        stamp (`Callable`): Images -> images with the trigger. Defenses of models and datasets do not use it to decide,
            only to measure what is left of the attack.
        target_label (`int`): Class that the trigger is meant for.
        image_mean (`Sequence[float]`): By which images were normalized.
        image_std (`Sequence[float]`): Likewise.
        training_images (`torch.FloatTensor`, *optional*): What the classifier was trained on.
        training_labels (`torch.LongTensor`, *optional*): Their classes.
        retrain (`Callable`, *optional*): Images of the training set -> a new classifier trained on them instead.
        quantized (`Callable`, *optional*): Like `stamp`, with a trigger of 8 bits.
    """

    network: Any
    images: torch.Tensor
    labels: torch.Tensor
    stamp: Callable[[torch.Tensor], torch.Tensor]
    target_label: int
    image_mean: Sequence[float]
    image_std: Sequence[float]
    training_images: torch.Tensor | None = None
    training_labels: torch.Tensor | None = None
    retrain: Callable[[torch.Tensor], Any] | None = None
    quantized: Callable[[torch.Tensor], torch.Tensor] | None = None

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return int(self.network.config.num_labels)

    def to_pixels(self, values: torch.Tensor) -> torch.Tensor:
        """Normalized values as pixels, 0 to 1 for images."""
        return denormalize(values, self.image_mean, self.image_std)

    def to_values(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixels as the network sees them."""
        return normalize(pixels, self.image_mean, self.image_std)

    @property
    def others(self) -> torch.Tensor:
        """Which images are not of the target class."""
        return self.labels != self.target_label

    def measure(self, network: Any = None) -> dict[str, float]:
        """Accuracy and success of the trigger on images of other classes, of a network in place of the own one."""
        network = self.network if network is None else network
        predicted = predict(network, self.images)
        triggered = predict(network, self.stamp(self.images[self.others]))
        return {
            "cta": float((predicted == self.labels).double().mean()),
            "asr_non_target": float((triggered == self.target_label).double().mean()),
        }


@dataclass(frozen=True)
class DefenseResult:
    """What a defense found.

    Args:
        name (`str`): Of the defense.
        level (`str`): What it looks at: "model", "input", "dataset" or "repair".
        flagged (`bool`, *optional*): Whether it takes the subject for attacked; `None` where it gives no verdict.
        scores (`Mapping[str, float]`): Its numbers.
        reason (`str`): Why it does not apply, or what limits its verdict; empty if nothing does.
        images (`Mapping[str, torch.Tensor]`): Pixels in [0, 1], `(num_channels, height, width)`, such as a trigger
            that was found.
    """

    name: str
    level: str
    flagged: bool | None
    scores: Mapping[str, float]
    reason: str = ""
    images: Mapping[str, torch.Tensor] = field(default_factory=dict)

    @property
    def applicable(self) -> bool:
        """Whether it gives a verdict."""
        return self.flagged is not None


@torch.no_grad()
def predict(network: Any, images: torch.Tensor) -> torch.Tensor:
    """Classes of images, in batches."""
    return torch.cat([compute_logits(network, part).argmax(1) for part in images.split(BATCH_SIZE)])


def compute_logits(network: Any, images: torch.Tensor) -> torch.Tensor:
    """Logits without the checks of `forward`."""
    return network.classifier(network.compute_embeddings(images))


@torch.no_grad()
def compute_representations(network: Any, images: torch.Tensor) -> torch.Tensor:
    """Input of the last linear layer, `(num_images, num_features)`."""
    front = list(network.classifier)[:-1] if isinstance(network.classifier, torch.nn.Sequential) else []
    parts = []
    for part in images.split(BATCH_SIZE):
        values = network.compute_embeddings(part)
        for layer in front:
            values = layer(values)
        parts.append(values)
    return torch.cat(parts)


def compute_anomalies(values: torch.Tensor) -> torch.Tensor:
    """Distance of each value from the median in deviations, which the median absolute deviation gives."""
    values = values.double()
    distances = (values - values.median()).abs()
    return distances / (MAD_TO_DEVIATION * distances.median()).clamp(min=1e-12)


__all__ = [
    "DefenseResult",
    "Subject",
    "compute_anomalies",
    "compute_logits",
    "compute_representations",
    "predict",
]
