"""The pipeline "node-classification": graphs in every form, the nodes asked for, mini-batches, and clear errors."""

import json

import datasets
import networkx as nx
import numpy as np
import pytest
import scipy.sparse
import torch
from torch_geometric.data import Data
from transformers import pipeline

from decahub import NodeClassificationPipeline, RawGnnConfig, RawGnnFeatureExtractor, RawGnnForNodeClassification


NAMES = ["ant", "bee", "cow"]
NUM_FEATURES = 5
ATOL_UNION = 1e-6  # matrix products over another number of rows


def build_graph(num_nodes=11, seed=0):
    """A ring with chords, directed one way, as a dict of arrays."""
    generator = np.random.default_rng(seed)
    source = np.arange(num_nodes)
    edges = np.stack([np.tile(source, 2), np.concatenate([(source + 1) % num_nodes, (source + 4) % num_nodes])])
    features = generator.normal(size=(num_nodes, NUM_FEATURES)).astype(np.float32)
    return {"node_features": features, "edge_index": edges}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    config = RawGnnConfig(
        num_features=NUM_FEATURES,
        id2label=dict(enumerate(NAMES)),
        label2id={name: index for index, name in enumerate(NAMES)},
    )
    folder = str(tmp_path_factory.mktemp("raw-gnn"))
    RawGnnForNodeClassification(config).save_pretrained(folder)
    RawGnnFeatureExtractor(num_features=NUM_FEATURES).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def classify(folder):
    return pipeline("node-classification", model=folder)


def get_scores(answers):
    return [[answer["probabilities"][name] for name in NAMES] for answer in answers]


def test_every_node_gets_its_most_probable_class(classify):
    graph = build_graph()
    with torch.no_grad():
        logits = classify.model(**classify.feature_extractor(graph, return_tensors="pt")).logits
    probabilities = logits.softmax(1)

    answers = classify(graph)

    assert isinstance(classify, NodeClassificationPipeline)
    assert [answer["node"] for answer in answers] == list(range(11))
    assert [answer["label"] for answer in answers] == [NAMES[index] for index in probabilities.argmax(1)]
    assert [answer["score"] for answer in answers] == pytest.approx(probabilities.max(1).values.tolist())
    assert np.array(get_scores(answers)) == pytest.approx(probabilities.numpy())
    assert json.loads(json.dumps(answers)) == answers


def test_probabilities_begin_with_the_best(classify):
    for answer in classify(build_graph()):
        values = list(answer["probabilities"].values())
        assert values == sorted(values, reverse=True)
        assert next(iter(answer["probabilities"])) == answer["label"]


def test_answers_for_the_nodes_asked_for_in_their_order(classify):
    everything = classify(build_graph())

    answers = classify(build_graph(), nodes=[7, 2, 7], top_k=2)

    assert [answer["node"] for answer in answers] == [7, 2, 7]
    assert [answer["score"] for answer in answers] == [everything[node]["score"] for node in (7, 2, 7)]
    assert [len(answer["probabilities"]) for answer in answers] == [2, 2, 2]


@pytest.mark.parametrize("ids", [np.array([3]), torch.tensor([3]), (3,)], ids=["numpy", "torch", "tuple"])
def test_ids_come_in_any_sequence(classify, ids):
    assert [answer["node"] for answer in classify(build_graph(), nodes=ids)] == [3]


def build_networkx(graph):
    result = nx.DiGraph()
    result.add_nodes_from((node, {"x": row}) for node, row in enumerate(graph["node_features"]))
    result.add_edges_from(graph["edge_index"].T.tolist())
    return result


def build_data(graph):
    labels = torch.zeros(len(graph["node_features"]), dtype=torch.int64)  # must not reach the model
    return Data(x=torch.tensor(graph["node_features"]), edge_index=torch.tensor(graph["edge_index"]), y=labels)


