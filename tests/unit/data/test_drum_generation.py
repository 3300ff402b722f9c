"""Grooves as data: the table of the dataset, a user's own folders, excerpts, batches, evaluation."""

import csv
import random

import numpy as np
import pytest
import torch

from decahub import DrumLmProcessor
from decahub.data import SeededTransform, drum_generation, load_dataset
from decahub.data.drum_generation import build_eval_transform, build_train_transform, collate, rotate_bars
from decahub.evaluation import evaluate_model
from decahub.models.drum_lm.midi.codec import DrumRoll
from decahub.models.drum_lm.tokenization import build_line_tokenizer
from tests.tiny.drum_lm_model import build_model


STEPS = 16
PROCESSOR = DrumLmProcessor(build_line_tokenizer(), tokenization="line")
FIELDS = ("drummer", "session", "style", "bpm", "beat_type", "time_signature", "midi_filename", "split")


def build_midi(bars=8, seed=0):
    hits = np.random.default_rng(seed).random((bars * STEPS, 6)) < 0.2
    hits[::STEPS, 3] = True
    return PROCESSOR.to_midi(DrumRoll(hits, STEPS, (4, 4), 100.0))


@pytest.fixture
def groove_folder(tmp_path):
    """The layout of the dataset, with one file of each kind that is left out."""
    rows = []
    for number, (session, kind, meter, split) in enumerate(
        [
            ("session1", "beat", "4-4", "train"),
            ("session1", "fill", "4-4", "train"),
            ("session2", "beat", "6-8", "train"),
            ("eval_session", "beat", "4-4", "test"),
            ("session3", "beat", "4-4", "validation"),
            ("session3", "beat", "4-4", "test"),
        ]
    ):
        name = f"drummer3/{session}/{number}_funk_100_{kind}_{meter}.mid"
        path = tmp_path / "groove" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(build_midi(seed=number))
        rows.append(("drummer3", f"drummer3/{session}", "funk", "100", kind, meter, name, split))
    with (tmp_path / "groove" / "info.csv").open("w", newline="") as file:
        csv.writer(file).writerows([FIELDS, *rows])
    return tmp_path


def test_a_folder_without_splits_is_refused(tmp_path):
    (tmp_path / "beat.mid").write_bytes(build_midi())

    with pytest.raises(ValueError, match="must be a folder with a folder of MIDI files for each split"):
        load_dataset(str(tmp_path), family="drum-generation")


def test_only_beats_of_the_sessions_in_quarters_are_read(groove_folder, caplog):
    splits = load_dataset("groove", groove_folder)

    assert "Left out 1 grooves whose beat is no quarter note: 2_funk_100_beat_6-8 (6-8)" in caplog.text

    assert {name: rows["name"][:] for name, rows in splits.items()} == {
        "train": ["3_0_funk_100_beat_4-4"],
        "validation": ["3_4_funk_100_beat_4-4"],
        "test": ["3_5_funk_100_beat_4-4"],
    }
    row = splits["train"][0]
    assert (row["bpm"], row["style"], row["time_signature"]) == (100.0, "funk", "4/4")
    assert row["midi"] == build_midi(seed=0)


def test_a_missing_file_of_the_table_is_named(groove_folder):
    next(groove_folder.glob("groove/drummer3/session1/0_*")).unlink()

    with pytest.raises(FileNotFoundError, match=r"0_funk_100_beat_4-4.mid"):
        load_dataset("groove", groove_folder)


def test_a_table_without_a_column_is_refused(groove_folder):
    table = groove_folder / "groove" / "info.csv"
    table.write_text(table.read_text().replace("beat_type", "kind"))

    with pytest.raises(ValueError, match="beat_type are missing"):
        load_dataset("groove", groove_folder)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (".mid,validation", ".mid,dev", "as splits; drummer3/session3/4_funk_100_beat_4-4.mid has 'dev'"),
        ("funk,100,beat,4-4", "funk,fast,beat,4-4", "numbers as bpm; .*0_funk_100_beat_4-4.mid has 'fast'"),
    ],
)
def test_a_row_of_the_table_that_makes_no_sense_is_named(groove_folder, old, new, message):
    table = groove_folder / "groove" / "info.csv"
    table.write_text(table.read_text().replace(old, new))

    with pytest.raises(ValueError, match=message):
        load_dataset("groove", groove_folder)


def test_a_split_without_a_row_is_none(groove_folder):
    table = groove_folder / "groove" / "info.csv"
    table.write_text(table.read_text().replace(".mid,validation", ".mid,train"))

    assert set(load_dataset("groove", groove_folder)) == {"train", "test"}


def test_a_folder_of_ones_own_has_a_split_in_each_folder(tmp_path):
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "mine.mid").write_bytes(build_midi())

    splits = load_dataset(tmp_path, family="drum-generation")

    assert set(splits) == {"train", "test"}
    assert splits["train"][0]["name"] == "mine"


def test_real_data_has_the_published_splits(data_dir):
    splits = load_dataset("groove", data_dir)

    assert {name: len(rows) for name, rows in splits.items()} == {"train": 373, "validation": 47, "test": 37}


