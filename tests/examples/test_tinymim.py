"""Each script of TinyMIM runs from end to end on a tiny slice, and what it writes loads.

scikit-learn's digits stand in for the recipes' datasets, since they need no download.
"""

import json
import re
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoImageProcessor, AutoModel, AutoModelForImageClassification, Dinov2Config, Dinov2Model

from decahub import TinyMimConfig, TinyMimImageProcessor, TinyMimModel

from .scripts import EXAMPLES, copy_stopped_run, decahub, run


SCRIPTS = EXAMPLES / "tinymim"
SIZES = {"image_size": 32, "patch_size": 8, "hidden_size": 16, "intermediate_size": 32}
TINY = [
    "--dataset", "sklearn_digits",
    "--max_train_samples", "48",
    "--max_eval_samples", "20",
    "--per_device_train_batch_size", "8",
    "--logging_steps", "1",
]  # fmt: skip
PROBE = ["--num_fit_rows", "30"]


@pytest.fixture(scope="module")
def strong_teacher(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("strong_teacher") / "strong"
    config = Dinov2Config(hidden_size=48, num_hidden_layers=9, num_attention_heads=6, image_size=56, patch_size=14)
    Dinov2Model(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("teacher")
    TinyMimModel(TinyMimConfig(num_hidden_layers=6, num_attention_heads=4, **SIZES)).save_pretrained(folder)
    TinyMimImageProcessor(size={"height": 32, "width": 32}, do_center_crop=False).save_pretrained(folder)
    return folder


def test_reconstruct_writes_an_encoder(tmp_path):
    decahub("train", "tinymim/pretrain_teacher", *TINY, *PROBE, "--max_steps", "2", "--output_dir", tmp_path)

    model = AutoModel.from_pretrained(tmp_path / "model")
    assert isinstance(model, TinyMimModel)
    scores = json.loads((tmp_path / "model" / "evaluation.json").read_text())["figures"]
    assert [row["metric"] for row in scores] == ["linear_probe_accuracy", "knn_accuracy"]


def test_distill_writes_a_student_that_can_be_finetuned(teacher, tmp_path):
    run(SCRIPTS / "train.py", "tinymim/distill", *TINY, *PROBE,
        "--max_steps", "2", "--teacher", teacher, "--output_dir", tmp_path / "student")  # fmt: skip
    run(SCRIPTS / "train.py", "tinymim/finetune", *TINY, "--num_labeled_per_class", "3",
        "--max_steps", "2", "--pretrained", tmp_path / "student" / "model",
        "--output_dir", tmp_path / "out")  # fmt: skip

    model = AutoModelForImageClassification.from_pretrained(tmp_path / "out" / "model").eval()
    processor = AutoImageProcessor.from_pretrained(tmp_path / "out" / "model")
    inputs = processor(torch.zeros(3, 9, 7, dtype=torch.uint8), return_tensors="pt")
    assert model(**inputs).logits.shape == (1, 10)


def test_distill_needs_no_labels(teacher, tmp_path):
    (tmp_path / "images" / "train").mkdir(parents=True)
    for number in range(9):
        Image.new("RGB", (40, 33), (20 * number, 90, 7)).save(tmp_path / "images" / "train" / f"{number}.png")

    decahub("train", "tinymim/distill", "--dataset", tmp_path / "images", "--max_steps", "1", "--card_license", "mit",
            "--per_device_train_batch_size", "3", "--teacher", teacher, "--output_dir", tmp_path)  # fmt: skip

    assert isinstance(AutoModel.from_pretrained(tmp_path / "model"), TinyMimModel)
    assert not (tmp_path / "model" / "evaluation.json").exists()


def test_distill_resumes_bit_exactly(teacher, tmp_path):
    def distill(name: str) -> None:
        run(SCRIPTS / "train.py", "tinymim/distill", *TINY, *PROBE, "--max_steps", "4", "--save_steps", "2",
            "--teacher", teacher, "--output_dir", tmp_path / name)  # fmt: skip

    distill("whole")
    copy_stopped_run(tmp_path / "whole", tmp_path / "broken", step=2)
    distill("broken")

    whole, broken = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "broken"))
    assert all(torch.equal(value, broken[name]) for name, value in whole.items())


