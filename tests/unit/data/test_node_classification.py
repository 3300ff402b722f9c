"""Graphs: files to rows, splits of the nodes, tensors, scores of a graph, and one clear sentence for every error."""

import io
import zipfile

import datasets
import numpy as np
import pytest
import torch
from torch_geometric.utils import homophily

from decahub.data import load_dataset, select_split
from decahub.data.graph_files import encode_degrees, read_unlabeled_graph
from decahub.data.graph_statistics import clean_edges
from decahub.data.node_classification import (
    build_eval_transform,
    build_graph_dataset,
    build_graph_inputs,
    check_leakage,
    collate,
    compute_homophily,
    describe_graph,
    get_single_graph,
)
from decahub.models.raw_gnn.feature_extraction_raw_gnn import RawGnnFeatureExtractor
from decahub.models.reliant.feature_extraction_reliant import ReliantFeatureExtractor


FAMILY = "node-classification"
# Single precision of the library that is compared with.
HOMOPHILY_TOLERANCE = 1e-6

EDGES = np.array([[0, 1], [1, 0], [1, 2], [2, 1], [3, 4], [4, 3]])
CODES = np.array([[0, 0, 1, 2, 2, 255], [2, 2, 1, 0, 0, 0]], dtype=np.uint8)
FEATURES = np.array([[0, 1, 0], [1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 0, 1], [1, 0, 0]], dtype=np.float32)
LABELS = np.array([0, 1, 0, 1, 1, 0])
NO_VALUES = {"x": None, "x_indptr": np.zeros(7, int), "x_indices": np.zeros(0, int)}


def make_arrays(**changes):
    arrays = {"edge_index": EDGES.T.astype(np.int32), "y": LABELS.astype(np.int8), "x": FEATURES, "splits": CODES}
    return {name: value for name, value in {**arrays, **changes}.items() if value is not None}


def make_row(**changes):
    masks = {f"{part}_mask": code == CODES for code, part in enumerate(("train", "validation", "test"))}
    row = {"node_features": FEATURES, "edge_index": EDGES, "labels": LABELS, **masks}
    return {name: value for name, value in {**row, **changes}.items() if value is not None}


def extract(graph, return_tensors):
    """Stands in for a model's feature extractor."""
    assert return_tensors == "pt"
    return {name: torch.tensor(np.asarray(values)) for name, values in graph.items()}


def write_graph(folder, name="mine", **changes):
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / f"{name}.npz", **make_arrays(**changes))
    return folder


def load_own(folder):
    return load_dataset(folder, family=FAMILY)


def test_reads_a_file(tmp_path):
    row = load_own(write_graph(tmp_path, sens=np.array([0, 1, 1, 0, 0, 1], dtype=np.int8)))["graph"][0]

    assert row["node_features"].dtype == np.float32
    assert np.array_equal(row["node_features"], FEATURES)
    assert np.array_equal(row["edge_index"], EDGES)
    assert row["labels"].tolist() == LABELS.tolist()
    assert row["sensitive"].tolist() == [0, 1, 1, 0, 0, 1]
    assert np.array_equal(row["test_mask"], CODES == 2)
    assert list(row["split_names"]) == ["0", "1"]


def test_arrays_are_not_copied_to_lists(tmp_path):
    row = load_own(write_graph(tmp_path))["graph"][0]

    assert {type(row[name]) for name in ("node_features", "edge_index", "labels", "train_mask")} == {np.ndarray}


def test_sparse_features_become_dense(tmp_path):
    indices = np.nonzero(FEATURES)[1].astype(np.int16)
    indptr = np.concatenate([[0], np.cumsum(FEATURES.sum(1))]).astype(np.int32)
    sparse = {"x_indptr": indptr, "x_indices": indices, "x_shape": np.array(FEATURES.shape), "x": None}
    ones = load_own(write_graph(tmp_path / "ones", **sparse))["graph"][0]
    values = np.arange(1, len(indices) + 1, dtype=np.float32)
    weighted = load_own(write_graph(tmp_path / "weighted", x_data=values, **sparse))["graph"][0]

    assert np.array_equal(ones["node_features"], FEATURES)
    assert weighted["node_features"][FEATURES > 0].tolist() == values.tolist()


