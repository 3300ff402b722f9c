"""Cohorts: what is in a synthetic table is known, and tables of a user are checked."""

import numpy as np
import pytest
from datasets import Dataset

from decahub import load_dataset
from decahub.data import abide_anatomy, mpd_semireal
from decahub.data.cohorts import check_leakage, read_csv, to_columns
from decahub.data.mpd_synthetic import (
    GAPS,
    KINDS,
    WITHOUT_SUBTYPES,
    CohortSettings,
    draw_direction,
    make_cohort,
    name_features,
)


SMALL = {"num_controls": 60, "num_patients": 90, "num_features": 20}


def stack(columns, settings):
    return np.stack([columns[name] for name in name_features(settings)], axis=1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_cohort_is_determined_by_its_seed(kind):
    first, second, other = (make_cohort(seed, kind=kind, **SMALL) for seed in (1, 1, 2))

    features = [stack(cohort.columns, cohort.settings) for cohort in (first, second, other)]
    assert np.array_equal(features[0], features[1])
    assert not np.array_equal(features[0], features[2])
    assert features[0].shape == (150, 20)
    assert (first.columns["group"] == "control").sum() == 60
    assert (first.subtypes.max() == -1) == (kind in WITHOUT_SUBTYPES)


@pytest.mark.parametrize("name", GAPS)
def test_centers_are_a_gap_apart(name):
    """Projected on the pattern of a noiseless table, the centers differ by the gap."""
    cohort = make_cohort(0, gap=name, num_patients=4000, num_controls=4000)
    settings = cohort.settings
    values = (stack(cohort.columns, settings) - 1) / 0.2
    difference = values[:4000][cohort.subtypes == 0].mean(0) - values[:4000][cohort.subtypes == 1].mean(0)

    size = np.sqrt(np.square(difference[:72]).mean())  # g has a root mean square of 1 over the pattern

    assert size / 0.45 == pytest.approx(GAPS[name], rel=0.08)
    assert np.mean(cohort.subtypes == 0) == pytest.approx(0.6, abs=0.03)


@pytest.mark.parametrize("kind", ["gaussian_continuum", "uniform_continuum"])
def test_continua_have_the_spread_of_subtypes(kind):
    spreads = []
    for name in ("subtypes", kind):
        cohort = make_cohort(0, kind=name, num_patients=3000, num_controls=10)
        values = (stack(cohort.columns, cohort.settings)[:3000] - 1) / 0.2
        contrast = values[:, :36].mean(1) - values[:, 36:72].mean(1)
        spreads.append(contrast.std())

    assert spreads[1] == pytest.approx(spreads[0], rel=0.06)


def test_patterns_are_positive_in_front_and_negative_behind():
    direction = draw_direction(CohortSettings(), np.random.default_rng(0))

    assert (direction[:36] > 0).all()
    assert (direction[36:72] < 0).all()
    assert not direction[72:].any()
    assert np.square(direction[:72]).mean() == pytest.approx(1)


def test_a_site_artifact_is_recorded_as_scanner_only():
    columns = make_cohort(0, kind="site_artifact", **SMALL).columns

    assert len(set(columns["scanner"])) == 4
    assert len(set(columns["site"])) == 3


def test_missing_values_on_request():
    cohort = make_cohort(0, missing=0.1, **SMALL)

    assert np.isnan(stack(cohort.columns, cohort.settings)).mean() == pytest.approx(0.1, abs=0.03)


@pytest.mark.parametrize("number", [3, 6])
def test_there_may_be_more_subtypes(number):
    assert set(make_cohort(0, num_subtypes=number, **SMALL).subtypes) == set(range(number))


def test_the_catalog_has_two_halves_of_one_cohort():
    loaded = load_dataset("mpd_synthetic")

    assert {name: len(rows) for name, rows in loaded.items()} == {"train": 650, "test": 650}
    assert not set(loaded["train"]["id"]) & set(loaded["test"]["id"])
    assert sum(group == "control" for group in loaded["train"]["group"]) == 250


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "real"}, "`kind` must be one of .*got 'real'"),
        ({"gap": "huge"}, "`gap` must be one of easy, medium, hard, or a number; got 'huge'"),
        ({"num_sites": 1}, "`num_sites` must be at least 2; got 1"),
        ({"num_subtypes": 7}, "`num_subtypes` must be from 2 to 6; got 7"),
        ({"share": 1.0}, r"`share` must lie in \[0, 1\); got 1.0"),
    ],
)
def test_refuses_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        make_cohort(0, **settings)


