"""Metrics of graphs against slow loops written from their definitions, and against the authors' own scores."""

import math
import warnings

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from sklearn.metrics import f1_score, roc_auc_score

from decahub.metrics import load_metric


ATOL_FLOAT64 = 1e-12  # the same few divisions, summed in another order


def slow_roc_auc(scores, labels):
    """Share of (positive, negative) pairs in the right order."""
    wins = pairs = 0.0
    for score, label in zip(scores, labels, strict=True):
        for other_score, other_label in zip(scores, labels, strict=True):
            if label == 1 and other_label == 0:
                pairs += 1
                wins += 1.0 if score > other_score else 0.5 if score == other_score else 0.0
    return wins / pairs


def slow_rate(events, conditions):
    chosen = [event for event, condition in zip(events, conditions, strict=True) if condition]
    return sum(chosen) / len(chosen) if chosen else None


def slow_gaps(predictions, labels, groups, num_labels, given_label):
    """Every gap between two groups, for each class; with `given_label`, among the nodes of that class."""
    gaps = []
    names = sorted(set(groups))
    for class_id in range(num_labels) if num_labels > 2 else [1]:
        rates = []
        for name in names:
            conditions = [
                group == name and (label == class_id or not given_label)
                for group, label in zip(groups, labels, strict=True)
            ]
            rates.append(slow_rate([guess == class_id for guess in predictions], conditions))
        for first in range(len(names)):
            for second in range(first + 1, len(names)):
                if rates[first] is not None and rates[second] is not None:
                    gaps.append(abs(rates[first] - rates[second]))
    return gaps


def make_nodes(num_labels=2, num_groups=2, num_nodes=291, seed=3):
    """Scores with ties, lopsided classes and groups, some nodes without a label."""
    generator = np.random.default_rng(seed)
    labels = generator.choice(num_labels, num_nodes, p=np.arange(1, num_labels + 1) / sum(range(1, num_labels + 1)))
    groups = generator.choice(num_groups, num_nodes, p=np.arange(1, num_groups + 1) / sum(range(1, num_groups + 1)))
    scores = generator.integers(0, 6, (num_nodes, num_labels)) / 4
    scores[np.arange(num_nodes), labels] += 0.5 * groups
    labels[generator.random(num_nodes) < 0.2] = -100
    return scores, labels, groups


# Node accuracy


@pytest.mark.parametrize("num_labels", [2, 5])
def test_node_accuracy_equals_the_definitions(num_labels):
    scores, labels, _ = make_nodes(num_labels)
    counted = labels != -100
    guesses = scores[counted].argmax(1)

    result = load_metric("node_accuracy").compute(predictions=scores, references=labels)

    assert result["accuracy"] == pytest.approx(np.mean(guesses == labels[counted]), abs=ATOL_FLOAT64)
    assert result["macro_f1"] == pytest.approx(f1_score(labels[counted], guesses, average="macro"), abs=ATOL_FLOAT64)
    if num_labels == 2:
        margins = (scores[:, 1] - scores[:, 0])[counted]
        assert result["roc_auc"] == pytest.approx(slow_roc_auc(margins, labels[counted]), abs=ATOL_FLOAT64)
        assert result["roc_auc"] == pytest.approx(roc_auc_score(labels[counted], margins), abs=ATOL_FLOAT64)
    else:
        assert "roc_auc" not in result


def test_macro_f1_is_over_the_classes_that_occur():
    scores = np.eye(4)[[0, 0, 1, 3]]  # class 2 is neither labeled nor predicted

    result = load_metric("node_accuracy").compute(predictions=scores, references=[0, 1, 1, 3])

    assert result["macro_f1"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3, abs=ATOL_FLOAT64)


def test_roc_auc_of_one_class_is_none_with_a_warning():
    with pytest.warns(UserWarning, match="`roc_auc` is None: all labels are 0"):
        result = load_metric("node_accuracy").compute(predictions=[[0.1, 0.9], [0.8, 0.2]], references=[0, 0])

    assert result["roc_auc"] is None
    assert result["accuracy"] == 0.5


