"""Heads that classify object queries: cosine similarity to learned vectors, or to the support of each class."""

import torch
from torch import nn

from .references import normalize


class RefTCosineClassifier(nn.Module):
    r"""Cosine similarity to a vector for each class: $ \tau \langle o / |o|, w_c / |w_c| \rangle $; no bias.

    Args:
        hidden_size (`int`): size of an object query.
        num_labels (`int`): classes; the last row is that of no object.
        logit_scale (`float`): initial $\tau$.
    """

    def __init__(self, hidden_size: int, num_labels: int, logit_scale: float):
        super().__init__()
        self.initial_scale = float(logit_scale)
        self.weight = nn.Parameter(torch.empty(num_labels + 1, hidden_size))
        self.logit_scale = nn.Parameter(torch.empty(()))

    def forward(self, object_queries: torch.Tensor) -> torch.Tensor:
        return self.logit_scale * normalize(object_queries) @ normalize(self.weight).T


class RefTPrototypeClassifier(nn.Module):
    r"""Cosine similarity to the prototype of each support class, which needs no training on the class.

    $ \tau \langle \bar W_q o, \bar W_s p_n \rangle $ for the classes of the support and
    $ \tau \langle \bar W_q o, \bar w_\emptyset \rangle $ for no object, where the bar is normalization and $p_n$ the
    mean of the normalized first support object queries of class $n$. Both projections begin as the identity.

    Args:
        hidden_size (`int`): size of an object query.
        logit_scale (`float`): initial $\tau$.
    """

    def __init__(self, hidden_size: int, logit_scale: float):
        super().__init__()
        self.initial_scale = float(logit_scale)
        self.query_proj = nn.Linear(hidden_size, hidden_size)
        self.support_proj = nn.Linear(hidden_size, hidden_size)
        self.no_object = nn.Parameter(torch.empty(hidden_size))
        self.logit_scale = nn.Parameter(torch.empty(()))

    def forward(
        self, object_queries: torch.Tensor, prototypes: torch.Tensor, class_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Logits of the classes of an episode.

        Args:
            object_queries (`torch.FloatTensor` of shape `(batch_size, num_queries, hidden_size)`): decoder states.
            prototypes (`torch.FloatTensor` of shape `(batch_size or 1, num_ways, hidden_size)`): of the classes.
            class_mask (`torch.BoolTensor` of shape `(batch_size or 1, num_ways)`, *optional*): False for a class
                without support, which is never predicted.

        Returns:
            `torch.FloatTensor` of shape `(batch_size, num_queries, num_ways + 1)`, the last for no object.
        """
        prototypes = normalize(prototypes.to(object_queries.dtype))
        no_object = self.no_object.expand(prototypes.shape[0], 1, -1)
        weight = normalize(torch.cat([self.support_proj(prototypes), no_object], dim=1))
        logits = self.logit_scale * normalize(self.query_proj(object_queries)) @ weight.transpose(1, 2)
        if class_mask is None:
            return logits
        hidden = torch.cat([~class_mask, torch.zeros_like(class_mask[:, :1])], dim=1)
        return logits.masked_fill(hidden[:, None], torch.finfo(logits.dtype).min)


__all__ = ["RefTCosineClassifier", "RefTPrototypeClassifier"]
