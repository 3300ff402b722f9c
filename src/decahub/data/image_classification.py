"""Images with one class each: columns `image` and `label`, training augmentation, evaluation transform, collator."""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import datasets
import numpy as np
import torch
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from decahub.models.shared.checks import check_bounds, check_probability
from decahub.models.shared.pixels import to_8_bit, to_rgb

from .batches import process_images
from .family import DataFamily


AUGMENTATIONS = ("crop_flip", "random_resized_crop")
# What belongs to one of them.
OWNERS = {
    "crop_padding": "crop_flip", "area_range": "random_resized_crop", "rand_augment_magnitude": "random_resized_crop"
}  # fmt: skip
CROP_PADDING = 4
DEFAULT = "default"  # where `None` turns something off

MODES = {1: "L", 3: "RGB"}  # number of channels to PIL mode
RAND_AUGMENT_BINS = 31
TIMM_MAGNITUDES = 10  # timm counts RandAugment magnitudes from 0 to 10, torchvision from 0 to RAND_AUGMENT_BINS - 1
RAND_AUGMENT_PROB = 0.5  # timm applies each of its two operations with this probability
ERASED_AREA = (0.02, 1 / 3)  # of the image, as in Random Erasing (1708.04896), section 3
ERASED_ASPECT_RATIO = (0.3, 1 / 0.3)


def image_to_tensor(image: Image.Image | torch.Tensor, num_channels: int = 3) -> torch.Tensor:
    """Pixels of an image, channels first.

    Args:
        image: A PIL image in any mode, or a `torch.ByteTensor` of shape `(channels, height, width)`. 16-bit images
            are scaled to bytes, transparent ones laid on white, as the image processors do.
        num_channels (`int`, *optional*, defaults to 3): 3 gives RGB, 1 gives gray.

    Returns:
        `torch.ByteTensor` of shape `(num_channels, height, width)`.
    """
    if num_channels not in MODES:
        raise ValueError(f"`num_channels` must be 1 or 3; got {num_channels}. Write a transform for other images.")
    if isinstance(image, torch.Tensor):
        if image.dtype != torch.uint8:
            raise TypeError(f"`image` must be a PIL image or hold bytes (`torch.uint8`); got {image.dtype}.")
        if image.shape[0] == num_channels:
            return image
        return functional.grayscale_to_rgb(image) if num_channels == 3 else functional.rgb_to_grayscale(image)
    image = to_8_bit(image)
    if image.has_transparency_data:
        image = to_rgb(image)
    pixels = np.array(image.convert(MODES[num_channels]))
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], num_channels)).permute(2, 0, 1).contiguous()


def decode_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """One row with its image as bytes of shape `(channels, height, width)`, gray or RGB; for `InMemoryDataset`."""
    image = to_8_bit(row["image"])
    return {"image": image_to_tensor(image, 1 if image.mode == "L" else 3), "label": row["label"]}


def get_target_size(processor: Any) -> tuple[int, int]:
    """Height and width of the `pixel_values` that an image processor makes."""
    size = processor.crop_size if getattr(processor, "do_center_crop", False) else processor.size
    size = {key: value for key, value in dict(size).items() if value is not None}
    if "height" in size and "width" in size:
        return size["height"], size["width"]
    if "shortest_edge" in size:
        return size["shortest_edge"], size["shortest_edge"]
    raise ValueError(f"`processor.size` must hold `height` and `width`, or `shortest_edge`; got {size}.")


class Normalization:
    """Bytes to the float values that `processor` would give: `(pixels * rescale_factor - mean) / std` in one pass."""

    def __init__(self, processor: Any):
        mean = torch.tensor(processor.image_mean if processor.do_normalize else [0.0], dtype=torch.float64)
        std = torch.tensor(processor.image_std if processor.do_normalize else [1.0], dtype=torch.float64)
        factor = processor.rescale_factor if processor.do_rescale else 1.0
        self.scale = (factor / std).float().reshape(-1, 1, 1)
        self.shift = (-mean / std).float().reshape(-1, 1, 1)

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.float().mul_(self.scale).add_(self.shift)


