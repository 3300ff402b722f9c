"""Drum LM's texts, files, pairs and scores are those of the authors' scripts: every golden file, by its kind.

What each key means, and how the files were made, is in the README of the golden folder.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from conversion.convert_drum_pairs import convert_pairs
from decahub.metrics.drum_structure.structure import compute_stability, levenshtein, split_two_means
from decahub.models.drum_lm.midi.codec import DrumCodec
from decahub.models.drum_lm.midi.meter import MeterError
from decahub.models.drum_lm.midi.reader import read_midi
from decahub.models.drum_lm.pairs import build_pair
from tests.parity.drum_lm_model import KNOWN_KEYS as MODEL_KEYS
from tests.parity.drum_lm_model import check_smollm2_reference
from tests.parity.golden import golden_params


SCORE_ATOL = 1e-9  # float64 means of at most 14 whole numbers, summed in another order
STRUCTURE_KEYS = r"(text|stability|centre_gap|centre_spread)"
KNOWN_KEYS = {
    "codec_and_structure": [rf"\d+\.({STRUCTURE_KEYS}|midi|text_midi|prompt|completion|skipped)"],
    "distance_random": [rf"\d+\.{STRUCTURE_KEYS}", r"lev\.(pairs|dist)"],
    "smollm2_gguf_reference": list(MODEL_KEYS),
}
# What the whole dataset gives.
NUM_SESSION_BEATS = 463
NUM_TEXTS = {"train": 373, "validation": 47, "test": 37}
NUM_PAIRS = {"train": 372, "validation": 47, "test": 37}
SKIPPED_METERS = {"6/8": 5, "5/8": 1}


def read_bytes(golden, key: str) -> bytes:
    return golden[key].numpy().tobytes()


def read_text(golden, key: str) -> str:
    return read_bytes(golden, key).decode()


def list_items(key: str):
    """Names the numbered items of a file that hold the key."""

    def find(golden) -> list[str]:
        return sorted(name.removesuffix(f".{key}") for name in golden.tensors if name.endswith(f".{key}"))

    return find


def items_of(kind: str, key: str):
    return pytest.mark.parametrize(("golden", "item"), golden_params("drum_lm", kind, list_items(key)))


@pytest.mark.parametrize("golden", golden_params("drum_lm"))
def test_every_number_of_a_file_is_looked_at(golden):
    assert golden.kind in KNOWN_KEYS, f"{golden.path.name}: no test for `golden_kind` {golden.kind!r}"
    assert golden.unknown_keys(KNOWN_KEYS[golden.kind]) == []


# --- Text, files and pairs


@items_of("codec_and_structure", "text")
def test_midi_gives_the_authors_text(golden, item):
    codec = DrumCodec.official()

    roll = codec.encode(read_midi(read_bytes(golden, f"{item}.midi")))

    assert codec.to_text(roll) == read_text(golden, f"{item}.text")


@items_of("codec_and_structure", "skipped")
def test_files_that_the_authors_skip_are_refused_with_the_reason(golden, item):
    performance = read_midi(read_bytes(golden, f"{item}.midi"))
    stated = [f"{numerator}/{denominator}" for _, numerator, denominator in performance.time_signatures]
    reason = f"must count quarter notes .*; got {stated[-1]}\\." if stated else "must state a time signature"

    named = re.search(r"_beat_(\d+)-(\d+)$", golden.json("names")[item])  # real files say their meter
    assert named is None or stated == ["/".join(named.groups())]
    with pytest.raises(MeterError, match=reason):
        DrumCodec.official().encode(performance)


@items_of("codec_and_structure", "text_midi")
def test_text_gives_the_authors_file(golden, item):
    codec = DrumCodec.official()

    data = codec.to_midi(codec.parse_text(read_text(golden, f"{item}.text")), mode="official")

    assert data == read_bytes(golden, f"{item}.text_midi")


@items_of("codec_and_structure", "text_midi")
def test_no_hit_is_lost_in_the_authors_files(golden, item):
    text = read_text(golden, f"{item}.text")
    codec = DrumCodec(bars=20, allow_empty=True)  # these files always say 4/4, and the longest has 320 lines

    hits = codec.encode(read_midi(read_bytes(golden, f"{item}.text_midi"))).hits

    lines = text.splitlines(keepends=True)
    assert codec.to_text(hits[: len(lines)]) == text
    assert not hits[len(lines) :].any()


@items_of("codec_and_structure", "prompt")
def test_text_gives_the_authors_pair(golden, item):
    prompt, completion = build_pair(read_text(golden, f"{item}.text"), strip_rule="first_beat")

    assert prompt == read_text(golden, f"{item}.prompt")
    assert completion == read_text(golden, f"{item}.completion")


@items_of("codec_and_structure", "prompt")
def test_the_authors_pair_survives_as_a_groove_up_to_silence_at_its_end(golden, item, tmp_path):
    pair = {key: read_text(golden, f"{item}.{key}") for key in ("prompt", "completion")}
    (tmp_path / "dev.jsonl").write_text(json.dumps({**pair, "name": golden.json("names")[item]}))

    convert_pairs(tmp_path / "dev.jsonl", tmp_path / "grooves")
    convert_pairs(tmp_path / "grooves", tmp_path / "pairs")

    again = json.loads((tmp_path / "pairs" / "dev.jsonl").read_text())
    assert again["prompt"] == pair["prompt"]
    assert again["name"] == golden.json("names")[item]
    lines, expected = (text.removesuffix("\nEND").split("\n") for text in (again["completion"], pair["completion"]))
    assert lines[: len(expected)] == expected
    assert set(lines[len(expected) :]) <= {"------", "SEP"}  # bars as many as were silent at the beginning


@pytest.mark.parametrize("golden", golden_params("drum_lm", "codec_and_structure"))
def test_only_one_groove_of_the_file_gives_no_pair(golden):
    names = golden.json("names")
    grooves = [item for item in list_items("text")(golden) if not names[item].startswith("syn")]

    without = {
        item for item in grooves if build_pair(read_text(golden, f"{item}.text"), strip_rule="first_beat") is None
    }

    assert without == set(grooves) - set(list_items("prompt")(golden))


# --- Structure


@pytest.mark.parametrize(("golden", "item"), [
    *golden_params("drum_lm", "codec_and_structure", list_items("stability")),
    *golden_params("drum_lm", "distance_random", list_items("stability")),
])  # fmt: skip
def test_stability(golden, item):
    assert compute_stability(read_text(golden, f"{item}.text"), bar_lines=16) == golden[f"{item}.stability"].tolist()


def compute_inertia(values: np.ndarray, threshold: float) -> float:
    parts = [values[values <= threshold], values[values > threshold]]
    return sum(float(((part - part.mean()) ** 2).sum()) for part in parts if len(part))


def find_least_inertia(values: np.ndarray) -> float:
    """By trying every cut."""
    return min(compute_inertia(values, threshold) for threshold in values)


SCORE_ITEMS = [
    *golden_params("drum_lm", "codec_and_structure", list_items("centre_gap")),
    *golden_params("drum_lm", "distance_random", list_items("centre_gap")),
]


@pytest.mark.parametrize(("golden", "item"), SCORE_ITEMS)
def test_scores_of_two_means_as_scikit_learn_finds_them(golden, item):
    pytest.importorskip("sklearn")

    scores = split_two_means(golden[f"{item}.stability"].numpy(), cluster="sklearn")

    expected = (golden[f"{item}.centre_gap"].item(), golden[f"{item}.centre_spread"].item())
    assert scores == pytest.approx(expected, abs=SCORE_ATOL)


@pytest.mark.parametrize(("golden", "item"), SCORE_ITEMS)
def test_exact_two_means_differ_from_the_authors_only_where_these_are_not_the_best(golden, item):
    values = golden[f"{item}.stability"].numpy().astype(float)
    expected = (golden[f"{item}.centre_gap"].item(), golden[f"{item}.centre_spread"].item())

    scores = split_two_means(values)

    if scores != pytest.approx(expected, abs=SCORE_ATOL):
        reached = [compute_inertia(values, threshold) for threshold in np.unique(values)]
        gaps = [
            values[values > threshold].mean() - values[values <= threshold].mean()
            for threshold in np.unique(values)[:-1]
        ]
        authors = reached[int(np.abs(np.array(gaps) - expected[0]).argmin())]
        ours = reached[int(np.abs(np.array(gaps) - scores[0]).argmin())]
        assert ours == pytest.approx(find_least_inertia(values), abs=SCORE_ATOL)
        assert ours <= authors + SCORE_ATOL


@pytest.mark.parametrize("golden", golden_params("drum_lm", "distance_random"))
def test_edit_distances(golden):
    strings = read_text(golden, "lev.pairs").split("\0")

    distances = [levenshtein(*pair) for pair in zip(strings[::2], strings[1::2], strict=True)]

    assert distances == golden["lev.dist"].tolist()


# --- Model


@pytest.mark.parametrize("golden", golden_params("drum_lm", "smollm2_gguf_reference"))
def test_language_model(golden):
    texts = {}
    for (other,) in (param.values for param in golden_params("drum_lm", "codec_and_structure")):
        names = other.json("names")
        for item in list_items("prompt")(other):
            texts[names[item]] = read_text(other, f"{item}.prompt") + read_text(other, f"{item}.completion")

    check_smollm2_reference(golden, texts)


# --- The whole dataset


@pytest.fixture(scope="module")
def session_beats(data_dir):
    """Split and path of each beat that the authors use."""
    table = (data_dir / "groove" / "info.csv").read_text().splitlines()
    columns = table[0].split(",")
    rows = [dict(zip(columns, line.split(","), strict=True)) for line in table[1:]]
    return [
        (row["split"], data_dir / "groove" / row["midi_filename"])
        for row in rows
        if "_beat_" in row["midi_filename"] and "eval_session" not in row["midi_filename"]
    ]


def test_counts_of_the_whole_data_set(session_beats):
    codec = DrumCodec.official()
    num_texts, num_pairs, reasons = Counter(), Counter(), Counter()

    for split, path in session_beats:
        try:
            text = codec.to_text(codec.encode(read_midi(path)))
        except MeterError as error:
            reasons[str(error).partition("; got ")[2].partition(".")[0]] += 1
            continue
        num_texts[split] += 1
        num_pairs[split] += build_pair(text, strip_rule="first_beat") is not None

    assert len(session_beats) == NUM_SESSION_BEATS
    assert num_texts == NUM_TEXTS
    assert num_pairs == NUM_PAIRS
    assert reasons == SKIPPED_METERS


def test_symusic_reads_the_whole_data_set_alike(data_dir):
    symusic = pytest.importorskip("symusic")
    codec = DrumCodec.official()
    paths = sorted((data_dir / "groove").glob("*/*/*.mid"))

    def read_rolls(sources: Iterable[Any]) -> list[bytes]:
        performances = map(read_midi, sources)
        return [codec.encode(one).hits.tobytes() for one in performances if one.time_signatures[-1][2] == 4]

    assert read_rolls(paths) == read_rolls(map(symusic.Score, paths))
