"""Answers for a few nodes: the same as those of a pass over the whole graph, at the cost of their neighborhood."""

import pytest
import torch
from transformers import pipeline

from decahub import ReliantFeatureExtractor, ReliantForNodeClassification
from decahub.models.reliant.configuration_reliant import VARIANTS
from decahub.models.reliant.neighborhood import count_hops, find_neighborhood
from tests.tiny.reliant import NUM_FEATURES, tiny_config


ATOL = 1e-6  # products over another number of rows
NUM_NODES = 400
TARGETS = torch.tensor([7, 200, 3])

by_variant = pytest.mark.parametrize("variant", VARIANTS)


def build(variant, seed=0, **overrides):
    torch.manual_seed(seed)
    overrides = {"num_propagation_steps": 2} | overrides if variant != "plp" else overrides
    model = ReliantForNodeClassification(tiny_config(variant, **overrides)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def build_graph(seed=0):
    """A ring with short chords, some edges in both directions, one of them twice, and a loop at a target."""
    generator = torch.Generator().manual_seed(seed)
    source = torch.arange(NUM_NODES).repeat(2)
    target = (source + torch.randint(1, 4, source.shape, generator=generator)) % NUM_NODES
    edges = torch.stack([source, target])
    extra = torch.tensor([[7, 9, 9, 2], [7, 8, 8, 3]])
    edges = torch.cat([edges, edges[:, ::5].flip(0), extra], dim=1)
    return {"node_features": torch.randn(NUM_NODES, NUM_FEATURES, generator=generator), "edge_index": edges}


@by_variant
@pytest.mark.parametrize("undirected", [False, True])
@pytest.mark.parametrize("add_self_loops", [False, True])
def test_targets_get_the_answers_of_the_whole_graph(variant, undirected, add_self_loops):
    model, graph = build(variant, undirected=undirected, add_self_loops=add_self_loops), build_graph()

    with torch.no_grad():
        whole = model(**graph, output_hidden_states=True)
        part = model(**graph, target_nodes=TARGETS, output_hidden_states=True)

    torch.testing.assert_close(part.logits, whole.logits[TARGETS], atol=ATOL, rtol=0)
    torch.testing.assert_close(part.node_embeddings, whole.node_embeddings[TARGETS], atol=ATOL, rtol=0)
    for own, states in zip(part.hidden_states, whole.hidden_states, strict=True):
        torch.testing.assert_close(own, states[TARGETS], atol=ATOL, rtol=0)


@by_variant
def test_only_the_neighborhood_is_computed(variant):
    model, graph = build(variant), build_graph()

    part = find_neighborhood(graph["edge_index"], NUM_NODES, TARGETS, model.config)

    if variant.startswith("plp") or model.config.architecture == "plp":
        assert part is None
        return
    # Breadth-first search, one step at a time.
    near, edges = {*TARGETS.tolist()}, graph["edge_index"].t().tolist()
    for _ in range(count_hops(model.config)):
        near |= {source for source, target in edges if target in near}
    assert part.nodes.tolist() == sorted(near)
    assert len(near) < NUM_NODES / 4
    assert part.nodes[part.targets].tolist() == TARGETS.tolist()


def test_many_targets_take_a_pass_over_all():
    graph = build_graph()

    assert find_neighborhood(graph["edge_index"], NUM_NODES, torch.arange(0, NUM_NODES, 2), tiny_config()) is None


def test_a_proxy_for_each_node_goes_with_the_nodes():
    model, graph = build("akd-sgc"), build_graph()
    proxy = torch.rand(NUM_NODES, model.config.proxy_dim)

    with torch.no_grad():
        whole = model(**graph, proxy=proxy).logits
        part = model(**graph, proxy=proxy, target_nodes=TARGETS).logits

    torch.testing.assert_close(part, whole[TARGETS], atol=ATOL, rtol=0)


def test_the_loss_is_that_of_the_targets():
    model, graph = build("gcn-teacher"), build_graph()
    labels = torch.randint(3, (NUM_NODES,), generator=torch.Generator().manual_seed(1))
    mask = torch.zeros(NUM_NODES, dtype=torch.bool)
    mask[TARGETS] = True

    whole = model(**graph, labels=labels, train_mask=mask).loss
    part = model(**graph, labels=labels[TARGETS], target_nodes=TARGETS).loss
    part.sum().backward()

    torch.testing.assert_close(part, whole, atol=ATOL, rtol=0)
    assert model.classifier.projection.weight.grad.abs().sum() > 0


def test_a_pipeline_computes_the_neighborhood_of_the_nodes_asked_for(monkeypatch):
    model, graph = build("gcn-teacher"), build_graph()
    pipe = pipeline(
        "node-classification", model=model, feature_extractor=ReliantFeatureExtractor(num_features=NUM_FEATURES)
    )
    everything = pipe({name: value.numpy() for name, value in graph.items()})
    sizes = []
    encode = model.reliant.encode

    def record(features, adjacency):
        sizes.append(len(features))
        return encode(features, adjacency)

    monkeypatch.setattr(model.reliant, "encode", record)

    answers = pipe(graph, nodes=TARGETS)

    assert max(sizes) < NUM_NODES / 4
    for answer, node in zip(answers, TARGETS.tolist(), strict=True):
        assert answer["node"] == node
        assert answer["probabilities"] == pytest.approx(everything[node]["probabilities"], abs=ATOL)


@pytest.mark.parametrize(
    ("targets", "error", "message"),
    [
        (torch.tensor([1, 400]), ValueError, r"`target_nodes` must hold node ids in \[0, 400\); got 1 to 400"),
        (
            torch.tensor([], dtype=torch.long),
            ValueError,
            r"`target_nodes` must have shape \(num_targets,\); got \(0,\)",
        ),
        (torch.tensor([1.0]), TypeError, "`target_nodes` must be of type torch.int64; got torch.float32"),
    ],
)
def test_refuses_targets_that_are_no_nodes(targets, error, message):
    with pytest.raises(error, match=message):
        build("gcn-teacher")(**build_graph(), target_nodes=targets)


def test_an_edge_to_a_node_that_does_not_exist_is_named():
    graph = build_graph()
    graph["edge_index"][1, 5] = NUM_NODES

    with pytest.raises(ValueError, match=r"must hold node ids in \[0, 400\); got \[5, 400\] at column 5"):
        build("gcn-teacher")(**graph, target_nodes=TARGETS)
