"""The metric `drum_structure` against slow references written from its definitions, and the paper's scores."""

import itertools
import math
import random
from itertools import pairwise

import numpy as np
import pytest

from decahub.data import load_dataset
from decahub.metrics import load_metric
from decahub.metrics.drum_structure.structure import compute_stability, levenshtein, split_two_means
from decahub.models.drum_lm.midi.codec import DrumCodec
from decahub.models.drum_lm.midi.reader import read_midi


ATOL_FLOAT64 = 1e-12  # the same few divisions, summed in another order
ATOL_TABLE = 1e-3  # the table has three or four digits
LINES, COLUMNS = 16, 6


def draw_text(seed, bars=6):
    """Bars out of three, with a silent one at the end of every other text."""
    generator = random.Random(seed)
    choices = [["".join(generator.choice("o----") for _ in range(COLUMNS)) for _ in range(LINES)] for _ in range(3)]
    lines = [line for _ in range(bars) for line in generator.choice(choices)]
    lines += ["-" * COLUMNS] * LINES * (seed % 2)
    return "".join(f"{line}\n" for line in lines)


TEXTS = [draw_text(seed) for seed in range(5)]
TRAIN = [draw_text(seed) for seed in (3, 9)]


def compute(**inputs):
    return load_metric("drum_structure", keep_in_memory=True).compute(**{"num_resamples": 0, **inputs})


def slow_levenshtein(first, second):
    row = list(range(len(second) + 1))
    for index, one in enumerate(first, 1):
        above, row = row, [index]
        for place, other in enumerate(second, 1):
            row.append(min(above[place] + 1, row[-1] + 1, above[place - 1] + (one != other)))
    return row[-1]


def slow_two_means(values):
    best = None
    for labels in itertools.product((0, 1), repeat=len(values)):
        if len(set(labels)) < 2:
            continue
        groups = [[value for value, label in zip(values, labels, strict=True) if label == side] for side in (0, 1)]
        means = [sum(group) / len(group) for group in groups]
        inertia = sum((value - means[label]) ** 2 for value, label in zip(values, labels, strict=True))
        if best is None or inertia < best[0] - 1e-9:
            spread = sum(abs(value - means[label]) for value, label in zip(values, labels, strict=True)) / len(values)
            best = (inertia, abs(means[0] - means[1]), spread)
    return best[1:]


def played_bars(text):
    lines = text.splitlines()
    bars = [tuple(lines[start : start + LINES]) for start in range(0, len(lines), LINES)]
    while bars and not any("o" in line for line in bars[-1]):
        bars.pop()
    return bars


def slow_rates(texts, train, prompt_bars=2):
    known = {bar for text in train for bar in played_bars(text) if any("o" in line for line in bar)}
    copied, repeated, trained, hits, total = 0, 0, 0, 0, 0
    for text in texts:
        bars = played_bars(text)
        for index in range(prompt_bars, len(bars)):
            total += 1
            copied += bars[index] in bars[:prompt_bars]
            repeated += bars[index] in bars[:index]
            trained += bars[index] in known
            hits += sum(line.count("o") for line in bars[index])
    return {
        "copy_rate": copied / total,
        "repeat_rate": repeated / total,
        "train_copy_rate": trained / total,
        "hits_per_bar": hits / total,
    }


def slow_hamming(texts):
    values, zeros = [], 0
    for text in texts:
        bars = ["".join(bar) for bar in played_bars(text)]
        differences = [sum(a != b for a, b in zip(*pair, strict=True)) for pair in pairwise(bars)]
        values += [min(pair) for pair in pairwise(differences)]
    zeros = sum(value == 0 for value in values)
    return {"hamming_stability": sum(values) / len(values), "zero_share": zeros / len(values)}


@pytest.mark.parametrize("seed", range(30))
def test_distance_of_texts(seed):
    generator = random.Random(seed)
    first, second = ("".join(generator.choices("o-\n", k=generator.randint(0, 40))) for _ in range(2))

    assert levenshtein(first, second) == slow_levenshtein(first, second)


@pytest.mark.parametrize("seed", range(10))
def test_two_means_are_the_best_division(seed):
    generator = random.Random(seed)
    values = [generator.randint(0, 9) for _ in range(8)]

    assert split_two_means(values) == pytest.approx(slow_two_means(values), abs=ATOL_FLOAT64)


def test_rates_agree_with_a_slow_count():
    result = compute(predictions=TEXTS, train_texts=TRAIN)

    expected = slow_rates(TEXTS, TRAIN) | slow_hamming(TEXTS)
    assert len(set(expected.values())) == len(expected)
    for name, value in expected.items():
        assert result[name] == pytest.approx(value, abs=ATOL_FLOAT64), name


SILENT_BAR = ("-" * COLUMNS + "\n") * LINES
OFFICIAL = {"strip_silence": False, "trim_empty": False}


@pytest.mark.parametrize(
    ("options", "written"), [(OFFICIAL, lambda text: text), ({}, lambda text: text.removesuffix(SILENT_BAR))]
)
def test_stability_pools_all_bars_and_clusters_are_of_each_text(options, written):
    result = compute(predictions=TEXTS, **options)

    stabilities = [compute_stability(written(text)) for text in TEXTS]
    pooled = [value for values in stabilities for value in values]
    gaps = [split_two_means(values) for values in stabilities]
    assert result["stability"] == pytest.approx(sum(pooled) / len(pooled), abs=ATOL_FLOAT64)
    assert result["centre_gap"] == pytest.approx(sum(gap for gap, _ in gaps) / len(gaps), abs=ATOL_FLOAT64)
    assert result["centre_spread"] == pytest.approx(sum(spread for _, spread in gaps) / len(gaps), abs=ATOL_FLOAT64)


