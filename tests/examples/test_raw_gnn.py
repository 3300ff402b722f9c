"""Each script of RAW-GNN runs from end to end on a made-up graph, and what it writes loads."""

import json

import pytest
import torch
from transformers import AutoFeatureExtractor

from decahub import AutoModelForNodeClassification
from tests.tiny.graph import NUM_FEATURES, NUM_NODES, write_toy_graph

from .scripts import EXAMPLES, decahub, evaluate, run


SCRIPTS = EXAMPLES / "raw_gnn"
TINY = ["--max_steps", "4", "--logging_steps", "1", "--card_license", "cc0-1.0"]


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    return write_toy_graph(tmp_path_factory.mktemp("data") / "toy")


def assert_loads(folder):
    model = AutoModelForNodeClassification.from_pretrained(folder).eval()
    extractor = AutoFeatureExtractor.from_pretrained(folder)
    toy = {"x": torch.zeros(3, NUM_FEATURES), "edge_index": torch.tensor([[0], [1]])}
    inputs = extractor(toy, return_tensors="pt")
    assert model(**inputs).logits.shape == (3, 2)


def test_train_and_evaluate(graph, tmp_path):
    run(SCRIPTS / "train.py", "raw_gnn/texas", "--dataset", graph, "--split", "1", *TINY, "--output_dir", tmp_path)
    output = evaluate(tmp_path / "model", graph, "node-classification")

    assert_loads(tmp_path / "model")
    evaluation = json.loads((tmp_path / "model" / "evaluation.json").read_text())
    scores = {score["metric"]: score for score in evaluation["figures"]}
    assert evaluation["dataset"]["split"] == "test/1"
    assert scores["accuracy"]["n"] == NUM_NODES // 3
    assert f"{scores['accuracy']['value']:.4f}" in output


def test_trains_in_mini_batches_of_nodes(graph, tmp_path):
    decahub("train", "raw_gnn/texas", "--dataset", graph, *TINY,
            "--split", "0", "--nodes_per_batch", "6", "--output_dir", tmp_path)  # fmt: skip

    progress = json.loads((tmp_path / "checkpoint-4" / "progress.json").read_text())
    assert progress["settings"]["num_rows"] == NUM_NODES // 3
    assert_loads(tmp_path / "model")


def test_reproduce_compares_networks_and_goes_on_where_it_was(graph, tmp_path):
    words = (
        SCRIPTS / "reproduce.py", "raw_gnn/reproduce", "--datasets", f"[{graph}]",
        "--max_steps", "2", "--splits", "[0, 1]", "--seeds", "[0]", "--tuning_splits", "[0]",
        "--output_dir", tmp_path / "runs", "--results_dir", tmp_path / "results",
    )  # fmt: skip
    run(*words)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("run.json")}

    run(*words)

    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("run.json")}
    names = ["raw_gnn.json", "raw_gnn_draws.json", "raw_gnn_recipe.json", "raw_gnn_walks.json"]
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == names
    comparison = json.loads((tmp_path / "results" / "raw_gnn.json").read_text())
    assert {row["model"] for row in comparison["rows"]} == {"RAW-GNN", "GCN", "GAT", "GraphSAGE", "MLP", "H2GCN"}
    assert all(row["n"] == 2 for row in comparison["rows"])
    assert [part["num_pairs"] for part in comparison["comparisons"]] == [2] * 5
