"""Graph models as repositories: what is staged, and that it loads where decahub cannot be imported."""

import re

import pytest

from decahub.hub import stage_repository, verify
from decahub.hub.files import read_json
from tests.hub.builders import build_graph_folder, build_graphs


RUN_CARD_WITHOUT_DECAHUB = """
import sys
sys.modules["decahub"] = None  # any import of it now fails, as if it were not installed
exec(sys.argv[1])
"""


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    return build_graph_folder(tmp_path_factory.mktemp("folders") / "raw-gnn-tiny")


@pytest.fixture(scope="module")
def staged(classifier, tmp_path_factory):
    folder = tmp_path_factory.mktemp("staging")
    stage_repository(classifier, "someone/raw-gnn-tiny", folder)
    return folder


def test_configurations_name_the_code(staged):
    assert read_json(staged / "config.json")["auto_map"] == {
        "AutoConfig": "configuration_raw_gnn.RawGnnConfig",
        "AutoModel": "modeling_raw_gnn.RawGnnModel",
        "AutoModelForNodeClassification": "modeling_raw_gnn.RawGnnForNodeClassification",
    }
    assert read_json(staged / "preprocessor_config.json")["auto_map"] == {
        "AutoFeatureExtractor": "feature_extraction_raw_gnn.RawGnnFeatureExtractor"
    }
    assert (staged / "walks_sampling_raw_gnn.py").is_file()


def test_card_of_a_repository_shows_both_ways(staged):
    text = (staged / "README.md").read_text()

    assert 'pipeline("node-classification", model="someone/raw-gnn-tiny", trust_remote_code=False)' in text
    assert 'get_class_from_dynamic_module("modeling_raw_gnn.RawGnnForNodeClassification", "someone/' in text
    assert "custom_code" in text


def test_lines_of_the_card_run_without_decahub(staged, run_python):
    code = re.findall(r"```python\n(.*?)```", (staged / "README.md").read_text(), re.DOTALL)[1]

    output = run_python(RUN_CARD_WITHOUT_DECAHUB, code.replace("someone/raw-gnn-tiny", str(staged)))

    assert "tensor([[" in output


@pytest.mark.parametrize("limit", [None, 5])
def test_verify_measures_the_nodes_again(classifier, tmp_path, limit):
    report = verify(classifier, build_graphs(tmp_path / "data"), limit)

    names = [check.name for check in report.checks][6:]
    assert report.exit_code == (3 if limit else 0), report
    assert names == ["accuracy", "macro_f1", *(["all examples"] if limit else [])]


def test_verify_notices_a_wrong_score(tmp_path):
    evaluation = read_json(build_graph_folder(tmp_path / "first") / "evaluation.json")
    evaluation["figures"][0]["value"] += 0.01
    folder = build_graph_folder(tmp_path / "second", evaluation=evaluation)

    assert verify(folder, build_graphs(tmp_path / "data")).exit_code == 1


def test_verify_without_the_data_says_so(classifier, monkeypatch):
    monkeypatch.delenv("DECAHUB_DATA_DIR", raising=False)

    assert verify(classifier).exit_code == 3


def test_own_data_is_not_measured_again(tmp_path):
    evaluation = read_json(build_graph_folder(tmp_path / "first") / "evaluation.json")
    evaluation["dataset"] = {**evaluation["dataset"], "name": "mine"}
    recipe = {"card_license": "mit", **dict.fromkeys(("card_summary", "card_intended_use", "card_limits"), "None.")}
    folder = build_graph_folder(
        tmp_path / "second", evaluation=evaluation, recipe={**recipe, "card_title": "raw-gnn-tiny"}
    )

    report = verify(folder, tmp_path)

    assert report.exit_code == 3
    assert "measured on your own data" in report.checks[-1].detail
