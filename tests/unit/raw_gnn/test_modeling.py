"""RAW-GNN: equal to a plain reading of the paper, mini-batches of nodes, evaluation draws, saving, what it refuses."""

import pytest
import torch
from torch.nn import functional
from transformers import AutoModel

from decahub import AutoModelForNodeClassification, RawGnnForNodeClassification, RawGnnModel
from decahub.models.raw_gnn.optimization import build_parameter_groups, training_step
from decahub.models.raw_gnn.path_aggregator import compute_path_attention
from decahub.models.shared.losses import compute_node_loss
from tests.tiny.raw_gnn import NUM_NODES, build_tiny_config, build_tiny_graph


ATOL_SIZE = 1e-6  # matrix products over another number of rows
ATOL_ORDER = 1e-5  # the same sums in another order
ATOL_BFLOAT16 = 0.05  # eight bits of mantissa, values below 1


def build(model_class=RawGnnForNodeClassification, **fields):
    torch.manual_seed(0)
    return model_class(build_tiny_config(**fields)).eval()


def embed_plainly(aggregator, projection, node_features, paths, rnn_class):
    """The paper's aggregator as written: raw features along each path, softmax over the paths of a node in a loop."""
    hidden_size, num_heads = aggregator.attention.shape
    rnn = rnn_class(node_features.shape[1], hidden_size, batch_first=True)
    rnn.weight_ih_l0, rnn.bias_ih_l0 = projection.weight, projection.bias
    rnn.weight_hh_l0, rnn.bias_hh_l0 = aggregator.recurrent.weight_hh, aggregator.recurrent.bias_hh
    embeddings = rnn(node_features[paths])[0][:, -1]
    nodes = torch.zeros(len(node_features), num_heads, hidden_size)
    for node in range(len(node_features)):
        own = embeddings[paths[:, -1] == node]
        for head in range(num_heads):
            weights = torch.softmax(own @ aggregator.attention[:, head], dim=0)
            nodes[node, head] = (weights[:, None] * own).sum(0)
    return nodes.flatten(1)


@pytest.mark.parametrize(("rnn_type", "rnn_class"), [("gru", torch.nn.GRU), ("lstm", torch.nn.LSTM)])
@pytest.mark.parametrize("walk_length", [1, 2, 4])
def test_equals_a_plain_reading_of_the_paper(rnn_type, rnn_class, walk_length):
    model = build(RawGnnModel, rnn_type=rnn_type, walk_length=walk_length)
    graph = build_tiny_graph()

    outputs = model(**graph)

    expected = [
        embed_plainly(aggregator, projection, graph["node_features"], paths, rnn_class)
        for aggregator, projection, paths in zip(model.aggregators, model.projections, outputs.paths, strict=True)
    ]
    torch.testing.assert_close(outputs.node_embeddings, torch.cat(expected, 1), atol=ATOL_ORDER, rtol=0)


def test_sparse_features_give_the_same_numbers_and_gradients():
    dense, sparse = build(), build()
    graph = build_tiny_graph()
    graph["node_features"] = graph["node_features"].relu()
    labels = torch.arange(NUM_NODES) % 3

    losses = [
        dense(**graph, labels=labels).loss,
        sparse(graph["node_features"].to_sparse_csr(), graph["edge_index"], labels=labels).loss,
    ]
    for loss in losses:
        loss.backward()

    torch.testing.assert_close(losses[1], losses[0], atol=ATOL_ORDER, rtol=0)
    for one, other in zip(dense.parameters(), sparse.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, atol=ATOL_ORDER, rtol=0)


def test_sparse_features_may_need_a_gradient():
    model, graph = build(), build_tiny_graph()
    features = graph["node_features"].requires_grad_()
    sparse = features.detach().to_sparse_csr().requires_grad_()

    for node_features in (features, sparse):
        model(node_features, graph["edge_index"]).logits.square().sum().backward()

    torch.testing.assert_close(sparse.grad.to_dense(), features.grad, atol=ATOL_ORDER, rtol=0)


