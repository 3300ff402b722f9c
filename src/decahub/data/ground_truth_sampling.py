"""Objects of other frames pasted into a frame: their points, and their pixels blended into the images.

Rare classes are then seen in most frames ("ground-truth sampling", SECOND, Sensors 2018; with images: AutoAlignV2,
arXiv 2207.10316). Pasted scenes are not quite real: training ends without them (paper of CMT, section 4.2).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torchvision.transforms.v2 import functional

from .box_geometry import compute_corners, find_bev_overlaps, find_points_inside, project


TARGET_COUNTS = {
    "car": 2,
    "truck": 3,
    "construction_vehicle": 7,
    "bus": 4,
    "trailer": 6,
    "barrier": 2,
    "motorcycle": 6,
    "bicycle": 6,
    "pedestrian": 2,
    "traffic_cone": 2,
}
"""How many objects of each class a frame is filled up to, as published."""
MIN_POINTS = 5
BLEND_FACTOR = 0.5
NEAR = 0.1  # meters in front of a camera


@dataclass
class SampledObject:
    """An object of some frame: its box `(9,)`, points `(n, 5)` in that frame, and pixels by name of the camera."""

    box: np.ndarray
    points: np.ndarray
    patches: dict[str, torch.Tensor]


def find_rectangles(
    boxes: np.ndarray, lidar2img: np.ndarray, image_size: tuple[int, int]
) -> list[tuple[int, int, int, int] | None]:
    """Rectangle of pixels (top, left, bottom, right) around each box in an image; None for one that is not in it.

    A box whose corners are not all in front of the camera counts as not in it.

    Args:
        boxes (`numpy.ndarray` of shape `(num_boxes, 9)`): Boxes.
        lidar2img (`numpy.ndarray` of shape `(4, 4)`): Projection.
        image_size (`tuple[int, int]`): Height and width.
    """
    pixels, depths = project(compute_corners(boxes), lidar2img)
    rectangles: list[tuple[int, int, int, int] | None] = []
    for corners, depth in zip(pixels, depths, strict=True):
        if (depth < NEAR).any():
            rectangles.append(None)
            continue
        left, top = np.maximum(np.floor(corners.min(0)), 0)
        right, bottom = np.minimum(np.ceil(corners.max(0)) + 1, image_size[::-1])
        is_inside = right > left and bottom > top
        rectangles.append((int(top), int(left), int(bottom), int(right)) if is_inside else None)
    return rectangles


def build_database(
    frames: Iterable[Mapping[str, Any]], min_points: int = MIN_POINTS, max_objects: int | None = None
) -> dict[int, list[SampledObject]]:
    """Objects of frames by class.

    Args:
        frames (`Iterable[Mapping[str, Any]]`): Decoded rows with `lidar2img`, before any augmentation.
        min_points (`int`): Points that an object must have.
        max_objects (`int`, *optional*): Most objects of a class, the first ones; by default all. They are kept in
            memory with their pixels.
    """
    database: dict[int, list[SampledObject]] = {}
    for frame in frames:
        if frame["points"] is None:
            continue
        inside = find_points_inside(frame["points"], frame["boxes"])
        rectangles = [
            find_rectangles(frame["boxes"], projection, tuple(image.shape[-2:]))
            for projection, image in zip(frame["lidar2img"], frame["images"], strict=True)
        ]
        for index, (box, label) in enumerate(zip(frame["boxes"], frame["labels"].tolist(), strict=True)):
            objects = database.setdefault(label, [])
            if inside[index].sum() < min_points or (max_objects is not None and len(objects) >= max_objects):
                continue
            patches = {}
            for name, image, found in zip(frame["cameras"], frame["images"], rectangles, strict=True):
                rectangle = found[index]
                if rectangle is not None:
                    patches[name] = _crop(image, rectangle).clone()
            objects.append(SampledObject(box.copy(), frame["points"][inside[index]].copy(), patches))
    return database


class ObjectSampler:
    """Fills a frame up with objects of other frames.

    Objects are drawn for each class until a frame has as many as wanted; one that overlaps another in the bird's-eye
    view is dropped, and points that were inside of its box are removed. In the images, pasted and own objects are then
    blended into the rectangles around their boxes, the farthest first.

    Args:
        database (`dict[int, list[SampledObject]]`): What [`build_database`] gives.
        target_counts (`Mapping[int, int]`): Wanted number of objects by class id.
        blend_factor (`float`): Weight of the pasted pixels.
    """

    def __init__(
        self,
        database: dict[int, list[SampledObject]],
        target_counts: Mapping[int, int],
        blend_factor: float = BLEND_FACTOR,
    ):
        if not 0 <= blend_factor <= 1:
            raise ValueError(f"`blend_factor` must be in [0, 1]; got {blend_factor}.")
        self.database, self.target_counts, self.blend_factor = database, dict(target_counts), blend_factor

    def __call__(self, frame: Mapping[str, Any]) -> dict[str, Any]:
        pasted, labels = self.choose_objects(frame["boxes"], frame["labels"])
        if not pasted:
            return dict(frame)
        boxes = np.stack([item.box for item in pasted])
        points = frame["points"]
        if points is not None:
            covered = find_points_inside(points, boxes).any(0)
            points = np.concatenate([points[~covered], *(item.points for item in pasted)])
        filled = {
            **frame,
            "points": points,
            "boxes": np.concatenate([frame["boxes"], boxes]),
            "labels": np.concatenate([frame["labels"], labels]),
            "images": self.blend_images(frame, pasted, boxes),
        }
        if frame.get("num_points") is not None:
            filled["num_points"] = [*frame["num_points"], *(len(item.points) for item in pasted)]
        if frame.get("attributes") is not None:
            filled["attributes"] = [*frame["attributes"], *(None for _ in pasted)]
        return filled

    def choose_objects(self, boxes: np.ndarray, labels: np.ndarray) -> tuple[list[SampledObject], np.ndarray]:
        """Objects to paste, none of which overlaps another or one of the boxes, and their class ids."""
        chosen: list[SampledObject] = []
        chosen_labels: list[int] = []
        occupied = boxes
        for label, wanted in self.target_counts.items():
            objects = self.database.get(label, [])
            missing = min(wanted - int((labels == label).sum()), len(objects))
            if missing < 1:
                continue
            for index in np.random.choice(len(objects), missing, replace=False):
                candidate = objects[index]
                if not find_bev_overlaps(candidate.box[None], occupied).any():
                    chosen.append(candidate)
                    chosen_labels.append(label)
                    occupied = np.concatenate([occupied, candidate.box[None]])
        return chosen, np.array(chosen_labels, dtype=np.int64)

    def blend_images(
        self, frame: Mapping[str, Any], pasted: Sequence[SampledObject], boxes: np.ndarray
    ) -> list[torch.Tensor]:
        """The images with pasted and own objects blended in, the farthest first; a copy."""
        all_boxes = np.concatenate([frame["boxes"], boxes])
        num_own = len(frame["boxes"])
        blended = []
        for name, image, projection in zip(frame["cameras"], frame["images"], frame["lidar2img"], strict=True):
            result = image.clone()
            _, depths = project(all_boxes[:, :3], projection)
            rectangles = find_rectangles(all_boxes, projection, tuple(image.shape[-2:]))
            for index in np.argsort(-depths, kind="stable"):
                rectangle = rectangles[index]
                if rectangle is None:
                    continue
                patch = _crop(image, rectangle)
                if index >= num_own:
                    patches = pasted[index - num_own].patches
                    if not patches:
                        continue
                    patch = patches.get(name, next(iter(patches.values())))
                _blend(_crop(result, rectangle), patch, self.blend_factor)
            blended.append(result)
        return blended


def _crop(image: torch.Tensor, rectangle: tuple[int, int, int, int]) -> torch.Tensor:
    top, left, bottom, right = rectangle
    return image[:, top:bottom, left:right]


def _blend(target: torch.Tensor, patch: torch.Tensor, factor: float) -> None:
    """Blend a patch, resized, into bytes, in place."""
    if patch.shape != target.shape:
        patch = functional.resize(patch, list(target.shape[-2:]), antialias=True)
    target.copy_((factor * patch.float() + (1 - factor) * target.float()).round())


def read_target_counts(counts: Mapping[str, int], label_names: Sequence[str]) -> dict[int, int]:
    """Wanted numbers of objects by class id, from those by name.

    Raises:
        ValueError: If a name is no class, or a number is negative.
    """
    unknown = sorted(set(counts) - set(label_names))
    if unknown:
        raise ValueError(f"`counts` must name classes of {', '.join(label_names)}; got {', '.join(unknown)}.")
    if min(counts.values(), default=0) < 0:
        raise ValueError(f"`counts` must not hold negative numbers; got {dict(counts)}.")
    return {list(label_names).index(name): count for name, count in counts.items()}


__all__ = [
    "TARGET_COUNTS",
    "ObjectSampler",
    "SampledObject",
    "build_database",
    "find_rectangles",
    "read_target_counts",
]