def build_row(graph):
    num_nodes = len(graph["node_features"])
    features = datasets.Features(
        node_features=datasets.Array2D((None, NUM_FEATURES), "float32"),
        edge_index=datasets.Array2D((None, 2), "int64"),
        labels=datasets.List(datasets.Value("int64")),
        train_mask=datasets.Array2D((None, num_nodes), "bool"),
    )
    row = {
        "node_features": graph["node_features"],
        "edge_index": graph["edge_index"].T,
        "labels": [-100] * num_nodes,
        "train_mask": np.zeros((2, num_nodes), dtype=bool),
    }
    rows = datasets.Dataset.from_dict({name: [value] for name, value in row.items()}, features=features)
    return rows.with_format("numpy")[0]


@pytest.mark.parametrize(
    "build",
    [build_data, build_networkx, build_row, lambda graph: (graph["node_features"], graph["edge_index"])],
    ids=["torch-geometric", "networkx", "row", "pair"],
)
def test_takes_a_graph_in_any_form(classify, build):
    graph = build_graph()

    assert np.array(get_scores(classify(build(graph)))) == pytest.approx(np.array(get_scores(classify(graph))))


@pytest.mark.parametrize("names", [[2, 0, 1], ["ann", "bob", "cy"], [("a", 1), ("b", 2), ("c", 3)]], ids=str)
def test_nodes_are_called_by_the_names_of_the_graph(classify, names):
    arrays = build_graph(3)
    graph = nx.DiGraph()
    graph.add_nodes_from((name, {"x": row}) for name, row in zip(names, arrays["node_features"], strict=True))
    graph.add_edges_from((names[source], names[target]) for source, target in arrays["edge_index"].T.tolist())
    expected = classify(arrays)

    answers = classify(graph)

    assert [answer["node"] for answer in answers] == [
        name if type(name) in (int, str) else str(name) for name in names
    ]
    assert np.array(get_scores(answers)) == pytest.approx(np.array(get_scores(expected)), abs=ATOL_UNION)
    assert classify(graph, nodes=[names[0]]) == answers[:1]
    with pytest.raises(ValueError, match="`nodes` must be a non-empty sequence of names of nodes.*got 'dora' and 1"):
        classify(graph, nodes=["dora", 7])


def test_names_are_those_of_each_graph_of_a_list(classify):
    graphs = [{**build_graph(3), "node_names": ["a", "b", "c"]}, build_graph(4)]

    ((one, other),) = classify([graphs], nodes=[["c"], [0, 3]])

    assert [answer["node"] for answer in one + other] == ["c", 0, 3]


def test_a_model_in_training_evaluates(classify):
    expected = classify(build_graph(), nodes=[3, 1])
    classify.model.train()
    try:
        assert classify(build_graph(), nodes=[3, 1]) == expected
        assert classify.model.training
    finally:
        classify.model.eval()


def test_labels_are_not_looked_at(classify):
    graph = {**build_graph(), "labels": ["text"] * 11, "train_mask": np.ones((3, 11), dtype=bool)}

    assert classify(graph) == classify(build_graph())


@pytest.mark.parametrize("convert", [scipy.sparse.csr_array, lambda values: torch.tensor(values).to_sparse()])
def test_sparse_features_reach_the_model(classify, convert, monkeypatch):
    layouts, forward = [], classify.model.raw_gnn.forward

    def record(node_features, *arguments, **options):
        layouts.append(node_features.layout)
        return forward(node_features, *arguments, **options)

    monkeypatch.setattr(classify.model.raw_gnn, "forward", record)
    graph = build_graph(40)
    answers = classify({**graph, "node_features": convert(graph["node_features"])}, nodes=[3])

    assert layouts == [torch.sparse_csr]
    assert np.array(get_scores(answers)) == pytest.approx(np.array(get_scores(classify(graph)))[[3]], abs=ATOL_UNION)


