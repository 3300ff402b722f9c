"""Graphs from tables: edges against the definition written out, published edge counts and splits, what is refused."""

import math
import random

import numpy as np
import pandas as pd
import pytest

from decahub.data import load_dataset
from decahub.data.node_classification import build_graph_dataset, select_split
from decahub.data.similarity_graph import build_similarity_edges, build_similarity_graph, stratified_split


# Columns that the published rule scales before it compares rows; see the data's README.
GERMAN_SCALE = dict.fromkeys(("LoanAmount", "Age", "LoanDuration"), "range")
CREDIT_SCALE = dict.fromkeys(
    (
        "MaxBillAmountOverLast6Months",
        "MaxPaymentAmountOverLast6Months",
        "MostRecentBillAmount",
        "MostRecentPaymentAmount",
        "TotalMonthsOverdue",
    ),
    "standard",
)


def build_by_definition(features, threshold):
    """All pairs in plain Python."""
    rows = np.asarray(features, dtype=np.float64).tolist()
    edges = set()
    for i, row in enumerate(rows):
        similarities = {
            j: 1 / (math.sqrt(sum((a - b) ** 2 for a, b in zip(row, other, strict=True))) + 1)
            for j, other in enumerate(rows)
            if j != i
        }
        largest = max(similarities.values())
        for j, similarity in similarities.items():
            if similarity > threshold * largest:
                edges |= {(i, j), (j, i)}
    return sorted(edges)


@pytest.mark.parametrize("method", ["kd_tree", "chunked"])
@pytest.mark.parametrize("threshold", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("kind", ["continuous", "integer", "clusters"])
def test_edges_are_those_of_the_definition(kind, threshold, method):
    generator = np.random.default_rng(1)
    features = {
        "continuous": generator.normal(size=(60, 4)),
        "integer": generator.integers(0, 3, (60, 3)),  # many equal rows and equal distances
        "clusters": generator.normal(size=(60, 2)) * 0.01 + generator.integers(0, 4, (60, 1)) * 100,
    }[kind]

    edges = build_similarity_edges(features, threshold, method=method)

    assert edges.dtype == np.int64
    assert list(map(tuple, edges.T.tolist())) == build_by_definition(features, threshold)


@pytest.mark.parametrize("method", ["kd_tree", "chunked"])
def test_equality_with_the_threshold_is_no_edge(method):
    # Similarities: 1/2 between rows 0 and 1, 1/4 between 1 and 2, 1/5 between 0 and 2. Row 2 chooses row 1 always, and
    # row 1 is at half of its largest similarity with row 2; row 2 is at 4/5 of its largest with row 0.
    features = np.array([[0.0], [1.0], [4.0]])
    at_threshold, below = 0.2 / 0.25, math.nextafter(0.2 / 0.25, 0)

    assert [0, 2] not in build_similarity_edges(features, at_threshold, method=method).T.tolist()
    assert [0, 2] in build_similarity_edges(features, below, method=method).T.tolist()


def test_small_chunks_give_the_same_edges(monkeypatch):
    features = np.random.default_rng(0).normal(size=(50, 3))
    expected = build_similarity_edges(features, 0.7)
    monkeypatch.setattr("decahub.data.similarity_graph.CANDIDATES_PER_CHUNK", 7)

    for method in ("kd_tree", "chunked"):
        assert np.array_equal(build_similarity_edges(features, 0.7, method=method), expected)


@pytest.mark.parametrize(("num_nodes", "num_edges"), [(0, 0), (1, 0), (2, 2)])
def test_graphs_of_few_nodes(num_nodes, num_edges):
    features = np.arange(2.0 * num_nodes).reshape(num_nodes, 2)

    assert build_similarity_edges(features, 0.9).shape == (2, num_edges)


@pytest.mark.parametrize("method", ["kd_tree", "chunked"])
def test_constant_features_are_refused_before_memory_is_full(method):
    features = np.ones((3000, 3))

    with pytest.raises(
        ValueError, match=r"at most 100000 edges \(`max_edges`\); .* give (4498500 to|more than \d{6})"
    ):
        build_similarity_edges(features, 0.5, max_edges=100_000, method=method)
    assert build_similarity_edges(features[:30], 0.5, max_edges=435, method=method).shape == (2, 30 * 29)


def test_number_of_edges_is_named():
    with pytest.raises(ValueError, match="at most 434 edges .* would give 435"):
        build_similarity_edges(np.ones((30, 3)), 0.5, max_edges=434)


@pytest.mark.parametrize(
    ("features", "options", "message"),
    [
        (np.ones(3), {}, r"`features` must have shape \(num_nodes, num_features\); got \(3,\)"),
        (np.ones((3, 0)), {}, r"got \(3, 0\)"),
        (np.array([[1.0, 2], [3, math.nan]]), {}, "`features` must be finite; got nan in row 1, column 1"),
        (np.ones((3, 2)), {"threshold": 1.0}, r"`threshold` must be in \(0, 1\); got 1.0"),
        (np.ones((3, 2)), {"method": "fast"}, "`method` must be one of auto, kd_tree, chunked; got 'fast'"),
    ],
)
def test_refuses_features(features, options, message):
    with pytest.raises(ValueError, match=message):
        build_similarity_edges(features, **{"threshold": 0.5, **options})


TABLE = {
    "Age": [25, 30, 62, 61, 33],
    "Gender": ["Female", "Male", "Male", "Female", "Male"],
    "Job": ["a", "b", "a", "c", "b"],
    "Good": [1, -1, 1, 1, -1],
}
OPTIONS = {
    "label": "Good",
    "sensitive": "Gender",
    "threshold": 0.6,
    "drop": ["Job"],
    "mapping": {"Gender": {"Female": 1, "Male": 0}, "Good": {-1: 0, 1: 1}},
}


@pytest.mark.parametrize("kind", [dict, pd.DataFrame])
def test_graph_of_a_table(kind):
    codes = np.array([0, 0, 1, 2, 255], dtype=np.uint8)

    row = build_similarity_graph(kind(TABLE), **OPTIONS, scale={"Age": "range"}, splits=codes)

    age = np.array(TABLE["Age"])
    scaled = np.stack([2 * (age - 25) / (62 - 25) - 1, [1, 0, 0, 1, 0]], axis=1)
    assert row["feature_names"] == ["Age", "Gender"]
    assert row["node_features"].tolist() == [[25, 1], [30, 0], [62, 0], [61, 1], [33, 0]]
    assert list(map(tuple, row["edge_index"].tolist())) == build_by_definition(scaled, 0.6)
    assert row["labels"].tolist() == [1, 0, 1, 1, 0]
    assert row["sensitive"].tolist() == [1, 0, 0, 1, 0]
    selected = select_split(build_graph_dataset([row], ["bad", "good"]), "test/0")[0]
    assert selected["test_mask"].tolist() == [[False, False, False, True, False]]


def test_standard_scale():
    table = {**TABLE, "Age": [20.0, 30.0, 20.0, 30.0, 25.0]}
    deviation = math.sqrt(100 / 4)

    row = build_similarity_graph(table, **OPTIONS, scale={"Age": "standard"})

    scaled = [[(age - 25) / deviation, gender] for age, gender in zip(table["Age"], [1, 0, 0, 1, 0], strict=True)]
    assert list(map(tuple, row["edge_index"].tolist())) == build_by_definition(scaled, 0.6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sensitive": "Sex"}, "`table` must have the column 'Sex'; it has Age, Gender, Job, Good"),
        ({"drop": []}, "column 'Job' must hold numbers.*`mapping`, or name it in `drop`"),
        ({"mapping": {**OPTIONS["mapping"], "Gender": {"Female": 1}}}, "'Gender' must have all .* lacks Male"),
        (
            {"mapping": {"Gender": OPTIONS["mapping"]["Gender"]}},
            "column 'Good' must be numbered from 0 without a gap; got the values -1, 1",
        ),
        ({"scale": {"Age": "log"}}, "`scale` of column 'Age' must be one of range, standard; got 'log'"),
        ({"splits": np.zeros(4)}, "`splits` must have a code for each of the 5 nodes; got 4"),
    ],
)
def test_refuses_tables(changes, message):
    with pytest.raises(ValueError, match=message):
        build_similarity_graph(TABLE, **{**OPTIONS, **changes})


