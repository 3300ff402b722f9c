"""Grooves without a model: two bars, and what is put behind them."""

import random
from collections.abc import Sequence


STEPS_PER_BAR = 16


def repeat_bar(lines: Sequence[str], bars: int = 16) -> list[str]:
    """The first two bars, and the second again and again."""
    return [*lines[:STEPS_PER_BAR], *lines[STEPS_PER_BAR : 2 * STEPS_PER_BAR] * (bars - 1)]


def alternate_bars(lines: Sequence[str], bars: int = 16) -> list[str]:
    """The first two bars in turn."""
    return (list(lines[: 2 * STEPS_PER_BAR]) * bars)[: bars * STEPS_PER_BAR]


def draw_lines(generator: random.Random, columns: int = 6, bars: int = 16) -> list[str]:
    """Fair coins for each drum and step."""
    return [
        "".join("o" if generator.random() < 0.5 else "-" for _ in range(columns)) for _ in range(bars * STEPS_PER_BAR)
    ]
