"""Colors and font of the drawings."""

from functools import cache
from typing import Any

from PIL import ImageFont


Color = tuple[int, int, int]
# Ten colors that are easy to tell apart on photographs and on white.
PALETTE: tuple[Color, ...] = (
    (235, 110, 20), (200, 40, 45), (150, 105, 20), (175, 40, 150), (105, 70, 190),
    (75, 100, 125), (225, 55, 120), (20, 140, 125), (30, 105, 215), (65, 140, 30),
)  # fmt: skip
PAPER: Color = (255, 255, 255)
INK: Color = (45, 52, 64)
FAINT: Color = (205, 210, 218)
LABEL_GRAY: Color = (120, 128, 140)
ANNOTATION: Color = (15, 15, 15)
ANNOTATION_ON_IMAGE: Color = (255, 255, 255)


def get_color(label: int) -> Color:
    """Color of a class; after the tenth they repeat."""
    return PALETTE[label % len(PALETTE)]


@cache
def get_font(size: int) -> Any:
    """Pillow's own font."""
    return ImageFont.load_default(size=max(size, 6))


__all__ = ["Color", "get_color", "get_font"]
