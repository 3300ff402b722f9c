"""Random transforms of frames for training: the scene as a whole, its points and boxes, and the images.

Whatever moves the scene moves points, boxes and projections together: if `A` moves the points, `lidar2img` becomes
`lidar2img A^-1`, so a corner of a box keeps its pixel. The image processor resizes, crops and mirrors images, and
changes the projections in turn.

Draws come from numpy's global generator and from torch's; wrap a transform into `SeededTransform`, or into
[`AugmentedFrames`] if objects are pasted, and they can be repeated.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from decahub.models.cmt.camera.grid_mask import apply_grid_mask
from decahub.models.cmt.camera.resize_crop import RESIZE_RANGE, sample_image_transforms
from decahub.models.shared.checks import check_bounds, check_probability

from .box_geometry import wrap_angle
from .frames import decode_row, process_frame
from .ground_truth_sampling import ObjectSampler
from .seeded import SeededTransform


MASKED_SHARE = 0.25  # of the frames lose their images, and as many their points (paper, section 3.4)


def build_scene_transform(
    rotation: float = 0.0,
    scale: float = 1.0,
    translation: Sequence[float] = (0.0, 0.0, 0.0),
    flip_x: bool = False,
    flip_y: bool = False,
) -> np.ndarray:
    """Matrix `(4, 4)` that rotates about z (radians, counter-clockwise), scales, moves and then mirrors a scene.

    Args:
        rotation (`float`): Angle.
        scale (`float`): Factor of all lengths.
        translation (`Sequence[float]`): In meters, along x, y and z.
        flip_x (`bool`): Whether x changes its sign.
        flip_y (`bool`): Whether y changes its sign.
    """
    cosine, sine = np.cos(rotation), np.sin(rotation)
    matrix = np.eye(4)
    matrix[:3, :3] = scale * np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
    matrix[:3, 3] = translation
    return np.diag([-1.0 if flip_x else 1.0, -1.0 if flip_y else 1.0, 1.0, 1.0]) @ matrix


def transform_scene(frame: Mapping[str, Any], matrix: np.ndarray) -> dict[str, Any]:
    """A frame whose scene is moved by a matrix of [`build_scene_transform`].

    Boxes are scaled with the scene and turn with it, velocities too.

    Args:
        frame (`Mapping[str, Any]`): With `points` (None if they are missing), `boxes` and `lidar2img` `(num_cameras,
            4, 4)`.
        matrix (`numpy.ndarray` of shape `(4, 4)`): The motion.
    """
    points, boxes = frame["points"], frame["boxes"].copy()
    linear = matrix[:3, :3]
    if points is not None:
        points = points.copy()
        points[:, :3] = points[:, :3] @ linear.T + matrix[:3, 3]
    heading = np.stack([np.cos(boxes[:, 6]), np.sin(boxes[:, 6])], axis=1) @ linear[:2, :2].T
    boxes[:, :3] = boxes[:, :3] @ linear.T + matrix[:3, 3]
    boxes[:, 3:6] *= np.cbrt(np.abs(np.linalg.det(linear)))
    boxes[:, 6] = np.arctan2(heading[:, 1], heading[:, 0])
    boxes[:, 7:9] = boxes[:, 7:9] @ linear[:2, :2].T
    return {**frame, "points": points, "boxes": boxes, "lidar2img": frame["lidar2img"] @ np.linalg.inv(matrix)}


def filter_range(frame: Mapping[str, Any], point_cloud_range: Sequence[float]) -> dict[str, Any]:
    """A frame without the points outside of a range, and without the boxes whose centers are outside of it in x or y.

    Args:
        frame (`Mapping[str, Any]`): With `points` (None if they are missing), `boxes` and what belongs to each box.
        point_cloud_range (`Sequence[float]`): x, y, z of the nearest and of the farthest corner, in meters.
    """
    low, high = np.array(point_cloud_range[:3]), np.array(point_cloud_range[3:])
    points, centers = frame["points"], frame["boxes"][:, :2]
    kept = select_boxes(frame, ((centers > low[:2]) & (centers < high[:2])).all(1))
    if points is not None:
        kept["points"] = points[((points[:, :3] > low) & (points[:, :3] < high)).all(1)]
    kept["boxes"][:, 6] = wrap_angle(kept["boxes"][:, 6])
    return kept


def select_boxes(frame: Mapping[str, Any], is_kept: np.ndarray) -> dict[str, Any]:
    """A frame with some of its boxes and what belongs to them."""
    indices = np.flatnonzero(is_kept)
    kept = {**frame, "boxes": frame["boxes"][indices], "labels": frame["labels"][indices]}
    for name in ("num_points", "attributes"):
        if frame.get(name) is not None:
            kept[name] = [frame[name][index] for index in indices]
    return kept


def fill_velocities(boxes: np.ndarray, token: str | None = None) -> np.ndarray:
    """Boxes `(num_boxes, 9)` whose unknown velocities, which are NaN, are 0.

    Raises:
        ValueError: If anything else is not finite.
    """
    is_wrong = ~np.isfinite(boxes[:, :7]).all(1) | np.isinf(boxes[:, 7:]).any(1)
    if is_wrong.any():
        first = int(np.flatnonzero(is_wrong)[0])
        raise ValueError(
            f"`boxes` must be finite, but for velocities, which may be NaN; got {boxes[first].tolist()} for box "
            f"{first} of frame {token!r}."
        )
    return np.nan_to_num(boxes)


def drop_empty_boxes(frame: Mapping[str, Any], min_points: int) -> dict[str, Any]:
    """A frame without the boxes that hold fewer than `min_points` points; those with an unknown number stay."""
    counts = frame.get("num_points")
    if counts is None:
        return dict(frame)
    return select_boxes(frame, np.array([count is None or count >= min_points for count in counts], dtype=bool))


@dataclass
class TrainTransform:
    """One row to a random example: see [`build_train_transform`]."""

    processor: Any
    point_cloud_range: Sequence[float]
    rotation: float
    scale_range: Sequence[float]
    translation_std: float
    flip_prob: float
    resize_range: Sequence[float]
    image_flip_prob: float
    grid_mask_prob: float
    camera_mask_prob: float
    lidar_mask_prob: float
    min_points: int
    sampler: ObjectSampler | None = None

    def __call__(self, row: Mapping[str, Any], *, paste_objects: bool = True) -> dict[str, Any]:
        frame = decode_row(row)
        frame = drop_empty_boxes({**frame, "lidar2img": compute_lidar2img(frame)}, self.min_points)
        frame["boxes"] = fill_velocities(frame["boxes"], frame["token"])
        if paste_objects and self.sampler is not None:
            frame = self.sampler(frame)
        modality_mask = self._draw_modality_mask()
        frame = filter_range(transform_scene(frame, self._draw_scene_transform()), self.point_cloud_range)
        if frame["points"] is not None:
            frame["points"] = np.random.permutation(frame["points"])
        example = process_frame(frame, self.processor, **self._draw_image_options(frame), training=True)
        if "pixel_values" in example:
            example["pixel_values"] = apply_grid_mask(example["pixel_values"], probability=self.grid_mask_prob)
        if modality_mask is not None:
            is_single = not frame["images"] or frame["points"] is None  # it keeps its sensor
            example["modality_mask"] = torch.tensor([True, True]) if is_single else modality_mask
        return example

    def _draw_scene_transform(self) -> np.ndarray:
        return build_scene_transform(
            np.random.uniform(-self.rotation, self.rotation),
            np.random.uniform(self.scale_range[0], self.scale_range[1]),
            (self.translation_std * np.random.standard_normal(3)).tolist(),
            flip_x=np.random.random() < self.flip_prob,
            flip_y=np.random.random() < self.flip_prob,
        )

    def _draw_modality_mask(self) -> torch.Tensor | None:
        """Whether the cameras and the LiDAR of this frame work; one of them always does."""
        if not self.camera_mask_prob and not self.lidar_mask_prob:
            return None
        draw = np.random.random()
        no_camera = draw >= 1 - self.camera_mask_prob
        no_lidar = not no_camera and draw >= 1 - self.camera_mask_prob - self.lidar_mask_prob
        return torch.tensor([not no_camera, not no_lidar])

    def _draw_image_options(self, frame: Mapping[str, Any]) -> dict[str, Any]:
        if self.processor.modality == "lidar" or not frame["images"]:
            return {}
        size = self.processor.image_processor.size
        sizes = [tuple(image.shape[-2:]) for image in frame["images"]]
        transforms = sample_image_transforms(
            sizes,
            (size["height"], size["width"]),
            resize_range=(self.resize_range[0], self.resize_range[1]),
            flip_probability=self.image_flip_prob,
        )
        return {"image_transforms": transforms}


def compute_lidar2img(frame: Mapping[str, Any]) -> np.ndarray:
    """Projections `(num_cameras, 4, 4)` of a decoded row."""
    projections = np.tile(np.eye(4), (len(frame["intrinsics"]), 1, 1))
    projections[:, :3, :3] = frame["intrinsics"]
    return projections @ frame["lidar2cam"]


class AugmentedFrames(SeededTransform):
    """[`~decahub.data.SeededTransform`] that pastes no objects from some epoch on.

    Args:
        dataset: Anything with `len()` and integer indexing.
        transform ([`TrainTransform`]): Makes the examples.
        seed (`int`): The run's seed.
        fade_epoch (`int`, *optional*): First epoch without pasted objects, counted from 0; by default there is none.
    """

    def __init__(self, dataset: Any, transform: TrainTransform, seed: int = 0, fade_epoch: int | None = None):
        super().__init__(dataset, self._transform, seed)
        self.train_transform, self.fade_epoch = transform, fade_epoch

    def _transform(self, row: Mapping[str, Any]) -> dict[str, Any]:
        return self.train_transform(row, paste_objects=self.fade_epoch is None or self.epoch < self.fade_epoch)


def build_train_transform(
    processor: Any,
    *,
    point_cloud_range: Sequence[float] | None = None,
    rotation: float = np.pi / 4,
    scale_range: Sequence[float] = (0.9, 1.1),
    translation_std: float = 0.5,
    flip_prob: float = 0.5,
    resize_range: Sequence[float] = RESIZE_RANGE,
    image_flip_prob: float = 0.5,
    grid_mask_prob: float = 0.7,
    camera_mask_prob: float = MASKED_SHARE,
    lidar_mask_prob: float = MASKED_SHARE,
    min_points: int = 1,
    sampler: ObjectSampler | None = None,
) -> TrainTransform:
    """Random transform of a row, in the order of CMT's recipe for cameras and LiDAR.

    Objects are pasted, sensors are masked, the scene is rotated, scaled, moved and mirrored, what is out of range is
    dropped, points are shuffled, and images are resized, cropped, mirrored and put behind a grid. CMT for cameras
    alone is published with `rotation=0.3925`, `scale_range=(0.95, 1.05)`, `translation_std=0` and `flip_prob=0`.

    Args:
        processor ([`CmtProcessor`]): Of the model. A model with one sensor has none masked.
        point_cloud_range (`Sequence[float]`, *optional*): x, y, z of the nearest and of the farthest corner in meters;
            by default that of the feature extractor.
        rotation (`float`): Largest angle about z, in radians.
        scale_range (`Sequence[float]`): Smallest and largest factor.
        translation_std (`float`): Standard deviation of the motion along each axis, in meters.
        flip_prob (`float`): Probability that x changes its sign; the same for y.
        resize_range (`Sequence[float]`): Smallest and largest factor of the image size, relative to evaluation.
        image_flip_prob (`float`): Probability that the images are mirrored.
        grid_mask_prob (`float`): Probability of a grid over the images.
        camera_mask_prob (`float`): Share of the frames whose cameras are masked (masked-modal training).
        lidar_mask_prob (`float`): Share of the frames whose LiDAR is masked.
        min_points (`int`): Boxes that hold fewer LiDAR and radar points are left out.
        sampler ([`ObjectSampler`], *optional*): Pastes objects of other frames.

    Returns:
        `TrainTransform`: maps a row to what `collate` takes.
    """
    probabilities = {
        "flip_prob": flip_prob,
        "image_flip_prob": image_flip_prob,
        "grid_mask_prob": grid_mask_prob,
        "camera_mask_prob": camera_mask_prob,
        "lidar_mask_prob": lidar_mask_prob,
    }
    for name, value in probabilities.items():
        check_probability(name, value)
    total = camera_mask_prob + lidar_mask_prob
    if total > 1:
        raise ValueError(f"`camera_mask_prob` and `lidar_mask_prob` must sum to at most 1; got {total}.")
    check_bounds("scale_range", scale_range)
    check_bounds("resize_range", resize_range)
    if rotation < 0 or translation_std < 0 or min_points < 0:
        raise ValueError(
            "`rotation`, `translation_std` and `min_points` must not be negative; got "
            f"{rotation}, {translation_std} and {min_points}."
        )
    has_both = processor.modality == "fusion"
    return TrainTransform(
        processor,
        processor.feature_extractor.point_cloud_range if point_cloud_range is None else point_cloud_range,
        rotation,
        scale_range,
        translation_std,
        flip_prob,
        resize_range,
        image_flip_prob,
        grid_mask_prob,
        camera_mask_prob if has_both else 0.0,
        lidar_mask_prob if has_both else 0.0,
        min_points,
        sampler,
    )


__all__ = [
    "AugmentedFrames",
    "TrainTransform",
    "build_scene_transform",
    "build_train_transform",
    "drop_empty_boxes",
    "filter_range",
    "select_boxes",
    "transform_scene",
]