def test_stratified_split_as_defined():
    labels = np.random.default_rng(0).integers(0, 2, 41)
    labels[[3, 8]] = -100
    random.seed(5)
    expected = np.full(41, 255)
    for value in (0, 1):
        nodes = np.where(labels == value)[0]
        random.shuffle(nodes)
        half, three_quarters = int(0.5 * len(nodes)), int(0.75 * len(nodes))
        expected[nodes[: min(half, 4)]] = 0
        expected[nodes[half:three_quarters]] = 1
        expected[nodes[three_quarters:]] = 2

    assert stratified_split(labels, seed=5, max_train_per_class=4).tolist() == expected.tolist()


@pytest.mark.parametrize("fractions", [(0.5, 0.5), (-0.1, 0.5), (0.5, 0.2, 0.3)])
def test_refuses_fractions(fractions):
    with pytest.raises(ValueError, match="`fractions` must be those of training and validation"):
        stratified_split(np.zeros(9), fractions)


# Published graphs


@pytest.mark.parametrize(
    ("name", "split", "options"),
    [
        ("bail", "reliant", {"fractions": (0.3, 0.2)}),
        ("bail", "nifty", {"max_train_per_class": 500}),
        ("german", "reliant", {"seed": 0}),
        ("german", "nifty", {}),
        ("credit", "reliant", {"max_train_per_class": 500}),
        ("dblp_small_degrees", "reliant", {}),
    ],
)
def test_published_splits(data_dir, name, split, options):
    row = load_dataset(name, data_dir)["graph"][0]
    index = list(row["split_names"]).index(split)

    codes = stratified_split(row["labels"], **options)

    for code, part in enumerate(("train", "validation", "test")):
        assert np.array_equal(codes == code, row[f"{part}_mask"][index])


@pytest.mark.parametrize(
    ("name", "threshold", "scale", "num_edges"),
    [
        ("german", 0.8, GERMAN_SCALE, 21_742),
        ("bail", 0.6, {}, 311_870),
        pytest.param("credit", 0.7, CREDIT_SCALE, 1_635_712, marks=pytest.mark.slow),
    ],
)
def test_published_graphs(data_dir, name, threshold, scale, num_edges):
    published = load_dataset(name, data_dir)["graph"][0]
    names = [str(column) for column in published["feature_names"]]
    table = dict(zip(names, published["node_features"].T, strict=True)) | {"label": published["labels"]}
    sensitive = {"german": "Gender", "bail": "WHITE", "credit": "Age"}[name]

    row = build_similarity_graph(table, "label", sensitive, threshold, scale=scale)

    assert len(row["edge_index"]) == 2 * num_edges
    assert np.array_equal(row["edge_index"], published["edge_index"])
    assert np.array_equal(row["sensitive"], published["sensitive"])


def test_methods_agree_on_a_published_graph(data_dir):
    features = load_dataset("german", data_dir)["graph"][0]["node_features"]

    first, second = (build_similarity_edges(features, 0.8, method=method) for method in ("kd_tree", "chunked"))

    assert np.array_equal(first, second)
