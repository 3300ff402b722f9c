"""RELIANT's models: formulas against dense loops, proxies, saving, tracing, and how they treat odd graphs."""

import math

import pytest
import torch
from torch.nn import functional
from transformers import AutoModel

from decahub import AutoModelForNodeClassification, ReliantForNodeClassification, ReliantModel
from decahub.models.reliant.configuration_reliant import VARIANTS
from tests.tiny.reliant import NUM_FEATURES, NUM_LABELS, NUM_NODES, tiny_config, tiny_graph


ATOL = 1e-5  # float32, two orders of summation
ATOL_TRACED = 1e-5  # gather and scatter instead of sparse products
ATOL_BF16 = 0.1  # eight bits of mantissa through three layers, logits near 1

by_variant = pytest.mark.parametrize("variant", VARIANTS)


def build(variant: str = "akd-sgc", seed: int = 0, **overrides) -> ReliantForNodeClassification:
    """A model in evaluation mode whose biases and balances are not 0."""
    torch.manual_seed(seed)
    model = ReliantForNodeClassification(tiny_config(variant, **overrides)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def dense_adjacency() -> torch.Tensor:
    matrix = torch.zeros(NUM_NODES, NUM_NODES)
    for source, target in tiny_graph()["edge_index"].t().tolist():
        matrix[target, source] += 1
    return matrix + torch.diag((matrix.diagonal() == 0).float())


def attend(scores: torch.Tensor) -> torch.Tensor:
    """Softmax of `scores[target, source]` over the edges of each target, doubled edges twice."""
    weights = scores.exp() * dense_adjacency()
    return weights / weights.sum(1, keepdim=True)


# --- Formulas


@pytest.mark.parametrize(("architecture", "steps"), [("gcn", 1), ("sgc", 3)])
def test_convolutions(architecture, steps):
    model = build("gcn-teacher", architecture=architecture, num_propagation_steps=steps)
    matrix = dense_adjacency()
    root = matrix.sum(1) ** -0.5
    propagation = torch.linalg.matrix_power(root[:, None] * matrix * root, steps)
    states = tiny_graph()["node_features"]
    for layer in [*model.reliant.layers, model.classifier]:
        states = propagation @ states @ layer.projection.weight.t() + layer.bias
        states = states if layer is model.classifier else states.relu()

    torch.testing.assert_close(model(**tiny_graph()).logits, states, atol=ATOL, rtol=0)


def test_graph_attention():
    model = build("gat-teacher")
    states = tiny_graph()["node_features"]
    for layer in [*model.reliant.layers, model.classifier]:
        heads = (states @ layer.projection.weight.t()).reshape(NUM_NODES, layer.num_heads, -1)
        outputs = []
        for head in range(layer.num_heads):
            own = heads[:, head]
            scores = (own @ layer.target_attention[head])[:, None] + own @ layer.source_attention[head]
            outputs.append(attend(functional.leaky_relu(scores, 0.2)) @ own)
        if layer is model.classifier:
            states = torch.stack(outputs).mean(0) + layer.bias
        else:
            states = functional.elu(torch.cat(outputs, 1) + layer.bias)

    torch.testing.assert_close(model(**tiny_graph()).logits, states, atol=ATOL, rtol=0)


def test_personalized_propagation():
    model = build("appnp-teacher", num_propagation_steps=2, teleport_prob=0.3)
    matrix = dense_adjacency()
    root = matrix.sum(1) ** -0.5
    hidden = model.reliant.layers[0].projection(tiny_graph()["node_features"]).relu()
    first = scores = model.classifier.projection(hidden)
    for _ in range(2):
        scores = 0.7 * (root[:, None] * matrix * root) @ scores + 0.3 * first

    torch.testing.assert_close(model(**tiny_graph()).logits, scores, atol=ATOL, rtol=0)


def test_initial_residual_and_identity():
    model = build("gcnii-teacher", teleport_prob=0.3, identity_decay=0.7)
    matrix = dense_adjacency()
    root = matrix.sum(1) ** -0.5
    first = states = model.reliant.input_projection(tiny_graph()["node_features"]).relu()
    for number, layer in enumerate(model.reliant.layers, start=1):
        mixed = 0.7 * (root[:, None] * matrix * root) @ states + 0.3 * first
        strength = math.log(0.7 / number + 1)
        states = ((1 - strength) * mixed + strength * mixed @ layer.projection.weight.t()).relu()

    torch.testing.assert_close(model(**tiny_graph()).logits, model.classifier.projection(states), atol=ATOL, rtol=0)


@pytest.mark.parametrize("num_hidden_layers", [0, 1, 2])
@pytest.mark.parametrize("score_type", ["features", "nodes"])
def test_label_propagation(num_hidden_layers, score_type):
    model = build(
        "cpf-plp",
        num_hidden_layers=num_hidden_layers,
        num_propagation_steps=3,
        num_nodes=NUM_NODES,
        label_score_type=score_type,
        proxy_mode="none",
    )
    features = tiny_graph()["node_features"]
    known = torch.tensor([2, -100, 0, -100, -100, 1, -100, -100, -100])
    is_known = known != -100
    initial = torch.full((NUM_NODES, NUM_LABELS), 1 / NUM_LABELS)
    initial[is_known] = functional.one_hot(known[is_known], NUM_LABELS).float()
    vector = model.classifier.label_scores
    scores = features @ vector[0] if score_type == "features" else vector[:, 0]
    weights = attend(scores.expand(NUM_NODES, NUM_NODES))
    own = features
    for layer in model.reliant.layers:
        own = layer.projection(own).relu()
    own, trust = model.classifier.projection(own), model.classifier.node_balance.sigmoid()
    expected = initial
    for _ in range(3):
        expected = (trust * (weights @ expected) + (1 - trust) * own).relu()
        expected[is_known] = initial[is_known]

    actual = model(**tiny_graph(), known_labels=known).logits

    torch.testing.assert_close(actual, expected, atol=ATOL, rtol=0)


def test_embeddings_come_from_the_layer_that_is_asked_for():
    graph = tiny_graph()
    first, last, before = (
        build("sage-teacher", embedding_layer=layer, embedding_before_activation=early)(
            **graph, output_hidden_states=True
        )
        for layer, early in ((1, False), (-1, False), (1, True))
    )

    assert torch.equal(first.node_embeddings, first.hidden_states[0])
    assert torch.equal(last.node_embeddings, last.hidden_states[-1])
    assert torch.equal(before.node_embeddings.relu(), first.node_embeddings)
    assert before.node_embeddings.min() < 0


def test_network_without_hidden_layers_embeds_its_input():
    outputs = build("sgc-teacher")(**tiny_graph())

    assert torch.equal(outputs.node_embeddings, tiny_graph()["node_features"])


def test_input_embeddings_are_the_first_layer():
    assert (model := build()).get_input_embeddings() is model.reliant.layers[0]
    assert (model := build("gcnii-teacher")).get_input_embeddings() is model.reliant.input_projection
    assert (model := build("sgc-teacher")).get_input_embeddings() is model.classifier


# --- Graphs


@by_variant
def test_order_of_nodes_does_not_matter(variant):
    model, graph = build(variant), tiny_graph()
    order = torch.randperm(NUM_NODES, generator=torch.Generator().manual_seed(3))
    place = order.argsort()

    moved = model(graph["node_features"][order], place[graph["edge_index"]]).logits

    torch.testing.assert_close(moved, model(**graph).logits[order], atol=ATOL, rtol=0)


@by_variant
def test_disjoint_union_equals_its_parts(variant):
    model, parts = build(variant), [tiny_graph(6, seed=1), tiny_graph(4, seed=2)]
    union = {
        "node_features": torch.cat([part["node_features"] for part in parts]),
        "edge_index": torch.cat([parts[0]["edge_index"], parts[1]["edge_index"] + 6], dim=1),
    }

    expected = torch.cat([model(**part).logits for part in parts])

    torch.testing.assert_close(model(**union).logits, expected, atol=ATOL, rtol=0)


@by_variant
@pytest.mark.parametrize("add_self_loops", [True, False], ids=["loops", "no-loops"])
def test_graph_without_edges(variant, add_self_loops):
    model = build(variant, add_self_loops=add_self_loops)
    labels = torch.arange(NUM_NODES) % NUM_LABELS

    outputs = model(tiny_graph()["node_features"], torch.zeros(2, 0, dtype=torch.long), labels=labels)
    outputs.loss.backward()

    assert torch.isfinite(outputs.logits).all()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_isolated_node_without_loop_keeps_what_the_perceptron_says():
    model = build("cpf-plp", add_self_loops=False, num_propagation_steps=1)
    features = model.reliant.add_proxy(tiny_graph()["node_features"])
    own = model.classifier.projection(model.reliant.layers[0].projection(features).relu())

    logits = model(**tiny_graph()).logits

    torch.testing.assert_close(logits[-1], (own[-1] / 2).relu(), atol=ATOL, rtol=0)


def test_labels_alone_are_not_spread():
    model = build("cpf-plp", num_nodes=NUM_NODES)
    labels = torch.arange(NUM_NODES) % NUM_LABELS

    assert torch.equal(model(**tiny_graph(), labels=labels).logits, model(**tiny_graph()).logits)


def test_label_propagation_knows_its_training_graph_only():
    model = build("cpf-plp", num_nodes=NUM_NODES)
    model.set_known_labels(torch.arange(NUM_NODES) % NUM_LABELS, torch.arange(NUM_NODES) < 4)
    other = tiny_graph(6, seed=1)
    blank = build("cpf-plp")  # same weights but for the balance, which it lacks
    blank.load_state_dict(model.state_dict(), strict=False)

    assert torch.equal(model(**tiny_graph()).logits[:4].argmax(1), torch.arange(4) % NUM_LABELS)
    assert torch.equal(model(**other).logits, blank(**other).logits)


# --- Proxy


def test_mean_mode_is_node_mode_with_equal_rows():
    model, mean = build(), torch.tensor([0.3, 0.8])
    model.reliant.set_proxy_mean(torch.stack([mean - 0.1, mean + 0.1]))

    stored = model(**tiny_graph()).logits

    assert torch.equal(stored, model(**tiny_graph(), proxy=model.reliant.proxy_mean).logits)
    assert torch.equal(stored, model(**tiny_graph(), proxy=model.reliant.proxy_mean.expand(NUM_NODES, 2)).logits)
    assert not torch.equal(stored, model(**tiny_graph(), proxy=torch.rand(NUM_NODES, 2)).logits)


def test_proxy_takes_the_place_of_the_last_two_features():
    model, graph = build(proxy_position="replace_last_two"), tiny_graph()
    changed = graph["node_features"].clone()
    changed[:, -2:] += 5

    assert model.reliant.layers[0].projection.in_features == NUM_FEATURES
    assert torch.equal(model(**graph).logits, model(changed, graph["edge_index"]).logits)


@pytest.mark.parametrize(
    ("fields", "proxy", "message"),
    [
        ({}, torch.zeros(3), r"`proxy` must have shape \(2,\) or \(9, 2\); got \(3,\)"),
        ({}, torch.zeros(8, 2), r"got \(8, 2\)"),
        ({"proxy_mode": "none"}, torch.zeros(2), "`proxy` must be left out with `proxy_mode='none'`"),
    ],
    ids=["width", "nodes", "none"],
)
def test_refuses_a_proxy_that_does_not_fit(fields, proxy, message):
    with pytest.raises(ValueError, match=message):
        build(**fields)(**tiny_graph(), proxy=proxy)


# --- Saving, precision, tracing


@by_variant
def test_saved_model_equals_the_loaded_one(variant, tmp_path):
    nodes = {"num_nodes": NUM_NODES} if variant == "cpf-plp" else {}
    model = build(variant, **nodes)
    if model.config.has_proxy:
        model.reliant.set_proxy_mean(torch.rand(NUM_NODES, 2))
    if nodes:
        model.set_known_labels(torch.arange(NUM_NODES) % NUM_LABELS, torch.arange(NUM_NODES) < 4)

    model.save_pretrained(tmp_path)
    loaded = AutoModelForNodeClassification.from_pretrained(tmp_path)

    assert type(loaded) is ReliantForNodeClassification
    assert torch.equal(loaded(**tiny_graph()).logits, model(**tiny_graph()).logits)


def test_bare_model_loads_from_the_folder_of_a_classifier(tmp_path):
    model = build()
    model.reliant.set_proxy_mean(torch.rand(NUM_NODES, 2))
    model.save_pretrained(tmp_path)

    bare = AutoModel.from_pretrained(tmp_path)

    assert type(bare) is ReliantModel
    assert torch.equal(bare(**tiny_graph()).node_embeddings, model(**tiny_graph()).node_embeddings)


@by_variant
def test_half_precision_is_near(variant):
    model, graph = build(variant), tiny_graph()
    expected = model(**graph).logits
    labels = torch.arange(NUM_NODES) % NUM_LABELS

    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = model.train()(**graph, labels=labels)
    mixed.loss.backward()
    half = model.eval().to(torch.bfloat16)(**graph).logits

    scale = expected.abs().max()
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float() / scale, expected / scale, atol=ATOL_BF16, rtol=0)
    assert torch.isfinite(mixed.loss)


