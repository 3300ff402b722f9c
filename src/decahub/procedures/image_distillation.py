"""Distillation of image classifiers (Hinton et al., arXiv 1503.02531): a student imitates a teacher's probabilities.

The teacher may be any image classifier that transformers loads. It sees the images that the student learns from, with
their augmentation, in the size and normalization of its own processor.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel

from decahub.data.image_classification import Normalization, get_target_size
from decahub.tasks.loading import load_model, load_processor

from .pretrained import check_source


@dataclass(frozen=True)
class Distillation:
    """What a step of distillation minimizes.

    Args:
        weight (`float`): Of the teacher's probabilities in the loss, in (0, 1]; the labels have the rest.
        temperature (`float`): Divides the logits of both, at least 1.

    Raises:
        ValueError: If a value is out of range.
    """

    weight: float = 0.5
    temperature: float = 2.0

    def __post_init__(self):
        if not 0 < self.weight <= 1:
            raise ValueError(f"`distillation.weight` must be in (0, 1]; got {self.weight!r}.")
        if not self.temperature >= 1:
            raise ValueError(f"`distillation.temperature` must be at least 1; got {self.temperature!r}.")


class ImageTeacher:
    """A classifier that answers for images of a student's processor.

    Args:
        model (`PreTrainedModel`): The classifier.
        processor: Its image processor.
        student_processor: That of the images that are given.
        label_names (`Sequence[str]`): Classes of the student.

    Raises:
        ValueError: If the classifier has other classes.
    """

    def __init__(self, model: PreTrainedModel, processor: Any, student_processor: Any, label_names: Sequence[str]):
        config: Any = model.config
        names = [config.id2label[number] for number in range(config.num_labels)]
        if sorted(names) != sorted(label_names):
            raise ValueError(
                f"`teacher` must have the classes of the dataset, {', '.join(label_names)}; got {', '.join(names)}. "
                "Fine-tune it on them."
            )
        self.model = model.eval().requires_grad_(False)
        self.order = [names.index(name) for name in label_names]
        processor = describe_timm(processor) if hasattr(processor, "data_config") else processor
        self.size = get_target_size(processor)
        self.normalize = Normalization(processor)
        self.student_normalize = Normalization(student_processor)

    @classmethod
    def from_pretrained(cls, source: str, student_processor: Any, label_names: Sequence[str]) -> "ImageTeacher":
        """The classifier of a folder or Hub repository, which must be whole and have no code of its own."""
        check_source("teacher", source)
        model = load_model(source, "AutoModelForImageClassification")
        processor = load_processor(source, "AutoImageProcessor")
        return cls(model, processor, student_processor, label_names)

    @torch.no_grad()
    def __call__(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Logits of shape `(batch_size, num_labels)` for `pixel_values` of the student, in the student's order."""
        device = pixel_values.device
        self.model.to(device)
        scale, shift = self.student_normalize.scale.to(device), self.student_normalize.shift.to(device)
        pixels = (pixel_values.float() - shift) / scale
        if pixels.shape[-2:] != self.size:
            pixels = functional.interpolate(pixels, self.size, mode="bicubic", antialias=True).clamp(0, 255)
        pixels = pixels * self.normalize.scale.to(device) + self.normalize.shift.to(device)
        return self.model(pixel_values=pixels).logits[:, self.order]


def describe_timm(processor: Any) -> SimpleNamespace:
    """What transformers' processor for models of timm does, in the words of other image processors."""
    data = processor.data_config
    height, width = data["input_size"][-2:]
    return SimpleNamespace(
        size={"height": height, "width": width},
        do_rescale=True,
        rescale_factor=1 / 255,
        do_normalize=True,
        image_mean=list(data["mean"]),
        image_std=list(data["std"]),
    )


@dataclass
class DistillationStep:
    """A step of [`Update`](training): `(1 - weight) * loss + weight * T^2 * KL(teacher || student)`.

    Both distributions are softmaxes of logits over the temperature `T`, and the divergence is averaged over the batch.
    """

    teacher: ImageTeacher
    settings: Distillation

    def __call__(self, model: nn.Module, batch: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        outputs = model(**batch)
        teacher_logits = self.teacher(batch["pixel_values"])
        imitation = compute_imitation_loss(outputs.logits, teacher_logits, self.settings.temperature)
        weight = self.settings.weight
        loss = (1 - weight) * outputs.loss + weight * imitation
        return {"loss": loss, "label_loss": outputs.loss.detach(), "imitation_loss": imitation.detach()}


def compute_imitation_loss(logits: torch.Tensor, teacher_logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """`T^2 * KL(softmax(teacher / T) || softmax(student / T))`, averaged over the batch, in float32."""
    ours, theirs = ((values.float() / temperature).log_softmax(-1) for values in (logits, teacher_logits))
    return temperature**2 * functional.kl_div(ours, theirs, log_target=True, reduction="batchmean")
