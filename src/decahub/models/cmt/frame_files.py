"""Frames of a car's sensors as files: one JSON table for each frame, beside the images and points that it names.

```json
{"lidar": {"file": "lidar_top.npy", "columns": ["x", "y", "z", "intensity", "time"], "lidar2ego": [[...]]},
 "cameras": [{"name": "CAM_FRONT", "file": "CAM_FRONT.jpg", "intrinsics": [[...]], "lidar2cam": [[...]]}],
 "annotations": [{"class": "car", "box": [x, y, z, l, w, h, yaw], "velocity": [vx, vy], "num_lidar_pts": 12}],
 "ego2global": [[...]]}
```

- Files are named relative to the table. Points are a `.npy` array or a `.bin` file of float32, one row each; without
  `columns` they are x, y, z, intensity and, if there are five, the time lag in seconds, which is 0 where there are
  `sweeps`. Other columns (`ring`, ...) are not used, and a missing `time` is 0.
- `sweeps` in `lidar` are earlier sweeps: `{"file": ..., "sensor2key": 4x4, "time_lag": seconds}`.
- Instead of `lidar2cam`, a camera may have `cam2ego`; then `lidar2ego` is needed.
- Boxes are x, y, z of the center, length, width, height (m) and yaw (rad, counter-clockwise from +x) in the frame of
  the LiDAR. One whose `class` is null is left out; a `velocity` of null or with null in it is unknown (NaN).
- `lidar`, `cameras`, `annotations` and `ego2global` may be missing; a frame needs a sensor.
- Other keys, such as time stamps, are not used; one that looks like a misspelling of those above is refused.
"""

import difflib
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
from .lidar.point_cloud import merge_sweeps


