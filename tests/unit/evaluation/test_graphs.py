"""Evaluation of node classifiers: what is counted are nodes, chosen by part and split; in an epoch as on a folder."""

import argparse
import csv
import shutil
import time

import datasets
import numpy as np
import pytest
import torch
from transformers import pipeline

from decahub import RawGnnConfig, RawGnnFeatureExtractor, RawGnnForNodeClassification, load_metric
from decahub.data import DATASETS, load_dataset, select_split
from decahub.data.node_classification import build_graph_inputs
from decahub.evaluation import (
    build_evaluation,
    evaluate_folder,
    evaluate_model,
    read_evaluation,
    write_evaluation,
)
from decahub.tasks import evaluate_nodes, evaluate_parts, get_task, join_scores
from decahub.tasks.output_files import OutputFiles


NUM_NODES, NUM_FEATURES, NUM_SPLITS = 60, 6, 10
MAX_SECONDS_BEYOND_FORWARD = 2e-3  # for a graph of Cora's size


def write_graph(path, num_labels, split_names=None, seed=0):
    """A ring with chords, split in ten ways or in those with names; the last nodes have no label."""
    generator = np.random.default_rng(seed)
    source = np.arange(NUM_NODES)
    edges = np.stack([np.tile(source, 2), np.concatenate([(source + 1) % NUM_NODES, (source + 7) % NUM_NODES])])
    labels = generator.choice(num_labels, NUM_NODES)
    features = generator.normal(size=(NUM_NODES, NUM_FEATURES)) + labels[:, None]
    splits = np.stack([generator.permutation(np.arange(NUM_NODES) % 4) for _ in range(NUM_SPLITS)])  # 3: unused
    if split_names is None:
        ways = {"splits": splits.astype(np.uint8)}
    else:
        ways = {f"split_{name}": split.astype(np.uint8) for name, split in zip(split_names, splits, strict=False)}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        path,
        edge_index=edges.astype(np.int32),
        x=features.astype(np.float32),
        y=labels.astype(np.int8),
        unlabeled=np.arange(NUM_NODES - 4, NUM_NODES),
        sens=generator.choice(2, NUM_NODES, p=[0.3, 0.7]).astype(np.int8),
        **ways,
    )


@pytest.fixture(scope="module")
def graphs_dir(tmp_path_factory):
    """A data directory whose files have the names of real graphs."""
    folder = tmp_path_factory.mktemp("data")
    write_graph(folder / "graphs" / "texas.npz", num_labels=5)
    write_graph(folder / "graphs" / "bail.npz", num_labels=2, split_names=["reliant", "nifty"])
    return folder


def build_model(num_labels, names=None):
    torch.manual_seed(0)
    names = names or [f"LABEL_{index}" for index in range(num_labels)]
    label2id = {name: index for index, name in enumerate(names)}
    config = RawGnnConfig(num_features=NUM_FEATURES, id2label=dict(enumerate(names)), label2id=label2id)
    return RawGnnForNodeClassification(config).eval()


@pytest.fixture
def extractor():
    return RawGnnFeatureExtractor(num_features=NUM_FEATURES)


@pytest.fixture
def texas(graphs_dir):
    return load_dataset("texas", graphs_dir)


def find_nodes(row, part, split):
    return np.asarray(row[f"{part}_mask"])[split] & (np.asarray(row["labels"]) != -100)


@pytest.mark.parametrize(("part", "split"), [("test", 2), ("validation", 0)])
def test_scores_are_those_of_the_nodes_of_one_part_of_one_split(texas, extractor, part, split):
    model, row = build_model(5), texas["graph"][0]
    nodes = find_nodes(row, part, split)
    with torch.no_grad():
        logits = model(**extractor(row, return_tensors="pt", split=split).data).logits
    expected = load_metric("node_accuracy").compute(predictions=logits[nodes], references=row["labels"][nodes])

    measurement = evaluate_model(model, extractor, select_split(texas, f"{part}/{split}"), "node-classification")

    assert measurement.scores == expected
    assert list(measurement.scores) == ["accuracy", "macro_f1"]
    assert measurement.num_rows == nodes.sum()


def test_splits_differ(texas, extractor):
    measurements = [
        evaluate_model(build_model(5), extractor, select_split(texas, f"test/{split}"), "node-classification")
        for split in range(NUM_SPLITS)
    ]

    assert len({measurement.scores["accuracy"] for measurement in measurements}) > 1


