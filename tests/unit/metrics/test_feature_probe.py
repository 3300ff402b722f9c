"""Probes on features against scikit-learn, and what they refuse."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsClassifier

from decahub import load_metric
from decahub.metrics.feature_probe import feature_probe


WEIGHT_ATOL = 1e-8  # two solvers of the same equations in float64


@pytest.fixture
def split():
    generator = np.random.default_rng(0)
    centers = 2 * generator.normal(size=(3, 5))
    labels = generator.integers(0, 3, size=150)
    features = centers[labels] + generator.normal(size=(150, 5))
    return features[:100], labels[:100], features[100:], labels[100:]


def test_ridge_is_that_of_scikit_learn(split):
    features, labels, _, _ = split
    weights = feature_probe.fit_ridge(features, labels, 3, np.array([0.01]))[0]

    expected = Ridge(alpha=0.01 * len(features)).fit(features, np.eye(3)[labels])

    np.testing.assert_allclose(weights[:-1], expected.coef_.T, atol=WEIGHT_ATOL)
    np.testing.assert_allclose(weights[-1], expected.intercept_, atol=WEIGHT_ATOL)


def test_neighbors_are_those_of_scikit_learn(split):
    features, labels, test_features, test_labels = split

    accuracy = feature_probe.measure_neighbors(features, labels, test_features, test_labels, 3, 7)

    reference = KNeighborsClassifier(7, metric="cosine", weights=lambda distances: np.exp((1 - distances) / 0.07))
    assert accuracy == reference.fit(features, labels).score(test_features, test_labels)


def test_scores_do_not_depend_on_scale_and_offset(split):
    features, labels, test_features, test_labels = split
    scale, offset = np.array([1.0, 10.0, 0.1, 5.0, 2.0]), 3.0

    scores = [
        load_metric("feature_probe").compute(
            predictions=test * factor + shift,
            references=test_labels,
            train_predictions=train * factor + shift,
            train_references=labels,
        )
        for train, test, factor, shift in (
            (features, test_features, 1.0, 0.0),
            (features, test_features, scale, offset),
        )
    ]

    assert scores[0] == scores[1]
    assert scores[0]["linear_probe_accuracy"] > 0.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_predictions": None}, "`train_predictions` and `train_references` must be"),
        ({"train_predictions": [[0.0, 1.0], [1.0, 0.0]]}, "`predictions` must have 2 features"),
        ({"train_predictions": [[float("nan")], [1.0]]}, "`train_predictions` must be finite"),
        ({"train_references": [0]}, "`train_predictions` must be \\(num_examples"),
        ({"num_neighbors": 0}, "`num_neighbors` must be at least 1"),
    ],
)
def test_bad_input_is_refused(changes, message):
    arguments = {"train_predictions": [[0.0], [1.0]], "train_references": [0, 1], **changes}

    with pytest.raises(ValueError, match=message):
        load_metric("feature_probe").compute(predictions=[[0.0]], references=[0], **arguments)
