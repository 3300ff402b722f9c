"""Masks as COCO writes them: run lengths down the columns, as text or as numbers, and polygons."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


try:  # optional, since a room that is loaded as remote code may not need it
    from pycocotools import mask as coco_mask
except ImportError:
    coco_mask = None


MAX_PIXELS = 2**28  # of a mask; a damaged size would take all memory


def encode_rle(mask: np.ndarray) -> dict[str, Any]:
    """COCO's run-length encoding of a mask `(height, width)`: `{"size": [height, width], "counts": text}`."""
    encoded = _require_coco().encode(np.asfortranarray(mask, dtype=np.uint8))
    counts = encoded["counts"]
    return {
        "size": [int(side) for side in encoded["size"]],
        "counts": counts.decode("ascii") if isinstance(counts, bytes) else counts,
    }


def decode_rle(rle: Mapping[str, Any]) -> np.ndarray:
    """The mask `(height, width)` of an encoding, compressed or not.

    Raises:
        ValueError: If it is malformed, or does not cover exactly its size.
    """
    try:
        height, width = (int(side) for side in rle["size"])
        counts = rle["counts"]
        runs = np.array(
            counts if isinstance(counts, Sequence) and not isinstance(counts, (str, bytes)) else _read(counts)
        )
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ValueError(
            f"An RLE must be a dictionary with `size` and `counts`; got one that is damaged: {error!r}."
        ) from error
    if min(height, width) < 1 or height * width > MAX_PIXELS:
        raise ValueError(
            f"An RLE must have a size of at least 1 x 1 and at most {MAX_PIXELS} pixels; got {height} x {width}."
        )
    if runs.dtype.kind not in "iu" or (runs < 0).any() or runs.sum() != height * width:
        raise ValueError(f"An RLE must cover its size, {height} x {width} pixels; its runs do not.")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T


def _read(counts: str | bytes) -> list[int]:
    """Run lengths from COCO's text: 5 bits a letter, low ones first; from the fourth on, differences to two before."""
    letters = counts.encode("ascii") if isinstance(counts, str) else bytes(counts)
    runs: list[int] = []
    value, shift = 0, 0
    for letter in letters:
        code = letter - 48
        if not 0 <= code < 64:
            raise ValueError(f"letter {chr(letter)!r}")
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value, shift = 0, 0
    if shift:
        raise ValueError("it ends inside a number")
    return runs


def draw_polygons(polygons: Sequence[Sequence[float]], height: int, width: int) -> np.ndarray:
    """The mask of an instance that is a union of polygons `[x0, y0, x1, y1, ...]`, as COCO draws them."""
    coco = _require_coco()
    for polygon in polygons:
        if len(polygon) < 6 or len(polygon) % 2 or not np.isfinite(np.asarray(polygon, dtype=float)).all():
            raise ValueError(
                f"A polygon must be a flat list of at least three finite points [x0, y0, x1, y1, x2, y2, ...]; got "
                f"{list(polygon)[:8]}."
            )
    rles = coco.frPyObjects([[float(number) for number in polygon] for polygon in polygons], height, width)
    return coco.decode(coco.merge(rles)).astype(bool)


def _require_coco() -> Any:
    if coco_mask is None:
        raise ImportError('COCO masks require pycocotools. Install it with `pip install "decahub[reft]"`.')
    return coco_mask


__all__ = ["decode_rle", "draw_polygons", "encode_rle"]
