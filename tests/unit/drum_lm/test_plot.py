"""Plots of drum rolls, read back pixel by pixel."""

import io

import numpy as np
import pytest
from PIL import Image

from decahub.models.drum_lm.midi.codec import DrumRoll
from decahub.models.drum_lm.midi.drum_map import DRUM_MAPS
from decahub.models.drum_lm.render.plot import (
    BARS_PER_LINE,
    BEAT,
    COLORS,
    GRID,
    HIT,
    PROMPT_HIT,
    PROMPT_REST,
    REST,
    draw_roll,
    measure_labels,
    paint_grid,
)


CELL = 10
SIX = DRUM_MAPS["six"]


def build_roll(bars, steps_per_bar=16, columns=6, time_signature=(4, 4)):
    hits = np.random.default_rng(29).random((round(bars * steps_per_bar), columns)) < 0.3
    return DrumRoll(hits, steps_per_bar=steps_per_bar, time_signature=time_signature, tempo=97.0)


def read_plot(data):
    image = Image.open(io.BytesIO(data))
    assert image.format == "PNG"
    return np.asarray(image.convert("RGB"))


def find_cell(pixels, drum_map, step, column, steps_per_bar=16):
    """Color in the middle of a cell."""
    line, place = divmod(step, steps_per_bar * BARS_PER_LINE)
    top = 2 * CELL + line * (drum_map.num_columns * CELL + 1 + 2 * CELL)
    x = measure_labels(drum_map, CELL) + place * CELL + CELL // 2
    return tuple(pixels[top + column * CELL + CELL // 2, x])


@pytest.mark.parametrize(("bars", "name"), [(6, "six"), (5.25, "nine"), (1, "six")])
def test_each_cell_shows_its_step_and_whether_it_was_given(bars, name):
    drum_map = DRUM_MAPS[name]
    roll = build_roll(bars, columns=drum_map.num_columns)

    pixels = read_plot(draw_roll(roll, drum_map, prompt_bars=2, cell=CELL))

    for step in range(len(roll.hits)):
        for column in range(drum_map.num_columns):
            names = (PROMPT_REST, PROMPT_HIT) if step < 32 else (REST, HIT)
            expected = COLORS[names[int(roll.hits[step, column])]]
            assert find_cell(pixels, drum_map, step, column) == tuple(expected), (step, column)


def test_a_bar_of_three_four_has_a_line_for_each_of_its_beats():
    pixels = paint_grid(np.full((2, 12), REST), steps_per_bar=12, steps_per_beat=4, cell=5)

    row = pixels[2]
    assert [place for place in range(60) if row[place] == BEAT] == [20, 40]
    assert [place for place in range(60) if row[place] == GRID] == [5, 10, 15, 25, 30, 35, 45, 50, 55]


def test_what_lies_behind_the_last_step_is_blank():
    pixels = read_plot(draw_roll(build_roll(4.5), SIX, cell=CELL))

    assert find_cell(pixels, SIX, step=5 * 16, column=2) == (255, 255, 255)


def test_the_same_roll_gives_the_same_bytes():
    assert draw_roll(build_roll(3), SIX, prompt_bars=1) == draw_roll(build_roll(3), SIX, prompt_bars=1)


@pytest.mark.parametrize(
    ("roll", "options", "message"),
    [
        (build_roll(0), {}, "`roll` must have at least one step"),
        (build_roll(1, columns=9), {}, "must have the 6 columns of `drum_map`; got 9"),
        (build_roll(1), {"cell": 2}, "`cell` must be at least 3 pixels; got 2"),
        (build_roll(1), {"prompt_bars": -1}, "`prompt_bars` must not be negative; got -1"),
    ],
    ids=["empty", "columns", "cell", "prompt"],
)
def test_refuses(roll, options, message):
    with pytest.raises(ValueError, match=message):
        draw_roll(roll, SIX, **options)
