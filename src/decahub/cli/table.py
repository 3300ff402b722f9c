"""Plain text tables for the terminal."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def format_table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Left-aligned columns under their headers, two spaces apart."""
    cells = [[format_cell(value) for value in row] for row in (headers, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * width for width in widths])
    lines = ["  ".join(value.ljust(width) for value, width in zip(row, widths, strict=True)) for row in cells]
    return "\n".join(line.rstrip() for line in lines)


def format_scores(evaluation: Mapping[str, Any]) -> str:
    """What an `evaluation.json` says: dataset, split and scores."""
    dataset = evaluation["dataset"]
    scores = [(row["metric"], f"{row['value']:.4f}", row["n"]) for row in evaluation["figures"]]
    return f"{dataset['title']}, {dataset['split']} split\n{format_table(('metric', 'value', 'n'), scores)}"


def format_cell(value: object) -> str:
    """A value on one line, without the control characters that a file may hold; fractions with three decimals."""
    value = f"{value:.3f}" if isinstance(value, float) else value
    return "".join(character if character.isprintable() else "?" for character in " ".join(str(value).split()))
