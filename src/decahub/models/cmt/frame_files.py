"""Frames of a car's sensors as files: one JSON table for each frame, beside the images and points that it names.

```json
{"lidar": {"file": "lidar_top.npy", "columns": ["x", "y", "z", "intensity", "time"], "lidar2ego": [[...]]},
 "cameras": [{"name": "CAM_FRONT", "file": "CAM_FRONT.jpg", "intrinsics": [[...]], "lidar2cam": [[...]]}],
 "annotations": [{"class": "car", "box": [x, y, z, l, w, h, yaw], "velocity": [vx, vy], "num_lidar_pts": 12}],
 "ego2global": [[...]]}
```

- Files are named relative to the table. Points are a `.npy` array or a `.bin` file of float32, one row each; without
  `columns` they are x, y, z, intensity and, if there are five, the time lag in seconds. Other columns
  (`ring`, ...) are not used, and a missing `time` is 0.
- `sweeps` in `lidar` are earlier sweeps: `{"file": ..., "sensor2key": 4x4, "time_lag": seconds}`.
- Instead of `lidar2cam`, a camera may have `cam2ego`; then `lidar2ego` is needed.
- Boxes are x, y, z of the center, length, width, height (m) and yaw (rad, counter-clockwise from +x) in the frame of
  the LiDAR. One whose `class` is null is left out; a `velocity` of null or with null in it is unknown (NaN).
- `lidar`, `cameras`, `annotations` and `ego2global` may be missing; a frame needs a sensor.
"""

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from .boxes.geometry import BOX_SIZE


POINT_COLUMNS = ("x", "y", "z", "intensity", "time")
CLOSE_RANGE = 1.0  # points of earlier sweeps within this square about the sensor hit the car itself


def read_frame(path: Path) -> dict[str, Any]:
    """One frame, with paths in place of images, and the sweeps of its points as [`read_sweeps`] takes them.

    Args:
        path (`Path`): The table of the frame.

    Returns:
        `dict[str, Any]`: `images` (`list[str]`), `cameras` (`list[str]`), `intrinsics` and `lidar2cam` (lists of
        matrices as lists), `points` (`list[dict]`, empty without LiDAR), `boxes` (`numpy.ndarray` of shape
        `(num_boxes, 9)`, NaN where a velocity is unknown), `classes` (`list[str]`), `num_points` and `attributes`
        (lists, None where unknown), `lidar2ego`, `ego2global` (matrices as lists, or None) and `token` (`str`).

    Raises:
        ValueError: If the table lacks something.
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
        "classes": [item["class"] for item in boxes],
        "num_points": [_count_points(item) for item in boxes],
        "attributes": [item.get("attribute") for item in boxes],
        "lidar2ego": lidar2ego,
        "ego2global": table.get("ego2global"),
        "token": table.get("sample_token") or path.stem,
    }


def write_frame(path: Path, frame: Mapping[str, Any], label_names: Sequence[str]) -> Path:
    """Write a frame as a table, with its images and points beside it; files that exist are replaced.

    Args:
        path (`Path`): The table, such as `frames/test/7.json`; other files begin with its name without suffix.
        frame (`Mapping[str, Any]`): A row of the family `object-detection-3d`: images are PIL or arrays in RGB, points
            an array.
        label_names (`Sequence[str]`): Names of the classes in the order of their ids.

    Returns:
        `Path`: `path`.

    Example:
    ```python
    >>> from decahub.data.driving_scenes import build_frame
    >>> write_frame(Path("frames/test/7.json"), build_frame((0, 7)), ["car", ...])  # doctest: +SKIP
    ```
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    table: dict[str, Any] = {"sample_token": frame.get("token") or path.stem, "cameras": []}
    images = frame.get("images")
    for index, image in enumerate([] if images is None else images):
        name = frame["cameras"][index] if frame.get("cameras") is not None else f"camera {index}"
        pillow = image if isinstance(image, Image.Image) else Image.fromarray(np.asarray(image))
        file = path.with_name(f"{path.stem}_{name.replace(' ', '_')}.png")
        _replace(file, partial(pillow.save, format="PNG"))
        matrices = {key: np.asarray(frame[key][index]).tolist() for key in ("intrinsics", "lidar2cam")}
        table["cameras"].append({"name": name, "file": file.name, **matrices})
    if frame.get("points") is not None:
        points = np.asarray(frame["points"], dtype=np.float32)
        file = path.with_name(f"{path.stem}.npy")
        _replace(file, partial(np.save, arr=points))
        table["lidar"] = {"file": file.name}
        if frame.get("lidar2ego") is not None:
            table["lidar"]["lidar2ego"] = np.asarray(frame["lidar2ego"]).tolist()
    if frame.get("ego2global") is not None:
        table["ego2global"] = np.asarray(frame["ego2global"]).tolist()
    table["annotations"] = [
        _describe_box(frame, index, label_names[label]) for index, label in enumerate(frame.get("labels") or [])
    ]
    text = json.dumps(table, indent=1, allow_nan=False).encode()
    _replace(path, lambda file: file.write(text))
    return path


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
            raise ValueError(f"{path} must hold {width} float32 values for each point; got {len(values)} values.")
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


def _describe_box(frame: Mapping[str, Any], index: int, class_name: str) -> dict[str, Any]:
    """An annotation of a table; what is unknown is left out or null."""
    values = [None if math.isnan(value) else float(value) for value in frame["boxes"][index]]
    described: dict[str, Any] = {"class": class_name, "box": values[:7], "velocity": values[7:]}
    for key, name in (("num_points", "num_lidar_pts"), ("attributes", "attribute")):
        column = frame.get(key)
        if column is not None and column[index] is not None:
            described[name] = column[index]
    return described


def _replace(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Write a file that appears whole."""
    unfinished = path.with_name(f".{path.name}.partial")
    with unfinished.open("wb") as file:
        write(file)
    os.replace(unfinished, path)


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


__all__ = ["POINT_COLUMNS", "read_frame", "read_points", "read_sweeps", "write_frame"]