@pytest.mark.parametrize("name", ["node_accuracy", "group_fairness"])
def test_measuring_at_once_equals_storing_in_batches(name):
    scores, labels, groups = map(torch.from_numpy, make_nodes())
    columns = {"predictions": scores, "references": labels}
    columns |= {"groups": groups} if name == "group_fairness" else {}
    metric = load_metric(name)

    for start, stop in [(0, 1), (1, 100), (100, 291)]:
        metric.add_batch(**{column: values[start:stop] for column, values in columns.items()})

    assert metric.compute() == load_metric(name).measure(**columns)


def test_single_nodes_add_up():
    accuracy, fairness = load_metric("node_accuracy"), load_metric("group_fairness")
    for scores, label, group in [([0.1, 0.9], 1, 0), ([0.4, 0.6], 0, 1), ([0.9, 0.1], 1, 1)]:
        accuracy.add(prediction=scores, reference=label)
        fairness.add(prediction=scores, reference=label, group=group)

    assert accuracy.compute()["accuracy"] == 1 / 3
    assert fairness.compute()["statistical_parity_difference"] == 0.5


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        ([[0.1, 0.9]], [2], r"`references` must be in \[0, 2\) or -100 \(left out\); got 2 at node 0"),
        ([[0.1, 0.9], [0.4, 0.6]], [1, -1], r"got -1 at node 1"),
        ([[0.1, 0.9], [math.nan, 0.6]], [1, -100], r"`predictions` must be finite; got \[nan, 0.6\] at node 1"),
        ([[0.1, 0.9]], [1, 1], r"got \(1, 2\) and \(2,\)"),
        ([1, 0], [1, 0], r"`predictions` must be \(num_nodes, num_labels\).*got \(2,\) and \(2,\)"),
        ([[0.1, 0.9]], [-100], "`references` must hold labeled nodes; all of them are -100"),
    ],
    ids=["label too large", "negative label", "nan", "unequal lengths", "class ids for scores", "no label"],
)
def test_node_accuracy_refuses(predictions, references, message):
    with pytest.raises(ValueError, match=message):
        load_metric("node_accuracy").compute(predictions=predictions, references=references)


# Group fairness


@pytest.mark.parametrize(("num_labels", "num_groups"), [(2, 2), (2, 3), (4, 2), (4, 3)])
@pytest.mark.parametrize("kind", ["scores", "ids"])
def test_group_fairness_equals_the_definitions(num_labels, num_groups, kind):
    scores, labels, groups = make_nodes(num_labels, num_groups)
    counted = labels != -100
    guesses, known, of = scores[counted].argmax(1), labels[counted], groups[counted]

    result = load_metric("group_fairness").compute(
        predictions=scores if kind == "scores" else scores.argmax(1), references=labels, groups=groups
    )

    average = "binary" if num_labels == 2 else "macro"
    expected = {
        "accuracy": np.mean(guesses == known),
        "f1": f1_score(known, guesses, average=average),
        "majority_class_accuracy": max(np.mean(known == label) for label in range(num_labels)),
    }
    for name, given_label in [("statistical_parity", False), ("equal_opportunity", True)]:
        gaps = slow_gaps(guesses, known, of, num_labels, given_label)
        expected[f"{name}_difference"] = max(gaps)
        if num_labels > 2 or num_groups > 2:
            expected[f"mean_{name}_difference"] = np.mean(gaps)
    for name, value in expected.items():
        assert result[name] == pytest.approx(value, abs=ATOL_FLOAT64), name
    assert {name for name in result if name.startswith("mean_")} == {name for name in expected if "mean_" in name}
    if num_labels == 2 and kind == "scores":
        margins = (scores[:, 1] - scores[:, 0])[counted]
        assert result["roc_auc"] == pytest.approx(slow_roc_auc(margins, known), abs=ATOL_FLOAT64)
    else:
        assert result["roc_auc"] is None


