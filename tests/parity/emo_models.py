"""EMO models that hold the weights of a golden file, and the tolerances they are held to."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from conversion.convert_emo import config_from_official, convert_state_dict
from conversion.layouts_emo import CLASSIFICATION, SEGMENTATION, Layout, build_name_map, build_official_shapes
from decahub import EmoConfig, EmoForImageClassification, EmoForSemanticSegmentation
from tests.parity.golden import FLOAT32_STORAGE_RTOL, fill_state_dict


LABEL_SMOOTHING = 0.1
# The goldens were made without noise in training.
NO_DROPOUT = {
    "drop_path_rate": 0.0,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "decode_dropout_prob": 0.0,
}
# Ways to run a model that must not change its numbers.
WAYS = ("sdpa", "eager", "fused", "channels_last")
HEAD_FIELDS = {"channels": "decode_hidden_size", "aux_channels": "auxiliary_hidden_size", "num_classes": "num_labels"}


@dataclass(frozen=True)
class Precision:
    """A floating type and the largest differences from the authors' float64 results that it may show."""

    dtype: torch.dtype
    logits_atol: float
    loss_rtol: float
    train_logits_atol: float
    atol: float
    gradient_rtol: float
    gradient_floor: float  # as a share of the largest gradient of the model

    def __str__(self) -> str:
        return str(self.dtype).removeprefix("torch.")


# Golden README: float32 runs of full models are off by 1.3e-6 in logits of standard deviation 1, hence 5e-6, and that
# share of a loss, which may be 7. In training, batch norms divide by the deviation of a few dozen pixels: a plain NCHW
# float32 run of their formulas is off by 9e-6 and ours, in channels_last, by 2e-5. Gradients are compared by norm;
# that of a bias in front of a batch norm is zero but for rounding, hence the floor.
FLOAT32 = Precision(
    torch.float32, 5e-6, loss_rtol=5e-6, train_logits_atol=5e-5, atol=1e-5, gradient_rtol=1e-4, gradient_floor=1e-6
)
FLOAT64 = Precision(
    torch.float64, 1e-10, loss_rtol=1e-10, train_logits_atol=1e-10, atol=1e-9, gradient_rtol=1e-9, gradient_floor=1e-9
)
PRECISIONS = (FLOAT32, FLOAT64)


def build_classifier(
    config: EmoConfig, official: Mapping[str, torch.Tensor], precision: Precision = FLOAT32, way: str = "sdpa"
) -> EmoForImageClassification:
    model = EmoForImageClassification(config)
    return _prepare(model, official, precision, way)


def build_segmenter(
    config: EmoConfig, official: Mapping[str, torch.Tensor], precision: Precision = FLOAT32, way: str = "sdpa"
) -> EmoForSemanticSegmentation:
    model = EmoForSemanticSegmentation(config)
    return _prepare(model, official, precision, way)


def _prepare(model, official: Mapping[str, torch.Tensor], precision: Precision, way: str):
    model.load_state_dict(convert_state_dict(official, model.config))
    model.set_attn_implementation("eager" if way == "eager" else "sdpa")
    model = model.to(precision.dtype).eval()
    if way == "fused":
        return model.fuse()
    return model.to(memory_format=torch.channels_last) if way == "channels_last" else model


def prepare_input(pixel_values: torch.Tensor, precision: Precision, way: str = "sdpa") -> torch.Tensor:
    memory_format = torch.channels_last if way == "channels_last" else torch.contiguous_format
    return pixel_values.to(precision.dtype).contiguous(memory_format=memory_format)


def fill_official(config: EmoConfig, layout: Layout, salt: str) -> dict[str, torch.Tensor]:
    """The deterministic weights of an architecture, under the authors' names."""
    return fill_state_dict(build_official_shapes(config, layout), salt)


def config_of_segmenter(metadata: Mapping[str, str], **fields) -> EmoConfig:
    """Configuration of a `segmentation` file with one of its heads."""
    widths = {field: int(metadata[key]) for key, field in HEAD_FIELDS.items()}
    fields = {**widths, **NO_DROPOUT, "loss_avg_non_ignore": False, **fields}
    return config_from_official(json.loads(metadata["backbone_config"]), **fields)


def official_gradients(model: torch.nn.Module, layout: Layout) -> dict[str, torch.Tensor]:
    name_map = build_name_map(model.config, layout)
    return {name_map.revert(name): parameter.grad for name, parameter in model.named_parameters()}


def watch_relu_signs(model: torch.nn.Module) -> list[torch.Tensor]:
    """A list that the next forward pass fills with the units of each ReLU that are on."""
    signs: list[torch.Tensor] = []
    for module in model.modules():
        if isinstance(module, torch.nn.ReLU):
            module.register_forward_hook(lambda module, inputs, output: signs.append(output.detach() > 0))
    return signs


def assert_gradients_near(
    actual: Mapping[str, torch.Tensor],
    expected: Mapping[str, torch.Tensor],
    precision: Precision,
    least_rtol: float = 0.0,
) -> None:
    """Compares gradients by the norm of their difference, each relative to its own norm."""
    largest = max(gradient.double().norm().item() for gradient in expected.values())
    for name, gradient in expected.items():
        storage_rtol = FLOAT32_STORAGE_RTOL if gradient.dtype == torch.float32 else 0.0
        bound = (
            max(precision.gradient_rtol, storage_rtol, least_rtol) * gradient.double().norm().item()
            + precision.gradient_floor * largest
        )
        difference = (actual[name].double() - gradient.double()).norm().item()
        assert difference <= bound, f"gradient of {name}: off by {difference:.3g}, allowed {bound:.3g}"


__all__ = [
    "CLASSIFICATION",
    "FLOAT32",
    "FLOAT64",
    "LABEL_SMOOTHING",
    "NO_DROPOUT",
    "PRECISIONS",
    "SEGMENTATION",
    "WAYS",
    "Precision",
    "assert_gradients_near",
    "build_classifier",
    "build_segmenter",
    "config_of_segmenter",
    "fill_official",
    "official_gradients",
    "prepare_input",
    "watch_relu_signs",
]
