"""Reading image files as a viewer shows them, and finding damaged ones before training."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image
from tqdm.auto import tqdm

from decahub.models.shared.pixels import UNREADABLE, check_size, read_image


if TYPE_CHECKING:
    import datasets


SMALL = (64, 64)  # JPEG files are decoded at a fraction of their size where no pixel is looked at


def check_images(rows: "datasets.Dataset", column: str, where: str, show_progress: bool = True) -> list[int]:
    """Decode every image of a column, so that a damaged one is found before hours of training and not after them.

    Args:
        rows (`datasets.Dataset`): One split.
        column (`str`): Column of images.
        where (`str`): Name of the split, for the message.
        show_progress (`bool`): Whether to show a progress bar.

    Returns:
        `list[int]`: For each size that occurs, the first row of that size.

    Raises:
        ValueError: If images cannot be decoded; the message names the first one and says how many there are.
    """
    bad = []
    by_size: dict[tuple[int, int], int] = {}
    for number, (name, file) in enumerate(
        tqdm(_iterate_files(rows, column), total=len(rows), desc=f"Checking {where}", disable=not show_progress)
    ):
        try:
            with Image.open(file) as image:
                check_size(image)
                by_size.setdefault(image.size, number)
                image.draft("RGB", SMALL)
                image.load()
        except UNREADABLE as error:
            bad.append(f"row {number} ({name}): {error}")
    if bad:
        raise ValueError(f"`{column}` of {where} must hold intact images; {len(bad)} do not, the first is {bad[0]}.")
    return list(by_size.values())


def check_same_size(rows: "datasets.Dataset", column: str, other: str, where: str) -> None:
    """Compare two columns of images by the headers of their files.

    Raises:
        ValueError: If two images of a row differ in size; the message names the first such row.
    """
    pairs = zip(_iterate_files(rows, column), _iterate_files(rows, other), strict=True)
    for number, ((name, file), (_, other_file)) in enumerate(pairs):
        with Image.open(file) as image, Image.open(other_file) as other_image:
            size, wanted = image.size, other_image.size
        if sorted(size) != sorted(wanted):  # one of them may be turned by its EXIF orientation
            raise ValueError(
                f"`{column}` of {where} must have the size of its `{other}`, {wanted[0]} x {wanted[1]} pixels; got "
                f"{size[0]} x {size[1]} in row {number} ({name})."
            )


def _iterate_files(rows: "datasets.Dataset", column: str) -> Iterator[tuple[str, Any]]:
    """Name and file of each image, not decoded."""
    import datasets

    for row in rows.select_columns([column]).cast_column(column, datasets.Image(decode=False)):
        path, content = row[column]["path"], row[column]["bytes"]
        yield Path(path or "embedded").name, path if content is None else io.BytesIO(content)


__all__ = ["check_images", "check_same_size", "read_image"]
