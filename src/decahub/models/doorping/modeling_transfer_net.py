"""VGG11 and ResNet18 for images of 32 pixels, as dataset condensation tests its sets on them.

ResNet18 has two linear layers without an activation between them as its head, which is the authors' change.
"""

import torch
from torch import nn
from torch.nn import functional

from .configuration_transfer_net import TransferNetConfig
from .networks import DistillNetwork


VGG11_WIDTHS = ((64,), (128,), (256, 256), (512, 512), (512, 512))  # of the convolutions before each pooling
RESNET18_WIDTHS = (64, 128, 256, 512)
BLOCKS_PER_STAGE = 2
POOLED = 512


def build_norm(norm_type: str, num_channels: int) -> nn.Module:
    """Norm after a convolution."""
    return nn.BatchNorm2d(num_channels) if norm_type == "batch" else nn.GroupNorm(num_channels, num_channels)


class TransferNetBlock(nn.Module):
    """Two convolutions on a residual stream: `relu(x + bn2(conv2(relu(bn1(conv1(x))))))`."""

    def __init__(self, in_channels: int, num_channels: int, stride: int, norm_type: str):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, num_channels, 3, stride, padding=1, bias=False)
        self.bn1 = build_norm(norm_type, num_channels)
        self.conv2 = nn.Conv2d(num_channels, num_channels, 3, padding=1, bias=False)
        self.bn2 = build_norm(norm_type, num_channels)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != num_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, num_channels, 1, stride, bias=False), build_norm(norm_type, num_channels)
            )

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        residual = functional.relu(self.bn1(self.conv1(hidden_states)))
        return functional.relu(self.bn2(self.conv2(residual)) + self.shortcut(hidden_states))


class TransferNetForImageClassification(DistillNetwork):
    """VGG11 or ResNet18 with its classifier.

    Args:
        config ([`TransferNetConfig`]): The architecture.
    """

    config: TransferNetConfig
    config_class = TransferNetConfig
    _no_split_modules = ["TransferNetBlock"]

    def __init__(self, config: TransferNetConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        if config.architecture == "vgg11":
            self._build_vgg11(config)
        else:
            self._build_resnet18(config)
        self.post_init()

    def _build_vgg11(self, config: TransferNetConfig) -> None:
        layers: list[nn.Module] = []
        in_channels = config.num_channels
        for widths in VGG11_WIDTHS:
            for width in widths:
                padding = 3 if in_channels == 1 else 1  # of the first layer for gray images, as in ConvNet
                layers.append(nn.Conv2d(in_channels, width, kernel_size=3, padding=padding))
                layers += [build_norm(config.norm_type, width), nn.ReLU()]
                in_channels = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers, nn.AvgPool2d(1))
        self.classifier = nn.Linear(POOLED, config.num_labels)

    def _build_resnet18(self, config: TransferNetConfig) -> None:
        in_channels = RESNET18_WIDTHS[0]
        self.conv1 = nn.Conv2d(config.num_channels, in_channels, kernel_size=3, padding=1, bias=False)
        self.bn1 = build_norm(config.norm_type, in_channels)
        for index, width in enumerate(RESNET18_WIDTHS):
            blocks = []
            for number in range(BLOCKS_PER_STAGE):
                stride = 2 if index > 0 and number == 0 else 1
                blocks.append(TransferNetBlock(in_channels, width, stride, config.norm_type))
                in_channels = width
            self.add_module(f"layer{index + 1}", nn.Sequential(*blocks))
        self.classifier = nn.Sequential(nn.Linear(POOLED, POOLED), nn.Linear(POOLED, config.num_labels))

    def get_input_embeddings(self) -> nn.Module:
        """The first convolution."""
        return self.features[0] if self.config.architecture == "vgg11" else self.conv1

    def compute_feature_maps(self, pixel_values: torch.Tensor) -> list[torch.Tensor]:
        maps = []
        if self.config.architecture == "vgg11":
            for layer in self.features:
                pixel_values = layer(pixel_values)
                if isinstance(layer, nn.MaxPool2d):
                    maps.append(pixel_values)
            return maps
        hidden_states = functional.relu(self.bn1(self.conv1(pixel_values)))
        for index in range(len(RESNET18_WIDTHS)):
            hidden_states = self.get_submodule(f"layer{index + 1}")(hidden_states)
            maps.append(hidden_states)
        return [*maps[:-1], functional.avg_pool2d(maps[-1], 4)]


__all__ = ["TransferNetForImageClassification"]
