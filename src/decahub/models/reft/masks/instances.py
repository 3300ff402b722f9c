"""How users describe an instance -> its mask: an array, a box, a COCO RLE, or polygons."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from transformers.utils import logging

from .rle import decode_rle, draw_polygons


logger = logging.get_logger(__name__)

Kind = Literal["mask", "box", "rle", "polygons"]


def read_instance(instance: Any, height: int, width: int, kind: Kind | None = None) -> np.ndarray:
    """The mask of an instance in an image of this size.

    Args:
        instance: a mask (array, tensor or image of one channel), a box `[x0, y0, x1, y1]`, a COCO RLE
            `{"size", "counts"}`, or polygons `[[x0, y0, x1, y1, ...], ...]`.
        height (`int`): of the image.
        width (`int`): of the image.
        kind (`str`, *optional*): what it is; seen from its form by default.

    Returns:
        `numpy.ndarray` of `bool`, of shape `(height, width)`.

    Raises:
        TypeError: If it is nothing of the kind.
        ValueError: If it does not fit the image.
    """
    kind = find_kind(instance) if kind is None else kind
    if kind == "rle":
        mask = decode_rle(instance)
    elif kind == "box":
        return _draw_box(instance, height, width)
    elif kind == "polygons":
        is_flat = not isinstance(instance[0], (list, tuple, np.ndarray))
        return draw_polygons([instance] if is_flat else instance, height, width)
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
    if isinstance(instance, Image.Image):
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
    mask = np.zeros((height, width), dtype=bool)
    mask[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))] = True
    return mask


def compute_box(mask: np.ndarray) -> list[int]:
    """The tight box `[x0, y0, x1, y1]` of a mask, with exclusive ends; zeros for an empty one."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if len(rows) == 0:
        return [0, 0, 0, 0]
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]


__all__ = ["compute_box", "find_kind", "read_instance"]