def test_one_row_for_each_file(tmp_path):
    write_graph(tmp_path, "second", x=FEATURES[:4], y=LABELS[:4], splits=CODES[:, :4], edge_index=EDGES[:4].T)
    loaded = load_own(write_graph(tmp_path, "first"))["graph"]

    assert [str(row["name"]) for row in loaded] == ["first", "second"]
    assert [row["node_features"].shape for row in loaded] == [(6, 3), (4, 3)]
    assert [row["train_mask"].shape for row in loaded] == [(2, 6), (2, 4)]


def test_named_splits_and_unlabeled_nodes(tmp_path):
    folder = write_graph(tmp_path, splits=CODES[0], split_other=CODES[1], unlabeled=np.array([2, 5]))
    row = load_own(folder)["graph"][0]

    assert list(row["split_names"]) == ["0", "other"]
    assert row["labels"].tolist() == [0, 1, -100, 1, 1, -100]


def test_masks_as_booleans(tmp_path):
    masks = {f"{part}_mask": CODES[0] == code for code, part in enumerate(("train", "validation", "test"))}
    row = load_own(write_graph(tmp_path, splits=None, **masks))["graph"][0]

    assert np.array_equal(row["validation_mask"], CODES[:1] == 1)


def test_graph_without_edges(tmp_path):
    row = load_own(write_graph(tmp_path, edge_index=np.zeros((2, 0), dtype=np.int64)))["graph"][0]

    assert row["edge_index"].shape == (0, 2)
    assert build_graph_inputs(row, extract)["edge_index"].shape == (2, 0)


def test_parquet_keeps_every_column(tmp_path):
    row = make_row(sensitive=LABELS[::-1].copy(), labels=np.where(LABELS == 1, -100, 0))
    build_graph_dataset([row], ["a", "b"]).to_parquet(tmp_path / "graph.parquet")

    loaded = load_own(tmp_path)["graph"]

    assert loaded.features["labels"].feature.names == ["a", "b"]
    assert {name: np.array_equal(loaded[0][name], value) for name, value in row.items()} == dict.fromkeys(row, True)


def test_graphs_from_the_hub(monkeypatch):
    published = build_graph_dataset([make_row()], ["a", "b"]).with_format(None)
    monkeypatch.setattr(datasets, "load_dataset", lambda name: datasets.DatasetDict(train=published))

    loaded = load_dataset("someone/graph", family=FAMILY)

    assert np.array_equal(loaded["train"][0]["node_features"], FEATURES)
    assert select_split(loaded, "test/0")[0]["split"] == 0


