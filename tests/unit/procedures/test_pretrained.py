"""Weights to fine-tune."""

import logging

import pytest

from decahub import EmoForImageClassification
from decahub.procedures import reliant
from decahub.procedures.pretrained import check_source, load_pretrained
from tests.hub.builders import build_model_folder


def test_a_replaced_head_is_named_in_one_line(tmp_path, caplog, capfd):
    folder = build_model_folder(tmp_path / "emo-tiny")

    with caplog.at_level(logging.WARNING):
        model = load_pretrained(EmoForImageClassification, str(folder), num_labels=5)

    assert model.config.num_labels == 5
    assert [record.message.partition("; ")[2] for record in caplog.records] == [
        "2 tensors get new random weights: classifier.bias, classifier.weight"
    ]
    assert "MISMATCH" not in capfd.readouterr().err


@pytest.mark.parametrize("source", ["/nowhere/at/all", "./nowhere"])
def test_a_folder_that_does_not_exist_is_no_hub_id(source):
    with pytest.raises(FileNotFoundError, match=f"`pretrained` .*; the folder '{source}' does not exist"):
        load_pretrained(EmoForImageClassification, source)


def test_says_when_a_folder_that_is_not_there_is_looked_for_on_the_hub(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "student").mkdir(parents=True)

    check_source("teacher", "runs/student")
    assert not caplog.messages
    check_source("teacher", "runs/studnet")
    assert caplog.messages == [f"`teacher`: no folder 'runs/studnet' in {tmp_path}; looking for it on the Hub."]


def test_weights_that_are_not_finite_are_refused(tmp_path):
    folder = build_model_folder(tmp_path / "emo-tiny")
    model = EmoForImageClassification.from_pretrained(folder)
    model.classifier.bias.data[0] = float("nan")
    model.save_pretrained(folder)

    with pytest.raises(ValueError, match="must be finite; `classifier.bias` holds NaN or infinity"):
        load_pretrained(EmoForImageClassification, str(folder))


def test_a_teacher_that_does_not_exist_is_no_hub_id():
    with pytest.raises(FileNotFoundError, match="`teacher` .*; the folder '/nowhere' does not exist"):
        reliant.find_knowledge(reliant.Arguments(teacher="/nowhere"), {})
