"""Second-order random walks with p and q, and the paths that RAW-GNN reads.

Every draw is a hash of (seed, strategy, start node, walk number, step, attempt), so a walk is the same whatever else
is drawn with it, in whatever order and by however many threads. The law of a step is in `walks/steps.py`.

Source: "RAW-GNN: RAndom Walk Aggregation based Graph Neural Network", arXiv 2206.13953.
"""

import torch

from .draws import Draws, hash_integers
from .graph import WalkGraph, prepare_walk_graph
from .steps import (
    DRAWS_PER_STEP,
    LAWS,
    StepWeights,
    first_step_probabilities,
    step_second_order,
    step_uniformly,
    transition_probabilities,
)
from .table import StepTable, find_step_table


def sample_walks(
    graph: WalkGraph,
    start_nodes: torch.Tensor,
    *,
    length: int,
    p: float,
    q: float,
    law: str = "node2vec",
    seed: int,
    strategy: int = 0,
    walk_numbers: torch.Tensor | None = None,
) -> torch.Tensor:
    """Random walks of `length` steps; the first step is uniform, and a node without neighbors is never left.

    Args:
        graph ([`WalkGraph`]): the graph.
        start_nodes (`torch.LongTensor` of shape `(num_walks,)`): node ids, which may repeat.
        length (`int`): number of steps.
        p (`float`): see [`transition_probabilities`].
        q (`float`): see there.
        law (`str`): see there.
        seed (`int`): any integer.
        strategy (`int`): separates the walks of several strategies that share a seed.
        walk_numbers (`torch.LongTensor` of shape `(num_walks,)`, *optional*): tells walks from the same node apart;
            two walks with the same start node and number are equal. By default a node's walks are counted from 0 in
            the order of `start_nodes`.

    Returns:
        `torch.LongTensor` of shape `(num_walks, length + 1)`: start node first.

    Raises:
        ValueError: If an argument is outside its range.
    """
    weights = StepWeights.of(p, q, law)
    if length < 0:
        raise ValueError(f"`length` must be at least 0; got {length}.")
    graph.check_nodes("start_nodes", start_nodes)
    start_nodes = start_nodes.to(graph.neighbors.device, torch.int64)
    walk_numbers = count_occurrences(start_nodes) if walk_numbers is None else walk_numbers.to(start_nodes)
    if walk_numbers.shape != start_nodes.shape:
        raise ValueError(
            f"`walk_numbers` must have the shape of `start_nodes`, {tuple(start_nodes.shape)}; "
            f"got {tuple(walk_numbers.shape)}."
        )
    walk_keys = hash_integers(seed, strategy, start_nodes, walk_numbers)
    table = None if weights.is_uniform or length < 2 else find_step_table(graph, weights)
    if table is None:
        walks = walk_step_by_step(graph, weights, start_nodes, length, walk_keys)
    else:
        walks = walk_by_table(graph, table, start_nodes, length, walk_keys)
    return torch.stack(walks, dim=1)


def walk_step_by_step(
    graph: WalkGraph, weights: StepWeights, start_nodes: torch.Tensor, length: int, walk_keys: torch.Tensor
) -> list[torch.Tensor]:
    walks = [start_nodes]
    for step in range(length):
        draws = Draws(walk_keys, step * DRAWS_PER_STEP)
        if step == 0 or weights.is_uniform:
            walks.append(step_uniformly(graph, walks[-1], draws))
        else:
            walks.append(step_second_order(graph, walks[-2], walks[-1], weights, draws))
    return walks


def walk_by_table(
    graph: WalkGraph, table: StepTable, start_nodes: torch.Tensor, length: int, walk_keys: torch.Tensor
) -> list[torch.Tensor]:
    walks = [start_nodes]
    for step in range(length):
        uniform = Draws(walk_keys, step * DRAWS_PER_STEP).uniform(0)
        if step == 0:
            edges = graph.row_pointers[start_nodes] + (uniform * graph.degrees[start_nodes]).long()
        else:
            edges = table.step(edges, uniform)
        walks.append(graph.neighbors.index_select(0, edges))
    return walks