@pytest.mark.filterwarnings("error")  # torch warns of arrays that it must not write to
def test_row_passes_through_a_models_feature_extractor(tmp_path):
    row = load_own(write_graph(tmp_path, sens=LABELS[::-1].astype(np.int8)))["graph"][0]
    extractor = RawGnnFeatureExtractor(num_features=3)

    whole, inputs = extractor(row, return_tensors="pt", split=1), build_graph_inputs(row, extractor, split=1)

    assert [name for name in whole if not torch.equal(whole[name], inputs[name])] == []
    assert {"node_features", "edge_index", "labels", "sensitive"} <= set(whole)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"edge_index": EDGES.ravel()}, r"`edge_index` must have shape \(2, num_edges\) .*; got \(12,\)"),
        ({"y": LABELS + 1}, r"`labels` must be numbered from 0 without a gap; got 1, 2\. Number them anew"),
        ({"y": LABELS * 10}, r"without a gap; got 0, 10\..*`label_names`"),
        ({"splits": CODES.astype(str)}, r"`splits` must hold codes, 0 train, 1 validation, .* got <U3"),
        ({"splits": np.full_like(CODES, 7)}, "at least one node in each split; got none in split 0"),
        ({"label_names": np.array(["a"])}, r"class ids in \[0, 1\)"),
        (
            {
                "x": None,
                "x_shape": np.array([10**6, 10**6]),
                "x_indptr": np.zeros(10**6 + 1, int),
                "x_indices": np.zeros(0, int),
            },
            "`x` as a dense matrix must fit into memory, .* got 3725 GiB",
        ),
        (
            {"x": None, "x_shape": np.array([6, 3]), "x_indptr": np.zeros(7, int), "x_indices": np.ones(2, int)},
            "`x_indptr` and `x_indices` must be those of a matrix of shape",
        ),
        ({"edge_index": None}, "`edge_index` must be among the arrays; got y, x, splits"),
        ({"y": None}, "`labels` or `y` must be among the arrays"),
        ({"x": None}, "`node_features` or `x` must be among the arrays"),
        ({"splits": None}, "`train_mask` or `splits` must be among the arrays"),
        ({"splits": CODES[:, :5]}, r"masks in row 0 .*one shape \(num_splits, 6\)"),
        ({"x": FEATURES[:5]}, r"`labels` in row 0 .*must have shape \(5,\); got \(6,\)"),
        ({"edge_index": np.array([[0, 6], [1, 0]])}, r"node ids in \[0, 6\); got 0 to 6"),
        ({"edge_index": np.array([[0, -1], [1, 0]])}, r"node ids in \[0, 6\); got -1 to 1"),
        ({"y": np.array([0, 1, -1, 0, 1, 1])}, r"class ids in \[0, 2\) or -100.*got -1 at node 2"),
        ({"y": LABELS + 0.5}, "`labels` or `y` must hold whole numbers; got float64"),
        ({"sens": LABELS + 0.5}, "`sensitive` or `sens` must hold whole numbers; got float64"),
        ({"x": np.array([object()] * 6)}, "intact .npz file without pickled objects"),
        ({"sensitives": LABELS}, r"`sensitives` must be an array of a graph file \(.*Did you mean `sensitive`\?"),
        ({"edge_weight": np.arange(6)}, "`edge_weight` must be the same for all edges"),
        ({"train_mask": CODES == 0}, "`train_mask` and `splits` must not both be given"),
        (
            {"splits": None, "split_mine": CODES[0], "train_mask": CODES[0] == 0},
            "`train_mask` and `split_mine` must not both be given",
        ),
        ({"x": FEATURES, "node_features": FEATURES}, "`node_features` and `x` must not both be given"),
        ({"unlabeled": np.array([1, 9])}, r"`unlabeled` must hold node ids in \[0, 6\); got 9"),
        ({"unlabeled": np.array([-1])}, r"`unlabeled` must hold node ids in \[0, 6\); got -1"),
        ({"unlabeled": np.array([0.5])}, r"`unlabeled` must hold node ids in \[0, 6\); got 0\.5"),
        (
            {"x": None, "x_indptr": np.zeros(7, int), "x_indices": np.zeros(0, int)},
            "`x_shape` must be among the arrays",
        ),
        (
            {**NO_VALUES, "x_shape": np.array([6])},
            r"`x_shape` must be the numbers of nodes and of features; got \[6\]",
        ),
    ],
)
def test_refuses_bad_files(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        load_own(write_graph(tmp_path, **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"node_name": np.arange(6).astype(str)}, r"`node_name` must be .*Did you mean `node_names`\?"),
        ({"edge_weight": np.arange(6)}, "`edge_weight` must be the same for all edges"),
        (
            {"x": None, "x_indptr": np.zeros(7, int), "x_indices": np.zeros(0, int)},
            "`x_shape` must be among the arrays",
        ),
    ],
)
def test_refuses_bad_files_for_a_prediction(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        read_unlabeled_graph(write_graph(tmp_path, **changes) / "mine.npz")


def test_equal_weights_and_raw_arrays_are_left_out(tmp_path):
    folder = write_graph(tmp_path, edge_weight=np.ones(6), edge_index_raw=EDGES.T[:, :2])

    assert load_own(folder)["graph"].column_names == load_own(write_graph(tmp_path / "plain"))["graph"].column_names
    assert set(read_unlabeled_graph(folder / "mine.npz")) == {"node_features", "edge_index"}


def test_names_the_damaged_file(tmp_path):
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 no more")

    with pytest.raises(ValueError, match=r"broken\.npz` must be an intact \.npz file"):
        load_own(tmp_path)


def test_a_header_that_announces_more_than_the_file_holds_takes_no_memory(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**6, 10**6)})
    write_graph(tmp_path)
    with zipfile.ZipFile(tmp_path / "mine.npz", "a") as archive:
        archive.writestr("x2.npy", header.getvalue() + b"abcd")

    with pytest.raises(ValueError, match=r"`x2` in .* must hold the 4000000000000 bytes .* announces; got 4"):
        load_own(tmp_path)


