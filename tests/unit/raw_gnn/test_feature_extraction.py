"""RawGnnFeatureExtractor: every form a graph comes in, lists of graphs, and what is refused."""

import networkx
import numpy as np
import pytest
import scipy.sparse
import torch
from torch_geometric.data import Data
from transformers import AutoFeatureExtractor

from decahub import RawGnnConfig, RawGnnFeatureExtractor, RawGnnForNodeClassification


FEATURES = [[1.0, 2.0, 0.0], [0.0, -1.0, 3.0], [0.5, 0.0, 0.0], [0.0, 0.0, 0.0]]
EDGES = [[0, 1, 1], [1, 0, 2]]
LABELS = [1, 0, -100, 1]


def build_networkx():
    graph = networkx.Graph()
    for node, features in enumerate(FEATURES):
        graph.add_node(f"node {node}", x=features, y=LABELS[node])
    graph.add_edge("node 0", "node 1")
    graph.add_edge("node 1", "node 2")
    return graph


FORMS = {
    "lists": lambda: {"node_features": FEATURES, "edge_index": EDGES, "labels": LABELS},
    "pairs of nodes": lambda: {"node_features": FEATURES, "edge_index": np.array(EDGES).T, "labels": LABELS},
    "int32": lambda: {"x": np.array(FEATURES), "edge_index": np.array(EDGES, dtype=np.int32), "y": LABELS},
    "torch-geometric": lambda: Data(x=torch.tensor(FEATURES), edge_index=torch.tensor(EDGES), y=torch.tensor(LABELS)),
    "networkx": build_networkx,
    "scipy": lambda: {
        "node_features": scipy.sparse.csr_array(np.array(FEATURES)),
        "edge_index": scipy.sparse.coo_array((np.ones(3), np.array(EDGES)), shape=(4, 4)),
        "labels": LABELS,
    },
    "row": lambda: {
        "node_features": np.array(FEATURES, dtype=np.float32),
        "edge_index": np.array(EDGES).T,
        "labels": LABELS,
        "train_mask": np.zeros((10, 4), dtype=bool),
    },
}


@pytest.mark.parametrize("build", FORMS.values(), ids=FORMS)
def test_reads(build):
    is_row = build is FORMS["row"]

    inputs = RawGnnFeatureExtractor()(build(), return_tensors="pt", split=3 if is_row else None)

    assert inputs.node_features.to_dense().tolist() == FEATURES
    assert {tuple(sorted(edge)) for edge in inputs.edge_index.T.tolist()} == {(0, 1), (1, 2)}
    assert inputs.edge_index.dtype == torch.int64
    assert inputs.labels.tolist() == LABELS


def test_reads_a_pair():
    inputs = RawGnnFeatureExtractor()((np.array(FEATURES), np.array(EDGES)))

    assert inputs["edge_index"].tolist() == EDGES
    assert "labels" not in inputs


def test_square_edges_of_a_row_are_pairs_of_nodes():
    row = {"node_features": FEATURES, "edge_index": [[0, 1], [2, 3]], "train_mask": np.zeros((2, 4), dtype=bool)}

    assert RawGnnFeatureExtractor()(row)["edge_index"].tolist() == [[0, 2], [1, 3]]


def test_edges_of_torch_geometric_stay_as_they_are_with_masks_for_several_splits():
    graph = Data(
        x=torch.ones(4, 2), edge_index=torch.tensor([[0, 1], [2, 3]]), train_mask=torch.ones(4, 10, dtype=torch.bool)
    )

    inputs = RawGnnFeatureExtractor()(graph)

    assert inputs["edge_index"].tolist() == [[0, 1], [2, 3]]
    assert "train_mask" not in inputs


TEN_MASKS = np.eye(4, dtype=bool)[np.arange(10) % 4]  # split i trains on node i % 4


