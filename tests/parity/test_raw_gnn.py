"""RAW-GNN computes the authors' numbers from the authors' weights on the authors' walks: every golden file, by kind.

What each key means, and how the files were made, is in the README of the golden folder. Further files of the same
kinds, such as that of a real graph, can be checked through `DECAHUB_GOLDEN_DIR`: sizes are read from the file.
"""

import re

import pytest
import torch
from torch.nn import functional

from conversion.convert_raw_gnn import convert_state_dict, infer_config, revert_state_dict
from decahub import RawGnnForNodeClassification
from decahub.models.raw_gnn.optimization import build_parameter_groups
from decahub.models.raw_gnn.walks.sampling import (
    LAWS,
    WalkGraph,
    extract_paths,
    first_step_probabilities,
    sample_paths,
    sample_walks,
    transition_probabilities,
)
from tests.parity.golden import assert_near, golden_params


# The golden README suggests these: one sum in two orders, which a path of three to four steps hardly magnifies.
ATOL = {torch.float32: 1e-5, torch.float64: 1e-10}
LOSS_TRACE_ATOL = {torch.float32: 1e-4, torch.float64: 1e-10}
# Adam divides a gradient by its size, so that rounding of a small one becomes a step. After five steps the authors'
# own float32 results are up to 1.1e-3 away from those of the same formulas in float64, and ours 2.3e-4.
AFTER_TRACE_ATOL = {torch.float32: 2e-3, torch.float64: 1e-10}
TRANSITIONS_ATOL = 1e-12
# Chance alone gives a total variation of about 0.4 sqrt(pairs of steps / walks): at most half of what is allowed.
MAX_TOTAL_VARIATION = 0.02
NUM_WALKS, NUM_WALKS_PER_PAIR = 200_000, 1_600

STRATEGIES = ("dfs", "bfs")
KINDS = ("forward_and_training", "transitions")
KNOWN_KEYS = {
    "forward_and_training": [
        r"(state|grad|trace\.state)\.(layer[12]\.(a|rnn\.(weight|bias)_(ih|hh)_l0)|lin1\.(weight|bias))",
        r"in\.(x|edge_index|y|train_idx)",
        r"in\.paths_(dfs|bfs)\.\d+",
        r"out\.((node|path_emb|path_att)_(dfs|bfs)|log_probs|loss)",
        r"trace\.(loss|log_probs_after)",
    ],
    "transitions": [rf"[^.]+\.(edge_index|first_step|p[\d.]+_q[\d.]+\.({'|'.join(LAWS)}))"],
}
# Ways to run a model that must not change its numbers.
WAYS = ("plain", "sparse", "activation_checkpointing", "target_nodes")

training_files = pytest.mark.parametrize("golden", golden_params("raw_gnn", "forward_and_training"))


@pytest.mark.parametrize("golden", golden_params("raw_gnn"))
def test_every_number_of_a_file_is_looked_at(golden):
    assert golden.kind in KINDS, f"{golden.path.name}: no test for `golden_kind` {golden.kind!r}"
    assert golden.unknown_keys(KNOWN_KEYS[golden.kind]) == []


# --- Forward and training


def build_model(golden) -> RawGnnForNodeClassification:
    metadata, official = golden.metadata, golden.group("state.")
    config = infer_config(
        official,
        walk_length=int(metadata["walk_len"]),
        long_walk_length=int(metadata["long_walk_len"]),
        long_walks_per_node=int(metadata["long_walks_per_node"]),
    )
    model = RawGnnForNodeClassification(config).to(golden["in.x"].dtype)
    model.load_state_dict(convert_state_dict(official, config))
    return model


def read_paths(golden, step: int) -> list[torch.Tensor]:
    return [golden[f"in.paths_{name}.{step}"] for name in STRATEGIES]


def read_train_mask(golden) -> torch.Tensor:
    train_mask = torch.zeros(len(golden["in.y"]), dtype=torch.bool)
    train_mask[golden["in.train_idx"]] = True
    return train_mask


def run(model: RawGnnForNodeClassification, golden, step: int = 0, way: str = "plain"):
    inputs = {
        "node_features": golden["in.x"],
        "paths": read_paths(golden, step),
        "labels": golden["in.y"],
        "train_mask": read_train_mask(golden),
    }
    if way == "sparse":
        inputs["node_features"] = golden["in.x"].to_sparse_csr()
    elif way == "activation_checkpointing":
        model.activation_checkpointing_enable()
        model.train()  # nothing is checkpointed in evaluation
    elif way == "target_nodes":
        inputs["target_nodes"] = torch.arange(len(golden["in.y"]))
    return model(**inputs)


@training_files
def test_sizes_are_those_of_the_file(golden):
    config = build_model(golden).config

    sizes = {"f": config.num_features, "c": config.num_labels, "hidden": config.hidden_size}
    sizes["heads"] = config.num_attention_heads
    assert {name: golden.metadata[name] for name in sizes} == {name: str(size) for name, size in sizes.items()}


@training_files
@pytest.mark.parametrize("way", WAYS)
def test_forward(golden, way):
    model = build_model(golden)
    atol = ATOL[golden["in.x"].dtype]

    outputs = run(model, golden, way=way)

    assert_near(outputs.loss, golden["out.loss"].squeeze(0), atol, what="loss")
    assert_near(functional.log_softmax(outputs.logits, dim=-1), golden["out.log_probs"], atol, what="log_probs")
    for strategy, node_embeddings in enumerate(outputs.node_embeddings.chunk(2, dim=1)):
        name = STRATEGIES[strategy]
        assert_near(node_embeddings, golden[f"out.node_{name}"], atol, what=f"nodes {name}")
        for key, values in (("path_emb", outputs.path_embeddings), ("path_att", outputs.path_attentions)):
            if f"out.{key}_{name}" in golden:
                assert_near(values[strategy], golden[f"out.{key}_{name}"], atol, what=f"{key} {name}")