# --- Tables of a user


def test_reads_a_folder_of_tables(tmp_path):
    (tmp_path / "train.csv").write_text("id,group,x\na,control,1.5\nb,SZ,\n")

    rows = load_dataset(tmp_path, family="cohorts")["train"]

    assert to_columns(rows)["group"].tolist() == ["control", "SZ"]
    assert rows["x"][0] == 1.5


def test_ids_stay_as_the_table_writes_them(tmp_path):
    (tmp_path / "train.csv").write_text("id,code,group,x\n001,7,control,1.5\n1,8,SZ,\n NA ,9,SZ,2\n,10,SZ,3\n")

    assert load_dataset(tmp_path, family="cohorts")["train"]["id"][:] == ["001", "1", "NA", None]
    assert read_csv(tmp_path / "train.csv", "code")["code"].tolist() == ["7", "8", "9", "10"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,group\n", "must have a row for each person; it has none"),
        ("id,x,x\na,1,2\n", "different names for its columns; 'x' occurs twice"),
        ("group,x\na,control,1.5\n", r"table\.csv must have 2 values in each line, as its header; got 3 in line 2"),
        ("id,x\na,1\nb\n", "must have 2 values in each line.*; got 1 in line 3"),
        ("id;x\na;1,5\n", "must separate its columns by commas; got 'id;x'"),
        ("", "must begin with the names of its columns; it is empty"),
    ],
)
def test_refuses_a_table(tmp_path, text, message):
    path = tmp_path / "table.csv"
    path.write_text(text)

    with pytest.raises(ValueError, match=message):
        read_csv(path)


def test_refuses_two_tables_of_a_split(tmp_path):
    for name in ("train.csv", "train.tsv"):
        (tmp_path / name).write_text("id\na\n")

    with pytest.raises(ValueError, match=r"the split 'train' must have one table; got train\.csv and train\.tsv\."):
        load_dataset(tmp_path, family="cohorts")


def test_refuses_tables_beside_parquet(tmp_path):
    (tmp_path / "train.csv").write_text("id,group\na,control\n")
    Dataset.from_dict({"group": ["control"]}).to_parquet(tmp_path / "test.parquet")

    with pytest.raises(ValueError, match=r"must hold data of one kind; got train\.csv and test\.parquet\. Move one"):
        load_dataset(tmp_path, family="cohorts")


def test_refuses_a_person_who_occurs_twice(tmp_path):
    (tmp_path / "train.csv").write_text("id,group\na,control\na,SZ\n")

    with pytest.raises(ValueError, match="must differ for everybody"):
        load_dataset(tmp_path, family="cohorts")


@pytest.mark.parametrize(
    ("test", "message"),
    [
        ({"id": np.array(["c", "a"]), "x": np.array([3.0, 4.0])}, "'a' is in both"),
        ({"id": np.array(["c", "d"]), "x": np.array([2.0, 4.0])}, "1 people have the same features in both"),
    ],
    ids=["id", "features"],
)
def test_refuses_people_of_the_training_table(test, message):
    train = {"id": np.array(["a", "b"]), "x": np.array([1.0, 2.0])}

    with pytest.raises(ValueError, match=message):
        check_leakage(train, test, ["x"])


# --- Real tables, where they are


@pytest.fixture
def abide():
    try:
        return abide_anatomy.build_dataset()
    except FileNotFoundError as error:
        pytest.skip(str(error))


def test_reads_abide(abide):
    names = abide_anatomy.list_features(abide["discovery"].column_names)

    assert len(names) == 148
    assert set(abide["discovery"]["group"]) == {"autism", "control"}
    assert not set(abide["discovery"]["site"]) & set(abide["external_site"]["site"])
    assert set(abide["discovery"]["anatomy_qc"]) <= {1, 2}


def test_injects_a_pattern_into_real_brains(abide):
    plain, _ = mpd_semireal.make_cohort(0, effect=0.0)
    columns, subtypes = mpd_semireal.make_cohort(0, effect=2.0)

    name = "lh_superiorfrontal_thickness"
    shift = (columns[name] - plain[name]) / plain[name].std(ddof=1)
    np.testing.assert_allclose(shift[subtypes == 0], 0.8, atol=1e-6)
    np.testing.assert_allclose(shift[subtypes == 1], -1.2, atol=1e-6)
    np.testing.assert_allclose(shift[columns["group"] == "control"], 0, atol=1e-12)
