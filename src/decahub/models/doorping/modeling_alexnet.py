"""The AlexNet for images of 32 pixels: "AlexNet" in the authors' DC code, "AlexCifarNet" in their DD code."""

import torch
from torch import nn

from .configuration_alexnet import AlexNetConfig
from .networks import DistillNetwork


POOLED = 64 * 8 * 8  # values after the last pooling
BLOCK_ENDS = (3, 7)  # layers of `features` after which a map is returned


def build_response_norm() -> nn.LocalResponseNorm:
    """The norm across channels, with torch's meaning of alpha."""
    return nn.LocalResponseNorm(4, alpha=0.001 / 9, beta=0.75, k=1.0)


class AlexNetForImageClassification(DistillNetwork):
    """AlexNet for 32 x 32 pixels, with its classifier.

    Args:
        config ([`AlexNetConfig`]): The architecture.
    """

    config: AlexNetConfig
    config_class = AlexNetConfig
    _input_embed_layer = "features"

    def __init__(self, config: AlexNetConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.features = nn.Sequential(
            nn.Conv2d(config.num_channels, 64, kernel_size=5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
            build_response_norm(),
            nn.Conv2d(64, 64, kernel_size=5, padding=2),
            nn.ReLU(),
            build_response_norm(),
            nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
        )
        self.classifier = nn.Sequential(
            nn.Linear(POOLED, 384), nn.ReLU(), nn.Linear(384, 192), nn.ReLU(), nn.Linear(192, config.num_labels)
        )
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The first convolution."""
        return self.features[0]

    def compute_feature_maps(self, pixel_values: torch.Tensor) -> list[torch.Tensor]:
        maps = []
        for index, layer in enumerate(self.features):
            pixel_values = layer(pixel_values)
            if index in BLOCK_ENDS:
                maps.append(pixel_values)
        return maps


__all__ = ["AlexNetForImageClassification"]
