"""The graph that random walks run on: sorted neighbor lists, whose adjacency tests are one binary search each.

Source: "RAW-GNN: RAndom Walk Aggregation based Graph Neural Network", arXiv 2206.13953.
"""

from dataclasses import dataclass
from functools import cached_property

import torch

from ...shared.prepared_graphs import PreparedGraphs


INTEGER_TYPES = (torch.int32, torch.int64)
SLOTS_PER_EDGE = 8  # at least; a bool each, so the filter is as large as the edge keys
FIBONACCI_MULTIPLIER = 0x9E3779B97F4A7C15 - 2**64  # 2**64 divided by the golden ratio, as signed number


@dataclass(frozen=True, eq=False)
class WalkGraph:
    """Neighbors of all nodes, row after row, as in a compressed sparse row matrix. Memory is linear in the edges.

    Args:
        row_pointers (`torch.LongTensor` of shape `(num_nodes + 1,)`): node `i` owns the neighbors from
            `row_pointers[i]` to `row_pointers[i + 1]`.
        neighbors (`torch.LongTensor` of shape `(num_edges,)`): node ids, ascending and distinct within each row.
        num_nodes (`int`): number of nodes, with those that no edge names.
    """

    row_pointers: torch.Tensor
    neighbors: torch.Tensor
    num_nodes: int

    @classmethod
    def from_edge_index(
        cls, edge_index: torch.Tensor, num_nodes: int, *, undirected: bool = True, add_self_loops: bool = True
    ) -> "WalkGraph":
        """Sorts edges, drops duplicates, and adds what is missing. Nothing given is changed or kept.

        Args:
            edge_index (`torch.LongTensor` of shape `(2, num_edges)`): source row, target row; int32 or int64. A walk
                goes from source to target.
            num_nodes (`int`): number of nodes.
            undirected (`bool`): walks go along each edge in both directions.
            add_self_loops (`bool`): every node becomes a neighbor of itself, once. Otherwise exactly the self-loops
                that `edge_index` has are kept, and a walk stays for ever on a node without neighbors.

        Returns:
            [`WalkGraph`]: on the device of `edge_index`.

        Raises:
            TypeError: If `edge_index` is no integer tensor.
            ValueError: If its shape is wrong, or a node id lies outside `[0, num_nodes)`.
        """
        check_edge_index(edge_index, num_nodes)
        source, target = edge_index.long()
        if add_self_loops:
            is_loop = source == target
            source, target = source[~is_loop], target[~is_loop]
        edge_keys = [source * num_nodes + target]
        if undirected:
            edge_keys.append(target * num_nodes + source)
        if add_self_loops:
            edge_keys.append(torch.arange(num_nodes, device=source.device) * (num_nodes + 1))
        rows_and_columns = torch.cat(edge_keys).unique()
        rows = rows_and_columns.div(num_nodes, rounding_mode="floor")
        row_pointers = rows.new_zeros(num_nodes + 1)
        torch.cumsum(rows.bincount(minlength=num_nodes), dim=0, out=row_pointers[1:])
        return cls(row_pointers, rows_and_columns - rows * num_nodes, num_nodes)

    @cached_property
    def degrees(self) -> torch.Tensor:
        """Number of neighbors of each node, `(num_nodes,)`; a self-loop counts once."""
        return self.row_pointers.diff()

    @cached_property
    def edge_sources(self) -> torch.Tensor:
        """Row of each edge, `(num_edges,)`; its column is the entry of `neighbors`."""
        return torch.arange(self.num_nodes, device=self.neighbors.device).repeat_interleave(self.degrees)

    @cached_property
    def edge_keys(self) -> torch.Tensor:
        """`row * num_nodes + column` of each edge, ascending, `(num_edges,)`."""
        return self.edge_sources * self.num_nodes + self.neighbors

    @cached_property
    def reversed(self) -> "WalkGraph":
        """The graph with all edges turned around; the same object where that changes nothing."""
        keys = (self.neighbors * self.num_nodes + self.edge_sources).sort().values
        if torch.equal(keys, self.edge_keys):
            return self
        rows = keys.div(self.num_nodes, rounding_mode="floor")
        row_pointers = torch.zeros_like(self.row_pointers)
        torch.cumsum(rows.bincount(minlength=self.num_nodes), dim=0, out=row_pointers[1:])
        return WalkGraph(row_pointers, keys - rows * self.num_nodes, self.num_nodes)

    def count_steps_to(self, target_nodes: torch.Tensor, max_steps: int) -> torch.Tensor:
        """Steps that a walk needs at least from each node to the next target, `(num_nodes,)`.

        Args:
            target_nodes (`torch.LongTensor` of shape `(num_targets,)`): node ids.
            max_steps (`int`): farther nodes get `max_steps + 1`; only the others are visited.
        """
        steps = target_nodes.new_full((self.num_nodes,), max_steps + 1)
        steps[target_nodes] = 0
        frontier = target_nodes
        for step in range(1, max_steps + 1):
            frontier = self.reversed.list_neighbors(frontier)
            frontier = frontier[steps[frontier] > step].unique()
            steps[frontier] = step
        return steps

    def list_neighbors(self, nodes: torch.Tensor) -> torch.Tensor:
        """Neighbors of some nodes, one node after the other."""
        counts = self.degrees[nodes]
        first = counts.cumsum(0) - counts
        places = torch.arange(int(counts.sum()), device=nodes.device)
        return self.neighbors[places + (self.row_pointers[nodes] - first).repeat_interleave(counts)]

    @cached_property
    def edge_filter(self) -> torch.Tensor:
        """Marks the slots of all edges: what falls into an empty slot is no edge, and needs no search."""
        filled = torch.zeros(2**self._slot_bits, dtype=torch.bool, device=self.neighbors.device)
        filled[self._slots_of(self.edge_keys)] = True
        return filled

    @cached_property
    def has_self_loop(self) -> torch.Tensor:
        """Whether each node is its own neighbor, `(num_nodes,)`."""
        nodes = torch.arange(self.num_nodes, device=self.neighbors.device)
        return self.has_edges(nodes, nodes)

    @cached_property
    def has_dead_ends(self) -> bool:
        """Whether some node has no neighbors."""
        return not self.degrees.all()

    @cached_property
    def num_continuations(self) -> int:
        """Number of ways to go one edge after another."""
        return int(self.degrees.index_select(0, self.neighbors).sum())

    @cached_property
    def step_tables(self) -> dict:
        """Tables of this graph that were made so far; see `walks/table.py`."""
        return {}

    def has_edges(self, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """Whether each edge `(row, column)` exists.

        Args:
            rows (`torch.LongTensor` of shape `(num_queries,)`): node ids.
            columns (`torch.LongTensor` of shape `(num_queries,)`): node ids.

        Returns:
            `torch.BoolTensor` of shape `(num_queries,)`.
        """
        exists = torch.zeros_like(rows, dtype=torch.bool)
        exists[self.find_edges(rows, columns)[0]] = True
        return exists

    def find_edges(self, rows: torch.Tensor, columns: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Which of the edges `(row, column)` exist, and where: `neighbors[places]` are their columns.

        Args:
            rows (`torch.LongTensor` of shape `(num_queries,)`): node ids.
            columns (`torch.LongTensor` of shape `(num_queries,)`): node ids.

        Returns:
            `tuple` of two `torch.LongTensor` of shape `(num_found,)`: positions in `rows`, ascending, and places in
            `neighbors`.
        """
        wanted = rows * self.num_nodes + columns
        queries = self.edge_filter.index_select(0, self._slots_of(wanted)).nonzero().squeeze(1)
        wanted = wanted.index_select(0, queries)
        places = torch.searchsorted(self.edge_keys, wanted)
        places.clamp_(max=max(self.neighbors.numel() - 1, 0))
        found = (self.edge_keys.index_select(0, places) == wanted).nonzero().squeeze(1)
        return queries.index_select(0, found), places.index_select(0, found)

    @property
    def _slot_bits(self) -> int:
        return (SLOTS_PER_EDGE * self.neighbors.numel()).bit_length()

    def _slots_of(self, keys: torch.Tensor) -> torch.Tensor:
        return (keys * FIBONACCI_MULTIPLIER >> (64 - self._slot_bits)) & (2**self._slot_bits - 1)

    def neighbors_of(self, node: int) -> torch.Tensor:
        """The neighbors of one node, ascending."""
        return self.neighbors[self.row_pointers[node] : self.row_pointers[node + 1]]

    def check_nodes(self, name: str, nodes: torch.Tensor) -> None:
        """Refuses what is no one-dimensional tensor of node ids of this graph; `name` is the argument's."""
        if nodes.dtype not in INTEGER_TYPES:
            raise TypeError(f"`{name}` must be an int32 or int64 tensor; got {nodes.dtype}.")
        if nodes.dim() != 1:
            raise ValueError(f"`{name}` must have one dimension; got shape {tuple(nodes.shape)}.")
        outside = nodes[(nodes < 0) | (nodes >= self.num_nodes)]
        if outside.numel():
            raise ValueError(f"`{name}` must hold node ids in [0, {self.num_nodes}); got {outside[0].item()}.")


def check_edge_index(edge_index: torch.Tensor, num_nodes: int) -> None:
    """Refuses what is no list of edges between `num_nodes` nodes."""
    if not isinstance(edge_index, torch.Tensor) or edge_index.dtype not in INTEGER_TYPES:
        given = edge_index.dtype if isinstance(edge_index, torch.Tensor) else type(edge_index).__name__
        raise TypeError(f"`edge_index` must be an int32 or int64 tensor; got {given}.")
    if edge_index.dim() != 2 or edge_index.shape[0] != 2:
        raise ValueError(
            f"`edge_index` must have shape (2, num_edges); got {tuple(edge_index.shape)}. Must it be transposed?"
        )
    if num_nodes < 1:
        raise ValueError(f"`num_nodes` must be at least 1; got {num_nodes}.")
    outside = (edge_index < 0) | (edge_index >= num_nodes)
    if outside.any():
        column = outside.any(dim=0).nonzero()[0].item()
        node = edge_index[:, column][outside[:, column]][0].item()
        raise ValueError(
            f"`edge_index` must hold node ids in [0, {num_nodes}); got {node} at column {column}, and "
            f"{int(outside.sum())} such ids in all. Are the ids zero-based?"
        )


_PREPARED: PreparedGraphs[WalkGraph] = PreparedGraphs()


def prepare_walk_graph(
    edge_index: torch.Tensor, num_nodes: int, *, undirected: bool = True, add_self_loops: bool = True
) -> WalkGraph:
    """[`WalkGraph.from_edge_index`], remembered for the edges that were used last.

    Args:
        edge_index (`torch.LongTensor` of shape `(2, num_edges)`): see [`WalkGraph.from_edge_index`].
        num_nodes (`int`): number of nodes.
        undirected (`bool`): see there.
        add_self_loops (`bool`): see there.
    """
    if not isinstance(edge_index, torch.Tensor):
        check_edge_index(edge_index, num_nodes)
    options = {"undirected": undirected, "add_self_loops": add_self_loops}
    return _PREPARED.get(
        edge_index,
        (num_nodes, undirected, add_self_loops),
        lambda edges: WalkGraph.from_edge_index(edges, num_nodes, **options),
    )


__all__ = ["WalkGraph", "check_edge_index", "prepare_walk_graph"]
