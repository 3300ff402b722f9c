"""One sheet for a frame: boxes on all images, and from above with the points."""

import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ..boxes.geometry import FORWARD_ANGLE
from .birds_eye_view import BirdsEyeView, turn_forward_up
from .camera_view import draw_boxes
from .style import ANNOTATION, ANNOTATION_ON_IMAGE, INK, LABEL_GRAY, PAPER, Color, get_color, get_font


# From left to right ahead, then from left to right behind: the six cameras of nuScenes fill two rows.
LAYOUT = (
    "CAM_FRONT_LEFT", "CAM_LEFT", "CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_RIGHT", "CAM_BACK_LEFT", "CAM_BACK",
    "CAM_BACK_RIGHT",
)  # fmt: skip
TILE_HEIGHT = 360  # pixels of an image on the sheet
OVERSAMPLING = 2  # lines are drawn larger and then reduced, which smooths them
GAP = 8
LEGEND_HEIGHT = 44
LINE_WIDTH = 2
MIN_RADIUS, MAX_RADIUS = 15.0, 60.0  # meters shown from above
POINTS_SHOWN = 0.95  # share of the points that is to be within the shown radius


def draw_frame(
    boxes: np.ndarray,
    labels: Sequence[int],
    label_names: Sequence[str] | Mapping[int, str],
    scores: Sequence[float] | None = None,
    *,
    images: Sequence[Image.Image] | None = None,
    lidar2img: np.ndarray | None = None,
    cameras: Sequence[str] | None = None,
    points: np.ndarray | None = None,
    annotations: np.ndarray | None = None,
    radius: float | None = None,
    forward_angle: float = FORWARD_ANGLE,
) -> Image.Image:
    """Boxes of a frame on its images and from above, where the vehicle drives upward.

    Args:
        boxes (`numpy.ndarray` of shape `(num_boxes, 7 or 9)`): center (m), length, width, height (m), yaw (rad) and
            velocity (m/s) in the LiDAR frame.
        labels (`Sequence[int]`): class id of each.
        label_names (`Sequence[str]` or `Mapping[int, str]`): names of the classes by their ids.
        scores (`Sequence[float]`, *optional*): of each box, written beside its class.
        images (`Sequence[PIL.Image.Image]`, *optional*): one for each camera, in RGB and of any size.
        lidar2img (`numpy.ndarray` of shape `(num_cameras, 4, 4)`, *optional*): projections to the pixels of `images`.
        cameras (`Sequence[str]`, *optional*): names of the cameras; those that name a direction are arranged by it.
        points (`numpy.ndarray` of shape `(num_points, 3 or more)`, *optional*): of the LiDAR.
        annotations (`numpy.ndarray` of shape `(num_annotations, 7 or more)`, *optional*): true boxes, drawn in white
            on images and in black from above.
        radius (`float`, *optional*): meters from the vehicle to the border of the view from above; by default what
            boxes and most points need.
        forward_angle (`float`): forward direction of the vehicle in the LiDAR frame, in radians counter-clockwise
            from +x ([`~decahub.models.cmt.boxes.geometry.find_forward_angle`]); by default +y, as in nuScenes.

    Returns:
        `PIL.Image.Image`: in RGB.

    Example:
    ```python
    >>> import numpy as np
    >>> sheet = draw_frame(np.array([[0, 8, 0, 4.5, 1.9, 1.6, 1.57]]), [0], ["car"], scores=[0.9])
    >>> sheet.size
    (728, 780)

    ```
    """
    boxes = np.asarray(boxes, dtype=np.float64).reshape(len(labels), -1 if len(labels) else 9)
    colors = [get_color(int(label)) for label in labels]
    names = [label_names[int(label)] for label in labels]
    captions = names if scores is None else [f"{name} {score:.2f}" for name, score in zip(names, scores, strict=True)]
    true_boxes = np.zeros((0, 9)) if annotations is None else np.asarray(annotations, dtype=np.float64)
    tiles = [
        _draw_tile(image, matrix, boxes, colors, captions, true_boxes, name)
        for image, matrix, name in _arrange(images, lidar2img, cameras)
    ]
    num_columns = math.ceil(len(tiles) / 2)
    num_rows = math.ceil(len(tiles) / num_columns) if tiles else 2
    height = num_rows * TILE_HEIGHT + (num_rows - 1) * GAP
    side = max(height, 2 * TILE_HEIGHT)
    radius = radius or _choose_radius(boxes, true_boxes, points, forward_angle)
    view = BirdsEyeView(side * OVERSAMPLING, radius, forward_angle)
    _draw_scene(view, boxes, colors, true_boxes, points)
    widths = [
        max((tile.width for tile in tiles[column::num_columns]), default=0) for column in range(num_columns)
    ]  # fmt: skip
    left = sum(widths) + GAP * num_columns
    sheet = Image.new("RGB", (left + side, side + GAP + LEGEND_HEIGHT), PAPER)
    for index, tile in enumerate(tiles):
        row, column = divmod(index, num_columns)
        sheet.paste(tile, (sum(widths[:column]) + GAP * column, row * (TILE_HEIGHT + GAP)))
    sheet.paste(view.image.resize((side, side), Image.Resampling.LANCZOS), (left, 0))
    _draw_legend(sheet, side + GAP, Counter(map(int, labels)), label_names, len(true_boxes))
    return sheet


