"""2D network of CMT over the bird's-eye view: SECOND's backbone and its feature pyramid."""

from collections.abc import Sequence

import torch
from torch import nn

from ..configuration_cmt import CmtLidarConfig


class CmtBevConvLayer(nn.Module):
    """Convolution (or transposed convolution) without bias, batch norm, ReLU."""

    def __init__(self, config: CmtLidarConfig, convolution: nn.Conv2d | nn.ConvTranspose2d):
        super().__init__()
        self.convolution = convolution
        self.normalization = nn.BatchNorm2d(
            convolution.out_channels, eps=config.batch_norm_eps, momentum=config.batch_norm_momentum
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.normalization(self.convolution(features)).relu()


class CmtBevBackbone(nn.Module):
    """SECOND: blocks of 3x3 convolutions, each with its own stride.

    Args:
        config ([`CmtLidarConfig`]): Configuration.
    """

    def __init__(self, config: CmtLidarConfig):
        super().__init__()
        self.blocks = nn.ModuleList()
        in_size = config.bev_size
        for size, depth, stride in zip(config.bev_hidden_sizes, config.bev_depths, config.bev_strides, strict=True):
            widths, strides = [in_size] + [size] * depth, [stride] + [1] * depth
            self.blocks.append(
                nn.ModuleList(
                    CmtBevConvLayer(config, nn.Conv2d(width, size, 3, step, padding=1, bias=False))
                    for width, step in zip(widths, strides, strict=True)
                )
            )
            in_size = size

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Maps of all blocks.

        Args:
            features (`torch.FloatTensor` of shape `(batch_size, bev_size, height, width)`): The sparse encoder's map.
        """
        outputs = []
        for block in self.blocks:
            for layer in block:
                features = layer(features)
            outputs.append(features)
        return tuple(outputs)


class CmtBevNeck(nn.Module):
    """SECOND's feature pyramid: brings the maps to one size and concatenates their channels.

    Where a stride did not divide a map evenly, what is too much at the bottom and on the right is cut off.

    Args:
        config ([`CmtLidarConfig`]): Configuration.
    """

    def __init__(self, config: CmtLidarConfig):
        super().__init__()
        sizes = zip(config.bev_hidden_sizes, config.bev_neck_sizes, config.bev_upsample_strides, strict=True)
        self.levels = nn.ModuleList(CmtBevConvLayer(config, _build_resampling(*level)) for level in sizes)

    def forward(self, feature_maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """One map of shape `(batch_size, sum(bev_neck_sizes), height, width)`.

        Args:
            feature_maps (`Sequence[torch.FloatTensor]`): Maps of [`CmtBevBackbone`].
        """
        resampled = [level(feature_map) for level, feature_map in zip(self.levels, feature_maps, strict=True)]
        height = min(feature_map.shape[2] for feature_map in resampled)
        width = min(feature_map.shape[3] for feature_map in resampled)
        return torch.cat([feature_map[:, :, :height, :width] for feature_map in resampled], dim=1)


def _build_resampling(in_size: int, out_size: int, scale: float) -> nn.Conv2d | nn.ConvTranspose2d:
    if scale > 1:
        return nn.ConvTranspose2d(in_size, out_size, round(scale), stride=round(scale), bias=False)
    stride = round(1 / scale)
    return nn.Conv2d(in_size, out_size, stride, stride=stride, bias=False)
