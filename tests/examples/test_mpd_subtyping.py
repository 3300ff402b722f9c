"""Each script of MPD subtyping runs from end to end on a tiny cohort, and what it writes loads."""

import importlib.util
import json
import sys

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


@pytest.fixture
def study(tmp_path):
    """Words for a study of one cohort for each part."""
    pytest.importorskip("diptest", reason="diptest is not installed")
    return [
        "--num_runs", "1", "--num_compared", "1", "--judged_kinds", "['null']", "--compared_kinds", "[easy]",
        "--with_sites", "false", "--repetitions", REPETITIONS, "--training", "{num_epochs: 1}", "--variant", "small",
        "--output_dir", tmp_path / "run", "--results_dir", tmp_path / "results",
    ]  # fmt: skip


def test_reproduce_goes_on_where_it_was(study, tmp_path):
    study += ["--num_smile_gan", "0"]
    run(SCRIPTS / "reproduce.py", "mpd_subtyping/reproduce", *study)
    path = tmp_path / "run" / "runs.jsonl"
    first = path.read_text()
    path.write_text(first[:-20])  # as a kill leaves it

    run(SCRIPTS / "reproduce.py", "mpd_subtyping/reproduce", *study)

    records = [[json.loads(line) for line in text.splitlines()] for text in (first, path.read_text())]
    for record in (*records[0], *records[1]):
        record.pop("cpu_seconds")
    assert records[0] == records[1]
    power = json.loads((tmp_path / "results" / "mpd_subtyping_power.json").read_text())
    assert power["verdict"] == "undecided", "one cohort decides nothing"
    assert (tmp_path / "results" / "mpd_subtyping_recovery.png").is_file()


FAKE_TRAINING = """
import pathlib
import numpy, torch

class Smile_GAN_train:
    starts = 0

    def __init__(self, ncluster, start_saving_epoch, max_epoch, wd, aq, cluster_loss, **settings):
        assert start_saving_epoch < max_epoch and (ncluster, aq) == (2, 20)

    def train(self, name, data, covariate, folder, random_seed, verbose):
        print("NOISE")
        self.starts += 1
        if self.starts == 1:
            return False  # its groups became one: nothing is saved
        for table in (data, covariate):
            assert list(table.columns[:2]) == ["participant_id", "diagnosis"]
            assert (table.diagnosis == 1).sum() == 400 and (table.diagnosis == -1).sum() == 250
        assert list(covariate.columns[2:]) == ["age", "sex", "site-2", "site-3", "site-4"]
        torch.save({"mean": data.iloc[:, 2:].mean().to_numpy(), "seed": random_seed}, pathlib.Path(folder, "latest"))
        return False
"""
FAKE_RESULT = """
import torch

def clustering_result(paths, consensus_type, data, covariate):
    mean = torch.load(paths[0])["mean"]  # of arrays, as that of the package
    patients = data[data.diagnosis == 1].iloc[:, 2:] - mean
    front, back = (patients.filter(like=name).mean(axis=1) for name in ("frontal", "posterior"))
    return (front > back).to_numpy().astype(int), None, 1, 0
"""


@pytest.fixture
def fake_smile_gan(tmp_path, monkeypatch):
    """A package of the same name that tells subtypes apart by the sign of the pattern."""
    for name, text in (
        ("SmileGAN/__init__.py", ""),
        ("SmileGAN/clustering.py", FAKE_TRAINING),
        ("SmileGAN/Smile_GAN_clustering.py", FAKE_RESULT),
        ("SmileGAN-9.9.dist-info/METADATA", "Metadata-Version: 2.1\nName: SmileGAN\nVersion: 9.9\n"),
    ):
        path = tmp_path / "packages" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    yield
    for name in [name for name in sys.modules if name.startswith("SmileGAN")]:
        del sys.modules[name]


@pytest.mark.usefixtures("fake_smile_gan")
def test_reproduce_compares_with_smile_gan_if_it_is_there(study, tmp_path, monkeypatch):
    study += ["--num_smile_gan", "1"]
    output = run(SCRIPTS / "reproduce.py", "mpd_subtyping/reproduce", *study)

    assert "NOISE" not in output
    recovery = json.loads((tmp_path / "results" / "mpd_subtyping.json").read_text())
    row = next(row for row in recovery["rows"] if row["model"] == "SmileGAN, raw")
    assert (row["dataset"], row["seeds"]) == ("easy", [0])
    assert row["value"] > 0.8
    assert any("SmileGAN 9.9" in note and "0 of 1 runs met it" in note for note in recovery["notes"])
    peer = json.loads((tmp_path / "results" / "mpd_subtyping_smile_gan.json").read_text())
    assert [part["num_pairs"] for part in peer["comparisons"]] == [1, 1]

    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "SmileGAN" else find_spec(name))
    output = run(SCRIPTS / "reproduce.py", "mpd_subtyping/reproduce", *study)

    assert "SmileGAN is not installed" in output
    assert json.loads((tmp_path / "results" / "mpd_subtyping.json").read_text())["rows"] == recovery["rows"]
