"""Heads that read classes and boxes off the queries, with weights of their own for each layer of the decoder."""

import torch
from torch import nn
from torch.nn import functional
from transformers import initialization as init

from ..configuration_cmt import CmtConfig
from .initialization import reset_as_torch
from .position_encoding import inverse_sigmoid


GROUP_NORM_EPS = 1e-6
PRIOR_BIAS = -2.19  # logit of 0.1, rounded as by the authors
BOX_BRANCHES = {"center": 2, "height": 1, "size": 3, "rotation": 2, "velocity": 2}
"""Branches whose outputs, one after the other, are a coded box."""


class CmtGroupLayerNorm(nn.Module):
    """Layer norm over the channels of each layer's group."""

    def __init__(self, num_groups: int, num_channels: int):
        super().__init__()
        self.num_groups = num_groups
        self.weight = nn.Parameter(torch.ones(num_groups * num_channels))
        self.bias = nn.Parameter(torch.zeros(num_groups * num_channels))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Norm of `(batch_size, num_groups * num_channels, num_queries)`."""
        grouped = hidden_states.unflatten(1, (self.num_groups, -1))
        mean = grouped.mean(2, keepdim=True)
        variance = (grouped - mean).square().mean(2, keepdim=True)
        normed = (grouped - mean) / (variance + GROUP_NORM_EPS).sqrt()
        return normed.flatten(1, 2) * self.weight[:, None] + self.bias[:, None]


class CmtHeadBranch(nn.Module):
    """Two convolutions along the queries, grouped by layer of the decoder.

    With a kernel of 1 they are linear layers. With a kernel of 3, as in the published CMT-L, queries with neighboring
    numbers are mixed.
    """

    def __init__(self, config: CmtConfig, output_size: int):
        super().__init__()
        groups, kernel_size = config.num_hidden_layers, config.head_kernel_size
        width, hidden = groups * config.hidden_size, groups * config.head_hidden_size
        padding = kernel_size // 2
        self.conv1 = nn.Conv1d(width, hidden, kernel_size, padding=padding, groups=groups, bias=False)
        self.norm = CmtGroupLayerNorm(groups, config.head_hidden_size)
        self.conv2 = nn.Conv1d(hidden, groups * output_size, kernel_size, padding=padding, groups=groups)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """`(batch_size, num_layers * hidden_size, num_queries)` to the same with `output_size` channels per layer."""
        return self.conv2(functional.relu(self.norm(self.conv1(hidden_states))))


class CmtTaskHead(nn.Module):
    """Classes and boxes of one group of classes.

    Args:
        config ([`CmtConfig`]): the architecture.
        num_classes (`int`): classes of the group.
    """

    def __init__(self, config: CmtConfig, num_classes: int):
        super().__init__()
        self.num_layers = config.num_hidden_layers
        self.point_cloud_range = tuple(config.point_cloud_range)
        for name, size in BOX_BRANCHES.items():
            setattr(self, name, CmtHeadBranch(config, size))
        self.classes = CmtHeadBranch(config, num_classes)

    def reset_parameters(self, add_prior_bias: bool) -> None:
        """Initialization of torch; with a prior, class scores start at 0.1."""
        for module in self.modules():
            if isinstance(module, nn.Conv1d):
                reset_as_torch(module)
            elif isinstance(module, CmtGroupLayerNorm):
                init.ones_(module.weight)
                init.zeros_(module.bias)
        if add_prior_bias:
            init.constant_(self.classes.conv2.bias, PRIOR_BIAS)

    def forward(
        self, hidden_states: torch.Tensor, reference_points: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Predictions of every layer.

        Args:
            hidden_states (`torch.FloatTensor` of shape `(num_layers, batch_size, num_queries, hidden_size)`): states.
            reference_points (`torch.FloatTensor` of shape `(batch_size, num_queries, 3)`): anchors in [0, 1].

        Returns:
            Class scores `(num_layers, batch_size, num_queries, num_classes)` and coded boxes `(num_layers, batch_size,
            num_queries, 10)`, in meters. Slots 0 to 2 lie within the range: they are offsets from the anchor, through
            a sigmoid. With official slots the third is the logarithm of the length all the same.
        """
        # Meters need more digits than half precision has, so these layers are never autocast.
        with torch.autocast(hidden_states.device.type, enabled=False):
            stacked = hidden_states.permute(1, 0, 3, 2).flatten(1, 2)  # (batch, layers * channels, queries)
            stacked = stacked.to(self.classes.conv1.weight.dtype)
            box = torch.cat([self.split_layers(getattr(self, name)(stacked)) for name in BOX_BRANCHES], dim=-1)
            logits = self.split_layers(self.classes(stacked))
        box = box.to(torch.promote_types(box.dtype, torch.float32))
        limits = box.new_tensor(self.point_cloud_range)
        center = (box[..., :3] + inverse_sigmoid(reference_points.to(box.dtype))).sigmoid()
        center = center * (limits[3:] - limits[:3]) + limits[:3]
        return logits, torch.cat([center, box[..., 3:]], dim=-1)

    def split_layers(self, outputs: torch.Tensor) -> torch.Tensor:
        """`(batch_size, num_layers * channels, num_queries)` to `(num_layers, batch_size, num_queries, channels)`."""
        return outputs.unflatten(1, (self.num_layers, -1)).permute(1, 0, 3, 2)


__all__ = ["BOX_BRANCHES", "CmtGroupLayerNorm", "CmtHeadBranch", "CmtTaskHead"]
