"""Two views of one image for distillation: the same crop and flip, with colors jittered for the student alone."""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torchvision.transforms import v2

from decahub.models.shared.checks import check_bounds, check_probability

from .image_classification import (
    CROP_PADDING,
    CropFlip,
    Normalization,
    check_augmentation,
    get_target_size,
    image_to_tensor,
)


LUMINANCE = (0.2989, 0.587, 0.114)  # of red, green and blue, ITU-R BT.601
MAX_BYTE = 255


class ColorJitter:
    """Brightness, contrast and saturation changed by random factors, in random order.

    The same arithmetic as torchvision's on floats. Its operations, made for any input, take more than twice as long
    over 32 pixels, and that is felt beside the training step of a small network.

    Args:
        strength (`float`): Factors are drawn uniformly from `[max(0, 1 - strength), 1 + strength]`.
    """

    def __init__(self, strength: float):
        if strength < 0:
            raise ValueError(f"`color_jitter` must not be negative; got {strength}. Use 0 for none.")
        self.range = (max(0.0, 1.0 - strength), 1.0 + strength)
        self.operations: list[Callable[[torch.Tensor, float], None]] = [adjust_brightness, adjust_contrast]
        self.operations.append(adjust_saturation)

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """A float copy of `pixels`, bytes of shape `(channels, height, width)`, with values in [0, 255]."""
        if self.range[0] == self.range[1]:
            return pixels.float()
        flat = pixels.to(torch.float32, copy=True).reshape(len(pixels), -1)
        for operation in random.sample(self.operations, len(self.operations)):
            operation(flat, random.uniform(*self.range))
            flat.clamp_(0, MAX_BYTE)
        return flat.view(pixels.shape)


def adjust_brightness(pixels: torch.Tensor, factor: float) -> None:
    """Scale all pixels, of shape `(channels, num_pixels)`, in place."""
    pixels.mul_(factor)


def adjust_contrast(pixels: torch.Tensor, factor: float) -> None:
    """Move all pixels away from, or towards, the mean luminance of the image, in place."""
    mean = compute_luminance(pixels).mean()
    pixels.mul_(factor).add_(mean, alpha=1 - factor)


def adjust_saturation(pixels: torch.Tensor, factor: float) -> None:
    """Move each pixel away from, or towards, its own luminance, in place."""
    luminance = compute_luminance(pixels)
    pixels.mul_(factor).add_(luminance, alpha=1 - factor)


def compute_luminance(pixels: torch.Tensor) -> torch.Tensor:
    """Luminance of RGB or gray pixels of shape `(channels, num_pixels)`."""
    return pixels[0].clone() if len(pixels) == 1 else torch.tensor(LUMINANCE) @ pixels


class PairTransform:
    """One row to `{"pixel_values", "teacher_pixel_values"}`: random geometry shared by both, jitter for the first."""

    def __init__(self, augment: Callable[[torch.Tensor], torch.Tensor], processor: Any, color_jitter: float):
        self.augment = augment
        self.jitter = ColorJitter(color_jitter)
        self.normalize = Normalization(processor)
        self.num_channels = len(processor.image_mean)

    def __call__(self, row: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        pixels = self.augment(image_to_tensor(row["image"], self.num_channels))
        return {
            "pixel_values": self.normalize(self.jitter(pixels)),
            "teacher_pixel_values": self.normalize(pixels),
        }


def build_pair_transform(
    processor: Any,
    augmentation: str = "random_resized_crop",
    *,
    color_jitter: float = 0.4,
    flip_prob: float = 0.5,
    crop_padding: int | None = None,
    area_range: Sequence[float] | None = None,
) -> PairTransform:
    """Random transform that ends with two views of the size, mean and std of `processor`.

    - `"crop_flip"` is for images as small as CIFAR's: reflect padding, random crop, flip. With `crop_padding=0` images
      are only flipped.
    - `"random_resized_crop"` is TinyMIM's recipe for ImageNet: a crop of random area and aspect ratio, resampled with
      bicubic interpolation, and flip.

    Wrap it into `SeededTransform`, which makes its draws repeatable.

    Args:
        processor: The student's image processor.
        augmentation (`str`): `"crop_flip"` or `"random_resized_crop"`.
        color_jitter (`float`): Strength of the jitter of brightness, contrast and saturation; 0 for none.
        flip_prob (`float`): Probability of a horizontal flip; 0 where left and right differ in meaning.
        crop_padding (`int`, *optional*): Pixels of padding on each side, by default 4; `"crop_flip"` only.
        area_range (`tuple[float, float]`, *optional*): Share of the image's area that a crop takes, by default 0.2 to
            1; `"random_resized_crop"` only.

    Returns:
        `PairTransform`: maps `{"image", ...}` to `{"pixel_values", "teacher_pixel_values"}`.

    Raises:
        ValueError: If `augmentation` is unknown, an option belongs to the other one, or a number is out of its range.
    """
    check_probability("flip_prob", flip_prob)
    check_augmentation(augmentation, crop_padding=crop_padding, area_range=area_range)
    size = get_target_size(processor)
    if augmentation == "crop_flip":
        augment: Callable = CropFlip(size, CROP_PADDING if crop_padding is None else crop_padding, flip_prob)
    else:
        area_range = (0.2, 1.0) if area_range is None else area_range
        check_bounds("area_range", area_range, 1)
        crop = v2.RandomResizedCrop(
            size, scale=tuple(area_range), interpolation=v2.InterpolationMode.BICUBIC, antialias=True
        )
        augment = v2.Compose([crop, v2.RandomHorizontalFlip(flip_prob)])
    return PairTransform(augment, processor, color_jitter)


def collate_views(examples: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Stack examples: every view or target that they hold, by its name."""
    return {name: torch.stack([example[name] for example in examples]) for name in examples[0]}


__all__ = ["ColorJitter", "PairTransform", "build_pair_transform", "collate_views"]
