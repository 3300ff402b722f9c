"""The decoder: queries attend to each other and to the tokens of all sensors, by their positions.

Post-norm layers as in DETR. Positions are added to queries and keys, not to values.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ...shared.attention import eager_attention_forward
from ..configuration_cmt import CmtConfig
from .initialization import reset_by_xavier


class CmtAttention(nn.Module):
    """Multi-head attention.

    Args:
        config ([`CmtConfig`]): width, heads and implementation.
        dropout (`float`): dropout on the weights.
    """

    def __init__(self, config: CmtConfig, dropout: float):
        super().__init__()
        self.config = config
        self.dropout = dropout
        self.num_heads = config.num_attention_heads
        self.is_causal = False
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self,
        queries: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Values mixed by attention.

        Args:
            queries (`torch.FloatTensor` of shape `(batch_size, num_queries, hidden_size)`): with positions.
            keys (`torch.FloatTensor` of shape `(batch_size, num_tokens, hidden_size)`): with positions.
            values (`torch.FloatTensor` of shape `(batch_size, num_tokens, hidden_size)`): without positions.
            attention_mask (`torch.FloatTensor`, *optional*): added to the scores; fits `(batch_size, num_heads,
                num_queries, num_tokens)`.
            kwargs: passed on to the implementation of attention.

        Returns:
            `(batch_size, num_queries, hidden_size)`, and the weights where the implementation gives them.
        """
        query, key, value = (
            projection(states).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for projection, states in ((self.q_proj, queries), (self.k_proj, keys), (self.v_proj, values))
        )
        attend: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        attended, weights = attend(
            self,
            query,
            key,
            value,
            attention_mask,
            scaling=query.shape[-1] ** -0.5,
            dropout=self.dropout if self.training else 0.0,
            **kwargs,
        )
        return self.out_proj(attended.flatten(2)), weights


class CmtDecoderLayer(GradientCheckpointingLayer):
    """Self-attention of the queries, attention to the tokens, and an MLP, each followed by a layer norm."""

    def __init__(self, config: CmtConfig):
        super().__init__()
        self.dropout = config.hidden_dropout
        self.self_attention = CmtAttention(config, config.attention_dropout)
        self.self_attention_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.cross_attention = CmtAttention(config, config.cross_attention_dropout)
        self.cross_attention_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)
        self.mlp_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(
        self,
        hidden_states: torch.Tensor,
        query_positions: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        query_mask: torch.Tensor | None = None,
        key_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        positioned = hidden_states + query_positions
        attended, _ = self.self_attention(positioned, positioned, hidden_states, query_mask, **kwargs)
        hidden_states = self.self_attention_norm(hidden_states + self.drop(attended))
        attended, _ = self.cross_attention(hidden_states + query_positions, keys, values, key_mask, **kwargs)
        hidden_states = self.cross_attention_norm(hidden_states + self.drop(attended))
        return self.mlp_norm(hidden_states + self.fc2(self.fc1(hidden_states).relu()))

    def drop(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return functional.dropout(hidden_states, self.dropout, self.training)


class CmtDecoder(nn.Module):
    """Layers whose outputs all pass one more norm before the heads read them."""

    def __init__(self, config: CmtConfig):
        super().__init__()
        self.layers = nn.ModuleList(CmtDecoderLayer(config) for _ in range(config.num_hidden_layers))
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def reset_parameters(self) -> None:
        """Xavier's uniform distribution; projections of an attention count as one matrix, as in torch."""
        for layer in self.layers:
            for attention in (layer.self_attention, layer.cross_attention):
                for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
                    reset_by_xavier(projection, gain=0.5**0.5)
                reset_by_xavier(attention.out_proj)
            reset_by_xavier(layer.fc1)
            reset_by_xavier(layer.fc2)

    def forward(
        self,
        query_positions: torch.Tensor,
        memory: torch.Tensor,
        memory_positions: torch.Tensor,
        query_mask: torch.Tensor | None = None,
        key_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """States of the queries after each layer; their content starts at zero.

        Args:
            query_positions (`torch.FloatTensor` of shape `(batch_size, num_queries, hidden_size)`): positions.
            memory (`torch.FloatTensor` of shape `(batch_size, num_tokens, hidden_size)`): tokens of the sensors.
            memory_positions (`torch.FloatTensor` of shape `(batch_size or 1, num_tokens, hidden_size)`): positions.
            query_mask (`torch.BoolTensor` of shape `(num_queries, num_queries)`, *optional*): which queries (columns)
                a query (row) must not see.
            key_mask (`torch.BoolTensor` of shape `(batch_size, num_tokens)`, *optional*): tokens that are not there.
            kwargs: passed on to the implementation of attention.

        Returns:
            `torch.FloatTensor` of shape `(num_layers, batch_size, num_queries, hidden_size)`.
        """
        keys = memory + memory_positions
        added_query_mask = None if query_mask is None else _to_added_mask(query_mask[None, None], keys.dtype)
        added_key_mask = None if key_mask is None else _to_added_mask(key_mask[:, None, None], keys.dtype)
        hidden_states = torch.zeros_like(query_positions)
        outputs = []
        for layer in self.layers:
            hidden_states = layer(
                hidden_states, query_positions, keys, memory, added_query_mask, added_key_mask, **kwargs
            )
            outputs.append(self.layernorm(hidden_states))
        return torch.stack(outputs)


def _to_added_mask(blocked: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return torch.zeros(blocked.shape, dtype=dtype, device=blocked.device).masked_fill(blocked, torch.finfo(dtype).min)


__all__ = ["CmtAttention", "CmtDecoder", "CmtDecoderLayer"]
