"""RELIANT's feature extractor: the sensitive attribute, statistics, and graphs of every form."""

import networkx as nx
import numpy as np
import pytest
import torch
from torch_geometric.data import Data
from transformers import AutoFeatureExtractor

from decahub import ReliantFeatureExtractor


ATOL = 1e-6  # float32
FEATURES = [[1.0, 0.0, -3.0], [2.0, 1.0, 5.0], [4.0, 2.0, 0.0], [0.0, 0.0, 0.0]]
GRAPH = {
    "node_features": FEATURES,
    "edge_index": [[0, 1, 2], [1, 2, 3]],
    "labels": [0, 1, 1, -100],
    "train_mask": [True, False, True, False],
    "sensitive": [0, 1, 1, 0],
    "feature_names": ["debt", "age", "score"],
}


def test_gives_tensors():
    inputs = ReliantFeatureExtractor()(GRAPH, return_tensors="pt")

    assert {name: (tuple(value.shape), value.dtype) for name, value in inputs.items()} == {
        "node_features": ((4, 3), torch.float32),
        "edge_index": ((2, 3), torch.int64),
        "labels": ((4,), torch.int64),
        "train_mask": ((4,), torch.bool),
        "sensitive": ((4,), torch.int64),
    }


def build_data() -> Data:
    return Data(x=torch.tensor(FEATURES), edge_index=torch.tensor(GRAPH["edge_index"]))


def build_networkx() -> nx.DiGraph:
    graph = nx.DiGraph()
    graph.add_nodes_from((node, {"x": features}) for node, features in enumerate(FEATURES))
    graph.add_edges_from(zip(*GRAPH["edge_index"], strict=True))
    return graph


ROW = {
    "node_features": FEATURES,
    "edge_index": [[0, 1], [1, 2], [2, 3]],
    "sensitive": [0, 1, 1, 0],
    "train_mask": [[True, False, True, False]],
}


@pytest.mark.parametrize("graph", [build_data(), build_networkx(), ROW], ids=["torch-geometric", "networkx", "row"])
def test_forms_of_a_graph_agree(graph):
    inputs = ReliantFeatureExtractor()(graph, return_tensors="pt")

    assert torch.equal(inputs["node_features"], torch.tensor(FEATURES))
    assert sorted(inputs["edge_index"].t().tolist()) == [[0, 1], [1, 2], [2, 3]]
    assert ("sensitive" in inputs) == (graph is ROW)


def test_list_of_graphs_is_a_disjoint_union():
    inputs = ReliantFeatureExtractor()([GRAPH, GRAPH], return_tensors="pt")

    assert inputs["num_nodes_per_graph"].tolist() == [4, 4]
    assert inputs["edge_index"].tolist() == [[0, 1, 2, 4, 5, 6], [1, 2, 3, 5, 6, 7]]
    assert inputs["sensitive"].tolist() == [0, 1, 1, 0] * 2


@pytest.mark.parametrize("column", ["age", 1], ids=["name", "number"])
def test_sensitive_column_is_read_before_it_is_scaled(column):
    extractor = ReliantFeatureExtractor(
        normalize_features="row_l1", sensitive_column=column, sensitive_values=[[0], [1, 2]]
    )

    inputs = extractor(GRAPH)

    assert inputs["sensitive"].tolist() == [0, 1, 1, 0]
    assert inputs["node_features"].shape == (4, 3)


def test_names_of_columns_may_belong_to_the_extractor():
    graph = {name: GRAPH[name] for name in ("node_features", "edge_index")}
    extractor = ReliantFeatureExtractor(
        sensitive_column="age", sensitive_values=[[0], [1, 2]], feature_names=GRAPH["feature_names"]
    )

    assert extractor(graph)["sensitive"].tolist() == [0, 1, 1, 0]


def test_single_values_may_stand_without_a_list():
    extractor = ReliantFeatureExtractor(sensitive_values=[5, 3])

    assert extractor({**GRAPH, "sensitive": [3, 5, 5, 3]})["sensitive"].tolist() == [1, 0, 0, 1]


@pytest.mark.parametrize("dtype", ["column", "attribute"])
def test_threshold_of_a_continuous_attribute(dtype, tmp_path):
    column = {"sensitive_column": "debt"} if dtype == "column" else {}
    ReliantFeatureExtractor(sensitive_threshold=2.0, **column).save_pretrained(tmp_path)
    extractor = ReliantFeatureExtractor.from_pretrained(tmp_path)

    inputs = extractor({**GRAPH, "sensitive": [1.5, 2.0, 3.7, 0.1]})

    assert inputs["sensitive"].tolist() == [0, 1, 1, 0]