def test_loss_counts_labeled_nodes_of_the_mask():
    model, graph = build(), build_tiny_graph()
    labels = torch.tensor([0, 1, 2, -100, 1, 0, 2, 2, 1])
    train_mask = torch.arange(NUM_NODES) < 5

    outputs = model(**graph, labels=labels, train_mask=train_mask)

    expected = functional.cross_entropy(outputs.logits[[0, 1, 2, 4]], labels[[0, 1, 2, 4]])
    torch.testing.assert_close(outputs.loss, expected)


def test_fixed_walks_repeat_and_resampled_ones_follow_the_generator():
    graph = build_tiny_graph()
    fixed, resampling = build(), build(eval_walks="resample")

    torch.manual_seed(1)
    first, second = resampling(**graph).logits, resampling(**graph).logits
    torch.manual_seed(1)
    again = resampling(**graph).logits

    assert torch.equal(fixed(**graph).logits, fixed(**graph).logits)
    assert not torch.equal(first, second)
    assert torch.equal(first, again)


def test_draws_are_averaged():
    graph = build_tiny_graph()
    averaging, single = build(eval_walks=3), build()

    logits = averaging(**graph).logits

    draws = [single(**graph, walk_seed=7 + draw).logits for draw in range(3)]
    torch.testing.assert_close(logits, sum(draws) / 3, atol=ATOL_ORDER, rtol=0)


def test_training_draws_new_walks_each_time():
    model, graph = build().train(), build_tiny_graph()

    assert not torch.equal(model(**graph).logits, model(**graph).logits)


@pytest.mark.parametrize("batch_size", [1, 4, 100])
@pytest.mark.parametrize("fields", [{}, {"undirected": False}, {"eval_walks": 2}], ids=str)
def test_targets_get_the_answers_of_a_pass_over_all_nodes(batch_size, fields):
    model, graph = build(**fields), build_tiny_graph(40)
    nodes = torch.randperm(40, generator=torch.Generator().manual_seed(3))[:11]
    expected = model(**graph).logits[nodes]

    logits = model.predict(**graph, target_nodes=nodes, batch_size=batch_size)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        threaded = model.predict(**graph, target_nodes=nodes, batch_size=batch_size)
    finally:
        torch.set_num_threads(threads)

    torch.testing.assert_close(logits, expected, atol=ATOL_SIZE, rtol=0)
    torch.testing.assert_close(threaded, expected, atol=ATOL_SIZE, rtol=0)


def test_training_reads_walks_that_start_in_a_target():
    model, graph = build().train(), build_tiny_graph(40)
    targets = torch.tensor([5, 17])

    outputs = model(**graph, target_nodes=targets)

    for paths in outputs.paths:
        assert paths[:, -1].tolist() == [5, 17] * 6  # two walks and three windows, for each target
        assert paths.shape == (12, 3)


def test_targets_read_sparse_features_alike():
    model, graph = build(), build_tiny_graph(12)
    graph["node_features"] = graph["node_features"].relu()
    nodes = torch.tensor([7, 2, 11])

    dense = model.predict(**graph, target_nodes=nodes)
    sparse = model.predict(graph["node_features"].to_sparse_csr(), graph["edge_index"], nodes)

    torch.testing.assert_close(sparse, dense, atol=ATOL_ORDER, rtol=0)


def test_works_on_a_graph_without_edges_and_on_a_single_node():
    model = build()
    no_edges = torch.zeros(2, 0, dtype=torch.long)

    assert model(torch.ones(4, 5), no_edges).logits.shape == (4, 3)
    assert model(torch.ones(1, 5), no_edges).logits.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("is_sparse", [False, True], ids=["dense", "sparse"])
def test_features_are_cast_to_the_weights(dtype, is_sparse):
    graph = build_tiny_graph()
    expected = build()(**graph).logits
    if is_sparse:
        graph["node_features"] = graph["node_features"].to_sparse_csr()

    logits = build().to(dtype)(**graph).logits

    assert logits.dtype == dtype
    torch.testing.assert_close(logits.float(), expected, atol=ATOL_BFLOAT16, rtol=0)


def test_given_paths_of_other_nodes_do_not_count():
    model, graph = build(), build_tiny_graph()
    paths = model.raw_gnn.sample_paths(graph["edge_index"], NUM_NODES)
    targets = torch.tensor([7, 2], dtype=torch.int32)

    outputs = model(graph["node_features"], paths=paths, target_nodes=targets, output_hidden_states=True)

    expected = model(graph["node_features"], paths=paths, output_hidden_states=True)
    torch.testing.assert_close(outputs.logits, expected.logits[[7, 2]], atol=ATOL_ORDER, rtol=0)
    for states, of_all in zip(outputs.hidden_states, expected.hidden_states, strict=True):
        torch.testing.assert_close(states, of_all[[7, 2]], atol=ATOL_ORDER, rtol=0)


