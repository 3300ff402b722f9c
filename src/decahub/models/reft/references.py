"""The two references to the support: class centers for feature maps, support object queries for object queries.

Both are one cross-attention with a null slot (sections 3.2 to 3.4 of our reading of the paper). `num_ways` counts
classes, `num_shots` images of a class. Everything that is pooled or normalized over is computed in float32 at least.
"""

import torch
from torch import nn
from torch.nn import functional as F


POOLING_EPS = 1e-6
LAYER_NORM_EPS = 1e-5


class RefTReference(nn.Module):
    r"""Cross-attention to support vectors that may also attend to nothing.

    $$ a_{xn} = \frac{\exp s_{xn}}{1 + \sum_m \exp s_{xm}}, \quad s_{xn} = \frac{q_x \cdot k_n}{\sqrt d}, \quad
       x' = x + W_o \Big[\sum_n a_{xn} v_n\Big]_\text{heads} + b_o $$

    The null slot (score 0, value 0) lets background take nothing and keeps a single support vector meaningful. With
    `reweights`, the sum is over $a_{xn} \sigma(v_n)$ and scales the channels of the normalized $x$. The output
    projection begins at zero, so that a new reference changes nothing.

    Args:
        hidden_size (`int`): channels.
        num_heads (`int`): attention heads.
        reweights (`bool`): whether support vectors scale channels instead of being added.
    """

    def __init__(self, hidden_size: int, num_heads: int, reweights: bool = False):
        super().__init__()
        self.num_heads = num_heads
        self.scaling = (hidden_size // num_heads) ** -0.5
        self.reweights = reweights
        self.norm_query = nn.LayerNorm(hidden_size, eps=LAYER_NORM_EPS)
        self.norm_support = nn.LayerNorm(hidden_size, eps=LAYER_NORM_EPS)
        self.q_proj = nn.Linear(hidden_size, hidden_size)
        self.k_proj = nn.Linear(hidden_size, hidden_size)
        self.v_proj = nn.Linear(hidden_size, hidden_size)
        self.out_proj = nn.Linear(hidden_size, hidden_size)

    def forward(
        self, hidden_states: torch.Tensor, support: torch.Tensor, support_mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Adds what the support says.

        Args:
            hidden_states (`torch.FloatTensor` of shape `(batch_size, num_tokens, hidden_size)`): pixels of a map, or
                object queries.
            support (`torch.FloatTensor` of shape `(batch_size or 1, num_support, hidden_size)`): class centers, or
                support object queries; a batch of one serves all.
            support_mask (`torch.BoolTensor` of shape `(batch_size or 1, num_support)`, *optional*): False where a
                support vector does not exist. A sample without any is left as it is.

        Returns:
            The enhanced states; attention weights of shape `(batch_size, num_heads, num_tokens, num_support)`, which
            sum to less than 1 as the null slot has the rest.
        """
        normed, support = self.norm_query(hidden_states), self.norm_support(support)
        queries = self._split_heads(self.q_proj(normed))
        # A zero key with a zero value in front is the null slot.
        keys = self._split_heads(F.pad(self.k_proj(support) * self.scaling, (0, 0, 1, 0)))
        values = self.v_proj(support)
        values = self._split_heads(F.pad(values.sigmoid() if self.reweights else values, (0, 0, 1, 0)))
        # Tokens last: a softmax over few support vectors then runs over contiguous memory.
        scores = (keys @ queries.transpose(-1, -2)).to(_at_least_float32(queries.dtype))
        if support_mask is not None:
            absent = F.pad(~support_mask, (1, 0), value=False)
            scores = scores.masked_fill(absent[:, None, :, None], float("-inf"))
        weights = scores.softmax(-2).to(values.dtype)
        update = (values.transpose(-1, -2) @ weights).flatten(1, 2).transpose(1, 2)
        if self.reweights:
            update = normed * update
        update = self.out_proj(update)
        if support_mask is not None:
            update = update * support_mask.any(1)[:, None, None]
        return hidden_states + update, weights[:, :, 1:].transpose(-1, -2)

    def _split_heads(self, states: torch.Tensor) -> torch.Tensor:
        return states.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


def pool_support(feature_map: torch.Tensor, support_masks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Features inside each support mask.

    The mask is shrunk to the map by averages, so that an instance smaller than a pixel of the map does not vanish:
    $ \sum_x m(x) G(x) $ and $ \sum_x m(x) $.

    Args:
        feature_map (`torch.FloatTensor` of shape `(num_images, channels, height, width)`): one level.
        support_masks (`torch.FloatTensor` of shape `(num_images, mask_height, mask_width)`): in [0, 1].

    Returns:
        Sums of shape `(num_images, channels)` and areas of shape `(num_images,)`, in float32 at least.
    """
    dtype = _at_least_float32(feature_map.dtype)
    masks = shrink_masks(support_masks.to(dtype), feature_map.shape[-2:])
    return torch.einsum("ihw,ichw->ic", masks, feature_map.to(dtype)), masks.sum((1, 2))


def shrink_masks(masks: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Masks `(num_masks, height, width)` at another size, each pixel the average of those that it covers."""
    return F.adaptive_avg_pool2d(masks[:, None], size)[:, 0]


def compute_class_centers(
    sums: torch.Tensor, areas: torch.Tensor, support_valid: torch.Tensor, shot_reduction: str
) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Centers of classes from what [`pool_support`] returned for their shots.

    `"mean"`: $ c_n = \frac{1}{K_n} \sum_k \frac{\sum_x m G}{\sum_x m + \epsilon} $; `"area"`:
    $ c_n = \frac{\sum_k \sum_x m G}{\sum_k \sum_x m + \epsilon} $, over valid shots.

    Args:
        sums (`torch.FloatTensor` of shape `(..., num_shots, channels)`): masked sums.
        areas (`torch.FloatTensor` of shape `(..., num_shots)`): sums of the masks.
        support_valid (`torch.BoolTensor` of shape `(..., num_shots)`): which shots exist.
        shot_reduction (`str`): "mean" or "area".

    Returns:
        Centers of shape `(..., channels)`, zeros for a class without a valid shot, and their weights of shape `(...)`:
        a running mean with these weights adds further shots.
    """
    valid = support_valid.to(sums.dtype)
    if shot_reduction == "area":
        weights = (areas * valid).sum(-1) + POOLING_EPS
        return (sums * valid[..., None]).sum(-2) / weights[..., None], weights
    pooled = sums / (areas + POOLING_EPS)[..., None]
    weights = valid.sum(-1)
    return (pooled * valid[..., None]).sum(-2) / weights.clamp(min=1)[..., None], weights


def select_object_queries(
    query_selection: str,
    num_selected: int,
    masks_queries_logits: torch.Tensor,
    support_masks: torch.Tensor,
    class_queries_logits: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    r"""The object queries of each support image that stand for its instance.

    `"mask"` scores by overlap, $ (2 \sum p m + 1) / (\sum p + \sum m + 1) $ with $p$ the mask probabilities and $m$
    the support mask shrunk to their size, and works for classes that the head has never seen. `"score"` is the
    probability of being an object. Of equal scores the lower index wins.

    Args:
        query_selection (`str`): "mask" or "score".
        num_selected (`int`): how many, best first.
        masks_queries_logits (`torch.FloatTensor` of shape `(num_images, num_queries, height, width)`): mask logits.
        support_masks (`torch.FloatTensor` of shape `(num_images, mask_height, mask_width)`): in [0, 1].
        class_queries_logits (`torch.FloatTensor` of shape `(num_images, num_queries, num_labels + 1)`, *optional*):
            needed for "score".

    Returns:
        Indices of shape `(num_images, num_selected)` and scores of shape `(num_images, num_queries)`.
    """
    dtype = _at_least_float32(masks_queries_logits.dtype)
    if query_selection == "score":
        scores = 1 - class_queries_logits.to(dtype).softmax(-1)[..., -1]
    else:
        masks = shrink_masks(support_masks.to(dtype), masks_queries_logits.shape[-2:])
        probabilities = masks_queries_logits.to(dtype).sigmoid()
        overlaps = torch.einsum("iqhw,ihw->iq", probabilities, masks)
        scores = (2 * overlaps + 1) / (probabilities.sum((2, 3)) + masks.sum((1, 2))[:, None] + 1)
    indices = scores.sort(dim=1, descending=True, stable=True).indices[:, :num_selected]
    return indices, scores


def normalize(vectors: torch.Tensor, eps: float = POOLING_EPS) -> torch.Tensor:
    """Vectors of length 1, or of length 0 where they are that short."""
    return F.normalize(vectors, dim=-1, eps=eps)


def _at_least_float32(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


__all__ = [
    "RefTReference",
    "compute_class_centers",
    "normalize",
    "pool_support",
    "select_object_queries",
    "shrink_masks",
]