def test_names_of_classes_stand_in_the_file(tmp_path):
    named = write_graph(tmp_path / "named", label_names=np.array(["denied", "granted"]))

    assert load_own(named)["graph"].features["labels"].feature.names == ["denied", "granted"]
    assert load_own(write_graph(tmp_path / "other"))["graph"].features["labels"].feature.names == ["0", "1"]


def test_edges_may_be_stored_in_either_orientation(tmp_path):
    row = load_own(write_graph(tmp_path, edge_index=EDGES))["graph"][0]

    assert np.array_equal(row["edge_index"], EDGES)


def test_edges_of_a_row_are_read_in_either_orientation():
    row = make_row(edge_index=np.array([[0, 1, 2], [3, 4, 5]]), train_mask=CODES[0] == 0)
    row |= {f"{part}_mask": code == CODES[0] for code, part in enumerate(("train", "validation", "test"))}

    dataset = build_graph_dataset([row], ["a", "b"])

    assert dataset[0]["edge_index"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert dataset[0]["train_mask"].shape == (1, 6)
    for inputs in (build_graph_inputs(row, extract), build_graph_inputs(dataset[0], extract)):
        assert inputs["edge_index"].tolist() == [[0, 1, 2], [3, 4, 5]]
        assert inputs["train_mask"].tolist() == (CODES[0] == 0).tolist()
    assert describe_graph(row)["num_edges"] == 3


def test_a_folder_without_graphs_is_told(tmp_path):
    (tmp_path / "graph.txt").write_text("0 1")

    with pytest.raises(FileNotFoundError, match="must hold graphs: .*npz`, or `nodes.csv` .* it holds graph.txt"):
        load_own(tmp_path)


def test_several_graphs_are_not_one(tmp_path):
    graphs = load_own(write_graph(write_graph(tmp_path, "other")))["graph"]

    with pytest.raises(ValueError, match="'mine' must hold one graph to train on; got 2"):
        get_single_graph(graphs, "mine")
    assert get_single_graph(graphs.select([0]), "mine")["labels"].tolist() == LABELS.tolist()


def test_refuses_graphs_of_two_widths(tmp_path):
    write_graph(tmp_path, "wide", x=np.ones((6, 4), dtype=np.float32))

    with pytest.raises(ValueError, match=r"`node_features` of all graphs must have one width; got \[3, 4\]"):
        load_own(write_graph(tmp_path))


@pytest.mark.parametrize(
    ("mask", "pair"), [("validation", "`train_mask` and `validation_mask`"), ("test", "`train_mask` and `test_mask`")]
)
def test_refuses_overlapping_masks(tmp_path, mask, pair):
    masks = {f"{part}_mask": code == CODES for code, part in enumerate(("train", "validation", "test"))}
    masks[f"{mask}_mask"] = masks[f"{mask}_mask"] | (np.arange(6) == 4)

    with pytest.raises(ValueError, match=rf"{pair} in row 0 .*1 common nodes in split 1 \(ids 4\)"):
        load_own(write_graph(tmp_path, splits=None, **masks))


@pytest.mark.parametrize(
    ("name", "split", "part"), [("test/1", 1, "test"), ("validation/other", 1, "validation"), ("train/0", 0, "train")]
)
def test_select_split(name, split, part):
    row = make_row(split_names=["0", "other"])
    dataset = build_graph_dataset([row, row], ["a", "b"])
    selected = select_split(select_split(dataset, "test/0"), name)

    chosen = [select_split(row, name), *selected, select_split(datasets.DatasetDict(graph=dataset), name)[0]]
    assert [(item["split"], item["measured_part"]) for item in chosen] == [(split, part)] * 4
    assert type(selected[0]["node_features"]) is np.ndarray


def test_the_only_split_needs_no_number():
    row = make_row(**{f"{part}_mask": CODES[:1] == code for code, part in enumerate(("train", "validation", "test"))})

    assert select_split(row, "test")["split"] == 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("test", "the split must be one of 0, 1; got ''"),
        ("test/2", "the split must be one of 0, 1; got '2'"),
        ("tests/0", "begin with one of train, validation, test; got 'tests/0'"),
    ],
)
def test_select_split_refuses(name, message):
    with pytest.raises(ValueError, match=message):
        select_split(make_row(), name)


