"""RAW-GNN written straight from the paper's formulas: what the speed of `decahub.models.raw_gnn` is measured against.

The raw features of every place on every path are gathered and read by `torch.nn.GRU`. Parameter names are the
authors', so that `conversion.convert_raw_gnn.revert_state_dict` loads weights of a `RawGnnForNodeClassification`.

Source: "RAW-GNN: RAndom Walk Aggregation based Graph Neural Network", arXiv 2206.13953.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional


class ReferencePathAggregator(nn.Module):
    """Reads each path with a GRU and adds the results up at the paths' last nodes, weighted by attention."""

    def __init__(self, config):
        super().__init__()
        self.rnn = nn.GRU(config.num_features, config.hidden_size, batch_first=True)
        self.a = nn.Parameter(torch.empty(config.hidden_size, config.num_attention_heads).uniform_(-1, 1))

    def forward(self, node_features: torch.Tensor, paths: torch.Tensor) -> torch.Tensor:
        num_nodes, targets = node_features.shape[0], paths[:, -1]
        _, last_hidden = self.rnn(node_features[paths])  # (num_paths, walk_length, num_features)
        embeddings = last_hidden.squeeze(0)
        scores = torch.exp(embeddings @ self.a)
        totals = scores.new_zeros(num_nodes, scores.shape[1]).index_add(0, targets, scores)
        weights = scores / totals[targets]
        heads = [
            embeddings.new_zeros(num_nodes, embeddings.shape[1]).index_add(0, targets, weight[:, None] * embeddings)
            for weight in weights.unbind(1)
        ]
        return torch.cat(heads, dim=1)


class ReferenceRawGnn(nn.Module):
    """RAW-GNN classifier with the structure and the parameter names of the authors' code.

    Args:
        config (`RawGnnConfig`): two strategies, a GRU and no dropout are assumed.
    """

    def __init__(self, config):
        super().__init__()
        self.layer1 = ReferencePathAggregator(config)
        self.layer2 = ReferencePathAggregator(config)
        self.lin1 = nn.Linear(config.embedding_size, config.num_labels)
        self.leaky_relu_slope = config.leaky_relu_slope

    def forward(self, node_features: torch.Tensor, paths: Sequence[torch.Tensor]) -> torch.Tensor:
        """Log-probabilities `(num_nodes, num_labels)` from paths `(num_paths, walk_length)` of each strategy."""
        hidden = torch.cat([self.layer1(node_features, paths[0]), self.layer2(node_features, paths[1])], dim=1)
        return functional.log_softmax(self.lin1(functional.leaky_relu(hidden, self.leaky_relu_slope)), dim=1)
