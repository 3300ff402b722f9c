"""EMO written straight from the paper's formulas: what the speed of `decahub.models.emo` is measured against.

Everything is NCHW, nothing is folded, and windows are cut by reshapes and permutations, as in the authors' code.
Parameter names are the authors' too, so that `conversion.convert_emo.revert_state_dict` loads weights of an
`EmoForImageClassification`.
Only what the published models use is here: no dropout, no drop path, grid windows, attention before expansion.

Source: "Rethinking Mobile Block for Efficient Attention-based Models", arXiv 2301.01146.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn


ACTIVATIONS = {"silu": nn.SiLU, "gelu": nn.GELU, "relu": nn.ReLU}


def same_padding(kernel_size: int, stride: int) -> int:
    """Symmetric padding that makes a convolution's output `ceil(size / stride)` wide."""
    return math.ceil((kernel_size - stride) / 2)


class LayerNorm2d(nn.Module):
    """Layer normalization over the channels of each pixel of an NCHW map."""

    def __init__(self, num_channels: int, eps: float):
        super().__init__()
        self.norm = nn.LayerNorm(num_channels, eps=eps)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        hidden_states = hidden_states.permute(0, 2, 3, 1).contiguous()
        return self.norm(hidden_states).permute(0, 3, 1, 2).contiguous()


def build_norm(norm_type: str, num_channels: int, config) -> nn.Module:
    if norm_type == "layer_norm":
        return LayerNorm2d(num_channels, config.layer_norm_eps)
    return nn.BatchNorm2d(num_channels, config.batch_norm_eps)


class ConvolutionOnly(nn.Module):
    """A convolution under the name `conv`, which the authors' layers of this kind carry."""

    def __init__(self, in_channels: int, out_channels: int, bias: bool):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=bias)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.conv(hidden_states)


class DepthwiseConvolution(nn.Module):
    """Depth-wise convolution, batch norm and SiLU."""

    def __init__(self, num_channels: int, kernel_size: int, stride: int, eps: float):
        super().__init__()
        padding = same_padding(kernel_size, stride)
        self.conv = nn.Conv2d(
            num_channels, num_channels, kernel_size, stride, padding, groups=num_channels, bias=False
        )
        self.norm = nn.BatchNorm2d(num_channels, eps)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return F.silu(self.norm(self.conv(hidden_states)))


class SqueezeExcitation(nn.Module):
    """Scales each channel by a gate computed from the mean of all channels."""

    def __init__(self, num_channels: int, ratio: float, activation: type[nn.Module]):
        super().__init__()
        num_reduced = round(num_channels * ratio)
        self.conv_reduce = nn.Conv2d(num_channels, num_reduced, kernel_size=1)
        self.activation = activation()
        self.conv_expand = nn.Conv2d(num_reduced, num_channels, kernel_size=1)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        gate = hidden_states.mean((2, 3), keepdim=True)
        gate = self.conv_expand(self.activation(self.conv_reduce(gate)))
        return hidden_states * gate.sigmoid()