def test_limit_takes_a_sample_of_the_nodes_of_all_graphs(texas, extractor):
    rows = select_split(texas, "test/1")
    rows = datasets.concatenate_datasets([rows, rows.map(lambda row: {"labels": [4] * NUM_NODES})]).with_format(
        "numpy"
    )
    num_nodes = evaluate_model(build_model(5), extractor, rows, "node-classification").num_rows
    model = build_model(5)
    model.classifier.bias.data[4] = 100.0  # always answers class 4

    measurement = evaluate_model(model, extractor, rows, "node-classification", limit=num_nodes - 2)

    assert measurement.num_rows == num_nodes - 2
    assert measurement.scores["accuracy"] > 0.5  # the second graph, all of class 4, takes part
    few = evaluate_model(model, extractor, rows, "node-classification", limit=5)
    assert (few.num_rows, few.scores["accuracy"]) == (5, 0.2)  # one node of each class


def test_nodes_of_several_graphs_are_counted_together(texas, extractor):
    model = build_model(5)
    rows = select_split(texas, "test/1")
    once = evaluate_model(model, extractor, rows, "node-classification")

    twice = evaluate_model(model, extractor, datasets.concatenate_datasets([rows, rows]), "node-classification")

    assert twice.num_rows == 2 * once.num_rows
    assert twice.scores == pytest.approx(once.scores)


def test_split_must_be_chosen(texas, extractor):
    with pytest.raises(ValueError, match="the nodes to measure must be chosen first"):
        evaluate_model(build_model(5), extractor, texas["graph"], "node-classification")


def test_part_without_labels_is_refused(texas, extractor):
    unlabeled = texas["graph"].map(lambda row: {"labels": [-100] * NUM_NODES}).with_format("numpy")

    with pytest.raises(ValueError, match="`dataset` must hold labeled nodes in the split; got none"):
        evaluate_model(build_model(5), extractor, select_split(unlabeled, "test/0"), "node-classification")


def test_classes_are_compared_with_those_of_the_data(texas, extractor):
    names = list(DATASETS["texas"].label_names)
    rows = select_split(texas, "test/0")

    evaluate_model(build_model(5, names), extractor, rows, "node-classification")

    with pytest.raises(ValueError, match="class 1 is 'class 1' in the dataset, got 'class 2'"):
        evaluate_model(
            build_model(5, [names[0], names[2], names[1], *names[3:]]), extractor, rows, "node-classification"
        )
    with pytest.raises(ValueError, match="as many classes as the dataset, 5; got 4"):
        evaluate_model(build_model(4), extractor, rows, "node-classification")


def test_numbers_of_classes_contradict_no_name(texas, extractor):
    unnamed = evaluate_model(
        build_model(5, ["a", "b", "c", "d", "e"]),
        extractor,
        select_split(texas, "test/0"),
        "node-classification",
        label_names=["0", "1", "2", "3", "4"],
    )

    assert (
        unnamed.scores
        == evaluate_model(build_model(5), extractor, select_split(texas, "test/0"), "node-classification").scores
    )


def test_few_nodes_are_computed_alone_and_get_the_same_answers(extractor, inputs, monkeypatch):
    model, sizes = build_model(5), []
    mask = torch.arange(NUM_NODES) == 7
    inputs["labels"] = inputs["labels"].clamp(min=0)
    expected = model(inputs["node_features"], inputs["edge_index"]).logits[7]
    forward = model.raw_gnn.forward

    def record(*arguments, target_nodes=None, **options):
        sizes.append(None if target_nodes is None else target_nodes.tolist())
        return forward(*arguments, target_nodes=target_nodes, **options)

    monkeypatch.setattr(model.raw_gnn, "forward", record)
    measurement = evaluate_nodes(model, inputs, mask, with_loss=True)

    assert sizes == [[7]]
    assert measurement.scores["loss"] == pytest.approx(-expected.log_softmax(0)[inputs["labels"][7]].item(), abs=1e-6)


def test_fair_task_has_rates_of_groups_with_their_own_counts(graphs_dir, extractor):
    graphs = load_dataset("bail", graphs_dir)
    row, model = graphs["graph"][0], build_model(2)
    nodes = find_nodes(row, "test", 0)
    groups, labels = np.asarray(row["sensitive"])[nodes], row["labels"][nodes]

    measurement = evaluate_model(model, extractor, select_split(graphs, "test/reliant"), "fair-node-classification")

    assert list(measurement.scores) == [
        "accuracy",
        "roc_auc",
        "f1",
        "statistical_parity_difference",
        "equal_opportunity_difference",
        "majority_class_accuracy",
        *(f"{name}_group_{group}" for name in ("accuracy", "positive_rate", "true_positive_rate") for group in (0, 1)),
    ]
    assert measurement.counts["positive_rate_group_1"] == (groups == 1).sum()
    assert measurement.counts["true_positive_rate_group_0"] == ((groups == 0) & (labels == 1)).sum()
    gap = measurement.scores["positive_rate_group_0"] - measurement.scores["positive_rate_group_1"]
    assert measurement.scores["statistical_parity_difference"] == pytest.approx(abs(gap))


