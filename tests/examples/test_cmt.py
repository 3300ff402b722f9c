"""The scripts of CMT run from end to end on a few generated scenes, resume, and what they write loads."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoProcessor

import decahub  # noqa: F401  (registers the models)
from decahub import AutoModelForObjectDetection3D
from decahub.data import driving_scenes
from tests.tiny.cmt import LIDAR, VOVNET

from . import scripts
from .scripts import EXAMPLES, run


SCRIPTS = EXAMPLES / "cmt"
RECIPE = """
dataset: driving_scenes
config:
  image_backbone_config: {vovnet}
  lidar_backbone_config: {lidar}
  point_cloud_range: [-48.0, -40.0, -5.0, 48.0, 56.0, 3.0]
  hidden_size: 32
  num_queries: 30
  num_depth_bins: 8
  num_hidden_layers: 2
  num_attention_heads: 4
  intermediate_size: 48
  head_hidden_size: 12
image_processor:
  size: {{height: 32, width: 64}}
balance_classes: true
gt_sampling: {{bus: 2, car: 3}}
gt_sampling_fade_epoch: 1
lr_scheduler_type: one_cycle
max_grad_norm: 35.0
num_train_epochs: 2
per_device_train_batch_size: 2
per_device_eval_batch_size: 2
logging_steps: 1
card_title: tiny
card_summary: A test.
card_intended_use: Tests.
card_limits: Of no use.
"""


@pytest.fixture(autouse=True)
def few_scenes(monkeypatch):
    monkeypatch.setattr(driving_scenes, "SPLITS", {"train": 4, "validation": 2, "test": 2})


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "cmt").mkdir()
    path = tmp_path / "cmt" / "tiny.yaml"
    path.write_text(RECIPE.format(vovnet=VOVNET, lidar=LIDAR))
    return path


def test_train_writes_a_folder_that_loads(tmp_path, recipe):
    output = run(SCRIPTS / "train.py", recipe, "--max_steps", "3", "--output_dir", tmp_path / "run")

    model = AutoModelForObjectDetection3D.from_pretrained(tmp_path / "run" / "model").eval()
    processor = AutoProcessor.from_pretrained(tmp_path / "run" / "model")
    frame = driving_scenes.build_frame((0,))
    inputs = {name: frame[name] for name in ("images", "points", "intrinsics", "lidar2cam")}
    answer = processor.post_process_object_detection_3d(model(**processor(**inputs, return_tensors="pt")))[0]
    assert answer["boxes"].shape[1] == 9
    assert "nds" in output


def test_a_run_that_was_stopped_ends_with_the_same_weights(tmp_path, recipe):
    """The fade comes in the second epoch, between the two parts."""
    words = ("--save_steps", "2", "--save_total_limit", "9")
    run(SCRIPTS / "train.py", recipe, *words, "--output_dir", tmp_path / "whole")
    checkpoints = sorted((tmp_path / "whole").glob("checkpoint-*"))
    parts = tmp_path / "parts"
    parts.mkdir()
    (checkpoints[0]).rename(parts / checkpoints[0].name)

    run(SCRIPTS / "train.py", recipe, *words, "--output_dir", parts)

    whole, resumed = (load_file(folder / "model" / "model.safetensors") for folder in (tmp_path / "whole", parts))
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())


def test_decahub_train_does_as_the_script(tmp_path, recipe):
    words = (recipe, "--max_steps", "2")

    scripts.decahub("train", *words, "--output_dir", tmp_path / "command")
    run(SCRIPTS / "train.py", *words, "--output_dir", tmp_path / "script")

    weights, expected = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("command", "script"))
    assert all(torch.equal(weights[name], value) for name, value in expected.items())


def test_reproduce_compares_training_with_masked_sensors_and_without(tmp_path, recipe):
    words = ("cmt/reproduce", "--recipe", recipe, "--seeds", "0", "1", "--max_steps", "1")
    folders = ("--output_dir", tmp_path / "runs", "--results_dir", tmp_path / "results")

    run(SCRIPTS / "reproduce.py", *words, *folders)

    runs = [json.loads(path.read_text()) for path in sorted((tmp_path / "runs").glob("*/run.json"))]
    assert len(runs) == 6, "two arms and one without training, two seeds"
    assert {"none", "no LiDAR", "no cameras", "no CAM_BACK"} <= set(runs[0]["failures"])
    for name, num_comparisons in (("cmt", 3), ("cmt_masked_training", 2)):
        record = json.loads((tmp_path / "results" / f"{name}.json").read_text())
        assert [part["num_pairs"] for part in record["comparisons"]] == [2] * num_comparisons
        assert record["verdict"] == "undecided", "two pairs decide nothing"
    assert (tmp_path / "results" / "cmt_sensor_failures.png").stat().st_size > 0


def test_reproduce_takes_a_model_of_the_same_recipe(tmp_path, recipe):
    run(SCRIPTS / "train.py", recipe, "--max_steps", "1", "--output_dir", tmp_path / "run")
    words = ("cmt/reproduce", "--recipe", recipe, "--seeds", "0", "--trained", f"{{0: {tmp_path / 'run' / 'model'}}}")
    folders = ("--output_dir", tmp_path / "runs", "--results_dir", tmp_path / "results")

    run(SCRIPTS / "reproduce.py", *words, "--max_steps", "1", *folders)

    assert json.loads((tmp_path / "runs" / "masked-seed0" / "run.json").read_text())["steps"] == 1
    (tmp_path / "runs" / "masked-seed0" / "run.json").unlink()
    with pytest.raises(ValueError, match="has max_steps=1, not 2"):
        run(SCRIPTS / "reproduce.py", *words, "--max_steps", "2", *folders)
