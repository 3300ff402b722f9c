"""The feature extractor: normalization against controls, selection, files, and what it refuses."""

import logging

import numpy as np
import pandas as pd
import pytest

from decahub import MpdSubtypingFeatureExtractor
from decahub.models.mpd_subtyping.covariates import _shrink_site
from tests.tiny.mpd_subtyping import NUM_CONTROLS, NUM_FEATURES, NUM_PATIENTS, build_tiny_table


def build_extractor(**options):
    return MpdSubtypingFeatureExtractor(["roi_*"], **{"id_column": "id", "selection": "none", **options})


def get_features(extractor, table):
    return extractor(table, return_tensors="np")["features"]


def change(name, index, value, table=None):
    table = build_tiny_table() if table is None else table
    column = np.array(table[name], dtype=object if isinstance(value, str | None) else None)
    column[index] = value
    return {**table, name: column}


def test_controls_have_mean_zero_and_unit_spread():
    table = build_tiny_table()
    extractor = build_extractor().fit(table)

    controls = get_features(extractor, table)[NUM_PATIENTS:]

    np.testing.assert_allclose(controls.mean(0), 0, atol=1e-5)
    columns = 1 + 1 + 1 + 2  # intercept, age, sex, two of three sites
    np.testing.assert_allclose(np.square(controls).sum(0) / (NUM_CONTROLS - columns), 1, rtol=1e-5)


def test_covariates_of_controls_are_taken_out_exactly():
    """With features that are a sum of covariates, nothing is left of a patient's but what was added."""
    table = build_tiny_table()
    site = np.array([int(name[-1]) for name in table["site"]])
    noise = np.random.default_rng(3).normal(size=len(site))
    base = 2 + 0.3 * table["age"] + 1.5 * (table["sex"] == "M") - 0.8 * site
    first, second = {**table, "roi_0": base + noise}, {**table, "roi_0": base + noise}
    second["roi_0"] = second["roi_0"] + np.where(np.arange(len(site)) < NUM_PATIENTS, 5.0, 0.0)

    extractor = build_extractor().fit(first)
    difference = (get_features(extractor, second) - get_features(extractor, first))[:, 0]

    assert np.ptp(difference[:NUM_PATIENTS]) < 1e-4
    np.testing.assert_allclose(difference[NUM_PATIENTS:], 0, atol=1e-6)


def test_patients_do_not_change_what_is_learned_from_controls():
    table = build_tiny_table()
    other = {name: values.copy() for name, values in table.items()}
    other["roi_3"][:NUM_PATIENTS] *= 7

    first, second = build_extractor().fit(table), build_extractor().fit(other)

    np.testing.assert_array_equal(get_features(first, table), get_features(second, table))


@pytest.mark.parametrize("kind", ["mapping", "pandas", "rows", "shuffled columns"])
def test_all_kinds_of_tables_give_the_same(kind):
    table = build_tiny_table()
    extractor = build_extractor().fit(table)
    given = {
        "mapping": lambda: table,
        "pandas": lambda: pd.DataFrame(table),
        "rows": lambda: pd.DataFrame(table).to_dict("records"),
        "shuffled columns": lambda: dict(reversed(table.items())),
    }[kind]()

    np.testing.assert_array_equal(get_features(extractor, given), get_features(extractor, table))


def test_arrays_with_covariates_give_the_same():
    table = build_tiny_table()
    features = np.stack([table[f"roi_{index}"] for index in range(NUM_FEATURES)], axis=1)
    covariates = {name: table[name] for name in ("age", "sex", "site")}

    extractor = MpdSubtypingFeatureExtractor(selection="none").fit(features, table["group"], covariates)

    found = extractor(features, covariates=covariates, return_tensors="np")["features"]
    np.testing.assert_array_equal(found, get_features(build_extractor().fit(table), table))


def test_spread_finds_features_that_the_mean_misses():
    """Opposite changes at 60 to 40 leave a fifth of the effect in the mean."""
    generator = np.random.default_rng(0)
    table = {"group": np.repeat(["patient", "control"], [300, 250])}
    patterns = np.where(np.arange(300) < 180, 0.4, -0.6)[:, None] * 3 * (np.arange(12) < 6)
    values = generator.normal(size=(550, 12))
    values[:300] += patterns
    table |= {f"roi_{index}": column for index, column in enumerate(values.T)}
    options = {"age_column": None, "sex_column": None, "site_column": None, "id_column": None, "min_features": 1}

    found = MpdSubtypingFeatureExtractor(["roi_*"], selection="mean_or_spread", **options).fit(table)

    assert {f"roi_{index}" for index in range(6)} <= set(found.selected_names)
    assert found.selection_counts["ttest_fdr"] < found.selection_counts["mean_or_spread"]


