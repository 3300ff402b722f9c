"""Frames of cameras and LiDAR with 3D boxes: columns, the transform of evaluation, collator.

A row has `images`, `cameras` (their names), `intrinsics` (3, 3) and `lidar2cam` (4, 4) of each camera, `points`
(n, 5: x, y, z in meters, intensity in [0, 255], time lag in seconds; or the files that hold them), `boxes` (g, 9) and
`labels`. A box is x, y, z of the center, length, width, height (m), yaw (rad, counter-clockwise from +x), vx, vy (m/s,
NaN if unknown), all in the frame of the LiDAR. `FRAME_FIELDS` may come with them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import datasets
import numpy as np
import torch

from decahub.models.cmt.frame_files import POINT_COLUMNS, read_sweeps

from .box_geometry import BOX_SIZE
from .family import DataFamily
from .frame_files import build_features, find_frame_files, read_frame_files


FRAME_FIELDS = ("num_points", "attributes", "lidar2ego", "ego2global", "token")
"""What a metric needs of a frame beyond its boxes: LiDAR and radar points in each box, attribute of each box, poses
(4, 4), and a name. None where it is unknown."""
FEATURES = build_features()
_ARRAYS = {"points": (None, len(POINT_COLUMNS)), "boxes": (None, BOX_SIZE)}


def decode_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """One row with numpy arrays, in a form that `InMemoryDataset` keeps; files of points are read."""
    decoded = {name: row.get(name) for name in FRAME_FIELDS}
    for name in ("lidar2ego", "ego2global"):
        decoded[name] = None if decoded[name] is None else np.asarray(decoded[name], dtype=np.float64)
    cameras = list(row.get("cameras") or [f"camera {index}" for index in range(len(row["images"]))])
    return {
        **decoded,
        "images": list(row["images"]),
        "cameras": cameras,
        "intrinsics": np.asarray(row["intrinsics"], dtype=np.float64).reshape(-1, 3, 3),
        "lidar2cam": np.asarray(row["lidar2cam"], dtype=np.float64).reshape(-1, 4, 4),
        "points": read_row_points(row),
        "boxes": np.array(row["boxes"], dtype=np.float32).reshape(-1, BOX_SIZE),
        "labels": np.array(row["labels"], dtype=np.int64),
    }


def read_row_points(row: Mapping[str, Any]) -> np.ndarray:
    """Points of a row, `(num_points, 5)`, read from files where it names some; a copy."""
    points = row["points"]
    if isinstance(points, list) and points and isinstance(points[0], Mapping):
        return read_sweeps(points)
    return np.array(points, dtype=np.float32).reshape(-1, len(POINT_COLUMNS))


def process_frame(frame: Mapping[str, Any], processor: Any, **options: Any) -> dict[str, Any]:
    """A decoded row through the processor of a model: one example, without batch dimension.

    Args:
        frame (`Mapping[str, Any]`): What [`decode_row`] gives.
        processor: Of the model; what it has no part for (cameras, points) is left out.
        options: Further arguments of its call.

    Returns:
        `dict[str, Any]`: `pixel_values` `(num_cameras, channels, height, width)`, `lidar2img` `(num_cameras, 4, 4)`,
        `voxels`, `num_points_per_voxel`, `voxel_coords`, `num_voxels` `(1,)`, `labels` with `boxes` and
        `class_labels`, as far as the model has them.
    """
    inputs: dict[str, Any] = {"boxes": frame["boxes"], "class_labels": frame["labels"]}
    if getattr(processor, "image_processor", None) is not None:
        inputs |= {name: frame[name] for name in ("images", "cameras", "intrinsics", "lidar2cam")}
    if getattr(processor, "feature_extractor", None) is not None:
        inputs["points"] = frame["points"]
    batch = processor(**inputs, **options, return_tensors="pt")
    return {
        name: value[0] if name in ("pixel_values", "lidar2img", "labels") else value for name, value in batch.items()
    }


class EvalTransform:
    """One row to an example: see [`process_frame`]; `frame` holds `boxes`, `labels` and `FRAME_FIELDS` of the row."""

    def __init__(self, processor: Any):
        self.processor = processor

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        frame = decode_row(row)
        return {
            **process_frame(frame, self.processor),
            "frame": {name: frame[name] for name in ("boxes", "labels", *FRAME_FIELDS)},
        }


def build_eval_transform(processor: Any) -> EvalTransform:
    """Deterministic transform of a row for evaluation."""
    return EvalTransform(processor)


def collate(examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Batch of examples: cameras are stacked; voxels are concatenated, their first coordinate the sample's index.

    Returns:
        `dict[str, Any]`: what the model takes, with `labels` as a list, and `frames`, a list, where examples have a
        `frame`.

    Raises:
        ValueError: If frames differ in the number of cameras or in the size of images.
    """
    batch: dict[str, Any] = {}
    for name in examples[0]:
        values = [example[name] for example in examples]
        if name in ("labels", "frame"):
            batch["frames" if name == "frame" else name] = values
        elif name == "voxel_coords":
            numbered = [value.clone() for value in values]
            for index, coords in enumerate(numbered):
                coords[:, 0] = index
            batch[name] = torch.cat(numbered)
        elif name in ("voxels", "num_points_per_voxel", "num_voxels"):
            batch[name] = torch.cat(values)
        else:
            shapes = {tuple(value.shape) for value in values}
            if len(shapes) > 1:
                raise ValueError(
                    f"`{name}` of one batch must have one shape; got {sorted(shapes)}. Use batch size 1 for frames "
                    "with different numbers of cameras."
                )
            batch[name] = torch.stack(values)
    return batch


def finish_loading(dataset: datasets.Dataset, where: str) -> datasets.Dataset:
    """Check the ids of classes, and let rows have arrays as points and boxes, which lists would take long to make."""
    feature = dataset.features["labels"]
    names = getattr(getattr(feature, "feature", None), "names", None)
    if names is None:
        raise TypeError(
            f"column `labels` of {where} must be a `datasets.List` of `datasets.ClassLabel`; got {feature}. Cast it: "
            "`dataset.cast_column('labels', datasets.List(datasets.ClassLabel(names=[...])))`."
        )
    arrays = [name for name in _ARRAYS if isinstance(dataset.features[name], datasets.Array2D)]
    return dataset.with_format("numpy", columns=arrays, output_all_columns=True)


FAMILY = DataFamily(
    columns={
        "images": datasets.List,
        "intrinsics": datasets.List,
        "lidar2cam": datasets.List,
        "points": (datasets.Array2D, datasets.List),
        "boxes": (datasets.Array2D, datasets.List),
        "labels": datasets.List,
    },
    build_eval_transform=build_eval_transform,
    collate=collate,
    decode_row=decode_row,
    find_files=find_frame_files,
    read_files=read_frame_files,
    finish_loading=finish_loading,
)

__all__ = [
    "FAMILY",
    "FEATURES",
    "FRAME_FIELDS",
    "build_eval_transform",
    "collate",
    "decode_row",
    "process_frame",
    "read_row_points",
]