class InvertedResidualMobileBlock(nn.Module):
    """Expand (with or without window attention), depth-wise convolution, shrink; one residual around it all."""

    def __init__(
        self,
        config,
        stage: int,
        in_channels: int,
        out_channels: int,
        *,
        stride: int = 1,
        expansion_ratio: float = 1,
        use_attention: bool = False,
        is_stem: bool = False,
    ):
        super().__init__()
        num_expanded = int(in_channels * expansion_ratio)
        activation = ACTIVATIONS[config.hidden_acts[stage]]
        squeeze_ratio = 1.0 if is_stem else config.squeeze_excitation_ratios[stage]
        self.has_skip = in_channels == out_channels and stride == 1 and not is_stem
        self.head_dim = config.head_dims[stage]
        self.window_size = config.window_sizes[stage]

        self.norm = nn.Identity() if is_stem else build_norm(config.norm_types[stage], in_channels, config)
        self.qk = ConvolutionOnly(in_channels, 2 * in_channels, config.qkv_bias) if use_attention else None
        self.v = None if is_stem else ConvolutionOnly(in_channels, num_expanded, config.qkv_bias)
        self.activation = activation()
        self.conv_local = DepthwiseConvolution(
            num_expanded, config.depthwise_kernel_sizes[stage], stride, config.batch_norm_eps
        )
        self.se = SqueezeExcitation(num_expanded, squeeze_ratio, activation) if squeeze_ratio > 0 else nn.Identity()
        self.proj = ConvolutionOnly(num_expanded, out_channels, bias=False)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        residual = hidden_states
        hidden_states = self.norm(hidden_states)
        if self.qk is not None:
            hidden_states = self.attend(hidden_states)
        elif self.v is not None:
            hidden_states = self.activation(self.v(hidden_states))
        local = self.se(self.conv_local(hidden_states))
        hidden_states = self.proj(hidden_states + local if self.has_skip else local)
        return residual + hidden_states if self.has_skip else hidden_states

    def attend(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Averages the unexpanded channels within windows, then expands them."""
        height, width = hidden_states.shape[2:]
        window_height, window_width = (self.window_size,) * 2 if self.window_size > 0 else (height, width)
        pad_height, pad_width = -height % window_height, -width % window_width
        hidden_states = F.pad(hidden_states, (0, pad_width, 0, pad_height))
        batch_size, num_channels, padded_height, padded_width = hidden_states.shape
        rows, columns = padded_height // window_height, padded_width // window_width

        # A window is a comb: pixel (r, c) belongs to window (r mod rows, c mod columns).
        windows = hidden_states.reshape(batch_size, num_channels, window_height, rows, window_width, columns)
        windows = windows.permute(0, 3, 5, 1, 2, 4).reshape(-1, num_channels, window_height, window_width)
        windows = self.activation(self.v(self.average(windows)))
        windows = windows.reshape(batch_size, rows, columns, -1, window_height, window_width)
        windows = windows.permute(0, 3, 4, 1, 5, 2).reshape(batch_size, -1, padded_height, padded_width)
        return windows[:, :, :height, :width].contiguous()

    def average(self, windows: torch.Tensor) -> torch.Tensor:
        """Multi-head attention of each window over its own pixels, without a projection of the values."""
        num_windows, num_channels, height, width = windows.shape
        num_heads = num_channels // self.head_dim
        query_key = self.qk(windows).reshape(num_windows, 2, num_heads, self.head_dim, height * width)
        query, key = query_key.permute(1, 0, 2, 4, 3).contiguous().unbind(0)
        value = windows.reshape(num_windows, num_heads, self.head_dim, height * width).transpose(2, 3).contiguous()
        attention = (query @ key.transpose(2, 3) * self.head_dim**-0.5).softmax(dim=-1)
        return (attention @ value).transpose(2, 3).reshape(num_windows, num_channels, height, width)


class ReferenceEmo(nn.Module):
    """EMO classifier with the structure and the parameter names of the authors' release.

    Args:
        config (`EmoConfig`): only published settings are honored (grid windows, no dropout, and so on).
    """

    def __init__(self, config):
        super().__init__()
        stem_size = config.stem_hidden_size
        kernel_size = config.depthwise_kernel_sizes[0]
        patch_embedding = nn.Sequential(
            nn.Conv2d(
                config.num_channels,
                stem_size,
                kernel_size,
                config.stem_stride,
                same_padding(kernel_size, config.stem_stride),
            ),
            build_norm(config.norm_types[0], stem_size, config),
        )
        self.stage0 = nn.Sequential(
            nn.ModuleDict({"convs": nn.ModuleList([patch_embedding])}),
            InvertedResidualMobileBlock(config, 0, stem_size, stem_size, is_stem=True),
        )
        in_channels = stem_size
        for stage, (depth, out_channels) in enumerate(zip(config.depths, config.hidden_sizes, strict=True)):
            setattr(self, f"stage{stage + 1}", self.build_stage(config, stage, depth, in_channels, out_channels))
            in_channels = out_channels
        self.norm = build_norm(config.norm_types[-1], in_channels, config)
        self.head = nn.Linear(in_channels, config.num_labels)

    @staticmethod
    def build_stage(config, stage: int, depth: int, in_channels: int, out_channels: int) -> nn.Sequential:
        ratio = config.expansion_ratios[stage]
        blocks = [
            InvertedResidualMobileBlock(config, stage, in_channels, out_channels, stride=2, expansion_ratio=2 * ratio)
        ]
        for _ in range(depth - 1):
            blocks.append(
                InvertedResidualMobileBlock(
                    config,
                    stage,
                    out_channels,
                    out_channels,
                    expansion_ratio=ratio,
                    use_attention=config.use_attention[stage],
                )
            )
        return nn.Sequential(*blocks)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Logits `(batch_size, num_labels)` for `pixel_values` `(batch_size, channels, height, width)`."""
        (patch_embedding,) = self.stage0[0]["convs"]
        hidden_states = self.stage0[1](patch_embedding(pixel_values))
        for stage in (self.stage1, self.stage2, self.stage3, self.stage4):
            hidden_states = stage(hidden_states)
        return self.head(self.norm(hidden_states).mean((2, 3)))
