"""Images -> crops at full resolution -> scores. A resized image has another quality, so crops are not resized."""

from typing import Any, Literal

import numpy as np
import torch
from transformers.image_processing_backends import TorchvisionBackend
from transformers.image_processing_utils import BatchFeature
from transformers.image_utils import ChannelDimension, ImageInput, PILImageResampling, SizeDict
from transformers.processing_utils import ImagesKwargs, Unpack
from transformers.utils import TensorType, logging

from ..shared.image_processing import PlainImageProcessing
from .crops import STRATEGIES, choose_crops


logger = logging.get_logger(__name__)
RESIZE_MODES = ("keep_aspect", "official")
SMALL_IMAGES = ("resize", "pad", "error")
MAX_UPSCALED_PIXELS = 2**24  # of a thin image whose short side is scaled to the size of a crop


class PmtIqaImageProcessorKwargs(ImagesKwargs, total=False):
    """Keywords of a call, beside those of all image processors.

    Args:
        num_crops (`int`): Crops of an image for `"grid"` and `"random"`.
        crop_strategy (`str`): `"grid"`, `"random"`, `"center"`, `"five"` (corners and center), or `"dense"`: the whole
            image, for `compute_quality_map`.
        seed (`int`, *optional*): Of random crops.
        resize_mode (`str`): With `do_resize`, whether `size` is covered by one scale (`"keep_aspect"`), or its height
            and width are taken for each other and the aspect is ignored, as the authors do (`"official"`).
        small_image (`str`): What happens to images that are smaller than a crop: they are scaled up (`"resize"`),
            their border pixels are repeated (`"pad"`), or they are refused (`"error"`).
        dense_multiple (`int`): Height and width of `"dense"` images are filled up to multiples of it.
    """

    num_crops: int
    crop_strategy: Literal["grid", "random", "center", "five", "dense"]
    seed: int | None
    resize_mode: Literal["keep_aspect", "official"]
    small_image: Literal["resize", "pad", "error"]
    dense_multiple: int


class PmtIqaImageProcessing(PlainImageProcessing):
    """What both backends share: by default nine crops on a grid that reaches all borders."""

    valid_kwargs = PmtIqaImageProcessorKwargs
    model_input_names = ["pixel_values", "crop_mask"]
    do_resize = False
    size = {"height": 384, "width": 512}
    do_center_crop = False
    crop_size = {"height": 224, "width": 224}
    num_crops = 9
    crop_strategy = "grid"
    seed = 0
    resize_mode = "keep_aspect"
    small_image = "resize"
    dense_multiple = 32

    def __init__(self, **kwargs: Unpack[PmtIqaImageProcessorKwargs]):
        super().__init__(**kwargs)
        _check_options({name: getattr(self, name) for name in PmtIqaImageProcessorKwargs.__annotations__})

    def preprocess(self, images: ImageInput, **kwargs: Unpack[PmtIqaImageProcessorKwargs]) -> BatchFeature:
        """Crops of images.

        Args:
            images: One image or a list, as in all image processors of decahub: PIL, numpy, torch, paths.
            kwargs: Any attribute of the class, for this call.

        Returns:
            [`~transformers.BatchFeature`] with `pixel_values` `(batch_size, num_crops, channels, height, width)`;
            `crop_mask` `(batch_size, num_crops)`, False for padding of images with fewer crops than others; and
            `crop_boxes` `(batch_size, num_crops, 4)`: top, left, bottom and right of each crop in pixels of the image
            as it was given. With `crop_strategy="dense"` only `pixel_values` `(batch_size, channels, height, width)`.

        Raises:
            ValueError: If an image or an option cannot be used.
        """
        return super().preprocess(images, **kwargs)

    def _preprocess_image_like_inputs(
        self,
        images: ImageInput,
        *,
        do_convert_rgb: bool,
        input_data_format: ChannelDimension | None,
        return_tensors: str | TensorType | None,
        **kwargs: Any,
    ) -> BatchFeature:
        _check_options(kwargs)
        prepared, takes_floats = self._read_images(images, do_convert_rgb, input_data_format, kwargs)
        plain = {**kwargs, "do_resize": False, "do_center_crop": False}
        if kwargs["crop_strategy"] == "dense":
            multiple = kwargs["dense_multiple"]
            whole = [self._fit(image, kwargs) for image in prepared]
            whole = [_pad_edges(image, *(-side % multiple for side in image.shape[-2:])) for image in whole]
            pixel_values = self._preprocess_images(whole, takes_floats, plain)
            return BatchFeature(data={"pixel_values": pixel_values}, tensor_type=return_tensors)
        pixel_values, boxes = [], []
        for image in prepared:
            fitted = self._fit(image, kwargs)
            scale = [given / have for given, have in zip(image.shape[-2:], fitted.shape[-2:], strict=True)]
            crops, places = self._cut(fitted, kwargs)
            pixel_values.append(_stack(self._preprocess_images(crops, takes_floats, plain)))
            boxes.append(np.rint(np.asarray(places) * np.tile(scale, 2)).astype(np.int64))
        num_crops = max(map(len, boxes))
        data = {
            "pixel_values": [_fill(crops, num_crops) for crops in pixel_values],
            "crop_mask": [np.arange(num_crops) < len(box) for box in boxes],
            "crop_boxes": [_fill(box, num_crops) for box in boxes],
        }
        return BatchFeature(data=data, tensor_type=return_tensors)

    def _fit(self, image: Any, options: dict[str, Any]) -> Any:
        """The image, resized if it is to be, at least as large as a crop."""
        wanted: SizeDict = options["crop_size"]
        if 0 in image.shape:
            raise ValueError(f"`images` must have at least one pixel; got an image of shape {tuple(image.shape)}.")
        if options["do_resize"]:
            image = self.resize(image, _scale_size(image, options), options["resample"])
        height, width = image.shape[-2:]
        if height >= wanted.height and width >= wanted.width:
            return image
        if options["small_image"] == "error":
            raise ValueError(
                f"`images` must be at least {wanted.height} x {wanted.width} pixels, the size of a crop; got {height} "
                f"x {width}. Set `small_image` to 'resize' or 'pad'."
            )
        logger.warning_once(
            f"Images smaller than a crop ({wanted.height} x {wanted.width} pixels) are changed to fit one "
            f"(`small_image={options['small_image']!r}`), which changes their quality."
        )
        if options["small_image"] == "pad":
            return _pad_edges(image, max(0, wanted.height - height), max(0, wanted.width - width))
        factor = max(wanted.height / height, wanted.width / width)
        size = SizeDict(
            height=max(wanted.height, round(height * factor)), width=max(wanted.width, round(width * factor))
        )
        if size.height * size.width > MAX_UPSCALED_PIXELS:
            raise ValueError(
                f"`images` must not be as thin as {height} x {width} pixels: scaled to the size of a crop it would "
                f"have {size.height} x {size.width}. Cut it, or set `small_image` to 'pad'."
            )
        return self.resize(image, size, PILImageResampling.BICUBIC)

    @staticmethod
    def _cut(image: Any, options: dict[str, Any]) -> tuple[list, list[tuple[int, int, int, int]]]:
        """Crops, and their boxes. Views of the bytes: only crops become floats, never the whole image."""
        size = options["crop_size"].height
        height, width = image.shape[-2:]
        strategy, seed = options["crop_strategy"], options.get("seed")
        places = choose_crops(height, width, size, options["num_crops"], strategy, seed)
        crops = [image[..., top : top + size, left : left + size] for top, left in places]
        return crops, [(top, left, top + size, left + size) for top, left in places]

    def post_process_image_quality(self, outputs: Any, crop_mask: torch.Tensor | None = None) -> list[dict[str, Any]]:
        """Answers for people.

        Args:
            outputs ([`PmtIqaImageQualityOutput`]): Of the model.
            crop_mask (`torch.BoolTensor` of shape `(batch_size, num_crops)`, *optional*): As the model got it.

        Returns:
            `list[dict]`, one for each image: `score`, `score_std` (population standard deviation over crops), `level`
            (most probable), `level_probs`, `num_crops` and `crop_scores`.
        """
        is_crop = torch.ones_like(outputs.crop_scores, dtype=torch.bool) if crop_mask is None else crop_mask.bool()
        answers = []
        for score, crop_scores, probs, mask in zip(
            outputs.score,
            outputs.crop_scores,
            outputs.level_probs,
            is_crop.to(outputs.crop_scores.device),
            strict=True,
        ):
            own = crop_scores[mask].double()
            answers.append(
                {
                    "score": float(score),
                    "score_std": float(own.std(correction=0)),
                    "level": int(probs.argmax()),
                    "level_probs": probs.double().tolist(),
                    "num_crops": len(own),
                    "crop_scores": own.tolist(),
                }
            )
        return answers


