"""Pairs of prompt and completion become grooves and pairs again; a broken line is named and leaves nothing behind."""

import json

import pytest

from conversion.convert_drum_pairs import convert_pairs, main
from decahub import DrumLmProcessor
from decahub.data import load_dataset
from decahub.models.drum_lm.pairs import build_pair
from decahub.models.drum_lm.tokenization import build_line_tokenizer
from tests.tiny.drum_lm import draw_text


def draw_pair(name, num_lines=256, seed=0):
    """As the authors make it, in blocks of 16 lines whatever the meter."""
    bars = draw_text(bars=num_lines // 16, seed=seed).replace("\nSEP", "").removesuffix("\nEND")
    prompt, completion = build_pair(f"---o--\n{bars[7:]}", strip_rule="first_beat")
    return {"prompt": prompt, "completion": completion, "name": name}


def write_pairs(file, pairs):
    file.parent.mkdir(exist_ok=True)
    file.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))


@pytest.fixture
def pairs(tmp_path):
    """A folder of two splits, one groove in another meter."""
    pairs = {
        "train": [draw_pair("1_3_rock_118_beat_4-4"), draw_pair("1_4_waltz_94_beat_3-4", num_lines=192, seed=1)],
        "dev": [draw_pair("mine", seed=2)],
    }
    for split, part in pairs.items():
        write_pairs(tmp_path / "pairs" / f"{split}.jsonl", part)
    return tmp_path / "pairs"


def read_lines(pair):
    return [line for line in f"{pair['prompt']}{pair['completion']}".split("\n") if line not in ("SEP", "END", "")]


def test_pairs_become_a_data_set(pairs, tmp_path):
    report = convert_pairs(pairs, tmp_path / "grooves")
    loaded = load_dataset(tmp_path / "grooves", family="drum-generation")

    assert report["splits"] == {"train": 2, "validation": 1}
    processor = DrumLmProcessor(build_line_tokenizer(), tokenization="line")
    rolls = {row["name"]: processor.read(row["midi"]) for row in [*loaded["train"], *loaded["validation"]]}
    assert {name: (roll.tempo, roll.time_signature, roll.steps_per_bar) for name, roll in rolls.items()} == {
        "1_3_rock_118_beat_4-4": (pytest.approx(118), (4, 4), 16),
        "1_4_waltz_94_beat_3-4": (pytest.approx(94), (3, 4), 12),
        "mine": (pytest.approx(120), (4, 4), 16),
    }
    given = [json.loads(line) for file in pairs.iterdir() for line in file.read_text().splitlines()]
    assert {pair["name"]: read_lines(pair) for pair in given} == {
        name: processor.to_text(roll).splitlines() for name, roll in rolls.items()
    }


def test_grooves_become_the_pairs_again(pairs, tmp_path):
    convert_pairs(pairs, tmp_path / "grooves")

    convert_pairs(tmp_path / "grooves", tmp_path / "again")

    assert {file.name: file.read_text() for file in (tmp_path / "again").iterdir()} == {
        file.name: file.read_text() for file in pairs.iterdir()
    }


def test_pairs_may_lack_names(tmp_path):
    pair = draw_pair("")
    del pair["name"]
    write_pairs(tmp_path / "train.jsonl", [pair, pair])

    convert_pairs(tmp_path / "train.jsonl", tmp_path / "grooves")

    assert sorted(file.name for file in (tmp_path / "grooves" / "train").iterdir()) == ["00001.mid", "00002.mid"]


def test_short_grooves_are_left_out_with_the_reason(tmp_path, capsys):
    write_pairs(tmp_path / "test.jsonl", [draw_pair("short_90_beat_2-4"), draw_pair("whole")])
    convert_pairs(tmp_path / "test.jsonl", tmp_path / "grooves")

    main(["--source", str(tmp_path / "grooves"), "--output_dir", str(tmp_path / "again")])

    printed = capsys.readouterr().out
    assert "test            1 pairs" in printed
    assert "left out        short_90_beat_2-4: no more than 8 bars" in printed


GOOD = json.dumps(draw_pair("good"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "Expecting property name"),
        (b"\xff", "can't decode byte 0xff"),
        ("[" * 100_000, "maximum recursion depth"),
        ("[1]", "must be an object with `prompt` and `completion`; got list"),
        ('{"prompt": "---o--\\n"}', "`completion` must be a text; got None"),
        ('{"prompt": "---o--\\n", "completion": "--x---\\nEND"}', "must hold only 'o' and '-'; got 'x' in line 2"),
        ('{"prompt": "---o--\\n", "completion": "--o--\\nEND"}', "must have 6 characters in each line; line 2 has 5"),
        ('{"prompt": "------\\nSEP\\n", "completion": "END"}', "must hold a hit; got silence"),
        ('{"prompt": "---o--\\n", "completion": "END", "name": "../../out"}', "`name` must be letters.*'../../out'"),
        ('{"prompt": "---o--\\n", "completion": "END", "name": 3}', "`name` must be letters.*got 3"),
        (GOOD, "`name` must differ from that of line 1; both are 'good'"),
    ],
    ids=["json", "letters", "deep", "list", "missing", "character", "width", "silence", "path", "number", "twice"],
)
def test_a_broken_line_is_named_and_leaves_nothing(tmp_path, line, message):
    file = tmp_path / "train.jsonl"
    file.write_bytes(b"\n".join([GOOD.encode(), b"", line if isinstance(line, bytes) else line.encode()]))

    with pytest.raises(ValueError, match=rf"Each line of .*train.jsonl must be a pair; line 3 is not: .*{message}"):
        convert_pairs(file, tmp_path / "grooves")

    assert list(tmp_path.iterdir()) == [file]


def test_two_files_of_a_split_are_refused(pairs, tmp_path):
    write_pairs(pairs / "validation.jsonl", [draw_pair("another")])

    with pytest.raises(ValueError, match=r"one file for each split; .*validation.jsonl is a second one of 'validat"):
        convert_pairs(pairs, tmp_path / "grooves")

    assert not (tmp_path / "grooves").exists()


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "train.jsonl").write_text("\n")

    with pytest.raises(ValueError, match=r"train.jsonl must hold a pair in each line; it is empty"):
        convert_pairs(tmp_path / "train.jsonl", tmp_path / "grooves")


def test_a_file_that_is_no_groove_is_named(tmp_path):
    (tmp_path / "grooves" / "train").mkdir(parents=True)
    (tmp_path / "grooves" / "train" / "noise.mid").write_bytes(b"noise")

    with pytest.raises(ValueError, match=r"noise.mid must be a groove; it is not"):
        convert_pairs(tmp_path / "grooves", tmp_path / "pairs")


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("gone", FileNotFoundError, "`source` must exist; there is no .*gone"),
        ("notes.txt", ValueError, "`source` must be a .jsonl file or a folder; got .*notes.txt"),
        ("empty", ValueError, "`source` must hold .jsonl files, or a folder of MIDI files for each split"),
    ],
)
def test_sources_that_hold_neither_are_refused(tmp_path, source, error, message):
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "empty").mkdir()

    with pytest.raises(error, match=message):
        convert_pairs(tmp_path / source, tmp_path / "out")


def test_the_command_line_says_what_is_wrong(tmp_path):
    with pytest.raises(SystemExit, match="error: `source` must exist"):
        main(["--source", str(tmp_path / "gone"), "--output_dir", str(tmp_path / "out")])
