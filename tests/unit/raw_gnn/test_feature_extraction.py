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
    inputs = RawGnnFeatureExtractor()(build(), return_tensors="pt")

    assert inputs.node_features.tolist() == FEATURES
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
    "kind": (3, TypeError, r"`graph` must be a mapping of arrays, .* got int"),
    "no graphs": ([], ValueError, r"at least one graph; got an empty list"),
    "no features": ({"edge_index": EDGES}, ValueError, r"`graph` must have `node_features` or `x`; got edge_index"),
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