POINT_COLUMNS = ("x", "y", "z", "intensity", "time")
POINT_FILES = (".npy", ".bin")
TABLE_KEYS = ("lidar", "cameras", "annotations", "ego2global", "sample_token")
LIDAR_KEYS = ("file", "columns", "lidar2ego", "sweeps")
SWEEP_KEYS = ("file", "columns", "sensor2key", "time_lag")
CAMERA_KEYS = ("name", "file", "intrinsics", "lidar2cam", "cam2ego")
OTHER_CAMERA_KEYS = ("lidar2img",)  # follows from the others
BOX_KEYS = ("class", "box", "velocity", "num_lidar_pts", "num_radar_pts", "attribute")
MISSPELLED = 0.8  # similarity from which on a key is taken for a misspelling
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
    except ValueError as error:  # no JSON, or no UTF-8
        raise ValueError(f"{path} must hold JSON: {error}.") from error
    if not isinstance(table, dict) or not (table.get("lidar") or table.get("cameras")):
        raise ValueError(f"{path} must be a table with `lidar` or `cameras`; it has neither.")
    _check_keys(table, TABLE_KEYS, str(path))
    lidar = _check_keys(table.get("lidar") or {}, LIDAR_KEYS, f"`lidar` of {path}")
    cameras = _read_records(table, "cameras", (*CAMERA_KEYS, *OTHER_CAMERA_KEYS), path)
    lidar2ego = _read_pose(lidar, "lidar2ego", path)
    names = [camera.get("name") or f"camera {index}" for index, camera in enumerate(cameras)]
    annotations = _read_records(table, "annotations", BOX_KEYS, path)
    boxes = [item for item in annotations if item.get("class") is not None]
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
        "ego2global": _read_pose(table, "ego2global", path),
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

    Points of the earlier sweeps within a meter of the sensor, along x and along y, are left out. A file alone keeps
    its time lags; see [`~decahub.models.cmt.lidar.point_cloud.merge_sweeps`] for more than one.

    Returns:
        `numpy.ndarray` of shape `(num_points, 5)`: x, y, z in meters, intensity, time lag in seconds.
    """
    clouds = [(read_points(Path(sweep["file"]), sweep["columns"]), sweep) for sweep in sweeps]
    if not clouds:
        return np.zeros((0, len(POINT_COLUMNS)), dtype=np.float32)
    (points, _), *earlier = clouds
    if not earlier:
        return points  # with its own time lags: the file may hold sweeps that are merged
    transforms, time_lags = zip(*((sweep["sensor2key"], sweep["time_lag"]) for _, sweep in earlier), strict=True)
    return merge_sweeps(points, [cloud for cloud, _ in earlier], transforms, time_lags, min_distance=CLOSE_RANGE)


def read_points(path: Path, columns: Sequence[str] = ()) -> np.ndarray:
    """Points of a `.npy` or `.bin` file with the columns x, y, z, intensity, time lag (0 if the file has none).

    Args:
        path (`Path`): The file.
        columns (`Sequence[str]`): Names of its columns; by default those above, with or without the last.

    Returns:
        `numpy.ndarray` of shape `(num_points, 5)`, float32.

    Raises:
        ValueError: If the file is of another kind or damaged, or does not have these columns.
    """
    points = _load_points(path, len(columns) or len(POINT_COLUMNS))
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


def _load_points(path: Path, width: int) -> np.ndarray:
    """What a file of points holds; `width` is the number of values a point of a `.bin` file."""
    suffix = path.suffix.lower()
    if suffix not in POINT_FILES:
        raise ValueError(f"{path} must be a file of points, {' or '.join(POINT_FILES)}; got {path.suffix!r}.")
    if suffix == ".bin":
        content = path.read_bytes()
        if len(content) % (4 * width):
            raise ValueError(
                f"{path} must hold {width} float32 values a point; {len(content)} bytes are no multiple of "
                f"{4 * width}. Is it cut off, or are `columns` missing?"
            )
        return np.frombuffer(content, dtype="<f4").reshape(-1, width)
    try:
        points = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} must hold an array of numbers; {error}. Is it cut off?") from error
    if points.dtype.kind not in "fiu":
        raise ValueError(f"{path} must hold real numbers; got an array of {points.dtype}.")
    return points


def _check_keys(record: Any, keys: Sequence[str], where: str) -> Mapping[str, Any]:
    """A record of the table, after a search for misspelled keys."""
    if not isinstance(record, Mapping):
        raise ValueError(f"{where} must be a JSON object; got {record!r}.")
    for name in record:
        nearest = difflib.get_close_matches(name, keys, n=1, cutoff=MISSPELLED)
        if name not in keys and nearest and nearest[0] not in record:
            raise ValueError(f"{where} has the unknown key {name!r}. Did you mean {nearest[0]!r}?")
    return record


def _read_records(table: Mapping[str, Any], name: str, keys: Sequence[str], path: Path) -> list[Mapping[str, Any]]:
    records = table.get(name) or []
    if not isinstance(records, list):
        raise ValueError(f"`{name}` of {path} must be a list; got {type(records).__name__}.")
    return [_check_keys(record, keys, f"`{name}[{index}]` of {path}") for index, record in enumerate(records)]


def _read_pose(record: Mapping[str, Any], name: str, path: Path) -> list[list[float]] | None:
    if record.get(name) is None:
        return None
    return _read_matrix(record[name], 4, f"`{name}` in {path}").tolist()


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
    sweeps: list[Mapping[str, Any]] = [key_sweep, *_read_records(lidar, "sweeps", SWEEP_KEYS, path)]
    return [
        {
            "file": str(_find_file(path, sweep, "lidar")),
            "columns": list(sweep.get("columns") or columns),
            "sensor2key": _read_matrix(sweep.get("sensor2key"), 4, f"`sensor2key` of a sweep in {path}").tolist(),
            "time_lag": _read_time_lag(sweep, path),
        }
        for sweep in sweeps
    ]


def _read_time_lag(sweep: Mapping[str, Any], path: Path) -> float:
    value = sweep.get("time_lag", 0.0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ValueError(f"`time_lag` of a sweep in {path} must be its age in seconds, at least 0; got {value!r}.")
    return float(value)


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
    try:
        return np.linalg.solve(cam2ego, np.asarray(lidar2ego))
    except np.linalg.LinAlgError as error:
        raise ValueError(f"`cam2ego` of {where} must be a rotation and a translation; it is singular.") from error


def _read_box(item: Mapping[str, Any], path: Path) -> list[float]:
    given = [item.get("box") or [], item.get("velocity") or [None, None]]
    try:
        box = np.array(given[0], dtype=np.float64)
        velocity = np.array(given[1], dtype=np.float64)  # null becomes NaN
    except (TypeError, ValueError):
        box = velocity = np.zeros(0)
    is_box = box.shape == (BOX_SIZE - 2,) and np.isfinite(box).all() and box[3:6].min() > 0
    if not is_box or velocity.shape != (2,) or np.isinf(velocity).any():
        raise ValueError(
            f"`box` in {path} must hold x, y, z, positive length, width, height, and yaw, with a `velocity` of two "
            f"numbers; got {item.get('box')!r} and {item.get('velocity')!r}."
        )
    return [*box.tolist(), *velocity.tolist()]


def _count_points(item: Mapping[str, Any]) -> int | None:
    counts = [item[name] for name in ("num_lidar_pts", "num_radar_pts") if item.get(name) is not None]
    return sum(counts) if counts else None


__all__ = ["POINT_COLUMNS", "read_frame", "read_points", "read_sweeps", "write_frame"]
