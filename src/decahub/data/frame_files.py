"""Frames of a car's sensors as files: one JSON table for each frame, beside the images and points that it names.

```json
{"lidar": {"file": "lidar_top.npy", "columns": ["x", "y", "z", "intensity", "time"], "lidar2ego": [[...]]},
 "cameras": [{"name": "CAM_FRONT", "file": "CAM_FRONT.jpg", "intrinsics": [[...]], "lidar2cam": [[...]]}],
 "annotations": [{"class": "car", "box": [x, y, z, l, w, h, yaw], "velocity": [vx, vy], "num_lidar_pts": 12}],
 "ego2global": [[...]]}
```

- Files are named relative to the table. Points are a `.npy` array or a `.bin` file of float32, one row each; without
  `columns` they are x, y, z, intensity and, if there are five, the time lag in seconds. Of other columns (`ring`, ...)
  nothing is kept, and a missing `time` is 0.
- `sweeps` in `lidar` are earlier sweeps: `{"file": ..., "sensor2key": 4x4, "time_lag": seconds}`.
- Instead of `lidar2cam`, a camera may have `cam2ego`; then `lidar2ego` is needed.
- Boxes are x, y, z of the center, length, width, height (m) and yaw (rad, counter-clockwise from +x) in the frame of
  the LiDAR. One whose `class` is null is left out; a `velocity` of null or with null in it is unknown (NaN).
- `lidar`, `cameras`, `annotations` and `ego2global` may be missing; a frame needs a sensor.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from .box_geometry import BOX_SIZE
from .catalog import NUSCENES_CLASSES


POINT_COLUMNS = ("x", "y", "z", "intensity", "time")
CLASSES_FILE = "classes.txt"
POINTS_SUFFIXES = (".npy", ".bin")
CLOSE_RANGE = 1.0  # points of earlier sweeps within this square about the sensor hit the car itself

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
            label_names = classes.read_text(encoding="utf-8").split()
        rows = [read_frame(path, label_names) for path in paths]
        loaded[split] = datasets.Dataset.from_list(rows, features=build_features(label_names, SWEEPS))
    return loaded


def read_frame(path: Path, label_names: Sequence[str] = NUSCENES_CLASSES) -> dict[str, Any]:
    """One frame as a row of the family `object-detection-3d`, with paths in place of images and points.

    Args:
        path (`Path`): The table of the frame.
        label_names (`Sequence[str]`): Names of the classes in the order of their ids.

    Raises:
        ValueError: If the table lacks something or names a class that is not among `label_names`.
        FileNotFoundError: If a file that it names does not exist.
    """
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} must hold JSON: {error}.") from error
    if not isinstance(table, dict) or not (table.get("lidar") or table.get("cameras")):
        raise ValueError(f"{path} must be a table with `lidar` or `cameras`; it has neither.")
    lidar, cameras = table.get("lidar") or {}, table.get("cameras") or []
    lidar2ego = lidar.get("lidar2ego")
    names = [camera.get("name") or f"camera {index}" for index, camera in enumerate(cameras)]
    boxes = [item for item in table.get("annotations") or [] if item.get("class") is not None]
    unknown = sorted({str(item["class"]) for item in boxes} - set(label_names))
    if unknown:
        raise ValueError(
            f"`class` in {path} must be one of {', '.join(label_names)}, or null; got {', '.join(unknown)}. Other "
            f"classes are listed in {CLASSES_FILE}, one a line, in the folder of the splits."
        )
    return {
        "images": [str(_find_file(path, camera, name)) for camera, name in zip(cameras, names, strict=True)],
        "cameras": names,
        "intrinsics": [
            _read_matrix(camera.get("intrinsics"), 3, f"`intrinsics` of {name} in {path}").tolist()
            for camera, name in zip(cameras, names, strict=True)
        ],
        "lidar2cam": [
            _read_lidar2cam(camera, lidar2ego, f"{name} in {path}").tolist()
            for camera, name in zip(cameras, names, strict=True)
        ],
        "points": _list_sweeps(path, lidar) if lidar else [],
        "boxes": np.array([_read_box(item, path) for item in boxes], dtype=np.float32).reshape(-1, BOX_SIZE),
        "labels": [list(label_names).index(item["class"]) for item in boxes],
        "num_points": [_count_points(item) for item in boxes],
        "attributes": [item.get("attribute") for item in boxes],
        "lidar2ego": lidar2ego,
        "ego2global": table.get("ego2global"),
        "token": table.get("sample_token") or path.stem,
    }


def read_sweeps(sweeps: Iterable[Mapping[str, Any]]) -> np.ndarray:
    """Points of sweeps in the frame of the key sweep.

    Points of the earlier sweeps within a meter of the sensor, along x and along y, are left out.

    Returns:
        `numpy.ndarray` of shape `(num_points, 5)`: x, y, z in meters, intensity, time lag in seconds.
    """
    merged = [np.zeros((0, len(POINT_COLUMNS)), dtype=np.float32)]
    for index, sweep in enumerate(sweeps):
        points = read_points(Path(sweep["file"]), sweep["columns"])
        if index:
            points = points[(np.abs(points[:, :2]) >= CLOSE_RANGE).any(1)]
            sensor2key = np.asarray(sweep["sensor2key"], dtype=np.float64)
            points[:, :3] = points[:, :3] @ sensor2key[:3, :3].T + sensor2key[:3, 3]
            points[:, 4] = sweep["time_lag"]
        merged.append(points)
    return np.concatenate(merged)


def read_points(path: Path, columns: Sequence[str] = ()) -> np.ndarray:
    """Points of a `.npy` or `.bin` file with the columns x, y, z, intensity, time lag (0 if the file has none).

    Args:
        path (`Path`): The file.
        columns (`Sequence[str]`): Names of its columns; by default those above, with or without the last.

    Returns:
        `numpy.ndarray` of shape `(num_points, 5)`, float32.
    """
    if path.suffix == ".npy":
        points = np.load(path, allow_pickle=False)
    else:
        values = np.fromfile(path, dtype=np.float32)
        width = len(columns) or len(POINT_COLUMNS)
        if len(values) % width:
            raise ValueError(f"{path} must hold {width} float32 values a point; {len(values)} values are no multiple.")
        points = values.reshape(-1, width)
    if not columns and points.ndim == 2 and points.shape[1] in (4, 5):
        columns = POINT_COLUMNS[: points.shape[1]]
    if points.ndim != 2 or points.shape[1] != len(columns):
        raise ValueError(
            f"{path} must hold a row of {len(columns) or '4 or 5'} values for each point "
            f"({', '.join(columns or POINT_COLUMNS)}); got an array of shape {points.shape}."
        )
    missing = [name for name in POINT_COLUMNS[:4] if name not in columns]
    if missing:
        raise ValueError(f"`columns` of {path} must name {', '.join(POINT_COLUMNS[:4])}; got {', '.join(columns)}.")
    kept = np.zeros((len(points), len(POINT_COLUMNS)), dtype=np.float32)
    for index, name in enumerate(POINT_COLUMNS):
        if name in columns:
            kept[:, index] = points[:, list(columns).index(name)]
    return kept


def _list_sweeps(path: Path, lidar: Mapping[str, Any]) -> list[dict[str, Any]]:
    columns = list(lidar.get("columns") or ())
    key_sweep = {"file": lidar.get("file"), "sensor2key": np.eye(4), "time_lag": 0.0}
    sweeps: list[Mapping[str, Any]] = [key_sweep, *(lidar.get("sweeps") or [])]
    return [
        {
            "file": str(_find_file(path, sweep, "lidar")),
            "columns": list(sweep.get("columns") or columns),
            "sensor2key": _read_matrix(sweep.get("sensor2key"), 4, f"`sensor2key` of a sweep in {path}").tolist(),
            "time_lag": float(sweep.get("time_lag", 0.0)),
        }
        for sweep in sweeps
    ]


def _find_file(path: Path, item: Mapping[str, Any], name: str) -> Path:
    if not item.get("file"):
        raise ValueError(f"`file` of {name} in {path} must name a file; got {item.get('file')!r}.")
    file = path.parent / item["file"]
    if not file.is_file():
        raise FileNotFoundError(f"{path} names {item['file']} for {name}; {file} does not exist.")
    return file


def _read_matrix(values: Any, size: int, where: str) -> np.ndarray:
    try:
        matrix = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        matrix = np.zeros(0)
    if matrix.shape != (size, size) or not np.isfinite(matrix).all():
        raise ValueError(f"{where} must be {size} rows of {size} numbers; got {values!r}.")
    return matrix


def _read_lidar2cam(camera: Mapping[str, Any], lidar2ego: Any, where: str) -> np.ndarray:
    if "lidar2cam" in camera:
        return _read_matrix(camera["lidar2cam"], 4, f"`lidar2cam` of {where}")
    if "cam2ego" not in camera or lidar2ego is None:
        raise ValueError(f"`lidar2cam` of {where} is missing. Add it, or `cam2ego` and the `lidar2ego` of the LiDAR.")
    cam2ego = _read_matrix(camera["cam2ego"], 4, f"`cam2ego` of {where}")
    return np.linalg.solve(cam2ego, _read_matrix(lidar2ego, 4, f"`lidar2ego` of {where}"))


def _read_box(item: Mapping[str, Any], path: Path) -> list[float]:
    velocity = item.get("velocity") or (None, None)
    values = [*(item.get("box") or ()), *(np.nan if value is None else value for value in velocity)]
    if len(values) != BOX_SIZE or not np.isfinite(values[:7]).all() or min(values[3:6]) <= 0:
        raise ValueError(
            f"`box` in {path} must hold x, y, z, positive length, width, height, and yaw, with a `velocity` of two "
            f"numbers; got {item.get('box')!r} and {item.get('velocity')!r}."
        )
    return values


def _count_points(item: Mapping[str, Any]) -> int | None:
    counts = [item[name] for name in ("num_lidar_pts", "num_radar_pts") if item.get(name) is not None]
    return sum(counts) if counts else None


__all__ = ["POINT_COLUMNS", "build_features", "find_frame_files", "read_frame", "read_points", "read_sweeps"]