@by_variant
def test_export_holds_for_graphs_of_other_sizes(variant):
    model, graph, other = build(variant), tiny_graph(), tiny_graph(13, seed=4)
    num_nodes, num_edges = (torch.export.Dim(name, min=3, max=64) for name in ("num_nodes", "num_edges"))
    shapes = {"node_features": {0: num_nodes}, "edge_index": {1: num_edges}}

    exported = torch.export.export(model, (), kwargs=graph, dynamic_shapes=shapes).module()

    torch.testing.assert_close(exported(**other).logits, model(**other).logits, atol=ATOL_TRACED, rtol=0)


@pytest.mark.slow  # half a minute each
@pytest.mark.parametrize("variant", ["akd-sgc", "cpf-plp"])
def test_compiled_model_gives_the_same_numbers(variant):
    model, graph = build(variant), tiny_graph()

    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")

    torch.testing.assert_close(compiled(**graph).logits, model(**graph).logits, atol=ATOL_TRACED, rtol=0)


@by_variant
def test_gradient_checkpointing_changes_nothing(variant):
    labels, gradients = torch.arange(NUM_NODES) % NUM_LABELS, []
    for is_checkpointed in (False, True):
        model = build(variant).train()
        if is_checkpointed:
            model.activation_checkpointing_enable()
        torch.manual_seed(0)
        model(**tiny_graph(), labels=labels).loss.backward()
        gradients.append([parameter.grad for parameter in model.parameters()])

    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed, atol=ATOL, rtol=0)