def test_fair_task_needs_groups(texas, extractor):
    rows = select_split(texas["graph"].remove_columns("sensitive"), "test/0")

    with pytest.raises(ValueError, match="the graph must have `sensitive`, the group of each node; got none"):
        evaluate_model(build_model(5), extractor, rows, "fair-node-classification")


def test_rates_of_more_classes_are_scores_of_their_own(texas, extractor):
    measurement = evaluate_model(
        build_model(5), extractor, select_split(texas, "test/0"), "fair-node-classification", show_progress=False
    )

    assert "mean_statistical_parity_difference" in measurement.scores
    assert "positive_rate_group_1_class_4" in measurement.scores
    assert measurement.counts["positive_rate_group_1_class_4"] == measurement.counts["accuracy_group_1"]
    assert "roc_auc" not in measurement.scores


# From tensors at hand


@pytest.fixture
def inputs(texas, extractor):
    return build_graph_inputs(texas["graph"][0], extractor, split=1)


@pytest.mark.parametrize("task", ["node-classification", "fair-node-classification"])
def test_nodes_at_hand_give_the_scores_of_the_data_set(texas, extractor, inputs, task):
    expected = evaluate_model(build_model(5), extractor, select_split(texas, "test/1"), task)

    assert evaluate_nodes(build_model(5), inputs, inputs["test_mask"], task) == expected


def test_several_masks_share_one_forward_pass(inputs, monkeypatch):
    model = build_model(5)
    masks = {name: inputs[f"{name}_mask"] for name in ("validation", "test")}
    separate = {name: evaluate_nodes(model, inputs, mask).scores for name, mask in masks.items()}
    calls, forward = [], model.forward
    monkeypatch.setattr(model, "forward", lambda *args, **kwargs: calls.append(1) or forward(*args, **kwargs))

    scores = join_scores(evaluate_parts(model, inputs, masks))

    assert len(calls) == 1
    assert scores == {f"{part}_{name}": value for part, values in separate.items() for name, value in values.items()}


def test_loss_is_the_cross_entropy_of_the_labeled_nodes(inputs):
    model = build_model(5)
    with torch.no_grad():
        expected = model(
            inputs["node_features"], inputs["edge_index"], labels=inputs["labels"], train_mask=inputs["test_mask"]
        ).loss

    scores = evaluate_nodes(model, inputs, inputs["test_mask"], with_loss=True).scores

    assert scores["loss"] == pytest.approx(expected.item())


def test_leaves_modes_and_random_state_alone(inputs):
    model = build_model(5).train()
    model.config.eval_walks = "resample"  # draws its walks from torch's generator
    torch.manual_seed(5)
    expected = torch.rand(3)

    torch.manual_seed(5)
    evaluate_nodes(model, inputs, inputs["test_mask"])

    assert torch.equal(torch.rand(3), expected)
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize(
    ("mask", "task", "message"),
    [
        (torch.zeros(NUM_NODES, dtype=torch.bool), "node-classification", "must select at least one labeled node"),
        (torch.arange(NUM_NODES) >= NUM_NODES - 4, "node-classification", "got 4 nodes, none labeled"),
        (torch.ones(3, dtype=torch.bool), "node-classification", r"`mask` must be booleans of shape \(60,\)"),
        (torch.ones(NUM_NODES), "node-classification", "got torch.float32 of shape"),
        (torch.ones(NUM_NODES, dtype=torch.bool), "image-classification", "`task` must classify nodes"),
        (torch.ones(NUM_NODES, dtype=torch.bool), "nodes", "`task` must be one of image-classification"),
    ],
)
def test_refuses_masks_and_tasks(inputs, mask, task, message):
    with pytest.raises(ValueError, match=message):
        evaluate_nodes(build_model(5), inputs, mask, task)


