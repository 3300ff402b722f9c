"""RAW-GNN as a module like those of `torch_geometric.nn.models`, for code that is written for them."""

from typing import Any

import torch
from torch import nn

from .configuration_raw_gnn import RawGnnConfig
from .modeling_raw_gnn import RawGnnForNodeClassification


class RawGnn(nn.Module):
    """Node classifier with the arguments of torch-geometric's models: `RawGnn(...)(x, edge_index)` gives logits.

    Args:
        in_channels (`int`): features of a node.
        hidden_channels (`int`): width of a path's embedding.
        out_channels (`int`): number of classes.
        heads (`int`, defaults to 2): attention heads.
        dropout (`float`, defaults to 0.0): of the features and before the classifier.
        config: further fields of [`RawGnnConfig`].
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        out_channels: int,
        heads: int = 2,
        dropout: float = 0.0,
        **config: Any,
    ):
        super().__init__()
        self.in_channels = in_channels
        self.hidden_channels = hidden_channels
        self.out_channels = out_channels
        fields = {
            "num_features": in_channels,
            "hidden_size": hidden_channels,
            "num_labels": out_channels,
            "num_attention_heads": heads,
            "feature_dropout_prob": dropout,
            "hidden_dropout_prob": dropout,
        }
        self.model = RawGnnForNodeClassification(RawGnnConfig(**{**fields, **config}))

    def reset_parameters(self) -> None:
        """Draw all parameters anew, those of loaded weights too."""
        for parameter in self.model.parameters():
            parameter._is_hf_initialized = False  # transformers leaves loaded parameters alone
        for module in self.model.modules():
            self.model._init_weights(module)

    def forward(self, x: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
        """Logits `(num_nodes, out_channels)` of features `(num_nodes, in_channels)` and edges `(2, num_edges)`."""
        return self.model(x, edge_index).logits


__all__ = ["RawGnn"]
