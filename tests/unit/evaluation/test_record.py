"""`evaluation.json`: written whole or not at all, read with one clear sentence for every error."""

import json
import math
import os

import pytest

from decahub.evaluation import build_evaluation, read_evaluation, write_evaluation


FACTS = {"task": "image-classification", "dataset": "cifar10", "split": "test", "num_rows": 7, "minutes": 1.234}


def test_round_trip(tmp_path):
    written = write_evaluation(tmp_path, {"accuracy": 3 / 7, "top_5_accuracy": 1}, **FACTS)

    assert read_evaluation(tmp_path) == read_evaluation(tmp_path / "evaluation.json") == written
    assert written["figures"] == [
        {"metric": "accuracy", "value": 3 / 7, "n": 7},
        {"metric": "top_5_accuracy", "value": 1.0, "n": 7},
    ]
    assert written["dataset"] == {"name": "cifar10", "title": "CIFAR-10 (JPEG)", "split": "test", "num_rows": 7}
    assert written["minutes"] == 1.23
    assert written["versions"]["torch"]


def test_unknown_minutes_are_left_out(tmp_path):
    write_evaluation(tmp_path, {"accuracy": 1.0}, **(FACTS | {"minutes": None}))

    assert "minutes" not in read_evaluation(tmp_path)


@pytest.mark.parametrize(("title", "expected"), [(None, "my_photos"), ("My photos", "My photos")])
def test_title_of_own_data(title, expected):
    evaluation = build_evaluation({"accuracy": 1.0}, **(FACTS | {"dataset": "my_photos", "title": title}))

    assert evaluation["dataset"]["title"] == expected


@pytest.mark.parametrize(
    ("scores", "message"),
    [({}, "at least one score; got none"), ({"accuracy": math.nan}, "must be finite; got nan for 'accuracy'")],
    ids=["none", "nan"],
)
def test_refuses_scores(tmp_path, scores, message):
    with pytest.raises(ValueError, match=message):
        write_evaluation(tmp_path, scores, **FACTS)

    assert list(tmp_path.iterdir()) == []


def test_older_file_survives_a_failing_write(tmp_path, monkeypatch):
    before = write_evaluation(tmp_path, {"accuracy": 0.5}, **FACTS)

    def full_disk(*args):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_evaluation(tmp_path, {"accuracy": 0.6}, **FACTS)

    assert read_evaluation(tmp_path) == before


def test_absent_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"`evaluation\.json` was not found; tried .*evaluation\.json"):
        read_evaluation(tmp_path)


def test_truncated_file_is_refused(tmp_path):
    write_evaluation(tmp_path, {"accuracy": 0.5}, **FACTS)
    path = tmp_path / "evaluation.json"
    path.write_text(path.read_text()[:-20])

    with pytest.raises(ValueError, match=r"must be a JSON file; .*Is it truncated\?"):
        read_evaluation(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: record.pop("task"), "must hold task, .*; task is missing"),
        (lambda record: record["dataset"].pop("split"), "`dataset` in .* must hold name, .*; split is missing"),
        (
            lambda record: record["figures"][1].pop("n"),
            r"`figures\[1\]` in .* metric, value, n; n is missing",
        ),
        (lambda record: record.update(dataset="cifar10"), "`dataset` in .* must be an object .*; got str"),
    ],
    ids=["task", "split", "n", "type"],
)
def test_incomplete_file_is_refused(tmp_path, change, message):
    write_evaluation(tmp_path, {"accuracy": 0.5, "top_5_accuracy": 0.5}, **FACTS)
    path = tmp_path / "evaluation.json"
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))

    with pytest.raises(ValueError, match=message):
        read_evaluation(path)