@pytest.mark.parametrize(
    "build",
    [
        lambda: {**FORMS["lists"](), "train_mask": TEN_MASKS, "val_mask": ~TEN_MASKS},
        lambda: Data(
            **FORMS["torch-geometric"]().to_dict(),
            train_mask=torch.tensor(TEN_MASKS.T),
            val_mask=torch.tensor(~TEN_MASKS.T),
        ),
    ],
    ids=["row", "torch-geometric"],
)
def test_labels_come_with_the_mask_of_a_split(build):
    extractor = RawGnnFeatureExtractor()
    with pytest.raises(ValueError, match="`split` must choose one of the 10 splits of this graph's masks, 0, 1"):
        extractor(build())
    with pytest.raises(ValueError, match="`split` must be one of 0, 1, .*; got 10"):
        extractor(build(), split=10)

    inputs = extractor(build(), split=6)

    assert inputs["train_mask"].tolist() == [False, False, True, False]
    assert inputs["validation_mask"].tolist() == [True, True, False, True]
    assert not {"labels", "train_mask"} & set(extractor(build(), needs_labels=False))


def test_masks_and_names_of_networkx_are_read():
    graph = networkx.Graph()
    for node in (2, 0, 1):
        graph.add_node(node, x=[float(node)], y=node, train_mask=node == 2, val_mask=node == 0)
    graph.add_edge(2, 1)

    inputs = RawGnnFeatureExtractor()(graph, return_tensors="pt")

    assert inputs["node_names"] == [2, 0, 1]
    assert inputs["train_mask"].tolist() == [True, False, False]
    assert inputs["validation_mask"].tolist() == [False, True, False]
    assert inputs["edge_index"].tolist() == [[0, 2], [2, 0]]


def test_stored_zeros_of_an_adjacency_matrix_are_no_edges():
    matrix = scipy.sparse.coo_array(([1.0, 0.0, 1.0], ([0, 1, 2], [1, 2, 3])), shape=(4, 4))
    as_torch = torch.sparse_coo_tensor([[0, 1, 2], [1, 2, 3]], [1.0, 0.0, 1.0], (4, 4))

    for adjacency in (matrix, as_torch):
        inputs = RawGnnFeatureExtractor()({"x": FEATURES, "edge_index": adjacency})
        assert inputs["edge_index"].tolist() == [[0, 2], [1, 3]]
    inputs = RawGnnFeatureExtractor()(Data(x=torch.tensor(FEATURES), adj_t=as_torch.to_sparse_csr()))
    assert inputs["edge_index"].tolist() == [[1, 3], [0, 2]]


def test_equal_weights_say_nothing_and_pass():
    graph = {**FORMS["lists"](), "edge_weight": np.full(3, 0.5), "edge_attr": np.ones((3, 2))}

    assert RawGnnFeatureExtractor()(graph)["edge_index"].tolist() == EDGES


@pytest.mark.parametrize("normalize", [False, True])
def test_sparse_features_stay_sparse(normalize):
    extractor, matrix = RawGnnFeatureExtractor(normalize_features=normalize), scipy.sparse.csr_array(FEATURES)
    expected = extractor((FEATURES, EDGES), return_tensors="pt").node_features

    for features in (matrix, torch.tensor(FEATURES).to_sparse()):
        both = extractor([(features, EDGES), (features, EDGES)], return_tensors="pt").node_features
        assert both.layout == torch.sparse_csr
        torch.testing.assert_close(both.to_dense(), torch.cat([expected, expected]))
    np.testing.assert_allclose(extractor((matrix, EDGES))["node_features"], expected)


def test_lists_become_a_disjoint_union():
    first, second = FORMS["lists"](), FORMS["torch-geometric"]()

    inputs = RawGnnFeatureExtractor()([first, second], return_tensors="pt")

    assert inputs.node_features.shape == (8, 3)
    assert inputs.edge_index[:, 3:].tolist() == (np.array(EDGES) + 4).tolist()
    assert inputs.num_nodes_per_graph.tolist() == [4, 4]