def test_inputs_of_a_split():
    row = make_row(sensitive=LABELS[::-1].copy(), labels=np.where(LABELS == 1, -100, 0))

    inputs = build_graph_inputs(row, extract, split=1)

    assert inputs["edge_index"].tolist() == EDGES.T.tolist()
    assert {name: (value.dtype, tuple(value.shape)) for name, value in inputs.items()} == {
        "node_features": (torch.float32, (6, 3)),
        "edge_index": (torch.int64, (2, 6)),
        "labels": (torch.int64, (6,)),
        "train_mask": (torch.bool, (6,)),
        "validation_mask": (torch.bool, (6,)),
        "test_mask": (torch.bool, (6,)),
        "sensitive": (torch.int64, (6,)),
    }
    assert inputs["train_mask"].tolist() == (CODES[1] == 0).tolist()
    assert build_graph_inputs(select_split(row, "test/1"), extract)["train_mask"].equal(inputs["train_mask"])


@pytest.mark.parametrize(
    ("options", "changes"),
    [
        ({"sensitive_column": "age"}, {"feature_names": ["debt", "age", "sex"]}),
        ({"sensitive_values": [[5, 7], [3]]}, {"sensitive": np.array([3, 5, 7, 3, 5, 7])}),
    ],
    ids=["column", "mapping"],
)
def test_groups_are_those_of_the_feature_extractor(options, changes):
    inputs = build_graph_inputs(make_row(**changes), ReliantFeatureExtractor(**options))

    assert inputs["sensitive"].tolist() == [1, 0, 0, 1, 0, 0]


def test_two_edges_are_not_transposed_twice():
    row = make_row(edge_index=np.array([[0, 1], [2, 3]]))

    assert build_graph_inputs(row, extract)["edge_index"].tolist() == [[0, 2], [1, 3]]


def test_training_on_test_nodes_is_refused_unless_asked_for():
    row = make_row(train_mask=CODES < 3)

    with pytest.raises(ValueError, match=r"`train_mask` must not use held-out nodes; got 1 of the 1 .*\(ids 2\)"):
        build_graph_inputs(row, extract)
    inputs = build_graph_inputs(row, extract, allow_test_nodes_in_training=True)
    assert inputs["train_mask"].sum() == 5


def test_check_leakage():
    used = np.ones(20, dtype=bool)
    held_out = np.arange(20) >= 8

    with pytest.raises(
        ValueError, match=r"the fairness term must not .*12 of the 12 .*\(ids 8, 9, 10, 11, 12, \.\.\."
    ):
        check_leakage(used, torch.tensor(held_out), "the fairness term")
    with pytest.raises(ValueError, match=r"one shape; got \(20,\) and \(8,\)"):
        check_leakage(used, held_out[:8], "the fairness term")
    check_leakage(used, held_out, "the fairness term", allow=True)
    check_leakage(~held_out, held_out, "the fairness term")


