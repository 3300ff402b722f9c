"""Images -> `pixel_values`, segmentation maps -> `labels`, pixel logits -> maps of class ids.

A room's classes are `class <Method>ImageProcessor(ImageProcessing, TorchvisionBackend)` and the same with
`PilBackend`, each with the sizes that it resizes and crops to.
"""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional
from transformers.image_processing_outputs import SemanticSegmentationPostProcessorOutput
from transformers.image_processing_utils import BatchFeature
from transformers.image_utils import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    ChannelDimension,
    ImageInput,
    PILImageResampling,
    SizeDict,
)
from transformers.processing_utils import ImagesKwargs, Unpack
from transformers.utils import TensorType

from .checks import PROCESSOR_KEYS, refuse_unknown
from .ignore_index import IGNORED_PIXEL
from .pixels import MAX_UINT16, describe_range, get_deep_pixels, is_deep, read_image, scale_pixels


BYTE_FACTOR = 1 / 255
MAP_MODES = ("1", "L", "P", "I")  # of images whose values are class ids, and "I;16"


class ImageProcessingKwargs(ImagesKwargs, total=False):
    """Keywords of a call.

    Args:
        do_reduce_labels (`bool`, *optional*, defaults to `False`): whether label 0 of segmentation maps means "none"
            (it becomes 255, which is ignored) and the others shift down by 1, as in ADE20K.
    """

    do_reduce_labels: bool


def check_sizes_and_scales(options: Mapping[str, Any]) -> None:
    """Refuses sizes without pixels, and standard deviations and factors that make infinite pixels or none."""
    for name in ("size", "crop_size", "pad_size"):
        size = options.get(name)
        sides = dict(size) if isinstance(size, Mapping) or hasattr(size, "keys") else {"": size}
        for key, length in sides.items():
            if isinstance(length, int) and length < 1:
                place = f"{name}.{key}".rstrip(".")
                raise ValueError(f"`{place}` must be at least 1 pixel; got {length}. Give a height and a width.")
    for name in ("image_std", "rescale_factor"):
        given = options.get(name)
        values = given if isinstance(given, (list, tuple)) else [given]
        for value in values:
            if isinstance(value, (int, float)) and not 0 < value < math.inf:
                raise ValueError(
                    f"`{name}` must be above 0 and finite; got {value}. Switch the step off by "
                    f"`{'do_normalize' if name == 'image_std' else 'do_rescale'}=False` instead."
                )


class ImageReading:
    """What every image processor shares: options that do not exist are refused, files are read upright."""

    def __init__(self, **kwargs: Unpack[ImagesKwargs]):
        allowed = [*self.valid_kwargs.__annotations__, *PROCESSOR_KEYS]
        refuse_unknown((name for name in kwargs if name[:1] != "_"), allowed, f"an option of {type(self).__name__}")
        check_sizes_and_scales(kwargs)
        super().__init__(**kwargs)

    def fetch_images(self, images: Any) -> Any:
        """Images of paths and addresses; local files upright and scaled by their bit depth, as [`read_image`] does."""
        if isinstance(images, (str, os.PathLike)) and os.path.isfile(images):  # noqa: PTH113 (base64 is no long path)
            return read_image(images)
        if isinstance(images, Sequence) and not isinstance(images, (str, bytes, list, tuple)):
            images = list(images)  # a column of a `datasets.Dataset`
        return super().fetch_images(images)

    def check_channels(self, images: list, kwargs: dict[str, Any]) -> None:
        """Refuses images of another number of channels than the mean and deviation that normalize them."""
        for name in ("image_mean", "image_std"):
            values = kwargs[name] if kwargs["do_normalize"] else None
            num_channels = len(values) if isinstance(values, (list, tuple)) else None
            for index, image in enumerate(images):
                if num_channels not in (None, image.shape[0]):
                    raise ValueError(
                        f"`images` must have {num_channels} channels, as `{name}` has; image {index} has "
                        f"{image.shape[0]}."
                    )