class PmtIqaImageProcessor(PmtIqaImageProcessing, TorchvisionBackend):
    """Image processor of PMT-IQA on torchvision."""


def _check_options(options: dict[str, Any]) -> None:
    for name, allowed in (
        ("crop_strategy", STRATEGIES),
        ("resize_mode", RESIZE_MODES),
        ("small_image", SMALL_IMAGES),
    ):
        if options[name] not in allowed:
            raise ValueError(f"`{name}` must be one of {', '.join(allowed)}; got {options[name]!r}.")
    for name in ("num_crops", "dense_multiple"):
        value = options[name]
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"`{name}` must be a whole number of at least 1; got {value!r}.")
    size = options["crop_size"]
    height, width = (size.get("height"), size.get("width")) if isinstance(size, dict) else (size.height, size.width)
    if not height or height != width:
        raise ValueError(f"`crop_size` must hold an equal `height` and `width`; got {size}.")


def _scale_size(image: Any, options: dict[str, Any]) -> SizeDict:
    """Height and width to which an image is resized."""
    height, width = options["size"].height, options["size"].width
    if not height or not width:
        raise ValueError(f"`size` must hold `height` and `width`; got {options['size']}.")
    if options["resize_mode"] == "official":
        return SizeDict(height=width, width=height)
    factor = max(height / image.shape[-2], width / image.shape[-1])
    return SizeDict(height=round(image.shape[-2] * factor), width=round(image.shape[-1] * factor))


def _pad_edges(image: Any, bottom: int, right: int) -> Any:
    """The image with its last row and column repeated."""
    if not bottom and not right:
        return image
    height, width = image.shape[-2:]
    rows = np.minimum(np.arange(height + bottom), height - 1)
    columns = np.minimum(np.arange(width + right), width - 1)
    return image[:, rows][:, :, columns]


def _stack(crops: list) -> Any:
    return torch.stack(crops) if isinstance(crops[0], torch.Tensor) else np.stack(crops)


def _fill(values: Any, length: int) -> Any:
    """The array, filled up with zeros to `length` rows."""
    missing = length - len(values)
    if not missing:
        return values
    if isinstance(values, torch.Tensor):
        return torch.cat([values, values.new_zeros(missing, *values.shape[1:])])
    return np.concatenate([values, np.zeros((missing, *values.shape[1:]), values.dtype)])


__all__ = ["PmtIqaImageProcessor", "PmtIqaImageProcessorKwargs"]