@pytest.mark.parametrize("name", ["stability", "zero_share", "repeat_rate"])
def test_silent_bars_at_both_ends_count_only_when_asked_for(name):
    framed = [SILENT_BAR + text + SILENT_BAR * 2 for text in TEXTS]
    options = {"train_texts": TRAIN, "bars": 9}

    assert compute(predictions=framed, **options)[name] == compute(predictions=TEXTS, **options)[name]
    with_silence = compute(predictions=framed, **options, **OFFICIAL)[name]
    assert with_silence != compute(predictions=TEXTS, **options, **OFFICIAL)[name]


def test_silent_bars_belong_to_a_text_of_the_wanted_length():
    assert compute(predictions=[SILENT_BAR + TEXTS[0] + SILENT_BAR], bars=8)["exact_length_rate"] == 1


def test_a_silent_text_has_no_stability():
    assert compute(predictions=[SILENT_BAR * 16])["stability"] is None


def test_arrays_of_texts_are_taken():
    assert compute(predictions=np.array(TEXTS)) == compute(predictions=TEXTS)


def test_bits_are_nats_for_each_step_of_all_texts():
    result = compute(nll=[10.0, 4.0], separator_nll=[1.0, 1.0], num_steps=[16, 32])

    assert result["bits_per_step"] == pytest.approx(14 / math.log(2) / 48, abs=ATOL_FLOAT64)
    assert result["separator_bits_per_step"] == pytest.approx(2 / math.log(2) / 48, abs=ATOL_FLOAT64)


def test_broken_lines_are_counted():
    text = "o-----\n" * 15 + "o--\n"

    result = compute(predictions=[text, "o-----\n" * 32], bars=1)

    assert result["valid_line_rate"] == pytest.approx(47 / 48)
    assert result["valid_text_rate"] == 0.5
    assert result["exact_length_rate"] == 0.5


def test_texts_too_short_for_a_score_are_left_out_and_counted():
    with pytest.warns(UserWarning, match="Texts that are too short"):
        result = compute(predictions=["o-----\n" * 32, TEXTS[0]])

    assert result["num_excluded"]["stability"] == 1
    assert result["stability"] == compute(predictions=[TEXTS[0]])["stability"]
    assert not any(isinstance(value, float) and math.isnan(value) for value in result.values())


def test_texts_differ_from_themselves_in_nothing():
    result = compute(predictions=TEXTS, references=list(reversed(TEXTS)), num_resamples=50)

    assert result["line_divergence"] == pytest.approx(0, abs=ATOL_FLOAT64)
    assert result["onset_divergence"] == pytest.approx(0, abs=ATOL_FLOAT64)
    low, high = result["difference_intervals"]["stability"]
    assert low < 0 < high


def test_intervals_hold_the_score_and_repeat_with_the_seed():
    first, second = (compute(predictions=TEXTS, num_resamples=200)["intervals"] for _ in range(2))

    value = compute(predictions=TEXTS)["stability"]
    assert first == second
    assert first["stability"][0] <= value <= first["stability"][1]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "`predictions` or `nll` must be given; got neither"),
        ({"nll": [float("nan")], "num_steps": [3]}, "`nll` must be finite"),
        ({"nll": [1.0], "num_steps": []}, "must have one value for each text"),
        ({"nll": [1.0], "num_steps": [0]}, "`num_steps` must be at least 1; got 0"),
        ({"predictions": TEXTS, "bars": 0}, "`bars` must be a whole number, at least 1; got 0"),
        ({"predictions": TEXTS, "prompt_bars": 2.5}, "`prompt_bars` must be a whole number, at least 0; got 2.5"),
    ],
)
def test_bad_input_is_refused(inputs, message):
    with pytest.raises(ValueError, match=message):
        compute(**inputs)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (("--o---\n" * 12 + "SEP\n") * 4, {}, "`bar_lines` must be .*; got 16, and bars of 12"),
        ("--o------\n" * 64, {}, "`columns` must name .*; got 6 names, and lines of 9"),
    ],
    ids=["another meter", "nine columns"],
)
def test_texts_of_another_form_are_refused(text, options, message):
    with pytest.raises(ValueError, match=message):
        compute(predictions=[text])
    with pytest.raises(ValueError, match=message):
        compute(predictions=["--o---\n" * 64], train_texts=[text])


def test_line_ends_of_any_system_are_read_alike():
    text = "".join(f"{line}\n" for line in ("--o---", "---o--") * 32)

    plain, windows = (compute(predictions=[one]) for one in (text, text.replace("\n", "\r\n")))

    assert plain == windows


def test_one_text_is_no_list_of_training_texts():
    with pytest.raises(TypeError, match="`train_texts` must be a list of texts; got str"):
        compute(predictions=["--o---\n" * 64], train_texts="--o---\n" * 64)


def test_a_name_of_columns_is_refused():
    with pytest.raises(TypeError, match="`columns` must be a list of names, .*; got 'nine'"):
        compute(predictions=TEXTS, columns="nine")


def test_scores_of_human_grooves_are_those_of_the_authors_script(data_dir):
    codec = DrumCodec.official()
    texts = [codec.to_text(codec.encode(read_midi(midi))) for midi in load_dataset("groove", data_dir)["test"]["midi"]]
    repeated = ["".join(text.splitlines(keepends=True)[LINES : 2 * LINES]) * 16 for text in texts]

    human = compute(predictions=texts, cluster="sklearn", **OFFICIAL)

    scores = (human["stability"], human["centre_gap"], human["centre_spread"])
    assert scores == pytest.approx((5.0792, 10.3452, 1.4452), abs=ATOL_TABLE)
    assert compute(predictions=repeated)["stability"] == 0
