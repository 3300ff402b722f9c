"""Graph layers: convolutions, attention, and label propagation with learned weights.

Each layer maps `(num_nodes, in_size)` to `(num_nodes, out_size)`, without activation. In the formulas N(i) are the
nodes that send to node i, with i itself where the configuration adds self-loops, d_i is their number, and A and D are
the adjacency matrix (one row for each receiver) and the diagonal matrix of d. W is the weight of a `torch.nn.Linear`.
"""

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional
from transformers.modeling_layers import GradientCheckpointingLayer

from ..shared.ignore_index import IGNORED_CLASS
from .adjacency import Adjacency, to_full_precision
from .configuration_reliant import ReliantConfig


class ReliantModule(nn.Module):
    """What the layers share: configuration and dropout."""

    def __init__(self, config: ReliantConfig):
        super().__init__()
        self.config = config

    def drop(self, hidden_states: torch.Tensor, rate: float) -> torch.Tensor:
        if rate == 0:
            return hidden_states
        return functional.dropout(hidden_states, rate, training=self.training or self.config.eval_dropout)


class ReliantLayer(ReliantModule, GradientCheckpointingLayer):
    """A layer `(hidden_states, adjacency) -> hidden_states`, which may be computed anew in the backward pass."""


class ReliantLinear(ReliantLayer):
    r"""A linear layer that does not look at the graph.

    $$x'_i = W x_i + b$$

    Args:
        config ([`ReliantConfig`]): whether there is a bias.
        in_size (`int`): channels of the input.
        out_size (`int`): channels of the output.
        dropout_prob (`float`): dropout on the input.

    Shapes:
        - `hidden_states`: `(num_nodes, in_size)`.
        - output: `(num_nodes, out_size)`.
    """

    def __init__(self, config: ReliantConfig, in_size: int, out_size: int, dropout_prob: float):
        super().__init__(config)
        self.dropout_prob = dropout_prob
        self.projection = nn.Linear(in_size, out_size, bias=config.use_bias)

    def forward(self, hidden_states: torch.Tensor, adjacency: Adjacency) -> torch.Tensor:
        return self.projection(self.drop(hidden_states, self.dropout_prob))


class ReliantConvolution(ReliantLayer):
    r"""Graph convolution (GCN, arXiv 1609.02907; SGC, arXiv 1902.07153).

    $$X' = \left(D^{-1/2} A D^{-1/2}\right)^K X W^\top + b,$$

    with $K$ of `config.num_propagation_steps` for `"sgc"` and 1 otherwise. For one step and one node:

    $$x'_i = W \sum_{j \in N(i)} \frac{1}{\sqrt{d_i d_j}} x_j + b$$

    Args:
        config ([`ReliantConfig`]): architecture, steps, and whether there is a bias.
        in_size (`int`): channels of the input.
        out_size (`int`): channels of the output.
        dropout_prob (`float`): dropout on the input.

    Shapes:
        - `hidden_states`: `(num_nodes, in_size)`.
        - output: `(num_nodes, out_size)`.
    """

    def __init__(self, config: ReliantConfig, in_size: int, out_size: int, dropout_prob: float):
        super().__init__(config)
        self.dropout_prob = dropout_prob
        self.num_steps = config.num_propagation_steps if config.architecture == "sgc" else 1
        self.projection = nn.Linear(in_size, out_size, bias=False)
        self.bias = nn.Parameter(torch.zeros(out_size)) if config.use_bias else None

    def forward(self, hidden_states: torch.Tensor, adjacency: Adjacency) -> torch.Tensor:
        hidden_states = self.drop(hidden_states, self.dropout_prob)
        # Sums commute with the linear map; the narrower side is cheaper.
        project_first = self.projection.in_features > self.projection.out_features
        if project_first:
            hidden_states = self.projection(hidden_states)
        for _ in range(self.num_steps):
            hidden_states = adjacency.propagate(hidden_states)
        if not project_first:
            hidden_states = self.projection(hidden_states)
        return hidden_states if self.bias is None else hidden_states + self.bias


