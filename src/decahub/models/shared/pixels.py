"""Pixels of any bit depth -> bytes, and image files -> images as a viewer shows them.

PIL clips pixels of more than 8 bits when it converts an image, which turns 16-bit images white.
"""

import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from transformers.utils import logging


logger = logging.get_logger(__name__)
MAX_BYTE, MAX_12_BIT, MAX_UINT16 = 255, 4095, 65535
UNREADABLE = (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError)
"""What PIL raises for files that are no images, damaged or too large."""


def scale_pixels(pixels: np.ndarray, name: str = "the image") -> np.ndarray:
    """Integers as bytes, scaled by their bit depth; floats in [0, 1] as they are.

    Args:
        pixels (`numpy.ndarray`): `bool`, `uint8`, `uint16`, other integers in [0, 255], or floats.
        name (`str`): What the message calls the image.

    Raises:
        ValueError: If a value is out of range.
    """
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == bool:
        return pixels * np.uint8(MAX_BYTE)
    is_float = pixels.dtype.kind == "f"
    if pixels.dtype.kind == "u" and pixels.dtype.itemsize == 2:
        if pixels.size and 0 < pixels.max() <= MAX_12_BIT:
            limit = MAX_BYTE if pixels.max() <= MAX_BYTE else MAX_12_BIT
            logger.warning_once(
                f"An image of 16 bits has no pixel above {limit} and turns nearly black, since it is scaled by "
                f"{MAX_UINT16}. If its largest value is {limit}, give floats: `pixels.astype('float32')` with "
                f"`rescale_factor=1 / {limit}`."
            )
        return ((pixels.astype(np.uint32) + 128) // (MAX_UINT16 // MAX_BYTE)).astype(np.uint8)
    if pixels.size and (pixels.min() < 0 or pixels.max() > (1 if is_float else MAX_BYTE)):
        raise ValueError(describe_range(name, is_float, pixels.min(), pixels.max(), pixels.dtype))
    return pixels if is_float else pixels.astype(np.uint8)


def describe_range(name: str, is_float: bool, lowest: float, highest: float, dtype: object) -> str:
    """The message for pixels that are out of range."""
    given = f"got {dtype} from {lowest:g} to {highest:g}"
    if is_float:
        return (
            f"{name} must hold floats in [0, 1], or bytes; {given}. Divide by the largest value, convert to `uint8`, "
            "or set `do_rescale=False` for pixels that are normalized already."
        )
    return f"{name} must hold bytes in [0, 255]; {given}. Convert 16-bit pixels to `uint16`, others to `uint8`."


def is_deep(image: Image.Image) -> bool:
    """Whether an image has more than 8 bits for each channel."""
    return image.mode == "F" or image.mode.startswith("I")


def get_deep_pixels(image: Image.Image) -> np.ndarray:
    """Pixels of such an image: floats, or `uint16`, since PIL's mode "I" comes from 16-bit files.

    Raises:
        ValueError: If a pixel has more than 16 bits.
    """
    pixels = np.array(image)
    if image.mode == "F":
        return pixels
    if image.mode == "I" and pixels.size and (pixels.min() < 0 or pixels.max() > MAX_UINT16):
        raise ValueError(
            f"an image of mode 'I' must hold 16-bit pixels in [0, {MAX_UINT16}]; got {pixels.min()} to "
            f"{pixels.max()}. Scale it to 16 or 8 bits."
        )
    return pixels.astype(np.uint16)


def to_8_bit(image: Image.Image) -> Image.Image:
    """The image with one byte for each channel; images that have it are returned as they are.

    Raises:
        ValueError: If a pixel is out of the range of its kind.
    """
    if not is_deep(image):
        return image
    pixels = scale_pixels(get_deep_pixels(image))
    return Image.fromarray(pixels if pixels.dtype == np.uint8 else (pixels * MAX_BYTE).round().astype(np.uint8))


def to_rgb(image: Image.Image) -> Image.Image:
    """The image in RGB, 8 bits, with white where it is transparent, as transformers' image processors do."""
    image = to_8_bit(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def check_size(image: Image.Image) -> None:
    """Refuses an image of more pixels than `PIL.Image.MAX_IMAGE_PIXELS`, by its header, before memory is taken."""
    limit, num_pixels = Image.MAX_IMAGE_PIXELS, image.width * image.height
    if limit is not None and num_pixels > limit:
        raise ValueError(
            f"it has {image.width} x {image.height} pixels, and {limit // 10**6} megapixels are allowed. Scale it "
            "down, or raise `PIL.Image.MAX_IMAGE_PIXELS` if you trust the file"
        )


def read_image(path: str | os.PathLike) -> Image.Image:
    """An image with one byte for each channel, upright as its EXIF orientation says.

    Args:
        path (`str` or path): The file.

    Raises:
        FileNotFoundError: If it does not exist.
        ValueError: If it is not an image, damaged, or too large.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"the image {str(path)!r} does not exist.")
    try:
        with Image.open(path) as image:
            check_size(image)
            return to_8_bit(ImageOps.exif_transpose(image))
    except UNREADABLE as error:
        raise ValueError(f"{str(path)!r} must be an intact image file; {error}.") from error


__all__ = [
    "UNREADABLE",
    "check_size",
    "get_deep_pixels",
    "is_deep",
    "read_image",
    "scale_pixels",
    "to_8_bit",
    "to_rgb",
]
