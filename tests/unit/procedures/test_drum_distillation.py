"""Grooves that a teacher writes for a small drum model: written once, the same again, never mixed with others."""

from pathlib import Path

import numpy as np
import pytest

from decahub.models.drum_lm.midi.codec import DrumCodec, DrumRoll
from decahub.procedures import drum_distillation, drum_lm
from decahub.procedures.drum_distillation import write_grooves


TEACHER = str(Path(__file__).parents[3] / "model_cards" / "drum-lm-small-groove")
BARS, STEPS = 4, 16


@pytest.fixture
def rows() -> list[dict]:
    def build_row(seed: int) -> dict:
        hits = np.random.default_rng(seed).random((3 * STEPS, 6)) < 0.2
        hits[::STEPS, 3] = True
        return {"midi": DrumCodec().to_midi(DrumRoll(hits, STEPS, (4, 4), 100.0))}

    return [build_row(seed) for seed in range(3)]


def write(rows: list[dict], folder: Path, **options) -> list[dict]:
    return write_grooves(rows, folder, TEACHER, None, 29, **{"bars": BARS, "batch_size": 2, **options})


def test_a_teacher_continues_each_groove_in_each_round(rows, tmp_path):
    written = write(rows, tmp_path, rounds=2)

    processor = drum_lm.build_processor(drum_lm.Arguments())
    rolls = [processor.read(row["midi"], bars=BARS).hits for row in written]
    assert [len(roll) for roll in rolls] == [BARS * STEPS] * 6
    first, second = rolls[:3], rolls[3:]
    assert all(np.array_equal(one[: 2 * STEPS], other[: 2 * STEPS]) for one, other in zip(first, second, strict=True))
    assert not all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))


def test_a_run_that_was_stopped_writes_what_is_missing(rows, tmp_path, monkeypatch):
    whole = write(rows, tmp_path)
    (tmp_path / "00002.mid").unlink()

    assert write(rows, tmp_path) == whole
    monkeypatch.setattr(drum_distillation, "load_model", None)
    assert write(rows, tmp_path) == whole, "nothing is missing, so that no teacher is loaded"


@pytest.mark.parametrize("change", [{"temperature": 0.5}, {"bars": 5}, {"rounds": 2}])
def test_what_was_written_under_other_settings_is_refused(change, rows, tmp_path):
    write(rows, tmp_path)

    with pytest.raises(ValueError, match=f"`{next(iter(change))}` has changed"):
        write(rows, tmp_path, **change)
    with pytest.raises(ValueError, match="`grooves` has changed"):
        write(rows[::-1], tmp_path)


def test_a_teacher_writes_at_least_once(rows, tmp_path):
    with pytest.raises(ValueError, match="`rounds` must be at least 1; got 0"):
        write(rows, tmp_path, rounds=0)


def test_a_student_learns_from_people_and_teacher(rows, tmp_path):
    arguments = drum_lm.Arguments(teacher=TEACHER, distillation={"bars": BARS}, output_dir=str(tmp_path))
    processor = drum_lm.build_processor(arguments)

    assert len(drum_lm.build_train_dataset(arguments, rows, processor)) == 2 * len(rows)
    assert len(list((tmp_path / "written").glob("*.mid"))) == len(rows)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"distillation": {"bars": 8}}, "`distillation` must come with a `teacher`"),
        ({"teacher_base": "base.gguf"}, "`teacher_base` must come with a `teacher`"),
        ({"teacher": TEACHER, "distillation": {"bar": 8}}, r"`bar` in `distillation`.*`bars`"),
        ({"teacher": TEACHER, "distillation": {"seed": 8}}, "`seed` in `distillation` is not an option"),
    ],
)
def test_settings_without_effect_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        drum_lm.Arguments(**given)