def sample_paths(
    graph: WalkGraph,
    *,
    p: float,
    q: float,
    law: str = "node2vec",
    long_walks_per_node: int,
    long_walk_length: int,
    walk_length: int,
    seed: int,
    strategy: int = 0,
    target_nodes: torch.Tensor | None = None,
    num_walks: int | None = None,
) -> torch.Tensor:
    """Paths of one strategy, each of which ends at the node that it belongs to.

    For all nodes: long walks from each node, cut into windows, so that a node also owns windows of walks that pass
    through it. For `target_nodes`: only walks from the targets, of which the first window is used; a target's paths
    are those of its first window in a run over all nodes, and do not depend on the other targets.

    Args:
        graph ([`WalkGraph`]): the graph.
        p (`float`): see [`transition_probabilities`].
        q (`float`): see there.
        law (`str`): see there.
        long_walks_per_node (`int`): walks that start at each node.
        long_walk_length (`int`): steps of a long walk.
        walk_length (`int`): nodes of a path, at most `long_walk_length + 1`.
        seed (`int`): see [`sample_walks`].
        strategy (`int`): see there.
        target_nodes (`torch.LongTensor` of shape `(num_targets,)`, *optional*): node ids.
        num_walks (`int`, *optional*): walks from each of `target_nodes`, by default `long_walks_per_node`.

    Returns:
        `torch.LongTensor` of shape `(num_paths, walk_length)`: the last column is the target node.

    Raises:
        ValueError: If an argument is outside its range.
    """
    if not 1 <= walk_length <= long_walk_length + 1:
        raise ValueError(
            f"`walk_length` must be at least 1 and at most `long_walk_length + 1` ({long_walk_length + 1}); "
            f"got {walk_length}."
        )
    if target_nodes is None:
        nodes, length = torch.arange(graph.num_nodes, device=graph.neighbors.device), long_walk_length
        num_walks = long_walks_per_node
    else:
        nodes, length = target_nodes.to(graph.neighbors.device, torch.int64), walk_length - 1
        num_walks = long_walks_per_node if num_walks is None else num_walks
    walk_numbers = torch.arange(num_walks, device=nodes.device).repeat_interleave(nodes.numel())
    walks = sample_walks(
        graph,
        nodes.repeat(num_walks),
        length=length,
        p=p,
        q=q,
        law=law,
        seed=seed,
        strategy=strategy,
        walk_numbers=walk_numbers,
    )
    return extract_paths(walks, walk_length)


def extract_paths(walks: torch.Tensor, path_length: int) -> torch.Tensor:
    """All windows of `path_length` nodes of each walk, reversed: a window's first node becomes the path's last.

    Args:
        walks (`torch.LongTensor` of shape `(num_walks, num_steps + 1)`): from [`sample_walks`].
        path_length (`int`): nodes of a path.

    Returns:
        `torch.LongTensor` of shape `(num_windows * num_walks, path_length)`: all walks of the first window, then all
        of the second, and so on.

    Raises:
        ValueError: If walks are shorter than a path.
    """
    if not 1 <= path_length <= walks.shape[1]:
        raise ValueError(f"`path_length` must be in [1, {walks.shape[1]}], the nodes of a walk; got {path_length}.")
    windows = walks.unfold(1, path_length, 1)  # (num_walks, num_windows, path_length)
    return windows.transpose(0, 1).flip(-1).reshape(-1, path_length)


def count_occurrences(nodes: torch.Tensor) -> torch.Tensor:
    """How often each entry occurred before."""
    order = nodes.argsort(stable=True)
    _, counts = nodes[order].unique_consecutive(return_counts=True)
    first = (counts.cumsum(0) - counts).repeat_interleave(counts)
    occurrences = torch.empty_like(nodes)
    occurrences[order] = torch.arange(nodes.numel(), device=nodes.device) - first
    return occurrences


__all__ = [
    "LAWS",
    "WalkGraph",
    "extract_paths",
    "first_step_probabilities",
    "prepare_walk_graph",
    "sample_paths",
    "sample_walks",
    "transition_probabilities",
]
