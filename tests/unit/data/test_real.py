"""The catalog against the files it describes; needs `DECAHUB_DATA_DIR`."""

import numpy as np
import pytest

from decahub.data import DATASETS, IGNORE_INDEX, describe_graph, load_dataset


def test_cifar10_is_the_described_one(data_dir):
    loaded = load_dataset("cifar10", data_dir)

    assert {split: len(rows) for split, rows in loaded.items()} == {"train": 50_000, "test": 10_000}
    assert loaded["train"][:10]["label"] == [1, 1, 6, 0, 4, 7, 2, 8, 0, 1]  # check values of the data's README
    assert tuple(loaded["train"].features["label"].names) == DATASETS["cifar10"].label_names


@pytest.mark.parametrize("name", ["fashion_mnist", "sign_digits"])
def test_catalog_names_the_classes_of_the_files(data_dir, name):
    loaded = load_dataset(name, data_dir)

    assert {tuple(rows.features["label"].names) for rows in loaded.values()} == {DATASETS[name].label_names}


def test_camvid_has_eleven_classes_and_ignored_pixels(data_dir):
    loaded = load_dataset("camvid", data_dir)

    values = set(np.unique([np.array(row["annotation"]) for row in loaded["validation"]]).tolist())
    assert values == {*range(len(DATASETS["camvid"].label_names)), IGNORE_INDEX}


# name: nodes, features, classes, undirected edges, edge homophily, isolated nodes: the table of the data's README
GRAPHS = {
    "cora": (2708, 1433, 7, 5278, 0.810, 0),
    "citeseer": (3327, 3703, 6, 4552, 0.736, 48),
    "texas": (183, 1703, 5, 279, 0.061, 0),
    "wisconsin": (251, 1703, 5, 450, 0.178, 0),
    "cornell": (183, 1703, 5, 277, 0.123, 0),
    "actor": (7600, 932, 5, 26659, 0.217, 0),
    "chameleon": (2277, 2325, 5, 31371, 0.230, 0),
    "squirrel": (5201, 2089, 5, 198353, 0.222, 0),
    "chameleon_filtered": (890, 2325, 5, 8854, 0.236, 0),
    "squirrel_filtered": (2223, 2089, 5, 46998, 0.207, 0),
    "minesweeper": (10000, 7, 2, 39402, 0.683, 0),
    "tolokers": (11758, 10, 2, 519000, 0.595, 0),
    "bail": (18876, 18, 2, 311870, 0.775, 0),
    "german": (1000, 27, 2, 21742, 0.587, 0),
    "credit": (30000, 13, 2, 1635712, 0.734, 0),
    "dblp_small_degrees": (39424, 16, 2, 52460, 0.922, 9014),
}
# name: rate of label 1, rate of group 1, gap of the label's rate, edge homophily of the groups
FAIRNESS_GRAPHS = {
    "bail": (0.376, 0.506, 0.075, 0.522),
    "german": (0.700, 0.310, 0.075, 0.805),
    "credit": (0.779, 0.089, 0.056, 0.933),
    "dblp_small_degrees": (0.197, 0.190, None, 0.920),
}
ROUNDED = 0.00051  # the README gives three digits


def test_every_graph_of_the_catalog_is_checked():
    assert set(GRAPHS) == {name for name, entry in DATASETS.items() if entry.family == "node-classification"}


@pytest.mark.parametrize("name", GRAPHS)
def test_graph_is_the_described_one(data_dir, name):
    loaded = load_dataset(name, data_dir)["graph"]
    row = dict(loaded[0])
    row["labels"] = np.maximum(row["labels"], 0)  # Citeseer's table counts nodes without a label as class 0
    scores = describe_graph(row, list(DATASETS[name].label_names))

    num_nodes, num_features, num_classes, num_edges, homophily, num_isolated = GRAPHS[name]
    assert (scores["num_nodes"], scores["num_features"]) == (num_nodes, num_features)
    assert loaded.features["labels"].feature.num_classes == num_classes == len(np.unique(row["labels"]))
    assert (scores["num_edges"], scores["num_isolated_nodes"]) == (num_edges, num_isolated)
    assert scores["edge_homophily"] == pytest.approx(homophily, abs=ROUNDED)
    assert tuple(row["split_names"]) == DATASETS[name].split_names


@pytest.mark.parametrize("name", FAIRNESS_GRAPHS)
def test_groups_are_the_described_ones(data_dir, name):
    names = list(DATASETS[name].label_names)
    scores = describe_graph(load_dataset(name, data_dir)["graph"][0], names)

    label_rate, group_rate, gap, homophily = FAIRNESS_GRAPHS[name]
    assert scores["label_rates"][names[1]] == pytest.approx(label_rate, abs=ROUNDED)
    assert scores["sensitive_rates"][1] == pytest.approx(group_rate, abs=ROUNDED)
    assert scores["sensitive_edge_homophily"] == pytest.approx(homophily, abs=ROUNDED)
    if gap is not None:
        assert scores["label_rate_gap"] == pytest.approx(gap, abs=ROUNDED)


def test_class_sizes_of_cora_and_citeseer_are_the_published_ones(data_dir):
    published = {
        "cora": {
            "Case_Based": 298,
            "Genetic_Algorithms": 418,
            "Neural_Networks": 818,
            "Probabilistic_Methods": 426,
            "Reinforcement_Learning": 217,
            "Rule_Learning": 180,
            "Theory": 351,
        },
        "citeseer": {"Agents": 596, "AI": 249, "DB": 701, "HCI": 508, "IR": 668, "ML": 590},
    }
    for name, sizes in published.items():
        labels = load_dataset(name, data_dir)["graph"][0]["labels"]
        counts = np.bincount(labels[labels >= 0])
        assert dict(zip(DATASETS[name].label_names, counts.tolist(), strict=True)) == sizes


def test_citeseer_has_nodes_without_a_label(data_dir):
    assert (load_dataset("citeseer", data_dir)["graph"][0]["labels"] == -100).sum() == 15
