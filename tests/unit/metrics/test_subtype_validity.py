"""Every check on tables whose answer is known, the rule of the verdict, and what is refused."""

import json

import numpy as np
import pytest
from scipy import stats
from sklearn.cluster import KMeans

from decahub import MpdSubtypingConfig, MpdSubtypingModel, load_metric
from decahub.metrics.subtype_validity import discreteness, external, partitions, significance
from decahub.metrics.subtype_validity.subtype_validity import (
    CONTINUUM,
    DISCRETE,
    REFUSED,
    UNSUPPORTED,
    decide,
    explain,
)


FEW = {
    "jaccard": 5, "subsampling": 5, "significance": 39, "tree": 19, "pipeline_null": 19, "gap": 5, "splits": 3,
    "mixture": 79, "prediction_strength": 5, "external": 99, "nuisance": 99, "diagnosis": 99,
}  # fmt: skip
CHECKS = ["jaccard", "significance", "mixture", "prediction_strength"]
FORBIDDEN = ("diagnosed", "the patient has", "validated", "suffers", "disorder is")


@pytest.fixture(scope="module")
def metric():
    return type(load_metric("subtype_validity", keep_in_memory=True))(keep_in_memory=True)


def build_table(kind, number=160, seed=0):
    """Eight columns: two groups far apart, one uniform band, or one Gaussian."""
    generator = np.random.default_rng(seed)
    table = generator.normal(size=(number, 8))
    if kind == "groups":
        table[: number * 5 // 8, 0] += 8
    elif kind == "uniform":
        table[:, 0] = generator.uniform(-6, 6, number)
    return table


def check(metric, table, **options):
    labels = partitions.cluster_kmeans(table)
    return metric.measure(
        features=table, labels=labels, **{"clusterer": "kmeans", "repetitions": FEW, "checks": CHECKS, **options}
    )


@pytest.mark.parametrize(
    ("kind", "verdict", "naive"),
    [
        ("groups", DISCRETE, "subtypes claimed"),
        ("uniform", CONTINUUM, "subtypes claimed"),
        ("gaussian", UNSUPPORTED, "no subtypes claimed"),
    ],
)
def test_verdict_on_known_tables(metric, kind, verdict, naive):
    result = check(metric, build_table(kind))

    assert (result["verdict"], result["naive_verdict"]) == (verdict, naive)


def test_compute_of_evaluate_gives_the_same(metric):
    table = build_table("groups", 40)
    labels, options = partitions.cluster_kmeans(table), {"clusterer": "kmeans", "repetitions": FEW, "checks": CHECKS}

    stored = metric.compute(features=table, labels=labels, **options)

    assert stored["scores"] == metric.measure(features=table, labels=labels, **options)["scores"]


def test_every_check_gives_a_complete_record(metric):
    pytest.importorskip("diptest", reason="diptest is not installed")
    table = build_table("groups", 120)
    model = MpdSubtypingModel(MpdSubtypingConfig(num_features=8, latent_dims=[2, 3], num_runs=1, hidden_sizes=[5]))
    report = model.fit(table, num_epochs=2)
    generator = np.random.default_rng(0)
    labels = partitions.cluster_kmeans(table)

    result = metric.measure(
        features=table, labels=labels, model=model, refit="linear", quick=True, repetitions=FEW,
        clinical={"severity": labels + generator.normal(size=120)}, nuisance={"motion": generator.random(120)},
        diagnosis=generator.choice(["SZ", "BD"], 120), site=generator.choice(["a", "b"], 120),
        training={"num_epochs": 2}, fit_report=vars(report),
    )  # fmt: skip

    assert len(result["checks"]) == 16
    for record in result["checks"].values():
        assert set(record) == {"name", "values", "repetitions", "seed", "rule", "outcome", "sentence"}
        assert record["outcome"] in ("pass", "fail", "na")
        assert record["sentence"].endswith((".", "na"))
    json.dumps(result)
    text = " ".join([*result["sentences"], *(record["sentence"] for record in result["checks"].values())]).lower()
    assert not any(words in text for words in FORBIDDEN)
    assert "not a diagnosis" in text


def test_checks_do_not_depend_on_each_other(metric):
    table = build_table("uniform")

    alone, together = (check(metric, table, checks=checks)["scores"] for checks in (["prediction_strength"], CHECKS))

    assert alone["prediction_strength"] == together["prediction_strength"]


def test_results_are_determined_by_the_seed(metric):
    table = build_table("uniform")

    assert check(metric, table, seed=3)["scores"] == check(metric, table, seed=3)["scores"]


# --- The rule


def build_records(**outcomes):
    names = {"jaccard": "pass", "prediction_strength": "pass", "significance": "pass", "mixture": "pass"}
    return {name: {"outcome": value, "sentence": name} for name, value in {**names, **outcomes}.items()}


@pytest.mark.parametrize(
    ("outcomes", "verdict"),
    [
        ({}, DISCRETE),
        ({"nuisance": "pass"}, DISCRETE),
        ({"nuisance": "na"}, DISCRETE),
        ({"nuisance": "fail"}, UNSUPPORTED),
        ({"mixture": "fail"}, CONTINUUM),
        ({"significance": "fail"}, UNSUPPORTED),
        ({"jaccard": "fail"}, UNSUPPORTED),
        ({"prediction_strength": "fail", "mixture": "fail"}, UNSUPPORTED),
    ],
)
def test_rule_of_the_verdict(outcomes, verdict):
    assert decide(build_records(**outcomes), 100, 100)[0] == verdict


@pytest.mark.parametrize(("patients", "controls"), [(29, 100), (100, 19)])
def test_too_few_people_get_no_verdict(patients, controls):
    assert decide(build_records(), patients, controls)[0] == REFUSED


@pytest.mark.parametrize("verdict", [DISCRETE, CONTINUUM, UNSUPPORTED, REFUSED])
def test_no_verdict_reads_as_a_diagnosis(verdict):
    text = " ".join(explain(verdict, build_records())).lower()

    assert "not a diagnosis" in text
    assert not any(words in text for words in FORBIDDEN)


def test_fewer_patients_than_features(metric):
    """The covariance is estimated by a soft threshold there, and the scores by a shrunken one."""
    table = np.random.default_rng(0).normal(size=(40, 60))
    table[:22, :20] += 3

    result = check(metric, table)

    assert result["checks"]["significance"]["values"]["covariance"] == "soft"
    assert np.isfinite(list(result["scores"].values())).all()


def test_one_subtype_is_no_partition(metric):
    result = metric.measure(features=build_table("gaussian"), labels=np.zeros(160, int), repetitions=FEW)

    assert result["verdict"] == UNSUPPORTED
    assert {record["outcome"] for record in result["checks"].values()} == {"na"}


# --- Parts


def test_two_means_of_many_tables_are_those_of_one_at_a_time():
    tables = np.stack([build_table(kind, 60, seed) for kind in ("groups", "uniform", "gaussian") for seed in range(3)])

    indices, labels = partitions.find_two_means(tables, seed=0)

    for table, index, own in zip(tables, indices, labels, strict=True):
        best = KMeans(2, n_init=20, random_state=0).fit(table).inertia_ / np.square(table - table.mean(0)).sum()
        assert index <= 1.05 * best
        assert index == pytest.approx(partitions.compute_cluster_index(table, own), rel=1e-5)


def test_two_gaussians_are_recovered():
    generator = np.random.default_rng(0)
    samples = np.concatenate([generator.normal(-2, 1, 1500), generator.normal(3, 1, 500)])

    _, weight, first, second, variance = (float(part[0]) for part in discreteness.fit_two_gaussians(samples))

    means = sorted([(first, 1 - weight), (second, weight)])
    assert means[0] == pytest.approx((-2, 0.75), abs=0.1)
    assert means[1] == pytest.approx((3, 0.25), abs=0.15)
    assert variance == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("shape", [1.0, 2.0, 4.0])
def test_likelihood_of_a_symmetric_unimodal_law_is_that_of_scipy(shape):
    samples = stats.gennorm(shape, 0.3, 1.7).rvs(3000, random_state=1)

    likelihood, mode, found, left, right = (float(part[0]) for part in discreteness.fit_unimodal(samples))

    expected = stats.gennorm(shape, 0.3, 1.7).logpdf(samples).sum()
    assert likelihood == pytest.approx(expected, abs=12)
    assert likelihood >= expected - 3
    assert found == pytest.approx(shape, rel=0.4)
    assert (left + right) / 2 == pytest.approx(1.7, rel=0.15)
    assert mode == pytest.approx(0.3, abs=0.4)


def test_draws_follow_the_law_that_is_fitted():
    generator = np.random.default_rng(0)
    samples = discreteness.draw_unimodal(1.0, 2.5, 0.5, 2.0, 4000, generator)

    _, mode, _, left, right = (float(part[0]) for part in discreteness.fit_unimodal(samples))

    assert left / (left + right) == pytest.approx(0.2, abs=0.06)
    assert mode == pytest.approx(1, abs=0.25)


def test_fits_of_many_samples_are_those_of_one_at_a_time():
    samples = np.random.default_rng(0).normal(size=(3, 50))

    for fit in (discreteness.fit_two_gaussians, discreteness.fit_unimodal):
        together, alone = fit(samples), [fit(row) for row in samples]
        np.testing.assert_allclose(together, np.concatenate(alone, axis=1), rtol=1e-9)


@pytest.mark.parametrize(("gap", "is_significant"), [(0.0, False), (5.0, True)])
def test_mixture_test(gap, is_significant):
    generator = np.random.default_rng(0)
    scores = generator.normal(size=300) + gap * (generator.random(300) < 0.6)

    assert (discreteness.judge_mixture(scores, repetitions=99, seed=0)["p"] < 0.05) == is_significant


def test_dip_of_the_published_example():
    """Quality of 63 faculties (Hartigan and Hartigan 1985, table 2): the dip is 0.0595, in R 0.05952381, p 0.087."""
    pytest.importorskip("diptest", reason="diptest is not installed")
    counts = {
        30: 1, 33: 1, 35: 1, 36: 1, 37: 2, 39: 5, 40: 4, 41: 1, 42: 1, 43: 3, 44: 2, 45: 2, 46: 2, 47: 2, 48: 3, 49: 1,
        50: 2, 51: 1, 52: 2, 53: 5, 54: 2, 57: 2, 59: 1, 60: 3, 61: 4, 62: 4, 63: 1, 66: 1, 70: 1, 72: 2,
    }  # fmt: skip
    values = np.repeat(list(counts), list(counts.values()))

    statistic, p_value = discreteness.measure_dip(values)

    assert len(values) == 63
    assert statistic == pytest.approx(0.05952381, abs=1e-8)
    assert p_value == pytest.approx(0.087, abs=5e-3)


def test_scores_use_nobodys_own_label():
    """Labels of the half that a score is read off in may be anything."""
    table, order = build_table("groups", 80), np.random.default_rng(0).permutation(80)
    seen = []

    def cluster(features):
        seen.append(len(features))
        return partitions.cluster_kmeans(features)

    scores = discreteness.compute_scores(table, cluster, order)

    assert seen == [40, 40]
    assert abs(np.corrcoef(scores, table[:, 0])[0, 1]) > 0.9


def test_permutations_stay_within_sites():
    site = np.repeat(["a", "b", "c"], [5, 9, 4])

    for order in external.draw_permutations(18, 20, site, 0):
        assert sorted(order) == list(range(18))
        assert (site[order] == site).all()


def test_cramers_v_and_ranks_are_those_of_scipy():
    generator = np.random.default_rng(0)
    labels, kinds = generator.integers(0, 3, 90), generator.choice(["x", "y", "z", "w"], 90)
    scores = np.where(labels == 0, 5, 0) + generator.integers(0, 9, 90)
    variables = [external.Variable("kind", kinds), external.Variable("score", scores, "ordinal")]

    found = external.measure_associations(labels, variables, external.draw_permutations(90, 50, None, 0))

    table = np.array([[np.sum((labels == i) & (kinds == j)) for j in "wxyz"] for i in range(3)])
    assert found[0]["value"] == pytest.approx(stats.contingency.association(table, "cramer"))
    ranks = stats.rankdata(scores)
    between = sum((labels == i).sum() * (ranks[labels == i].mean() - ranks.mean()) ** 2 for i in range(3))
    assert found[1]["value"] == pytest.approx(between / np.square(ranks - ranks.mean()).sum())


def test_many_categories_do_not_hide_a_measure_beside_them():
    generator = np.random.default_rng(0)
    labels, site = np.arange(300) % 2, generator.integers(0, 25, 300)
    age = generator.normal(size=300) + 0.6 * labels
    orders = external.draw_permutations(300, 199, None, 0)

    rows = external.measure_associations(
        labels, [external.Variable("site", site, "categorical"), external.Variable("age", age)], orders
    )

    assert rows[0]["value"] > rows[1]["value"]  # by chance alone: 24 degrees of freedom
    assert rows[0]["p_max"] > 0.05
    assert rows[1]["p_max"] < 0.05


def test_missing_values_of_a_measure_are_left_out():
    labels = np.arange(40) % 2
    values = labels + np.random.default_rng(0).normal(size=40)
    holes = values.copy()
    holes[:10] = np.nan
    orders = external.draw_permutations(40, 20, None, 0)

    with_holes = external.measure_associations(labels, [external.Variable("x", holes)], orders)[0]
    without = external.measure_associations(labels[10:], [external.Variable("x", values[10:])], orders[:, :30] % 30)[0]

    assert with_holes["value"] == pytest.approx(without["value"])
    assert with_holes["num_people"] == 30


def test_a_nuisance_that_makes_the_subtypes_is_found(metric):
    table = build_table("groups")
    scanner = np.where(table[:, 0] > 4, "new", "old")

    result = check(metric, table, checks=[*CHECKS, "nuisance"], nuisance={"scanner": scanner})

    assert result["checks"]["nuisance"]["values"]["associated"] == ["scanner"]
    assert result["verdict"] == UNSUPPORTED
    assert result["after_regression"]["verdict"] == UNSUPPORTED
    assert result["after_regression"]["scores"]["mixture_p"] > 0.05


def test_tree_stops_at_the_first_split_that_is_not_significant():
    nodes = significance.judge_tree(build_table("gaussian", 60), repetitions=19, seed=0)

    assert [node["rejected"] for node in nodes] == [False]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": np.full((160, 8), np.nan)}, "`features` must be finite"),
        ({"labels": np.zeros(3, int)}, r"got \(160, 8\) and \(3,\)"),
        ({"labels": np.full(160, 0.5)}, "`labels` must hold subtypes, integers"),
        ({"labels": np.full(160, 2)}, "0 has nobody"),
        ({"checks": ["silhouette"]}, "`checks` must be among .*got 'silhouette'"),
        ({"clusterer": "dbscan"}, "`clusterer` must be one of ward, kmeans"),
        ({"covariance": "robust"}, "`covariance` must be one of sample, hard, soft; got 'robust'"),
        ({"clinical": {"severity": [1, 2]}}, r"`clinical` must have 160 values for 'severity'.*got \(2,\)"),
        ({"repetitions": {"bootstrap": 3}}, "`repetitions` must have keys of .*got 'bootstrap'"),
    ],
)
def test_refuses(metric, change, message):
    table = build_table("groups")
    given = {"features": table, "labels": partitions.cluster_kmeans(table), "repetitions": FEW, **change}

    with pytest.raises(ValueError, match=message):
        metric.measure(**given)