def test_evaluation_measures_the_selected_nodes():
    transform = build_eval_transform(extract)

    batch = collate([transform(select_split(make_row(), "validation/0"))])

    assert batch["evaluation_mask"].tolist() == (CODES[0] == 1).tolist()
    with pytest.raises(ValueError, match="chosen first.*select_split"):
        transform(make_row())
    with pytest.raises(ValueError, match="one graph; got 2"):
        collate([{}, {}])


def test_degrees_as_features():
    star = np.array([[0] * 5 + list(range(1, 6)), list(range(1, 6)) + [0] * 5])

    assert encode_degrees(star, 7).argmax(1).tolist() == [3, 1, 1, 1, 1, 1, 0]
    assert encode_degrees(np.zeros((2, 2**17), dtype=np.int64), 1).argmax() == 15


@pytest.fixture(params=range(3))
def random_graph(request):
    generator = np.random.default_rng(request.param)
    return clean_edges(generator.integers(0, 30, (70, 2)), 31), generator.integers(0, 4, 31)  # node 30 is isolated


def test_homophily_as_in_torch_geometric(random_graph):
    edges, labels = random_graph
    scores = compute_homophily(edges, labels)

    for name in ("edge", "node"):
        expected = homophily(torch.tensor(edges.T), torch.tensor(labels), method=name)
        assert scores[f"{name}_homophily"] == pytest.approx(expected, abs=HOMOPHILY_TOLERANCE)


def test_adjusted_homophily_as_defined(random_graph):
    edges, labels = random_graph
    ends = [0] * 4
    for source, _ in edges.tolist():
        ends[labels[source]] += 1
    by_chance = sum((count / len(edges)) ** 2 for count in ends)
    agreeing = sum(labels[source] == labels[target] for source, target in edges) / len(edges)

    adjusted = compute_homophily(edges, labels)["adjusted_homophily"]

    assert adjusted == pytest.approx((agreeing - by_chance) / (1 - by_chance))


def test_homophily_leaves_unlabeled_nodes_out():
    labels = np.array([0, 0, -100, 1, 1, -100])

    assert compute_homophily(EDGES, labels)["edge_homophily"] == 1
    assert compute_homophily(EDGES, labels)["node_homophily"] == 1
    assert compute_homophily(EDGES, np.full(6, -100)) == {}
    assert "adjusted_homophily" not in compute_homophily(EDGES, np.zeros(6, dtype=int))


def test_clean_edges():
    edges = np.array([[2, 1], [1, 1], [1, 2], [2, 1], [0, 2]])

    assert clean_edges(edges, 3).tolist() == [[0, 2], [1, 2], [2, 0], [2, 1]]


def test_describe_graph():
    edges = np.concatenate([EDGES[::2], [[3, 3], [0, 1]]])  # one direction, a self-loop and a repetition

    scores = describe_graph(make_row(edge_index=edges, sensitive=np.array([0, 0, 0, 1, 1, 1])), ["no", "yes"])

    assert scores == {
        "num_nodes": 6,
        "num_features": 3,
        "num_classes": 2,
        "num_edges": 3,
        "num_self_loops": 1,
        "num_isolated_nodes": 1,
        "num_unlabeled_nodes": 0,
        "mean_degree": 1,
        "median_degree": 1,
        "max_degree": 2,
        "edge_homophily": pytest.approx(1 / 3),
        "node_homophily": pytest.approx(1 / 3),
        "adjusted_homophily": pytest.approx((1 / 3 - 5 / 9) / (4 / 9)),
        "label_rates": {"no": 0.5, "yes": 0.5},
        "sensitive_rates": {0: 0.5, 1: 0.5},
        "label_rates_by_group": {
            0: {"no": pytest.approx(2 / 3), "yes": pytest.approx(1 / 3)},
            1: {"no": pytest.approx(1 / 3), "yes": pytest.approx(2 / 3)},
        },
        "mean_degree_by_group": {0: pytest.approx(4 / 3), 1: pytest.approx(2 / 3)},
        "sensitive_edge_homophily": 1,
        "label_rate_gap": pytest.approx(1 / 3),
    }
