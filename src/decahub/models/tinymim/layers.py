"""Parts of a plain vision transformer block: attention, MLP, stochastic depth (2301.01296, supplementary material).

Query, key and value come from one linear layer, as in the authors' files.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ..shared.attention import eager_attention_forward
from ..shared.drop_path import drop_path
from .configuration_tinymim import TinyMimConfig
from .position_embeddings import resize_position_embeddings
from .relative_position import build_relative_position_index, num_relative_positions


def compute_drop_path_rates(config: TinyMimConfig) -> list[float]:
    """Rate of stochastic depth for each block."""
    depth = config.num_hidden_layers
    if config.drop_path_schedule == "constant":
        return [config.drop_path_rate] * (depth - 1) + [0.0]
    return [config.drop_path_rate * index / max(1, depth - 1) for index in range(depth)]


def split_heads(states: torch.Tensor, num_heads: int) -> torch.Tensor:
    """`(batch_size, num_tokens, width)` to `(batch_size, num_heads, num_tokens, width / num_heads)`."""
    return states.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def merge_heads(states: torch.Tensor) -> torch.Tensor:
    """`(batch_size, num_heads, num_tokens, head_dim)` to `(batch_size, num_tokens, num_heads * head_dim)`."""
    return states.transpose(1, 2).flatten(2)


class TinyMimEmbeddings(nn.Module):
    """Patches, class token and positions."""

    def __init__(self, config: TinyMimConfig):
        super().__init__()
        self.config = config
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.distillation_token = None
        if config.use_distillation_token:
            self.distillation_token = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        rows, columns = config.grid_size
        num_tokens = config.num_prefix_tokens + rows * columns
        self.position_embeddings = nn.Parameter(torch.zeros(1, num_tokens, config.hidden_size))
        self.patch_embeddings = nn.Conv2d(
            config.num_channels, config.hidden_size, kernel_size=config.patch_size, stride=config.patch_size
        )

    def forward(self, pixel_values: torch.Tensor, interpolate_pos_encoding: bool = False) -> torch.Tensor:
        maps = self.patch_embeddings(pixel_values)
        grid = (maps.shape[2], maps.shape[3])
        positions = self.position_embeddings
        # An exported program must not depend on whether the size that it was made with is that of the table.
        always = (
            torch.compiler.is_exporting() and interpolate_pos_encoding and not self.config.use_relative_position_bias
        )
        if always or grid != self.config.grid_size:
            if not always:
                self.check_grid(grid, interpolate_pos_encoding)
            positions = resize_position_embeddings(
                positions, self.config.grid_size, grid, self.config.num_prefix_tokens, always
            )
        prefix = [self.cls_token] if self.distillation_token is None else [self.cls_token, self.distillation_token]
        tokens = [token.expand(maps.shape[0], -1, -1) for token in prefix]
        return torch.cat([*tokens, maps.flatten(2).transpose(1, 2)], dim=1) + positions

    def check_grid(self, grid: tuple[int, int], interpolate_pos_encoding: bool) -> None:
        known = self.config.grid_size
        if self.config.use_relative_position_bias:
            raise ValueError(
                f"`pixel_values` must give {known[0]} x {known[1]} patches with `use_relative_position_bias`; got "
                f"{grid[0]} x {grid[1]}. Resize the images, or load the model with their `image_size`."
            )
        if not interpolate_pos_encoding:
            raise ValueError(
                f"`pixel_values` must give {known[0]} x {known[1]} patches; got {grid[0]} x {grid[1]}. Resize the "
                "images, load the model with their `image_size` (`from_pretrained(..., image_size=...)`, `config` in "
                "a recipe), which interpolates positions, or pass `interpolate_pos_encoding=True` to a call."
            )


@dataclass
class BlockStates:
    """What the inside of a block holds, as far as it was computed.

    Attributes:
        q, k, v (`torch.Tensor` of shape `(batch_size, num_heads, num_tokens, head_dim)`): inputs of the attention.
        attention, ffn, block (`torch.Tensor` of shape `(batch_size, num_tokens, hidden_size)`, *optional*): outputs of
            attention, MLP and the whole block.
    """

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    attention: torch.Tensor | None = None
    ffn: torch.Tensor | None = None
    block: torch.Tensor | None = None


class TinyMimAttention(nn.Module):
    """Multi-head self-attention; the number of heads is a matter of the call, since no weight depends on it."""

    def __init__(self, config: TinyMimConfig):
        super().__init__()
        self.config = config
        self.num_heads = config.num_attention_heads
        self.is_causal = False
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size, bias=config.qkv_bias)
        self.output = nn.Linear(config.hidden_size, config.hidden_size)
        self.relative_position_bias_table = None
        if config.use_relative_position_bias:
            num_positions = num_relative_positions(config.grid_size, config.num_prefix_tokens)
            self.relative_position_bias_table = nn.Parameter(torch.zeros(num_positions, config.num_attention_heads))
            index = build_relative_position_index(config.grid_size, config.num_prefix_tokens)
            self.register_buffer("relative_position_index", index, persistent=False)

    def project(self, hidden_states: torch.Tensor, num_heads: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Query, key and value, each `(batch_size, num_heads, num_tokens, head_dim)`."""
        query, key, value = (split_heads(states, num_heads) for states in self.qkv(hidden_states).chunk(3, dim=-1))
        return query, key, value

    def attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Values mixed by attention, `(batch_size, num_tokens, num_heads, head_dim)`, and its weights if eager."""
        attention_interface: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        bias = self.build_bias(query.dtype)
        scaling = query.shape[-1] ** -0.5
        return attention_interface(self, query, key, value, bias, scaling=scaling, dropout=0.0, **kwargs)

    def build_bias(self, dtype: torch.dtype) -> torch.Tensor | None:
        if self.relative_position_bias_table is None:
            return None
        return self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)[None].to(dtype)

    def forward(
        self, hidden_states: torch.Tensor, num_heads: int | None = None, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        attended, weights = self.attend(*self.project(hidden_states, num_heads or self.num_heads), **kwargs)
        return self.output(attended.flatten(2)), weights


class TinyMimMlp(nn.Module):
    """Two linear layers with an activation between."""

    def __init__(self, config: TinyMimConfig):
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = ACT2FN[config.hidden_act]
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.activation(self.fc1(hidden_states)))


class TinyMimLayer(GradientCheckpointingLayer):
    """One block: attention and MLP, each after a layer norm, on a residual stream."""

    def __init__(self, config: TinyMimConfig, drop_path_rate: float = 0.0, num_heads: int | None = None):
        super().__init__()
        self.drop_path_rate = drop_path_rate
        self.num_heads = num_heads or config.num_attention_heads
        self.layernorm_before = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = TinyMimAttention(config)
        self.layernorm_after = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = TinyMimMlp(config)
        self.layer_scale_attention = self.layer_scale_mlp = None
        if config.layer_scale_init_value is not None:
            self.layer_scale_attention = nn.Parameter(torch.full((config.hidden_size,), 1.0))
            self.layer_scale_mlp = nn.Parameter(torch.full((config.hidden_size,), 1.0))

    def forward(self, hidden_states: torch.Tensor, num_heads: int | None = None, **kwargs: Any) -> torch.Tensor:
        normed = self.layernorm_before(hidden_states)
        attended, _ = self.attention(normed, num_heads=num_heads or self.num_heads, **kwargs)
        hidden_states = self.add_branch(hidden_states, attended, self.layer_scale_attention)
        branch = self.mlp(self.layernorm_after(hidden_states))
        return self.add_branch(hidden_states, branch, self.layer_scale_mlp)

    def compute_states(self, hidden_states: torch.Tensor, num_heads: int, *, is_partial: bool = True) -> BlockStates:
        """Query, key and value of this block and, unless `is_partial`, what comes after them.

        A partial block ends at its projections: nothing after them takes part in relations (section 3.2).
        """
        states = BlockStates(*self.attention.project(self.layernorm_before(hidden_states), num_heads))
        if not is_partial:
            attended, _ = self.attention.attend(states.q, states.k, states.v)
            states.attention = self.attention.output(attended.flatten(2))
            hidden_states = self.add_branch(hidden_states, states.attention, self.layer_scale_attention)
            states.ffn = self.mlp(self.layernorm_after(hidden_states))
            states.block = self.add_branch(hidden_states, states.ffn, self.layer_scale_mlp)
        return states

    def add_branch(
        self, hidden_states: torch.Tensor, branch: torch.Tensor, scale: torch.Tensor | None
    ) -> torch.Tensor:
        if scale is not None:
            branch = branch * scale
        return hidden_states + drop_path(branch, self.drop_path_rate, self.training)


class TinyMimPreLogits(nn.Module):
    """The layer on all tokens after the last block of TinyMIM*-T."""

    def __init__(self, config: TinyMimConfig):
        super().__init__()
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.projection = nn.Linear(config.hidden_size, config.output_size)
        self.activation = ACT2FN["gelu"]

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.activation(self.projection(self.layernorm(hidden_states)))


class TinyMimClassifier(nn.Linear):
    """The layer of class scores, which starts near zero."""


__all__ = [
    "BlockStates",
    "TinyMimAttention",
    "TinyMimClassifier",
    "TinyMimEmbeddings",
    "TinyMimLayer",
    "TinyMimMlp",
    "TinyMimPreLogits",
    "compute_drop_path_rates",
    "merge_heads",
    "split_heads",
]
