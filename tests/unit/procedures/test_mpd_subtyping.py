"""The procedure: a fit is reproducible and resumes, the report says what was found and nothing about a person."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import pipeline

from decahub import MpdSubtypingFeatureExtractor, MpdSubtypingModel
from decahub.cli.main import main
from decahub.data.mpd_synthetic import make_cohort
from decahub.models.mpd_subtyping.optimization import MemberRecord
from decahub.procedures import mpd_subtyping
from decahub.training.checkpoint import CheckpointError
from tests.tiny.mpd_subtyping import NUM_PATIENTS, build_tiny_table


CONFIG = {"hidden_sizes": [6], "latent_dims": [2, 3], "num_runs": 2, "base_num_clusters": 4}
EXTRACTOR = {"id_column": "id", "selection": "none"}
VALIDITY = {
    "quick": True,
    "refit": "linear",
    "checks": ["jaccard", "significance", "mixture", "prediction_strength", "nuisance"],
    "repetitions": {
        "jaccard": 3, "significance": 19, "mixture": 19, "prediction_strength": 3, "splits": 1, "nuisance": 19,
    },
}  # fmt: skip
OPTIONS = {"config": CONFIG, "feature_extractor": EXTRACTOR, "validity": VALIDITY, "num_train_epochs": 4.0,
           "per_device_train_batch_size": 16, "learning_rate": 0.01, "use_cpu": True}  # fmt: skip


def fit(folder, table=None, **options):
    table = build_tiny_table() if table is None else table
    return mpd_subtyping.fit(table, feature_names=["roi_*"], output_dir=str(folder), **{**OPTIONS, **options})


def get_state(outcome):
    return outcome.result.model.state_dict()


def assert_same_bits(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


def test_fit_is_reproducible_to_the_bit(tmp_path):
    assert_same_bits(get_state(fit(tmp_path / "a")), get_state(fit(tmp_path / "b")))


@pytest.mark.parametrize("killed_at", [3, 7])
def test_a_killed_fit_ends_with_the_same_buffers(tmp_path, monkeypatch, killed_at):
    whole = get_state(fit(tmp_path / "whole", save_steps=1))
    update, calls = MemberRecord.update, []

    def die(self, model):
        update(self, model)
        calls.append(1)
        if len(calls) == killed_at:
            raise KeyboardInterrupt

    monkeypatch.setattr(MemberRecord, "update", die)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "killed", save_steps=1)
    monkeypatch.setattr(MemberRecord, "update", update)

    assert_same_bits(get_state(fit(tmp_path / "killed", save_steps=1)), whole)


def test_a_fit_that_died_in_the_clustering_ends_with_the_same_buffers(tmp_path, monkeypatch):
    whole = get_state(fit(tmp_path / "whole"))
    monkeypatch.setattr(MpdSubtypingModel, "fit_clusters", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "killed")
    monkeypatch.undo()

    assert_same_bits(get_state(fit(tmp_path / "killed")), whole)


def test_training_ends_when_all_members_are_done(tmp_path):
    outcome = fit(tmp_path, early_stopping_patience=1, num_train_epochs=400.0, learning_rate=0.3)

    assert outcome.result.stopped_early
    log = (tmp_path / "train_log.jsonl").read_text()
    assert "early stopping" in log


def test_members_keep_their_best_epoch(tmp_path):
    """The error of each member on validation patients is the lowest that was logged or lower."""
    outcome = fit(tmp_path, num_train_epochs=30.0, learning_rate=0.3)

    lines = [json.loads(line) for line in (tmp_path / "train_log.jsonl").read_text().splitlines()]
    errors = [line["eval_validation_error"] for line in lines if "eval_validation_error" in line]
    assert errors == sorted(errors, reverse=True)
    assert outcome.fit.subtype_sizes


@pytest.mark.parametrize("variant", ["small", "linear"])
def test_variants(tmp_path, variant):
    outcome = fit(tmp_path, variant=variant, config={"base_num_clusters": 4, "hidden_sizes": [5]})

    assert outcome.result.model.is_fitted
    assert sum(outcome.fit.subtype_sizes) == NUM_PATIENTS


LINEAR = {"variant": "linear", "config": {"base_num_clusters": 4, "hidden_sizes": [5]}}


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (LINEAR, {"config": {"base_num_clusters": 5}}, r"`config` must be .*4.* as in .*run\.json; got .*5"),
        (LINEAR, {"feature_extractor": {**EXTRACTOR, "impute": "control_mean"}}, "`feature_extractor` must be"),
        (LINEAR, {"table": build_tiny_table(seed=7)}, r"`table` must be 'data \w+' as in .*run\.json; got 'data \w+'"),
        (LINEAR, {"variant": "small"}, r"`variant` must be 'linear' as in .*run\.json; got 'small'"),
        (
            {**LINEAR, "variant": "small"},
            {"variant": "linear"},
            "`variant` must be 'small' as in .*progress.json; got",
        ),
    ],
    ids=["config", "extractor", "table", "trained", "linear"],
)
def test_a_folder_belongs_to_one_run(tmp_path, first, second, message):
    page = fit(tmp_path, **first).report
    before = page.read_text()

    with pytest.raises(
        CheckpointError, match=f"{message}.*Start with the run's own arguments and data, or in another"
    ):
        fit(tmp_path, **{**first, **second})

    assert page.read_text() == before


def test_linear_members_may_be_reported_again(tmp_path):
    fit(tmp_path, **LINEAR)

    assert "age" in fit(tmp_path, **LINEAR, nuisance=["age"]).report.read_text()


def test_sizes_that_do_not_fit_the_features_are_left_out(tmp_path, caplog):
    outcome = fit(tmp_path, config={"hidden_sizes": [6], "num_runs": 1},
                  feature_extractor={**EXTRACTOR, "selection": "top_k", "top_k": 6})  # fmt: skip

    assert outcome.result.model.config.latent_dims == [2, 3, 4, 5]
    assert "Embeddings of 5 sizes are left out: there are 6 features" in caplog.text


def test_report_is_one_page_that_names_nobody(tmp_path):
    table = build_tiny_table()

    outcome = fit(tmp_path, table, nuisance=["age", "sex", "site"])

    page = outcome.report.read_text()
    assert outcome.validity["verdict"] in page
    assert "not a diagnosis" in page
    assert page.count("data:image/png;base64,") == 4
    assert not re.search(r"(src|href)=['\"]https?:", page)
    numbers = json.loads((tmp_path / "subtype_report.json").read_text())
    assert numbers["validity"]["verdict"] == outcome.validity["verdict"]
    text = re.sub(r"base64,[^']+", "", page) + json.dumps(numbers)
    assert not any(name in text for name in table["id"])
    assert "subtypes" not in numbers["fit"]


def test_transfer_uses_nothing_of_those_who_are_assigned():
    table = build_tiny_table(80, 60)
    other = {name: values.copy() for name, values in table.items()}
    other["roi_1"][60:80] += 3  # of patients who are assigned
    train, test = np.arange(60), np.arange(60, 80)

    extractors = [
        mpd_subtyping.Transfer(columns, {"feature_names": ["roi_*"], "selection": "none"}, 2)._fit(train)[0]
        for columns in (table, other)
    ]
    assigned, own = mpd_subtyping.Transfer(table, {"feature_names": ["roi_*"], "selection": "none"}, 2)(train, test)

    probe = {name: values[:5] for name, values in table.items()}
    assert torch.equal(*(extractor(probe)["features"] for extractor in extractors))
    assert assigned.shape == own.shape == (20,)


# --- From a CSV file to a model folder, to answers


@pytest.fixture(scope="module")
def csv_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    pd.DataFrame(build_tiny_table()).to_csv(folder / "train.csv", index=False)
    new = {name: values[:9] for name, values in build_tiny_table(seed=7).items()}
    new["roi_2"] = new["roi_2"] + np.where(np.arange(9) == 4, 500.0, 0.0)
    pd.DataFrame(new).to_csv(folder / "new.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def model_folder(csv_files, tmp_path_factory):
    run = tmp_path_factory.mktemp("run")
    words = ["--feature_extractor", json.dumps({**EXTRACTOR, "feature_names": ["roi_*"]}),
             "--config", json.dumps(CONFIG), "--validity", json.dumps(VALIDITY), "--max_steps", "8",
             "--card_license", "other", "--nuisance", "[age, site]", "--use_cpu", "true"]  # fmt: skip
    status = main(["train", "mpd_subtyping/table", "--dataset", str(csv_files / "train.csv"),
                   "--output_dir", str(run), *words])  # fmt: skip
    assert status == 0
    return run / "model"


def test_command_line_fits_a_csv_file(model_folder):
    assert MpdSubtypingModel.from_pretrained(model_folder).is_fitted
    assert MpdSubtypingFeatureExtractor.from_pretrained(model_folder).is_fitted
    assert (model_folder.parent / "subtype_report.html").is_file()


def test_command_line_assigns_new_patients(model_folder, csv_files, tmp_path, capsys):
    status = main(["predict", str(model_folder), str(csv_files / "new.csv"), "--output-dir", str(tmp_path)])

    assert status == 0
    assert "subtype" in capsys.readouterr().out
    written = pd.read_csv(tmp_path / "new_subtypes.csv")
    assert written["id"].tolist() == [f"p{index:03d}" for index in range(9)]
    assert written.loc[4, "out_of_distribution"]


def test_pipeline_leaves_strangers_without_a_subtype(model_folder, csv_files):
    assign = pipeline("patient-subtyping", model=str(model_folder))
    table = pd.read_csv(csv_files / "new.csv")

    answers = assign(table)

    assert answers == assign(table.to_dict("records"))
    assert answers[4]["subtype"] is None
    assert answers[4]["note"]
    for answer in answers:
        assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-4)
        assert answer["nearest_subtype"] in answer["probabilities"]
    json.dumps(answers)


def test_pipeline_refuses_rows_with_different_columns(model_folder):
    assign = pipeline("patient-subtyping", model=str(model_folder))
    first, *others = pd.DataFrame(build_tiny_table(3, 0)).to_dict("records")

    for row in ({name: value for name, value in others[0].items() if name != "roi_1"}, {**others[0], "note": "new"}):
        with pytest.raises(ValueError, match="`table` must have the same keys in each row; row 1 differs"):
            assign([first, row])


def test_pipeline_leaves_controls_out(model_folder):
    assign = pipeline("patient-subtyping", model=str(model_folder))
    table = build_tiny_table(6, 4, seed=2)

    assert len(assign(table)) == 6
    assert len(assign(table, keep_controls=True)) == 10


def test_measures_unseen_patients_and_writes_a_card(tmp_path):
    cohort = make_cohort(0, gap=8.0, num_patients=160, num_controls=80, num_features=20)
    columns = {**cohort.columns, "subtype": np.r_[cohort.subtypes, np.full(80, -1)]}
    first = np.random.default_rng(0).random(240) < 0.5
    train, test = ({name: values[rows] for name, values in columns.items()} for rows in (first, ~first))
    names = ["frontal_*", "posterior_*", "other_*"]
    extractor = {"selection": "mean_or_spread", "id_column": "id"}

    options = {**OPTIONS, "feature_extractor": extractor, "variant": "linear", "config": {}}
    outcome = mpd_subtyping.fit(
        train, feature_names=names, test_table=test, output_dir=str(tmp_path / "run"), **options
    )

    assert outcome.measurement.scores["ari"] > 0.8
    assert next(iter(outcome.measurement.scores)) == "ari"
    assert outcome.measurement.num_rows == int((test["group"] != "control").sum())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_train_epochs": -1.0}, "`num_train_epochs` must be positive"),
        ({"max_train_samples": 5}, "`max_train_samples` must be unset"),
        ({"eval_epochs": 2}, "`eval_epochs` 1"),
        ({"early_stopping_patience": None}, "`early_stopping_patience` must be set"),
        ({"validation_share": 0.0}, r"`validation_share` must lie in \(0, 1\)"),
        ({"config": {"latent_dim": [2]}}, "`latent_dim` in `config` is not an option"),
        ({"feature_extractor": {"select": "none"}}, "`select` in `feature_extractor` is not an option"),
        ({"validity": {"fast": True}}, "`fast` in `validity` is not an option"),
        ({"validity": {"checks": ["jacard"]}}, "`checks` must be among jaccard, .*; got 'jacard'"),
        ({"validity": {"repetitions": {"jacard": 3}}}, "`repetitions` must have keys of jaccard, .*; got 'jacard'"),
        ({"validity": {"covariance": "soffft"}}, "`covariance` must be one of sample, hard, soft; got 'soffft'"),
        ({"validity": {"refit": "fully"}}, "`refit` must be one of .*; got 'fully'"),
        (
            {"nuisance": ["site"], "kinds": {"scaner": "categorical"}},
            "`kinds` must have .*; got 'scaner': 'categorical'",
        ),
        (
            {"clinical": ["site"], "kinds": {"site": "categoricl"}},
            "as keys, and continuous, ordinal or categorical as values; got 'site': 'categoricl'",
        ),
    ],
)
def test_refuses_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        mpd_subtyping.Arguments(**options)


def build_others(**columns):
    """Other people than those of `build_tiny_table()`, with some columns changed, or left out if None."""
    table = build_tiny_table(seed=7)
    table = {**table, "id": np.array([f"q{name}" for name in table["id"]]), **columns}
    return {name: np.asarray(values) for name, values in table.items() if values is not None}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nuisance": ["scanner"]}, "`nuisance` must name columns of the table; got 'scanner'"),
        ({"test_table": build_tiny_table()}, "must hold nobody of the training table"),
        ({"test_table": build_others(roi_2=None)}, "the test table cannot be measured: .*lacks roi_2"),
        ({"test_table": build_others(site=["moon"] * 71)}, "the test table cannot be measured: .*moon"),
        (
            {"test_table": build_others(roi_3=[np.nan] * 71)},
            "the test table cannot be measured: .*must have no missing values",
        ),
        (
            {"test_table": build_others(group=["control"] * 71)},
            "the test table cannot be measured: .*must hold patients",
        ),
        (
            {"test_table": build_others(subtype=["A", "B"] * 35 + ["A"])},
            "column `subtype` must hold the numbers of true subtypes, -1 where unknown; got 'A'. Rename it if",
        ),
        ({"test_table": build_others(subtype=[0.5] * 71)}, "column `subtype` must hold the numbers.*; got 0.5"),
    ],
)
def test_refuses_tables_before_training(tmp_path, monkeypatch, options, message):
    monkeypatch.setattr(mpd_subtyping, "train_members", None)
    with pytest.raises(ValueError, match=message):
        fit(tmp_path, **options)


def test_a_split_to_measure_must_exist(csv_files, caplog):
    for dataset, names in ((csv_files, "new, train"), (csv_files / "train.csv", "train")):
        arguments = mpd_subtyping.Arguments(dataset=str(dataset), eval_split="tset")
        with pytest.raises(ValueError, match=f"`eval_split` must be one of {names}; got 'tset'"):
            mpd_subtyping.load_cohort(arguments)

        caplog.clear()
        assert mpd_subtyping.load_cohort(mpd_subtyping.Arguments(dataset=str(dataset))).test is None
        assert "has no split 'test' beside that of the fit: nothing is measured" in caplog.text
