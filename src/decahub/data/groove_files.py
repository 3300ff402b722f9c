"""MIDI files of grooves as rows: the Groove dataset by its table, and a user's own folders."""

import csv
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets


logger = logging.getLogger(__name__)

KINDS = {"name": "string", "style": "string", "bpm": "float32", "time_signature": "string", "midi": "binary"}
FEATURES = datasets.Features({name: datasets.Value(kind) for name, kind in KINDS.items()})
UNKNOWN = {"style": "", "bpm": None, "time_signature": ""}
SUFFIXES = (".mid", ".midi")
SPLITS = ("train", "validation", "test")
BEATS = "beat"  # in the column `beat_type`; the others are fills
LEFT_OUT_SESSION = "eval_session"
DENOMINATOR = "4"


def find_groove_files(folder: Path) -> dict[str, list[Path]]:
    """MIDI files of a folder by the folder they lie in, which is their split; `{}` if there are none."""
    found = {
        part.name: sorted(path for path in part.rglob("*") if path.suffix.lower() in SUFFIXES)
        for part in sorted(folder.iterdir())
        if part.is_dir()
    }
    splits = {split: files for split, files in found.items() if files}
    if not splits and any(path.suffix.lower() in SUFFIXES for path in folder.iterdir()):
        raise ValueError(
            f"`name` must be a folder with a folder of MIDI files for each split, such as {', '.join(SPLITS)}; the "
            f"files of {folder} lie in none."
        )
    return splits


def read_groove_files(files: Mapping[str, Sequence[Path]], entry: Any = None) -> datasets.DatasetDict:
    """Grooves by split, from MIDI files by split.

    With `entry`, the dataset of the catalog, the one file is its table `info.csv`, below whose folder the grooves lie.
    """
    if entry is not None:
        return _read_table(next(iter(files.values()))[0])
    return datasets.DatasetDict(
        {
            split: datasets.Dataset.from_list(
                [{**UNKNOWN, "name": path.stem, "midi": path.read_bytes()} for path in paths], features=FEATURES
            )
            for split, paths in files.items()
        }
    )


def _read_table(table: Path) -> datasets.DatasetDict:
    """Beats of the sessions with quarter notes as beats, in the order of the table; the others are told."""
    with table.open(encoding="utf-8", newline="") as file:
        records = list(csv.DictReader(file))
    needed = {"drummer", "session", "beat_type", "time_signature", "midi_filename", "style", "bpm", "split"}
    missing = sorted(needed - set(records[0] if records else ()))
    if missing:
        raise ValueError(
            f"{table} must have the columns {', '.join(sorted(needed))}; {', '.join(missing)} are missing."
        )
    rows: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    skipped = []
    for record in records:
        if record["beat_type"] != BEATS or LEFT_OUT_SESSION in record["session"]:
            continue
        if not record["time_signature"].endswith(f"-{DENOMINATOR}"):
            skipped.append(f"{Path(record['midi_filename']).stem} ({record['time_signature']})")
            continue
        path = table.parent / record["midi_filename"]
        if not path.is_file():
            raise FileNotFoundError(f"{table} names {record['midi_filename']}; there is no {path}.")
        if record["split"] not in rows:
            raise ValueError(
                f"{table} must have {', '.join(SPLITS)} as splits; {record['midi_filename']} has {record['split']!r}."
            )
        rows[record["split"]].append(
            {
                "name": f"{record['drummer'].removeprefix('drummer')}_{path.stem}",
                "style": record["style"],
                "bpm": _read_tempo(record, table),
                "time_signature": record["time_signature"].replace("-", "/"),
                "midi": path.read_bytes(),
            }
        )
    if skipped:
        logger.warning(f"Left out {len(skipped)} grooves whose beat is no quarter note: {', '.join(skipped)}.")
    return datasets.DatasetDict(
        {split: datasets.Dataset.from_list(part, features=FEATURES) for split, part in rows.items() if part}
    )


def _read_tempo(record: Mapping[str, str], table: Path) -> float:
    try:
        return float(record["bpm"])
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{table} must have numbers as bpm; {record['midi_filename']} has {record['bpm']!r}."
        ) from error


__all__ = ["find_groove_files", "read_groove_files"]