def test_list_holds_several_inputs(classify):
    first, second = build_graph(), build_graph(num_nodes=6, seed=1)

    answers = classify([first, build_data(second)])

    assert answers == [classify(first), classify(second)]


def test_list_of_graphs_is_one_input(classify):
    first, second = build_graph(), build_graph(num_nodes=6, seed=1)

    ((one, other),) = classify([[first, second]])

    assert [answer["node"] for answer in other] == list(range(6))
    assert len(one) == 11
    assert np.array(get_scores(one)) == pytest.approx(np.array(get_scores(classify(first))), abs=ATOL_UNION)


def test_nodes_of_a_list_of_graphs_are_given_for_each(classify):
    graphs = [build_graph(), build_graph(num_nodes=6, seed=1)]
    ((_, everything),) = classify([graphs])

    ((one, other),) = classify([graphs], nodes=[[10], [5, 0]])

    assert [answer["node"] for answer in one] == [10]
    assert other == [everything[5], everything[0]]


@pytest.mark.parametrize("batch_size_nodes", [1, 2, 100])
def test_mini_batches_of_nodes_do_not_change_answers(classify, batch_size_nodes):
    expected = classify(build_graph(), nodes=[9, 0, 4, 0])

    answers = classify(build_graph(), nodes=[9, 0, 4, 0], batch_size_nodes=batch_size_nodes)

    assert [answer["node"] for answer in answers] == [9, 0, 4, 0]
    assert np.array(get_scores(answers)) == pytest.approx(np.array(get_scores(expected)), abs=ATOL_UNION)


def test_mini_batches_ask_the_model_for_so_many_nodes(classify, monkeypatch):
    sizes, forward = [], classify.model.raw_gnn.forward

    def record(*args, target_nodes=None, **kwargs):
        sizes.append(len(target_nodes))
        return forward(*args, target_nodes=target_nodes, **kwargs)

    monkeypatch.setattr(classify.model.raw_gnn, "forward", record)
    classify(build_graph(), batch_size_nodes=4)

    assert sizes == [4, 4, 3]


def test_model_without_target_nodes_computes_all(classify, monkeypatch):
    expected, forward = classify(build_graph(), nodes=[2]), classify.model.forward
    monkeypatch.setattr(
        classify.model, "forward", lambda node_features, edge_index: forward(node_features, edge_index)
    )

    answers = classify(build_graph(), nodes=[2], batch_size_nodes=1)

    assert [answer["node"] for answer in answers] == [2]
    assert np.array(get_scores(answers)) == pytest.approx(np.array(get_scores(expected)), abs=ATOL_UNION)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"nodes": [3, 11, -1]}, r"`nodes` must hold ids in \[0, 11\); got 11 and 1 more\."),
        ({"nodes": []}, r"`nodes` must be a non-empty sequence of node ids \(integers\)"),
        (
            {"nodes": ["seven"]},
            r"`nodes` must be numbers in \[0, 11\), since the nodes have no names",
        ),
        ({"nodes": 3}, r"got torch.int64 of shape \(\)\. For one node write `nodes=\[7\]`"),
        ({"nodes": [0.5]}, "got torch.float32"),
        ({"nodes": [True, False]}, "got torch.bool"),
        ({"top_k": "3"}, "`top_k` must be a whole number, or None; got '3'"),
        ({"batch_size_nodes": 2.5}, "`batch_size_nodes` must be a whole number, or None; got 2.5"),
        ({"batch_size_nodes": True}, "`batch_size_nodes` must be a whole number, or None; got True"),
        ({"top_k": 0}, "`top_k` must be at least 1, or None; got 0"),
        ({"batch_size_nodes": 0}, "`batch_size_nodes` must be at least 1, or None; got 0"),
        ({"batch_size": 2}, r"`batch_size` must be 1 for graphs; got 2\. Give a list of graphs as one input"),
    ],
)
def test_refuses_arguments(classify, arguments, message):
    with pytest.raises(ValueError, match=message):
        classify(build_graph(), **arguments)