class PlainImageProcessing(ImageReading):
    """What image processors share in both backends; images are channel-first arrays or tensors.

    By default the usual evaluation transform: the shorter side is resized (bicubic), the center cropped, and pixels
    are scaled to [0, 1] and normalized with ImageNet's mean and standard deviation.
    """

    valid_kwargs: type = ImagesKwargs
    model_input_names = ["pixel_values"]
    do_convert_rgb = True
    do_resize = True
    default_to_square = False
    resample = PILImageResampling.BICUBIC
    do_center_crop = True
    do_rescale = True
    rescale_factor = 1 / 255
    do_normalize = True
    image_mean = IMAGENET_DEFAULT_MEAN
    image_std = IMAGENET_DEFAULT_STD

    def _read_images(
        self,
        images: ImageInput,
        do_convert_rgb: bool,
        input_data_format: ChannelDimension | None,
        kwargs: dict[str, Any],
    ) -> tuple[list, bool]:
        """Checked images, channels first, and whether floats among them are taken as they are."""
        if isinstance(images, (list, tuple)) and len(images) == 0:
            raise ValueError("`images` must hold at least one image; got an empty list.")
        device = {"device": kwargs["device"]} if kwargs.get("device") is not None else {}
        takes_floats = takes_any_floats(kwargs)
        scaled = [
            scale_image(image, index, takes_floats, input_data_format)
            for index, image in enumerate(flatten_images(self.fetch_images(images), "images", 3))
        ]
        prepared = self._prepare_image_like_inputs(
            scaled, do_convert_rgb=do_convert_rgb, input_data_format=input_data_format, **device
        )
        self.check_channels(prepared, kwargs)
        return prepared, takes_floats

    def _preprocess_images(self, images: list, takes_floats: bool, kwargs: dict[str, Any]) -> list:
        """Pixel values in the order of `images`: floats in [0, 1] are rescaled already."""
        is_scaled = [not takes_floats and is_float(image) for image in images]
        values: dict[bool, Any] = {}
        for scaled in set(is_scaled):
            group = [image for image, flag in zip(images, is_scaled, strict=True) if flag == scaled]
            options = {**kwargs, "do_rescale": kwargs["do_rescale"] and not scaled}
            values[scaled] = iter(self._preprocess(group, return_tensors=None, **options)["pixel_values"])
        return [next(values[scaled]) for scaled in is_scaled]

    def center_crop(self, image: Any, size: SizeDict, **kwargs: Any) -> Any:
        """Middle of an image, rounded as torchvision does; smaller images are padded with zeros."""
        spare_height, spare_width = image.shape[-2] - size.height, image.shape[-1] - size.width
        if spare_height < 0 or spare_width < 0:
            return super().center_crop(image, size, **kwargs)
        top, left = round(spare_height / 2), round(spare_width / 2)
        return image[..., top : top + size.height, left : left + size.width]


