"""A start for training from random weights: queries look at the tokens near their own places.

Position encodings change slowly over the range (their longest period is three times it and their shortest is all of
it), so attention of a new model is even over all tokens, and it takes many thousand steps until it is not. Queries and
tokens share the layers that embed positions. If queries and keys project alike, and positions weigh more than
features, then a query attends to what is near from the first step on. The authors do not do this.
"""

import torch
from torch import nn


POSITION_SCALES = (3.0, 10.0)
"""Factors of the two matrices of a position embedding."""
PROJECTION_SCALE = 0.5
"""Diagonal of the projections: a query then attends to about a tenth of the range."""


@torch.no_grad()
def focus_attention(model: nn.Module) -> None:
    """Changes the random weights of a new model in place: attention starts near the place of a query.

    Positions on the ground take the first half of the channels and rays the second, so that with both sensors half of
    the heads look for cells and half for pixels.

    Args:
        model ([`CmtForObjectDetection3D`] or [`CmtModel`]): a model that was not trained.
    """
    inner = getattr(model, "model", model)
    half = inner.config.hidden_size // 2
    embeddings = (inner.bev_position_embedding, slice(half, None)), (inner.ray_position_embedding, slice(half))
    for embedding, other_channels in embeddings:
        if embedding is None:
            continue
        embedding.fc1.weight.mul_(POSITION_SCALES[0])
        embedding.fc1.bias.mul_(POSITION_SCALES[0])
        embedding.fc2.weight.mul_(POSITION_SCALES[1])
        if inner.ray_position_embedding is not None:
            embedding.fc2.weight[other_channels] = 0
            embedding.fc2.bias[other_channels] = 0
    for layer in inner.decoder.layers:
        for projection in (layer.cross_attention.q_proj, layer.cross_attention.k_proj):
            projection.weight.copy_(PROJECTION_SCALE * torch.eye(inner.config.hidden_size))


__all__ = ["focus_attention"]
