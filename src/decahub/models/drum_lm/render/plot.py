"""A drum roll as a plot: a row for each group of drums, a cell for each step, four bars beside each other."""

import importlib
import io
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from ..midi.drum_map import DrumMap


if TYPE_CHECKING:
    from ..midi.codec import DrumRoll


BARS_PER_LINE = 4
DEFAULT_STEPS_PER_BEAT = 4
MINIMUM_CELL = 3  # a pixel of grid, and two to tell a hit from a rest
MINIMUM_FONT_SIZE = 8

PAPER, REST, PROMPT_REST, GRID, BEAT, BAR, HIT, PROMPT_HIT = range(8)
COLORS = np.array([
    (255, 255, 255), (247, 248, 250), (253, 240, 213), (226, 229, 234),
    (168, 174, 184), (60, 66, 78), (28, 94, 140), (196, 108, 20),
], dtype=np.uint8)  # fmt: skip
TEXT_COLOR = (60, 66, 78)


def draw_roll(roll: "DrumRoll", drum_map: DrumMap, prompt_bars: int = 0, cell: int = 12) -> bytes:
    """PNG file of a drum roll, whose columns, named by the map, are drawn from top to bottom.

    The first `prompt_bars` bars are tinted; `cell` is the width and height of a cell in pixels.
    """
    if not len(roll.hits):
        raise ValueError("`roll` must have at least one step; got none.")
    if roll.hits.shape[1] != drum_map.num_columns:
        raise ValueError(
            f"`roll` must have the {drum_map.num_columns} columns of `drum_map`; got {roll.hits.shape[1]}. Give the "
            "map that it was encoded with."
        )
    if cell < MINIMUM_CELL:
        raise ValueError(f"`cell` must be at least {MINIMUM_CELL} pixels; got {cell}.")
    if prompt_bars < 0:
        raise ValueError(f"`prompt_bars` must not be negative; got {prompt_bars}.")
    lines = paint_lines(roll, prompt_bars, cell)
    labels = measure_labels(drum_map, cell)
    pixels = np.full((sum(len(line) + 2 * cell for line in lines) + cell, labels + lines[0].shape[1] + cell), PAPER)
    tops: list[int] = []
    for line in lines:
        tops.append(2 * cell if not tops else tops[-1] + len(line) + 2 * cell)
        pixels[tops[-1] : tops[-1] + len(line), labels : labels + line.shape[1]] = line
    image = import_pillow("Image").fromarray(COLORS[pixels])
    write_labels(image, drum_map, roll.steps_per_bar, tops, labels, cell, roll.num_bars)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def import_pillow(name: str) -> ModuleType:
    """A module of Pillow, by its name alone: remote code with an import statement would not load without Pillow."""
    try:
        return importlib.import_module(f"PIL.{name}")
    except ImportError as error:
        raise ImportError("Pillow must be installed for plots; it is not. Run `pip install pillow`.") from error


def paint_lines(roll: "DrumRoll", prompt_bars: int, cell: int) -> list[np.ndarray]:
    """Grids of `BARS_PER_LINE` bars each, as indices of `COLORS`; what lies behind the last step stays paper."""
    steps_per_beat, rest = divmod(roll.steps_per_bar, roll.time_signature[0])
    if rest or not steps_per_beat:  # the bar does not divide into its beats
        steps_per_beat = DEFAULT_STEPS_PER_BEAT
    num_steps = roll.steps_per_bar * min(BARS_PER_LINE, roll.num_bars)
    is_prompt = np.arange(len(roll.hits)) < prompt_bars * roll.steps_per_bar
    cells = np.where(roll.hits, np.where(is_prompt, PROMPT_HIT, HIT)[:, None], REST)
    cells = np.where(~roll.hits & is_prompt[:, None], PROMPT_REST, cells).T
    lines = []
    for first in range(0, cells.shape[1], num_steps):
        line = cells[:, first : first + num_steps]
        grid = paint_grid(line, roll.steps_per_bar, steps_per_beat, cell)
        lines.append(np.pad(grid, ((0, 0), (0, num_steps * cell + 1 - grid.shape[1])), constant_values=PAPER))
    return lines


def paint_grid(cells: np.ndarray, steps_per_bar: int, steps_per_beat: int, cell: int) -> np.ndarray:
    """Cells as squares of pixels, with lines around them."""
    pixels = np.pad(cells.repeat(cell, 0).repeat(cell, 1), ((0, 1), (0, 1)), constant_values=BAR)
    pixels[::cell] = GRID
    for color, steps in ((GRID, 1), (BEAT, steps_per_beat), (BAR, steps_per_bar)):
        pixels[:, :: cell * steps] = color
    pixels[[0, -1]] = BAR
    pixels[:, -1] = BAR
    return pixels


def load_font(cell: int) -> Any:
    return import_pillow("ImageFont").load_default(size=max(cell - 2, MINIMUM_FONT_SIZE))


def measure_labels(drum_map: DrumMap, cell: int) -> int:
    """Width in pixels of the margin that holds the names of the columns."""
    return (
        cell + round(max(load_font(cell).getlength(name.replace("_", " ")) for name in drum_map.columns)) + cell // 2
    )


def write_labels(
    image: Any, drum_map: DrumMap, steps_per_bar: int, tops: list[int], left: int, cell: int, num_bars: int
) -> None:
    """Names of the columns beside each line, and the number of each bar above it."""
    draw, font = import_pillow("ImageDraw").Draw(image), load_font(cell)
    for line, top in enumerate(tops):
        for row, name in enumerate(drum_map.columns):
            place = (left - cell // 2, top + row * cell + cell // 2)
            draw.text(place, name.replace("_", " "), fill=TEXT_COLOR, font=font, anchor="rm")
        for bar in range(min(BARS_PER_LINE, num_bars - line * BARS_PER_LINE)):
            place = (left + bar * steps_per_bar * cell, top - 2)
            draw.text(place, str(line * BARS_PER_LINE + bar + 1), fill=TEXT_COLOR, font=font, anchor="ls")


__all__ = ["draw_roll"]
