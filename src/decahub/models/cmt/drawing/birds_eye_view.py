"""Points and boxes from above."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw

from ..boxes.geometry import FORWARD_ANGLE, compute_corners
from .style import FAINT, LABEL_GRAY, PAPER, Color, get_font


RING = 10.0  # meters between circles about the vehicle
LOW, HIGH = -2.5, 2.0  # meters of height over which points turn from light to dark
LIGHTEST, DARKEST = np.array([180.0, 188.0, 202.0]), np.array([70.0, 82.0, 106.0])
VEHICLE = (1.0, 2.2)  # half width and half length in meters
MIN_SPEED = 0.5  # m/s from which on a box has a line of velocity


class BirdsEyeView:
    """A square with the vehicle in its center, which drives upward.

    Args:
        side (`int`): width and height in pixels.
        radius (`float`): distance from the center to the border in meters.
        forward_angle (`float`): forward direction of the vehicle in the frame of the points and boxes, in radians
            counter-clockwise from +x; by default +y, as in the LiDAR frame of nuScenes.
    """

    def __init__(self, side: int, radius: float, forward_angle: float = FORWARD_ANGLE):
        self.side, self.radius = side, radius
        self.forward_angle = forward_angle
        self.image = Image.new("RGB", (side, side), PAPER)
        self.draw = ImageDraw.Draw(self.image, "RGBA")

    def to_pixels(self, points: np.ndarray) -> np.ndarray:
        """Pixels `(..., 2)` of x, y in meters."""
        return self.place(turn_forward_up(points, self.forward_angle))

    def place(self, points: np.ndarray) -> np.ndarray:
        """Pixels `(..., 2)` of meters to the right of the vehicle and ahead of it."""
        return (points * (1, -1) / self.radius + 1) * self.side / 2

    def draw_points(self, points: np.ndarray, size: int = 2) -> None:
        """Points `(num_points, 3 or more)` as squares of `size` pixels, high ones darker and on top."""
        points = points[np.argsort(points[:, 2], kind="stable")]
        share = np.clip((points[:, 2:3] - LOW) / (HIGH - LOW), 0, 1)
        shades = (LIGHTEST + share * (DARKEST - LIGHTEST)).astype(np.uint8)
        columns, rows = np.floor(self.to_pixels(points)).T
        pixels = np.array(self.image)
        for shift in np.ndindex(size, size):
            row, column = rows + shift[0], columns + shift[1]
            is_inside = (column >= 0) & (column < self.side) & (row >= 0) & (row < self.side)
            pixels[row[is_inside].astype(int), column[is_inside].astype(int)] = shades[is_inside]
        self.image.paste(Image.fromarray(pixels))

    def draw_rings(self) -> None:
        """Circles around the vehicle, labeled with their radius in meters."""
        font = get_font(self.side // 55)
        step = RING * max(1, math.ceil(self.radius / RING / 6))
        for meters in np.arange(step, self.radius * math.sqrt(2), step):
            low, high = self.place(np.array([[-meters, meters], [meters, -meters]]))
            self.draw.ellipse([*low, *high], outline=FAINT, width=max(1, self.side // 700))
            text = f"{meters:g} m"
            x, y = self.place(np.array([0.0, meters]))
            if 0 < y < self.side:
                self.draw.text(
                    (x, y), text, font=font, fill=LABEL_GRAY, anchor="mm", stroke_width=3, stroke_fill=PAPER
                )

    def draw_vehicle(self) -> None:
        """An arrow for the vehicle that carries the sensors."""
        half_width, half_length = VEHICLE
        outline = [(0, half_length), (half_width, -half_length), (0, -half_length / 2), (-half_width, -half_length)]
        self.draw.polygon([tuple(point) for point in self.place(np.array(outline))], fill=LABEL_GRAY)

    def draw_boxes(self, boxes: np.ndarray, colors: Sequence[Color], line_width: int, opacity: int = 50) -> None:
        """Outlines of boxes `(num_boxes, 7 or 9)`, with a line from the center to the front and on by the velocity."""
        if not len(boxes):
            return
        boxes = np.asarray(boxes, dtype=np.float64)
        bottoms = compute_corners(torch.as_tensor(boxes)).numpy()[:, :4]
        for box, bottom, color in zip(boxes, bottoms, colors, strict=True):
            outline = [tuple(point) for point in self.to_pixels(bottom)]
            self.draw.polygon(outline, fill=(*color, opacity))
            self.draw.line([*outline, outline[0]], fill=(*color, 255), width=line_width, joint="curve")
            front = (bottom[0] + bottom[3]) / 2
            self._draw_line(box[:2], front[:2], color, line_width)
            if len(box) > 7 and np.hypot(*box[7:9]) > MIN_SPEED:
                self._draw_line(front[:2], front[:2] + box[7:9], color, max(1, line_width // 2))

    def _draw_line(self, start: np.ndarray, end: np.ndarray, color: Color, width: int) -> None:
        points = [tuple(point) for point in self.to_pixels(np.stack([start, end]))]
        self.draw.line(points, fill=(*color, 255), width=width)


def turn_forward_up(points: np.ndarray, forward_angle: float) -> np.ndarray:
    """Meters to the right of the vehicle and ahead of it, `(..., 2)`.

    Args:
        points (`numpy.ndarray` of shape `(..., 2 or more)`): x, y in meters.
        forward_angle (`float`): forward direction in their frame, in radians counter-clockwise from +x.
    """
    x, y = np.moveaxis(np.asarray(points)[..., :2], -1, 0)
    cosine, sine = math.cos(forward_angle), math.sin(forward_angle)
    return np.stack([x * sine - y * cosine, x * cosine + y * sine], axis=-1)


__all__ = ["BirdsEyeView", "turn_forward_up"]
