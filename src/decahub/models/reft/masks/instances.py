"""How users describe an instance -> its mask: an array, an image or its file, a box, a COCO RLE, or polygons."""

import os
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from transformers.utils import logging

from .rle import decode_rle, draw_polygons


logger = logging.get_logger(__name__)

Kind = Literal["mask", "box", "rle", "polygons"]


def read_instance(instance: Any, height: int, width: int, kind: Kind | None = None) -> np.ndarray:
    """The mask of an instance in an image of this size.

    Args:
        instance: a mask (array or tensor of one channel, nested lists, image, or path of an image), a box
            `[x0, y0, x1, y1]`, a COCO RLE `{"size", "counts"}`, or polygons `[[x0, y0, x1, y1, ...], ...]`. All
            coordinates are in pixels.
        height (`int`): of the image.
        width (`int`): of the image.
        kind (`str`, *optional*): what it is; seen from its form by default.

    Returns:
        `numpy.ndarray` of `bool`, of shape `(height, width)`.

    Raises:
        FileNotFoundError: If it is a path without a file.
        TypeError: If it is nothing of the kind.
        ValueError: If it does not fit the image.
    """
    if kind is None:
        kind = find_kind(instance)
        if kind == "polygons" and _has_rows(instance, height, width):
            kind = "mask"
    if kind == "rle":
        mask = decode_rle(instance)
    elif kind == "box":
        return _draw_box(instance, height, width)
    elif kind == "polygons":
        return _draw_polygons(instance, height, width)
    elif isinstance(instance, (str, os.PathLike)):
        with Image.open(instance) as image:  # upright, as its photograph is read
            mask = _read_image(ImageOps.exif_transpose(image), f"the mask {os.fspath(instance)!r}")
    elif isinstance(instance, Image.Image):
        mask = _read_image(instance, "a mask")
    else:
        mask = _to_binary(np.asarray(instance.cpu() if isinstance(instance, torch.Tensor) else instance))
    if mask.shape != (height, width):
        raise ValueError(
            f"a mask must have the size of its image, {height} x {width}; got {mask.shape[0]} x {mask.shape[1]}."
        )
    return mask


def find_kind(instance: Any) -> Kind:
    """What an instance is given as.

    Raises:
        TypeError: If it is nothing that is known.
    """
    if isinstance(instance, Mapping):
        return "rle"
    if isinstance(instance, (str, os.PathLike, Image.Image)):
        return "mask"
    if isinstance(instance, (np.ndarray, torch.Tensor)):
        if instance.ndim == 1:
            return "box" if len(instance) == 4 else "polygons"
        return "mask"
    if isinstance(instance, (list, tuple)) and len(instance):
        if isinstance(instance[0], (list, tuple, np.ndarray)):
            return "polygons"
        return "box" if len(instance) == 4 else "polygons"
    raise TypeError(
        f"an instance must be a mask, a box [x0, y0, x1, y1], a COCO RLE or polygons; got {type(instance).__name__}."
    )


def _has_rows(instance: Any, height: int, width: int) -> bool:
    """Whether nested lists are the rows of a mask rather than polygons."""
    return len(instance) == height and all(np.ndim(row) == 1 and len(row) == width for row in instance)


def _read_image(image: Image.Image, name: str) -> np.ndarray:
    """The mask that an image shows. Transparency, where there is some, or brightness counts."""
    if image.mode in ("LA", "RGBA"):
        values = np.asarray(image.getchannel("A"))
        values = values if values.min() < values.max() else _read_gray(image, name)
    elif image.mode in ("1", "L", "P") or image.mode.startswith("I"):
        values = np.asarray(image)
    else:
        values = _read_gray(image, name)
    present = np.unique(values)
    if len(present) > 2:
        logger.warning_once(
            f"{name[:1].upper()}{name[1:]} has {len(present)} values; those above half of the largest count as the "
            "instance. A map of several instances must become one mask for each."
        )
    return values > present[-1] / 2


def _read_gray(image: Image.Image, name: str) -> np.ndarray:
    channels = np.asarray(image.convert("RGB"))
    if (channels != channels[..., :1]).any():
        raise ValueError(f"{name} must be gray, white for the instance; got colors.")
    return channels[..., 0]


def _to_binary(mask: np.ndarray) -> np.ndarray:
    """Values above half of the largest; a mask of 0 and 255, or of probabilities, is meant like that."""
    if mask.ndim == 3 and 1 in (mask.shape[0], mask.shape[-1]):
        mask = mask[0] if mask.shape[0] == 1 else mask[..., 0]
    if mask.ndim != 2:
        raise ValueError(f"a mask must have one channel, (height, width); got shape {mask.shape}.")
    if mask.dtype == bool:
        return mask
    if not np.isfinite(mask).all() or (mask.size and mask.min() < 0):
        raise ValueError("a mask must hold finite values of at least 0; got NaN, infinity or a negative value.")
    if not np.isin(mask, (0, 1)).all():
        logger.warning_once(
            "A mask has values other than 0 and 1; those above half of its largest value count as the instance."
        )
        return mask > 0.5 * mask.max()
    return mask == 1


def _draw_box(box: Any, height: int, width: int) -> np.ndarray:
    corners = [float(value) for value in box]
    x0, y0, x1, y1 = corners if len(corners) == 4 else (0.0, 0.0, 0.0, 0.0)
    if not (np.isfinite(corners).all() and 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise ValueError(
            f"a box must be [x0, y0, x1, y1] in pixels inside the image of {width} x {height}, with x0 < x1 and y0 < "
            f"y1; got {corners}."
        )
    _refuse_shares("a box", [x1, y1], height, width)
    mask = np.zeros((height, width), dtype=bool)
    mask[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))] = True
    return mask


def _draw_polygons(polygons: Any, height: int, width: int) -> np.ndarray:
    is_flat = len(polygons) > 0 and not isinstance(polygons[0], (list, tuple, np.ndarray))
    polygons = [polygons] if is_flat else polygons
    if len(polygons) == 0:
        raise ValueError("polygons must be at least one list of points [x0, y0, x1, y1, x2, y2, ...]; got none.")
    mask = draw_polygons(polygons, height, width)
    _refuse_shares("a polygon", [number for polygon in polygons for number in polygon], height, width)
    return mask


def _refuse_shares(name: str, coordinates: Any, height: int, width: int) -> None:
    """Refuses coordinates that all lie in the first pixel: they are shares of the image."""
    if max(height, width) > 1 and max(coordinates) <= 1:
        raise ValueError(
            f"{name} must be in pixels of the image of {width} x {height}; got coordinates of at most "
            f"{max(coordinates)}. Multiply them by its width and height."
        )


def compute_box(mask: np.ndarray) -> list[int]:
    """The tight box `[x0, y0, x1, y1]` of a mask, with exclusive ends; zeros for an empty one."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if len(rows) == 0:
        return [0, 0, 0, 0]
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]


__all__ = ["compute_box", "find_kind", "read_instance"]
