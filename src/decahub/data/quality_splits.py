"""Splits of image quality datasets: no reference image on two sides, decided by a seed, written to a file."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np


FORMAT = "decahub-quality-splits-1"
SPLITS_FILE = "reference_splits.json"  # of a run, and in its model folder


def split_references(references: Sequence[str], shares: Mapping[str, float], seed: int = 0) -> dict[str, list[str]]:
    """References of each split: names are sorted, shuffled by the seed, and cut.

    Args:
        references (`Sequence[str]`): Reference of each image; an image without one is its own.
        shares (`Mapping[str, float]`): Share of the references of each split but the last, which gets the rest; such
            as `{"train": 0.8, "test": 0.2}`. Counts are `round(share * number)`.
        seed (`int`): Same seed, same split.

    Raises:
        ValueError: If shares do not add up to 1, or a split would have no reference.
    """
    if not shares or min(shares.values()) <= 0 or abs(sum(shares.values()) - 1) > 1e-9:
        raise ValueError(f"`shares` must be positive and add up to 1; got {dict(shares)}.")
    names = np.array(sorted(set(references)), dtype=object)
    order = names[np.random.RandomState(seed).permutation(len(names))]
    parts, start = {}, 0
    for number, (split, share) in enumerate(shares.items(), start=1):
        end = len(names) if number == len(shares) else start + round(share * len(names))
        if not start < end <= len(names):
            raise ValueError(
                f"`shares` must leave each split at least one reference; {split!r} would get none of {len(names)}."
            )
        parts[split] = sorted(order[start:end])
        start = end
    return parts


def get_references(rows: datasets.Dataset) -> list[str]:
    """Reference of each row: its column `reference`, else `name`, else its number."""
    columns = {name: rows[name] for name in ("reference", "name") if name in rows.column_names}
    references = [str(value or "") for value in columns.get("reference", [""] * len(rows))]
    names = [str(value) for value in columns.get("name", range(len(rows)))]
    return [reference or name for reference, name in zip(references, names, strict=True)]


def split_by_reference(
    rows: datasets.Dataset, shares: Mapping[str, float], seed: int = 0
) -> tuple[datasets.DatasetDict, dict[str, Any]]:
    """Splits of a dataset whose references are disjoint, and their record.

    Returns:
        The splits, and what [`save_splits`] writes: for each split its references and number of images.
    """
    references = get_references(rows)
    parts = split_references(references, shares, seed)
    splits = datasets.DatasetDict()
    for split, names in parts.items():
        chosen = set(names)
        splits[split] = rows.select([index for index, name in enumerate(references) if name in chosen])
    record = {
        "format": FORMAT,
        "seed": seed,
        "shares": dict(shares),
        "splits": {name: {"num_images": len(splits[name]), "references": parts[name]} for name in parts},
    }
    return splits, record


def apply_splits(rows: datasets.Dataset, record: Mapping[str, Any]) -> datasets.DatasetDict:
    """The splits of a record, on the same dataset.

    Raises:
        ValueError: If the record is not one, a reference is in no split or in two, or the numbers of images differ.
    """
    if record.get("format") != FORMAT:
        raise ValueError(f"`record` must have the format {FORMAT!r}; got {record.get('format')!r}.")
    owners: dict[str, str] = {}
    for split, part in record["splits"].items():
        for name in part["references"]:
            if name in owners:
                raise ValueError(f"a reference must be in one split; {name!r} is in {owners[name]!r} and {split!r}.")
            owners[name] = split
    references = get_references(rows)
    missing = sorted(set(references) - owners.keys())
    if missing:
        raise ValueError(f"each reference must be in a split; {len(missing)} are not, the first is {missing[0]!r}.")
    splits = datasets.DatasetDict(
        {
            split: rows.select([index for index, name in enumerate(references) if owners[name] == split])
            for split in record["splits"]
        }
    )
    for split, part in record["splits"].items():
        if len(splits[split]) != part["num_images"]:
            raise ValueError(
                f"split {split!r} must have the {part['num_images']} images of the record; got {len(splits[split])}."
            )
    return splits


def restore_splits(loaded: Mapping[str, datasets.Dataset], record: Mapping[str, Any]) -> datasets.DatasetDict:
    """A loaded dataset with the splits of a record in place of those that the record divided."""
    return datasets.DatasetDict({**loaded, **apply_splits(get_rows_to_split(loaded), record)})


def get_rows_to_split(loaded: Mapping[str, datasets.Dataset]) -> datasets.Dataset:
    """The rows of a loaded dataset that are divided: those of its split `all` or `train`, or of its only one.

    Raises:
        ValueError: If there are several splits, none of which is one of these.
    """
    for name in ("all", "train"):
        if name in loaded:
            return loaded[name]
    if len(loaded) > 1:
        raise ValueError(f"one of the splits must be `train`, or there must be no splits; got {', '.join(loaded)}.")
    return next(iter(loaded.values()))


def find_shared_references(first: datasets.Dataset, second: datasets.Dataset) -> list[str]:
    """References that images of both splits have, where the dataset knows them."""
    if "reference" not in first.column_names or "reference" not in second.column_names:
        return []
    return sorted(set(first["reference"]) & set(second["reference"]) - {"", None})


def save_splits(record: Mapping[str, Any], path: str | os.PathLike) -> Path:
    """Write a record as JSON; the file appears whole."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(f"{json.dumps(record, indent=1)}\n", encoding="utf-8")
    os.replace(partial, path)
    return path


def load_splits_file(path: str | os.PathLike) -> dict[str, Any]:
    """Read a record that [`save_splits`] wrote.

    Raises:
        ValueError: If the file holds anything else.
    """
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
        _check_record(record)
    except ValueError as error:
        raise ValueError(
            f"{path} must be a file of splits that a run wrote, with `splits` of `references` and `num_images`; "
            f"{error}."
        ) from error
    return record


def _check_record(record: Any) -> None:
    if not isinstance(record, dict):
        raise ValueError("it holds no record")
    if record.get("format") != FORMAT:
        raise ValueError(f"its format is {record.get('format')!r}, not {FORMAT!r}")
    if not isinstance(record.get("splits"), dict):
        raise ValueError("`splits` is missing")
    for name, part in record["splits"].items():
        for key, kind in (("references", list), ("num_images", int)):
            if not isinstance(part, dict) or not isinstance(part.get(key), kind):
                raise ValueError(f"the split {name!r} lacks `{key}`")


__all__ = [
    "SPLITS_FILE",
    "apply_splits",
    "find_shared_references",
    "get_references",
    "get_rows_to_split",
    "load_splits_file",
    "restore_splits",
    "save_splits",
    "split_by_reference",
    "split_references",
]