class CropFlip:
    """Pad by reflection, crop back at random, flip at random: the usual augmentation of 32-pixel images.

    Written with index selection because torchvision's transforms, made for any input, take several times as long over
    so few pixels, and that is felt beside the training step of a small network.

    Args:
        size (`tuple[int, int]`): Height and width of the result; images of another size are resized to it first.
        padding (`int`): Pixels of padding on each side.
        flip_prob (`float`): Probability of a horizontal flip.
    """

    def __init__(self, size: tuple[int, int], padding: int, flip_prob: float):
        if not 0 <= padding < min(size):
            raise ValueError(f"`crop_padding` must be in [0, {min(size)}), the image size; got {padding}.")
        self.size = size
        self.padding = padding
        self.flip_prob = flip_prob
        self.rows, self.columns = (self._reflect(length) for length in size)

    def _reflect(self, length: int) -> torch.Tensor:
        return torch.from_numpy(np.pad(np.arange(length), self.padding, mode="reflect"))

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        height, width = self.size
        if pixels.shape[-2:] != self.size:
            pixels = functional.resize(pixels, list(self.size), antialias=True)
        top, left = random.randint(0, 2 * self.padding), random.randint(0, 2 * self.padding)
        columns = self.columns[left : left + width]
        if random.random() < self.flip_prob:
            columns = columns.flip(0)
        return pixels.index_select(1, self.rows[top : top + height]).index_select(2, columns)


class RandomErasing:
    """With probability `prob`, set one random rectangle to the mean color, which is 0 after normalization."""

    def __init__(self, prob: float):
        self.prob = prob

    def __call__(self, pixel_values: torch.Tensor) -> torch.Tensor:
        if random.random() >= self.prob:
            return pixel_values
        height, width = pixel_values.shape[-2:]
        area = random.uniform(*ERASED_AREA) * height * width
        ratio = float(np.exp(random.uniform(*np.log(ERASED_ASPECT_RATIO))))
        erased_height = min(height, max(1, round((area * ratio) ** 0.5)))
        erased_width = min(width, max(1, round((area / ratio) ** 0.5)))
        top, left = random.randint(0, height - erased_height), random.randint(0, width - erased_width)
        pixel_values[:, top : top + erased_height, left : left + erased_width] = 0.0
        return pixel_values


class TrainTransform:
    """One row to `{"pixel_values", "labels"}`: random geometry on bytes, normalization, random erasing."""

    def __init__(self, augment: Callable[[torch.Tensor], torch.Tensor], processor: Any, erasing_prob: float):
        self.augment = augment
        self.normalize = Normalization(processor)
        self.erase = RandomErasing(erasing_prob)
        self.num_channels = len(processor.image_mean)

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        pixels = self.augment(image_to_tensor(row["image"], self.num_channels))
        return {"pixel_values": self.erase(self.normalize(pixels)), "labels": row["label"]}


