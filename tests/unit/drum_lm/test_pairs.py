"""Prompts and completions: which bars are dropped, where separators stand, and how a pair ends."""

import pytest

from decahub.models.drum_lm.pairs import build_pair, insert_separators, strip_silence, trim_silence


SILENT = ["------"] * 16
PLAYED = ["---o--", *["------"] * 15]
LATE = [*["------"] * 4, "--o---", *["------"] * 11]  # begins after the first beat


def to_text(*bars: list[str]) -> str:
    return "".join(f"{line}\n" for bar in bars for line in bar)


@pytest.mark.parametrize(
    ("rule", "bars", "num_dropped"),
    [
        ("bar", [PLAYED, SILENT], 0),
        ("bar", [SILENT, SILENT, PLAYED], 2),
        ("bar", [SILENT, LATE, PLAYED], 1),
        ("first_beat", [SILENT, LATE, PLAYED], 2),
        ("first_beat", [PLAYED, LATE], 0),
        ("bar", [SILENT, SILENT], 2),
        ("bar", [SILENT, ["------"] * 7], 1),
    ],
    ids=["none", "silent", "late", "late_lost", "later", "all", "rest_is_kept"],
)
def test_silent_bars_at_the_beginning_are_dropped(rule, bars, num_dropped):
    lines = [line for bar in bars for line in bar]

    assert strip_silence(lines, rule=rule) == lines[16 * num_dropped :]
    assert len(lines) == sum(map(len, bars))  # what was passed stays


def test_bars_of_another_length():
    lines = ["------"] * 12 + ["--o---"] * 12

    assert strip_silence(lines, bar_lines=12, rule="bar") == lines[12:]
    assert strip_silence(lines, bar_lines=16, rule="bar") == lines


@pytest.mark.parametrize(
    ("lines", "min_lines", "num_kept"),
    [(PLAYED + SILENT * 2, 0, 16), (PLAYED + SILENT * 2, 32, 32), (SILENT * 2, 0, 0), (SILENT + LATE, 0, 32)],
)
def test_silent_bars_at_the_end_are_trimmed(lines, min_lines, num_kept):
    assert trim_silence(lines, min_lines=min_lines) == lines[:num_kept]


def test_separators_follow_complete_bars():
    assert insert_separators(list("abcdefg"), bar_lines=3, separator="|") == [
        "a",
        "b",
        "c",
        "|",
        "d",
        "e",
        "f",
        "|",
        "g",
    ]


def test_pair_of_whole_bars():
    prompt, completion = build_pair(to_text(*[PLAYED] * 9))

    bar = to_text(PLAYED)
    assert prompt == (bar + "SEP\n") * 2
    assert completion == "SEP\n".join([bar] * 7) + "END"


def test_pair_whose_last_bar_is_incomplete():
    _, completion = build_pair(to_text(*[PLAYED] * 9, PLAYED[:5]))

    assert completion.endswith("------\nSEP\n" + to_text(PLAYED[:5]) + "END")


def test_other_bars_marks_and_prompt():
    bar = ["--o---"] * 12

    prompt, completion = build_pair(to_text(*[bar] * 4), 1, 12, separator="|", end="#", min_bars=2)

    assert prompt == to_text(bar) + "|\n"
    assert completion == "|\n".join([to_text(bar)] * 3) + "#"


@pytest.mark.parametrize(("num_bars", "has_pair"), [(8, False), (9, True)])
def test_short_grooves_give_no_pair(num_bars, has_pair):
    text = to_text(*[SILENT] * 3, *[PLAYED] * num_bars)

    assert (build_pair(text) is not None) == has_pair


def test_silent_groove_gives_no_pair():
    assert build_pair(to_text(*[SILENT] * 16)) is None


def test_trimmed_pair_ends_after_the_last_bar_that_is_played():
    text = to_text(*[PLAYED] * 5, *[SILENT] * 11)

    prompt, completion = build_pair(text, trim_empty=True)

    assert prompt + completion == "SEP\n".join([to_text(PLAYED)] * 5) + "END"
    assert build_pair(text)[1].count("SEP") == 13


def test_trimmed_pair_completes_one_bar_at_least():
    _, completion = build_pair(to_text(*[PLAYED] * 2, *[SILENT] * 14), trim_empty=True)

    assert completion == to_text(SILENT) + "END"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt_bars": 0}, "`prompt_bars` must be positive; got 0"),
        ({"bar_lines": 0}, "`bar_lines` must be positive; got 0"),
        ({"min_bars": 1}, r"`min_bars` must be at least `prompt_bars` \(2\); got 1"),
        ({"strip_rule": "beat"}, "`rule` must be one of first_beat, bar; got 'beat'"),
    ],
)
def test_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        build_pair(to_text(*[PLAYED] * 9), **options)