def test_dropout_in_evaluation_must_be_asked_for():
    quiet, noisy = build(), build(eval_dropout=True)

    assert torch.equal(quiet(**tiny_graph()).logits, quiet(**tiny_graph()).logits)
    assert not torch.equal(noisy(**tiny_graph()).logits, noisy(**tiny_graph()).logits)


def test_label_propagation_draws_dropout_anew_in_each_step():
    model, calls = build("cpf-plp", num_propagation_steps=4).train(), []
    model.reliant.layers[0].register_forward_hook(lambda *_: calls.append(1))
    weigh = model.classifier.compute_weights
    model.classifier.compute_weights = lambda *arguments: calls.append(2) or weigh(*arguments)

    model(**tiny_graph())
    in_training = sorted(calls)
    calls.clear()
    model.eval()(**tiny_graph())

    assert in_training == [1] * 5 + [2] * 4  # the bare model's own pass, then one in each step
    assert sorted(calls) == [1, 2]


# --- Labels and bad input


def test_loss_counts_labeled_nodes_of_the_mask():
    model, mask = build(), torch.arange(NUM_NODES) < 5
    labels = torch.arange(NUM_NODES) % NUM_LABELS
    labels[0] = -100

    outputs = model(**tiny_graph(), labels=labels, train_mask=mask)

    expected = functional.cross_entropy(outputs.logits[1:5], labels[1:5])
    torch.testing.assert_close(outputs.loss, expected)