def encode_png(image: Image.Image) -> bytes:
    """An image as a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def _arrange(images: Any, lidar2img: Any, cameras: Sequence[str] | None) -> list[tuple[Image.Image, np.ndarray, str]]:
    """Images with their projections and names, in the order of the sheet."""
    if images is None or not len(images):
        return []
    if lidar2img is None or len(lidar2img) != len(images):
        given = "none" if lidar2img is None else len(lidar2img)
        raise ValueError(f"`lidar2img` must hold a projection for each of {len(images)} images; got {given}.")
    names = list(cameras) if cameras is not None else [""] * len(images)
    if len(names) != len(images):
        raise ValueError(f"`cameras` must hold a name for each of {len(images)} images; got {len(names)}.")
    views = list(zip(images, lidar2img, names, strict=True))
    places = {name: place for place, name in enumerate(LAYOUT)}
    return sorted(views, key=lambda view: places.get(view[2], len(places)))


def _draw_tile(
    image: Image.Image,
    lidar2img: np.ndarray,
    boxes: np.ndarray,
    colors: list[Color],
    captions: list[str],
    true_boxes: np.ndarray,
    name: str,
) -> Image.Image:
    scale = OVERSAMPLING * TILE_HEIGHT / image.height
    large = image.convert("RGB").resize((round(image.width * scale), OVERSAMPLING * TILE_HEIGHT))
    matrix = np.diag([large.width / image.width, large.height / image.height, 1.0, 1.0]) @ np.asarray(lidar2img)
    width = OVERSAMPLING * LINE_WIDTH
    white = [ANNOTATION_ON_IMAGE] * len(true_boxes)
    large = draw_boxes(large, true_boxes, matrix, white, line_width=width // 2, has_front=False)
    large = draw_boxes(large, boxes, matrix, colors, captions, line_width=width)
    tile = large.resize((round(large.width / OVERSAMPLING), TILE_HEIGHT), Image.Resampling.LANCZOS)
    if name:
        text = name.removeprefix("CAM_").replace("_", " ").lower()
        position = (8, TILE_HEIGHT - 8)
        ImageDraw.Draw(tile).text(
            position, text, font=get_font(14), fill=PAPER, anchor="ls", stroke_width=2, stroke_fill=INK
        )
    return tile


def _choose_radius(
    boxes: np.ndarray, true_boxes: np.ndarray, points: np.ndarray | None, forward_angle: float
) -> float:
    def measure(places: np.ndarray) -> np.ndarray:
        return np.abs(turn_forward_up(places, forward_angle)).max(axis=1, initial=0)

    centers = measure(np.concatenate([boxes[:, :2], true_boxes[:, :2]]))
    needed = [float(centers.max(initial=0)) + 4]
    if points is not None and len(points):
        needed.append(float(np.quantile(measure(points), POINTS_SHOWN)))
    return float(np.clip(max(needed), MIN_RADIUS, MAX_RADIUS))


def _draw_scene(
    view: BirdsEyeView, boxes: np.ndarray, colors: list[Color], true_boxes: np.ndarray, points: np.ndarray | None
) -> None:
    view.draw_rings()
    if points is not None:
        view.draw_points(np.asarray(points))
    view.draw_vehicle()
    view.draw_boxes(true_boxes, [ANNOTATION] * len(true_boxes), OVERSAMPLING, opacity=0)
    view.draw_boxes(boxes, colors, OVERSAMPLING * LINE_WIDTH)


def _draw_legend(
    sheet: Image.Image,
    top: int,
    counts: Mapping[int, int],
    label_names: Sequence[str] | Mapping[int, str],
    num_annotations: int,
) -> None:
    """The classes that occur, the most frequent first, and the annotations."""
    draw, font = ImageDraw.Draw(sheet), get_font(17)
    middle, x = top + LEGEND_HEIGHT // 2, 12
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    entries = [(f"{label_names[label]} {count}", get_color(label)) for label, count in ranked]
    if num_annotations:
        entries.append((f"annotated {num_annotations} (white in images)", ANNOTATION))
    for text, color in entries or [("no boxes", LABEL_GRAY)]:
        text = text.replace("_", " ")
        width = draw.textlength(text, font=font)
        if x + 28 + width > sheet.width:
            break
        draw.rectangle([x, middle - 7, x + 14, middle + 7], outline=color, width=3)
        draw.text((x + 22, middle), text, font=font, fill=INK, anchor="lm")
        x += 46 + int(width)


__all__ = ["draw_frame", "encode_png"]
