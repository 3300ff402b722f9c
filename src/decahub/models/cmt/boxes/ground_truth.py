"""Boxes of a frame as a user gives them, checked before they reach a model."""

from typing import Any

import numpy as np
import torch
from transformers.utils import logging

from .geometry import BOX_SIZE


logger = logging.get_logger(__name__)
NUM_FINITE = 7  # all columns of a box but its velocity, which may be unknown


def read_ground_truth(boxes: Any, class_labels: Any, frame: int, num_classes: int) -> dict[str, torch.Tensor]:
    """Labels of one frame.

    Args:
        boxes (array of shape `(num_boxes, 9)`): x, y, z, l, w, h, yaw, vx, vy; there may be none.
        class_labels (array of shape `(num_boxes,)`): class ids.
        frame (`int`): What messages call the frame.
        num_classes (`int`): How many classes there are.

    Returns:
        `dict` with `boxes` (float32) and `class_labels` (int64).

    Raises:
        TypeError: If classes are not integers.
        ValueError: If shapes do not fit, a class does not exist, or a box is not finite or has a negative size.
    """
    rows = _read_array(boxes, "boxes", frame, np.float64)
    rows = rows.reshape(-1, BOX_SIZE) if rows.size == 0 else rows
    if rows.ndim != 2 or rows.shape[1] != BOX_SIZE:
        raise ValueError(
            f"`boxes` must have shape (num_boxes, {BOX_SIZE}): x, y, z, l, w, h, yaw, vx, vy; got {rows.shape} for "
            f"frame {frame}. Where the velocity is unknown, give NaN."
        )
    classes = _read_classes(class_labels, frame, len(rows), num_classes)
    is_wrong = ~np.isfinite(rows[:, :NUM_FINITE]).all(1) | np.isinf(rows[:, NUM_FINITE:]).any(1)
    if is_wrong.any():
        first = int(np.flatnonzero(is_wrong)[0])
        raise ValueError(
            f"`boxes` must be finite, but for velocities, which may be NaN; got {rows[first].tolist()} for box "
            f"{first} of frame {frame}."
        )
    sizes = rows[:, 3:6]
    if (sizes < 0).any():
        first = int(np.flatnonzero((sizes < 0).any(1))[0])
        raise ValueError(
            f"`boxes` must have sizes of at least 0; got {sizes[first].tolist()} for box {first} of frame {frame}."
        )
    num_flat = int((sizes == 0).any(1).sum())
    if num_flat:
        logger.warning(
            f"{num_flat} of {len(rows)} boxes of frame {frame} have a size of zero, whose logarithm is infinite: the "
            "box loss leaves them out. Remove them, or correct their sizes."
        )
    return {"boxes": torch.from_numpy(rows).float(), "class_labels": torch.from_numpy(classes)}


def _read_classes(class_labels: Any, frame: int, num_boxes: int, num_classes: int) -> np.ndarray:
    classes = _read_array(class_labels, "class_labels", frame)
    if classes.size and classes.dtype.kind not in "iu":
        raise TypeError(f"`class_labels` must hold integers; got {classes.dtype} for frame {frame}.")
    classes = classes.astype(np.int64)
    if classes.shape != (num_boxes,):
        raise ValueError(
            f"`class_labels` must have shape ({num_boxes},), a class for each box; got {classes.shape} for frame "
            f"{frame}."
        )
    wrong = classes[(classes < 0) | (classes >= num_classes)]
    if len(wrong):
        raise ValueError(
            f"`class_labels` must lie in [0, {num_classes}), the classes of the model; got {wrong[0]} for frame "
            f"{frame}. Leave boxes of other classes out."
        )
    return classes


def _read_array(values: Any, name: str, frame: int, dtype: Any = None) -> np.ndarray:
    if isinstance(values, torch.Tensor):
        values = (values.float() if values.dtype == torch.bfloat16 else values).numpy(force=True)
    try:
        return np.asarray(values, dtype=dtype)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`{name}` must be an array of numbers for each frame; frame {frame}: {error}.") from error


__all__ = ["read_ground_truth"]
