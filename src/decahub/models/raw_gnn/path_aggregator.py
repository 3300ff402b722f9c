"""From paths to node embeddings: a recurrent network reads each path, attention weighs the paths of a node.

Paper, section 3.3. The input projection of the recurrent network is computed once for each node and then gathered
along the paths, and so is its first step, which depends on the first node alone: the same numbers up to rounding as
reading raw features at each position, at a small part of the cost.
"""

import math

import torch
from torch import nn
from torch.nn import functional
from transformers.modeling_layers import GradientCheckpointingLayer

from ..shared.sparse_product import SparseProduct
from .configuration_raw_gnn import RawGnnConfig


NUM_GATES = {"gru": 3, "lstm": 4}


class RawGnnInputProjection(nn.Module):
    r"""The part of the recurrent network that looks at features alone, once for each node.

    $$p_v = W x_v + b$$

    Rows of the weight are stacked gates, as in `torch.nn.GRU`: reset, update, new (GRU) or input, forget, cell, output
    (LSTM).
    """

    def __init__(self, config: RawGnnConfig):
        super().__init__()
        rows = NUM_GATES[config.rnn_type] * config.hidden_size
        self.dropout_prob = config.feature_dropout_prob
        self.initializer_range = config.initializer_range or 1 / math.sqrt(config.hidden_size)
        self.weight = nn.Parameter(torch.empty(rows, config.num_features))
        self.bias = nn.Parameter(torch.empty(rows))

    def forward(self, node_features: torch.Tensor) -> torch.Tensor:
        """`(num_nodes, num_gates * hidden_size)` of dense or sparse CSR features `(num_nodes, num_features)`."""
        dtype = self.weight.dtype
        if node_features.layout == torch.strided:
            dropped = functional.dropout(node_features.to(dtype), self.dropout_prob, self.training)
            return functional.linear(dropped, self.weight, self.bias)
        # There is no sparse product in half precision.
        full = torch.promote_types(dtype, torch.float32)
        with torch.autocast(node_features.device.type, enabled=False):
            dropped = self._drop_sparse(node_features.to(full))
            return (_multiply_features(dropped, self.weight.to(full).T) + self.bias).to(dtype)

    def _drop_sparse(self, node_features: torch.Tensor) -> torch.Tensor:
        if not self.training or self.dropout_prob == 0:
            return node_features
        return torch.sparse_csr_tensor(
            node_features.crow_indices(),
            node_features.col_indices(),
            functional.dropout(node_features.values(), self.dropout_prob),
            node_features.shape,
        )


