"""Frames of sensors in folders of a user: tables `<split>/<frame>.json` beside the images and points that they name.

[`decahub.models.cmt.frame_files`] describes the tables.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets

from decahub.models.cmt.frame_files import POINT_COLUMNS, read_frame

from .box_geometry import BOX_SIZE
from .catalog import NUSCENES_CLASSES


CLASSES_FILE = "classes.txt"

_MATRIX = datasets.List(datasets.List(datasets.Value("float64")))
SWEEPS = datasets.List(
    {
        "file": datasets.Value("string"),
        "columns": datasets.List(datasets.Value("string")),
        "sensor2key": _MATRIX,
        "time_lag": datasets.Value("float64"),
    }
)
"""Points as files, read when a row is used; the first is the key sweep."""


def build_features(label_names: Sequence[str] = NUSCENES_CLASSES, points: Any = None) -> datasets.Features:
    """Columns of a frame; `points` are arrays by default."""
    return datasets.Features(
        images=datasets.List(datasets.Image()),
        cameras=datasets.List(datasets.Value("string")),
        intrinsics=datasets.List(_MATRIX),
        lidar2cam=datasets.List(_MATRIX),
        points=datasets.Array2D((None, len(POINT_COLUMNS)), "float32") if points is None else points,
        boxes=datasets.Array2D((None, BOX_SIZE), "float32"),
        labels=datasets.List(datasets.ClassLabel(names=list(label_names))),
        num_points=datasets.List(datasets.Value("int64")),
        attributes=datasets.List(datasets.Value("string")),
        bike_racks=datasets.List(datasets.List(datasets.Value("float32"))),
        lidar2ego=_MATRIX,
        ego2global=_MATRIX,
        token=datasets.Value("string"),
    )


def find_frame_files(folder: Path) -> dict[str, list[Path]]:
    """Tables of frames of each split in a folder `<split>/*.json`."""
    found = {part.name: sorted(part.glob("*.json")) for part in sorted(folder.iterdir()) if part.is_dir()}
    splits = {split: files for split, files in found.items() if files}
    if not splits and any(folder.glob("*.json")):
        raise ValueError(
            f"`name` must be a folder with a folder of frames for each split, such as test/frame.json; the frames of "
            f"{folder} are in none."
        )
    nested = [path for split in sorted(found) for path in sorted((folder / split).glob("*/**/*.json"))]
    if splits and nested:
        raise ValueError(
            f"Frames must be in the folder of their split, such as test/frame.json; got "
            f"{nested[0].relative_to(folder)}. Move tables of frames up, and other JSON files out."
        )
    return splits


def read_frame_files(files: Mapping[str, Sequence[Path]], entry: Any = None) -> datasets.DatasetDict:
    """Dataset of tables of frames; images and points are read when a row is used.

    The classes are those of nuScenes, or those of the file `classes.txt`, one name a line, beside the splits.
    """
    loaded = datasets.DatasetDict()
    for split, paths in files.items():
        classes = paths[0].parents[1] / CLASSES_FILE
        label_names: Sequence[str] = NUSCENES_CLASSES if entry is None else entry.label_names
        if entry is None and classes.is_file():
            label_names = _read_classes(classes)
        rows = [read_labeled_frame(path, label_names) for path in paths]
        loaded[split] = datasets.Dataset.from_list(rows, features=build_features(label_names, SWEEPS))
    return loaded


def _read_classes(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    names = [line.strip() for line in lines if line.strip()]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"{path} must name each class once, one a line; got {', '.join(names) or 'none'}.")
    return names


def read_labeled_frame(path: Path, label_names: Sequence[str] = NUSCENES_CLASSES) -> dict[str, Any]:
    """One frame as a row of the family `object-detection-3d`, with paths in place of images and points.

    Args:
        path (`Path`): The table of the frame.
        label_names (`Sequence[str]`): Names of the classes in the order of their ids.

    Raises:
        ValueError: If the table lacks something or names a class that is not among `label_names`.
        FileNotFoundError: If a file that it names does not exist.
    """
    frame = read_frame(path)
    classes = frame.pop("classes")
    unknown = sorted(set(classes) - set(label_names))
    if unknown:
        raise ValueError(
            f"`class` in {path} must be one of {', '.join(label_names)}, or null; got {', '.join(unknown)}. Other "
            f"classes are listed in {CLASSES_FILE}, one a line, in the folder of the splits."
        )
    return {**frame, "bike_racks": None, "labels": [list(label_names).index(name) for name in classes]}


__all__ = ["build_features", "find_frame_files", "read_frame_files", "read_labeled_frame"]
