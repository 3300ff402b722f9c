"""Pipeline "object-detection-3d": a frame of cameras and LiDAR in, boxes with class, heading and velocity out."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Pipeline


CAMERA_KEYS = ("images", "cameras", "intrinsics", "lidar2cam", "lidar2img", "cam2ego", "camera_ego2global")
POSES = ("lidar2ego", "ego2global")
# What a row of a dataset has beside its sensors. Boxes are drawn on request, nothing else is used.
ANNOTATION_KEYS = ("boxes", "labels", "classes", "num_points", "attributes", "bike_racks", "token")
KNOWN_KEYS = (*CAMERA_KEYS, "points", *POSES, *ANNOTATION_KEYS)
BOX_FIELDS = ("x", "y", "z", "length", "width", "height", "yaw")
FRAMES = ("lidar", "ego")
UNUSED_KEYS = {"camera": ("points",), "lidar": CAMERA_KEYS}  # sensors that a model of one kind does not have
LIDAR, CAMERAS = "lidar", "cameras"  # what `missing` calls all of a kind
FEW = 20  # names in a message
NUM_POINT_VALUES = 5


class ObjectDetection3DPipeline(Pipeline):
    """Finds 3D boxes in a frame of cameras and LiDAR, with any of the sensors missing.

    One input is a frame: the path of its table in JSON ([`decahub.models.cmt.frame_files`] describes it), a row of a
    dataset of the family `object-detection-3d`, or a dict with

    - `images`: for each camera an image (path, PIL, array), or None for one that failed; may be left out,
    - `intrinsics` (3, 3) and `lidar2cam` (4, 4) of each camera, or `lidar2img` (4, 4) instead of both, or `cam2ego`
      and the frame's `lidar2ego`,
    - `points`: (num_points, 5) with x, y, z in meters, intensity in [0, 255] and time lag in seconds, an array or the
      path of a `.npy` or `.bin` file; may be left out,
    - perhaps `cameras`, the names of the cameras, `lidar2ego` and `ego2global`.

    A list of frames is answered one by one.

    Args of a call:
        threshold (`float`, defaults to 0): Lowest score of a box.
        top_k (`int`, *optional*): Most boxes, those of the highest scores; by default all.
        frame (`str`, defaults to `"lidar"`): Axes of the boxes, `"lidar"` or `"ego"`; the latter needs `lidar2ego`.
        missing (`Sequence[str]`, *optional*): Sensors that do not work: `"lidar"`, `"cameras"`, or names of cameras.
            A camera by its name is left out. All cameras or the LiDAR are shown as zeros if the model was trained so
            (`missing_modality="zero"`), and left out otherwise; so is a LiDAR that the frame does not have.
        draw (`bool`, defaults to `False`): Whether to draw the boxes on the images and from above, too.
        draw_annotations (`bool`, defaults to `False`): Whether the drawing shows the `boxes` of the frame as well.

    Returns for each input:
        `list[dict]`, the highest score first: `label` (`str`), `score` (`float`), `box` (`dict` of `x`, `y`, `z` of
        the center, `length`, `width`, `height` in meters, `yaw` in radians counter-clockwise from the x axis), and
        `velocity` (vx, vy in m/s). With `draw` a `dict`: this list as `boxes`, the drawing as `png` (`bytes`).

    Example:
    ```python
    >>> from transformers import pipeline
    >>> detect = pipeline("object-detection-3d", model="model_cards/cmt-small-driving-scenes")
    >>> detect("frames/sample.json", threshold=0.3)
    [{'label': 'car', 'score': 0.91, 'box': {'x': 4.1, 'y': 17.3, ...}, 'velocity': [0.1, 7.9]}, ...]
    ```
    """

    _load_processor = True
    _load_tokenizer = _load_feature_extractor = _load_image_processor = False

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:
        batch_size = kwargs.get("batch_size") or self._batch_size or 1
        if batch_size > 1:
            raise ValueError(
                f"`batch_size` must be 1 for frames, whose sensors may differ; got {batch_size}. For batches use the "
                "processor and the model."
            )
        if isinstance(inputs, list) and not inputs:
            raise ValueError("`inputs` must hold at least one frame; got an empty list.")
        return super().__call__(os.fspath(inputs) if isinstance(inputs, os.PathLike) else inputs, **kwargs)

    def _sanitize_parameters(
        self,
        threshold: float | None = None,
        top_k: int | None = None,
        frame: str | None = None,
        missing: Sequence[str] | None = None,
        draw: bool | None = None,
        draw_annotations: bool | None = None,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if threshold is not None and not 0 <= threshold <= 1:
            raise ValueError(f"`threshold` must be in [0, 1]; got {threshold}.")
        if top_k is not None and (isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1):
            raise ValueError(f"`top_k` must be a whole number of at least 1, or None; got {top_k!r}.")
        if frame is not None and frame not in FRAMES:
            raise ValueError(f"`frame` must be one of {', '.join(FRAMES)}; got {frame!r}.")
        if isinstance(missing, str):
            raise TypeError(f"`missing` must be a list of sensors; got {missing!r}. Write `missing=[{missing!r}]`.")
        preprocess = {"missing": missing}
        postprocess = {
            "threshold": threshold,
            "top_k": top_k,
            "frame": frame,
            "draw": draw,
            "draw_annotations": draw_annotations,
        }
        return _drop_unset(preprocess), {}, _drop_unset(postprocess)

    def preprocess(self, inputs: Any, missing: Sequence[str] = ()) -> dict[str, Any]:
        whole = read_frame(inputs)
        frame = leave_out(whole, missing)
        has_images, has_points = frame.get("images") is not None, frame.get("points") is not None
        unused = UNUSED_KEYS.get(self.processor.modality, ())
        if not has_sensor(frame, unused):
            if has_sensor(whole, unused):
                raise ValueError(f"`missing` must leave a sensor that the model takes; got {list(missing)}.")
            sensors = [name for name, has in (("images", has_images), ("points", has_points)) if has]
            raise ValueError(
                "`inputs` must hold `images` or `points`, whichever the model takes; got "
                f"{' and '.join(sensors) or 'neither'}."
            )
        shown = frame
        is_masked = not unused and not (has_images and has_points) and self.model.config.missing_modality == "zero"
        if is_masked:  # a missing sensor is shown as in training
            shown = {**frame, **{name: whole[name] for name in CAMERA_KEYS if whole.get(name) is not None}}
            shown["points"] = frame["points"] if has_points else np.zeros((0, NUM_POINT_VALUES), dtype=np.float32)
        batch = self.processor(**select_inputs(shown, unused), return_tensors="pt")
        if is_masked:
            batch["modality_mask"] = torch.tensor([[has_images, has_points]])
        return {"inputs": batch, "frame": frame}

    def _forward(self, prepared: dict[str, Any]) -> dict[str, Any]:
        from decahub.models.shared.modes import evaluation_mode

        inputs = {
            # Projections stay in float64 whatever the precision of the model.
            name: value.to(self.model.dtype) if value.is_floating_point() and name != "lidar2img" else value
            for name, value in prepared["inputs"].items()
        }
        with evaluation_mode(self.model):
            return {"outputs": self.model(**inputs), "frame": prepared["frame"]}

    def postprocess(
        self,
        answered: dict[str, Any],
        threshold: float = 0.0,
        top_k: int | None = None,
        frame: str = "lidar",
        draw: bool = False,
        draw_annotations: bool = False,
    ) -> Any:
        outputs, given = answered["outputs"], answered["frame"]
        found = self._select(outputs, threshold, top_k)
        boxes = found["boxes"]
        if frame == "ego":
            if given.get("lidar2ego") is None:
                raise ValueError("`lidar2ego` must be in the input for `frame='ego'`; it is missing.")
            lidar2ego = np.asarray(given["lidar2ego"], dtype=np.float64)
            boxes = self._select(outputs, threshold, top_k, frame="ego", lidar2ego=[lidar2ego])["boxes"]
        names = self.model.config.id2label
        rows = zip(found["labels"].tolist(), found["scores"].tolist(), boxes.tolist(), strict=True)
        answers = [
            {
                "label": names[label],
                "score": score,
                "box": dict(zip(BOX_FIELDS, box[: len(BOX_FIELDS)], strict=True)),
                "velocity": box[len(BOX_FIELDS) :],
            }
            for label, score, box in rows
        ]
        return {"boxes": answers, "png": self._draw(found, given, draw_annotations)} if draw else answers

    def _select(self, outputs: Any, threshold: float, top_k: int | None, **options: Any) -> dict[str, torch.Tensor]:
        """The best boxes of the one frame in `outputs`."""
        found = self.processor.post_process_object_detection_3d(outputs, threshold=threshold, **options)[0]
        return {name: values[:top_k] for name, values in found.items()}

    def _draw(self, found: dict[str, torch.Tensor], frame: dict[str, Any], with_annotations: bool) -> bytes:
        from decahub.models.cmt.boxes.geometry import find_forward_angle
        from decahub.models.cmt.drawing.sheet import draw_frame, encode_png

        annotations = frame.get("boxes")
        if with_annotations and annotations is None:
            raise ValueError("`boxes` must be in the input for `draw_annotations`; they are missing.")
        images = frame.get("images")
        sheet = draw_frame(
            found["boxes"].double().numpy(),
            found["labels"].tolist(),
            self.model.config.id2label,
            found["scores"].tolist(),
            images=None if images is None else [to_pillow(image) for image in images],
            lidar2img=None if images is None else compute_projections(frame),
            cameras=frame.get("cameras"),
            points=None if frame.get("points") is None else np.asarray(frame["points"]),
            annotations=annotations if with_annotations else None,
            forward_angle=find_forward_angle(frame.get("lidar2ego")),
        )
        return encode_png(sheet)


def has_sensor(frame: Mapping[str, Any], unused: Sequence[str]) -> bool:
    """Whether a frame has images or points that the model takes."""
    return any(frame.get(name) is not None for name in ("images", "points") if name not in unused)


def select_inputs(frame: Mapping[str, Any], unused: Sequence[str]) -> dict[str, Any]:
    """What the processor takes of a frame."""
    given = {
        name: value for name, value in frame.items() if value is not None and name not in (*ANNOTATION_KEYS, *unused)
    }
    if "images" not in given:
        return {"points": given["points"]}
    if "cam2ego" not in given:  # poses are for the answer only
        given = {name: value for name, value in given.items() if name not in POSES}
    return given


def read_frame(inputs: Any) -> dict[str, Any]:
    """A frame as a dict of `KNOWN_KEYS`, with None or nothing for sensors that are missing."""
    from decahub.models.cmt.frame_files import read_frame, read_points, read_sweeps

    if isinstance(inputs, str):
        path = Path(inputs)
        if not path.is_file():
            problem = "is a folder" if path.is_dir() else "does not exist"
            raise FileNotFoundError(f"`inputs` must be a frame or the path of its JSON table; {inputs!r} {problem}.")
        inputs = read_frame(path)
    if not isinstance(inputs, Mapping):
        raise TypeError(f"`inputs` must be a dict or the path of a JSON table; got {type(inputs).__name__}.")
    unknown = sorted(set(inputs) - set(KNOWN_KEYS))
    if unknown:
        raise ValueError(f"`inputs` must have keys of {', '.join(KNOWN_KEYS)}; got {unknown[0]!r}.")
    frame = dict(inputs)
    points = frame.get("points")
    if isinstance(points, str | os.PathLike):
        frame["points"] = read_points(Path(points))
    elif isinstance(points, list | tuple) and (not points or isinstance(points[0], Mapping)):
        frame["points"] = read_sweeps(points) if points else None
    return keep_working_cameras(frame)


def keep_working_cameras(frame: dict[str, Any]) -> dict[str, Any]:
    """A frame without the cameras whose image is None, and with names for all."""
    images = frame.get("images")
    if images is None or not len(images):
        return {**{name: value for name, value in frame.items() if name not in CAMERA_KEYS}, "images": None}
    for name in CAMERA_KEYS:
        if frame.get(name) is not None and len(frame[name]) != len(images):
            raise ValueError(
                f"`{name}` must have an entry for each of {len(images)} images; got {len(frame[name])}. A camera "
                "without an image has the image None."
            )
    if frame.get("cameras") is None:
        frame = {**frame, "cameras": [f"camera {index}" for index in range(len(images))]}
    return select_cameras(frame, [index for index, image in enumerate(images) if image is not None])


def select_cameras(frame: dict[str, Any], indices: Sequence[int]) -> dict[str, Any]:
    """A frame with some of its cameras."""
    if not indices:
        return {**{name: value for name, value in frame.items() if name not in CAMERA_KEYS}, "images": None}
    kept = {
        name: [frame[name][index] for index in indices] for name in CAMERA_KEYS if frame.get(name) is not None
    }  # fmt: skip
    return {**frame, **kept}


def leave_out(frame: dict[str, Any], missing: Sequence[str]) -> dict[str, Any]:
    """A frame without the sensors that are named."""
    cameras = list(frame.get("cameras") or ())
    unknown = [name for name in missing if name not in (LIDAR, CAMERAS, *cameras)]
    if unknown:
        raise ValueError(
            f"`missing` must name sensors of the frame: {', '.join([LIDAR, CAMERAS, *cameras][:FEW])}; got "
            f"{unknown[0]!r}."
        )
    if LIDAR in missing:
        frame = {**frame, "points": None}
    if not missing or not cameras:
        return frame
    is_kept = [CAMERAS not in missing and name not in missing for name in cameras]
    return select_cameras(frame, [index for index, kept in enumerate(is_kept) if kept])


def compute_projections(frame: Mapping[str, Any]) -> np.ndarray:
    """Projections `(num_cameras, 4, 4)` to the pixels of the images as given."""
    from decahub.models.cmt.camera.calibration import compose_lidar2cam, compose_lidar2img

    def read(name: str) -> torch.Tensor:
        return torch.from_numpy(np.array([np.asarray(matrix, dtype=np.float64) for matrix in frame[name]]))

    if frame.get("lidar2img") is not None:
        return read("lidar2img").numpy()
    if frame.get("lidar2cam") is not None:
        lidar2cam = read("lidar2cam")
    else:
        names = ("cam2ego", "lidar2ego", "ego2global", "camera_ego2global")
        lidar2cam = compose_lidar2cam(*(None if frame.get(name) is None else read(name) for name in names))
    return compose_lidar2img(read("intrinsics"), lidar2cam).numpy()


def to_pillow(image: Any) -> Any:
    """An image in RGB as a viewer shows it, from a path, an array or a tensor."""
    from PIL import Image

    from decahub.models.shared.pixels import read_image, scale_pixels, to_rgb

    if isinstance(image, str | os.PathLike):
        return to_rgb(read_image(Path(image)))
    if isinstance(image, Image.Image):
        return to_rgb(image)
    pixels = scale_pixels(np.asarray(image))
    if pixels.dtype.kind == "f":
        pixels = (pixels * 255).round().astype(np.uint8)
    if pixels.ndim == 3 and pixels.shape[0] in (1, 3, 4) and pixels.shape[-1] not in (1, 3, 4):
        pixels = np.moveaxis(pixels, 0, -1)
    return to_rgb(Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels))


def _drop_unset(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


__all__ = ["ObjectDetection3DPipeline"]