class ImageProcessing(PlainImageProcessing):
    """Images, and segmentation maps that belong to them."""

    valid_kwargs = ImageProcessingKwargs
    do_reduce_labels = False

    def preprocess(
        self,
        images: ImageInput,
        segmentation_maps: ImageInput | None = None,
        **kwargs: Unpack[ImageProcessingKwargs],
    ) -> BatchFeature:
        """Prepares images, and their segmentation maps if there are any.

        Args:
            images: one image or a list: PIL, numpy or torch, gray, RGB or RGBA. Integers are scaled to bytes by
                their bit depth (8 or 16). Floats must lie in [0, 1] and are not rescaled again; with
                `do_rescale=False` or another `rescale_factor` than 1/255 they are taken as they are.
            segmentation_maps: one map of class ids for each image, resized and cropped alike (nearest neighbor):
                arrays of integers, or images of one channel; palette images give their indices.
            kwargs: any attribute of the class, for this call.

        Returns:
            [`~transformers.BatchFeature`] with `pixel_values` `(batch_size, channels, height, width)` and, for maps,
            `labels` `(batch_size, height, width)`.

        Raises:
            ValueError: If there is no image, a pixel is not finite or out of range, channels do not fit `image_mean`,
                the number or size of maps differs from that of images, or a map holds something else than class ids.
        """
        check_sizes_and_scales(kwargs)
        return super().preprocess(images, segmentation_maps, **kwargs)

    def _preprocess_image_like_inputs(
        self,
        images: ImageInput,
        segmentation_maps: ImageInput | None,
        *,
        do_convert_rgb: bool,
        input_data_format: ChannelDimension | None,
        return_tensors: str | TensorType | None,
        do_reduce_labels: bool,
        **kwargs: Any,
    ) -> BatchFeature:
        device = {"device": kwargs["device"]} if kwargs.get("device") is not None else {}
        prepared, takes_floats = self._read_images(images, do_convert_rgb, input_data_format, kwargs)
        data = {"pixel_values": self._preprocess_images(prepared, takes_floats, kwargs)}
        if segmentation_maps is not None:
            maps = flatten_images(self.fetch_images(segmentation_maps), "segmentation_maps", 2)
            if len(maps) != len(prepared):
                raise ValueError(
                    f"`segmentation_maps` must hold one map per image ({len(prepared)}); got {len(maps)}."
                )
            maps = [_read_map(segmentation_map, index) for index, segmentation_map in enumerate(maps)]
            maps = self._prepare_image_like_inputs(
                maps, expected_ndims=2, do_convert_rgb=False, input_data_format=ChannelDimension.FIRST, **device
            )
            for index, (image, segmentation_map) in enumerate(zip(prepared, maps, strict=True)):
                if image.shape[-2:] != segmentation_map.shape[-2:]:
                    raise ValueError(
                        f"`segmentation_maps` must have the sizes of their images; map {index} has "
                        f"{tuple(segmentation_map.shape[-2:])}, its image {tuple(image.shape[-2:])}."
                    )
            data["labels"] = self._preprocess_maps(maps, do_reduce_labels, kwargs)
        return BatchFeature(data=data, tensor_type=return_tensors)

    def _preprocess_maps(self, maps: list, do_reduce_labels: bool, kwargs: dict[str, Any]) -> list:
        if do_reduce_labels:
            maps = [reduce_labels(segmentation_map) for segmentation_map in maps]
        nearest = {"do_normalize": False, "do_rescale": False, "resample": PILImageResampling.NEAREST}
        options = {**kwargs, **nearest}
        # Bytes are what both backends resize; wider ids are cut into theirs.
        planes = [_split_bytes(segmentation_map) for segmentation_map in maps]
        processed = [self._preprocess([plane], return_tensors=None, **options)["pixel_values"][0] for plane in planes]
        # Pixels that the crop adds around a smaller image have no class.
        covered = [plane[:1] * 0 + 1 for plane in planes]
        covered = self._preprocess(covered, return_tensors=None, **options)["pixel_values"]
        labels = []
        for plane, is_covered in zip(processed, covered, strict=True):
            ids = _join_bytes(plane)
            ids[is_covered[0] == 0] = IGNORED_PIXEL
            labels.append(ids)
        return labels

    def post_process_semantic_segmentation(
        self,
        outputs: Any,
        target_sizes: list[tuple[int, int]] | None = None,
        return_segmentation_scores: bool = False,
    ) -> list[torch.Tensor] | list[SemanticSegmentationPostProcessorOutput]:
        """Maps of class ids. Logits are resized before the argmax: they are smaller than the image.

        Args:
            outputs ([`~transformers.modeling_outputs.SemanticSegmenterOutput`]): of the model.
            target_sizes (`list[tuple[int, int]]`, *optional*): height and width of each map; without them maps have
                the size of the logits.
            return_segmentation_scores (`bool`): whether to return the resized logits beside the maps.

        Returns:
            `list[torch.LongTensor]` of shape `(height, width)`; with `return_segmentation_scores`, a list of outputs
            with `segmentation` and `segmentation_scores`.

        Raises:
            ValueError: If the number of `target_sizes` differs from the batch size.
        """
        scores = list(outputs.logits)
        if target_sizes is not None:
            if len(target_sizes) != len(scores):
                raise ValueError(
                    f"`target_sizes` must hold one size per image ({len(scores)}); got {len(target_sizes)}."
                )
            sizes = [tuple(int(side) for side in size) for size in target_sizes]
            scores = [
                functional.interpolate(logits[None], size=size, mode="bilinear", align_corners=False)[0]
                for logits, size in zip(scores, sizes, strict=True)
            ]
        maps = [logits.argmax(0) for logits in scores]
        if not return_segmentation_scores:
            return maps
        return [
            SemanticSegmentationPostProcessorOutput({"segmentation": segmentation, "segmentation_scores": logits})
            for segmentation, logits in zip(maps, scores, strict=True)
        ]


def prepare_images(images: Any, data_format: ChannelDimension | None = None) -> list:
    """A flat list of images whose pixels are checked: bytes, or floats in [0, 1]; gray arrays get a channel.

    For processors that do not build on [`ImageProcessing`].

    Args:
        images: one image or a nested list: PIL, numpy or torch.
        data_format (`ChannelDimension`, *optional*): where the channels of arrays are.

    Raises:
        ValueError: If there is no image, or a pixel is not finite or out of range.
    """
    flat = flatten_images(images, "images", 3)
    if not flat:
        raise ValueError("`images` must hold at least one image; got an empty list.")
    return [scale_image(image, index, False, data_format) for index, image in enumerate(flat)]


def reduce_labels(segmentation_map: Any) -> Any:
    """Labels 0 and -100 become 255, the others shift down by 1, 255 stays."""
    where = torch.where if isinstance(segmentation_map, torch.Tensor) else np.where
    ignored = (segmentation_map <= 0) | (segmentation_map == IGNORED_PIXEL)
    return where(ignored, IGNORED_PIXEL, segmentation_map - 1)


def takes_any_floats(kwargs: dict[str, Any]) -> bool:
    """Whether floats are taken as they are; with the usual factor they must be in [0, 1], where bytes end up."""
    return not kwargs["do_rescale"] or abs(kwargs["rescale_factor"] / BYTE_FACTOR - 1) > 1e-6


