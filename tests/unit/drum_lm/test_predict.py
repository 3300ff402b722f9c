"""`decahub predict` on drum models: its options reach the pipeline, and the table says what was left out."""

import shutil

import numpy as np
import pytest

from decahub.cli.main import main
from decahub.models.drum_lm.midi.codec import DrumCodec, DrumRoll
from decahub.models.drum_lm.midi.reader import read_midi
from decahub.tasks.drum_generation import name_options
from tests.hub.builders import build_drum_adapter_folder, build_drum_base, build_drum_folder


def run(*words) -> int:
    return main([str(word) for word in words])


@pytest.fixture
def groove(tmp_path):
    """Eight bars of 3/4 in a file."""
    hits = np.zeros((96, 6), dtype=bool)
    hits[::6, 3] = True
    path = tmp_path / "groove.mid"
    path.write_bytes(DrumCodec().to_midi(DrumRoll(hits, 12, (3, 4))))
    return path


def test_the_table_says_which_bars_were_left_out(groove, tmp_path, capsys):
    model = build_drum_folder(tmp_path / "model")
    options = ("--bars", 3, "--prompt-bars", 1, "--start-bar", 2, "--track", 0, "--seed", 1)

    assert run("predict", model, groove, *options, "--time-signature", "3/4", "--steps-per-bar", 12) == 0

    assert "2 before the answer, 5 after the prompt" in capsys.readouterr().out
    assert read_midi(tmp_path / "groove_continued_seed1.mid").time_signatures == [(0, 3, 4)]


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--track", 7, "no track 7"),
        ("--start-bar", 9, "`--start-bar` must be below 8"),
        ("--time-signature", "6/8", "`--time-signature` must be that of the groove, 3/4; got 6/8"),
        ("--steps-per-bar", 16, "`--steps-per-bar` must be 12"),
    ],
)
def test_options_reach_the_reader(groove, tmp_path, option, value, message, capsys):
    model = build_drum_folder(tmp_path / "model")

    assert run("predict", model, groove, "--bars", 3, option, value) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            "`groove` needs a hit. Pass at least 10 `bars`, or `start_bar=9`. Pass `allow_empty=True` for silence.",
            "`groove` needs a hit. Pass at least 10 `--bars`, or `--start-bar 9`.",
        ),
        (
            "Got 60. Name their columns by `pitch_map`, such as {60: 'kick'}. For a track pass `track=`, one of 1.",
            "Got 60. Name their columns by `--pitch-map`, such as 60=kick. For a track pass `--track`, one of 1.",
        ),
        ('`time_signature="last"` is left out.', "`--time-signature last` is left out."),
    ],
)
def test_messages_name_options_of_the_command(message, expected):
    assert name_options(message) == expected


def test_a_folder_stands_for_the_midi_files_in_it(groove, tmp_path, capsys):
    model = build_drum_folder(tmp_path / "model")
    (tmp_path / "other.MIDI").write_bytes(groove.read_bytes())
    (tmp_path / "empty").mkdir()

    assert run("predict", model, tmp_path, "--bars", 3, "--output-dir", tmp_path / "out") == 0
    assert {path.name for path in (tmp_path / "out").glob("*.mid")} == {"groove_continued.mid", "other_continued.mid"}
    assert run("predict", model, tmp_path / "empty") == 2
    assert "a folder with some" in capsys.readouterr().err


def test_grooves_that_were_written_to_a_folder_are_not_continued(groove, tmp_path):
    model = build_drum_folder(tmp_path / "model")

    for seed in ([], ["--seed", 3], []):
        assert run("predict", model, tmp_path, "--bars", 3, "--overwrite", *seed) == 0

    names = {path.name for path in tmp_path.glob("*.mid")}
    assert names == {"groove.mid", "groove_continued.mid", "groove_continued_seed3.mid"}


def test_an_adapter_gets_the_base_that_is_given(groove, tmp_path, monkeypatch, capsys):
    pytest.importorskip("peft")
    monkeypatch.chdir(tmp_path)
    base = build_drum_base(tmp_path / "base")
    model = build_drum_adapter_folder(tmp_path / "adapter", base)
    elsewhere = shutil.move(base, tmp_path / "elsewhere")

    assert run("predict", model, groove, "--bars", 3) == 2
    assert "`--base-model` must be the base of this adapter" in capsys.readouterr().err
    assert run("predict", model, groove, "--bars", 3, "--base-model", elsewhere) == 0


def test_a_warning_names_the_option_of_the_command(tmp_path, caplog):
    model = build_drum_folder(tmp_path / "model")
    hits = np.zeros((48, 6), dtype=bool)
    hits[::4, 3] = True
    midi = DrumCodec().to_midi(DrumRoll(hits)).replace(bytes((0x99, 36)), bytes((0x99, 61)), 1)
    (tmp_path / "groove.mid").write_bytes(midi)

    assert run("predict", model, tmp_path / "groove.mid", "--bars", 3, "--seed", 1) == 0

    (warning,) = (message for message in caplog.messages if "Left out 1 notes" in message)
    assert "`--pitch-map`" in warning
    assert "`pitch_map`" not in warning


def test_a_file_that_is_given_by_two_names_is_answered_once(groove, tmp_path, monkeypatch, capsys):
    model = build_drum_folder(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link.mid").symlink_to(groove)
    spellings = (groove, "groove.mid", "./groove.mid", "model/../groove.mid", "link.mid")

    assert run("predict", model, *spellings, "--bars", 3, "--seed", 1) == 0

    assert len(capsys.readouterr().out.strip().splitlines()) == 3  # the header, its line and one row


def test_fills_are_an_option(groove, tmp_path, capsys):
    model = build_drum_folder(tmp_path / "model")

    assert run("predict", model, groove, "--bars", 4, "--seed", 1, "--fill") == 0
    assert run("predict", model, groove, "--bars", 4, "--seed", 2, "--fill", 9) == 2
    assert "`--fill` must be new bars of the answer, from 2 to 3, counted from 0; got 9" in capsys.readouterr().err
