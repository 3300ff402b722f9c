"""Wireframes of 3D boxes in an image."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw

from ..boxes.geometry import compute_corners
from .style import Color, get_font


NEAR = 0.2  # meters in front of the camera, where lines are cut
# Corners 0 to 3 are the bottom, 4 to 7 the top, each counter-clockwise from the front left one.
EDGES = np.array(
    [(0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7)]
)  # fmt: skip
FRONT = (0, 3, 7, 4)
FRONT_OPACITY = 70  # of 255
MAX_TINTED = 4  # sizes of the image; Pillow takes long to fill what reaches farther
REFERENCE_HEIGHT = 360  # pixels of an image for which the sizes of captions are
MIN_LABELED_HEIGHT = 22  # pixels of a box below which a caption would hide it
BACKGROUND_OPACITY = 190


def project_points(points: np.ndarray, lidar2img: np.ndarray) -> np.ndarray:
    """Points `(..., 3)` of the LiDAR frame as (u d, v d, d): pixels times depth, and depth in meters."""
    return points @ lidar2img[:3, :3].T + lidar2img[:3, 3]


def clip_segments(
    starts: np.ndarray, ends: np.ndarray, near: float = NEAR
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The parts of segments that lie in front of the camera.

    Args:
        starts (`numpy.ndarray` of shape `(num_segments, 3)`): as [`project_points`] gives them.
        ends (`numpy.ndarray` of shape `(num_segments, 3)`): likewise.
        near (`float`): depth of the plane at which segments are cut, in meters.

    Returns:
        Pixels `(num_visible, 2)` of both ends, and the indices `(num_visible,)` of the segments that are visible.
    """
    is_visible = (starts[:, 2] >= near) | (ends[:, 2] >= near)
    indices = np.flatnonzero(is_visible)
    starts, ends = starts[indices], ends[indices]
    is_cut = ((starts[:, 2] < near) != (ends[:, 2] < near))[:, None]
    steps = ends - starts
    shares = np.divide(near - starts[:, 2:], steps[:, 2:], out=np.zeros((len(steps), 1)), where=is_cut)
    cut = starts + shares * steps
    starts, ends = np.where(starts[:, 2:] < near, cut, starts), np.where(ends[:, 2:] < near, cut, ends)
    return starts[:, :2] / starts[:, 2:], ends[:, :2] / ends[:, 2:], indices


def clip_polygon(points: np.ndarray, near: float = NEAR) -> np.ndarray:
    """Pixels `(num_corners, 2)` of the part of a polygon that lies in front of the camera, from projected corners."""
    kept: list[np.ndarray] = []
    for start, end in zip(points, np.roll(points, -1, axis=0), strict=True):
        if start[2] >= near:
            kept.append(start)
        if (start[2] >= near) != (end[2] >= near):
            kept.append(start + (near - start[2]) / (end[2] - start[2]) * (end - start))
    corners = np.array(kept).reshape(-1, 3)
    return corners[:, :2] / corners[:, 2:]


def clip_to_frame(start: np.ndarray, end: np.ndarray, size: tuple[int, int], margin: float) -> np.ndarray | None:
    """A segment `(2, 2)` cut to an image of `size` (width, height) and a margin; `None` if it lies outside.

    Pillow takes long to draw lines that end far outside.
    """
    low, high, step = 0.0, 1.0, end - start
    for axis in range(2):
        for bound, sign in ((-margin, 1.0), (size[axis] + margin, -1.0)):
            distance, slope = sign * (start[axis] - bound), sign * step[axis]
            if slope == 0:
                if distance < 0:
                    return None
            elif slope > 0:
                low = max(low, -distance / slope)
            else:
                high = min(high, -distance / slope)
    return None if low > high else np.stack([start + low * step, start + high * step])


def draw_boxes(
    image: Image.Image,
    boxes: np.ndarray,
    lidar2img: np.ndarray,
    colors: Sequence[Color],
    captions: Sequence[str] | None = None,
    line_width: int = 2,
    has_front: bool = True,
) -> Image.Image:
    """A copy of an image with the wireframes of boxes, far ones first.

    The front of a box is tinted. What lies behind the camera is cut off; boxes outside of the image leave no trace.

    Args:
        image (`PIL.Image.Image`): in RGB.
        boxes (`numpy.ndarray` of shape `(num_boxes, 7 or more)`): in the LiDAR frame.
        lidar2img (`numpy.ndarray` of shape `(4, 4)`): projection to the pixels of this image.
        colors (`list`): of each box.
        captions (`list[str]`, *optional*): text above each box that is large enough.
        line_width (`int`): in pixels.
        has_front (`bool`): whether to tint the front.
    """
    canvas = image.convert("RGB")
    if not len(boxes):
        return canvas
    corners = compute_corners(torch.as_tensor(np.asarray(boxes, dtype=np.float64))).numpy()
    projected = project_points(corners, np.asarray(lidar2img, dtype=np.float64))
    draw = ImageDraw.Draw(canvas, "RGBA")
    lines = [_find_lines(box, canvas.size, line_width) for box in projected]
    far_first = [index for index in np.argsort(-projected[..., 2].mean(axis=1), kind="stable") if lines[index]]
    for index in far_first:
        front = clip_polygon(projected[index][list(FRONT)])
        if has_front and len(front) > 2 and np.abs(front).max() < MAX_TINTED * max(canvas.size):
            draw.polygon([tuple(point) for point in front], fill=(*colors[index], FRONT_OPACITY))
        for line in lines[index]:
            draw.line([tuple(point) for point in line], fill=(*colors[index], 255), width=line_width)
    taken: list[np.ndarray] = []
    for index in reversed(far_first) if captions else ():
        _write_caption(draw, captions[index], np.concatenate(lines[index]), canvas.size, colors[index], taken)
    return canvas


def _find_lines(corners: np.ndarray, size: tuple[int, int], margin: float) -> list[np.ndarray]:
    """The edges of a box that are visible, as pixels of both ends."""
    starts, ends, _ = clip_segments(corners[EDGES[:, 0]], corners[EDGES[:, 1]])
    clipped = (clip_to_frame(start, end, size, margin) for start, end in zip(starts, ends, strict=True))
    return [line for line in clipped if line is not None]


def _write_caption(
    draw: ImageDraw.ImageDraw,
    text: str,
    points: np.ndarray,
    size: tuple[int, int],
    color: Color,
    taken: list[np.ndarray],
) -> None:
    """A line of text above points, if they are far enough apart and the text would cover none of those `taken`."""
    left, top = np.clip(points.min(axis=0), 0, size)
    bottom = np.clip(points[:, 1].max(), 0, size[1])
    scale = size[1] / REFERENCE_HEIGHT
    if not text or bottom - top < MIN_LABELED_HEIGHT * scale:
        return
    font, pad = get_font(round(11 * scale)), round(2 * scale)
    _, _, width, height = draw.textbbox((0, 0), text, font=font)
    left, top = min(left, size[0] - width - 2 * pad), max(0.0, top - height - 2 * pad)
    place = np.array([left, top, left + width + 2 * pad, top + height + 2 * pad])
    if any((place[:2] < other[2:]).all() and (other[:2] < place[2:]).all() for other in taken):
        return
    taken.append(place)
    draw.rectangle(place.tolist(), fill=(*color, BACKGROUND_OPACITY))
    draw.text((left + pad, top + pad), text, font=font, fill=(255, 255, 255, 255))


__all__ = ["clip_polygon", "clip_segments", "clip_to_frame", "draw_boxes", "project_points"]