def test_paths_of_one_node_leave_no_weight_without_gradient():
    model = build(walk_length=1).train()

    model(**build_tiny_graph(), labels=torch.arange(NUM_NODES) % 3).loss.backward()

    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_target_without_path_has_embedding_zero():
    model, graph = build(RawGnnModel), build_tiny_graph()
    paths = torch.tensor([[1, 2, 0], [3, 3, 1]])

    outputs = model(graph["node_features"], paths=[paths, paths])

    assert outputs.node_embeddings[2:].abs().max() == 0
    assert outputs.node_embeddings[:2].abs().min(dim=1).values.max() > 0


def test_attention_survives_large_scores_and_half_precision():
    scores = torch.tensor([[1000.0], [999.0], [5.0]])

    attention = compute_path_attention(scores.half(), torch.tensor([0, 0, 1]), 3)

    expected = torch.tensor([[0.7311], [0.2689], [1.0]])
    torch.testing.assert_close(attention, expected, atol=1e-4, rtol=0)


def test_runs_under_bfloat16_autocast():
    model, graph = build(), build_tiny_graph()
    labels = torch.arange(NUM_NODES) % 3

    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = model(**graph, labels=labels)
    outputs.loss.backward()

    torch.testing.assert_close(outputs.logits.float(), model(**graph).logits, atol=ATOL_BFLOAT16, rtol=0)
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("auto_class", "model_class"),
    [(AutoModel, RawGnnModel), (AutoModelForNodeClassification, RawGnnForNodeClassification)],
)
def test_saves_and_loads(tmp_path, auto_class, model_class):
    model, graph = build(model_class), build_tiny_graph()

    model.save_pretrained(tmp_path)
    loaded = auto_class.from_pretrained(tmp_path)

    assert type(loaded) is model_class
    assert torch.equal(loaded(**graph)[0], model(**graph)[0])


def test_learns():
    model = build().train()
    graph = build_tiny_graph()
    batch = {**graph, "labels": (graph["node_features"][:, 0] > 0).long(), "test_mask": None}
    optimizer = torch.optim.Adam(build_parameter_groups(model, 1e-3), lr=0.05)

    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        losses.append(training_step(model, batch)["loss"])
        losses[-1].backward()
        optimizer.step()

    assert losses[-1] < 0.3 * losses[0]


def test_compiles_with_sparse_features():
    model, graph = build(), build_tiny_graph()
    paths = tuple(model.raw_gnn.sample_paths(graph["edge_index"], NUM_NODES))
    features = graph["node_features"].to_sparse_csr()

    actual = torch.compile(model, backend="aot_eager")(features, paths=paths).logits

    torch.testing.assert_close(actual, model(features, paths=paths).logits, atol=ATOL_ORDER, rtol=0)


def test_exports_and_compiles_with_paths_given():
    model, graph = build(), build_tiny_graph()
    paths = tuple(model.raw_gnn.sample_paths(graph["edge_index"], NUM_NODES))
    other = build_tiny_graph(14, seed=2)
    other_paths = tuple(model.raw_gnn.sample_paths(other["edge_index"], 14))
    any_size = torch.export.Dim.DYNAMIC

    program = torch.export.export(
        model,
        (),
        kwargs={"node_features": graph["node_features"], "paths": paths},
        dynamic_shapes={"node_features": {0: any_size}, "paths": ({0: any_size}, {0: any_size})},
    ).module()
    compiled = torch.compile(model, backend="aot_eager")

    expected = model(other["node_features"], paths=other_paths).logits
    outputs = program(node_features=other["node_features"], paths=other_paths)
    torch.testing.assert_close(outputs["logits"], expected, atol=ATOL_ORDER, rtol=0)
    torch.testing.assert_close(
        compiled(other["node_features"], paths=other_paths).logits, expected, atol=ATOL_ORDER, rtol=0
    )


