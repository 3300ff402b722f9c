"""Each script of EMO runs from end to end on a tiny slice, and what it writes loads.

scikit-learn's digits stand in for the recipes' datasets, since they need no download.
"""

import json

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoImageProcessor, AutoModelForImageClassification, AutoModelForSemanticSegmentation

from decahub import EmoConfig, EmoForImageClassification
from decahub.recipes import find_recipe

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


def test_a_teacher_is_fine_tuned_and_imitated(tmp_path):
    config = EmoConfig.from_variant("1m", depths=[1, 1, 1, 1], num_labels=3)
    EmoForImageClassification(config).save_pretrained(tmp_path / "pretrained")
    words = ("--dataset", "sklearn_digits", "--max_steps", "2", "--per_device_train_batch_size", "4")

    run(SCRIPTS / "train_teacher.py", *words, "--pretrained", tmp_path / "pretrained",
        "--output_dir", tmp_path / "teacher")  # fmt: skip
    run(SCRIPTS / "train.py", "emo/cifar10_mixed", *TINY, "--max_steps", "2",
        "--pretrained", tmp_path / "pretrained", "--teacher", tmp_path / "teacher" / "model",
        "--output_dir", tmp_path / "student")  # fmt: skip

    scores = json.loads((tmp_path / "teacher" / "model" / "scores.json").read_text())
    assert set(scores) == {"accuracy", "top_5_accuracy"}
    log = (tmp_path / "student" / "train_log.jsonl").read_text()
    assert "imitation_loss" in log
    student = AutoModelForImageClassification.from_pretrained(tmp_path / "student" / "model")
    teacher = AutoModelForImageClassification.from_pretrained(tmp_path / "teacher" / "model")
    assert student.config.id2label == teacher.config.id2label


def test_reproduce_compares_two_networks(tmp_path):
    results = tmp_path / "emo.json"

    run(SCRIPTS / "reproduce.py", "emo/reproduce", *TINY, "--max_steps", "2",
        "--seeds", "0", "1", "--output_dir", tmp_path, "--results", results,
    )  # fmt: skip

    record = json.loads(results.read_text())
    assert [row["n"] for row in record["rows"]] == [2, 2]
    assert [part["num_pairs"] for part in record["comparisons"]] == [2]
    assert record["verdict"] == "undecided", "two pairs decide nothing"


def test_reproduce_segmentation_compares_heads_and_backbones(tmp_path):
    for split in ("train", "validation", "test"):
        for number in range(2):
            pixels = np.random.default_rng(number).integers(0, 256, (64, 64, 3), dtype=np.uint8)
            for folder, image in (("images", pixels), ("annotations", pixels[..., 0] // 128)):
                (tmp_path / "scenes" / split / folder).mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(tmp_path / "scenes" / split / folder / f"{number}.png")
    recipe = yaml.safe_load(find_recipe("emo/segment").read_text())
    recipe |= {"method": "emo", "dataset": str(tmp_path / "scenes"), "max_steps": 1, "per_device_train_batch_size": 2}
    recipe |= {"augmentation": {"crop_size": [64, 64]}, "card_license": "mit"}
    recipe["label_names"] = ["ground", "sky"]
    recipe["processor"]["size"] = {"height": 64, "width": 64}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(recipe))
    results = tmp_path / "results.json"

    run(SCRIPTS / "reproduce_segmentation.py", "emo/reproduce_segmentation", "--recipe", tmp_path / "tiny.yaml",
        "--output_dir", tmp_path / "runs", "--results", results)  # fmt: skip

    record = json.loads(results.read_text())
    assert len({row["model"] for row in record["rows"]}) == 7
    assert record["verdict"] == "undecided", "one seed decides nothing"
    saved = tmp_path / "runs" / "EMO-1M-PSPNet-head-seed0" / "model"
    assert AutoModelForSemanticSegmentation.from_pretrained(saved).config.decode_head == "pspnet"
    assert len(list((tmp_path / "runs").glob("*/model"))) == 5, "the peer is no model of decahub"


@pytest.mark.slow
def test_quantize_measures_each_kind(tmp_path):
    pytest.importorskip("onnxruntime", reason='quantization needs `pip install "decahub[export]"`')
    run(SCRIPTS / "train.py", "emo/cifar10", *TINY, "--max_steps", "2", "--output_dir", tmp_path)

    run(SCRIPTS / "quantize.py", "--model", tmp_path / "model", "--dataset", "sklearn_digits", "--seeds", "0", "1",
        "--max_eval_samples", "20", "--num_calibration_images", "20", "--output_dir", tmp_path / "int8",
        "--results", tmp_path / "int8.json")  # fmt: skip

    rows = json.loads((tmp_path / "int8.json").read_text())["rows"]
    assert [row["n"] for row in rows] == [1, 1, 1, 1, 2, 2]
    sizes = [row["value"] for row in rows if "MB" in row["metric"]]
    assert max(sizes[1:]) < sizes[0] / 2
