"""Parts of EMO: norms, depth-wise convolution, attention windows, and the inverted residual mobile block made of them.

Paper, section 3.2. All work on maps of shape `(batch_size, channels, height, width)` in any memory format; the model
keeps them in `channels_last`, where a norm over channels and a 1x1 convolution read memory in order.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils import logging

from ..shared.attention import eager_attention_forward
from ..shared.drop_path import drop_path
from .configuration_emo import EmoConfig


logger = logging.get_logger(__name__)

HEAD_BATCH_NORM_EPS = 1e-5


def is_recomputing() -> bool:
    """Whether the autograd engine is at work, that is, gradient checkpointing runs a forward for the second time."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


class EmoBatchNorm(nn.BatchNorm2d):
    """Batch norm that gradient checkpointing does not make count a batch twice.

    With frozen weights, as under adapters, it keeps its statistics, which no adapter would save.
    """

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        if self.training and not self.weight.requires_grad:
            return functional.batch_norm(
                hidden_states, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        if self.training and hidden_states.shape[0] * hidden_states.shape[2] * hidden_states.shape[3] == 1:
            raise ValueError(
                "`pixel_values` must hold at least 2 images in training; got 1, and its map of 1 x 1 gives a batch "
                "norm nothing to average. Raise the batch size, and set `drop_last` of the data loader."
            )
        if self.training and is_recomputing():
            return functional.batch_norm(
                hidden_states, self.running_mean, self.running_var, self.weight, self.bias, True, 0.0, self.eps
            )
        return super().forward(hidden_states)


class EmoLayerNorm(nn.LayerNorm):
    """Layer norm over the channels of each pixel."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return super().forward(hidden_states.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def build_norm(norm_type: str, num_channels: int, config: EmoConfig) -> nn.Module:
    """Norm over channels by its name in `config.norm_types`."""
    if norm_type == "batch_norm":
        return EmoBatchNorm(num_channels, eps=config.batch_norm_eps)
    return EmoLayerNorm(num_channels, eps=config.layer_norm_eps)


def compute_weight_gradient(
    hidden_states: torch.Tensor, grad_output: torch.Tensor, kernel_size: int, stride: int, padding: int
) -> torch.Tensor:
    """Gradient of a depth-wise convolution's weight, one tap of the kernel after the other.

    With the input padded by zeros:

        dL / dw[c, i, j] = sum over b, y, x of  dL / dout[b, c, y, x] * in[b, c, y * stride + i, x * stride + j]

    Args:
        hidden_states (`torch.Tensor` of shape `(batch_size, channels, height, width)`): input of the convolution.
        grad_output (`torch.Tensor` of shape `(batch_size, channels, out_height, out_width)`): gradient of its output.
        kernel_size (`int`): of the square kernel.
        stride (`int`): of the convolution.
        padding (`int`): zeros added on each side.

    Returns:
        `torch.Tensor` of shape `(channels, 1, kernel_size, kernel_size)`.
    """
    padded = functional.pad(hidden_states.permute(0, 2, 3, 1), (0, 0, padding, padding, padding, padding))
    grad_output = grad_output.permute(0, 2, 3, 1)
    row_span = stride * (grad_output.shape[1] - 1) + 1
    column_span = stride * (grad_output.shape[2] - 1) + 1
    taps = [
        (padded[:, row : row + row_span : stride, column : column + column_span : stride] * grad_output).sum((0, 1, 2))
        for row in range(kernel_size)
        for column in range(kernel_size)
    ]
    return torch.stack(taps, 1).view(-1, 1, kernel_size, kernel_size)


class SmallMapConvolution(torch.autograd.Function):
    """The library's depth-wise convolution with `compute_weight_gradient` in its backward pass.

    On CPUs the library's kernel for that gradient is about forty times as slow as the rest of the pass where maps are
    smaller than the kernel, which made up a third of a training step on 32-pixel images.
    """

    @staticmethod
    def forward(hidden_states: torch.Tensor, weight: torch.Tensor, stride: int, padding: int) -> torch.Tensor:
        return functional.conv2d(hidden_states, weight, None, stride, padding, groups=len(weight))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: torch.Tensor) -> None:
        hidden_states, weight, ctx.stride, ctx.padding = inputs
        ctx.save_for_backward(hidden_states, weight)

    @staticmethod
    def backward(ctx: Any, grad_output: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden_states, weight = ctx.saved_tensors
        grad_input = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_input = nn.grad.conv2d_input(
                hidden_states.shape, weight, grad_output, ctx.stride, ctx.padding, groups=len(weight)
            )
        if ctx.needs_input_grad[1]:
            grad_weight = compute_weight_gradient(
                hidden_states, grad_output, weight.shape[-1], ctx.stride, ctx.padding
            )
        return grad_input, grad_weight, None, None


class EmoDepthwiseConvolution(nn.Conv2d):
    """`torch.nn.Conv2d` with one group per channel and a square kernel, and the faster gradient where it pays."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        if self.has_slow_weight_gradient(hidden_states):
            return SmallMapConvolution.apply(hidden_states, self.weight, self.stride[0], self.padding[0])
        return super().forward(hidden_states)

    def has_slow_weight_gradient(self, hidden_states: torch.Tensor) -> bool:
        return (
            not torch.compiler.is_compiling()
            and torch.is_grad_enabled()
            and self.weight.requires_grad
            and hidden_states.device.type == "cpu"
            and hidden_states.dtype == self.weight.dtype
            and not torch.is_autocast_enabled("cpu")
            and min(hidden_states.shape[2:]) < self.kernel_size[0]
        )


class EmoConvolutionLayer(nn.Module):
    """Convolution, norm, activation; padded so that stride 1 keeps the size and stride 2 halves it, rounded up."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = False,
        norm: nn.Module | None = None,
        hidden_act: str | None = "relu",
    ):
        super().__init__()
        padding = (kernel_size // 2) * dilation
        convolution_class = EmoDepthwiseConvolution if groups == in_channels == out_channels else nn.Conv2d
        self.convolution = convolution_class(
            in_channels, out_channels, kernel_size, stride, padding, dilation=dilation, groups=groups, bias=bias
        )
        self.normalization = norm if norm is not None else EmoBatchNorm(out_channels, eps=HEAD_BATCH_NORM_EPS)
        self.activation = nn.Identity() if hidden_act is None else ACT2FN[hidden_act]

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.activation(self.normalization(self.convolution(hidden_states)))


class EmoSqueezeExcitation(nn.Module):
    """Weights channels by a gate computed from their means (arXiv 1709.01507)."""

    def __init__(self, num_channels: int, reduction_ratio: float, hidden_act: str):
        super().__init__()
        reduced = round(num_channels * reduction_ratio)
        self.reduce = nn.Conv2d(num_channels, reduced, 1)
        self.activation = ACT2FN[hidden_act]
        self.expand = nn.Conv2d(reduced, num_channels, 1)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        pooled = hidden_states.mean((2, 3), keepdim=True)
        return hidden_states * self.expand(self.activation(self.reduce(pooled))).sigmoid()


@dataclass(frozen=True)
class EmoWindows:
    """How a map is cut: `rows x columns` windows of `window_height x window_width` pixels for each image.

    A `"grid"` window takes every `rows`-th row and `columns`-th column, so each reaches over the whole map, as in the
    authors' code; a `"tile"` is contiguous. Maps are completed with zeros below and to the right.
    """

    batch_size: int
    height: int
    width: int
    window_height: int
    window_width: int
    mode: str

    @classmethod
    def of(cls, hidden_states: torch.Tensor, window_size: int, mode: str) -> "EmoWindows":
        """Windows of side `window_size` for a map; 0 or less gives one window that is the map."""
        batch_size, _, height, width = hidden_states.shape
        window_height, window_width = (height, width) if window_size <= 0 else (window_size, window_size)
        return cls(batch_size, height, width, window_height, window_width, mode)

    @property
    def rows(self) -> int:
        return -(-self.height // self.window_height)

    @property
    def columns(self) -> int:
        return -(-self.width // self.window_width)

    @property
    def padded_height(self) -> int:
        return self.rows * self.window_height

    @property
    def padded_width(self) -> int:
        return self.columns * self.window_width

    @property
    def has_padding(self) -> bool:
        return self.padded_height != self.height or self.padded_width != self.width

    def split(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Windows of a map.

        Args:
            hidden_states (`torch.Tensor` of shape `(batch_size, channels, height, width)`): the map.

        Returns:
            `torch.Tensor` of shape `(batch_size * rows * columns, channels, window_height, window_width)`.
        """
        windows = self.split_pixels(hidden_states.permute(0, 2, 3, 1))
        return windows.unflatten(1, (self.window_height, self.window_width)).permute(0, 3, 1, 2)

    def split_pixels(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """The same with the pixels of a window in a row and channels last.

        Args:
            hidden_states (`torch.Tensor` of shape `(batch_size, height, width, channels)`): the map.

        Returns:
            `torch.Tensor` of shape `(batch_size * rows * columns, window_height * window_width, channels)`.
        """
        batch_size, channels, rows, columns = self.batch_size, hidden_states.shape[3], self.rows, self.columns
        if self.has_padding:
            padding = (0, 0, 0, self.padded_width - self.width, 0, self.padded_height - self.height)
            hidden_states = functional.pad(hidden_states, padding)
        if self.mode == "grid":
            windows = hidden_states.reshape(batch_size, self.window_height, rows, self.window_width, columns, channels)
            windows = windows.permute(0, 2, 4, 1, 3, 5)
        else:
            windows = hidden_states.reshape(batch_size, rows, self.window_height, columns, self.window_width, channels)
            windows = windows.permute(0, 1, 3, 2, 4, 5)
        return windows.reshape(batch_size * rows * columns, self.window_height * self.window_width, channels)

    def merge(self, windows: torch.Tensor) -> torch.Tensor:
        """Inverse of `split`; the padding is cut off."""
        return self.merge_pixels(windows.permute(0, 2, 3, 1).flatten(1, 2)).permute(0, 3, 1, 2)

    def merge_pixels(self, windows: torch.Tensor) -> torch.Tensor:
        """Inverse of `split_pixels`; the padding is cut off."""
        batch_size, channels = self.batch_size, windows.shape[2]
        windows = windows.reshape(batch_size, self.rows, self.columns, self.window_height, self.window_width, channels)
        order = (0, 3, 1, 4, 2, 5) if self.mode == "grid" else (0, 1, 3, 2, 4, 5)
        merged = windows.permute(*order).reshape(batch_size, self.padded_height, self.padded_width, channels)
        return merged[:, : self.height, : self.width] if self.has_padding else merged

    def build_padding_mask(self, like: torch.Tensor) -> torch.Tensor | None:
        """What to add to attention scores so that padding is not attended to.

        Args:
            like (`torch.Tensor`): gives type and device.

        Returns:
            `torch.Tensor` of shape `(batch_size * rows * columns, 1, 1, window_height * window_width)`, or None if
            there is no padding.
        """
        if not self.has_padding:
            return None
        is_real = self.split(like.new_ones(self.batch_size, 1, self.height, self.width)).flatten(1) > 0
        mask = like.new_zeros(is_real.shape).masked_fill(~is_real, torch.finfo(like.dtype).min)
        return mask[:, None, None, :]

    def warn_of_padding(self) -> None:
        """Tells once of windows that are mostly padding, which is not hidden from attention."""
        if torch.compiler.is_compiling():
            return
        if 2 * self.height * self.width < self.padded_height * self.padded_width:
            logger.warning_once(
                f"A map of {self.height} x {self.width} pixels fills less than half of windows of size "
                f"{self.window_height}, and padding takes part in attention. Lower `window_sizes`, set "
                "`mask_padding=True`, or use `stem_stride=1` for small images."
            )


class EmoWindowAttention(nn.Module):
    """Multi-head attention among the pixels of each window."""

    is_causal = False

    def __init__(self, config: EmoConfig, head_dim: int):
        super().__init__()
        self.config = config
        self.head_dim = head_dim
        self.scaling = head_dim**-0.5
        self.dropout = config.attention_probs_dropout_prob

    def forward(
        self, values: torch.Tensor, query_key: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Averages `values`.

        Args:
            values (`torch.Tensor` of shape `(num_windows, value_channels, height, width)`): what is averaged.
            query_key (`torch.Tensor` of shape `(num_windows, 2 * num_heads * head_dim, height, width)`): queries of
                all heads, then keys of all heads.
            attention_mask (`torch.Tensor` of shape `(num_windows, 1, 1, height * width)`, *optional*): added to
                scores.
        """
        height_width = values.shape[2:]
        values, query_key = (maps.permute(0, 2, 3, 1).flatten(1, 2) for maps in (values, query_key))
        attended, weights = self.average(values, query_key, attention_mask)
        return attended.unflatten(1, height_width).permute(0, 3, 1, 2), weights

    def average(
        self, values: torch.Tensor, query_key: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The same with the pixels of a window in a row and channels last: shape `(num_windows, pixels, channels)`."""
        num_windows, num_pixels, _ = values.shape
        query, key = query_key.reshape(num_windows, num_pixels, 2, -1, self.head_dim).permute(2, 0, 3, 1, 4)
        value = values.reshape(num_windows, num_pixels, query.shape[1], -1).transpose(1, 2)
        implementation, dropout = self.config._attn_implementation, self.dropout if self.training else 0.0
        if implementation == "sdpa":  # what transformers' function comes to, in fewer calls
            attended = functional.scaled_dot_product_attention(
                query, key, value, attention_mask, dropout, scale=self.scaling
            )
            return attended.transpose(1, 2).reshape(values.shape), None
        attend: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention_forward)
        attended, weights = attend(self, query, key, value, attention_mask, scaling=self.scaling, dropout=dropout)
        return attended.reshape(values.shape), weights


class EmoInvertedResidualBlock(GradientCheckpointingLayer):
    """Inverted residual mobile block (iRMB): norm, [attention,] expansion, depth-wise convolution, projection, skip.

    Args:
        config ([`EmoConfig`]): its per-stage lists give norm, activation, kernel, head width and window.
        stage (`int`): which entry of those lists, 0 for the first stage; the stem uses that one, too.
        in_channels (`int`): channels of the input.
        out_channels (`int`): channels of the output.
        expansion_ratio (`float`): inner width relative to `in_channels`, truncated.
        stride (`int`): of the depth-wise convolution.
        attends (`bool`): whether there is window attention.
        has_norm (`bool`): whether the input is normalized.
        has_skip (`bool`): whether to add the input where shapes allow, and likewise around the depth-wise convolution.
        has_expansion (`bool`): whether a 1x1 convolution with activation leads to the inner width.
        squeeze_excitation_ratio (`float`): 0 for none.
        drop_path_rate (`float`): probability to drop the block of a sample; needs the skip.
    """

    def __init__(
        self,
        config: EmoConfig,
        stage: int,
        in_channels: int,
        out_channels: int,
        *,
        expansion_ratio: float,
        stride: int = 1,
        attends: bool = False,
        has_norm: bool = True,
        has_skip: bool = True,
        has_expansion: bool = True,
        squeeze_excitation_ratio: float = 0.0,
        drop_path_rate: float = 0.0,
    ):
        super().__init__()
        self.has_skip = has_skip and in_channels == out_channels and stride == 1
        self.attention_before_expansion = config.attention_before_expansion
        self.window_size = config.window_sizes[stage]
        self.window_mode = config.window_mode
        self.mask_padding = config.mask_padding
        hidden_act, head_dim = config.hidden_acts[stage], config.head_dims[stage]
        expanded = int(in_channels * expansion_ratio)

        self.norm = build_norm(config.norm_types[stage], in_channels, config) if has_norm else nn.Identity()
        self.attention = None
        if attends:
            self.query_key = nn.Conv2d(in_channels, 2 * in_channels, 1, bias=config.qkv_bias)
            self.attention = EmoWindowAttention(config, head_dim)
        # None and not an identity, so that adapters can be put on every `value` by that name.
        self.value, self.activation = None, None
        if has_expansion:
            groups = in_channels // head_dim if attends and config.grouped_value else 1
            self.value = nn.Conv2d(in_channels, expanded, 1, groups=groups, bias=config.qkv_bias)
            self.activation = ACT2FN[hidden_act]
        # Batch norm and SiLU whatever norm and activation the stage has (authors' code).
        self.depthwise = EmoConvolutionLayer(
            expanded,
            expanded,
            config.depthwise_kernel_sizes[stage],
            stride=stride,
            groups=expanded,
            norm=build_norm("batch_norm", expanded, config),
            hidden_act="silu",
        )
        self.squeeze_excitation = (
            EmoSqueezeExcitation(expanded, squeeze_excitation_ratio, hidden_act)
            if squeeze_excitation_ratio > 0
            else nn.Identity()
        )
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.projection = nn.Conv2d(expanded, out_channels, 1, bias=False)
        self.drop_path_rate = drop_path_rate

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        residual = hidden_states
        hidden_states = self.norm(hidden_states)
        if self.attention is not None:
            hidden_states = self.attend(hidden_states)
        elif self.value is not None:
            hidden_states = self.activation(self.value(hidden_states))
        local = self.squeeze_excitation(self.depthwise(hidden_states))
        hidden_states = local + hidden_states if self.has_skip else local
        hidden_states = self.projection(self.dropout(hidden_states))
        if not self.has_skip:
            return hidden_states
        return drop_path(hidden_states, self.drop_path_rate, self.training) + residual

    def attend(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Window attention and expansion of a normalized map.

        Averaging before the expansion lets the expansion run on the whole map, without padding.
        """
        windows = EmoWindows.of(hidden_states, self.window_size, self.window_mode)
        mask = None
        if self.mask_padding:
            mask = windows.build_padding_mask(hidden_states)
        else:
            windows.warn_of_padding()
        tokens = windows.split(hidden_states)
        if self.attention_before_expansion:
            attended = self.attention(tokens, self.query_key(tokens), mask)[0]
            return self.activation(self.value(windows.merge(attended)))
        values = self.activation(self.value(tokens))
        return windows.merge(self.attention(values, self.query_key(tokens), mask)[0])
