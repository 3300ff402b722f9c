"""Configuration of the ConvNet of dataset condensation (arXiv 2006.05929), with the two-layer head of DoorPing."""

from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers.configuration_utils import PreTrainedConfig

from ..shared.checks import MAX_DEPTH, MAX_WIDTH, CheckedConfig, check_maximum, check_minimum, check_rates
from ..shared.variants import build_variant


ABLATION = {"norm_type": "instance"}  # what the authors' ablation variants have in common
VARIANTS: dict[str, dict[str, Any]] = {
    "ConvNet": {},
    **{f"ConvNetD{depth}": {**ABLATION, "num_hidden_layers": depth} for depth in (1, 2, 3, 4)},
    **{f"ConvNetW{width}": {**ABLATION, "hidden_size": width} for width in (32, 64, 128, 256)},
    "ConvNetAS": {**ABLATION, "hidden_act": "sigmoid"},
    "ConvNetAR": {**ABLATION, "hidden_act": "relu"},
    "ConvNetAL": {**ABLATION, "hidden_act": "leaky_relu"},
    "ConvNetNN": {"norm_type": "none"},
    "ConvNetBN": {"norm_type": "batch"},
    "ConvNetLN": {"norm_type": "layer"},
    "ConvNetIN": {"norm_type": "instance"},
    "ConvNetGN": {"norm_type": "group"},
    "ConvNetNP": {**ABLATION, "pooling": "none"},
    "ConvNetMP": {**ABLATION, "pooling": "max"},
    "ConvNetAP": {**ABLATION, "pooling": "avg"},
}
"""The authors' names, and what differs from the defaults of [`ConvNetConfig`]."""

NUM_GROUPS = 4
GRAY_PADDING = 3  # of the first convolution for one channel, meant to make 32 pixels of 28


@strict
class ConvNetConfig(CheckedConfig, PreTrainedConfig):
    """Configuration of [`ConvNetForImageClassification`]; the defaults are the authors' ConvNet.

    Args:
        num_channels (`int`, defaults to 3): Channels of `pixel_values`. With one, the first convolution pads by 3.
        image_size (`int`, defaults to 32): Height and width of `pixel_values`. Odd maps lose a row and a column in
            pooling.
        hidden_size (`int`, defaults to 128): Channels of each block.
        num_hidden_layers (`int`, defaults to 3): Number of blocks.
        hidden_act (`str`, defaults to `"relu"`): `"relu"`, `"sigmoid"` or `"leaky_relu"` (slope 0.01).
        norm_type (`str`, defaults to `"none"`): `"none"`, `"batch"`, `"layer"`, `"instance"` or `"group"` (4 groups).
        pooling (`str`, defaults to `"avg"`): `"avg"`, `"max"` (2 x 2) or `"none"`.
        classifier_hidden_size (`int`, *optional*, defaults to 192): Width of the hidden layer of the classifier.
            `None` leaves it out, as in dataset condensation.
        init (`str`, defaults to `"default"`): How weights are drawn: torch's `"default"`, as for DC, or `"xavier"`
            normal without biases, as for DD.
        label_smoothing (`float`, defaults to 0): Label smoothing of the classification loss, in [0, 1).

    Raises:
        huggingface_hub.errors.StrictDataclassError: If a field has the wrong type or fields contradict each other.
    """

    model_type = "distill_convnet"

    # Inputs
    num_channels: int = 3
    image_size: int = 32

    # Architecture
    hidden_size: int = 128
    num_hidden_layers: int = 3
    hidden_act: Literal["relu", "sigmoid", "leaky_relu"] = "relu"
    norm_type: Literal["none", "batch", "layer", "instance", "group"] = "none"
    pooling: Literal["avg", "max", "none"] = "avg"
    classifier_hidden_size: int | None = 192

    # Initialization and loss
    init: Literal["default", "xavier"] = "default"
    label_smoothing: float | int = 0.0

    @classmethod
    def from_variant(cls, name: str, **overrides: Any) -> "ConvNetConfig":
        """Configuration of one of the authors' names, with 10 labels unless `overrides` say otherwise."""
        return build_variant(cls, VARIANTS, name, overrides, num_labels=10)

    @property
    def map_sizes(self) -> list[int]:
        """Height and width of the map in each block, before pooling, and of the last one after it."""
        sizes, padding = [], GRAY_PADDING if self.num_channels == 1 else 1
        size = self.image_size + 2 * (padding - 1)
        for _ in range(self.num_hidden_layers):
            sizes.append(size)
            size = size if self.pooling == "none" else size // 2
        return [*sizes, size]

    def validate_architecture(self):
        check_rates(self, "label_smoothing")
        check_minimum(self, 1, "num_channels", "image_size", "hidden_size", "num_hidden_layers")
        check_minimum(self, 1, "classifier_hidden_size")
        check_maximum("num_hidden_layers", [self.num_hidden_layers], MAX_DEPTH)
        widths = [self.num_channels, self.image_size, self.hidden_size, self.classifier_hidden_size]
        check_maximum("hidden_size", widths, MAX_WIDTH)
        if self.map_sizes[-1] < 1:
            raise ValueError(
                f"`num_hidden_layers` must leave at least one pixel of `image_size` ({self.image_size}); got "
                f"{self.num_hidden_layers}. Set `pooling` to 'none', or use fewer blocks."
            )
        if self.norm_type == "group" and self.hidden_size % NUM_GROUPS:
            raise ValueError(
                f"`hidden_size` must be a multiple of {NUM_GROUPS} for `norm_type='group'`; got {self.hidden_size}."
            )
        if self.norm_type == "layer" and self.num_channels == 1:
            raise ValueError(
                "`norm_type` must not be 'layer' for `num_channels=1`: the first convolution pads by 3, and the "
                "authors' layer norm has the size of the image. Use 'instance' or 'group'."
            )


__all__ = ["VARIANTS", "ConvNetConfig"]
