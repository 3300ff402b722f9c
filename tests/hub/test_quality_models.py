"""Image quality models as repositories: what is staged, that it loads without decahub, what verify measures."""

import csv
import re

import datasets
import pytest
import torch

from decahub import PmtIqaForImageQualityAssessment, PmtIqaImageProcessor, load_dataset
from decahub.evaluation import build_evaluation, evaluate_model
from decahub.hub import save_model_folder, stage_repository, verify
from decahub.hub.files import read_json
from tests.tiny.pmt_iqa import CROP_SIZE, tiny_config
from tests.tiny.quality_folder import write_quality_folder


WITHOUT_DECAHUB = """
import sys
sys.modules["decahub"] = None  # any import of it now fails, as if it were not installed
exec(sys.argv[1])
"""
TASK = "image-quality-assessment"
RECIPE = {
    "card_title": "pmt-iqa-tiny",
    "card_summary": "A tiny model of image quality.",
    "card_intended_use": "Tests: it is small and quick.",
    "card_limits": "It never learned anything.",
}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """A stand-in for the photographs of the catalog, in their layout."""
    folder = tmp_path_factory.mktemp("data") / "biq2021_subset"
    images = write_quality_folder(folder / "images", size=CROP_SIZE + 10)
    with (images / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    columns = {
        "image": [str(images / row["file_name"]) for row in rows],
        "name": [row["file_name"] for row in rows],
        "mos": [float(row["score"]) / 100 for row in rows],
        "subset": [row["source"] for row in rows],
    }
    features = datasets.Features(
        image=datasets.Image(),
        name=datasets.Value("string"),
        mos=datasets.Value("float32"),
        subset=datasets.Value("string"),
    )
    table = datasets.Dataset.from_dict(columns, features=features)
    for split in ("train", "test"):
        table.to_parquet(folder / f"{split}.parquet")
    return folder.parent


@pytest.fixture(scope="module")
def folder(data_dir, tmp_path_factory):
    torch.manual_seed(0)
    model = PmtIqaForImageQualityAssessment(tiny_config(score_high=1.0)).eval()
    processor = PmtIqaImageProcessor(crop_size={"height": CROP_SIZE, "width": CROP_SIZE}, num_crops=4)
    rows = load_dataset("biq2021_subset", data_dir)["test"]
    measurement = evaluate_model(model, processor, rows, TASK)
    evaluation = build_evaluation(measurement, task=TASK, dataset="biq2021_subset", split="test", minutes=0.1)
    recipe = {"dataset": "biq2021_subset", **RECIPE}
    return save_model_folder(
        tmp_path_factory.mktemp("folders") / "pmt-iqa-tiny", model, processor, evaluation=evaluation, recipe=recipe
    )


@pytest.fixture(scope="module")
def staged(folder, tmp_path_factory):
    staging = tmp_path_factory.mktemp("staging")
    stage_repository(folder, "someone/pmt-iqa-tiny", staging)
    return staging


def test_configurations_name_the_code(staged):
    assert read_json(staged / "config.json")["auto_map"] == {
        "AutoConfig": "configuration_pmt_iqa.PmtIqaConfig",
        "AutoModel": "modeling_pmt_iqa.PmtIqaModel",
        "AutoModelForImageQualityAssessment": "modeling_pmt_iqa.PmtIqaForImageQualityAssessment",
    }
    assert (staged / "crops_pmt_iqa.py").is_file()


def test_lines_of_the_card_run_without_decahub(staged, data_dir, run_python):
    code = re.findall(r"```python\n(.*?)```", (staged / "README.md").read_text(), re.DOTALL)[1]
    photo = data_dir / "biq2021_subset" / "images" / "scene0_0.png"
    code = code.replace("someone/pmt-iqa-tiny", str(staged)).replace("photo.jpg", str(photo))

    output = run_python(WITHOUT_DECAHUB, code)

    assert "tensor([" in output


def test_verify_measures_the_images_again(folder, data_dir):
    report = verify(folder, data_dir)

    assert report.exit_code == 0, report
    assert [check.name for check in report.checks][6:8] == ["srcc", "plcc"]


def test_verify_notices_a_wrong_score(folder, data_dir, tmp_path):
    evaluation = read_json(folder / "evaluation.json")
    evaluation["figures"][0]["value"] += 0.01
    model = PmtIqaForImageQualityAssessment.from_pretrained(folder)
    processor = PmtIqaImageProcessor.from_pretrained(folder)
    other = save_model_folder(
        tmp_path / "model", model, processor, evaluation=evaluation, recipe={"dataset": "biq2021_subset", **RECIPE}
    )

    assert verify(other, data_dir).exit_code == 1