class ReliantSageConvolution(ReliantLayer):
    r"""GraphSAGE with the aggregator "gcn": a linear map of the mean of a node and its neighbors (arXiv 1706.02216).

    $$x'_i = W \frac{x_i + \sum_{j \in N(i)} x_j}{d_i + 1} + b$$

    Args:
        config ([`ReliantConfig`]): whether there is a bias.
        in_size (`int`): channels of the input.
        out_size (`int`): channels of the output.
        dropout_prob (`float`): dropout on the input.

    Shapes:
        - `hidden_states`: `(num_nodes, in_size)`.
        - output: `(num_nodes, out_size)`.
    """

    def __init__(self, config: ReliantConfig, in_size: int, out_size: int, dropout_prob: float):
        super().__init__(config)
        self.dropout_prob = dropout_prob
        self.projection = nn.Linear(in_size, out_size, bias=False)
        self.bias = nn.Parameter(torch.zeros(out_size)) if config.use_bias else None

    def forward(self, hidden_states: torch.Tensor, adjacency: Adjacency) -> torch.Tensor:
        hidden_states = self.drop(hidden_states, self.dropout_prob)
        if self.projection.in_features > self.projection.out_features:
            hidden_states = adjacency.average_with_self(self.projection(hidden_states))
        else:
            hidden_states = self.projection(adjacency.average_with_self(hidden_states))
        return hidden_states if self.bias is None else hidden_states + self.bias


class ReliantAttentionConvolution(ReliantLayer):
    r"""Graph attention: heads that weigh neighbors by a learned score of both ends (GAT, arXiv 1710.10903).

    For each head, with learned vectors $a_s$ and $a_t$:

    $$\alpha_{ij} = \operatorname{softmax}_{j \in N(i)} \operatorname{LeakyReLU}(a_t^\top W x_i + a_s^\top W x_j),
    \qquad x'_i = \sum_{j \in N(i)} \alpha_{ij} W x_j + b$$

    Args:
        config ([`ReliantConfig`]): slope and dropout.
        in_size (`int`): channels of the input.
        out_size (`int`): channels of the output: of all heads together, or, if `average_heads`, of each.
        dropout_prob (`float`): dropout on the input.
        num_heads (`int`): heads.
        average_heads (`bool`): whether heads are averaged, as in the classifier, or stand side by side.

    Shapes:
        - `hidden_states`: `(num_nodes, in_size)`.
        - output: `(num_nodes, out_size)`.
    """

    def __init__(
        self,
        config: ReliantConfig,
        in_size: int,
        out_size: int,
        dropout_prob: float,
        num_heads: int,
        average_heads: bool = False,
    ):
        super().__init__(config)
        self.dropout_prob, self.num_heads, self.average_heads = dropout_prob, num_heads, average_heads
        self.head_dim = out_size if average_heads else out_size // num_heads
        self.projection = nn.Linear(in_size, num_heads * self.head_dim, bias=False)
        self.source_attention = nn.Parameter(torch.zeros(num_heads, self.head_dim))
        self.target_attention = nn.Parameter(torch.zeros(num_heads, self.head_dim))
        self.bias = nn.Parameter(torch.zeros(out_size)) if config.use_bias else None

    def forward(self, hidden_states: torch.Tensor, adjacency: Adjacency) -> torch.Tensor:
        projected = self.projection(self.drop(hidden_states, self.dropout_prob))
        heads = projected.unflatten(-1, (self.num_heads, self.head_dim))
        source_scores = (heads * self.source_attention).sum(-1)  # (num_nodes, num_heads)
        target_scores = (heads * self.target_attention).sum(-1)
        outputs = []
        for head in range(self.num_heads):
            scores = source_scores[:, head].index_select(0, adjacency.source)
            scores = scores + target_scores[:, head].index_select(0, adjacency.target)
            weights = adjacency.softmax(functional.leaky_relu(to_full_precision(scores), self.config.negative_slope))
            weights = self.drop(weights, self.config.attention_probs_dropout_prob)
            outputs.append(adjacency.aggregate(weights, heads[:, head]))
        stacked = torch.stack(outputs, 1)
        hidden_states = stacked.mean(1) if self.average_heads else stacked.flatten(1)
        return hidden_states if self.bias is None else hidden_states + self.bias


