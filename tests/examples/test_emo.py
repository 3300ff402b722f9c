"""Each script of EMO runs from end to end on a tiny slice, and what it writes loads.

scikit-learn's digits stand in for the recipes' datasets, since they need no download.
"""

import json

import torch
from safetensors.torch import load_file
from transformers import AutoImageProcessor, AutoModelForImageClassification

import decahub  # noqa: F401  (registers the models)

from . import scripts
from .scripts import EXAMPLES, LAUNCHERS, run


SCRIPTS = EXAMPLES / "emo"
TINY = [
    "--dataset", "sklearn_digits",
    "--max_train_samples", "48",
    "--max_eval_samples", "20",
    "--per_device_train_batch_size", "8",
    "--logging_steps", "1",
]  # fmt: skip


def test_train_writes_a_folder_that_loads(tmp_path):
    words = ("emo/cifar10", *TINY, "--max_steps", "3")

    run(SCRIPTS / "train.py", *words, "--output_dir", tmp_path, launcher="accelerate")

    model = AutoModelForImageClassification.from_pretrained(tmp_path / "model").eval()
    processor = AutoImageProcessor.from_pretrained(tmp_path / "model")
    inputs = processor(torch.zeros(3, 9, 7, dtype=torch.uint8), return_tensors="pt")
    assert model(**inputs).logits.shape == (1, 10)
    settings = json.loads((tmp_path / "checkpoint-3" / "progress.json").read_text())["settings"]
    assert settings["num_processes"] == LAUNCHERS["accelerate"][1]


def test_decahub_train_does_as_the_script(tmp_path):
    words = ("emo/cifar10", *TINY, "--max_steps", "2")

    output = scripts.decahub("train", *words, "--output_dir", tmp_path / "command")
    expected = run(SCRIPTS / "train.py", *words, "--output_dir", tmp_path / "script")

    assert output.replace("/command/", "/script/").startswith(expected)
    weights, expected = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("command", "script"))
    assert all(torch.equal(weights[name], value) for name, value in expected.items())


def test_reproduce_compares_two_networks(tmp_path):
    results = tmp_path / "emo.json"

    run(SCRIPTS / "reproduce.py", "emo/reproduce", *TINY, "--max_steps", "2",
        "--seeds", "0", "1", "--output_dir", tmp_path, "--results", results,
    )  # fmt: skip

    record = json.loads(results.read_text())
    assert [row["n"] for row in record["rows"]] == [2, 2]
    assert [part["num_pairs"] for part in record["comparisons"]] == [2]
    assert record["verdict"] == "undecided", "two pairs decide nothing"
