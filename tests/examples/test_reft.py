"""Each script of RefT runs from end to end on a tiny slice, and what it writes loads."""

import json

import pytest
import yaml
from transformers import pipeline

import decahub  # noqa: F401  (registers the models)
from tests.tiny.instances import HEIGHT, NOVEL, WIDTH, write_coco_folder
from tests.tiny.reft import RESNET, tiny_config

from . import scripts
from .scripts import EXAMPLES, run


SCRIPTS = EXAMPLES / "reft"
FIELDS = (
    "feature_size", "mask_feature_size", "hidden_dim", "encoder_feedforward_dim", "dim_feedforward", "encoder_layers",
    "decoder_layers", "num_attention_heads", "num_queries", "train_num_points", "support_size",
)  # fmt: skip
CONFIG = {"backbone_config": RESNET, **{name: getattr(tiny_config(), name) for name in FIELDS}}
SHARED = {
    "novel_classes": list(NOVEL),
    "augmentation": {"image_size": 96, "scale_range": [1.0, 1.0]},
    "per_device_train_batch_size": 3,
    "per_device_eval_batch_size": 2,
}


@pytest.fixture
def folder(tmp_path):
    return write_coco_folder(tmp_path / "shapes")


@pytest.fixture
def recipe(folder, tmp_path):
    settings = {
        **SHARED,
        "dataset": str(folder),
        "config": CONFIG,
        "processor": {"size": {"height": HEIGHT, "width": WIDTH}},
        "num_shots": 2,
        "max_steps": 2,
        "card_title": "tiny",
        "card_summary": "A test.",
        "card_license": "mit",
    }
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def test_train_writes_a_folder_that_answers(recipe, folder, tmp_path):
    run(SCRIPTS / "train.py", recipe, "--output_dir", tmp_path / "run", launcher="accelerate")

    segment = pipeline("few-shot-instance-segmentation", model=str(tmp_path / "run" / "model"))
    answer = segment(str(folder / "test" / "0.png"), threshold=0.0)
    assert {item["label"] for item in answer} <= {"dot", "bar", "kite"}
    evaluation = json.loads((tmp_path / "run" / "model" / "evaluation.json").read_text())
    assert evaluation["figures"][0]["metric"] == "AP"


def test_decahub_goes_on_to_novel_classes(recipe, folder, tmp_path):
    run(SCRIPTS / "train.py", recipe, "--output_dir", tmp_path / "base")

    output = scripts.decahub(
        "train", "reft/fsis", "--dataset", folder, "--novel_classes", "kite", "--num_shots", "2", "--max_steps", "2",
        "--augmentation", yaml.safe_dump(SHARED["augmentation"], default_flow_style=True).strip(),
        "--pretrained", tmp_path / "base" / "model", "--card_license", "mit", "--output_dir", tmp_path / "fsis",
    )  # fmt: skip

    assert "nAP" in output
    memory = pipeline("few-shot-instance-segmentation", model=str(tmp_path / "fsis" / "model")).model.support_memory
    assert memory.class_names == ["kite"]


def test_reproduce_compares_the_settings(folder, tmp_path):
    settings = {
        "shots": [1, 2],
        "seeds": [0, 1],
        "shared": {**SHARED, "dataset": str(folder), "processor": {"size": {"height": HEIGHT, "width": WIDTH}}},
        "base": {"config": CONFIG, "max_steps": 2},
        "further_base": {"max_steps": 1},
        "few_shot": {"max_steps": 1},
        "output_dir": str(tmp_path / "runs"),
        "results_dir": str(tmp_path / "results"),
    }
    path = tmp_path / "reproduce.yaml"
    path.write_text(yaml.safe_dump(settings))

    run(SCRIPTS / "reproduce.py", path)

    names = sorted(file.name for file in (tmp_path / "results").iterdir())
    assert names == ["reft.json", "reft_generalized.json", "reft_incremental.json", "reft_prototype.json"]
    record = json.loads((tmp_path / "results" / "reft.json").read_text())
    assert {row["n"] for row in record["rows"]} == {1, 2}
    assert record["verdict"] == "undecided", "two pairs decide nothing"
    assert sorted(file.name for file in (tmp_path / "runs" / "fsis-reft-k1-seed0").iterdir()) == ["run.json"]
