"""Cohorts: one row for each person, with a column `group`, covariates and features; tables in CSV or parquet.

`group` is "control" or a diagnosis. Which columns are features and covariates is said by the feature extractor.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch

from .family import DataFamily
from .own_tables import read_table


GROUP, ID = "group", "id"
ENDINGS = (".csv", ".tsv")


class EvalTransform:
    """One row to the features of a person."""

    def __init__(self, feature_extractor: Any):
        self.feature_extractor = feature_extractor

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        return {"features": self.feature_extractor([row], return_tensors="pt")["features"][0]}


def collate(examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """`{"features": (people, features)}`."""
    return {"features": torch.stack([example["features"] for example in examples])}


def read_csv(path: str | Path, id_column: str | None = ID) -> dict[str, np.ndarray]:
    """Columns of a table in CSV (or TSV), one row for each person; ids are texts, as they are written.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it has no rows, or cannot be read; see [`read_table`].
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"`table` must be a CSV file; {str(path)!r} does not exist.")
    table = read_table(path, "\t" if path.suffix == ".tsv" else ",", texts=(ID, id_column))
    if table.empty:
        raise ValueError(f"{path.name} must have a row for each person; it has none.")
    return {str(name): table[name].to_numpy() for name in table.columns}


def find_files(folder: Path) -> dict[str, list[Path]]:
    """Tables `<split>.csv` in a user's own folder.

    Raises:
        ValueError: If a split has two.
    """
    tables: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix in ENDINGS:
            tables.setdefault(path.stem, []).append(path)
    for split, paths in tables.items():
        if len(paths) > 1:
            raise ValueError(
                f"the split {split!r} must have one table; got {' and '.join(path.name for path in paths)}. Move one "
                "of them out."
            )
    return tables


def read_files(files: Mapping[str, Sequence[Path]], entry: Any = None) -> datasets.DatasetDict:
    """Dataset of tables that `find_files` found."""
    return datasets.DatasetDict(
        {
            split: datasets.Dataset.from_dict({name: _to_list(values) for name, values in read_csv(path).items()})
            for split, (path,) in files.items()
        }
    )


def _to_list(values: np.ndarray) -> list[Any]:
    """Values of a column, `None` where a text is missing."""
    if values.dtype != object:
        return values.tolist()
    return [None if value != value else value for value in values.tolist()]


def check_leakage(train: Mapping[str, np.ndarray], test: Mapping[str, np.ndarray], features: Sequence[str]) -> None:
    """Refuse people of one table who are in the other, by id or by equal features.

    Raises:
        ValueError: If someone is in both.
    """
    if ID in train and ID in test:
        shared = sorted({str(name) for name in train[ID]} & {str(name) for name in test[ID]})
        if shared:
            raise ValueError(
                f"the test table must hold nobody of the training table; {shared[0]!r} is in both ({len(shared)} such "
                "people). A score on them would say nothing about new patients."
            )
    rows = [{row.tobytes() for row in stack(table, features)} for table in (train, test)]
    copies = len(rows[0] & rows[1])
    if copies:
        raise ValueError(
            f"the test table must hold nobody of the training table; {copies} people have the same features in both."
        )


def stack(table: Mapping[str, np.ndarray], features: Sequence[str]) -> np.ndarray:
    """Some columns of a table as one array, `(people, columns)`."""
    return np.ascontiguousarray(np.stack([np.asarray(table[name], dtype=np.float64) for name in features], axis=1))


def to_columns(rows: datasets.Dataset) -> dict[str, np.ndarray]:
    """Columns of a loaded split."""
    return {name: np.asarray(rows[name][:]) for name in rows.column_names}


def finish_loading(dataset: datasets.Dataset, where: str) -> datasets.Dataset:
    """Refuse a table in which someone occurs twice."""
    if ID in dataset.column_names and len(set(dataset[ID])) < len(dataset):
        raise ValueError(f"column `{ID}` of {where} must differ for everybody; someone occurs twice.")
    return dataset


FAMILY = DataFamily(
    columns={GROUP: datasets.Value},
    build_eval_transform=EvalTransform,
    collate=collate,
    find_files=find_files,
    read_files=read_files,
    finish_loading=finish_loading,
)

__all__ = ["FAMILY", "EvalTransform", "check_leakage", "collate", "read_csv", "to_columns"]
