"""Decode heads that turn EMO's maps into pixel logits: DeepLabV3, PSPNet, SegFormer, Semantic FPN, and an auxiliary.

Each takes the four stage maps, finest first, and returns logits at the stride of the map it works on. Paper: section
4.3 names DeepLabV3 and PSPNet (arXiv 1706.05587, 1612.01105); SegFormer (2105.15203) and Semantic FPN (1901.02446)
are the standard heads of those papers.
"""

import torch
from torch import nn
from torch.nn import functional

from ..shared.adaptive_pooling import compute_bin_means
from .block import EmoConvolutionLayer
from .configuration_emo import EmoConfig


DEEPLAB_DILATIONS = (1, 12, 24, 36)
PYRAMID_BINS = (1, 2, 3, 6)


def resize(feature_map: torch.Tensor, size: torch.Size) -> torch.Tensor:
    """A map at another height and width, bilinearly."""
    return functional.interpolate(feature_map, size=size, mode="bilinear", align_corners=False)


class EmoPixelClassifier(nn.Module):
    """Base of the heads: dropout of whole channels and a 1x1 classifier."""

    def __init__(self, config: EmoConfig, num_channels: int):
        super().__init__()
        self.dropout = nn.Dropout2d(config.decode_dropout_prob)
        self.classifier = nn.Conv2d(num_channels, config.num_labels, 1)

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.dropout(features))


class EmoDeepLabV3Head(EmoPixelClassifier):
    """Atrous spatial pyramid pooling on the last stage."""

    def __init__(self, config: EmoConfig):
        size, in_channels = config.decode_hidden_size, config.hidden_sizes[-1]
        super().__init__(config, size)
        self.image_pooling = EmoConvolutionLayer(in_channels, size)
        self.branches = nn.ModuleList(
            EmoConvolutionLayer(in_channels, size, 1 if dilation == 1 else 3, dilation=dilation)
            for dilation in DEEPLAB_DILATIONS
        )
        self.bottleneck = EmoConvolutionLayer((1 + len(DEEPLAB_DILATIONS)) * size, size, 3)

    def forward(self, feature_maps: tuple[torch.Tensor, ...]) -> torch.Tensor:
        features = feature_maps[-1]
        pooled = resize(self.image_pooling(features.mean((2, 3), keepdim=True)), features.shape[2:])
        return self.classify(self.bottleneck(torch.cat([pooled, *(branch(features) for branch in self.branches)], 1)))


class EmoPyramidPoolingHead(EmoPixelClassifier):
    """PSPNet: means over grids of several sizes, next to the last stage itself."""

    def __init__(self, config: EmoConfig):
        size, in_channels = config.decode_hidden_size, config.hidden_sizes[-1]
        super().__init__(config, size)
        self.pyramid = nn.ModuleList(EmoConvolutionLayer(in_channels, size) for _ in PYRAMID_BINS)
        self.bottleneck = EmoConvolutionLayer(in_channels + len(PYRAMID_BINS) * size, size, 3)

    def forward(self, feature_maps: tuple[torch.Tensor, ...]) -> torch.Tensor:
        features = feature_maps[-1]
        pooled = [
            resize(layer(compute_bin_means(features, bins)), features.shape[2:])
            for layer, bins in zip(self.pyramid, PYRAMID_BINS, strict=True)
        ]
        return self.classify(self.bottleneck(torch.cat([features, *pooled], 1)))


class EmoSegformerHead(EmoPixelClassifier):
    """Every stage projected to one width, resized to the finest stage and mixed per pixel."""

    def __init__(self, config: EmoConfig):
        size = config.decode_hidden_size
        super().__init__(config, size)
        self.projections = nn.ModuleList(EmoConvolutionLayer(channels, size) for channels in config.hidden_sizes)
        self.fusion = EmoConvolutionLayer(len(config.hidden_sizes) * size, size)

    def forward(self, feature_maps: tuple[torch.Tensor, ...]) -> torch.Tensor:
        size = feature_maps[0].shape[2:]
        projected = [resize(layer(maps), size) for layer, maps in zip(self.projections, feature_maps, strict=True)]
        return self.classify(self.fusion(torch.cat(projected, 1)))


class EmoSemanticFpnHead(EmoPixelClassifier):
    """Feature pyramid, then per level as many (convolution, doubling) steps as lead to the finest level, summed."""

    def __init__(self, config: EmoConfig):
        size = config.decode_hidden_size
        super().__init__(config, size)
        pyramid_size = 2 * size
        self.lateral_convolutions = nn.ModuleList(nn.Conv2d(size, pyramid_size, 1) for size in config.hidden_sizes)
        self.output_convolutions = nn.ModuleList(
            nn.Conv2d(pyramid_size, pyramid_size, 3, padding=1) for _ in config.hidden_sizes
        )
        self.scale_branches = nn.ModuleList(
            nn.ModuleList(
                EmoConvolutionLayer(pyramid_size if step == 0 else size, size, 3) for step in range(max(1, level))
            )
            for level in range(len(config.hidden_sizes))
        )

    def forward(self, feature_maps: tuple[torch.Tensor, ...]) -> torch.Tensor:
        levels = [layer(maps) for layer, maps in zip(self.lateral_convolutions, feature_maps, strict=True)]
        for index in range(len(levels) - 1, 0, -1):
            finer = levels[index - 1]
            levels[index - 1] = finer + functional.interpolate(levels[index], size=finer.shape[2:], mode="nearest")
        levels = [layer(maps) for layer, maps in zip(self.output_convolutions, levels, strict=True)]

        merged = self.scale_branches[0][0](levels[0])
        for branch, features in zip(self.scale_branches[1:], levels[1:], strict=True):
            for layer in branch:
                features = functional.interpolate(
                    layer(features), scale_factor=2, mode="bilinear", align_corners=False
                )
            # Sizes that were rounded up on the way down do not come back by doubling.
            merged = merged + resize(features, merged.shape[2:])
        return self.classify(merged)


class EmoAuxiliaryHead(EmoPixelClassifier):
    """One 3x3 convolution on the last but one stage, used for its loss only."""

    def __init__(self, config: EmoConfig):
        super().__init__(config, config.auxiliary_hidden_size)
        self.block = EmoConvolutionLayer(config.hidden_sizes[-2], config.auxiliary_hidden_size, 3)

    def forward(self, feature_maps: tuple[torch.Tensor, ...]) -> torch.Tensor:
        return self.classify(self.block(feature_maps[-2]))


DECODE_HEADS = {
    "deeplabv3": EmoDeepLabV3Head,
    "pspnet": EmoPyramidPoolingHead,
    "segformer": EmoSegformerHead,
    "sem_fpn": EmoSemanticFpnHead,
}