def build_bad_inputs():
    graph = build_tiny_graph()
    features, edges = graph["node_features"], graph["edge_index"]
    holed = features.clone()
    holed[3, 1] = float("nan")
    path = torch.tensor([[0, 1, 2]])
    labels = torch.arange(NUM_NODES) % 3
    return {
        "width": ({"node_features": features[:, :4], "edge_index": edges}, r"shape \(num_nodes, 5\); got \(9, 4\)"),
        "NaN": ({"node_features": holed, "edge_index": edges}, r"`node_features` must be finite; got NaN"),
        "nothing to walk on": ({"node_features": features}, r"`edge_index` or `paths` must be given"),
        "edge": ({"node_features": features, "edge_index": edges + 5}, r"node ids in \[0, 9\)"),
        "one strategy": ({"node_features": features, "paths": [path]}, r"each of 2 strategies; got 1"),
        "path ids": ({"node_features": features, "paths": [path, path + 7]}, r"`paths` .* in \[0, 9\); got 9"),
        "empty paths": ({"node_features": features, "paths": [path, path[:0]]}, r"`paths` must have shape"),
        "target": (
            {**graph, "target_nodes": torch.tensor([0, 9])},
            r"`target_nodes` must hold node ids in \[0, 9\); got 9",
        ),
        "no target": (
            {**graph, "target_nodes": torch.tensor([], dtype=torch.long)},
            r"`target_nodes` must have shape",
        ),
        "empty mask": (
            {**graph, "labels": labels, "train_mask": torch.zeros(NUM_NODES, dtype=torch.bool)},
            r"`train_mask` must select at least one labeled node; got none",
        ),
        "no label": ({**graph, "labels": torch.full((NUM_NODES,), -100)}, r"at least one labeled node"),
        "label": ({**graph, "labels": labels + 1}, r"`labels` must be class ids in \[0, 3\)"),
        "no features": ({**graph, "node_features": None}, r"`node_features` must be given"),
        "empty path": ({"node_features": features, "paths": [path, path[:, :0]]}, r"`paths` must have shape"),
        "target twice": ({**graph, "target_nodes": torch.tensor([4, 2, 4])}, r"`target_nodes` must be different"),
        "few labels": ({**graph, "labels": labels[:4]}, r"`labels` must have shape \(9,\).*got \(4,\)"),
        "labels of all nodes": (
            {**graph, "labels": labels, "target_nodes": torch.tensor([4, 2])},
            r"`labels` must have shape \(2,\).*got \(9,\)",
        ),
        "few in the mask": (
            {**graph, "labels": labels, "train_mask": torch.ones(3, dtype=torch.bool)},
            r"`train_mask` must have shape \(9,\).*got \(3,\)",
        ),
    }


def build_inputs_of_wrong_type():
    graph = build_tiny_graph()
    labels = torch.arange(NUM_NODES) % 3
    return {
        "labels": ({**graph, "labels": labels.float()}, r"`labels` must hold class ids.*float32"),
        "mask": ({**graph, "labels": labels, "train_mask": labels}, r"`train_mask` must hold booleans.*int64"),
        "targets": ({**graph, "target_nodes": torch.ones(NUM_NODES) > 0}, r"`target_nodes` must hold node ids.*bool"),
        "paths": ({**graph, "paths": [torch.zeros(1, 3)] * 2}, r"`paths` must hold node ids.*float32"),
        "edges": ({**graph, "edge_index": graph["edge_index"].float()}, r"`edge_index` must be an int32 or int64"),
    }


@pytest.mark.parametrize(("inputs", "message"), build_bad_inputs().values(), ids=build_bad_inputs())
def test_refuses(inputs, message):
    with pytest.raises(ValueError, match=message):
        build()(**inputs)


@pytest.mark.parametrize(
    ("inputs", "message"), build_inputs_of_wrong_type().values(), ids=build_inputs_of_wrong_type()
)
def test_refuses_other_types(inputs, message):
    with pytest.raises(TypeError, match=message):
        build()(**inputs)


def test_loss_in_half_precision_is_computed_in_float32():
    logits = torch.tensor([[30.0, 0.0], [0.0, 1.0]])

    loss = compute_node_loss(logits.half(), torch.tensor([1, 1]))

    assert loss.dtype == torch.float32
