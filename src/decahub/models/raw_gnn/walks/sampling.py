"""Second-order random walks with p and q, and the paths that RAW-GNN reads.

Every draw is a hash of (seed, strategy, start node, walk number, step, attempt), so a walk is the same whatever else
is drawn with it, in whatever order and by however many threads. The law of a step is in `walks/steps.py`.

Source: "RAW-GNN: RAndom Walk Aggregation based Graph Neural Network", arXiv 2206.13953.
"""

from collections.abc import Callable

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
from .table import find_step_table


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
    return draw_walks(graph, weights, start_nodes, length, hash_integers(seed, strategy, start_nodes, walk_numbers))


def draw_walks(
    graph: WalkGraph,
    weights: StepWeights,
    start_nodes: torch.Tensor,
    length: int,
    walk_keys: torch.Tensor,
    keep: Callable[[list[torch.Tensor]], torch.Tensor] | None = None,
) -> torch.Tensor:
    """Walks as in [`sample_walks`]; those that `keep` lets go of are not drawn to their end and left out.

    Args:
        graph ([`WalkGraph`]): the graph.
        weights ([`StepWeights`]): of the second and later steps.
        start_nodes (`torch.LongTensor` of shape `(num_walks,)`): node ids.
        length (`int`): number of steps.
        walk_keys (`torch.LongTensor` of shape `(num_walks,)`): see [`Draws`].
        keep (`Callable`, *optional*): from the nodes of each walk so far, a list of `(num_walks,)`, to booleans.
    """
    table = None if weights.is_uniform or length < 2 else find_step_table(graph, weights)
    walks = [start_nodes]
    edges: torch.Tensor | None = None  # along which each walker came, where there is a table
    for step in range(length + 1):
        if keep is not None:
            kept = keep(walks).nonzero().squeeze(1)
            walks, walk_keys = [nodes.index_select(0, kept) for nodes in walks], walk_keys.index_select(0, kept)
            edges = None if edges is None else edges.index_select(0, kept)
        if step == length:
            break
        draws = Draws(walk_keys, step * DRAWS_PER_STEP)
        if table is not None:
            uniform = draws.uniform(0)
            if edges is None:
                edges = graph.row_pointers[walks[0]] + (uniform * graph.degrees[walks[0]]).long()
            else:
                edges = table.step(edges, uniform)
            walks.append(graph.neighbors.index_select(0, edges))
        elif step == 0 or weights.is_uniform:
            walks.append(step_uniformly(graph, walks[-1], draws))
        else:
            walks.append(step_second_order(graph, walks[-2], walks[-1], weights, draws))
    return torch.stack(walks, dim=1)


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
    through it. For `target_nodes`: the same paths, as far as they end in a target, in the same order. Only walks that
    pass through a target are drawn to their end. With `num_walks`, this many walks from each target instead, of which
    the first window is used: cheaper, and another estimate.

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
        num_walks (`int`, *optional*): walks from each of `target_nodes`, if first windows are to be used only.

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
    device = graph.neighbors.device
    if target_nodes is None:
        nodes, length = torch.arange(graph.num_nodes, device=device), long_walk_length
    else:
        graph.check_nodes("target_nodes", target_nodes)
        nodes, length = target_nodes.to(device, torch.int64), walk_length - 1
    if target_nodes is None or num_walks is not None:
        num_walks = num_walks or long_walks_per_node
        numbers = torch.arange(num_walks, device=device).repeat_interleave(nodes.numel())
        draws = {"p": p, "q": q, "law": law, "seed": seed, "strategy": strategy, "walk_numbers": numbers}
        return extract_paths(sample_walks(graph, nodes.repeat(num_walks), length=length, **draws), walk_length)

    last_start = long_walk_length + 1 - walk_length  # where the last window begins
    steps_to_target = graph.count_steps_to(nodes, last_start)
    starts = (steps_to_target <= last_start).nonzero().squeeze(1)

    def keep(walks: list[torch.Tensor]) -> torch.Tensor:
        """Walks that were at a target when a window began, or can still get to one in time."""
        kept = [steps_to_target.index_select(0, nodes) == 0 for nodes in walks[: last_start + 1]]
        if len(walks) <= last_start:
            kept.append(steps_to_target.index_select(0, walks[-1]) <= last_start + 1 - len(walks))
        return torch.stack(kept).any(0)

    numbers = torch.arange(long_walks_per_node, device=device).repeat_interleave(starts.numel())
    starts = starts.repeat(long_walks_per_node)
    walk_keys = hash_integers(seed, strategy, starts, numbers)
    paths = extract_paths(
        draw_walks(graph, StepWeights.of(p, q, law), starts, long_walk_length, walk_keys, keep), walk_length
    )
    return paths[steps_to_target.index_select(0, paths[:, -1]) == 0]


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
