"""Each script of PMT-IQA runs from end to end on a tiny folder, and what it writes loads."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoImageProcessor

from decahub import AutoModelForImageQualityAssessment
from tests.tiny.quality_folder import write_quality_folder

from . import scripts
from .scripts import EXAMPLES, run


SCRIPTS = EXAMPLES / "pmt_iqa"


@pytest.fixture
def words(tmp_path):
    folder = write_quality_folder(tmp_path / "quality")
    return [
        "--dataset", folder,
        "--card_license", "mit",
        "--per_device_train_batch_size", "4",
        "--processor", "{num_crops: 1, small_image: resize}",
        "--validation_share", "0.25",
        "--logging_steps", "1",
    ]  # fmt: skip


def test_train_writes_a_folder_that_loads(words, tmp_path):
    run(SCRIPTS / "train.py", "pmt_iqa/synthetic", *words, "--max_steps", "2", "--output_dir", tmp_path / "run")

    folder = tmp_path / "run" / "model"
    model = AutoModelForImageQualityAssessment.from_pretrained(folder).eval()
    processor = AutoImageProcessor.from_pretrained(folder)
    inputs = processor(torch.zeros(3, 230, 240, dtype=torch.uint8), return_tensors="pt")
    assert model(**inputs).score.shape == (1,)
    assert "No reference is in two splits" in (folder / "README.md").read_text()
    assert set(json.loads((folder / "reference_splits.json").read_text())["splits"]) == {"train", "validation", "test"}


def test_decahub_train_does_as_the_script(words, tmp_path):
    words = ["pmt_iqa/synthetic", *words, "--max_steps", "2"]

    output = scripts.decahub("train", *words, "--output_dir", tmp_path / "command")
    expected = run(SCRIPTS / "train.py", *words, "--output_dir", tmp_path / "script")

    assert output.replace("/command/", "/script/").startswith(expected)
    weights, expected = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("command", "script"))
    assert all(torch.equal(weights[name], value) for name, value in expected.items())


def test_reproduce_compares_schedules(words, tmp_path):
    """A tiny network with random weights stands for the pre-trained one."""
    results = tmp_path / "pmt_iqa.json"
    options = ["--seeds", "0", "1", "--max_steps", "2", "--num_bootstrap", "20", "--config", "{score_high: 100}"]
    options += ["--variant", "tiny", "--backbone_weights", "null", "--frozen_crops", "1"]

    run(SCRIPTS / "reproduce.py", "pmt_iqa/reproduce", *words[:2], *words[4:], *options,
        "--output_dir", tmp_path / "run", "--results", results,
    )  # fmt: skip

    record = json.loads(results.read_text())
    assert [row["n"] for row in record["rows"]] == [2, 2, 2]
    assert [part["num_pairs"] for part in record["comparisons"]] == [2, 2]
    assert record["verdict"] == "undecided", "two pairs decide nothing"


def test_photographs_are_compared_with_baselines(tmp_path):
    """A tiny network from scratch stands for the pre-trained one."""
    folder = write_quality_folder(tmp_path / "quality", num_scenes=10)
    results = tmp_path / "photographs.json"
    (tmp_path / "pmt_iqa").mkdir()
    recipe = tmp_path / "pmt_iqa" / "tiny.yaml"
    lines = ("variant: tiny", "config: {score_high: 100}", "max_steps: 1", "eval_split: test", "card_license: mit")
    recipe.write_text("\n".join((f"dataset: {folder}", *lines)))
    words = ("pmt_iqa/reproduce_photographs", "--recipe", recipe, "--scratch", "{}", "--seeds", "0", "1")

    run(SCRIPTS / "reproduce_photographs.py", *words,
        "--shared", "{processor: {num_crops: 1, small_image: resize}, per_device_train_batch_size: 4}",
        "--output_dir", tmp_path / "runs", "--results", results,
    )  # fmt: skip

    record = json.loads(results.read_text())
    rows = {(row["model"], row["metric"]): row for row in record["rows"]}
    assert rows["mean of the source", "SRCC"]["n"] == 1
    assert rows["PMT-IQA on a frozen backbone", "SRCC within sources"]["n"] == 2
    assert record["verdict"] == "undecided", "two pairs decide nothing"