def _multiply_features(node_features: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    # The backward pass of torch's own product is slow on a CPU, but it is needed for gradients of features and for
    # tracing.
    is_plain = node_features.device.type == "cpu" and not node_features.requires_grad
    if not is_plain or torch.compiler.is_compiling():
        return torch.sparse.mm(node_features, weight)
    return SparseProduct.apply(weight, node_features)


class RawGnnRecurrence(nn.Module):
    r"""One layer of a GRU or LSTM over the nodes of paths, whose input projection is already done.

    For a GRU and a path $v_1, \dots, v_L$, with $p_v = W x_v + b$ of [`RawGnnInputProjection`] and
    $u_t = U h_{t-1} + c$, split into the parts of reset, update and new gate:

    $$r = \sigma(p^r_{v_t} + u^r_t), \quad z = \sigma(p^z_{v_t} + u^z_t), \quad n = \tanh(p^n_{v_t} + r \odot u^n_t),
    \quad h_t = (1 - z) \odot n + z \odot h_{t-1}, \quad h_0 = 0$$

    Args:
        config ([`RawGnnConfig`]): `rnn_type`, `hidden_size` and the range of the initial weights.

    Shapes:
        - `projected`: `(num_nodes, num_gates * hidden_size)`; `paths`: `(num_paths, walk_length)`.
        - output: `(num_paths, hidden_size)`, $h_L$ of each path.
    """

    def __init__(self, config: RawGnnConfig):
        super().__init__()
        rows = NUM_GATES[config.rnn_type] * config.hidden_size
        self.rnn_type = config.rnn_type
        self.initializer_range = config.initializer_range or 1 / math.sqrt(config.hidden_size)
        self.weight_hh = nn.Parameter(torch.empty(rows, config.hidden_size))
        self.bias_hh = nn.Parameter(torch.empty(rows))

    def forward(self, projected: torch.Tensor, paths: torch.Tensor) -> torch.Tensor:
        """Last hidden state `(num_paths, hidden_size)` after reading `paths` `(num_paths, walk_length)`."""
        first, *others = paths.unbind(1)
        # The state before the first node is zero, and multiplied nevertheless: with paths of one node the weight has a
        # gradient of zeros then, as in torch's own networks, and not none.
        zeros = self.weight_hh.new_zeros(1, self.weight_hh.shape[1])
        recurrent = functional.linear(zeros, self.weight_hh, self.bias_hh)
        states = self._step(projected, recurrent.to(projected.dtype).expand_as(projected), None)
        states = tuple(state.index_select(0, first) for state in states)
        for nodes in others:
            recurrent = functional.linear(states[0], self.weight_hh, self.bias_hh)
            states = self._step(projected.index_select(0, nodes), recurrent, states)
        return states[0]

    def _step(
        self, inputs: torch.Tensor, recurrent: torch.Tensor, states: tuple[torch.Tensor, ...] | None
    ) -> tuple[torch.Tensor, ...]:
        return (_step_gru if self.rnn_type == "gru" else _step_lstm)(inputs, recurrent, states)


def _step_gru(
    inputs: torch.Tensor, recurrent: torch.Tensor, states: tuple[torch.Tensor, ...] | None
) -> tuple[torch.Tensor, ...]:
    # Gates are taken apart by `chunk`, whose gradient is one concatenation; that of slices fills whole tensors.
    input_reset, input_update, input_new = inputs.chunk(3, dim=1)
    recurrent_reset, recurrent_update, recurrent_new = recurrent.chunk(3, dim=1)
    reset = torch.sigmoid(input_reset + recurrent_reset)
    update = torch.sigmoid(input_update + recurrent_update)
    new = torch.tanh(input_new + reset * recurrent_new)
    if states is None:
        return (new - update * new,)
    return (torch.lerp(new, states[0].to(new.dtype), update),)


def _step_lstm(
    inputs: torch.Tensor, recurrent: torch.Tensor, states: tuple[torch.Tensor, ...] | None
) -> tuple[torch.Tensor, ...]:
    enter, forget, cell, output = (inputs + recurrent).chunk(4, dim=1)
    new_cell = torch.sigmoid(enter) * torch.tanh(cell)
    if states is not None:
        new_cell = new_cell + torch.sigmoid(forget) * states[1]
    return torch.sigmoid(output) * torch.tanh(new_cell), new_cell


def compute_path_attention(scores: torch.Tensor, targets: torch.Tensor, num_targets: int) -> torch.Tensor:
    """Softmax of path scores over the paths of each target, in float32 at least.

    The authors write it without subtracting the maximum, which overflows for large scores.

    Args:
        scores (`torch.Tensor` of shape `(num_paths, num_heads)`): unnormalized.
        targets (`torch.LongTensor` of shape `(num_paths,)`): target of each path.
        num_targets (`int`): number of targets; one without paths is allowed.

    Returns:
        `torch.Tensor` of shape `(num_paths, num_heads)`.
    """
    scores = scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores
    index = targets[:, None].expand_as(scores)
    shape = (num_targets, scores.shape[1])
    largest = scores.detach().new_full(shape, -torch.inf).scatter_reduce(0, index, scores.detach(), "amax")
    exponentials = torch.exp(scores - largest.index_select(0, targets))
    totals = exponentials.new_zeros(shape).index_add(0, targets, exponentials)
    return exponentials / totals.index_select(0, targets)


class RawGnnPathAggregator(GradientCheckpointingLayer):
    r"""Embeddings of nodes from their paths, for one strategy (paper, section 3.3).

    For the paths $P(i)$ that end in node $i$, with $h_p$ the last state of the recurrent network on path $p$ and $a_k$
    the learned vector of head $k$:

    $$\alpha_{pk} = \frac{\exp(a_k^\top h_p)}{\sum_{q \in P(i)} \exp(a_k^\top h_q)}, \qquad
    z_i = \big\Vert_k \sum_{p \in P(i)} \alpha_{pk} h_p$$

    Args:
        config ([`RawGnnConfig`]): `hidden_size`, `num_attention_heads` and the recurrent network.

    Shapes:
        - `projected`: `(num_nodes, num_gates * hidden_size)`; `paths`: `(num_paths, walk_length)`.
        - node embeddings: `(num_targets, num_attention_heads * hidden_size)`.
    """

    def __init__(self, config: RawGnnConfig):
        super().__init__()
        self.recurrent = RawGnnRecurrence(config)
        self.attention = nn.Parameter(torch.empty(config.hidden_size, config.num_attention_heads))

    def forward(
        self, projected: torch.Tensor, paths: torch.Tensor, targets: torch.Tensor, num_targets: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Read paths and gather them at their targets.

        Args:
            projected (`torch.Tensor` of shape `(num_nodes, num_gates * hidden_size)`): of [`RawGnnInputProjection`].
            paths (`torch.LongTensor` of shape `(num_paths, walk_length)`): rows of `projected`.
            targets (`torch.LongTensor` of shape `(num_paths,)`): which output each path belongs to; `num_targets` for
                a path that does not count.
            num_targets (`int`): number of outputs.

        Returns:
            Node embeddings `(num_targets, num_heads * hidden_size)`, zeros for a target without paths; embeddings of
            paths `(num_paths, hidden_size)`; their attention `(num_paths, num_heads)`.
        """
        embeddings = self.recurrent(projected, paths)
        num_rows = num_targets + 1  # the last one takes the paths that do not count
        attention = compute_path_attention(embeddings @ self.attention.to(embeddings.dtype), targets, num_rows)
        weighted = (attention[:, :, None] * embeddings[:, None, :]).flatten(1)  # (num_paths, heads * hidden)
        nodes = weighted.new_zeros(num_rows, weighted.shape[1]).index_add(0, targets, weighted)[:num_targets]
        return nodes.to(embeddings.dtype), embeddings, attention


__all__ = ["RawGnnInputProjection", "RawGnnPathAggregator", "RawGnnRecurrence", "compute_path_attention"]
