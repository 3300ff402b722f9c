"""Reads tables of people: columns by name, whatever library they come from."""

import fnmatch
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


MANY = 5  # how many names a message lists


def read_columns(table: Any) -> dict[str, np.ndarray]:
    """Columns of a pandas table, a `datasets.Dataset`, a mapping of columns, or a list of rows.

    Raises:
        TypeError: If `table` is something else.
        ValueError: If it is empty or its columns differ in length.
    """
    if isinstance(table, Mapping):
        columns = {str(name): np.asarray(values) for name, values in table.items()}
    elif hasattr(table, "column_names"):  # datasets
        columns = {name: np.asarray(table[name][:]) for name in table.column_names}
    elif hasattr(table, "columns") and hasattr(table, "to_numpy"):  # pandas
        columns = {str(name): table[name].to_numpy() for name in table.columns}
        if len(columns) < len(table.columns):
            raise ValueError("`table` must have different names for its columns; one occurs twice.")
    elif isinstance(table, Sequence) and table and all(isinstance(row, Mapping) for row in table):
        columns = {str(name): np.asarray([row.get(name) for row in table]) for name in table[0]}
        for number, row in enumerate(table):
            if row.keys() != table[0].keys():
                raise ValueError(f"`table` must have the same keys in each row; row {number} differs from the first.")
    else:
        raise TypeError(
            "`table` must be a pandas table, a dataset, a mapping of columns, a list of rows or an array; got "
            f"{type(table).__name__}."
        )
    lengths = {len(values) for values in columns.values()}
    if len(lengths) != 1 or lengths == {0}:
        raise ValueError(f"`table` must have columns of one length, at least 1; got lengths {sorted(lengths)}.")
    return columns


def expand_names(patterns: Sequence[str], available: Sequence[str]) -> list[str]:
    """Names of columns, with patterns such as `"thickness_*"` replaced by what they match.

    Raises:
        ValueError: If a name or pattern matches no column, or a column is named twice.
    """
    names: list[str] = []
    for pattern in patterns:
        found = [pattern] if pattern in available else fnmatch.filter(available, pattern)
        if not found:
            raise ValueError(f"`feature_names` must name columns of the table; {pattern!r} matches none.")
        names += found
    repeated = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if repeated:
        raise ValueError(f"`feature_names` must name each column once; got {', '.join(repeated[:MANY])} more often.")
    return names


def get_column(columns: Mapping[str, np.ndarray], name: str, argument: str) -> np.ndarray:
    """One column; a missing one is refused with the argument that names it."""
    if name not in columns:
        raise ValueError(
            f"`table` must have the column {name!r} (`{argument}`); it does not. Set `{argument}` to the name of "
            "yours, or to None if there is none."
        )
    return columns[name]


def to_numbers(values: np.ndarray, name: str) -> np.ndarray:
    """A column as float64; missing values become NaN, infinity and text are refused."""
    try:
        numbers = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"column {name!r} must hold numbers; {error}.") from error
    if np.isinf(numbers).any():
        row = int(np.flatnonzero(np.isinf(numbers))[0])
        raise ValueError(f"column {name!r} must be finite; got infinity in row {row}.")
    return numbers


def stack_features(columns: Mapping[str, np.ndarray], names: Sequence[str]) -> np.ndarray:
    """Feature columns by name, `(people, features)`; the order of the table does not matter."""
    missing = [name for name in names if name not in columns]
    if missing:
        more = f" and {len(missing) - MANY} more" if len(missing) > MANY else ""
        raise ValueError(
            f"`table` must have the columns of the fit; it lacks {', '.join(missing[:MANY])}{more}. "
            "Columns are matched by name, in any order."
        )
    return np.stack([to_numbers(columns[name], name) for name in names], axis=1)


def to_texts(values: np.ndarray, name: str) -> list[str]:
    """A column of names; numbers that are whole lose their fraction, missing values are refused."""
    texts = []
    for row, value in enumerate(values.tolist()):
        if value is None or value != value:
            raise ValueError(f"column {name!r} must be known for everybody; got a missing value in row {row}.")
        texts.append(str(int(value)) if isinstance(value, float) and value.is_integer() else str(value))
    return texts


def check_ids(ids: Sequence[str]) -> None:
    """Refuse a person that occurs twice."""
    if len(set(ids)) < len(ids):
        repeated = next(name for name, count in Counter(ids).items() if count > 1)
        raise ValueError(f"`id` must differ for everybody; {repeated!r} occurs twice. Keep one row for each person.")


__all__ = [
    "MANY",
    "check_ids",
    "expand_names",
    "get_column",
    "read_columns",
    "stack_features",
    "to_numbers",
    "to_texts",
]