@training_files
@pytest.mark.parametrize("way", WAYS)
def test_gradients(golden, way):
    model = build_model(golden)

    run(model, golden, way=way).loss.backward()

    gradients = revert_state_dict({name: parameter.grad for name, parameter in model.named_parameters()})
    expected = golden.group("grad.")
    assert expected.keys() <= gradients.keys()
    for name, gradient in expected.items():
        assert_near(gradients[name], gradient, ATOL[gradient.dtype], what=name)


@training_files
@pytest.mark.parametrize("way", ["plain", "sparse", "activation_checkpointing"])
def test_trace_of_adam(golden, way):
    model, metadata = build_model(golden).train(), golden.metadata
    dtype, steps = golden["in.x"].dtype, int(metadata["steps"])
    groups = build_parameter_groups(model, float(metadata["wd"]))
    optimizer = torch.optim.Adam(groups, lr=float(metadata["lr"]))
    losses = []

    for step in range(steps):
        optimizer.zero_grad()
        loss = run(model, golden, step, way).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    with torch.no_grad():
        logits = run(model.eval(), golden, steps).logits

    assert_near(torch.stack(losses), golden["trace.loss"], LOSS_TRACE_ATOL[dtype], what="losses")
    log_probs = functional.log_softmax(logits, dim=-1)
    assert_near(log_probs, golden["trace.log_probs_after"], AFTER_TRACE_ATOL[dtype], what="log_probs after training")
    parameters = revert_state_dict(model.state_dict())
    for name, expected in golden.group("trace.state.").items():
        assert_near(parameters[name], expected, AFTER_TRACE_ATOL[dtype], what=name)


# --- Walks


@training_files
def test_prepared_graph_is_the_authors(golden):
    edge_index, num_nodes = golden["in.edge_index"], int(golden.metadata["n"])
    is_forward = edge_index[0] < edge_index[1]

    graph = WalkGraph.from_edge_index(edge_index[:, is_forward].flip(1), num_nodes)

    rows = torch.arange(num_nodes).repeat_interleave(graph.degrees)
    assert torch.equal(torch.stack([rows, graph.neighbors]), edge_index)


@training_files
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_paths_are_laid_out_as_the_authors(golden, strategy):
    config, num_nodes = build_model(golden).config, int(golden.metadata["n"])
    paths = golden[f"in.paths_{strategy}.0"].long()
    num_walks = config.long_walks_per_node * num_nodes
    windows = paths.view(config.num_windows, num_walks, config.walk_length)
    # The first window, then the far end of each later one, gives the walks back.
    walks = torch.cat([windows[0].flip(1), windows[1:, :, 0].T], dim=1)
    graph = WalkGraph.from_edge_index(golden["in.edge_index"], num_nodes)

    ours = sample_paths(
        graph,
        p=1.0,
        q=1.0,
        seed=0,
        long_walks_per_node=config.long_walks_per_node,
        long_walk_length=config.long_walk_length,
        walk_length=config.walk_length,
    )

    assert torch.equal(extract_paths(walks, config.walk_length), paths)
    assert ours.shape == paths.shape
    assert torch.equal(ours[:num_walks, -1], paths[:num_walks, -1])
    assert graph.has_edges(paths[:, :-1].flatten(), paths[:, 1:].flatten()).all()


def list_transitions(golden) -> list[str]:
    return [key for key in golden.tensors if re.fullmatch(rf"[^.]+\.p.+\.({'|'.join(LAWS)})", key)]


def read_transitions(golden, case: str) -> tuple[WalkGraph, dict]:
    """The graph of a case, and its parameters."""
    graph_name, p, q, law = re.fullmatch(r"([^.]+)\.p(.+)_q(.+)\.(\w+)", case).groups()
    num_nodes = golden[f"{graph_name}.first_step"].shape[0]
    edge_index = golden[f"{graph_name}.edge_index"]
    graph = WalkGraph.from_edge_index(edge_index, num_nodes, undirected=False, add_self_loops=False)
    return graph, {"p": float(p), "q": float(q), "law": law}


transition_cases = pytest.mark.parametrize(
    ("golden", "case"), golden_params("raw_gnn", "transitions", cases=list_transitions)
)


@transition_cases
def test_transition_probabilities(golden, case):
    graph, parameters = read_transitions(golden, case)
    nodes = range(graph.num_nodes)

    first_steps = torch.stack([first_step_probabilities(graph, node) for node in nodes])
    probabilities = torch.stack(
        [
            torch.stack([transition_probabilities(graph, previous, node, **parameters) for node in nodes])
            for previous in nodes
        ]
    )

    assert_near(first_steps, golden[f"{case.partition('.')[0]}.first_step"], TRANSITIONS_ATOL, what="first step")
    assert_near(probabilities, golden[case], TRANSITIONS_ATOL, what="transitions")


@transition_cases
def test_walks_follow_the_law(golden, case):
    graph, parameters = read_transitions(golden, case)
    num_nodes, start = graph.num_nodes, int(graph.degrees.argmax())
    first_step = golden[f"{case.partition('.')[0]}.first_step"]
    expected = first_step[start][:, None] * golden[case][start]
    num_walks = max(NUM_WALKS, NUM_WALKS_PER_PAIR * int((expected > 0).sum()))

    walks = sample_walks(graph, torch.full((num_walks,), start), length=2, **parameters, seed=0)

    shares = (walks[:, 1] * num_nodes + walks[:, 2]).bincount(minlength=num_nodes**2) / num_walks
    assert (shares - expected.flatten()).abs().sum() / 2 < MAX_TOTAL_VARIATION