BAD_INPUTS = {
    "no-features": ({"node_features": None}, ValueError, "`node_features` and `edge_index` must be given"),
    "integers": ({"node_features": torch.ones(9, 5, dtype=torch.long)}, TypeError, "floating point; got torch.int64"),
    "width": ({"node_features": torch.ones(9, 4)}, ValueError, r"shape \(num_nodes, 5\); got \(9, 4\)"),
    "no-node": ({"node_features": torch.ones(0, 5)}, ValueError, "at least one node"),
    "nan": ({"node_features": torch.full((9, 5), torch.nan)}, ValueError, "must be finite; got NaN or infinity"),
    "edge-type": ({"edge_index": torch.zeros(2, 3)}, TypeError, "torch.int64; got torch.float32"),
    "edge-shape": ({"edge_index": torch.zeros(3, 2, dtype=torch.long)}, ValueError, r"\(2, num_edges\); got \(3, 2\)"),
    "edge-range": (
        {"edge_index": torch.tensor([[0, 1], [1, 9]])},
        ValueError,
        r"node ids in \[0, 9\); got \[1, 9\] at column 1.* zero-based\?",
    ),
    "label-type": ({"labels": torch.zeros(9)}, TypeError, "`labels` must hold integer class ids; got torch.float32"),
    "label-shape": ({"labels": torch.zeros(8, dtype=torch.long)}, ValueError, r"shape \(9,\); got \(8,\)"),
    "label-range": (
        {"labels": torch.full((9,), 3)},
        ValueError,
        r"`labels` must hold class ids in \[0, 3\) or -100 \(ignored\); got 3, and 9 such values",
    ),
    "no-label": ({"labels": torch.full((9,), -100)}, ValueError, "at least one node of `train_mask`; none is labeled"),
    "mask-type": ({"train_mask": torch.ones(9)}, TypeError, "`train_mask` must be of type torch.bool"),
    "mask-shape": ({"train_mask": torch.ones(8, dtype=torch.bool)}, ValueError, r"shape \(9,\); got \(8,\)"),
    "known-labels": (
        {"known_labels": torch.zeros(9, dtype=torch.long)},
        ValueError,
        "`known_labels` must be left out with architecture 'sgc'",
    ),
}


@pytest.mark.parametrize(("changes", "error", "message"), BAD_INPUTS.values(), ids=BAD_INPUTS)
def test_refuses_bad_input(changes, error, message):
    with pytest.raises(error, match=message):
        build()(**{**tiny_graph(), **changes})


def test_refuses_to_keep_labels_or_proxy_without_a_place_for_them():
    with pytest.raises(ValueError, match="`architecture` must be 'plp' and `num_nodes` be given"):
        build("cpf-plp").set_known_labels(torch.zeros(9, dtype=torch.long), torch.ones(9, dtype=torch.bool))
    with pytest.raises(ValueError, match="`proxy_mode` of the config must not be 'none'"):
        build("kd-sgc").reliant.set_proxy_mean(torch.rand(9, 2))
