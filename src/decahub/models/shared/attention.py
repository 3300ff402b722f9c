"""Attention in plain operations, which transformers calls "eager"."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional


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
    """`softmax(scaling * query key^T + attention_mask) value`, with arguments as for transformers' interface.

    Args:
        module (`nn.Module`): Whose mode decides about dropout.
        query (`torch.Tensor` of shape `(batch_size, num_heads, num_queries, head_dim)`): Queries.
        key (`torch.Tensor` of shape `(batch_size, num_heads, num_keys, head_dim)`): Keys.
        value (`torch.Tensor` of shape `(batch_size, num_heads, num_keys, head_dim)`): Values.
        attention_mask (`torch.Tensor`, *optional*): Added to the scores, `(..., num_queries, num_keys)`.
        scaling (`float`): Of the products.
        dropout (`float`): Probability with which a weight is dropped in training.
        kwargs: What other implementations read; ignored here.

    Returns:
        `tuple`: Outputs of shape `(batch_size, num_queries, num_heads, head_dim)`, and weights of shape
        `(batch_size, num_heads, num_queries, num_keys)`.
    """
    scores = query @ key.transpose(-1, -2) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    dtype = torch.promote_types(scores.dtype, torch.float32)  # half precision is too coarse for a softmax
    weights = functional.dropout(scores.softmax(-1, dtype=dtype).to(value.dtype), dropout, module.training)
    return (weights @ value).transpose(1, 2), weights


__all__ = ["eager_attention_forward"]
