"""Plain text tables for the terminal."""

from collections.abc import Iterable, Sequence


def format_table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Left-aligned columns under their headers, two spaces apart."""
    cells = [[format_cell(value) for value in row] for row in (headers, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * width for width in widths])
    lines = ["  ".join(value.ljust(width) for value, width in zip(row, widths, strict=True)) for row in cells]
    return "\n".join(line.rstrip() for line in lines)


def format_cell(value: object) -> str:
    """A value on one line, without the control characters that a file may hold."""
    return "".join(character if character.isprintable() else "?" for character in " ".join(str(value).split()))
