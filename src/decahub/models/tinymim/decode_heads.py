"""Heads that turn the feature pyramid into pixel logits: transformers' UPerNet and FCN, with dropout.

Paper of the decode head: "Unified Perceptual Parsing for Scene Understanding", arXiv 1807.10221.
"""

import torch
from torch import nn
from torch.nn import functional
from transformers import UperNetConfig
from transformers.models.upernet.modeling_upernet import UperNetFCNHead, UperNetHead

from ..shared.adaptive_pooling import AdaptiveMeans
from .configuration_tinymim import TinyMimConfig


AUXILIARY_LEVEL = 2  # of the pyramid: the map on the grid of patches


class TinyMimPixelClassifier(nn.Conv2d):
    """A 1x1 convolution after dropout of whole channels, which transformers' heads lack.

    Args:
        num_channels (`int`): width of the features.
        num_labels (`int`): classes.
        dropout_prob (`float`): probability of dropping a channel.
    """

    def __init__(self, num_channels: int, num_labels: int, dropout_prob: float):
        super().__init__(num_channels, num_labels, kernel_size=1)
        self.dropout_prob = dropout_prob

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return super().forward(functional.dropout2d(features, self.dropout_prob, self.training))


def build_head_config(config: TinyMimConfig) -> UperNetConfig:
    """What transformers' heads read, from our names."""
    head_config = UperNetConfig(
        hidden_size=config.decode_hidden_size,
        pool_scales=list(config.pool_scales),
        auxiliary_channels=config.auxiliary_hidden_size,
        auxiliary_num_convs=1,
        auxiliary_concat_input=False,
    )
    head_config.num_labels = config.num_labels
    return head_config


def build_decode_head(config: TinyMimConfig, in_channels: list[int]) -> UperNetHead:
    """UPerNet: pyramid pooling on the coarsest map, then all maps fused at the finest.

    Training needs at least two images in a batch: the smallest pool holds one value for each, and is batch-normed.

    Args:
        config ([`TinyMimConfig`]): gives `decode_hidden_size`, `pool_scales`, `decode_dropout_prob`, `num_labels`.
        in_channels (`list[int]`): width of each map, finest first.
    """
    head = UperNetHead(build_head_config(config), in_channels)
    head.classifier = TinyMimPixelClassifier(config.decode_hidden_size, config.num_labels, config.decode_dropout_prob)
    for module in head.modules():
        if isinstance(module, nn.AdaptiveAvgPool2d):
            module.__class__ = AdaptiveMeans
    return head


def build_auxiliary_head(config: TinyMimConfig, in_channels: list[int]) -> UperNetFCNHead:
    """One 3x3 convolution and a classifier on the map at the grid of patches; its loss helps training.

    Args:
        config ([`TinyMimConfig`]): gives `auxiliary_hidden_size`, `decode_dropout_prob`, `num_labels`.
        in_channels (`list[int]`): width of each map, finest first.
    """
    head = UperNetFCNHead(build_head_config(config), in_channels, in_index=AUXILIARY_LEVEL)
    head.classifier = TinyMimPixelClassifier(
        config.auxiliary_hidden_size, config.num_labels, config.decode_dropout_prob
    )
    return head


__all__ = ["TinyMimPixelClassifier", "build_auxiliary_head", "build_decode_head"]
