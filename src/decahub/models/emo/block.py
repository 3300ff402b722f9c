"""The inverted residual mobile block of EMO and the window attention inside it (paper, section 3.2)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils import logging

from .configuration_emo import EmoConfig
from .layers import (
    EmoConvolutionLayer,
    EmoDropPath,
    EmoPointwiseLinear,
    EmoSqueezeExcitation,
    build_in_place,
    build_norm,
    fold_norm_before,
)
from .windows import EmoWindows


logger = logging.get_logger(__name__)


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention in plain operations, which also returns its weights; arguments as for transformers' interface."""
    scores = torch.matmul(query, key.transpose(2, 3)) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = functional.softmax(scores, dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32))
    weights = functional.dropout(weights.to(value.dtype), p=dropout, training=module.training)
    return torch.matmul(weights, value).transpose(1, 2), weights


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
        num_windows, value_channels, height, width = values.shape
        tokens = query_key.permute(0, 2, 3, 1).reshape(num_windows, height * width, 2, -1, self.head_dim)
        query, key = tokens.permute(2, 0, 3, 1, 4)
        value = values.permute(0, 2, 3, 1).reshape(num_windows, height * width, query.shape[1], -1).transpose(1, 2)
        attend: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        attended, weights = attend(
            self,
            query,
            key,
            value,
            attention_mask,
            scaling=self.scaling,
            dropout=self.dropout if self.training else 0.0,
        )
        attended = attended.reshape(num_windows, height, width, value_channels).permute(0, 3, 1, 2)
        return attended, weights


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
        self.is_fused = False
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
        self.drop_path = EmoDropPath(drop_path_rate)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        residual = hidden_states
        hidden_states = self.norm(hidden_states)
        if self.attention is not None:
            hidden_states = self.attend(hidden_states)
        elif self.value is not None:
            hidden_states = self.activation(self.value(hidden_states))
        local = self.squeeze_excitation(self.depthwise(hidden_states))
        hidden_states = self.add(local, hidden_states) if self.has_skip else local
        hidden_states = self.projection(self.dropout(hidden_states))
        return self.add(self.drop_path(hidden_states), residual) if self.has_skip else hidden_states

    def attend(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Window attention and expansion of a normalized map.

        Averaging before the expansion lets the expansion run on the whole map, without padding.
        """
        windows = EmoWindows.of(hidden_states, self.window_size, self.window_mode)
        self.warn_of_padding(windows)
        mask = windows.build_padding_mask(hidden_states) if self.mask_padding else None
        tokens = windows.split(hidden_states)
        if self.attention_before_expansion:
            attended = self.attention(tokens, self.query_key(tokens), mask)[0]
            return self.activation(self.value(windows.merge(attended)))
        values = self.activation(self.value(tokens))
        return windows.merge(self.attention(values, self.query_key(tokens), mask)[0])

    def warn_of_padding(self, windows: EmoWindows) -> None:
        if torch.compiler.is_compiling() or self.mask_padding:
            return
        if 2 * windows.height * windows.width < windows.padded_height * windows.padded_width:
            logger.warning_once(
                f"A map of {windows.height} x {windows.width} pixels fills less than half of windows of size "
                f"{self.window_size}, and padding takes part in attention. Lower `window_sizes`, set "
                "`mask_padding=True`, or use `stem_stride=1` for small images."
            )

    def fuse_norms(self) -> None:
        """Folds the norm into the expansion where it can, and trades fresh memory for work in place."""
        self.is_fused = True
        self.activation = None if self.activation is None else build_in_place(self.activation)
        if self.attention is not None:
            for name in ("query_key", "value", "projection"):
                convolution = getattr(self, name)
                if convolution.groups == 1:
                    setattr(self, name, EmoPointwiseLinear(convolution))
        elif isinstance(self.norm, nn.BatchNorm2d) and self.value is not None:
            fold_norm_before(self.norm, self.value)
            self.norm = nn.Identity()

    def add(self, branch: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        return branch.add_(skip) if self.is_fused else branch + skip