def test_refuses_one_sequence_of_nodes_for_several_graphs(classify):
    with pytest.raises(ValueError, match="one sequence of ids for each of the 2 graphs; got 1"):
        classify([[build_graph(), build_graph()]], nodes=[[3]])


def test_refuses_an_empty_list(classify):
    with pytest.raises(ValueError, match="`inputs` must hold at least one graph"):
        classify([])


def test_refuses_another_width(classify):
    graph = {**build_graph(), "node_features": np.zeros((11, 4))}

    with pytest.raises(ValueError, match="`node_features` must have 5 columns"):
        classify(graph)


USE_IN_FRESH_PROCESS = """
import sys
{imports}
assert "torch" not in sys.modules or {torch_is_loaded}
classify = transformers.pipeline("node-classification", model=sys.argv[1])
graph = {{"node_features": [[0.5] * 5, [1.0] * 5, [-1.0] * 5], "edge_index": [[0, 1], [1, 2]]}}
answers = classify(graph, nodes=[2])
assert answers[0]["node"] == 2 and answers[0]["label"] in ("ant", "bee", "cow"), answers
"""


@pytest.mark.parametrize(
    ("imports", "torch_is_loaded"),
    [
        ("import decahub, transformers", False),
        ("import transformers, decahub", False),
        ("import transformers.pipelines, decahub", True),
        ("import decahub.pipelines.node_classification, transformers", True),
    ],
)
def test_works_in_a_fresh_process(run_python, folder, imports, torch_is_loaded):
    run_python(USE_IN_FRESH_PROCESS.format(imports=imports, torch_is_loaded=torch_is_loaded), folder)


def build_own_data(seed=0):
    graph = build_graph(seed=seed)
    return Data(
        x=torch.from_numpy(graph["node_features"]),
        edge_index=torch.from_numpy(graph["edge_index"]),
        y=torch.zeros(11, dtype=torch.long),
    )


def test_a_data_is_answered_by_a_data(classify):
    data = build_own_data()

    answered = classify(data, return_data=True)

    assert isinstance(answered, Data)
    assert answered.probabilities.numpy() == pytest.approx(np.array(get_scores(classify(data))), abs=ATOL_UNION)
    assert torch.equal(answered.predictions, answered.probabilities.argmax(1))
    assert answered.label_names == NAMES
    assert answered.x is data.x
    assert torch.equal(answered.y, data.y)
    assert "probabilities" not in data


def test_nodes_of_a_data_that_are_not_asked_for_have_no_answer(classify):
    answered = classify(build_own_data(), nodes=[4, 2], return_data=True)

    asked = torch.zeros(11, dtype=torch.bool)
    asked[[2, 4]] = True
    assert torch.equal(answered.probabilities.isnan().all(1), ~asked)
    assert torch.equal(answered.predictions == -1, ~asked)
    expected = get_scores(classify(build_own_data(), nodes=[2, 4]))
    assert answered.probabilities[asked].numpy() == pytest.approx(np.array(expected), abs=ATOL_UNION)


def test_a_list_of_data_is_answered_by_a_list(classify):
    first, second = classify([[build_own_data(), build_own_data(seed=1)]], return_data=True)[0]

    assert first.predictions.shape == second.predictions.shape == (11,)
    assert not torch.equal(first.probabilities, second.probabilities)


@pytest.mark.parametrize(
    ("graph", "arguments", "message"),
    [
        (build_graph(), {"return_data": True}, "`return_data` must be left out for a graph .* no .*`Data`; got dict"),
        (build_own_data(), {"return_data": True, "top_k": 2}, "`top_k` must be left out with `return_data`"),
        (build_own_data(), {"return_data": "yes"}, "`return_data` must be True or False; got 'yes'"),
    ],
)
def test_refuses_data_where_there_is_none(classify, graph, arguments, message):
    with pytest.raises(ValueError, match=message):
        classify(graph, **arguments)
