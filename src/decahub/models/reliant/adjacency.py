"""Sums over the neighbors of nodes: the edge list prepared once, then one sparse product for each sum.

Messages go from `edge_index[0]` to `edge_index[1]`. Products keep one number for each edge and none for each edge and
channel, forward and backward, so that graphs of millions of edges fit.
"""

import warnings
from typing import Any

import torch
from transformers.utils import logging

from ..shared.prepared_graphs import PreparedGraphs
from ..shared.sparse_product import SparseProduct, multiply_sparse


logger = logging.get_logger(__name__)

FEW_REVERSED = 0.5  # share of edges


class Adjacency:
    """What layers ask of a graph. Edges have an order of their own: that of `source` and `target`.

    Attributes:
        num_nodes (`int`): of the graph.
        source (`torch.LongTensor` of shape `(num_edges,)`): where a message comes from.
        target (`torch.LongTensor` of shape `(num_edges,)`): where it goes to.
    """

    num_nodes: int
    source: torch.Tensor
    target: torch.Tensor

    def propagate(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Neighbors' sum with symmetric normalization, `D^-1/2 A D^-1/2 H`; `D` counts incoming edges."""
        raise NotImplementedError

    def average_with_self(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Mean of a node and its neighbors, `(A H + H) / (D + 1)`; a self-loop counts besides the node itself."""
        raise NotImplementedError

    def symmetric_weights(self, dtype: torch.dtype) -> torch.Tensor:
        """Edge weights of [`~Adjacency.propagate`], `(num_edges,)`."""
        raise NotImplementedError

    def aggregate(self, edge_weight: torch.Tensor, hidden_states: torch.Tensor) -> torch.Tensor:
        """Weighted sum of neighbors, differentiable in both.

        Args:
            edge_weight (`torch.FloatTensor` of shape `(num_edges,)`): weights.
            hidden_states (`torch.FloatTensor` of shape `(num_nodes, channels)`): what is summed.

        Returns:
            `torch.FloatTensor` of shape `(num_nodes, channels)`; zeros for a node without incoming edges.
        """
        raise NotImplementedError

    def score_edges(self, target_states: torch.Tensor, source_states: torch.Tensor) -> torch.Tensor:
        """Dot product of a row of each for every edge, differentiable in both.

        Args:
            target_states (`torch.FloatTensor` of shape `(num_nodes, channels)`): rows for receivers.
            source_states (`torch.FloatTensor` of shape `(num_nodes, channels)`): rows for senders.

        Returns:
            `torch.FloatTensor` of shape `(num_edges,)`.
        """
        raise NotImplementedError

    def edge_mask(self) -> torch.Tensor | None:
        """1 for edges that count and 0 for padding; `None` if all of them do."""
        return None

    def softmax(self, scores: torch.Tensor) -> torch.Tensor:
        """Softmax of edge scores `(num_edges,)` over the incoming edges of each node."""
        mask, target = self.edge_mask(), self.target
        if mask is not None:
            scores = scores.masked_fill(mask == 0, -torch.inf)
        # The maximum only guards against overflow and cancels: no gradient goes through it.
        highest = scores.detach().new_full((self.num_nodes,), -torch.inf)
        highest = highest.scatter_reduce(0, target, scores.detach(), "amax")
        highest = highest.nan_to_num(neginf=0.0)  # a node that nobody sends to
        weights = (scores - highest.index_select(0, target)).exp()
        total = torch.zeros_like(highest).scatter_add(0, target, weights)
        scale = total.clamp(min=torch.finfo(total.dtype).tiny).reciprocal()
        return weights * scale.index_select(0, target)


class SparseAdjacency(Adjacency):
    """Compressed rows, sorted by target, with those of the transpose for the backward pass.

    Args:
        edge_index (`torch.LongTensor` of shape `(2, num_edges)`): senders and receivers.
        num_nodes (`int`): of the graph.
        add_self_loops (`bool`): whether nodes without a self-loop get one.
        undirected (`bool`): whether edges whose reverse is not listed get it.
        in_degree (`torch.LongTensor` of shape `(num_nodes,)`, *optional*): by which sums are normalized, where these
            are a part of a graph; by default the edges that reach each node here.

    Raises:
        ValueError: If a node id is out of range.
    """

    def __init__(
        self,
        edge_index: torch.Tensor,
        num_nodes: int,
        add_self_loops: bool,
        undirected: bool = False,
        in_degree: torch.Tensor | None = None,
    ):
        check_node_ids(edge_index, num_nodes)
        source, target = complete_edges(edge_index[0], edge_index[1], num_nodes, undirected)
        num_added = len(source) - edge_index.shape[1]
        if num_added > (1 - FEW_REVERSED) * edge_index.shape[1]:
            logger.warning_once(
                f"{num_added} of {edge_index.shape[1]} edges are listed in one direction only and are read in both. "
                "Set `undirected=False` in the configuration if messages must follow the direction."
            )
        if add_self_loops:
            nodes = torch.arange(num_nodes, device=source.device)
            source, target = add_loops(source, target, nodes, num_nodes)
        order = torch.argsort(target * num_nodes + source, stable=True)
        self.num_nodes = num_nodes
        self.source, self.target = source[order], target[order]
        num_incoming = torch.bincount(target, minlength=num_nodes)
        self.in_degree = num_incoming if in_degree is None else in_degree
        self.rows, self.columns = self._compress(num_incoming, self.source)
        # The transpose holds the same edges sorted by source; a symmetric graph shares one structure.
        self.transposed_order = torch.argsort(self.source * num_nodes + self.target, stable=True)
        out_degree = torch.bincount(source, minlength=num_nodes)
        columns = self.target[self.transposed_order]
        is_symmetric = torch.equal(columns, self.source) and torch.equal(out_degree, num_incoming)
        self.transposed = (self.rows, self.columns) if is_symmetric else self._compress(out_degree, columns)
        self._normalized: dict[tuple[str, torch.dtype], tuple[torch.Tensor, torch.Tensor]] = {}

    @staticmethod
    def _compress(degree: torch.Tensor, columns: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        rows = torch.zeros(degree.shape[0] + 1, dtype=torch.long, device=degree.device)
        torch.cumsum(degree, 0, out=rows[1:])
        # The libraries behind sparse products take 32 bits; wider indices would be converted at every call.
        index_dtype = torch.int32 if columns.shape[0] < 2**31 else torch.long
        return rows.to(index_dtype), columns.to(index_dtype)

    def build_matrix(self, edge_weight: torch.Tensor, transpose: bool = False) -> torch.Tensor:
        """Sparse `(num_nodes, num_nodes)` matrix; weights of the transpose come in its own order."""
        rows, columns = self.transposed if transpose else (self.rows, self.columns)
        size = (self.num_nodes, self.num_nodes)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta state")
            return torch.sparse_csr_tensor(rows, columns, edge_weight, size, check_invariants=False)

    def _find_matrices(self, kind: str, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        if (kind, dtype) not in self._normalized:
            if kind == "symmetric":
                weight = self.symmetric_weights(dtype)
            else:
                weight = (1 / (self.in_degree.to(dtype) + 1))[self.target]
            matrix = self.build_matrix(weight)
            is_own_transpose = kind == "symmetric" and self.transposed[1] is self.columns
            transposed = matrix if is_own_transpose else self.build_matrix(weight[self.transposed_order], True)
            self._normalized[kind, dtype] = (matrix, transposed)
        return self._normalized[kind, dtype]

    def symmetric_weights(self, dtype: torch.dtype) -> torch.Tensor:
        scale = _invert_root(self.in_degree.to(dtype))
        return scale.index_select(0, self.target) * scale.index_select(0, self.source)

    def propagate(self, hidden_states: torch.Tensor) -> torch.Tensor:
        dense = to_full_precision(hidden_states)
        product = SparseProduct.apply(dense, *self._find_matrices("symmetric", dense.dtype))
        return product.to(hidden_states.dtype)

    def average_with_self(self, hidden_states: torch.Tensor) -> torch.Tensor:
        dense = to_full_precision(hidden_states)
        neighbors = SparseProduct.apply(dense, *self._find_matrices("mean", dense.dtype))
        own = dense / (self.in_degree.to(dense.dtype) + 1)[:, None]
        return (neighbors + own).to(hidden_states.dtype)

    def aggregate(self, edge_weight: torch.Tensor, hidden_states: torch.Tensor) -> torch.Tensor:
        dense = to_full_precision(hidden_states)
        return _WeightedProduct.apply(edge_weight.to(dense.dtype), dense, self).to(hidden_states.dtype)

    def score_edges(self, target_states: torch.Tensor, source_states: torch.Tensor) -> torch.Tensor:
        return _EdgeScores.apply(to_full_precision(target_states), to_full_precision(source_states), self)


class EdgeListAdjacency(Adjacency):
    """Plain gather and scatter, for graphs that are being traced by `torch.compile` or `torch.export`.

    Its shapes depend on the numbers of nodes and edges alone: each node gets a loop in any case, and those that had
    one already are weighted with 0; likewise for the reverse of each edge. Takes the same arguments as
    [`SparseAdjacency`].
    """

    def __init__(self, edge_index: torch.Tensor, num_nodes: int, add_self_loops: bool, undirected: bool = False):
        source, target = edge_index[0], edge_index[1]
        self.num_nodes, self.mask = num_nodes, None
        if undirected:
            has_reverse = find_reversed(source, target, num_nodes).to(torch.float32)
            self.mask = torch.cat([torch.ones_like(has_reverse), 1 - has_reverse])
            source, target = torch.cat([source, target]), torch.cat([target, source])
        if add_self_loops:
            is_loop = (source == target).to(torch.float32)
            before = torch.ones_like(is_loop) if self.mask is None else self.mask
            num_loops = torch.zeros(num_nodes, device=source.device).index_add(0, target, is_loop)
            nodes = torch.arange(num_nodes, device=source.device)
            self.mask = torch.cat([before, (num_loops == 0).to(torch.float32)])
            source, target = torch.cat([source, nodes]), torch.cat([target, nodes])
        self.source, self.target = source, target

    def edge_mask(self) -> torch.Tensor | None:
        return self.mask

    def _compute_degree(self, dtype: torch.dtype) -> torch.Tensor:
        ones = torch.ones_like(self.target, dtype=dtype) if self.mask is None else self.mask.to(dtype)
        return torch.zeros(self.num_nodes, dtype=dtype, device=ones.device).index_add(0, self.target, ones)

    def symmetric_weights(self, dtype: torch.dtype) -> torch.Tensor:
        scale = _invert_root(self._compute_degree(dtype))
        return scale.index_select(0, self.target) * scale.index_select(0, self.source)

    def propagate(self, hidden_states: torch.Tensor) -> torch.Tensor:
        weights = self.symmetric_weights(to_full_precision(hidden_states).dtype)
        return self.aggregate(weights, hidden_states)

    def average_with_self(self, hidden_states: torch.Tensor) -> torch.Tensor:
        dense = to_full_precision(hidden_states)
        total = self.aggregate(torch.ones_like(self.target, dtype=dense.dtype), dense) + dense
        return (total / (self._compute_degree(dense.dtype) + 1)[:, None]).to(hidden_states.dtype)

    def aggregate(self, edge_weight: torch.Tensor, hidden_states: torch.Tensor) -> torch.Tensor:
        dense = to_full_precision(hidden_states)
        weight = edge_weight.to(dense.dtype)
        if self.mask is not None:
            weight = weight * self.mask.to(dense.dtype)
        summed = torch.zeros_like(dense).index_add(
            0, self.target, dense.index_select(0, self.source) * weight[:, None]
        )
        return summed.to(hidden_states.dtype)

    def score_edges(self, target_states: torch.Tensor, source_states: torch.Tensor) -> torch.Tensor:
        return (target_states[self.target] * source_states[self.source]).sum(-1)


class _WeightedProduct(torch.autograd.Function):
    """Product with a sparse matrix whose entries are differentiated as well."""

    @staticmethod
    def forward(ctx: Any, edge_weight: torch.Tensor, dense: torch.Tensor, adjacency: SparseAdjacency) -> torch.Tensor:
        ctx.save_for_backward(edge_weight, dense)
        ctx.adjacency = adjacency
        return multiply_sparse(adjacency.build_matrix(edge_weight), dense)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        edge_weight, dense = ctx.saved_tensors
        adjacency, gradient = ctx.adjacency, gradient.contiguous()
        weight_gradient = dense_gradient = None
        if ctx.needs_input_grad[0]:
            weight_gradient = _sample_product(adjacency, gradient, dense)
        if ctx.needs_input_grad[1]:
            matrix = adjacency.build_matrix(edge_weight.index_select(0, adjacency.transposed_order), transpose=True)
            dense_gradient = multiply_sparse(matrix, gradient)
        return weight_gradient, dense_gradient, None


class _EdgeScores(torch.autograd.Function):
    """Dot products at edges; their gradients are weighted sums over neighbors."""

    @staticmethod
    def forward(
        ctx: Any, target_states: torch.Tensor, source_states: torch.Tensor, adjacency: SparseAdjacency
    ) -> torch.Tensor:
        ctx.save_for_backward(target_states, source_states)
        ctx.adjacency = adjacency
        return _sample_product(adjacency, target_states, source_states)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        target_states, source_states = ctx.saved_tensors
        adjacency, gradient = ctx.adjacency, gradient.contiguous()
        target_gradient = source_gradient = None
        if ctx.needs_input_grad[0]:
            target_gradient = multiply_sparse(adjacency.build_matrix(gradient), source_states)
        if ctx.needs_input_grad[1]:
            matrix = adjacency.build_matrix(gradient.index_select(0, adjacency.transposed_order), transpose=True)
            source_gradient = multiply_sparse(matrix, target_states)
        return target_gradient, source_gradient, None


def _invert_root(degree: torch.Tensor) -> torch.Tensor:
    return torch.where(degree > 0, degree.clamp(min=1).rsqrt(), 0)  # 0 for nodes that nobody sends to


def _sample_product(adjacency: SparseAdjacency, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    pattern = adjacency.build_matrix(left.new_zeros(adjacency.source.shape[0]))
    with torch.autocast(left.device.type, enabled=False):
        return torch.sparse.sampled_addmm(pattern, left, right.t(), beta=0.0).values()


def to_full_precision(hidden_states: torch.Tensor) -> torch.Tensor:
    """The same in float32, unless it is in float64: sparse products know no half precision."""
    return hidden_states if hidden_states.dtype == torch.float64 else hidden_states.float()


def find_reversed(source: torch.Tensor, target: torch.Tensor, num_nodes: int) -> torch.Tensor:
    """Whether the reverse of each edge is listed as well, `(num_edges,)`; always true of self-loops."""
    if source.shape[0] == 0:
        return torch.zeros_like(source, dtype=torch.bool)
    keys = (source * num_nodes + target).sort().values
    wanted = target * num_nodes + source
    places = torch.searchsorted(keys, wanted).clamp(max=keys.shape[0] - 1)
    return keys.index_select(0, places) == wanted


def complete_edges(
    source: torch.Tensor, target: torch.Tensor, num_nodes: int, undirected: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both ends of the edges, with the reverse of those that are listed in one direction only if `undirected`."""
    if not undirected:
        return source, target
    lone = ~find_reversed(source, target, num_nodes)
    return torch.cat([source, target[lone]]), torch.cat([target, source[lone]])


def add_loops(
    source: torch.Tensor, target: torch.Tensor, nodes: torch.Tensor, num_nodes: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both ends of the edges, with a loop for those of `nodes` that have none."""
    has_loop = torch.zeros(num_nodes, dtype=torch.bool, device=source.device)
    has_loop[source[source == target]] = True
    missing = nodes[~has_loop[nodes]]
    return torch.cat([source, missing]), torch.cat([target, missing])


def check_node_ids(edge_index: torch.Tensor, num_nodes: int) -> None:
    """Raises a `ValueError` if an edge names a node that the graph does not have."""
    if not edge_index.numel() or (edge_index.min() >= 0 and edge_index.max() < num_nodes):
        return  # the usual case, at the cost of two passes
    wrong = ((edge_index < 0) | (edge_index >= num_nodes)).any(0).nonzero()[:, 0]
    if wrong.numel():
        column = wrong[0].item()
        raise ValueError(
            f"`edge_index` must hold node ids in [0, {num_nodes}); got {edge_index[:, column].tolist()} at column "
            f"{column}, and {wrong.numel()} such columns in all. Are the ids zero-based?"
        )


_PREPARED: PreparedGraphs[SparseAdjacency] = PreparedGraphs()


def prepare_adjacency(
    edge_index: torch.Tensor, num_nodes: int, add_self_loops: bool, undirected: bool = False
) -> Adjacency:
    """The adjacency of an edge list, remembered for the edges that were used last.

    A graph that is being traced gets an [`EdgeListAdjacency`].

    Args:
        edge_index (`torch.LongTensor` of shape `(2, num_edges)`): senders and receivers.
        num_nodes (`int`): of the graph.
        add_self_loops (`bool`): whether nodes without a self-loop get one.
        undirected (`bool`): whether edges whose reverse is not listed get it.

    Raises:
        ValueError: If a node id is out of range.
    """
    options = (num_nodes, add_self_loops, undirected)
    if torch.compiler.is_compiling():
        return EdgeListAdjacency(edge_index, *options)
    return _PREPARED.get(edge_index, options, lambda edges: SparseAdjacency(edges, *options))


__all__ = ["Adjacency", "EdgeListAdjacency", "SparseAdjacency", "prepare_adjacency", "to_full_precision"]
