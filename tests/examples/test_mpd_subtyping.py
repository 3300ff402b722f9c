"""Each script of MPD subtyping runs from end to end on a tiny cohort, and what it writes loads."""

import json

import pandas as pd
import pytest
from transformers import AutoFeatureExtractor, AutoModel

from tests.tiny.mpd_subtyping import build_tiny_table

from . import scripts
from .scripts import EXAMPLES, run


SCRIPTS = EXAMPLES / "mpd_subtyping"
REPETITIONS = "{jaccard: 2, significance: 9, mixture: 9, prediction_strength: 2, splits: 1, nuisance: 9}"


@pytest.fixture
def words(tmp_path):
    pd.DataFrame(build_tiny_table()).to_csv(tmp_path / "table.csv", index=False)
    return [
        "--dataset", tmp_path / "table.csv",
        "--card_license", "other",
        "--feature_extractor", "{feature_names: ['roi_*'], id_column: id, selection: none}",
        "--config", "{num_runs: 1, latent_dims: [2, 3], base_num_clusters: 4}",
        "--validity", f"{{quick: true, refit: linear, checks: [jaccard, mixture], repetitions: {REPETITIONS}}}",
        "--num_train_epochs", "2",
    ]  # fmt: skip


def test_train_writes_a_folder_that_loads(words, tmp_path):
    output = run(SCRIPTS / "train.py", "mpd_subtyping/table", *words, "--output_dir", tmp_path / "run")

    folder = tmp_path / "run" / "model"
    extractor, model = AutoFeatureExtractor.from_pretrained(folder), AutoModel.from_pretrained(folder)
    assert model(extractor(build_tiny_table())["features"]).subtypes.shape == (71,)
    assert "Report:" in output


def test_decahub_train_does_as_the_script(words, tmp_path):
    scripts.decahub("train", "mpd_subtyping/table", *words, "--output_dir", tmp_path / "command")
    run(SCRIPTS / "train.py", "mpd_subtyping/table", *words, "--output_dir", tmp_path / "script")

    weights = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("command", "script")]
    assert weights[0] == weights[1]


def test_reproduce_goes_on_where_it_was(tmp_path):
    pytest.importorskip("diptest", reason="diptest is not installed")
    options = [
        "--num_runs", "1", "--num_compared", "1", "--judged_kinds", "['null']", "--compared_kinds", "[easy]",
        "--with_sites", "false", "--repetitions", REPETITIONS, "--training", "{num_epochs: 1}", "--variant", "small",
        "--output_dir", tmp_path / "run", "--results_dir", tmp_path / "results",
    ]  # fmt: skip
    run(SCRIPTS / "reproduce.py", "mpd_subtyping/reproduce", *options)
    path = tmp_path / "run" / "runs.jsonl"
    first = path.read_text()
    path.write_text(first[:-20])  # as a kill leaves it

    run(SCRIPTS / "reproduce.py", "mpd_subtyping/reproduce", *options)

    records = [[json.loads(line) for line in text.splitlines()] for text in (first, path.read_text())]
    for record in (*records[0], *records[1]):
        record.pop("cpu_seconds")
    assert records[0] == records[1]
    power = json.loads((tmp_path / "results" / "mpd_subtyping_power.json").read_text())
    assert power["verdict"] == "undecided", "one cohort decides nothing"
    assert (tmp_path / "results" / "mpd_subtyping_recovery.png").is_file()
