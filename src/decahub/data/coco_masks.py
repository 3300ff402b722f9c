"""Masks as COCO stores them: polygons, run lengths as numbers, and run lengths as text."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def encode_segmentation(segmentation: Any, height: int, width: int) -> dict[str, Any]:
    """The compressed run-length encoding of a segmentation.

    Args:
        segmentation: polygons `[[x0, y0, x1, y1, ...], ...]`, whose union is meant, or an encoding with `size` and
            `counts`, compressed (text) or not (numbers).
        height (`int`): of the image.
        width (`int`): of the image.

    Returns:
        `dict`: `{"size": [height, width], "counts": text}`.

    Raises:
        TypeError: If it is neither polygons nor an encoding.
        ValueError: If it is malformed or of another size.
    """
    if isinstance(segmentation, Mapping):
        return _encode_runs(segmentation, height, width)
    if not isinstance(segmentation, Sequence) or isinstance(segmentation, str) or not segmentation:
        raise TypeError(f"`segmentation` must be polygons or a COCO RLE; got {str(segmentation)[:80]!r}.")
    polygons = [segmentation] if isinstance(segmentation[0], (int, float)) else segmentation
    for polygon in polygons:
        if len(polygon) < 6 or len(polygon) % 2 or not np.isfinite(np.asarray(polygon, dtype=float)).all():
            raise ValueError(
                "`segmentation` must hold polygons of at least three finite points [x0, y0, x1, y1, x2, y2, ...]; got "
                f"{list(polygon)[:8]}."
            )
    coco = import_coco_masks()
    parts = coco.frPyObjects([[float(number) for number in polygon] for polygon in polygons], height, width)
    return _to_text(coco.merge(parts))


def _encode_runs(rle: Mapping[str, Any], height: int, width: int) -> dict[str, Any]:
    counts, size = rle.get("counts"), rle.get("size")
    if counts is None or size is None or [int(side) for side in size] != [height, width]:
        raise ValueError(f"`segmentation` must have `counts` and the `size` [{height}, {width}]; got {size!r}.")
    coco = import_coco_masks()
    if isinstance(counts, (str, bytes)):
        text = counts.encode("ascii") if isinstance(counts, str) else counts
        encoded = {"size": [height, width], "counts": text}
        if not _covers(text, height * width):
            raise ValueError(f"`counts` of an RLE must cover {height} x {width} pixels; got {text[:40]!r}.")
        return _to_text(encoded)
    runs = [int(run) for run in counts]
    if min(runs, default=-1) < 0 or sum(runs) != height * width:
        raise ValueError(f"`counts` of an RLE must cover {height} x {width} pixels; got {sum(runs)}.")
    return _to_text(coco.frPyObjects({"size": [height, width], "counts": runs}, height, width))


def _covers(text: bytes, num_pixels: int) -> bool:
    """Whether compressed run lengths add up to the pixels of a mask; pycocotools would read past its memory."""
    runs: list[int] = []
    value, shift = 0, 0
    for letter in text:
        code = letter - 48
        if not 0 <= code < 64:
            return False
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value, shift = 0, 0
    return shift == 0 and min(runs, default=-1) >= 0 and sum(runs) == num_pixels


def _to_text(rle: Mapping[str, Any]) -> dict[str, Any]:
    counts = rle["counts"]
    return {
        "size": [int(side) for side in rle["size"]],
        "counts": counts.decode("ascii") if isinstance(counts, bytes) else counts,
    }


def encode_mask(mask: np.ndarray) -> dict[str, Any]:
    """The compressed run-length encoding of a mask `(height, width)`."""
    return _to_text(import_coco_masks().encode(np.asfortranarray(mask, dtype=np.uint8)))


def decode_masks(rles: Sequence[Mapping[str, Any]], height: int, width: int) -> np.ndarray:
    """Masks `(num_masks, height, width)` of `bool`, of compressed encodings."""
    if not rles:
        return np.zeros((0, height, width), dtype=bool)
    return np.ascontiguousarray(import_coco_masks().decode(list(rles)).transpose(2, 0, 1)).astype(bool)


def compute_area(rle: Mapping[str, Any]) -> float:
    """Pixels of a compressed encoding."""
    return float(import_coco_masks().area(rle))


def import_coco_masks() -> Any:
    """`pycocotools.mask`, or an error that says how to get it."""
    try:
        from pycocotools import mask
    except ImportError as error:
        raise ImportError('COCO masks require pycocotools. Install it with `pip install "decahub[reft]"`.') from error
    return mask


__all__ = ["compute_area", "decode_masks", "encode_mask", "encode_segmentation"]