def test_costs_little_beyond_the_forward_pass():
    class Constant(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.config = RawGnnConfig(num_labels=7)
            self.weight = torch.nn.Parameter(torch.randn(2708, 7))
            self.device, self.dtype = torch.device("cpu"), torch.float32

        def forward(self, node_features, edge_index):
            return RawGnnForNodeClassificationOutput(self.weight)

    inputs = {
        "node_features": torch.zeros(2708, 3),
        "edge_index": torch.zeros(2, 0, dtype=torch.int64),
        "labels": torch.arange(2708) % 7,
    }
    mask = torch.arange(2708) % 5 == 0
    model = Constant()
    evaluate_nodes(model, inputs, mask)

    seconds = []
    for _ in range(10):
        start = time.process_time()
        evaluate_nodes(model, inputs, mask)
        seconds.append(time.process_time() - start)

    assert min(seconds) < MAX_SECONDS_BEYOND_FORWARD


class RawGnnForNodeClassificationOutput:
    """What a model returns, as far as an evaluation looks."""

    def __init__(self, logits):
        self.logits = logits


# Folders


@pytest.fixture(scope="module")
def measured_folders(graphs_dir, tmp_path_factory):
    """Folders whose `evaluation.json` says what their models give."""
    folders = {}
    tasks = {"texas": ("node-classification", "test/2"), "bail": ("fair-node-classification", "test/reliant")}
    for name, (task, split) in tasks.items():
        names = list(DATASETS[name].label_names)
        model, extractor = build_model(len(names), names), RawGnnFeatureExtractor(num_features=NUM_FEATURES)
        rows = select_split(load_dataset(name, graphs_dir), split)
        measurement = evaluate_model(model, extractor, rows, task)
        folder = folders[name] = tmp_path_factory.mktemp(name)
        model.save_pretrained(folder)
        extractor.save_pretrained(folder)
        write_evaluation(folder, measurement, task=task, dataset=name, split=split, minutes=0.1)
    return folders


@pytest.mark.parametrize("name", ["texas", "bail"])
def test_folder_gives_its_published_scores(graphs_dir, measured_folders, name):
    published = read_evaluation(measured_folders[name])

    evaluation = evaluate_folder(measured_folders[name], graphs_dir)

    assert evaluation["figures"] == published["figures"]
    assert evaluation["dataset"] == published["dataset"]


def test_folder_can_be_measured_on_another_split_and_on_fewer_nodes(graphs_dir, measured_folders):
    evaluation = evaluate_folder(measured_folders["texas"], graphs_dir, limit=3, dataset="texas", split="validation/0")

    assert evaluation["dataset"]["split"] == "validation/0"
    assert {row["n"] for row in evaluation["figures"]} == {evaluation["dataset"]["num_rows"]} == {3}


@pytest.mark.parametrize(("dataset", "task"), [("texas", "node-classification"), ("bail", "fair-node-classification")])
def test_task_follows_the_data(graphs_dir, measured_folders, dataset, task, tmp_path):
    folder = shutil.copytree(measured_folders[dataset], tmp_path / "model")
    (folder / "evaluation.json").unlink()

    assert evaluate_folder(folder, graphs_dir, dataset=dataset, split="test/0")["task"] == task


def test_split_of_several_must_be_numbered(graphs_dir, measured_folders):
    with pytest.raises(ValueError, match="the split must be one of 0, 1, 2, .*Name it like 'test/0'"):
        evaluate_folder(measured_folders["texas"], graphs_dir, split="test")


EVALUATE_IN_FRESH_PROCESS = """
import sys
from decahub.evaluation import evaluate_folder
print(evaluate_folder(sys.argv[1], sys.argv[2], show_progress=False)["figures"][0]["metric"])
"""


def test_folder_of_a_new_auto_class_is_measured_in_a_fresh_process(run_python, graphs_dir, measured_folders):
    assert run_python(EVALUATE_IN_FRESH_PROCESS, measured_folders["texas"], graphs_dir).strip() == "accuracy"


def test_own_data_in_an_absolute_folder_leaves_no_path_behind(graphs_dir, measured_folders):
    evaluation = evaluate_folder(
        measured_folders["texas"], dataset=graphs_dir / "graphs", split="test/0", task="fair-node-classification"
    )

    assert evaluation["dataset"]["name"] == evaluation["dataset"]["title"] == "graphs"


def test_record_needs_the_number_of_nodes():
    with pytest.raises(ValueError, match="`num_rows` must be the number of rows, or nodes, behind the scores"):
        build_evaluation({"accuracy": 1.0}, task="node-classification", dataset="texas", split="test/0", minutes=0)


def test_predictions_go_to_a_table_with_the_names_of_nodes(tmp_path):
    (tmp_path / "nodes.csv").write_text("node,a,b,c,d,e,f\n" + "".join(f"n{i},{i},0,1,0,1,{i}\n" for i in range(3)))
    (tmp_path / "edges.csv").write_text("source,target\nn0,n2\n")
    task, arguments = get_task("node-classification"), argparse.Namespace(data_dir=None, nodes=["n2", "n0"], top_k=2)
    classify = pipeline("node-classification", model=build_model(5), feature_extractor=RawGnnFeatureExtractor())

    task.answer(classify, str(tmp_path / "nodes.csv"), arguments, OutputFiles(tmp_path / "out"))

    with (tmp_path / "out" / "nodes_predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["node"] for row in rows] == ["n2", "n0"]
    assert list(rows[0]) == ["node", "class", "probability", "class_2", "probability_2"]
    assert float(rows[0]["probability"]) >= float(rows[0]["probability_2"])