class ReliantInitialResidualConvolution(ReliantLayer):
    r"""GCNII: a convolution that keeps a share of the first hidden states, and of its own input (arXiv 2007.02133).

    $$H_{l+1} = \left((1 - \alpha) D^{-1/2} A D^{-1/2} H_l + \alpha H_0\right)
    \left((1 - \beta_l) I + \beta_l W_l^\top\right), \qquad \beta_l = \log(1 + \lambda / l)$$

    Args:
        config ([`ReliantConfig`]): $\alpha$ is `teleport_prob`, $\lambda$ is `identity_decay`.
        layer (`int`): $l$, from 1.

    Shapes:
        - `hidden_states`, `first_hidden_states`: `(num_nodes, hidden_size)`.
        - output: `(num_nodes, hidden_size)`.
    """

    def __init__(self, config: ReliantConfig, layer: int):
        super().__init__(config)
        self.strength = math.log(1 + config.identity_decay / layer)
        self.projection = nn.Linear(config.hidden_size, config.hidden_size, bias=False)

    def forward(
        self, hidden_states: torch.Tensor, adjacency: Adjacency, first_hidden_states: torch.Tensor
    ) -> torch.Tensor:
        hidden_states = adjacency.propagate(self.drop(hidden_states, self.config.hidden_dropout_prob))
        mixed = torch.lerp(hidden_states, first_hidden_states.to(hidden_states.dtype), self.config.teleport_prob)
        return torch.lerp(mixed, self.projection(mixed).to(mixed.dtype), self.strength)


class ReliantPersonalizedPropagation(ReliantLayer):
    r"""APPNP: a linear classifier, then scores that walk along edges and return to their start (arXiv 1810.05997).

    $$Z_0 = X W^\top + b, \qquad Z_{k+1} = (1 - \alpha) D^{-1/2} A D^{-1/2} Z_k + \alpha Z_0$$

    Args:
        config ([`ReliantConfig`]): steps, $\alpha$ as `teleport_prob`, and the dropout of edges.
        in_size (`int`): channels of the input.
        out_size (`int`): channels of the output.
        dropout_prob (`float`): dropout on the input.

    Shapes:
        - `hidden_states`: `(num_nodes, in_size)`.
        - output: `(num_nodes, out_size)`.
    """

    def __init__(self, config: ReliantConfig, in_size: int, out_size: int, dropout_prob: float):
        super().__init__(config)
        self.dropout_prob = dropout_prob
        self.projection = nn.Linear(in_size, out_size, bias=config.use_bias)

    def forward(self, hidden_states: torch.Tensor, adjacency: Adjacency) -> torch.Tensor:
        first_scores = self.projection(self.drop(hidden_states, self.dropout_prob))
        scores = first_scores
        for _ in range(self.config.num_propagation_steps):
            scores = torch.lerp(self.propagate(scores, adjacency), first_scores, self.config.teleport_prob)
        return scores

    def propagate(self, scores: torch.Tensor, adjacency: Adjacency) -> torch.Tensor:
        rate = self.config.attention_probs_dropout_prob
        if rate == 0 or not (self.training or self.config.eval_dropout):
            return adjacency.propagate(scores)
        # Edges are dropped, anew in each step, after the normalization.
        return adjacency.aggregate(
            self.drop(adjacency.symmetric_weights(to_full_precision(scores).dtype), rate), scores
        )


