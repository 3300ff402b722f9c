"""One frame of cameras and LiDAR: a row as arrays, and through the processor of a model."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from decahub.models.cmt.frame_files import POINT_COLUMNS, read_sweeps

from .box_geometry import BOX_SIZE
from .image_classification import image_to_tensor


FRAME_FIELDS = ("num_points", "attributes", "bike_racks", "lidar2ego", "ego2global", "token")
"""What a metric needs of a frame beyond its boxes: LiDAR and radar points in each box, attribute of each box, boxes of
bicycle racks, poses (4, 4), and a name. None where it is unknown."""


def decode_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """One row with its images as bytes `(3, height, width)` and numpy arrays; for `InMemoryDataset`.

    Images or points that are missing may be None. Files of points are read. A decoded row may be decoded again: its
    arrays are copied.
    """
    decoded = {name: row.get(name) for name in FRAME_FIELDS}
    for name in ("lidar2ego", "ego2global"):
        decoded[name] = None if decoded[name] is None else np.asarray(decoded[name], dtype=np.float64)
    images = [] if row["images"] is None else row["images"]
    cameras = list(row.get("cameras") or [f"camera {index}" for index in range(len(images))])
    calibration = {name: [] if row.get(name) is None else row[name] for name in ("intrinsics", "lidar2cam")}
    return {
        **decoded,
        "images": [image_to_tensor(image) for image in images],
        "cameras": cameras,
        "intrinsics": np.asarray(calibration["intrinsics"], dtype=np.float64).reshape(-1, 3, 3),
        "lidar2cam": np.asarray(calibration["lidar2cam"], dtype=np.float64).reshape(-1, 4, 4),
        "points": read_row_points(row),
        "boxes": np.array(row["boxes"], dtype=np.float32).reshape(-1, BOX_SIZE),
        "labels": np.array(row["labels"], dtype=np.int64),
    }


def read_row_points(row: Mapping[str, Any]) -> np.ndarray | None:
    """Points of a row, `(num_points, 5)`, read from files where it names some; a copy. None where they are missing.

    An empty list names no file, so points are missing; an empty array is a cloud without points.
    """
    points = row["points"]
    if points is None or (isinstance(points, list) and not points):
        return None
    if isinstance(points, list) and isinstance(points[0], Mapping):
        return read_sweeps(points)
    return np.array(points, dtype=np.float32).reshape(-1, len(POINT_COLUMNS))


def process_frame(frame: Mapping[str, Any], processor: Any, **options: Any) -> dict[str, Any]:
    """A decoded row through the processor of a model: one example, without batch dimension.

    Args:
        frame (`Mapping[str, Any]`): What [`decode_row`] gives; `lidar2img`, if it has any, counts instead of the
            calibration.
        processor ([`CmtProcessor`]): Of the model; sensors that this does not have are left out.
        options: Further arguments of its call.

    Returns:
        `dict[str, Any]`: `pixel_values` `(num_cameras, channels, height, width)`, `lidar2img` `(num_cameras, 4, 4)`,
        `voxels`, `num_points_per_voxel`, `voxel_coords`, `num_voxels` `(1,)`, `labels` with `boxes` and
        `class_labels`, as far as the model and the frame have them.
    """
    inputs: dict[str, Any] = {"boxes": frame["boxes"], "class_labels": frame["labels"]}
    if processor.modality != "lidar" and frame["images"]:
        calibration = ("lidar2img",) if "lidar2img" in frame else ("intrinsics", "lidar2cam")
        inputs |= {name: frame[name] for name in ("images", "cameras", *calibration)}
    if processor.modality != "camera" and frame["points"] is not None:
        inputs["points"] = frame["points"]
    batch = processor(**inputs, **options, return_tensors="pt")
    return {
        name: value[0] if name in ("pixel_values", "lidar2img", "labels") else value for name, value in batch.items()
    }


__all__ = ["FRAME_FIELDS", "decode_row", "process_frame", "read_row_points"]
