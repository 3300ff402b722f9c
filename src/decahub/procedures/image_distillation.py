"""Distillation of image classifiers (Hinton et al., arXiv 1503.02531): a student imitates a teacher's probabilities.

The teacher may be any image classifier that transformers loads. It sees the images that the student learns from, with
their augmentation, as its own processor prepares them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torchvision.transforms.v2.functional import to_pil_image
from transformers import PreTrainedModel

from decahub.data.image_classification import Normalization, get_target_size
from decahub.tasks.loading import load_model, load_processor

from .pretrained import check_source


MAX_TEMPERATURE = 100.0


@dataclass(frozen=True)
class Distillation:
    """What a step of distillation minimizes.

    Args:
        weight (`float`): Of the teacher's probabilities in the loss, in (0, 1]; the labels have the rest.
        temperature (`float`): Divides the logits of both, in [1, 100].

    Raises:
        ValueError: If a value is out of range.
    """

    weight: float = 0.5
    temperature: float = 2.0

    def __post_init__(self):
        for name, is_allowed, allowed in (
            ("weight", lambda value: 0 < value <= 1, "(0, 1]"),
            ("temperature", lambda value: 1 <= value <= MAX_TEMPERATURE, f"[1, {MAX_TEMPERATURE:.0f}]"),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not is_allowed(value):
                raise ValueError(f"`distillation.{name}` must be a number in {allowed}; got {value!r}.")


class ImageTeacher:
    """A classifier that answers for images of a student's processor.

    Args:
        model (`PreTrainedModel`): The classifier; it computes in float32.
        processor: Its image processor.
        student_processor: That of the images that are given.
        label_names (`Sequence[str]`): Classes of the student.

    Raises:
        ValueError: If the classifier has other classes, or no answer for such images.
    """

    def __init__(self, model: PreTrainedModel, processor: Any, student_processor: Any, label_names: Sequence[str]):
        config: Any = model.config
        names = [config.id2label.get(number, f"class {number}") for number in range(config.num_labels)]
        if sorted(names) != sorted(label_names):
            raise ValueError(
                f"`teacher` must have the classes of the dataset, {', '.join(label_names)}; got {', '.join(names)}. "
                "Fine-tune it on them."
            )
        self.model = model.eval().requires_grad_(False).float()
        self.processor = processor
        self.order = [names.index(name) for name in label_names]
        self.student_normalization = Normalization(student_processor)
        self._check_answer(student_processor)

    @classmethod
    def from_pretrained(cls, source: str, student_processor: Any, label_names: Sequence[str]) -> "ImageTeacher":
        """The classifier of a folder or Hub repository, which must be whole and have no code of its own."""
        check_source("teacher", source)
        model = load_model(source, "AutoModelForImageClassification")
        processor = load_processor(source, "AutoImageProcessor")
        return cls(model, processor, student_processor, label_names)

    def _check_answer(self, student_processor: Any) -> None:
        num_channels = max(3, len(self.student_normalization.scale))
        images = torch.zeros(2, num_channels, *get_target_size(student_processor))
        try:
            logits = self(images)
        except Exception as error:  # whatever a processor or a model raises at images that are not for it
            raise ValueError(
                f"`teacher` must answer for images of shape {tuple(images.shape[1:])}; it raises "
                f"{type(error).__name__}: {error}"
            ) from error
        if logits.shape != (2, len(self.order)) or not logits.isfinite().all():
            raise ValueError(f"`teacher` must give one finite logit for each class; got {logits.tolist()}.")

    def prepare(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """What the teacher's processor makes of images that the student's has prepared, rounded to bytes."""
        scale, shift = (value.to(pixel_values) for value in vars(self.student_normalization).values())
        images = ((pixel_values - shift) / scale).round().clamp(0, 255).byte().cpu()
        if hasattr(self.processor, "data_config"):  # of timm, which takes no tensors
            return self.processor([to_pil_image(image) for image in images], return_tensors="pt")["pixel_values"]
        return self.processor(list(images), input_data_format="channels_first", return_tensors="pt")["pixel_values"]

    @torch.no_grad()
    def __call__(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Logits of shape `(batch_size, num_labels)` for `pixel_values` of the student, in the student's order."""
        device = pixel_values.device
        self.model.to(device)
        with torch.autocast(device.type, enabled=False):
            return self.model(pixel_values=self.prepare(pixel_values.float()).to(device)).logits[:, self.order]


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
