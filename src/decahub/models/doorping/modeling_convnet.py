"""The ConvNet of dataset condensation: blocks of convolution, norm, activation and pooling, and a two-layer head.

It differs from the well-known one (arXiv 2006.05929) as the authors' does: no norm by default, and 192 hidden units
before the classifier (`classifier_hidden_size=None` removes them).
"""

import torch
from torch import nn

from .average_pooling import AveragePool
from .configuration_convnet import GRAY_PADDING, NUM_GROUPS, ConvNetConfig
from .networks import DistillNetwork


ACTIVATIONS = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid, "leaky_relu": nn.LeakyReLU}
POOLINGS = {"avg": nn.AvgPool2d, "max": nn.MaxPool2d}


def build_norm(norm_type: str, num_channels: int, size: int) -> nn.Module:
    """The norm of a block with maps of `size` pixels a side."""
    if norm_type == "batch":
        return nn.BatchNorm2d(num_channels)
    if norm_type == "layer":
        return nn.LayerNorm([num_channels, size, size])
    return nn.GroupNorm(num_channels if norm_type == "instance" else NUM_GROUPS, num_channels)


class ConvNetForImageClassification(DistillNetwork):
    """ConvNet with its classifier.

    Args:
        config ([`ConvNetConfig`]): The architecture.
    """

    config: ConvNetConfig
    config_class = ConvNetConfig
    _input_embed_layer = "features"

    def __init__(self, config: ConvNetConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        width, layers, in_channels = config.hidden_size, [], config.num_channels
        for index, size in enumerate(config.map_sizes[:-1]):
            padding = GRAY_PADDING if index == 0 and config.num_channels == 1 else 1
            layers.append(nn.Conv2d(in_channels, width, kernel_size=3, padding=padding))
            if config.norm_type != "none":
                layers.append(build_norm(config.norm_type, width, size))
            layers.append(ACTIVATIONS[config.hidden_act]())
            if config.pooling != "none":
                layers.append(POOLINGS[config.pooling](2))
            in_channels = width
        self.features = nn.Sequential(*layers)
        num_features, hidden_size = width * config.map_sizes[-1] ** 2, config.classifier_hidden_size
        if hidden_size is None:
            self.classifier = nn.Linear(num_features, config.num_labels)
        else:
            self.classifier = nn.Sequential(
                nn.Linear(num_features, hidden_size), nn.ReLU(), nn.Linear(hidden_size, config.num_labels)
            )
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The first convolution."""
        return self.features[0]

    def compute_feature_maps(self, pixel_values: torch.Tensor) -> list[torch.Tensor]:
        maps, length = [], len(self.features) // self.config.num_hidden_layers
        for index, layer in enumerate(self.features):
            pixel_values = layer(pixel_values)
            if index % length == length - 1:
                maps.append(pixel_values)
        return maps

    def compute_embeddings(self, pixel_values: torch.Tensor) -> torch.Tensor:
        # What the distillers call most. torch pools quickly in the channels-last format only, which one channel does
        # not have.
        if pixel_values.shape[1] > 1:
            return super().compute_embeddings(pixel_values.contiguous(memory_format=torch.channels_last))
        for layer in self.features:
            is_average = isinstance(layer, nn.AvgPool2d)
            pixel_values = AveragePool.apply(pixel_values) if is_average else layer(pixel_values)
        return pixel_values.flatten(1)


__all__ = ["ConvNetForImageClassification"]
