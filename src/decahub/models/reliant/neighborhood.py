"""The part of a graph that the answers for a few nodes depend on, so that they do not cost a pass over all of it."""

from dataclasses import dataclass

import torch

from .adjacency import SparseAdjacency, add_loops, check_node_ids, complete_edges
from .configuration_reliant import ReliantConfig


MOST = 0.5  # share of the nodes from which on a pass over all is no dearer


@dataclass(frozen=True)
class Neighborhood:
    """Nodes that reach the targets within the steps of a model.

    Args:
        nodes (`torch.LongTensor` of shape `(num_kept,)`): their numbers in the whole graph, ascending.
        adjacency ([`SparseAdjacency`]): the edges among them, normalized by the degrees of the whole graph.
        targets (`torch.LongTensor` of shape `(num_targets,)`): places of the targets in `nodes`.
    """

    nodes: torch.Tensor
    adjacency: SparseAdjacency
    targets: torch.Tensor


def count_hops(config: ReliantConfig) -> int | None:
    """How many edges away a node may be that an answer depends on.

    `None` for `"plp"`, whose weights belong to the nodes of one graph.
    """
    num_layers = config.num_hidden_layers
    return {
        "mlp": 0,
        "sgc": (num_layers + 1) * config.num_propagation_steps,
        "gcn": num_layers + 1,
        "sage": num_layers + 1,
        "gat": num_layers + 1,
        "gcnii": num_layers,
        "appnp": config.num_propagation_steps,
    }.get(config.architecture)


def find_neighborhood(
    edge_index: torch.Tensor, num_nodes: int, target_nodes: torch.Tensor, config: ReliantConfig
) -> Neighborhood | None:
    """The neighborhood of some nodes, or `None` where a pass over the whole graph is called for.

    Args:
        edge_index (`torch.LongTensor` of shape `(2, num_edges)`): messages go from the first row to the second.
        num_nodes (`int`): of the graph.
        target_nodes (`torch.LongTensor` of shape `(num_targets,)`): nodes whose answers are wanted.
        config ([`ReliantConfig`]): architecture, and how edges are read.

    Raises:
        ValueError: If an edge names a node that the graph does not have.
    """
    num_hops = count_hops(config)
    if num_hops is None:
        return None
    check_node_ids(edge_index, num_nodes)
    source, target = edge_index
    is_near = torch.zeros(num_nodes, dtype=torch.bool, device=edge_index.device)
    is_near[target_nodes] = True
    for _ in range(num_hops):
        ends = [source[is_near[target]], target[is_near[source]]] if config.undirected else [source[is_near[target]]]
        is_near[torch.cat(ends)] = True
        if is_near.sum() > MOST * num_nodes:
            return None
    nodes = is_near.nonzero()[:, 0]
    # All edges that reach these nodes are needed for their degrees, also those from further away.
    is_incoming = is_near[target] | (is_near[source] & config.undirected)
    source, target = complete_edges(source[is_incoming], target[is_incoming], num_nodes, config.undirected)
    if config.add_self_loops:
        source, target = add_loops(source, target, nodes, num_nodes)
    degrees = torch.bincount(target, minlength=num_nodes)[nodes]
    is_inside = is_near[source] & is_near[target]
    places = torch.full_like(is_near, -1, dtype=torch.long)
    places[nodes] = torch.arange(len(nodes), device=nodes.device)
    edges = torch.stack([places[source[is_inside]], places[target[is_inside]]])
    adjacency = SparseAdjacency(edges, len(nodes), add_self_loops=False, in_degree=degrees)
    return Neighborhood(nodes, adjacency, places[target_nodes])


__all__ = ["Neighborhood", "count_hops", "find_neighborhood"]