def test_rows_are_scaled_to_a_sum_of_one_and_zeros_stay():
    features = ReliantFeatureExtractor(normalize_features="row_l1")(GRAPH)["node_features"]

    np.testing.assert_allclose(features, [[0.25, 0, -0.75], [0.25, 0.125, 0.625], [4 / 6, 2 / 6, 0], [0, 0, 0]], ATOL)


def test_statistics_come_from_the_nodes_asked_for_and_are_saved(tmp_path):
    extractor = ReliantFeatureExtractor(normalize_features="standardize")
    graph = {**GRAPH, "node_features": np.array(FEATURES) * [1, 1, 0] + [0, 0, 7]}  # the last column is constant

    extractor.fit(graph, nodes=np.array(GRAPH["train_mask"])).save_pretrained(tmp_path)
    loaded = ReliantFeatureExtractor.from_pretrained(tmp_path)
    features = loaded(graph)["node_features"]

    assert loaded.feature_means == [2.5, 1.0, 7.0]
    assert loaded.feature_scales == [1.5, 1.0, 1.0]
    np.testing.assert_allclose(features[1], [-1 / 3, 0, 0], atol=ATOL)
    assert features.dtype == np.float32


def test_auto_class_finds_the_extractor(tmp_path):
    ReliantFeatureExtractor(sensitive_column="age").save_pretrained(tmp_path)

    loaded = AutoFeatureExtractor.from_pretrained(tmp_path)

    assert type(loaded) is ReliantFeatureExtractor
    assert loaded.sensitive_column == "age"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"normalize_features": "l2"}, r"`normalize_features` must be one of \['none', .*; got 'l2'"),
        ({"feature_means": [1.0]}, "`feature_means` and `feature_scales` must be given together"),
        ({"feature_means": [1.0], "feature_scales": [1.0, 2.0]}, "`feature_scales` must have 1 entries.*; got 2"),
        ({"feature_means": [1.0], "feature_scales": [0.0]}, "`feature_scales` must be above 0"),
        ({"sensitive_values": [0, 1], "sensitive_threshold": 2.0}, "`sensitive_threshold` must be a finite number"),
        ({"sensitive_values": [0, 1, 2]}, "`sensitive_values` must have two entries; got 3"),
    ],
    ids=["normalization", "half-statistics", "lengths", "zero-scale", "two-ways", "three-groups"],
)
def test_refuses_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        ReliantFeatureExtractor(**arguments)


BAD_GRAPHS = {
    "three-groups": ({}, {"sensitive": [0, 1, 2, 2]}, r"values \[0\] \(group 0\) and \[1\] .*; got 2, and 2 such"),
    "value-between": ({"sensitive_values": [[0.5], [1]]}, {"sensitive": [0, 1, 1, 1]}, "got 0, and 1 such values"),
    "continuous": ({"sensitive_column": "debt"}, {}, "got 2, and 2 such values in all.*`sensitive_values`"),
    "column-name": ({"sensitive_column": "race"}, {}, r"`sensitive_column` must be one of \['debt', .*; got 'race'"),
    "column-number": ({"sensitive_column": 3}, {}, r"`sensitive_column` must lie in \[0, 3\); got 3"),
    "no-names": ({"sensitive_column": "age"}, {"feature_names": None}, "`feature_names` must name all 3 columns"),
    "width": ({"num_features": 4}, {}, "`node_features` must have 4 columns, .*; got 3"),
    "no-statistics": ({"normalize_features": "standardize"}, {}, "`feature_means` must be known .* Call `fit` first"),
    "other-statistics": (
        {"normalize_features": "standardize", "feature_means": [0.0], "feature_scales": [1.0]},
        {},
        "`node_features` must have 1 columns, as the statistics have; got 3",
    ),
    "nan": (
        {},
        {"node_features": [[np.nan] * 3] * 4},
        "`node_features` must be finite; got nan in column 0 of node 0",
    ),
    "edge-range": ({}, {"edge_index": [[0], [4]]}, r"node ids in \[0, 4\); got 4"),
}


@pytest.mark.parametrize(("arguments", "changes", "message"), BAD_GRAPHS.values(), ids=BAD_GRAPHS)
def test_refuses_graphs(arguments, changes, message):
    with pytest.raises(ValueError, match=message):
        ReliantFeatureExtractor(**arguments)({**GRAPH, **changes})


def test_refuses_a_mask_that_chooses_no_node():
    with pytest.raises(ValueError, match=r"`nodes` must be a mask of shape \(4,\) that chooses one node at least"):
        ReliantFeatureExtractor().fit(GRAPH, nodes=np.zeros(4, dtype=bool))
