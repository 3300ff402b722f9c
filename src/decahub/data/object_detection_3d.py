"""Frames of cameras and LiDAR with 3D boxes: columns, the transform of evaluation, collator.

A row has `images`, `cameras` (their names), `intrinsics` (3, 3) and `lidar2cam` (4, 4) of each camera, `points`
(n, 5: x, y, z in meters, intensity in [0, 255], time lag in seconds; or the files that hold them), `boxes` (g, 9) and
`labels`. A box is x, y, z of the center, length, width, height (m), yaw (rad, counter-clockwise from +x), vx, vy (m/s,
NaN if unknown), all in the frame of the LiDAR. `FRAME_FIELDS` may come with them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import torch

from .family import DataFamily
from .frame_augmentation import build_train_transform
from .frame_files import build_features, find_frame_files, read_frame_files
from .frames import FRAME_FIELDS, decode_row, process_frame
from .nuscenes import TABLE_FOLDERS, find_tables, read_nuscenes


FEATURES = build_features()


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

    The LiDAR of examples without points is masked if others have some.

    Returns:
        `dict[str, Any]`: what the model takes, with `labels` as a list, and `frames`, a list, where examples have a
        `frame`.

    Raises:
        ValueError: If frames differ in their sensors, in the number of cameras or in the size of images.
    """
    examples = _mask_missing_points(examples)
    for example in examples[1:]:
        different = sorted(example.keys() ^ examples[0].keys())
        if different:
            raise ValueError(
                f"Frames of one batch must have the same sensors; `{different[0]}` is in some and not in others. Use "
                "batch size 1 for frames with different sensors."
            )
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


def _mask_missing_points(examples: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """Examples with an empty cloud and a masked LiDAR in place of points that only others have."""
    like = next((example for example in examples if "voxels" in example), None)
    if like is None or all("voxels" in example for example in examples):
        return examples
    empty = {name: like[name][:0] for name in ("voxels", "num_points_per_voxel", "voxel_coords")}
    empty["num_voxels"] = torch.zeros_like(like["num_voxels"])
    masked = []
    for example in examples:
        mask = example.get("modality_mask", torch.tensor([True, True]))
        if "voxels" not in example:
            example, mask = {**example, **empty}, mask & torch.tensor([True, False])
        masked.append({**example, "modality_mask": mask})
    return masked


def finish_loading(dataset: datasets.Dataset, where: str) -> datasets.Dataset:
    """Check the ids of classes, and let rows have arrays as points and boxes, which lists would take long to make."""
    feature = dataset.features["labels"]
    names = getattr(getattr(feature, "feature", None), "names", None)
    if names is None:
        raise TypeError(
            f"column `labels` of {where} must be a `datasets.List` of `datasets.ClassLabel`; got {feature}. Cast it: "
            "`dataset.cast_column('labels', datasets.List(datasets.ClassLabel(names=[...])))`."
        )
    arrays = [name for name in ("points", "boxes") if isinstance(dataset.features[name], datasets.Array2D)]
    return dataset.with_format("numpy", columns=arrays, output_all_columns=True)


def find_files(folder: Path) -> dict[str, list[Path]]:
    """Tables of the frames of each split; of nuScenes in its official layout, the table of its samples."""
    tables = find_tables(folder)
    return find_frame_files(folder) if tables is None else {"all": [tables / "sample.json"]}


def read_files(files: Mapping[str, Sequence[Path]], entry: Any = None) -> datasets.DatasetDict:
    """Dataset of what `find_files` found."""
    first = next(iter(files.values()))[0]
    if first.parent.match(TABLE_FOLDERS):
        return read_nuscenes(first.parents[1], first.parent.name)
    return read_frame_files(files, entry)


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
    build_train_transform=build_train_transform,
    collate=collate,
    decode_row=decode_row,
    find_files=find_files,
    read_files=read_files,
    finish_loading=finish_loading,
)

__all__ = [
    "FAMILY",
    "FEATURES",
    "FRAME_FIELDS",
    "build_eval_transform",
    "build_train_transform",
    "collate",
    "decode_row",
    "process_frame",
]
