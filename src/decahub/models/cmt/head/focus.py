"""A start for training from random weights: queries look at the tokens near their own places.

Position encodings change slowly over the range (their longest period is three times it and their shortest is all of
it), so attention of a new model is even over all tokens, and it takes many thousand steps until it is not. Queries and
tokens share the layers that embed positions. If keys also share the projection of queries, and positions weigh more
than features, then a query attends to what is near from the first step on. The authors do not do this.
"""

import torch
from torch import nn


POSITION_SCALE = 4.0
"""4 gave a lower loss than 8 after 200 steps on generated scenes."""


@torch.no_grad()
def focus_attention(model: nn.Module, position_scale: float = POSITION_SCALE) -> None:
    """Changes the random weights of a new model in place: keys project as queries, and positions are scaled.

    Args:
        model ([`CmtForObjectDetection3D`] or [`CmtModel`]): a model that was not trained.
        position_scale (`float`): factor of both matrices of each position embedding.
    """
    inner = getattr(model, "model", model)
    for embedding in (inner.bev_position_embedding, inner.ray_position_embedding):
        if embedding is not None:
            embedding.fc1.weight.mul_(position_scale)
            embedding.fc2.weight.mul_(position_scale)
    for layer in inner.decoder.layers:
        attention = layer.cross_attention
        attention.k_proj.weight.copy_(attention.q_proj.weight)


__all__ = ["focus_attention"]
