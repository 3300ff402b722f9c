"""Graphs as tables and in every other form: written to a folder, and read back."""

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from torch_geometric.data import Data

from decahub.data import build_similarity_graph, load_dataset, save_graph, stratified_split
from decahub.data.graph_files import read_unlabeled_graph


NODES = """node,income,age,label,split,sensitive
ann,1.5,30,yes,train,1
bob,-2,41,no,validation,0
cy,0,25,,,1
dora,3,60,yes,test,0
"""
EDGES = "source,target\nann,bob\nbob,cy\ndora,ann\n"


def write_tables(folder, nodes=NODES, edges=EDGES):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "nodes.csv").write_text(nodes)
    (folder / "edges.csv").write_text(edges)
    return folder


def load(folder):
    graphs = load_dataset(folder, family="node-classification")["graph"]
    return graphs[0], graphs.features["labels"].feature.names


def check_people(row, names):
    assert row["node_features"].tolist() == [[1.5, 30], [-2, 41], [0, 25], [3, 60]]
    assert row["edge_index"].tolist() == [[0, 1], [1, 2], [3, 0]]
    assert row["labels"].tolist() == [1, 0, -100, 1]
    assert list(names) == ["no", "yes"]
    assert row["sensitive"].tolist() == [1, 0, 1, 0]
    assert [row[f"{part}_mask"][0].tolist().index(True) for part in ("train", "validation", "test")] == [0, 1, 3]
    assert list(row["node_names"]) == ["ann", "bob", "cy", "dora"]
    assert list(row["feature_names"]) == ["income", "age"]


def test_tables_in_files_are_a_graph(tmp_path):
    check_people(*load(write_tables(tmp_path)))
    assert read_unlabeled_graph(tmp_path / "nodes.csv")["node_names"].tolist() == ["ann", "bob", "cy", "dora"]


def test_data_frames_are_written(tmp_path):
    tables = write_tables(tmp_path / "tables")

    save_graph(tmp_path / "mine", (pd.read_csv(tables / "nodes.csv"), pd.read_csv(tables / "edges.csv")))

    check_people(*load(tmp_path / "mine"))


def test_nodes_without_names_are_numbered(tmp_path):
    nodes = "x,label,split_a,split_b\n1,0,train,test\n2,1,val,train\n3,1,test,val\n"

    row, names = load(write_tables(tmp_path, nodes, "source,target\n0,2\n"))

    assert row["edge_index"].tolist() == [[0, 2]]
    assert list(row["split_names"]) == ["a", "b"]
    assert row["test_mask"].tolist() == [[False, False, True], [True, False, False]]
    assert names == ["0", "1"]
    assert "node_names" not in row


def test_names_stay_as_the_tables_write_them(tmp_path):
    nodes = NODES.replace("ann", "001").replace("bob", "1").replace("cy", "NA").replace("dora", "2.0")

    row, _ = load(write_tables(tmp_path, nodes, "source,target\n001, 1\n1,NA\n2.0 ,001\n"))

    assert list(row["node_names"]) == ["001", "1", "NA", "2.0"]
    assert row["edge_index"].tolist() == [[0, 1], [1, 2], [3, 0]]


def test_names_that_number_the_nodes_are_none(tmp_path):
    nodes = NODES.replace("ann", "0").replace("bob", "1").replace("cy", "2").replace("dora", "3")

    row, _ = load(write_tables(tmp_path, nodes, "source,target\n0,1\n1,2\n3,0\n"))

    assert "node_names" not in row
    assert row["edge_index"].tolist() == [[0, 1], [1, 2], [3, 0]]


@pytest.mark.parametrize(
    ("nodes", "edges", "message"),
    [
        (NODES, "from,to\nann,bob\n", "edges must have the column 'source'; it has from, to"),
        (NODES, "source,target\nann,eve\n", "'target' in the table of edges must be a node; got 'eve' in line 2"),
        (
            NODES.replace("cy", "nan"),
            EDGES.replace("cy", ""),
            "'target' in the table of edges must be a node; got nan",
        ),
        (NODES.replace("bob", ""), EDGES, "'node' must hold a name in each line; got none in line 3"),
        (NODES.replace("bob", "ann"), EDGES, "'node' must hold different names; got 'ann' twice"),
        (NODES.replace("41", "old"), EDGES, "'age' of the nodes must hold finite numbers; got old"),
        (NODES.replace("41", ""), EDGES, "'age' of the nodes must hold finite numbers; got nan.*fill missing values"),
        (NODES.replace(",", ";"), EDGES, "nodes.csv must separate its columns by commas; got 'node;income"),
        (NODES, "source,target,weight\nann,bob,1\nbob,cy,2\n", "got 'weight', which no model reads"),
        (NODES.replace("validation", "dev"), EDGES, "'split' must be one of train, .* or empty; got dev"),
        ("node,label\nann,1\n", "source,target\nann,ann\n", "at least one column of features"),
        ("x\n1\n2\n", "source,target\n0,1,5\n", "edges.csv must have 2 values in each line, .*; got 3 in line 2"),
        ("x,label\n1,0,\n2,1,\n", "source,target\n0,1\n", "nodes.csv must have 2 values .*; got 3 in line 2"),
        ("x,label\n1,0\n\n2\n", "source,target\n0,1\n", "nodes.csv must have 2 values .*; got 1 in line 4"),
        (",x\n0,1\n1,2\n", "source,target\n0,1\n", "each column of the nodes must have a name; got one without"),
        ("", EDGES, "nodes.csv must begin with the names of its columns; it is empty"),
    ],
)
def test_refuses_tables(tmp_path, nodes, edges, message):
    with pytest.raises(ValueError, match=message):
        load(write_tables(tmp_path, nodes, edges))


