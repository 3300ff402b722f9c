"""RAW-GNN beside the authors' way in plain PyTorch, and its walks beside a compiled sampler that a user would write.

Graphs are made up: one has the sizes and the sparsity of Cora, others up to a million edges. Both networks get paths
from the same sampler, which is a part of what is timed. No library that is maintained draws these walks for a current
PyTorch, so that their peer is rejection sampling in a compiled loop over the walkers; it has no numbers that stay the
same for any batch. A step of a walk is one advance of one walker.
"""

import warnings
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from .timing import Case, Sampler, timed


# Cora: nodes, undirected edges, words of the dictionary, words of a paper, classes.
CORA = {"num_nodes": 2708, "num_edges": 5278}
NUM_FEATURES, FEATURES_PER_NODE, NUM_LABELS = 1433, 18, 7
TRAIN_SHARE = 0.48
WALK_GRAPHS = (  # each edge counts twice
    CORA,
    {"num_nodes": 10_000, "num_edges": 50_000},
    {"num_nodes": 20_000, "num_edges": 500_000},
)
NUM_WALKS = 5416  # two from each node of Cora

STRATEGIES = {"dfs": {"p": 10.0, "q": 0.1}, "bfs": {"p": 0.1, "q": 10.0}}
WALK_STEPS = 4
LEARNING_RATE, WEIGHT_DECAY = 0.05, 1e-3


def build_edge_index(num_nodes: int, num_edges: int):
    """Random edges; a few nodes have many."""
    import torch

    uniform = torch.rand(2, num_edges, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return (uniform.square() * num_nodes).long()


def build_batch():
    """Inputs of a training step on a graph like Cora."""
    import torch

    generator = torch.Generator().manual_seed(0)
    num_nodes = CORA["num_nodes"]
    words = torch.rand(num_nodes, NUM_FEATURES, generator=generator).topk(FEATURES_PER_NODE).indices
    return {
        "node_features": torch.zeros(num_nodes, NUM_FEATURES).scatter_(1, words, 1.0),
        "edge_index": build_edge_index(**CORA),
        "labels": torch.randint(NUM_LABELS, (num_nodes,), generator=generator),
        "train_mask": torch.rand(num_nodes, generator=generator) < TRAIN_SHARE,
    }


def build_raw_gnn_pair():
    """A RAW-GNN classifier and its reference with the same weights."""
    import torch

    from conversion.convert_raw_gnn import revert_state_dict
    from decahub import RawGnnConfig, RawGnnForNodeClassification

    from .reference_raw_gnn import ReferenceRawGnn

    torch.manual_seed(0)
    config = RawGnnConfig.from_variant("official", num_features=NUM_FEATURES, num_labels=NUM_LABELS)
    model, reference = RawGnnForNodeClassification(config), ReferenceRawGnn(config)
    reference.load_state_dict(revert_state_dict(model.state_dict(), config))
    return model, reference


def build_epoch(folder: Path) -> tuple[Sampler, Sampler]:
    """A training step and the two evaluations after it, each on new walks, as the authors' recipe has them."""
    import torch

    model, reference = build_raw_gnn_pair()
    batch = build_batch()
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # CSR tensors are in beta, says torch
        sparse_batch = {**batch, "node_features": batch["node_features"].to_sparse_csr()}
    labels, train_mask = batch["labels"], batch["train_mask"]

    def compute_reference_loss() -> torch.Tensor:
        paths = model.raw_gnn.sample_paths(batch["edge_index"], CORA["num_nodes"])
        log_probs = reference(batch["node_features"], paths)
        return torch.nn.functional.nll_loss(log_probs[train_mask], labels[train_mask])

    def build(network: torch.nn.Module, compute_loss: Callable[[], torch.Tensor]) -> Sampler:
        optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)

        def run() -> None:
            network.train()
            compute_loss().backward()
            optimizer.step()
            optimizer.zero_grad()
            network.eval()
            with torch.inference_mode():
                for _ in range(2):
                    compute_loss()

        return timed(run)

    return build(model, lambda: model(**sparse_batch).loss), build(reference, compute_reference_loss)


def build_walks(folder: Path, graph_sizes: dict[str, int], strategy: str) -> tuple[Sampler, Sampler]:
    import torch

    from decahub.models.raw_gnn.walks.sampling import WalkGraph, sample_walks

    from .reference_walks import draw_walks

    num_nodes = graph_sizes["num_nodes"]
    graph = WalkGraph.from_edge_index(build_edge_index(**graph_sizes), num_nodes)
    starts = torch.arange(NUM_WALKS) % num_nodes
    ours = partial(sample_walks, graph, starts, length=WALK_STEPS, **STRATEGIES[strategy], seed=0)
    arrays = [values.numpy() for values in (graph.row_pointers, graph.neighbors, starts)]
    return timed(ours), timed(partial(draw_walks, *arrays, WALK_STEPS, *STRATEGIES[strategy].values()))


CASES = [Case("epoch on a graph like cora (train step, 2 evaluations)", "torch: the authors' way", build_epoch)]
if find_spec("numba") is not None:
    CASES += [
        Case(
            f"{NUM_WALKS * WALK_STEPS:,} steps of walks, {strategy}",
            "numba: rejection sampling",
            partial(build_walks, graph_sizes=graph_sizes, strategy=strategy),
            (2 * graph_sizes["num_edges"], "edges"),
        )
        for strategy in STRATEGIES
        for graph_sizes in WALK_GRAPHS
    ]
