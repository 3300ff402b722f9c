"""The image processor of CMT: images of surround cameras -> `pixel_values`, and projections to their pixels.

The frames of a batch have the same number of cameras; any number is allowed. Images become BGR, minus mean, divided by
standard deviation, as the published weights expect.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional
from transformers.image_processing_backends import TorchvisionBackend
from transformers.image_processing_utils import BatchFeature
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, ImageInput
from transformers.processing_utils import ImagesKwargs, Unpack

from ..shared.image_processing import ImageReading, flatten_images, is_float, scale_image, takes_any_floats
from .camera.calibration import check_invertible, read_matrices, to_homogeneous
from .camera.resize_crop import CmtImageTransform, compute_evaluation_transform


CHANNEL_ORDERS = ("bgr", "rgb")
UNUSED_OPTIONS = ("do_center_crop", "crop_size", "do_pad", "pad_size", "resample")


class CmtImageProcessorKwargs(ImagesKwargs, total=False):
    """Keywords of a call.

    Args:
        size_divisor (`int`, *optional*, defaults to 32): Height and width are padded to multiples of this with zeros,
            at the bottom and on the right.
        image_channel_order (`str`, *optional*, defaults to `"bgr"`): Channels of `pixel_values`, `"bgr"` or `"rgb"`;
            `image_mean` and `image_std` have the same order. Images themselves are always RGB.
        exact_intrinsics (`bool`, *optional*, defaults to `False`): Whether projections follow the whole-pixel size of
            the resized image and mirror the centers of pixels. The authors' are off by up to a pixel.
    """

    size_divisor: int
    image_channel_order: str
    exact_intrinsics: bool


class CmtImageProcessor(ImageReading, TorchvisionBackend):
    """Image processor of CMT on torchvision.

    Each image is resized to cover `size`, cropped to its bottom and to the middle of its columns, normalized, and
    padded. With `do_resize=False` it is only normalized and padded. Cameras may differ in size: each has its own
    factor and its own projection.
    """

    valid_kwargs = CmtImageProcessorKwargs
    model_input_names = ["pixel_values", "lidar2img"]
    do_convert_rgb = True
    do_resize = True
    size = {"height": 320, "width": 800}
    size_divisor = 32
    do_rescale = True
    rescale_factor = 1 / 255
    do_normalize = True
    image_mean = IMAGENET_DEFAULT_MEAN[::-1]
    image_std = IMAGENET_DEFAULT_STD[::-1]
    image_channel_order = "bgr"
    exact_intrinsics = False

    def __init__(self, **kwargs: Unpack[CmtImageProcessorKwargs]):
        super().__init__(**kwargs)
        self._check_options({name: getattr(self, name, None) for name in self._valid_kwargs_names})

    def preprocess(
        self,
        images: ImageInput,
        lidar2img: Any | None = None,
        image_transforms: Sequence[CmtImageTransform] | Sequence[Sequence[CmtImageTransform]] | None = None,
        **kwargs: Unpack[CmtImageProcessorKwargs],
    ) -> BatchFeature:
        """Prepares the images of one frame, or of several.

        Args:
            images: the images of one frame, one for each camera, or a list of such lists. Each is PIL, numpy or torch
                in RGB, gray or RGBA, or a path. Integers are scaled to bytes by their bit depth (8 or 16); floats
                must lie in [0, 1] and are not rescaled again; with `do_rescale=False` or another `rescale_factor`
                than 1/255 they are taken as they are.
            lidar2img (array of shape `(num_cameras, 4, 4)`, or a list of them, *optional*): projections of LiDAR
                points to pixels of the images as given, (u d, v d, d, 1) of (x, y, z, 1).
            image_transforms (`Sequence[CmtImageTransform]`, or a list of them, *optional*): a transform for each
                camera instead of that of evaluation; see
                [`~decahub.models.cmt.camera.resize_crop.sample_image_transforms`].
            kwargs: any attribute of the class, for this call.

        Returns:
            [`~transformers.BatchFeature`] with `pixel_values` `(batch_size, num_cameras, 3, height, width)` and, if
            given, `lidar2img` `(batch_size, num_cameras, 4, 4)` in float64, which projects to their pixels.

        Raises:
            ValueError: If a frame has no image or another number of images than the others, a pixel is not finite or
                out of range, or projections or transforms do not fit the images.
        """
        return super().preprocess(images, lidar2img, image_transforms, **kwargs)

    def _validate_preprocess_kwargs(self, **kwargs: Any) -> None:
        self._check_options(kwargs)
        super()._validate_preprocess_kwargs(**{**kwargs, "do_resize": False})  # a resize needs no filter here

    def _check_options(self, options: dict[str, Any]) -> None:
        for name in UNUSED_OPTIONS:
            if options.get(name) is not None:
                raise ValueError(
                    f"`{name}` must not be given to {type(self).__name__}; got {options[name]!r}. Images are resized "
                    "and cropped to `size`, without a filter against aliasing, and padded to `size_divisor`."
                )
        if options["image_channel_order"] not in CHANNEL_ORDERS:
            raise ValueError(
                f"`image_channel_order` must be one of {CHANNEL_ORDERS}; got {options['image_channel_order']!r}."
            )
        if options["size_divisor"] < 1:
            raise ValueError(f"`size_divisor` must be at least 1; got {options['size_divisor']}.")
        size = options["size"]
        if options["do_resize"] and not (size and size.height and size.width):
            raise ValueError(f"`size` must have a height and a width; got {size}.")

    def _preprocess_image_like_inputs(
        self,
        images: ImageInput,
        lidar2img: Any | None,
        image_transforms: Any | None,
        *,
        do_convert_rgb: bool,
        input_data_format: Any,
        return_tensors: Any,
        **kwargs: Any,
    ) -> BatchFeature:
        frames = split_frames(images)
        takes_floats = takes_any_floats(kwargs)
        device = {"device": kwargs["device"]} if kwargs.get("device") is not None else {}
        scaled = [
            scale_image(image, index, takes_floats, input_data_format)
            for index, image in enumerate(self.fetch_images([image for frame in frames for image in frame]))
        ]
        prepared = self._prepare_image_like_inputs(
            scaled, do_convert_rgb=do_convert_rgb, input_data_format=input_data_format, **device
        )
        self.check_channels(prepared, kwargs)
        empty = [index for index, image in enumerate(prepared) if 0 in image.shape]
        if empty:
            raise ValueError(
                f"`images` must have pixels; image {empty[0]} has the shape {tuple(prepared[empty[0]].shape)}."
            )
        num_frames, num_cameras = len(frames), len(frames[0])
        transforms = self._choose_transforms(prepared, image_transforms, num_frames, num_cameras, kwargs)
        crop_size = _get_crop_size(kwargs)
        pixel_values = [
            self._transform(image, transform, crop_size or tuple(image.shape[-2:]), takes_floats, kwargs)
            for image, transform in zip(prepared, transforms, strict=True)
        ]
        if len({tuple(image.shape) for image in pixel_values}) > 1:
            raise ValueError(
                "`images` must have one size with `do_resize=False`; got "
                f"{sorted({tuple(image.shape[-2:]) for image in prepared})} (height, width)."
            )
        data = {"pixel_values": torch.stack(pixel_values).unflatten(0, (num_frames, num_cameras))}
        if lidar2img is not None:
            given = _read_projections(lidar2img, num_frames, num_cameras)
            matrices = [
                transform.build_matrix(
                    tuple(image.shape[-2:]), (crop_size or image.shape[-2:])[1], kwargs["exact_intrinsics"]
                )
                for image, transform in zip(prepared, transforms, strict=True)
            ]
            data["lidar2img"] = (to_homogeneous(torch.stack(matrices)) @ given).unflatten(0, (num_frames, num_cameras))
        return BatchFeature(data=data, tensor_type=return_tensors)

    @staticmethod
    def _choose_transforms(
        images: list[torch.Tensor], given: Any, num_frames: int, num_cameras: int, kwargs: dict[str, Any]
    ) -> list[CmtImageTransform]:
        """A transform for each image: those that are given, or those of evaluation."""
        crop_size = _get_crop_size(kwargs)
        if given is None:
            if crop_size is None:
                return [CmtImageTransform(1.0) for _ in images]
            return [compute_evaluation_transform(tuple(image.shape[-2:]), crop_size) for image in images]
        if crop_size is None:
            raise ValueError("`image_transforms` must not be given with `do_resize=False`.")
        per_frame = [given] if given and isinstance(given[0], CmtImageTransform) else given
        lengths = [len(transforms) for transforms in per_frame]
        if lengths != [num_cameras] * num_frames:
            raise ValueError(
                f"`image_transforms` must hold {num_cameras} transforms, one for each camera, for each of "
                f"{num_frames} frames; got {lengths}."
            )
        return [transform for transforms in per_frame for transform in transforms]

    def _transform(
        self,
        image: torch.Tensor,
        transform: CmtImageTransform,
        crop_size: tuple[int, int],
        takes_floats: bool,
        kwargs: dict[str, Any],
    ) -> torch.Tensor:
        is_scaled = is_float(image) and not takes_floats
        image = transform.apply(image, crop_size)
        if kwargs["image_channel_order"] == "bgr" and image.shape[0] == len("bgr"):
            image = image.flip(0)
        image = self.rescale_and_normalize(
            image,
            kwargs["do_rescale"] and not is_scaled,
            kwargs["rescale_factor"],
            kwargs["do_normalize"],
            kwargs["image_mean"],
            kwargs["image_std"],
        )
        divisor = kwargs["size_divisor"]
        height, width = image.shape[-2:]
        return functional.pad(image, (0, -width % divisor, 0, -height % divisor))


def split_frames(images: Any) -> list[list[Any]]:
    """Images of each frame: the outer list of nested ones, or one frame.

    Raises:
        ValueError: If there is no image, one is missing, or frames differ in the number of their cameras.
    """
    if is_batch(images):
        frames = [_flatten_frame(frame, f"images[{index}]") for index, frame in enumerate(images)]
    else:
        frames = [_flatten_frame(images, "images")]
    lengths = [len(frame) for frame in frames]
    if min(lengths, default=0) == 0:
        raise ValueError("`images` must hold at least one image for each frame; got an empty list.")
    if len(set(lengths)) > 1:
        raise ValueError(
            f"`images` must hold the same number of cameras for all frames of a batch; got {lengths}. Prepare these "
            "frames one by one."
        )
    return frames


def is_batch(images: Any) -> bool:
    """Whether images belong to several frames: lists or stacks of images in a list, or an array of five dimensions."""
    if isinstance(images, (list, tuple)):
        return any(isinstance(item, (list, tuple)) or getattr(item, "ndim", 0) == 4 for item in images)
    return getattr(images, "ndim", 0) == 5


def _flatten_frame(images: Any, name: str) -> list[Any]:
    if images is None:
        raise ValueError(
            f"`{name}` must hold the images of a frame; they are missing. Prepare frames without images by themselves."
        )
    if isinstance(images, (list, tuple)) and any(image is None for image in images):
        missing = next(index for index, image in enumerate(images) if image is None)
        raise ValueError(
            f"`{name}` must hold an image for each camera; image {missing} is missing. Leave that camera out of the "
            "calibration too: any subset of cameras is allowed."
        )
    return flatten_images(images, name, 3)


def _get_crop_size(kwargs: dict[str, Any]) -> tuple[int, int] | None:
    return (kwargs["size"]["height"], kwargs["size"]["width"]) if kwargs["do_resize"] else None


def _read_projections(values: Any, num_frames: int, num_cameras: int) -> torch.Tensor:
    """Projections of all images, `(num_frames * num_cameras, 4, 4)`; those of one frame need no outer list."""
    values = values if is_stack(values) else [values]
    if len(values) != num_frames:
        raise ValueError(f"`lidar2img` must hold projections of {num_frames} frames; got {len(values)}.")
    labels = [f"camera {camera}" for camera in range(num_cameras)]
    matrices = [read_matrices(frame, "lidar2img", (4, 4), labels) for frame in values]
    for frame in matrices:
        check_invertible(frame, "lidar2img", labels)
    return torch.cat(matrices)


def is_stack(values: Any) -> bool:
    """Whether matrices belong to several frames, that is, are nested four deep."""
    depth = 0
    while True:
        if hasattr(values, "ndim"):
            return depth + values.ndim == 4
        if not isinstance(values, (list, tuple)) or not values:
            return depth == 4
        values, depth = values[0], depth + 1


__all__ = ["CmtImageProcessor", "CmtImageProcessorKwargs"]