def reproduce(recipe: str, folder: Path, *arguments: object) -> None:
    finetuning = (
        "{stage: finetune, num_labeled_per_class: 2, per_device_train_batch_size: 10, config: {feature_layer: -1}}"
    )
    run(SCRIPTS / "reproduce.py", recipe, "--dataset", "sklearn_digits", "--seeds", "[0]",
        "--max_train_samples", "32", "--num_test_rows", "20", "--num_probe_rows", "10", "--num_fit_rows", "20",
        "--finetuning", finetuning, "--output_dir", folder / "runs", "--results_dir", folder / "results",
        *arguments)  # fmt: skip


def test_reproduce_compares_arms(teacher, strong_teacher, tmp_path):
    reproduce("tinymim/reproduce", tmp_path, "--arms", "[scratch, mae, tinymim, strong]", "--epochs", "{}",
              "--teacher", teacher, "--strong_teacher", strong_teacher)  # fmt: skip

    record = json.loads((tmp_path / "results" / "tinymim.json").read_text())
    assert [row["model"] for row in record["rows"]] == ["TinyMIM", "masked autoencoder", "from scratch"]
    assert record["verdict"] == "undecided", "one seed decides nothing"
    strong = json.loads((tmp_path / "results" / "tinymim_strong_teacher.json").read_text())
    assert strong["rows"][0]["model"] == "TinyMIM, teacher: strong"
    assert {path.name for path in (tmp_path / "results").iterdir()} == {
        "tinymim.json", "tinymim_probes.json", "tinymim_strong_teacher.json"
    }  # fmt: skip


def test_reproduce_compares_targets(strong_teacher, tmp_path):
    reproduce("tinymim/reproduce_targets", tmp_path, "--pretraining", "{num_train_epochs: 1}",
              "--strong_teacher", strong_teacher)  # fmt: skip

    assert [path.name for path in (tmp_path / "results").iterdir()] == ["tinymim_targets.json"]
    record = json.loads((tmp_path / "results" / "tinymim_targets.json").read_text())
    assert len(record["rows"]) == 3
    teacher, low, high = map(float, re.findall(r"\d+\.\d", record["notes"][0]))
    assert 0 <= low <= high <= 100
    assert 0 <= teacher <= 100


def test_states_are_those_of_the_rows_of_every_seed(strong_teacher, tmp_path):
    words = ("tinymim/reproduce_targets", tmp_path, "--pretraining", "{num_train_epochs: 1}", "--arms", "[features]",
             "--strong_teacher", strong_teacher)  # fmt: skip
    reproduce(*words, "--seeds", "[0, 1]")

    assert {path.name for path in (tmp_path / "runs").glob("features-*")} == {"features-seed0", "features-seed1"}
    with pytest.raises(
        ValueError, match="must hold states of the teacher and rows of the run; its set of rows differs"
    ):
        reproduce(*words, "--seeds", "[2]", "--max_train_samples", "16")


def test_reproduce_targets_needs_a_strong_teacher(tmp_path):
    with pytest.raises(ValueError, match="--strong_teacher FOLDER"):
        reproduce("tinymim/reproduce_targets", tmp_path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--epochs", "{relatons: 5}"], "`epochs` must be among relations, .*; got relatons"),
        (["--settings.relations.cache", "true"], "`settings.relations` must hold some of cached, .*; got cache"),
        (["--finetuning", "{stage: finetune, learning_rat: 1}"], "learning_rat"),
        (["--teacher", "elsewhere"], "`teacher` must be left out for relations, features, cls, which have none"),
    ],
    ids=["epochs", "settings", "finetuning", "teacher"],
)
def test_reproduce_refuses_before_the_first_arm(words, message, strong_teacher, tmp_path):
    with pytest.raises((ValueError, TypeError), match=message):
        run(SCRIPTS / "reproduce.py", "tinymim/reproduce_targets", "--dataset", "sklearn_digits", *words,
            "--strong_teacher", strong_teacher, "--output_dir", tmp_path / "runs")  # fmt: skip

    assert not (tmp_path / "runs").exists()