def test_keeps_a_minimum_of_features_with_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        extractor = build_extractor(selection="ttest_p", p_threshold=1e-30, min_features=4).fit(build_tiny_table())

    assert len(extractor.selected_names) == 4
    assert "Only 0 of 12 features pass 'ttest_p'" in caplog.text


def test_constant_features_are_dropped_with_their_names(caplog):
    table = {**build_tiny_table(), "roi_4": np.full(NUM_PATIENTS + NUM_CONTROLS, 2.0)}

    extractor = build_extractor().fit(table)

    assert "roi_4" in caplog.text
    assert "roi_4" not in extractor.selected_names


@pytest.mark.parametrize("column", ["site", "sex"])
def test_a_covariate_with_one_value_has_no_column(column):
    table = {**build_tiny_table()}
    table[column] = np.full(len(table["age"]), table[column][0])

    extractor = build_extractor().fit(table)

    assert np.isfinite(get_features(extractor, table)).all()


def build_scaled_sites(seed=0):
    """Controls at three sites with shifts and scales of their own, 40 features."""
    generator = np.random.default_rng(seed)
    site = np.repeat([0, 1, 2], 60)
    shifts, scales = generator.normal(0, 1, (3, 40)), np.array([0.6, 1.0, 1.7])
    values = 4 + shifts[site] + scales[site, None] * generator.normal(size=(180, 40))
    table = {"group": np.where(np.arange(180) % 3 == 0, "SZ", "control"), "site": site.astype(str)}
    return site, {**table, **{f"roi_{index}": column for index, column in enumerate(values.T)}}


def test_combat_takes_out_scales_of_sites_too():
    site, table = build_scaled_sites()
    options = {"id_column": None, "age_column": None, "sex_column": None}

    spreads = {
        name: [
            get_features(build_extractor(harmonize=name, **options).fit(table), table)[site == s].std()
            for s in range(3)
        ]
        for name in ("regress", "combat")
    }

    assert max(spreads["regress"]) > 2 * min(spreads["regress"])
    assert max(spreads["combat"]) < 1.1 * min(spreads["combat"])


def test_combat_shrinks_towards_what_a_site_has_in_common():
    """With few controls of a site its shifts lie nearer to their mean than the plain means do."""
    deviations = np.random.default_rng(0).normal(0.5, 1, (6, 200))

    shift, variance = _shrink_site(deviations)

    assert shift.std() < 0.8 * deviations.mean(0).std()
    assert variance.std() < 0.8 * deviations.var(0, ddof=1).std()
    assert shift.mean() == pytest.approx(deviations.mean(), abs=0.05)


def test_missing_values_become_the_mean_of_controls_on_request():
    table = change("roi_2", 3, np.nan)
    extractor = build_extractor(impute="control_mean").fit(table)

    batch = extractor(table, return_tensors="np")

    assert batch["features"][3, 2] == 0
    assert batch["missing_share"][3] == pytest.approx(1 / 12)


def test_a_new_site_is_compared_with_the_mean_site_on_request():
    table = build_tiny_table()
    extractor = build_extractor(unseen_site="pooled").fit(table)
    sites = [f"site{index}" for index in range(3)]
    own = {name: get_features(extractor, change("site", 0, name))[0] for name in sites}
    counts = {name: int((table["site"][NUM_PATIENTS:] == name).sum()) for name in sites}

    found = get_features(extractor, change("site", 0, "elsewhere"))[0]

    expected = sum(counts[name] * own[name] for name in sites) / sum(counts.values())
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("harmonize", ["regress", "combat"])
def test_a_new_site_gives_nan_on_request(harmonize):
    extractor = build_extractor(unseen_site="nan", harmonize=harmonize).fit(build_tiny_table())

    found = get_features(extractor, change("site", 0, "elsewhere"))

    assert np.isnan(found[0]).all()
    assert np.isfinite(found[1:]).all()


@pytest.mark.parametrize("options", [{}, {"age_degree": 2}, {"harmonize": "none"}, {"harmonize": "combat"}])
def test_saved_extractor_gives_the_same(tmp_path, options):
    table = build_tiny_table()
    extractor = build_extractor(**options).fit(table)

    extractor.save_pretrained(tmp_path)
    loaded = MpdSubtypingFeatureExtractor.from_pretrained(tmp_path)

    np.testing.assert_array_equal(get_features(loaded, table), get_features(extractor, table))
    assert loaded.selected_names == extractor.selected_names


