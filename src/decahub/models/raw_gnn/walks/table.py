"""All second-order steps of a graph worked out beforehand: one binary search among its neighbors draws a step then.

A table has an entry for each pair of an edge and a continuation of it, which is what large hubs forbid: only graphs
with few of them get one.
"""

from dataclasses import dataclass

import torch

from .graph import WalkGraph
from .steps import MAX_CANDIDATES, StepWeights, split_by_size, take


MAX_ENTRIES = 2**22  # 32 MB; worth it from the first few draws on
MAX_TABLES = 4  # remembered for each graph


@dataclass(frozen=True)
class StepTable:
    """Cumulative probabilities of the steps after each edge. A walker is the edge that it came along.

    Args:
        cumulative (`torch.DoubleTensor` of shape `(num_entries,)`): those of edge `e` lie in `(e, e + 1]`, in the
            order of the neighbors of the edge's end; so the whole is ascending.
        bounds (`torch.LongTensor` of shape `(num_edges + 1,)`): edge `e` owns the entries from `bounds[e]` to
            `bounds[e + 1]`.
        shifts (`torch.LongTensor` of shape `(num_edges,)`): from an entry of an edge to the next edge.
        widest (`int`): most entries of an edge.
    """

    cumulative: torch.Tensor
    bounds: torch.Tensor
    shifts: torch.Tensor
    widest: int

    @classmethod
    def of(cls, graph: WalkGraph, weights: StepWeights) -> "StepTable":
        """The table of a graph in which each node has a neighbor."""
        sizes = take(graph.degrees, graph.neighbors)
        bounds = sizes.new_zeros(sizes.numel() + 1)
        torch.cumsum(sizes, dim=0, out=bounds[1:])
        edges = torch.arange(graph.neighbors.numel(), device=sizes.device)
        chunks = split_by_size(edges, sizes, MAX_CANDIDATES)
        cumulative = torch.cat([accumulate_probabilities(graph, weights, chunk) for chunk in chunks])
        shifts = take(graph.row_pointers, graph.neighbors) - bounds[:-1]
        return cls(cumulative, bounds, shifts, int(sizes.max()))

    def step(self, edges: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
        """The edge along which each walker goes on."""
        # The last entry that is not above `wanted`, of those of the edge and the one before them. To search the whole
        # table by `torch.searchsorted` gives the same and takes two to three times as long.
        wanted, last = edges + uniform, take(self.bounds, edges + 1) - 1
        entries = take(self.bounds, edges) - 1
        for bit in reversed(range(self.widest.bit_length())):
            ahead = torch.minimum(entries + 2**bit, last)
            entries = torch.where(take(self.cumulative, ahead) <= wanted, ahead, entries)
        entries = torch.minimum(entries + 1, last)  # rounding may lead past it
        return entries + take(self.shifts, edges)


def accumulate_probabilities(graph: WalkGraph, weights: StepWeights, edges: torch.Tensor) -> torch.Tensor:
    """The entries of some edges."""
    previous, current = take(graph.edge_sources, edges), take(graph.neighbors, edges)
    counts = take(graph.degrees, current)
    first = counts.cumsum(0) - counts
    owner = torch.arange(edges.numel(), device=edges.device).repeat_interleave(counts)
    place = take(take(graph.row_pointers, current) - first, owner) + torch.arange(owner.numel(), device=edges.device)
    candidate, previous_of_owner = take(graph.neighbors, place), take(previous, owner)
    weight = torch.where(
        candidate == previous_of_owner,
        take(weights.of_previous(graph, previous), owner),
        weights.of_others(graph.has_edges(previous_of_owner, candidate)),
    )
    total = weight.new_zeros(edges.numel()).index_add(0, owner, weight)
    probability = weight / take(total, owner)
    running = probability.cumsum(0)
    before = take(running, first) - take(probability, first)
    # Rounding must not lead into the entries of the next edge, nor leave a gap before them.
    cumulative = torch.minimum(running - take(before - edges, owner), take(edges + 1, owner))
    cumulative[first + counts - 1] = (edges + 1).double()
    return cumulative


def find_step_table(graph: WalkGraph, weights: StepWeights) -> StepTable | None:
    """The table of a graph, made when it is asked for first; `None` if it would be too large."""
    if graph.has_dead_ends or graph.num_continuations > MAX_ENTRIES:
        return None
    tables = graph.step_tables
    if weights not in tables:
        if len(tables) == MAX_TABLES:
            del tables[next(iter(tables))]  # the oldest
        tables[weights] = StepTable.of(graph, weights)
    return tables[weights]


__all__ = ["StepTable", "find_step_table"]
