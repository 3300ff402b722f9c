"""Configuration of the AlexNet for images of 32 pixels that both distillers use."""

from typing import Literal

from huggingface_hub.dataclasses import strict
from transformers.configuration_utils import PreTrainedConfig

from ..shared.checks import MAX_WIDTH, CheckedConfig, check_maximum, check_minimum, check_rates


IMAGE_SIZE = 32


@strict
class AlexNetConfig(CheckedConfig, PreTrainedConfig):
    """Configuration of [`AlexNetForImageClassification`].

    Args:
        num_channels (`int`, defaults to 3): Channels of `pixel_values`.
        image_size (`int`, defaults to 32): Height and width of `pixel_values`; the network has no other size.
        init (`str`, defaults to `"default"`): How weights are drawn: torch's `"default"`, as for DC, or `"xavier"`
            normal without biases, as for DD.
        label_smoothing (`float`, defaults to 0): Label smoothing of the classification loss, in [0, 1).

    Raises:
        huggingface_hub.errors.StrictDataclassError: If a field has the wrong type or value.
    """

    model_type = "distill_alexnet"

    num_channels: int = 3
    image_size: int = IMAGE_SIZE
    init: Literal["default", "xavier"] = "default"
    label_smoothing: float | int = 0.0

    def validate_architecture(self):
        check_rates(self, "label_smoothing")
        check_minimum(self, 1, "num_channels")
        check_maximum("num_channels", [self.num_channels], MAX_WIDTH)
        if self.image_size != IMAGE_SIZE:
            raise ValueError(
                f"`image_size` must be {IMAGE_SIZE} for AlexNet; got {self.image_size}. Resize with "
                "`DoorpingImageProcessor`, or use ConvNet."
            )


__all__ = ["AlexNetConfig"]
