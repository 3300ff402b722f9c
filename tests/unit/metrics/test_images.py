"""Metrics against slow references written from their definitions, through the interface of `evaluate`."""

import ast
import math
import sys
from pathlib import Path

import evaluate
import numpy as np
import pytest
import torch

import decahub.metrics
from decahub.metrics import list_metrics, load_metric


ATOL_FLOAT64 = 1e-12  # the same few divisions, summed in another order


def slow_top_k_accuracy(scores, labels, k):
    hits = 0
    for row, label in zip(scores, labels, strict=True):
        ranking = sorted(range(len(row)), key=lambda index: (-row[index], index))
        hits += label in ranking[:k]
    return hits / len(labels)


def slow_segmentation_scores(predictions, references, num_labels, ignore_index):
    iou, accuracy, all_correct, all_labeled = [], [], 0, 0
    for class_id in range(num_labels):
        correct = labeled = predicted = 0
        for prediction, reference in zip(predictions, references, strict=True):
            for guess, label in zip(prediction.flatten(), reference.flatten(), strict=True):
                if label == ignore_index:
                    continue
                correct += guess == label == class_id
                labeled += label == class_id
                predicted += guess == class_id
        union = labeled + predicted - correct
        iou.append(correct / union if union else math.nan)
        accuracy.append(correct / labeled if labeled else math.nan)
        all_correct, all_labeled = all_correct + correct, all_labeled + labeled
    return {
        "mean_iou": np.mean([value for value in iou if not math.isnan(value)]),
        "mean_accuracy": np.mean([value for value in accuracy if not math.isnan(value)]),
        "overall_accuracy": all_correct / all_labeled,
        "per_category_iou": iou,
        "per_category_accuracy": accuracy,
    }


def make_masks(num_labels=5, ignore_index=255):
    """Masks of unequal sizes; class 3 is never labeled, class 4 neither labeled nor predicted."""
    generator = np.random.default_rng(7)
    predictions, references = [], []
    for size in [(6, 9), (4, 3), (11, 2)]:
        reference = generator.integers(0, 3, size)
        prediction = np.where(generator.random(size) < 0.6, reference, generator.integers(0, 4, size))
        reference[generator.random(size) < 0.2] = ignore_index
        predictions.append(prediction)
        references.append(reference)
    return predictions, references


@pytest.mark.parametrize("name", list_metrics())
def test_loads_by_name_and_by_path(name):
    metric = load_metric(name)

    assert isinstance(metric, evaluate.Metric)
    assert metric.inputs_description.strip()


def test_lists_all_metrics():
    assert list_metrics() == [
        "backdoor_audit", "drum_structure", "feature_probe", "few_shot_map", "group_fairness", "image_quality",
        "mean_iou", "node_accuracy", "nuscenes_detection", "subtype_validity", "top_k_accuracy",
    ]  # fmt: skip


def test_unknown_name_gets_the_nearest():
    with pytest.raises(
        ValueError, match=r"must be one of .*mean_iou, .*top_k_accuracy; got 'top_5'\. Did you mean 'top_k_"
    ):
        load_metric("top_5")


@pytest.mark.parametrize("name", list_metrics())
def test_imports_only_what_the_loader_of_evaluate_can_follow(name):
    path = Path(decahub.metrics.__file__).parent / name / f"{name}.py"
    nodes = list(ast.walk(ast.parse(path.read_text())))
    imports = [node for node in nodes if isinstance(node, ast.Import)]
    libraries = {"typing", "pycocotools", "pycocotools.cocoeval", "pycocotools.coco"}
    beside = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.module not in libraries]

    assert all(len(node.names) == 1 for node in imports)
    assert {node.names[0].name for node in imports} <= (
        {"datasets", "evaluate", "numpy", "scipy"} | sys.stdlib_module_names
    )
    assert all(node.level == 1 and (path.parent / f"{node.module}.py").is_file() for node in beside)


@pytest.mark.parametrize("k", [1, 2, 5, 9])
def test_top_k_equals_the_definition(k):
    generator = np.random.default_rng(1)
    scores = generator.integers(0, 4, (40, 7)).astype(float)  # few values, so that there are many ties
    labels = generator.integers(0, 7, 40)

    result = load_metric("top_k_accuracy").compute(predictions=scores, references=labels, k=[k])

    (value,) = result.values()
    assert value == pytest.approx(slow_top_k_accuracy(scores, labels, k), abs=ATOL_FLOAT64)


def test_top_1_equals_argmax_on_ties():
    scores, labels = torch.tensor([[1.0, 1.0], [2.0, 2.0], [0.0, 1.0]]), torch.tensor([0, 1, 1])

    result = load_metric("top_k_accuracy").compute(predictions=scores, references=labels, k=[1])

    assert result == {"accuracy": (scores.argmax(1) == labels).double().mean().item()}


def test_top_k_names_its_scores():
    result = load_metric("top_k_accuracy").compute(predictions=[[3.0, 2.0, 1.0]], references=[1])

    assert result == {"accuracy": 0.0, "top_5_accuracy": 1.0}


def test_batches_add_up():
    scores, labels = torch.rand(10, 7, generator=torch.Generator().manual_seed(0)), torch.arange(10) % 7
    whole, parts = load_metric("top_k_accuracy"), load_metric("top_k_accuracy")

    for start, stop in [(0, 1), (1, 7), (7, 10)]:
        parts.add_batch(predictions=scores[start:stop], references=labels[start:stop])

    assert parts.compute() == whole.compute(predictions=scores, references=labels)