def test_rates_of_each_group_equal_the_definitions():
    scores, labels, groups = make_nodes(num_groups=3)
    counted = labels != -100
    guesses, known, of = scores[counted].argmax(1), labels[counted], groups[counted]

    result = load_metric("group_fairness").compute(predictions=scores, references=labels, groups=groups)

    assert result["groups"] == [0, 1, 2]
    assert result["group_counts"] == [int((of == group).sum()) for group in range(3)]
    for group in range(3):
        members = of == group
        assert result["group_accuracies"][group] == pytest.approx(slow_rate(guesses == known, members))
        assert result["group_positive_rates"][group] == pytest.approx(slow_rate(guesses == 1, members))
        rate = slow_rate(guesses == 1, members & (known == 1))
        assert result["group_true_positive_rates"][group] == pytest.approx(rate)


def test_rates_of_more_classes_are_lists():
    scores, labels, groups = make_nodes(num_labels=4)

    result = load_metric("group_fairness").compute(predictions=scores, references=labels, groups=groups)

    assert np.shape(result["group_positive_rates"]) == (2, 4)
    assert np.sum(result["group_positive_rates"], axis=1) == pytest.approx([1, 1])


@pytest.mark.parametrize("case", [0, 1, 2])
@pytest.mark.parametrize("kind", ["scores", "ids"])
def test_equals_the_authors_scores(golden_dir, case, kind):
    path = golden_dir / "reliant" / "metrics.safetensors"
    if not path.is_file():
        pytest.skip(f"needs {path}: set DECAHUB_GOLDEN_DIR to the folder that holds reliant/")
    golden = load_file(path)
    guesses = golden[f"{case}.pred"]  # given, and not the argmax of the file's probabilities

    result = load_metric("group_fairness").compute(
        predictions=guesses if kind == "ids" else np.eye(2)[guesses],
        references=golden[f"{case}.label"],
        groups=golden[f"{case}.sens"],
    )

    scores = [result["statistical_parity_difference"], result["equal_opportunity_difference"]]
    assert scores == pytest.approx(golden[f"{case}.dsp_deo"].tolist(), abs=ATOL_FLOAT64)


def test_single_group_has_no_differences():
    with pytest.warns(UserWarning, match="All nodes belong to group 1"):
        result = load_metric("group_fairness").compute(predictions=[1, 0], references=[1, 0], groups=[1, 1])

    assert result["statistical_parity_difference"] is None
    assert result["equal_opportunity_difference"] is None
    assert (result["accuracy"], result["group_counts"]) == (1.0, [2])


def test_group_without_positives_has_no_equal_opportunity():
    with pytest.warns(UserWarning, match="Group 1 has no node of class 1"):
        result = load_metric("group_fairness").compute(predictions=[1, 0, 1], references=[1, 0, 0], groups=[0, 0, 1])

    assert result["equal_opportunity_difference"] is None
    assert result["group_true_positive_rates"] == [1.0, None]
    assert result["statistical_parity_difference"] == 0.5


def test_third_group_without_positives_is_left_out():
    with pytest.warns(UserWarning, match="Group 7 has no node of class 1"):
        result = load_metric("group_fairness").compute(
            predictions=[1, 0, 1, 1], references=[1, 1, 1, 0], groups=[0, 0, 4, 7]
        )

    assert result["equal_opportunity_difference"] == 0.5
    assert result["groups"] == [0, 4, 7]


def test_group_whose_nodes_are_all_left_out_does_not_count():
    with pytest.warns(UserWarning, match="All nodes belong to group 0"):
        result = load_metric("group_fairness").compute(predictions=[1, 0], references=[1, -100], groups=[0, 1])

    assert result["groups"] == [0]


def test_nothing_is_warned_of_where_all_is_defined():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_metric("group_fairness").measure(**dict(zip(INPUTS, make_nodes(), strict=True)))


INPUTS = ("predictions", "references", "groups")


def slow_resample(scores, labels, groups, count, seed):
    """Scores of nodes drawn with replacement, one resample after the other."""
    generator = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        chosen = generator.integers(0, len(labels), len(labels))
        rows.append(
            load_metric("group_fairness").measure(
                predictions=scores[chosen], references=labels[chosen], groups=groups[chosen]
            )
        )
    return rows


