"""Tables of a user in CSV: every line is looked at before pandas reads them, which would shift columns in silence."""

import csv
from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd


SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons"}


def read_lines(path: Path, separator: str = ",") -> Iterator[tuple[int, list[str]]]:
    """Number and values of each line of a table, the header first; empty lines are left out.

    Raises:
        ValueError: If the file is no text in UTF-8, or a line has more or fewer values than the header.
    """
    header: list[str] = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, delimiter=separator, skipinitialspace=True)
            for row in reader:
                if not any(map(str.strip, row)):
                    continue
                header = header or row
                if len(row) != len(header):
                    raise ValueError(
                        f"{path} must have {len(header)} values in each line, as its header; got {len(row)} in "
                        f"line {reader.line_num}. Decimals are written with a point, and texts with a comma between "
                        "quotes."
                    )
                yield reader.line_num, [text.strip() for text in row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} must be a text file in UTF-8; {error}. Save it as such.") from error


def read_table(path: Path, separator: str = ",", texts: Collection[str | None] = ()) -> Any:
    """A table as a `pandas.DataFrame`; the columns `texts` stay as they are written, such as the ids 001 and NA.

    Raises:
        ValueError: If it is empty, has another separator, two columns of one name, or lines of other lengths.
    """
    header = _check_lines(path, separator)
    repeated = [name for name in header if name and header.count(name) > 1]
    if repeated:
        raise ValueError(f"{path} must have different names for its columns; {repeated[0]!r} occurs twice.")
    read = partial(pd.read_csv, path, sep=separator, skipinitialspace=True, index_col=False, encoding="utf-8-sig")
    table = read()
    for name in set(texts) & set(table):
        table[name] = read(usecols=[name], dtype=str, keep_default_na=False, na_values=[""])[name].str.strip()
    return table


def _check_lines(path: Path, separator: str) -> list[str]:
    """The header, after a look at all lines."""
    lines = read_lines(path, separator)
    header = next(lines, (0, []))[1]
    if not header:
        raise ValueError(f"{path} must begin with the names of its columns; it is empty.")
    if len(header) == 1 and (set(SEPARATORS) - {separator}) & set(header[0]):
        raise ValueError(
            f"{path} must separate its columns by {SEPARATORS[separator]}; got {header[0]!r}. Save it again so."
        )
    for _ in lines:
        pass
    return header


__all__ = ["read_lines", "read_table"]
