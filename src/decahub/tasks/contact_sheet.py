"""A sheet of small images with a line of text below each, in rows."""

import io
import math
from collections.abc import Sequence
from pathlib import Path


THUMBNAIL, CAPTION, GAP = 160, 18, 8  # pixels
MAX_IMAGES = 400
NUM_COLUMNS = 6


def draw_contact_sheet(paths: Sequence[Path], captions: Sequence[str]) -> bytes:
    """A PNG of images in their order, at most 400 of them: the first and the last ones where there are more.

    Args:
        paths (`Sequence[pathlib.Path]`): Image files.
        captions (`Sequence[str]`): Text below each.
    """
    from PIL import Image, ImageDraw

    from decahub.models.shared.pixels import read_image, to_rgb

    pairs = list(zip(paths, captions, strict=True))
    if len(pairs) > MAX_IMAGES:
        pairs = [*pairs[: MAX_IMAGES // 2], *pairs[-MAX_IMAGES // 2 :]]
    columns = min(NUM_COLUMNS, len(pairs))
    width, height = THUMBNAIL + GAP, THUMBNAIL + CAPTION + GAP
    sheet = Image.new("RGB", (columns * width + GAP, math.ceil(len(pairs) / columns) * height + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (path, caption) in enumerate(pairs):
        left, top = GAP + number % columns * width, GAP + number // columns * height
        image = to_rgb(read_image(path))
        image.thumbnail((THUMBNAIL, THUMBNAIL))
        sheet.paste(image, (left + (THUMBNAIL - image.width) // 2, top + (THUMBNAIL - image.height) // 2))
        draw.text((left, top + THUMBNAIL + 2), caption, fill="black")
    file = io.BytesIO()
    sheet.save(file, "PNG", optimize=True)
    return file.getvalue()


__all__ = ["draw_contact_sheet"]