def flatten_images(images: Any, name: str, num_dims: int) -> list:
    """A flat list of images (or paths) or maps, of any nesting; a map, and a gray image, may have two dimensions."""
    if isinstance(images, (list, tuple)):
        return [image for item in images for image in flatten_images(item, name, num_dims)]
    if not isinstance(images, (str, os.PathLike, Image.Image)) and not hasattr(images, "ndim"):
        raise TypeError(f"`{name}` must be PIL images, arrays, tensors or paths; got {type(images).__name__}.")
    if isinstance(images, (str, os.PathLike, Image.Image)) or images.ndim in (2, num_dims):
        return [images]
    if images.ndim == num_dims + 1:
        return list(images)
    raise ValueError(
        f"`{name}` must be images, arrays of {num_dims} dimensions, or batches of {num_dims + 1}; got an array of "
        f"shape {tuple(images.shape)}."
    )


def is_float(image: np.ndarray | torch.Tensor) -> bool:
    """Whether an array or a tensor holds floats."""
    return image.is_floating_point() if isinstance(image, torch.Tensor) else image.dtype.kind == "f"


def scale_image(image: Any, index: int, takes_floats: bool, data_format: ChannelDimension | None) -> Any:
    """The image with bytes or floats as they are expected; gray arrays get a channel."""
    if isinstance(image, Image.Image):
        if not is_deep(image):
            return image
        image = get_deep_pixels(image)
    if image.ndim == 2:
        image = image[..., None] if data_format == ChannelDimension.LAST else image[None]
    if not is_float(image):
        if not isinstance(image, torch.Tensor):
            return scale_pixels(image, f"`images[{index}]`")
        pixels = scale_pixels(image.numpy(force=True), f"`images[{index}]`")
        return image if image.dtype == torch.uint8 else torch.from_numpy(pixels).to(image.device)
    if 0 in image.shape:
        return image
    lowest, highest = float(image.min()), float(image.max())
    if not np.isfinite((lowest, highest)).all():
        raise ValueError(f"`images` must hold finite pixels; image {index} holds NaN or infinity.")
    if not takes_floats and (lowest < 0 or highest > 1):
        raise ValueError(describe_range(f"`images[{index}]`", True, lowest, highest, image.dtype))
    return image


def _read_map(segmentation_map: Any, index: int) -> np.ndarray | torch.Tensor:
    """Class ids as integers of 32 bits: 0 to 65535, or -100 where there is none."""
    if isinstance(segmentation_map, Image.Image):
        if segmentation_map.mode not in MAP_MODES and not segmentation_map.mode.startswith("I;16"):
            raise ValueError(
                f"`segmentation_maps` must hold class ids, one channel; map {index} has the mode "
                f"{segmentation_map.mode!r}, which holds colors. Replace each color by its class id, or save the map "
                "as a palette image (mode 'P')."
            )
        segmentation_map = np.asarray(segmentation_map)
    is_tensor = isinstance(segmentation_map, torch.Tensor)
    if is_float(segmentation_map) and not bool((segmentation_map % 1 == 0).all()):
        raise ValueError(f"`segmentation_maps` must hold class ids; map {index} holds floats that are not whole.")
    # NaN is refused above. Converted first, since torch cannot compare its unsigned integers.
    ids = segmentation_map.to(torch.int64) if is_tensor else segmentation_map.astype(np.int64)
    wrong = ids[((ids < 0) & (ids != -100)) | (ids > MAX_UINT16)]
    if len(wrong):
        raise ValueError(
            f"`segmentation_maps` must hold class ids in [0, {MAX_UINT16}], or -100 where there is none; map {index} "
            f"holds {wrong[0]}."
        )
    return segmentation_map.to(torch.int32) if is_tensor else segmentation_map.astype(np.int32)


def _split_bytes(segmentation_map: np.ndarray | torch.Tensor) -> np.ndarray | torch.Tensor:
    """Ids of shape `(1, height, width)` as one plane of bytes, or as four where one byte is not enough."""
    is_tensor = isinstance(segmentation_map, torch.Tensor)
    if segmentation_map.min() >= 0 and segmentation_map.max() <= IGNORED_PIXEL:
        return segmentation_map.to(torch.uint8) if is_tensor else segmentation_map.astype(np.uint8)
    planes = [(segmentation_map >> shift) & 255 for shift in (0, 8, 16, 24)]
    return torch.cat(planes).to(torch.uint8) if is_tensor else np.concatenate(planes).astype(np.uint8)


def _join_bytes(planes: np.ndarray | torch.Tensor) -> np.ndarray | torch.Tensor:
    """Ids of shape `(height, width)` as int64, from what `_split_bytes` made."""
    is_tensor = isinstance(planes, torch.Tensor)
    planes = planes.to(torch.int32) if is_tensor else planes.astype(np.int32)
    ids = planes[0]
    for shift, plane in zip((8, 16, 24), planes[1:], strict=False):
        ids = ids | (plane << shift)
    return ids.long() if is_tensor else ids.astype(np.int64)
