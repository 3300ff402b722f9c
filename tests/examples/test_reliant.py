"""Each script of RELIANT runs from end to end on a made-up graph, and what it writes loads."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoFeatureExtractor

from decahub import AutoModelForNodeClassification
from decahub.training import CheckpointError
from tests.tiny.graph import NUM_FEATURES, NUM_NODES, write_toy_graph

from .scripts import EXAMPLES, LAUNCHERS, copy_stopped_run, decahub, evaluate, run


SCRIPTS = EXAMPLES / "reliant"
TINY = ["--split", "1", "--images", "[]", "--logging_steps", "1", "--eval_epochs", "2", "--card_license", "cc0-1.0"]
PNG_SIGNATURE = b"\x89PNG"


def train(recipe: str, graph: Path, folder: Path, *words: str | Path, launcher: str = "python") -> Path:
    run(SCRIPTS / "train.py", recipe, *TINY, "--dataset", graph, "--output_dir", folder, *words, launcher=launcher)
    return folder / "model"


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    return write_toy_graph(tmp_path_factory.mktemp("data") / "toy")


@pytest.fixture(scope="module")
def teacher(graph, tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher")
    decahub("train", "reliant/teacher_gcn", "--dataset", graph, *TINY, "--max_steps", "4", "--output_dir", folder)
    return folder / "model"


def read_scores(folder: Path) -> dict:
    evaluation = json.loads((folder / "evaluation.json").read_text())
    assert evaluation["dataset"]["split"] == "test/1"
    return {score["metric"]: score for score in evaluation["figures"]}


def assert_loads(folder: Path):
    model = AutoModelForNodeClassification.from_pretrained(folder).eval()
    extractor = AutoFeatureExtractor.from_pretrained(folder)
    toy = {"x": torch.zeros(3, NUM_FEATURES), "edge_index": torch.tensor([[0], [1]])}
    assert model(**extractor(toy, return_tensors="pt")).logits.shape == (3, 2)


def test_teacher_is_measured_with_its_fairness(graph, teacher):
    scores = read_scores(teacher)

    assert scores["accuracy"]["n"] == NUM_NODES // 3
    assert {"roc_auc", "f1", "accuracy_group_1"} <= set(scores)
    assert_loads(teacher)
    output = evaluate(teacher, graph, "fair-node-classification")
    assert f"{scores['statistical_parity_difference']['value']:.4f}" in output


@pytest.mark.parametrize(
    ("recipe", "launcher"), [("reliant/distill_cpf", "python"), ("reliant/distill_akd", "torchrun")]
)
def test_distils_a_student(recipe, launcher, graph, teacher, tmp_path):
    words = ("--teacher", teacher, "--max_steps", "3", "--config", "{fairness_weight: 5.0}")
    model = train(recipe, graph, tmp_path, *words, launcher=launcher)

    assert_loads(model)
    settings = json.loads((tmp_path / "checkpoint-3" / "progress.json").read_text())["settings"]
    assert settings["num_processes"] == LAUNCHERS[launcher][1]


def test_a_run_that_is_started_again_ends_with_the_same_weights(graph, teacher, tmp_path):
    words = ("--teacher", teacher, "--max_steps", "4", "--save_steps", "2")
    whole = train("reliant/distill_akd", graph, tmp_path / "whole", *words)

    copy_stopped_run(tmp_path / "whole", tmp_path / "parts", step=2)
    parts = train("reliant/distill_akd", graph, tmp_path / "parts", *words)

    weights, expected = (load_file(folder / "model.safetensors") for folder in (parts, whole))
    assert all(torch.equal(weights[name], value) for name, value in expected.items())
    for changes, message in {
        ("--split", "0"): r"`split` must be '1' .*; got '0' \(1 more differ: train_dataset\)",
        ("--config", "{fairness_weight: 1000}"): "`config` must be .*; got {'fairness_weight': 1000}",
    }.items():
        with pytest.raises(CheckpointError, match=message):
            train("reliant/distill_akd", graph, tmp_path / "parts", *words, *changes)


def test_a_teacher_may_be_a_file_of_logits(graph, tmp_path):
    path = tmp_path / "teacher.safetensors"
    log_probs = torch.randn(NUM_NODES, 2).log_softmax(-1)
    save_file({"logits": log_probs, "embedding": torch.randn(NUM_NODES, 5)}, path)

    words = ("--teacher", path, "--teacher_output", "log_probs", "--max_steps", "2")
    assert_loads(train("reliant/distill_akd", graph, tmp_path / "run", *words))


def test_reproduce_compares_students_and_goes_on_where_it_was(graph, tmp_path):
    plan = [
        {"datasets": [str(graph)], "teachers": ["GCN"], "students": ["AKD", "CPF"], "seeds": [0, 1]},
        {"datasets": [str(graph)], "teachers": ["GraphSAGE"], "students": ["AKD"], "seeds": [0]},
        {"datasets": [str(graph)], "teachers": ["GCN"], "students": ["AKD"], "seeds": [0], "fairness_weights": [3]},
    ]
    words = (
        SCRIPTS / "reproduce.py", "reliant/reproduce", "--datasets", f"[{graph}]",
        "--plan", json.dumps(plan), "--split", "1", "--max_steps", "2",
        "--output_dir", tmp_path / "runs", "--results_dir", tmp_path / "results",
    )  # fmt: skip
    run(*words)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("knowledge.safetensors")}

    run(*words)

    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("knowledge.safetensors")}
    results = tmp_path / "results"
    image = results / "reliant_tradeoff_toy_sgc.png"
    assert image.read_bytes().startswith(PNG_SIGNATURE)
    comparison = json.loads((results / "reliant.json").read_text())
    models = {row["model"]: row for row in comparison["rows"]}
    assert len(models) == 6  # teacher, majority class, and two students in two ways
    assert models["GCN, teacher"]["n"] == 2
    assert models["majority class"]["seeds"] == []
    parts = [(part["first"][:3], part["direction"], part["margin"]) for part in comparison["comparisons"]]
    assert sorted(parts) == [(name, *how) for name in ("PLP", "SGC") for how in (("higher", -3), ("lower", 0))]
    assert (results / "reliant_graphsage.json").is_file()
    (part,) = json.loads((results / "reliant_tradeoff.json").read_text())["comparisons"]
    assert [part[side].rpartition(" ")[2] for side in ("first", "second")] == ["10", "3"]