class ReliantLabelPropagation(ReliantModule):
    r"""Label propagation with learned weights (PLP), the student of CPF (arXiv 2103.02885).

    Each step mixes the labels of neighbors with what a perceptron $g$ says of the node itself; known labels are set
    back after every step. $f_i^{(0)}$ is one-hot for a known label and uniform otherwise:

    $$f_i^{(k+1)} = \operatorname{ReLU}\Big(\sigma(\beta_i) \sum_{j \in N(i)} w_{ij} f_j^{(k)}
    + \sigma(-\beta_i) g(x_i)\Big), \qquad w_{ij} = \operatorname{softmax}_{j \in N(i)} s_j$$

    where $s_j$ is learned for each node or $v^\top x_j$, and $\beta_i$ is `node_balance`. `known_labels`,
    `node_balance` and scores of nodes belong to the training graph of `config.num_nodes`; on a graph of another size
    no label is known unless it is given, both sides of the mix weigh the same, and, with `label_score_type="nodes"`,
    so do all neighbors.

    Args:
        config ([`ReliantConfig`]): steps, `label_score_type`, `num_nodes` and dropout.
        in_size (`int`): channels that the perceptron gives.
        out_size (`int`): number of labels.

    Shapes:
        - `node_features`: `(num_nodes, input_size)`.
        - output: `(num_nodes, out_size)`.
    """

    def __init__(self, config: ReliantConfig, in_size: int, out_size: int):
        super().__init__(config)
        self.projection = nn.Linear(in_size, out_size, bias=config.use_bias)
        has_node_scores = config.label_score_type == "nodes"
        shape = (config.num_nodes, 1) if has_node_scores else (1, config.input_size)
        self.label_scores = nn.Parameter(torch.zeros(shape))
        self.node_balance = None
        if config.num_nodes is not None:
            self.node_balance = nn.Parameter(torch.zeros(config.num_nodes, 1))
            self.register_buffer("known_labels", torch.full((config.num_nodes,), IGNORED_CLASS))

    def forward(
        self,
        node_features: torch.Tensor,
        adjacency: Adjacency,
        known_labels: torch.Tensor | None,
        encode: Callable[[], torch.Tensor],
    ) -> torch.Tensor:
        """Scores of labels, of which a log-softmax is taken.

        Args:
            node_features (`torch.FloatTensor` of shape `(num_nodes, input_size)`): with proxy columns.
            adjacency ([`Adjacency`]): the graph.
            known_labels (`torch.LongTensor` of shape `(num_nodes,)`, *optional*): class ids, -100 where unknown; by
                default those of training, if the graph has as many nodes.
            encode (`Callable`): hidden states of the perceptron; called anew in each step while dropout is active.

        Returns:
            `torch.FloatTensor` of shape `(num_nodes, num_labels)`, none of them negative.
        """
        if known_labels is None and self.is_training_graph(adjacency.num_nodes):
            known_labels = self.known_labels
        initial, is_known = self.build_label_matrix(known_labels, node_features)
        own_share = torch.sigmoid(-self.get_balance(node_features))
        redraws = self.is_random
        scores = initial
        weights = own_scores = None
        for _ in range(self.config.num_propagation_steps):
            if weights is None or redraws:
                weights = self.compute_weights(node_features, adjacency)
                own_scores = self.projection(self.drop(encode(), self.config.feature_dropout_prob)).to(initial.dtype)
            neighbor_scores = adjacency.aggregate(weights, scores)
            scores = functional.relu(torch.lerp(neighbor_scores, own_scores, own_share))
            scores = torch.where(is_known, initial, scores)
        return scores

    @property
    def is_random(self) -> bool:
        rates = (self.config.feature_dropout_prob, self.config.attention_probs_dropout_prob)
        return max(rates) > 0 and (self.training or self.config.eval_dropout)

    def is_training_graph(self, num_nodes: int) -> bool:
        return num_nodes == self.config.num_nodes

    def compute_weights(self, node_features: torch.Tensor, adjacency: Adjacency) -> torch.Tensor:
        """Weight of each edge: a softmax over the senders of a node; `(num_edges,)`."""
        if self.config.label_score_type == "features":
            features = self.drop(node_features, self.config.feature_dropout_prob)
            scores = (features * self.label_scores).sum(-1)
        elif self.is_training_graph(adjacency.num_nodes):
            scores = self.label_scores[:, 0]
        else:
            scores = self.label_scores.new_zeros(adjacency.num_nodes)
        weights = adjacency.softmax(to_full_precision(scores).index_select(0, adjacency.source))
        return self.drop(weights, self.config.attention_probs_dropout_prob)

    def get_balance(self, node_features: torch.Tensor) -> torch.Tensor:
        """How much each node trusts its neighbors, before the sigmoid; `(num_nodes, 1)`."""
        num_nodes = node_features.shape[0]
        if self.node_balance is None or not self.is_training_graph(num_nodes):
            return self.projection.weight.new_zeros(num_nodes, 1)
        return self.node_balance

    def build_label_matrix(
        self, known_labels: torch.Tensor | None, node_features: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One-hot rows for known labels and uniform ones elsewhere, and which are known, `(num_nodes, 1)`."""
        num_nodes, num_labels = node_features.shape[0], self.projection.out_features
        if known_labels is None:
            known_labels = torch.full((num_nodes,), IGNORED_CLASS, device=node_features.device)
        is_known = (known_labels != IGNORED_CLASS)[:, None]
        one_hot = functional.one_hot(known_labels.clamp(min=0), num_labels).to(self.projection.weight.dtype)
        return torch.where(is_known, one_hot, 1 / num_labels), is_known


__all__ = [
    "ReliantAttentionConvolution",
    "ReliantConvolution",
    "ReliantInitialResidualConvolution",
    "ReliantLabelPropagation",
    "ReliantLayer",
    "ReliantLinear",
    "ReliantModule",
    "ReliantPersonalizedPropagation",
    "ReliantSageConvolution",
]