class EvalTransform:
    """One row to `{"pixel_values", "labels"}` through the image processor, hence as a user's own call would."""

    def __init__(self, processor: Any):
        self.processor = processor

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        pixel_values = self.processor(row["image"], return_tensors="pt")["pixel_values"][0]
        return {"pixel_values": pixel_values, "labels": row["label"]}

    def transform_rows(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Several rows, in one call of the processor."""
        images = process_images(self.processor, rows)
        return [
            {"pixel_values": pixel_values, "labels": row["label"]}
            for pixel_values, row in zip(images, rows, strict=True)
        ]


def check_augmentation(augmentation: str, **given: Any) -> None:
    """Refuses an unknown augmentation, and options of the other one that are not `None`."""
    if augmentation not in AUGMENTATIONS:
        raise ValueError(f"`augmentation` must be one of {', '.join(AUGMENTATIONS)}; got {augmentation!r}.")
    for name, value in given.items():
        if value is not None and OWNERS[name] != augmentation:
            raise ValueError(f"`{name}` must come with `{OWNERS[name]}`; got it with {augmentation!r}. Leave it out.")


def _random_resized_crop(
    processor: Any, flip_prob: float, area_range: Sequence[float], rand_augment_magnitude: float | None
) -> v2.Compose:
    size = get_target_size(processor)
    crops = [
        v2.RandomResizedCrop(size, scale=area_range, interpolation=interpolation, antialias=True)
        for interpolation in (v2.InterpolationMode.BILINEAR, v2.InterpolationMode.BICUBIC)
    ]
    steps = [v2.RandomChoice(crops), v2.RandomHorizontalFlip(flip_prob)]
    if rand_augment_magnitude is not None:
        magnitude = round(rand_augment_magnitude / TIMM_MAGNITUDES * (RAND_AUGMENT_BINS - 1))
        fill = [round(255 * mean) for mean in processor.image_mean]  # of areas that a shear or rotation leaves empty
        operation = v2.RandAugment(num_ops=1, magnitude=magnitude, num_magnitude_bins=RAND_AUGMENT_BINS, fill=fill)
        steps += [v2.RandomApply([operation], RAND_AUGMENT_PROB), v2.RandomApply([operation], RAND_AUGMENT_PROB)]
    return v2.Compose(steps)


def build_train_transform(
    processor: Any,
    augmentation: str = "random_resized_crop",
    *,
    flip_prob: float = 0.5,
    erasing_prob: float = 0.0,
    crop_padding: int | None = None,
    area_range: Sequence[float] | None = None,
    rand_augment_magnitude: float | str | None = DEFAULT,
) -> TrainTransform:
    """Random training transform that ends with the size, mean and std of `processor`.

    - `"crop_flip"` is for images as small as CIFAR's: reflect padding, random crop, flip.
    - `"random_resized_crop"` is the ImageNet recipe of EMO's paper: a crop of random area and aspect ratio, resampled
      with bilinear or bicubic interpolation at random, flip, RandAugment. The paper used timm's
      `rand-m9-mstd0.5-inc1`; this is torchvision's RandAugment, two operations applied with probability 0.5 each as in
      timm, without the small noise on the magnitude.

    Wrap it into `SeededTransform`, which makes its draws repeatable.

    Args:
        processor: The model's image processor.
        augmentation (`str`): `"crop_flip"` or `"random_resized_crop"`.
        flip_prob (`float`): Probability of a horizontal flip; 0 where left and right differ in meaning.
        erasing_prob (`float`): Probability that a random rectangle is blanked.
        crop_padding (`int`, *optional*): Pixels of padding on each side, by default 4; `"crop_flip"` only.
        area_range (`tuple[float, float]`, *optional*): Share of the image's area that a crop takes, by default 0.08 to
            1; `"random_resized_crop"` only.
        rand_augment_magnitude (`float`, *optional*): On timm's scale from 0 to 10, by default 9;
            `"random_resized_crop"` only. `None` turns RandAugment off.

    Returns:
        `TrainTransform`: maps `{"image", "label"}` to `{"pixel_values", "labels"}`.

    Raises:
        ValueError: If `augmentation` is unknown, an option belongs to the other one, or a number is out of its range.
    """
    check_probability("flip_prob", flip_prob)
    check_probability("erasing_prob", erasing_prob)
    given = None if rand_augment_magnitude == DEFAULT else rand_augment_magnitude
    check_augmentation(augmentation, crop_padding=crop_padding, area_range=area_range, rand_augment_magnitude=given)
    if augmentation == "crop_flip":
        padding = CROP_PADDING if crop_padding is None else crop_padding
        augment: Callable = CropFlip(get_target_size(processor), padding, flip_prob)
    else:
        area_range = (0.08, 1.0) if area_range is None else area_range
        magnitude = 9.0 if rand_augment_magnitude == DEFAULT else rand_augment_magnitude
        check_bounds("area_range", area_range, 1)
        if magnitude is not None and (isinstance(magnitude, str) or not 0 <= magnitude <= TIMM_MAGNITUDES):
            raise ValueError(f"`rand_augment_magnitude` must be in [0, 10] or None; got {magnitude}.")
        augment = _random_resized_crop(processor, flip_prob, area_range, magnitude)
    return TrainTransform(augment, processor, erasing_prob)


def build_eval_transform(processor: Any) -> EvalTransform:
    """Deterministic transform for evaluation: `processor` itself, applied to `{"image", "label"}` rows."""
    return EvalTransform(processor)


def collate(examples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
    """Stack examples.

    Returns:
        `{"pixel_values": (batch_size, num_channels, height, width), "labels": (batch_size,)}`.
    """
    return {
        "pixel_values": torch.stack([example["pixel_values"] for example in examples]),
        "labels": torch.tensor([example["labels"] for example in examples], dtype=torch.int64),
    }


FAMILY = DataFamily(
    columns={"image": datasets.Image, "label": datasets.ClassLabel},
    build_eval_transform=build_eval_transform,
    build_train_transform=build_train_transform,
    collate=collate,
    decode_row=decode_row,
)

__all__ = [
    "AUGMENTATIONS",
    "FAMILY",
    "build_eval_transform",
    "build_train_transform",
    "collate",
    "decode_row",
    "get_target_size",
    "image_to_tensor",
]