def test_normalizes_rows_and_leaves_empty_ones():
    inputs = RawGnnFeatureExtractor(normalize_features=True)(FORMS["lists"](), return_tensors="pt")

    expected = torch.tensor([[1 / 3, 2 / 3, 0.0], [0.0, -0.25, 0.75], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(inputs.node_features, expected)


def test_sparse_features_hold_the_same_values():
    inputs = RawGnnFeatureExtractor(sparse_features=True)(FORMS["lists"](), return_tensors="pt")

    assert inputs.node_features.layout == torch.sparse_csr
    assert inputs.node_features.to_dense().tolist() == FEATURES


def test_what_it_is_given_stays_as_it_was():
    features = np.array(FEATURES, dtype=np.float32)

    RawGnnFeatureExtractor(normalize_features=True)({"x": features, "edge_index": EDGES})

    assert features.tolist() == FEATURES


def test_loads_by_its_auto_class(tmp_path):
    RawGnnFeatureExtractor(num_features=3, normalize_features=True).save_pretrained(tmp_path)
    RawGnnForNodeClassification(RawGnnConfig(num_features=3)).save_pretrained(tmp_path)

    loaded = AutoFeatureExtractor.from_pretrained(tmp_path)

    assert isinstance(loaded, RawGnnFeatureExtractor)
    assert loaded.normalize_features
    assert loaded.num_features == 3


def spoil(**fields):
    return {"node_features": FEATURES, "edge_index": EDGES, **fields}


BAD_GRAPHS = {
    "misspelled": (spoil(lables=LABELS), ValueError, r"`lables` must be an array of a graph.*Did you mean `labels`"),
    "edge weights": (
        spoil(edge_weight=[1.0, 2.0, 1.0]),
        ValueError,
        r"`edge_weight` must be the same for all edges.*not read it",
    ),
    "edge attributes": (
        Data(x=torch.tensor(FEATURES), edge_index=torch.tensor(EDGES), edge_attr=torch.eye(3)),
        ValueError,
        r"`edge_attr` must be the same for all edges.*Leave out `edge_attr`",
    ),
    "weighted matrix": (
        spoil(edge_index=scipy.sparse.coo_array(([1.0, 2.0], ([0, 1], [1, 2])), shape=(4, 4))),
        ValueError,
        r"values of the adjacency matrix` must be the same.*Give `adjacency != 0`",
    ),
    "large matrix": (
        spoil(edge_index=scipy.sparse.eye_array(8).tocoo()),
        ValueError,
        r"\(4, 4\) as an adjacency.*got \(8, 8\)",
    ),
    "adj_t": ({"x": FEATURES, "adj_t": "?"}, ValueError, r"`adj_t` must be a sparse tensor of torch; got str"),
    "NaN label": (
        spoil(labels=[0, 1, np.nan, 1]),
        ValueError,
        r"`labels` must not hold NaN or infinity; got nan at node 2.*-100",
    ),
    "text labels": (
        spoil(labels=["a", "b", "a", "b"]),
        ValueError,
        r"must hold integers; got <U1\. Number",
    ),
    "no train mask": (
        spoil(labels=LABELS, test_mask=[True] * 4),
        ValueError,
        r"`train_mask` must be given where .* `test_mask`",
    ),
    "names": (spoil(node_names=["a", "b", "a", "c"]), ValueError, r"4 different names.*got 4, 3 of them different"),
    "infinite sparse": (
        spoil(node_features=scipy.sparse.csr_array([[np.inf, 1.0, 0.0]] * 4)),
        ValueError,
        r"`node_features` must be finite",
    ),
    "kind": (3, TypeError, r"`graph` must be a mapping of arrays, .* got int"),
    "no graphs": ([], ValueError, r"at least one graph; got an empty list"),
    "no features": (
        {"edge_index": EDGES},
        ValueError,
        r"`graph` must have .* got edge_index.*a constant or its degree",
    ),
    "no edges key": ({"x": FEATURES}, ValueError, r"`graph` must have `edge_index` or `edges`"),
    "flat features": (spoil(node_features=[1.0, 2.0]), ValueError, r"shape \(num_nodes, num_features\).* got \(2,\)"),
    "no nodes": (spoil(node_features=np.zeros((0, 3))), ValueError, r"neither of them 0; got \(0, 3\)"),
    "texts": (spoil(node_features=[["a"], ["b"]]), ValueError, r"`node_features` must be numbers"),
    "width": (spoil(node_features=[[1.0]] * 4), ValueError, r"must have 3 columns, .* got 1"),
    "NaN": (spoil(node_features=[[1, 2, np.nan]] * 4), ValueError, r"finite; got nan in column 2 of node 0"),
    "infinity": (spoil(node_features=[[1, 2, 3]] * 3 + [[np.inf] * 3]), ValueError, r"got inf in column 0 of node 3"),
    "id too large": (spoil(edge_index=[[0, 1], [1, 4]]), ValueError, r"in \[0, 4\); got 4 at column 1"),
    "id negative": (spoil(edge_index=[[0, -1], [1, 0]]), ValueError, r"in \[0, 4\); got -1 at column 1"),
    "edge shape": (spoil(edge_index=[[0, 1, 2]] * 3), ValueError, r"`edge_index` must have shape \(2, num_edges\)"),
    "edge type": (spoil(edge_index=[[0.0, 1.0], [1.0, 0.0]]), ValueError, r"`edge_index` must hold integers"),
    "labels": (spoil(labels=[0, 1]), ValueError, r"`labels` must have shape \(4,\), one for each node; got \(2,\)"),
    "label type": (spoil(labels=[0.5] * 4), ValueError, r"`labels` must hold integers; got float64"),
    "mask": (spoil(train_mask=[0, 1, 0, 1]), ValueError, r"`train_mask` must be booleans of shape \(4,\)"),
    "some labels": ([spoil(), spoil(labels=LABELS)], ValueError, r"`labels` must be given for all graphs"),
}


@pytest.mark.parametrize(("graph", "error", "message"), BAD_GRAPHS.values(), ids=BAD_GRAPHS)
def test_refuses(graph, error, message):
    with pytest.raises(error, match=message):
        RawGnnFeatureExtractor(num_features=3)(graph, return_tensors="pt")


def test_sparse_features_need_torch():
    with pytest.raises(ValueError, match=r"`return_tensors` must be 'pt' for sparse features; got None"):
        RawGnnFeatureExtractor(sparse_features=True)(FORMS["lists"]())


def test_shows_the_walks_of_a_graph():
    extractor = RawGnnFeatureExtractor()
    graph = FORMS["torch-geometric"]()

    walks = extractor.sample_walks(graph, [0, 3], length=4, p=0.5, q=2.0, seed=1)
    probabilities = extractor.transition_probabilities(graph, 0, 1, p=0.5, q=2.0)

    assert walks[1].tolist() == [3] * 5  # an isolated node stays where it is
    # From 0 to 1: back to 0 weighs 2, staying at 1 (a neighbor of 0) 1, on to 2 a half.
    torch.testing.assert_close(probabilities, torch.tensor([2.0, 1.0, 0.5, 0.0], dtype=torch.float64) / 3.5)


@pytest.mark.parametrize("option", [{"normalize_features": "none"}, {"normalize_features": 1}, {"sparse_features": 0}])
def test_a_switch_is_true_or_false(option):
    with pytest.raises(ValueError, match=f"`{next(iter(option))}` must be True or False"):
        RawGnnFeatureExtractor(**option)


@pytest.mark.parametrize("name", ["labels", "sensitive"])
def test_infinite_ids_are_refused(name):
    graph = {"node_features": FEATURES, "edge_index": EDGES, name: [0.0, 1.0, np.inf, 0.0]}

    with pytest.raises(ValueError, match=f"`{name}` must not hold NaN or infinity; got inf at node 2"):
        RawGnnFeatureExtractor()(graph)


def test_splits_as_lists_of_nodes_are_refused():
    data = Data(x=torch.tensor(FEATURES), edge_index=torch.tensor(EDGES), y=torch.tensor(LABELS))
    data.train_idx = torch.tensor([0, 1])

    with pytest.raises(ValueError, match="`train_idx` must be given as the mask `train_mask`"):
        RawGnnFeatureExtractor()(data)