def test_files_hold_nobody(tmp_path):
    table = build_tiny_table()
    build_extractor().fit(table).save_pretrained(tmp_path)

    text = b"".join(path.read_bytes() for path in tmp_path.iterdir())

    assert not any(name.encode() in text for name in table["id"])


def test_external_reference_takes_deviations_as_they_are():
    values = np.random.default_rng(0).normal(size=(9, 4))

    extractor = MpdSubtypingFeatureExtractor(selection="none", harmonize="none", reference="external").fit(values)

    np.testing.assert_allclose(extractor(values, return_tensors="np")["features"], values, rtol=1e-6)


def use(table, **options):
    return build_extractor(**options).fit(build_tiny_table())(table)


def without(*names):
    return {name: values for name, values in build_tiny_table().items() if name not in names}


FEW_CONTROLS = {name: values[: NUM_PATIENTS + 2] for name, values in build_tiny_table().items()}
ALL_PATIENTS = {name: values[:NUM_PATIENTS] for name, values in build_tiny_table().items()}


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: build_extractor().fit(ALL_PATIENTS), "must have controls, 'control' in 'group'.*got none"),
        (lambda: build_extractor().fit(change("roi_2", 3, np.nan)), "no missing values .* in rows 3.*`impute="),
        (
            lambda: build_extractor().fit(change("roi_2", 3, np.inf)),
            "column 'roi_2' must be finite; got infinity in row 3",
        ),
        (lambda: build_extractor().fit(change("age", 3, np.nan)), "covariate 'age' must be known.*row 3"),
        (
            lambda: build_extractor().fit(change("id", 3, "p001")),
            "`id` must differ for everybody; 'p001' occurs twice",
        ),
        (lambda: build_extractor().fit(change("sex", 3, "x")), "`sex` must be F or M.*got 'x'"),
        (
            lambda: build_extractor(site_column=None).fit(FEW_CONTROLS),
            r"more controls than covariates and sites \(\d\); got 2",
        ),
        (lambda: build_extractor().fit(without("age")), "must have the column 'age' .*`age_column`.*None"),
        (lambda: build_extractor().fit(without("group")), "must have the column 'group'"),
        (lambda: use(without("roi_3", "roi_5")), "lacks roi_3, roi_5"),
        (lambda: use(change("site", 2, "elsewhere")), "'elsewhere' has none .*`unseen_site='pooled'`"),
        (lambda: build_extractor()(build_tiny_table()), "must be fitted before it is used"),
        (lambda: MpdSubtypingFeatureExtractor().fit(build_tiny_table()), "`feature_names` must name the columns"),
        (lambda: MpdSubtypingFeatureExtractor(["volume_*"]).fit(build_tiny_table()), "'volume_\\*' matches none"),
        (lambda: MpdSubtypingFeatureExtractor(["roi_*", "roi_1"]).fit(build_tiny_table()), "got roi_1 more often"),
        (
            lambda: MpdSubtypingFeatureExtractor(selection="none").fit(
                np.ones((4, 2)), ["control"] * 4, {"age": [1, 2, 3, 4], "motion": [1, 2, 3, 4]}
            ),
            "`motion` must be a covariate of the extractor",
        ),
        (lambda: build_extractor().fit(np.ones((3, 4, 5))), r"must have shape \(people, features\)"),
        (lambda: build_extractor().fit([]), "must be a pandas table"),
        (lambda: build_extractor(selection="lasso"), "`selection` must be one of .*got 'lasso'"),
        (lambda: build_extractor(selections="none"), "`selections` must be an argument of .*Did you mean `selection`"),
        (lambda: build_extractor(false_discovery_rate=0), r"`false_discovery_rate` must lie in \(0, 1\); got 0"),
        (lambda: build_extractor(reference="external"), "must be 'none' for an external reference"),
    ],
)
def test_refuses(act, message):
    with pytest.raises((TypeError, ValueError), match=message):
        act()


def test_refuses_a_fit_whose_arrays_are_lost(tmp_path):
    build_extractor().fit(build_tiny_table()).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_state.safetensors").unlink()

    with pytest.raises(FileNotFoundError, match="must come with preprocessor_state.safetensors"):
        MpdSubtypingFeatureExtractor.from_pretrained(tmp_path)
