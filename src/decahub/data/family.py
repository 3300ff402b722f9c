"""What a data family offers, in one object; each family's module defines its own as `FAMILY`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import datasets

from decahub.registry import TASKS


FAMILIES = tuple(sorted({task.family for task in TASKS.values()}))


@dataclass(frozen=True)
class DataFamily:
    """One kind of data.

    Args:
        columns (`Mapping[str, type | tuple[type, ...]]`): Columns that every dataset has, with the features allowed.
        build_eval_transform (`Callable`): `build_eval_transform(processor)` gives the transform of a row for
            evaluation.
        collate (`Callable`): Makes a batch of such examples.
        build_train_transform (`Callable`, *optional*): `build_train_transform(processor, **augmentation)` gives the
            random transform of training, if there is one.
        decode_row (`Callable`, *optional*): What [`InMemoryDataset`] keeps of a row.
        find_files (`Callable`, *optional*): `find_files(folder)` gives the files of each split in a folder of a user,
            if they are of this family's own format; empty if not.
        read_files (`Callable`, *optional*): `read_files(files, entry=None)` gives a `DatasetDict` of such files.
        reads_parquet (`bool`): Whether `read_files` also reads parquet; otherwise its columns are taken as they are.
        finish_loading (`Callable`, *optional*): `finish_loading(dataset, where)` checks a loaded split and returns it.
        ignore_label (`Callable`, *optional*): `ignore_label(splits, label)` takes a void label out.
        select_split (`Callable`, *optional*): `select_split(splits, name)` gives the rows to measure, where a split is
            more than a name.
    """

    columns: Mapping[str, type | tuple[type, ...]]
    build_eval_transform: Callable[[Any], Callable]
    collate: Callable[..., dict[str, Any]]
    build_train_transform: Callable[..., Callable] | None = None
    decode_row: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None
    find_files: Callable[[Path], dict[str, list[Path]]] | None = None
    read_files: Callable[..., datasets.DatasetDict] | None = None
    reads_parquet: bool = False
    finish_loading: Callable[[datasets.Dataset, str], datasets.Dataset] | None = None
    ignore_label: Callable[[datasets.DatasetDict, int], datasets.DatasetDict] | None = None
    select_split: Callable[[Any, str], Any] | None = None


def get_family(name: str | None) -> DataFamily:
    """A data family by its name.

    Raises:
        ValueError: If there is no such family.
    """
    if name not in FAMILIES:
        raise ValueError(
            f"`family` must be one of {', '.join(FAMILIES)} for data that is not in the catalog; got {name!r}."
        )
    return import_module(f"{__package__}.{name.replace('-', '_')}").FAMILY


__all__ = ["FAMILIES", "DataFamily", "get_family"]
