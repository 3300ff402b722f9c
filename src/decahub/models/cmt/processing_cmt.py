"""The processor of CMT.

Images, calibration, points and boxes of frames -> inputs of the model; its outputs -> boxes in meters.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from transformers.feature_extraction_utils import BatchFeature
from transformers.processing_utils import ProcessingKwargs, ProcessorMixin, Unpack

from ..shared.checks import refuse_unknown
from .boxes.coder import CENTER_SLOTS, select_detections
from .boxes.geometry import move_to_bottom, transform_boxes
from .boxes.ground_truth import read_ground_truth
from .boxes.nuscenes_results import CLASS_RANGES, to_nuscenes_boxes
from .camera.frame_calibration import CALIBRATION_NAMES, name_cameras, read_lidar2img, read_pose
from .configuration_cmt import NUSCENES_CLASSES, CmtConfig, check_bounds, check_tasks
from .feature_extraction_cmt import CmtPointCloudFeatureExtractor
from .image_processing_cmt import CmtImageProcessor, CmtImageProcessorKwargs, is_batch, split_frames


FRAMES = ("lidar", "ego")
POST_CENTER_RANGE = (-61.2, -61.2, -10.0, 61.2, 61.2, 10.0)


class CmtProcessorKwargs(ProcessingKwargs, total=False):
    """Keywords of a call.

    Args:
        images_kwargs (`CmtImageProcessorKwargs`): options of the image processor.
        training (`bool`, *optional*, defaults to `False`): whether the limit of voxels is that of training.
    """

    images_kwargs: CmtImageProcessorKwargs
    training: bool


class CmtProcessor(ProcessorMixin):
    r"""Prepares frames for [`CmtForObjectDetection3D`] and reads boxes off its outputs.

    Make it with [`CmtProcessor.from_config`], so that classes and slots are those of the model.

    Args:
        image_processor ([`CmtImageProcessor`]): For the cameras.
        feature_extractor ([`CmtPointCloudFeatureExtractor`]): For the points.
        modality (`str`, defaults to `"fusion"`): Sensors of the model: `"fusion"`, `"camera"` or `"lidar"`.
        tasks (`list[list[str]]`, *optional*): Classes by the head that predicts them; by default one head has all
            classes of nuScenes. Class ids number them in this order.
        box_slot_order (`str`, defaults to `"official"`): How coded boxes are read, as in [`CmtConfig`].
        max_detections (`int`, defaults to 300): Boxes that are kept of a frame.
        post_center_range (`list[float]`, *optional*): Nearest and farthest corner of where centers may lie; by default
            61.2 m around the LiDAR and 10 m above and below.

    Raises:
        ValueError: If a setting is outside its range.
    """

    valid_processor_kwargs = CmtProcessorKwargs

    def __init__(
        self,
        image_processor: Any,
        feature_extractor: Any,
        modality: Literal["fusion", "camera", "lidar"] = "fusion",
        tasks: Sequence[Sequence[str]] | None = None,
        box_slot_order: Literal["official", "natural"] = "official",
        max_detections: int = 300,
        post_center_range: Sequence[float] | None = None,
    ):
        super().__init__(image_processor, feature_extractor)
        if modality not in ("fusion", "camera", "lidar"):
            raise ValueError(f"`modality` must be 'fusion', 'camera' or 'lidar'; got {modality!r}.")
        if box_slot_order not in CENTER_SLOTS:
            raise ValueError(f"`box_slot_order` must be one of {tuple(CENTER_SLOTS)}; got {box_slot_order!r}.")
        _check_count(max_detections)
        check_bounds("post_center_range", POST_CENTER_RANGE if post_center_range is None else post_center_range)
        self.modality = modality
        self.tasks = [list(task) for task in tasks] if tasks is not None else [list(NUSCENES_CLASSES)]
        self.box_slot_order = box_slot_order
        self.max_detections = max_detections
        check_tasks(self.tasks)
        self.post_center_range = list(POST_CENTER_RANGE if post_center_range is None else post_center_range)

    @classmethod
    def from_config(
        cls, config: CmtConfig, image_processor: Any | None = None, feature_extractor: Any | None = None
    ) -> "CmtProcessor":
        """The processor of a model.

        Args:
            config ([`CmtConfig`]): Of the model.
            image_processor ([`CmtImageProcessor`], *optional*): With the image size that the model is used at; by
                default 320 x 800 pixels.
            feature_extractor ([`CmtPointCloudFeatureExtractor`], *optional*): By default with the voxels of the model.
        """
        if feature_extractor is None:
            lidar = config.lidar_backbone_config
            grid = {} if lidar is None else {"voxel_size": lidar.voxel_size, "sparse_shape": lidar.sparse_shape}
            feature_extractor = CmtPointCloudFeatureExtractor(point_cloud_range=config.point_cloud_range, **grid)
        tasks = config.tasks
        if tasks is None:  # one head has all classes
            tasks = [[config.id2label[index] for index in range(config.num_labels)]]
        return cls(
            CmtImageProcessor() if image_processor is None else image_processor,
            feature_extractor,
            modality=config.modality,
            tasks=tasks,
            box_slot_order=config.box_slot_order,
            max_detections=config.max_detections,
            post_center_range=config.post_center_range,
        )

    @property
    def class_names(self) -> list[str]:
        """Name of each class id."""
        return [name for task in self.tasks for name in task]

    @property
    def model_input_names(self) -> list[str]:
        """Inputs of the model, without labels."""
        parts = {"camera": [self.image_processor], "lidar": [self.feature_extractor]}
        chosen = parts.get(self.modality, [self.image_processor, self.feature_extractor])
        return [name for part in chosen for name in part.model_input_names]

    def __call__(
        self,
        images: Any | None = None,
        points: Any | None = None,
        intrinsics: Any | None = None,
        lidar2cam: Any | None = None,
        lidar2img: Any | None = None,
        cam2ego: Any | None = None,
        lidar2ego: Any | None = None,
        ego2global: Any | None = None,
        camera_ego2global: Any | None = None,
        cameras: Any | None = None,
        boxes: Any | None = None,
        class_labels: Any | None = None,
        image_transforms: Any | None = None,
        **kwargs: Unpack[CmtProcessorKwargs],
    ) -> BatchFeature:
        """Prepares one frame, or several.

        For several frames every argument is a list with one entry for each of them. Images or points may be left out;
        so may any camera, together with its calibration. The frames of a batch have the same number of cameras.

        Calibration is given in one of these ways: `lidar2img`; or `intrinsics` and `lidar2cam`; or `intrinsics`,
        `cam2ego` and `lidar2ego`, to which `ego2global` (at the time of the points) and `camera_ego2global` (at the
        time of each image) may be added. All but the first two are rigid transforms of homogeneous points.

        Args:
            images: images of the cameras, see [`CmtImageProcessor`].
            points (array of shape `(num_points, 5)`): x, y, z (m, LiDAR frame), intensity (0 to 255), time lag (s);
                see [`CmtPointCloudFeatureExtractor`].
            intrinsics (array of shape `(num_cameras, 3, 3)`): camera matrices for pixels of the images as given.
            lidar2cam (array of shape `(num_cameras, 4, 4)`): poses.
            lidar2img (array of shape `(num_cameras, 4, 4)`): projections; they may hold a scaled or mirrored scene.
            cam2ego (array of shape `(num_cameras, 4, 4)`): mounting of the cameras.
            lidar2ego (array of shape `(4, 4)`): mounting of the LiDAR.
            ego2global (array of shape `(4, 4)`): pose of the vehicle.
            camera_ego2global (array of shape `(num_cameras, 4, 4)`): pose of the vehicle at the time of each image.
            cameras (`list[str]`): names of the cameras, for messages and checks.
            boxes (array of shape `(num_boxes, 9)`): ground truth: center (m), length, width, height (m), yaw (rad,
                counter-clockwise from +x), velocity (m/s, NaN if unknown), LiDAR frame. There may be none.
            class_labels (array of shape `(num_boxes,)`): class ids of the boxes.
            image_transforms: a transform for each camera instead of that of evaluation, see [`CmtImageProcessor`].
            kwargs: options of the image processor for this call, `training`, whether the limit of voxels is that of
                training, and `return_tensors`.

        Returns:
            [`~transformers.BatchFeature`] with `pixel_values` and `lidar2img` of the cameras, `voxels`,
            `num_points_per_voxel`, `voxel_coords` and `num_voxels` of the points, and `labels`, a list of dictionaries
            with `boxes` and `class_labels`, as far as they are given.

        Raises:
            ValueError: If neither images nor points are given, or an input does not fit the others or the model.
        """
        self._check_sensors(images, points)
        allowed = [*self.image_processor.valid_kwargs.__annotations__, *CmtProcessorKwargs.__annotations__]
        refuse_unknown(kwargs, allowed, "an option of CmtProcessor")
        merged = self._merge_kwargs(CmtProcessorKwargs, **kwargs)
        options = merged["images_kwargs"]
        return_tensors = options.get("return_tensors")
        is_many = _is_many(images, points)
        num_frames = _count_frames(images, points, is_many)
        matrices = (intrinsics, lidar2cam, lidar2img, cam2ego, lidar2ego, ego2global, camera_ego2global)
        calibration = dict(zip(CALIBRATION_NAMES, matrices, strict=True))
        data: dict[str, Any] = {}
        if images is not None:
            lidar2img = _read_projections(images, calibration, cameras, num_frames, is_many)
            data.update(self.image_processor(images, lidar2img, image_transforms, **options))
        else:
            of_images = {**calibration, "image_transforms": image_transforms}
            unused = [name for name, value in of_images.items() if value is not None]
            if unused:
                raise ValueError(f"`{unused[0]}` must be given together with `images`; there are none.")
        if points is not None:
            clouds = list(points) if is_many else [points]
            data.update(self.feature_extractor(clouds, return_tensors, training=merged.get("training", False)))
        encoded = BatchFeature(data=data, tensor_type=return_tensors)
        if boxes is not None or class_labels is not None:
            encoded["labels"] = self._read_labels(boxes, class_labels, num_frames, is_many)
        return encoded

    def _check_sensors(self, images: Any | None, points: Any | None) -> None:
        if images is None and points is None:
            raise ValueError("`images` or `points` must be given; got neither.")
        for name, value, wrong in (("images", images, "lidar"), ("points", points, "camera")):
            if value is not None and self.modality == wrong:
                raise ValueError(
                    f"`{name}` must not be given to the processor of a model of `modality={wrong!r}`, which has no "
                    "such sensor."
                )

    def _read_labels(
        self, boxes: Any | None, class_labels: Any | None, num_frames: int, is_many: bool
    ) -> list[dict[str, torch.Tensor]]:
        if boxes is None or class_labels is None:
            missing = "boxes" if boxes is None else "class_labels"
            raise ValueError(f"`{missing}` must be given too: `boxes` and `class_labels` belong together.")
        split_boxes = _split(boxes, "boxes", num_frames, is_many)
        split_classes = _split(class_labels, "class_labels", num_frames, is_many)
        return [
            read_ground_truth(frame_boxes, classes, frame, len(self.class_names))
            for frame, (frame_boxes, classes) in enumerate(zip(split_boxes, split_classes, strict=True))
        ]

    def post_process_object_detection_3d(
        self,
        outputs: Any,
        threshold: float | None = None,
        bottom_center: bool = False,
        frame: Literal["lidar", "ego"] = "lidar",
        lidar2ego: Any | None = None,
        max_detections: int | None = None,
    ) -> list[dict[str, torch.Tensor]]:
        """Boxes in meters, the best first; overlaps are not suppressed, since each query is a box of its own.

        Args:
            outputs: of the model, with `logits` and `pred_boxes`; the last layer is read.
            threshold (`float`, *optional*): only boxes with a higher score; by default all are kept.
            bottom_center (`bool`): whether z is that of the bottom face, as in mmdetection3d, and not of the center.
            frame (`str`): `"lidar"` or `"ego"`, the vehicle.
            lidar2ego (array of shape `(4, 4)`, or a list with one for each sample, *optional*): mounting of the LiDAR,
                for `frame="ego"`.
            max_detections (`int`, *optional*): boxes to keep instead of those of the processor.

        Returns:
            `list[dict]`: for each sample `boxes` of shape `(num_boxes, 9)` (center, length, width, height, yaw,
            velocity), `scores` of shape `(num_boxes,)` in [0, 1], and `labels` of shape `(num_boxes,)`, ids of
            `class_names`.

        Raises:
            ValueError: If the outputs are those of a model with other classes, or an argument is out of range.
        """
        logits, pred_boxes = outputs.logits[-1], outputs.pred_boxes[-1]
        num_queries, num_labels = logits.shape[1:]
        if num_labels != len(self.class_names) or pred_boxes.shape[1] != num_queries * len(self.tasks):
            raise ValueError(
                f"`outputs` must be those of a model with the classes of this processor, {self.tasks}; got logits of "
                f"shape {tuple(logits.shape)} and boxes of shape {tuple(pred_boxes.shape)}. Make the processor by "
                "`CmtProcessor.from_config`."
            )
        if threshold is not None and not 0 <= threshold <= 1:
            raise ValueError(f"`threshold` must be in [0, 1], as scores are; got {threshold}.")
        if max_detections is not None:
            _check_count(max_detections)
        if frame not in FRAMES:
            raise ValueError(f"`frame` must be one of {FRAMES}; got {frame!r}.")
        if (frame == "ego") != (lidar2ego is not None):
            raise ValueError(f"`lidar2ego` must be given for `frame='ego'` and only then; got `frame={frame!r}`.")
        detections = select_detections(
            logits,
            pred_boxes,
            task_sizes=[len(task) for task in self.tasks],
            slot_order=self.box_slot_order,
            max_detections=self.max_detections if max_detections is None else max_detections,
            post_center_range=self.post_center_range,
            threshold=threshold,
        )
        poses = None if lidar2ego is None else _read_pose_of_each(lidar2ego, "lidar2ego", len(detections))
        results = []
        for index, detection in enumerate(detections):
            boxes = detection.boxes
            if poses is not None:
                boxes = transform_boxes(boxes.double(), poses[index]).to(boxes.dtype)
            boxes = move_to_bottom(boxes) if bottom_center else boxes
            results.append({"boxes": boxes, "scores": detection.scores, "labels": detection.labels})
        return results

    def to_nuscenes_results(
        self,
        detections: Sequence[dict[str, torch.Tensor]],
        tokens: Sequence[str],
        lidar2ego: Any,
        ego2global: Any,
    ) -> dict[str, Any]:
        """Detections in the form that the nuScenes benchmark takes, ready for `json.dump`.

        Args:
            detections (`Sequence[dict]`): what [`~CmtProcessor.post_process_object_detection_3d`] gives, in the LiDAR
                frame with gravity centers.
            tokens (`Sequence[str]`): token of each sample.
            lidar2ego (array of shape `(4, 4)`, or a list with one for each sample): mounting of the LiDAR.
            ego2global (array of shape `(4, 4)`, or a list with one for each sample): pose of the vehicle.

        Returns:
            `dict`: `meta`, which sensors were used, and `results`, by token a list of boxes in the global frame, see
            [`~decahub.models.cmt.boxes.nuscenes_results.to_nuscenes_boxes`].

        Raises:
            ValueError: If a class is not one of nuScenes, a token is given twice, or numbers of samples differ.
        """
        unknown = [name for name in self.class_names if name not in CLASS_RANGES]
        if unknown:
            raise ValueError(f"`tasks` must hold classes of nuScenes for its results; got {unknown[0]!r}.")
        if len(tokens) != len(detections) or len(set(tokens)) != len(tokens):
            raise ValueError(
                f"`tokens` must hold a different token for each of {len(detections)} samples; got {list(tokens)}."
            )
        mountings = _read_pose_of_each(lidar2ego, "lidar2ego", len(detections))
        vehicles = _read_pose_of_each(ego2global, "ego2global", len(detections))
        names = self.class_names
        results = {}
        for detection, token, mounting, vehicle in zip(detections, tokens, mountings, vehicles, strict=True):
            classes = [names[label] for label in detection["labels"].tolist()]
            results[token] = to_nuscenes_boxes(
                detection["boxes"], detection["scores"], classes, token, mounting, vehicle
            )
        meta = {
            "use_camera": self.modality != "lidar",
            "use_lidar": self.modality != "camera",
            "use_radar": False,
            "use_map": False,
            "use_external": False,
        }
        return {"meta": meta, "results": results}


def _check_count(max_detections: Any) -> None:
    if isinstance(max_detections, bool) or not isinstance(max_detections, int) or max_detections < 1:
        raise ValueError(f"`max_detections` must be at least 1, a whole number; got {max_detections!r}.")


def _count_dims(value: Any) -> int:
    """How deep lists and arrays are nested, by their first entries."""
    if hasattr(value, "ndim"):
        return value.ndim
    if isinstance(value, (list, tuple)):
        return 1 + (_count_dims(value[0]) if value else 0)
    return 0


def _is_many(images: Any | None, points: Any | None) -> bool:
    """Whether several frames are given."""
    many = {}
    if images is not None:
        many["images"] = is_batch(images)
    if points is not None:
        many["points"] = _is_many_clouds(points)
    if len(set(many.values())) > 1:
        raise ValueError(
            "`images` and `points` must both be those of one frame, or lists of several frames; got "
            + " and ".join(f"{'several' if value else 'one'} for `{name}`" for name, value in many.items())
            + "."
        )
    return any(many.values())


def _is_many_clouds(points: Any) -> bool:
    """Whether points are a cloud for each of several frames, of which any may be empty.

    Raises:
        ValueError: If the cloud of a frame is missing.
    """
    if not isinstance(points, (list, tuple)):
        return _count_dims(points) == 3  # frames, points, values
    missing = [index for index, cloud in enumerate(points) if cloud is None]
    if missing:
        raise ValueError(
            f"`points` must hold a cloud for each frame; that of frame {missing[0]} is missing. Prepare frames with "
            "different sensors one by one, or give an empty cloud and tell the model by `modality_mask`."
        )
    is_empty = [_count_dims(cloud) == 1 and len(cloud) == 0 for cloud in points]
    return any(_count_dims(cloud) == 2 for cloud in points) or (bool(points) and all(is_empty))


def _count_frames(images: Any | None, points: Any | None, is_many: bool) -> int:
    if not is_many:
        return 1
    counts = {len(value) for value in (images, points) if value is not None}
    if len(counts) > 1:
        raise ValueError(f"`points` must hold a cloud for each of {len(images)} frames; got {len(points)}.")
    return counts.pop()


def _read_projections(
    images: Any, calibration: dict[str, Any], cameras: Any | None, num_frames: int, is_many: bool
) -> torch.Tensor:
    """Projections to the images as given, `(num_frames, num_cameras, 4, 4)`."""
    matrices = {name: _split(value, name, num_frames, is_many) for name, value in calibration.items()}
    names = _split(cameras, "cameras", num_frames, is_many)
    projections = []
    for index, frame in enumerate(split_frames(images)):
        labels = name_cameras(names[index], len(frame))
        projections.append(read_lidar2img({name: values[index] for name, values in matrices.items()}, labels))
    return torch.stack(projections)


def _split(value: Any | None, name: str, num_frames: int, is_many: bool) -> list[Any]:
    """An argument by frame."""
    if value is None:
        return [None] * num_frames
    if not is_many:
        return [value]
    if len(value) != num_frames:
        raise ValueError(f"`{name}` must hold an entry for each of {num_frames} frames; got {len(value)}.")
    return list(value)


def _read_pose_of_each(value: Any, name: str, num_samples: int) -> list[torch.Tensor]:
    if _count_dims(value) == 2:
        return [read_pose(value, name)] * num_samples
    return [read_pose(pose, name) for pose in _split(value, name, num_samples, True)]


__all__ = ["CmtProcessor"]
