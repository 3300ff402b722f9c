"""The metric `image_quality` against slow references written from its definitions."""

import itertools
import math

import numpy as np
import pytest

from decahub.metrics import load_metric
from decahub.metrics.image_quality.image_quality import differentiate_logistic, logistic


ATOL = 1e-12


def slow_ranks(values):
    return [
        sum(other < value for other in values) + (sum(other == value for other in values) + 1) / 2 for value in values
    ]


def slow_pearson(first, second):
    mean_first, mean_second = sum(first) / len(first), sum(second) / len(second)
    pairs = [(x - mean_first, y - mean_second) for x, y in zip(first, second, strict=True)]
    norms = sum(x * x for x, _ in pairs) * sum(y * y for _, y in pairs)
    return sum(x * y for x, y in pairs) / math.sqrt(norms)


def slow_kendall(first, second):
    concordant = only_first = only_second = discordant = 0
    for i, j in itertools.combinations(range(len(first)), 2):
        x, y = np.sign(first[i] - first[j]), np.sign(second[i] - second[j])
        concordant += x * y > 0
        discordant += x * y < 0
        only_first += x != 0 and y == 0
        only_second += x == 0 and y != 0
    total_first = concordant + discordant + only_first
    total_second = concordant + discordant + only_second
    return (concordant - discordant) / math.sqrt(total_first * total_second)


@pytest.fixture
def data():
    """Forty images with ties in both scores and labels, of two sources."""
    generator = np.random.RandomState(3)
    labels = generator.randint(0, 12, 40) * 5.0
    predictions = np.round(labels + generator.randn(40) * 12, 0)
    sources = ["indoor" if number % 3 else "outdoor" for number in range(40)]
    return predictions, labels, sources


def test_correlations_and_errors(data):
    predictions, labels, _ = data

    result = load_metric("image_quality").compute(predictions=predictions, references=labels)

    assert result["srcc"] == pytest.approx(slow_pearson(slow_ranks(predictions), slow_ranks(labels)), abs=ATOL)
    assert result["plcc"] == pytest.approx(slow_pearson(predictions, labels), abs=ATOL)
    assert result["krcc"] == pytest.approx(slow_kendall(predictions, labels), abs=ATOL)
    assert result["rmse"] == pytest.approx(math.sqrt(sum((predictions - labels) ** 2) / 40), abs=ATOL)


def test_fit_finds_the_curve_that_made_the_labels():
    predictions = np.linspace(-3, 4, 60)
    labels = (90 - 10) / (1 + np.exp(-(predictions - 0.5) / 0.8)) + 10

    result = load_metric("image_quality").compute(predictions=predictions, references=labels)

    b1, b2, b3, b4 = result["fit_params"]
    assert (b1, b2, b3, abs(b4)) == pytest.approx((90, 10, 0.5, 0.8), rel=1e-4)
    assert result["plcc_fit"] == pytest.approx(1, abs=1e-9)
    assert result["rmse_fit"] == pytest.approx(0, abs=1e-4)
    assert result["plcc"] < 0.995


def test_fit_does_not_depend_on_the_mean_of_predictions():
    predictions = np.linspace(-3, 3, 24)
    labels = 60 / (1 + np.exp(0.5 - predictions)) + 20

    for shift in (0.0, 1e-9, 7.0):
        result = load_metric("image_quality").compute(predictions=predictions + shift, references=labels)
        assert result["fit_params"] == pytest.approx([80, 20, 0.5 + shift, 1], rel=1e-6), shift


@pytest.mark.parametrize("params", [(90.0, 10.0, 0.5, 0.8), (10.0, 90.0, -0.5, -0.4)], ids=["rising", "falling"])
def test_derivatives_are_those_of_the_curve(params):
    x, step = np.linspace(-2, 2, 9), 1e-6
    given = differentiate_logistic(x, *params)

    for index in range(4):
        above, below = ([*params[:index], params[index] + sign * step, *params[index + 1 :]] for sign in (1, -1))
        slopes = (logistic(x, *above) - logistic(x, *below)) / (2 * step)
        assert given[:, index] == pytest.approx(slopes, rel=1e-5, abs=1e-6)


def test_levels():
    result = load_metric("image_quality").compute(
        predictions=[1, 2, 3, 4], references=[1, 2, 4, 3], predicted_levels=[0, 2, 5, 3], levels=[0, 1, 2, 3]
    )

    assert result["level_accuracy"] == 0.5
    assert result["level_accuracy_within_one"] == 0.75


