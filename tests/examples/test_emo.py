"""Each script of EMO runs from end to end on a tiny slice, and what it writes loads.

scikit-learn's digits stand in for the recipes' datasets, since they need no download.
"""

import json

import pytest
import torch
from transformers import AutoImageProcessor, AutoModelForImageClassification

import decahub  # noqa: F401  (registers the models)

from .scripts import EXAMPLES, LAUNCHERS, run


SCRIPTS = EXAMPLES / "emo"
TINY = [
    "--dataset", "sklearn_digits",
    "--max_train_samples", "48",
    "--max_eval_samples", "20",
    "--per_device_train_batch_size", "8",
    "--logging_steps", "1",
]  # fmt: skip


@pytest.mark.parametrize("launcher", ["accelerate", "torchrun"])
def test_train_writes_a_folder_that_loads(launcher, tmp_path):
    words = (*TINY, "--max_steps", "3", "--output_dir", tmp_path)

    run(SCRIPTS / "train.py", SCRIPTS / "cifar10.yaml", *words, launcher=launcher)

    model = AutoModelForImageClassification.from_pretrained(tmp_path / "model").eval()
    processor = AutoImageProcessor.from_pretrained(tmp_path / "model")
    inputs = processor(torch.zeros(3, 9, 7, dtype=torch.uint8), return_tensors="pt")
    assert model(**inputs).logits.shape == (1, 10)
    settings = json.loads((tmp_path / "checkpoint-3" / "progress.json").read_text())["settings"]
    assert settings["num_processes"] == LAUNCHERS[launcher][1]


def test_reproduce_compares_two_networks(tmp_path):
    results = tmp_path / "emo.json"

    run(SCRIPTS / "reproduce.py", SCRIPTS / "reproduce.yaml", *TINY, "--max_steps", "2",
        "--seeds", "0", "1", "--output_dir", tmp_path, "--results", results,
    )  # fmt: skip

    record = json.loads(results.read_text())
    assert [row["n"] for row in record["rows"]] == [2, 2]
    assert [part["num_pairs"] for part in record["comparisons"]] == [2]
    assert record["verdict"] == "undecided", "two pairs decide nothing"