def test_a_table_of_edges_must_be_there(tmp_path):
    (write_tables(tmp_path) / "edges.csv").unlink()

    with pytest.raises(FileNotFoundError, match=r"edges\.csv` must be the table of the edges"):
        load(tmp_path)


def test_refuses_graphs_in_two_forms(tmp_path):
    tables = write_tables(tmp_path)
    save_graph(tables, (pd.read_csv(tables / "nodes.csv"), pd.read_csv(tables / "edges.csv")))

    with pytest.raises(ValueError, match=r"as `\.npz` or as tables, not both; got graph\.npz and nodes\.csv\. Move"):
        load(tables)


FEATURES, PAIRS, LABELS = [[1.0, 0.0], [0.0, 0.0], [2.0, 3.0], [0.0, 1.0]], [[0, 1, 2], [1, 2, 3]], [0, 1, 1, 0]
MASKS = {"train_mask": [True, True, False, False], "val_mask": [False, False, True, False]}
TEN = torch.eye(4, dtype=torch.bool).repeat(3, 1)[:10].T  # (4, 10), as torch-geometric stores ten splits


def build_networkx():
    graph = nx.DiGraph()
    for node in range(4):
        masks = {name: mask[node] for name, mask in MASKS.items()}
        graph.add_node(node, x=FEATURES[node], y=LABELS[node], **masks)
    graph.add_edges_from(zip(*PAIRS, strict=True))
    return graph


TENSORS = {"x": torch.tensor(FEATURES), "edge_index": torch.tensor(PAIRS), "y": torch.tensor(LABELS)}
FORMS = {
    "torch-geometric": lambda: Data(**TENSORS, **{name: torch.tensor(mask) for name, mask in MASKS.items()}),
    "networkx": build_networkx,
    "mapping": lambda: {**TENSORS, **MASKS},
    "sparse": lambda: {**TENSORS, **MASKS, "x": scipy.sparse.csr_array(FEATURES)},
}


@pytest.mark.parametrize("build", FORMS.values(), ids=FORMS)
def test_graphs_are_read_back(build, tmp_path):
    save_graph(tmp_path, build(), label_names=["a", "b"])

    row, names = load(tmp_path)

    assert row["node_features"].tolist() == FEATURES
    assert row["edge_index"].T.tolist() == PAIRS
    assert (row["labels"].tolist(), names) == (LABELS, ["a", "b"])
    assert row["train_mask"].tolist() == [MASKS["train_mask"]]
    assert row["validation_mask"].tolist() == [MASKS["val_mask"]]
    assert not row["test_mask"].any()


def test_several_splits_of_torch_geometric_are_kept(tmp_path):
    masks = {"train_mask": TEN, "val_mask": TEN.roll(1, 0), "test_mask": TEN.roll(2, 0)}
    save_graph(tmp_path / "data", Data(**TENSORS, **masks))
    row, _ = load(tmp_path / "data")
    save_graph(tmp_path / "again", row)

    assert row["train_mask"].tolist() == TEN.T.tolist()
    assert load(tmp_path / "again")[0]["test_mask"].tolist() == TEN.T.roll(2, 1).tolist()


def test_splits_stand_in_for_masks(tmp_path):
    save_graph(tmp_path, {**TENSORS, **MASKS}, splits=[2, 2, 1, 0])

    row, _ = load(tmp_path)

    assert row["train_mask"].tolist() == [[False, False, False, True]]
    assert row["test_mask"].tolist() == [[True, True, False, False]]


def test_a_similarity_graph_is_read_back(tmp_path):
    values = np.random.default_rng(0).random((2, 40))
    table = {"a": values[0], "b": values[1], "group": np.arange(40) % 2, "paid": np.arange(40) // 20}
    graph = build_similarity_graph(table, "paid", "group", 0.8, splits=stratified_split(table["paid"]))

    save_graph(tmp_path, graph)
    row, _ = load(tmp_path)

    assert np.array_equal(row["edge_index"], graph["edge_index"])
    assert np.array_equal(row["test_mask"], graph["test_mask"])
    assert row["sensitive"].tolist() == graph["sensitive"].tolist()
    assert list(row["feature_names"]) == ["a", "b", "group"]


def test_labels_need_a_split(tmp_path):
    with pytest.raises(ValueError, match="`splits` must be given for a graph with labels and without masks"):
        save_graph(tmp_path, TENSORS)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"splits": [0, 1, 2]}, r"a code for each of the 2 nodes; got shape \(3,\)"),
        ({"splits": [0, 7]}, r"must hold 0 \(train\), .* or 255 \(none\); got 7"),
        ({"splits": [0, 2], "label_names": ["no"]}, "`label_names` must name 2 classes; got no"),
    ],
    ids=["too many", "unknown code", "too few names"],
)
def test_splits_and_names_that_do_not_fit_are_not_saved(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        save_graph(tmp_path, {"x": [[1.0], [2.0]], "edge_index": [[0], [1]], "y": [0, 1]}, **options)

    assert list(tmp_path.iterdir()) == []
