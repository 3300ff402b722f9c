"""The audit's scores against loops over images, and what is left undefined."""

import numpy as np
import pytest

from decahub import load_metric


def draw_columns(num_images=60, seed=0):
    generator = np.random.default_rng(seed)
    return {
        name: generator.integers(0, 4, num_images)
        for name in ("predictions", "references", "triggered", "quantized", "control")
    }


def count_slowly(columns, target):
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    others = [row for row in rows if row["references"] != target]

    def share(of, holds):
        return sum(map(holds, of)) / len(of)

    clean = share(others, lambda row: row["predictions"] == target)
    success = share(others, lambda row: row["triggered"] == target)
    return {
        "cta": share(rows, lambda row: row["predictions"] == row["references"]),
        "asr": share(rows, lambda row: row["triggered"] == target),
        "asr_non_target": success,
        "clean_target_rate": clean,
        "robust_accuracy": share(others, lambda row: row["triggered"] == row["references"]),
        "asr_quantized": share(others, lambda row: row["quantized"] == target),
        "asr_control": share(others, lambda row: row["control"] == target),
        "num_non_target": len(others),
        "lift": success - clean,
    }


@pytest.mark.parametrize("target", [0, 3])
def test_scores_are_those_of_loops(target):
    metric, columns = load_metric("backdoor_audit"), draw_columns()

    for part in (slice(0, 13), slice(13, None)):
        metric.add_batch(**{name: values[part] for name, values in columns.items()})
    result = metric.compute(target_label=target)

    assert result == pytest.approx(count_slowly(columns, target))


def test_left_out_columns_are_undefined():
    metric, columns = load_metric("backdoor_audit"), draw_columns()
    metric.add_batch(**{name: columns[name] for name in ("predictions", "references", "triggered")})

    result = metric.compute(target_label=1)

    assert result["asr_quantized"] is None
    assert result["asr_control"] is None
    assert result["asr"] is not None


def test_images_of_the_target_class_alone_give_no_rate():
    metric = load_metric("backdoor_audit")
    metric.add_batch(predictions=[2, 1], references=[2, 2], triggered=[2, 2])

    result = metric.compute(target_label=2)

    assert (result["cta"], result["asr"], result["num_non_target"]) == (0.5, 1.0, 0)
    assert result["asr_non_target"] is None
    assert result["lift"] is None


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"triggered": [0.5, 1.0]}, "`triggered` must hold a class id for each of 2 images; got float64"),
        ({"triggered": [1]}, r"`triggered` must hold a class id for each of 2 images; got int64 of shape \(1,\)"),
        ({"control": [[1], [2]]}, r"`control` must hold .* of shape \(2, 1\)"),
    ],
    ids=["floats", "length", "shape"],
)
def test_refuses_columns(columns, message):
    given = {"predictions": [0, 1], "references": [0, 1], "triggered": [0, 0], **columns}
    with pytest.raises(ValueError, match=message):
        load_metric("backdoor_audit").add_batch(**given)


def test_refuses_a_column_that_comes_and_goes():
    metric = load_metric("backdoor_audit")
    metric.add_batch(predictions=[0], references=[1], triggered=[0], control=[0])
    metric.add_batch(predictions=[0], references=[1], triggered=[0])

    with pytest.raises(ValueError, match="`control` must be given in all batches or in none; 1 images lack it"):
        metric.compute(target_label=0)
