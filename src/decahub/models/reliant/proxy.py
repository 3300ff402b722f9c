"""The proxy of bias: a few values for each node of the training graph that learn apart from the student."""

import torch
from torch import nn

from .configuration_reliant import ReliantConfig


class ReliantProxy(nn.Module):
    """Values of the proxy columns, `forward()` of shape `(num_nodes, proxy_dim)`.

    They learn to make the student's gap between groups as wide as possible, so that the gap hangs on them and not on
    the features. Only their mean is needed afterwards; see [`~ReliantModel.set_proxy_mean`].

    Args:
        config ([`ReliantConfig`]): `proxy_mode` and `proxy_dim`.
        num_nodes (`int`): of the training graph.
        sensitive (`torch.LongTensor` of shape `(num_nodes,)`, *optional*): groups; needed with
            `proxy_mode="sensitive"`, whose columns are `(s, 1 - s)` and do not learn.

    Raises:
        ValueError: If there is no proxy, or no `sensitive` where it is needed.
    """

    def __init__(self, config: ReliantConfig, num_nodes: int, sensitive: torch.Tensor | None = None):
        super().__init__()
        if not config.has_proxy:
            raise ValueError("`proxy_mode` of the config must be 'learnable' or 'sensitive'; got 'none'.")
        if config.proxy_mode == "learnable":
            self.values = nn.Parameter(torch.rand(num_nodes, config.proxy_dim))
        elif sensitive is None:
            raise ValueError("`sensitive` must be given with `proxy_mode='sensitive'`.")
        else:
            self.register_buffer(
                "values", torch.stack([sensitive, 1 - sensitive], dim=1).to(torch.get_default_dtype())
            )

    def forward(self) -> torch.Tensor:
        return self.values


__all__ = ["ReliantProxy"]