def test_grooves_without_a_lesson_are_left_out_and_named(caplog):
    rows = [{"name": "long", "midi": build_midi()}, {"name": "short", "midi": build_midi(bars=2)}]
    rows.append({"name": "broken", "midi": b"MThd"})

    kept = drum_generation.read_grooves(rows, DrumLmProcessor(build_line_tokenizer(), tokenization="line", bars=3))

    assert [row["name"] for row in kept] == ["long"]  # silence that fills up a roll is no lesson
    assert "Left out short: `groove` must have more bars" in caplog.text
    assert "Left out broken" in caplog.text


def test_a_dataset_without_a_lesson_is_refused():
    processor = DrumLmProcessor(build_line_tokenizer(), tokenization="line")

    with pytest.raises(ValueError, match="must hold a groove to learn from; .*: `groove` must have more bars"):
        drum_generation.read_grooves([{"midi": build_midi(bars=1)}], processor)


def test_a_row_that_cannot_be_read_is_named():
    transform = drum_generation.build_eval_transform(DrumLmProcessor(build_line_tokenizer(), tokenization="line"))

    with pytest.raises(ValueError, match="loop must be readable: `groove` must have more bars"):
        transform({"name": "loop", "midi": build_midi(bars=1)})


def test_excerpts_begin_anywhere_and_repeat_with_the_seed():
    rows = [{"midi": build_midi(seed=1)}]
    examples = SeededTransform(rows, build_train_transform(PROCESSOR, bars=4), seed=3)

    drawn = []
    for epoch in range(40):
        examples.set_epoch(epoch)
        drawn.append(tuple(examples[0]["input_ids"]))
    examples.set_epoch(5)

    assert tuple(examples[0]["input_ids"]) == drawn[5]
    whole = PROCESSOR.encode_pair(rows[0]["midi"])["input_ids"]
    starts = {tuple(whole[17 * bar : 17 * bar + 34]) for bar in range(5)}
    assert {ids[:34] for ids in drawn} == starts


def test_evaluation_takes_the_whole_groove():
    example = build_eval_transform(PROCESSOR)({"midi": build_midi()})

    assert example["input_ids"] == PROCESSOR.encode_pair(build_midi())["input_ids"]


def test_a_rotated_groove_has_the_same_bars_in_the_same_circle():
    random.seed(0)
    hits = np.random.default_rng(0).random((5 * STEPS, 6)) < 0.3
    hits[-1, 0] = True
    padded = np.concatenate([hits, np.zeros((2 * STEPS, 6), dtype=bool)])

    shifts = set()
    for _ in range(20):
        rotated = rotate_bars(DrumRoll(padded, STEPS)).hits
        assert not rotated[5 * STEPS :].any()
        (shift,) = (bar for bar in range(5) if np.array_equal(np.roll(hits, -bar * STEPS, 0), rotated[: 5 * STEPS]))
        shifts.add(shift)
    assert shifts == set(range(5))


def test_swapping_exchanges_ride_and_hihat():
    plain, swapped = (build_train_transform(PROCESSOR, swap_prob=prob)({"midi": build_midi()}) for prob in (0.0, 1.0))

    before, after = (PROCESSOR.decode_roll(example["input_ids"]).hits for example in (plain, swapped))
    assert np.array_equal(before[:, [0, 4, 2, 3, 1, 5]], after)
    assert not np.array_equal(before, after)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bars": 2, "prompt_bars": 2}, r"`prompt_bars` must be in \[0, `bars` \(2\)\); got 2"),
        ({"swap_prob": 1.5}, r"`swap_prob` must be in \[0, 1\]; got 1.5"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_train_transform(PROCESSOR, **arguments)


def test_a_batch_is_padded_on_the_right():
    examples = [PROCESSOR.encode_pair(build_midi(bars=bars)) for bars in (4, 6)]

    batch = collate(examples)

    short = len(examples[0]["input_ids"])
    assert batch["attention_mask"].sum(1).tolist() == [len(example["input_ids"]) for example in examples]
    assert bool((batch["labels"][0, short:] == -100).all())
    assert not bool(batch["is_mark"][0, short:].any())
    assert batch["num_steps"].tolist() == [2 * STEPS, 4 * STEPS]
    assert "is_mark" not in drum_generation.collate_training(examples)


def test_bits_of_a_model_are_those_of_its_loss(groove_folder):
    torch.manual_seed(0)
    model = build_model(prompt_loss_weight=0.0)
    rows = load_dataset("groove", groove_folder)["test"]
    example = build_eval_transform(PROCESSOR)(rows[0])

    scores = evaluate_model(model, PROCESSOR, rows, "drum-generation", show_progress=False).scores

    batch = drum_generation.collate_training([example])
    with torch.inference_mode():
        expected = float(model(**batch).bits_per_step)
    assert scores["bits_per_step"] == pytest.approx(expected, rel=1e-5)
    assert 0 < scores["bits_per_step_of_lines"] < scores["bits_per_step"]