def test_intervals_equal_a_slow_bootstrap():
    scores, labels, groups = make_nodes(num_nodes=61)
    counted = labels != -100
    scores, labels, groups = scores[counted], labels[counted], groups[counted]
    rows = slow_resample(scores, labels, groups, count=50, seed=8)

    result = load_metric("group_fairness").compute(
        predictions=scores, references=labels, groups=groups, num_bootstrap=50, confidence=0.8, seed=8
    )

    for name in ("accuracy", "roc_auc", "f1", "statistical_parity_difference", "equal_opportunity_difference"):
        expected = np.quantile([row[name] for row in rows], [0.1, 0.9])
        assert result[f"{name}_interval"] == pytest.approx(expected.tolist(), abs=ATOL_FLOAT64), name


def test_interval_covers_the_score_and_follows_the_seed():
    columns = dict(zip(INPUTS, make_nodes(), strict=True))

    results = [load_metric("group_fairness").compute(**columns, num_bootstrap=200, seed=seed) for seed in (0, 0, 1)]

    low, high = results[0]["statistical_parity_difference_interval"]
    assert low < results[0]["statistical_parity_difference"] < high
    assert results[0] == results[1]
    assert results[0]["accuracy_interval"] != results[2]["accuracy_interval"]


def test_undefined_score_has_no_interval():
    with pytest.warns(UserWarning, match="All nodes belong to group 0"):
        result = load_metric("group_fairness").compute(
            predictions=[1, 0, 1], references=[1, 0, 0], groups=[0, 0, 0], num_bootstrap=20
        )

    assert result["statistical_parity_difference_interval"] is None
    assert result["roc_auc_interval"] is None
    assert len(result["accuracy_interval"]) == 2


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"references": [2, 0, 1]}, ValueError, r"`references` must be in \[0, 2\); got 2"),
        ({"references": [-1, 0, 1]}, ValueError, r"`references` must be in \[0, 2\); got -1"),
        ({"groups": [0, -1, 1]}, ValueError, "`groups` must be 0 or larger; got -1"),
        ({"groups": ["a", "b", "a"]}, TypeError, "`groups` must hold integers; got <U1. Map each value to an id"),
        ({"groups": [0.0, 1.0, 0.0]}, TypeError, "`groups` must hold integers; got float64"),
        ({"groups": [0, 1]}, ValueError, r"got \(3, 2\), \(3,\) and \(2,\)"),
        ({"predictions": [[0.1, math.nan]] * 3}, ValueError, "`predictions` must be finite"),
        ({"predictions": [0.1, 0.9, 0.2]}, TypeError, "must be class ids; got float64"),
        ({"predictions": [1, -2, 0]}, ValueError, "`predictions` must be 0 or larger; got -2"),
        ({"predictions": [[0.5]] * 3}, ValueError, r"scores of two classes at least; got \(3, 1\)"),
        ({"references": [-100] * 3}, ValueError, "`references` must hold labeled nodes"),
        ({"num_bootstrap": -1}, ValueError, "`num_bootstrap` must be at least 0"),
        ({"num_bootstrap": 2, "confidence": 1.0}, ValueError, r"`confidence` must be in \(0, 1\); got 1.0"),
    ],
)
def test_group_fairness_refuses(changes, kind, message):
    columns = {"predictions": [[0.1, 0.9], [0.7, 0.3], [0.4, 0.6]], "references": [1, 0, 0], "groups": [0, 1, 1]}

    with pytest.raises(kind, match=message):
        load_metric("group_fairness").compute(**{**columns, **changes})


def test_ids_and_scores_cannot_be_mixed():
    metric = load_metric("group_fairness")
    metric.add_batch(predictions=[1], references=[1], groups=[0])
    metric.add_batch(predictions=[[0.5, 0.2]], references=[1], groups=[1])

    with pytest.raises(ValueError, match="the same number of classes in all batches"):
        metric.compute()