def test_single_examples_add_up():
    metric = load_metric("top_k_accuracy")

    metric.add(prediction=[0.1, 0.9], reference=1)
    metric.add(prediction=[0.1, 0.9], reference=0)

    assert metric.compute(k=[1]) == {"accuracy": 0.5}


def test_metric_can_be_used_again():
    metric = load_metric("top_k_accuracy", keep_in_memory=True)
    metric.compute(predictions=[[0.1, 0.9]], references=[0])

    assert metric.compute(predictions=[[0.1, 0.9]], references=[1], k=[1]) == {"accuracy": 1.0}


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        ([[0.1, 0.9]], [2], r"`references` must be in \[0, 2\); got 2 in row 0"),
        ([[0.1, 0.9], [0.4, 0.6]], [1, -1], r"`references` must be in \[0, 2\); got -1 in row 1"),
        ([[0.1, 0.9], [math.nan, 0.6]], [1, 1], r"`predictions` must be finite; got \[nan, 0.6\] in row 1"),
        ([[0.1, 0.9]], [1, 1], r"got \(1, 2\) and \(2,\)"),
        ([1, 0], [1, 0], r"`predictions` must be \(num_examples, num_classes\).*got \(2,\) and \(2,\)"),
    ],
    ids=["label too large", "negative label", "nan", "unequal lengths", "class ids for scores"],
)
def test_top_k_refuses(predictions, references, message):
    with pytest.raises(ValueError, match=message):
        load_metric("top_k_accuracy").add_batch(predictions=predictions, references=references)


@pytest.mark.parametrize("k", [[], [0, 1]])
def test_top_k_refuses_k(k):
    with pytest.raises(ValueError, match="`k` must hold positive integers"):
        load_metric("top_k_accuracy").compute(predictions=[[0.1, 0.9]], references=[1], k=k)


@pytest.mark.parametrize("ignore_index", [255, 4], ids=["ignores 255", "ignores 4"])
def test_mean_iou_equals_the_definition(ignore_index):
    num_labels = 5 if ignore_index == 255 else 4
    predictions, references = make_masks(ignore_index=ignore_index)

    result = load_metric("mean_iou").compute(
        predictions=predictions, references=references, num_labels=num_labels, ignore_index=ignore_index
    )

    expected = slow_segmentation_scores(predictions, references, num_labels, ignore_index)
    assert result.keys() == expected.keys()
    for name, value in expected.items():
        assert result[name] == pytest.approx(value, abs=ATOL_FLOAT64, nan_ok=True), name


def test_mean_iou_sums_over_the_data_set_and_not_over_images():
    masks = make_masks()
    whole = load_metric("mean_iou").compute(predictions=masks[0], references=masks[1], num_labels=5)
    metric = load_metric("mean_iou")

    for prediction, reference in zip(*masks, strict=True):
        metric.add(prediction=torch.from_numpy(prediction), reference=reference.tolist())

    np.testing.assert_equal(metric.compute(num_labels=5), whole)


def test_nothing_is_ignored_without_an_ignore_index():
    masks = {"predictions": [[[0, 1]]], "references": [[[0, 255]]]}

    with pytest.raises(ValueError, match=r"`references` must be in \[0, 2\).*got 255"):
        load_metric("mean_iou").compute(**masks, num_labels=2, ignore_index=None)


def test_memory_does_not_grow_with_the_size_of_masks():
    metric = load_metric("mean_iou", keep_in_memory=True)
    for _ in range(100):
        mask = np.full((360, 480), 3, dtype=np.uint8)
        metric.add_batch(predictions=[mask], references=[mask])

    metric.writer.finalize()

    assert metric.buf_writer.getvalue().size < 100_000  # bytes, for 17 million pixels


@pytest.mark.parametrize(
    ("predictions", "references", "kind", "message"),
    [
        ([[[0, 1]]], [[[0, 2]]], ValueError, r"`references` must be in \[0, 2\) or 255 \(ignored\); got 2"),
        ([[[0, 2]]], [[[0, 1]]], ValueError, r"`predictions` must be in \[0, 2\) or 255 \(ignored\); got 2"),
        ([[[0, 1]]], [[[255, 255]]], ValueError, "`references` must hold labeled pixels; all of them are 255"),
        ([[[0, 300]]], [[[0, 1]]], ValueError, r"`predictions` must be in \[0, 256\); got values from 0 to 300"),
        ([[[0.5, 1.0]]], [[[0, 1]]], TypeError, "`predictions` must hold integers; got float64"),
        (
            [[[0, 1]]],
            [[[0], [1]]],
            ValueError,
            r"size of its reference, \(2, 1\); got \(1, 2\)",
        ),
        ([[[0, 1]]], [], ValueError, "must hold as many masks; got 1 and 0"),
    ],
    ids=["label", "prediction", "all ignored", "not a byte", "logits", "size", "count"],
)
def test_mean_iou_refuses(predictions, references, kind, message):
    with pytest.raises(kind, match=message):
        load_metric("mean_iou").compute(predictions=predictions, references=references, num_labels=2)


@pytest.mark.parametrize("num_labels", [0, 257])
def test_mean_iou_refuses_number_of_classes(num_labels):
    with pytest.raises(ValueError, match=rf"`num_labels` must be in \[1, 256\]; got {num_labels}"):
        load_metric("mean_iou").compute(predictions=[[[0]]], references=[[[0]]], num_labels=num_labels)


def test_ignored_prediction_matters_only_where_the_pixel_is_labeled():
    result = load_metric("mean_iou").compute(predictions=[[[0, 7]]], references=[[[0, 255]]], num_labels=2)

    assert result["overall_accuracy"] == 1.0
