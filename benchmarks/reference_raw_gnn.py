"""RAW-GNN written straight from the paper's formulas: what the speed of `decahub.models.raw_gnn` is measured against.

The raw features of every place on every path are gathered and read by `torch.nn.GRU`; walks are drawn by rejection,
round after round, until the last walker has its step. Parameter names are the authors', so that
`conversion.convert_raw_gnn.revert_state_dict` loads weights of a `RawGnnForNodeClassification`.

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


def draw_reference_walks(edge_index: torch.Tensor, starts: torch.Tensor, length: int, p: float, q: float):
    """Second-order random walks by rejection alone.

    Args:
        edge_index (`torch.LongTensor` of shape `(2, num_edges)`): distinct edges, sorted, a self-loop at each node.
        starts (`torch.LongTensor` of shape `(num_walks,)`): first nodes.
        length (`int`): steps of a walk.
        p (`float`): return parameter.
        q (`float`): in-out parameter.

    Returns:
        `torch.LongTensor` of shape `(num_walks, length + 1)`.
    """
    rows, columns = edge_index
    num_nodes = int(rows.max()) + 1
    degrees = rows.bincount(minlength=num_nodes)
    row_starts = degrees.cumsum(0) - degrees
    edge_keys = rows * num_nodes + columns

    def propose(nodes: torch.Tensor) -> torch.Tensor:
        return columns[row_starts[nodes] + (torch.rand(nodes.shape) * degrees[nodes]).long()]

    def weigh(previous: torch.Tensor, candidates: torch.Tensor) -> torch.Tensor:
        wanted = previous * num_nodes + candidates
        places = torch.searchsorted(edge_keys, wanted).clamp(max=len(edge_keys) - 1)
        weights = torch.where(edge_keys[places] == wanted, 1.0, 1 / q)
        return torch.where(candidates == previous, 1 / p, weights)

    walks = [starts, propose(starts)]
    for _ in range(length - 1):
        previous, current = walks[-2:]
        following = current.clone()
        pending = torch.arange(len(starts))
        while len(pending):
            candidates = propose(current[pending])
            weights = weigh(previous[pending], candidates)
            accepted = torch.rand(weights.shape) * max(1 / p, 1.0, 1 / q) < weights
            following[pending[accepted]] = candidates[accepted]
            pending = pending[~accepted]
        walks.append(following)
    return torch.stack(walks, dim=1)
