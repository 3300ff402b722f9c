"""Reading image files as a viewer shows them."""

import os
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError


def read_image(path: str | os.PathLike) -> Image.Image:
    """An image, upright as its EXIF orientation says.

    Args:
        path (`str` or path): The file.

    Raises:
        FileNotFoundError: If it does not exist.
        ValueError: If it is not an image, or damaged.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"the image {str(path)!r} does not exist.")
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image)
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(f"{str(path)!r} must be an intact image file; {error}.") from error


__all__ = ["read_image"]