def test_sources_are_measured_within(data):
    predictions, labels, sources = data
    metric = load_metric("image_quality")

    result = metric.compute(predictions=predictions, references=labels, sources=sources)

    chosen = np.array(sources) == "indoor"
    indoor, outdoor = (
        slow_pearson(slow_ranks(predictions[mask]), slow_ranks(labels[mask])) for mask in (chosen, ~chosen)
    )
    assert result["srcc_indoor"] == pytest.approx(indoor, abs=ATOL)
    assert result["srcc_within"] == pytest.approx((indoor + outdoor) / 2, abs=ATOL)
    assert result["counts"] == {"indoor": 26, "outdoor": 14}


def test_batches_are_joined(data):
    predictions, labels, sources = data
    metric = load_metric("image_quality")
    whole = metric.compute(predictions=predictions, references=labels, sources=sources)

    for start in range(0, 40, 7):
        part = slice(start, start + 7)
        metric.add_batch(predictions=predictions[part], references=labels[part], sources=sources[part])

    assert metric.compute() == whole


def test_intervals_hold_the_score_and_depend_on_the_seed(data):
    predictions, labels, sources = data
    options = {"predictions": predictions, "references": labels, "sources": sources, "num_bootstrap": 200}

    result = load_metric("image_quality").compute(**options)
    other = load_metric("image_quality").compute(**options, seed=1)

    for name in ("srcc", "plcc", "krcc", "srcc_within"):
        low, high = result[f"{name}_interval"]
        assert low < result[name] < high
    assert result["srcc_interval"] != other["srcc_interval"]


def test_resamples_keep_the_size_of_each_source():
    """Images of a source are alike, so that every resample within sources is the same."""
    values = {"a": (1.0, 2.0), "b": (2.0, 1.0), "c": (3.0, 4.0)}
    sources = ["a"] * 2 + ["b"] * 5 + ["c"] * 9
    predictions, labels = ([values[source][column] for source in sources] for column in (0, 1))

    result = load_metric("image_quality").compute(
        predictions=predictions, references=labels, sources=sources, num_bootstrap=20
    )

    assert result["srcc_interval"] == pytest.approx([result["srcc"]] * 2, abs=ATOL)
    assert result["krcc_interval"] == pytest.approx([result["krcc"]] * 2, abs=ATOL)


def test_nan_labels_are_left_out(data):
    predictions, labels, _ = data
    metric = load_metric("image_quality")
    expected = metric.compute(predictions=predictions[1:], references=labels[1:])

    result = metric.compute(predictions=predictions, references=[math.nan, *labels[1:]])

    assert result == expected


@pytest.mark.parametrize(
    ("predictions", "labels"),
    [([1.0, 2.0], [1.0, 2.0]), ([3.0] * 5, [1, 2, 3, 4, 5]), ([1, 2, 3, 4, 5], [2.0] * 5)],
    ids=["two", "constant predictions", "constant labels"],
)
def test_undefined_correlations_are_nan_with_a_warning(predictions, labels):
    with pytest.warns(UserWarning, match="Correlations are undefined"):
        result = load_metric("image_quality").compute(predictions=predictions, references=labels)

    assert all(math.isnan(result[name]) for name in ("srcc", "plcc", "krcc", "plcc_fit", "rmse_fit"))
    assert result["fit_ok"] is False
    assert math.isfinite(result["rmse"])


def test_fit_that_fails_gives_the_plain_correlation():
    result = load_metric("image_quality").compute(predictions=[1.0, 2.0, 4.0], references=[3.0, 1.0, 2.0])

    assert result["fit_ok"] is False
    assert result["plcc_fit"] == result["plcc"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"predictions": [1, 2], "references": [1]}, r"the same shape \(num_images,\); got \(2,\) and \(1,\)"),
        ({"predictions": [1, math.nan], "references": [1, 2]}, "must be finite; got nan in row 1"),
        ({"predictions": [1], "references": [1], "levels": [2]}, "must be given together"),
        ({"predictions": [1], "references": [math.nan]}, "at least one finite label"),
        ({"predictions": [1], "references": [1], "num_bootstrap": -1}, "`num_bootstrap` must be at least 0; got -1"),
        ({"predictions": [1], "references": [1], "confidence": 1.0}, r"`confidence` must be in \(0, 1\); got 1.0"),
    ],
    ids=["length", "nan", "levels", "no label", "bootstrap", "confidence"],
)
def test_refuses(columns, message):
    with pytest.raises(ValueError, match=message):
        load_metric("image_quality").compute(**columns)
