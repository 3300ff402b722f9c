"""Subtyping models as repositories: what is staged, that it loads without decahub, what verify measures."""

import re

import pytest

from decahub import MpdSubtypingFeatureExtractor, MpdSubtypingModel, load_dataset
from decahub.data.mpd_synthetic import FEATURE_PATTERNS
from decahub.evaluation import build_evaluation, evaluate_model
from decahub.hub import save_model_folder, stage_repository, verify
from decahub.hub.files import read_json
from decahub.models.mpd_subtyping.configuration_mpd_subtyping import MpdSubtypingConfig


WITHOUT_DECAHUB = """
import sys
sys.modules["decahub"] = None  # any import of it now fails, as if it were not installed
import pandas
table = pandas.read_json(sys.argv[2])
exec(sys.argv[1])
"""
TASK, DATASET = "patient-subtyping", "mpd_synthetic"
RECIPE = {
    "dataset": DATASET,
    "card_title": "mpd-tiny",
    "card_summary": "Principal components of a synthetic cohort.",
    "card_intended_use": "Tests: it is small and quick.",
    "card_limits": "It describes nobody. A subtype is not a diagnosis.",
}


@pytest.fixture(scope="module")
def splits():
    return load_dataset(DATASET)


@pytest.fixture(scope="module")
def folder(splits, tmp_path_factory):
    extractor = MpdSubtypingFeatureExtractor(
        list(FEATURE_PATTERNS), id_column="id", selection="top_k", top_k=20
    ).fit(splits["train"])  # fmt: skip
    batch = extractor(splits["train"])
    config = MpdSubtypingConfig.from_variant("linear", num_features=20, latent_dims=[2, 4])
    model = MpdSubtypingModel(config)
    model.fit(batch["features"][batch["is_patient"]])
    measurement = evaluate_model(model, extractor, splits["test"], TASK)
    evaluation = build_evaluation(measurement, task=TASK, dataset=DATASET, split="test", minutes=0.1)
    target = tmp_path_factory.mktemp("folders") / "mpd-tiny"
    return save_model_folder(target, model, extractor, evaluation=evaluation, recipe=RECIPE)


@pytest.fixture(scope="module")
def staged(folder, tmp_path_factory):
    staging = tmp_path_factory.mktemp("staging")
    stage_repository(folder, "someone/mpd-tiny", staging)
    return staging


def test_configurations_name_the_code(staged):
    assert read_json(staged / "config.json")["auto_map"] == {
        "AutoConfig": "configuration_mpd_subtyping.MpdSubtypingConfig",
        "AutoModel": "modeling_mpd_subtyping.MpdSubtypingModel",
    }
    assert (staged / "preprocessor_state.safetensors").is_file()


def test_lines_of_the_card_run_without_decahub(staged, splits, tmp_path, run_python):
    code = re.findall(r"```python\n(.*?)```", (staged / "README.md").read_text(), re.DOTALL)[1]
    code = code.replace("someone/mpd-tiny", str(staged)).replace("table = ...", "pass")
    rows = tmp_path / "rows.json"
    splits["test"].select(range(5)).to_pandas().to_json(rows)

    output = run_python(WITHOUT_DECAHUB, code, str(rows))

    assert "tensor([" in output


def test_card_says_that_a_subtype_is_no_diagnosis(folder):
    text = (folder / "README.md").read_text()

    assert "not a diagnosis" in text
    assert "ari" in text


def test_verify_measures_the_patients_again(folder):
    report = verify(folder)

    assert report.exit_code == 0, report
    assert "ari" in [check.name for check in report.checks]
