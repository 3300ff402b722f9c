"""The tables beside images, `<split>/metadata.csv`: what `datasets`' imagefolder does not say of them."""

import csv
import logging
from collections.abc import Sequence
from pathlib import Path

import datasets
from PIL import Image

from .own_tables import read_lines


logger = logging.getLogger(__name__)

TABLE = "metadata.csv"
FILE_COLUMNS = ("file_name", "image_file_name")
OTHER_SEPARATORS = (";", "\t", "|")


def find_image_tables(folder: Path) -> list[Path]:
    """The tables of a folder of images: its own, or one for each split.

    Raises:
        ValueError: If the columns of a table are not separated by commas, none of them names the files, or a line has
            more or fewer values than the header.
    """
    tables = [path for path in (folder / TABLE, *sorted(folder.glob(f"*/{TABLE}"))) if path.is_file()]
    for path in tables:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline().strip()
        names = next(csv.reader([header]), [])
        if {*names} & {*FILE_COLUMNS}:
            for _ in read_lines(path):  # each has as many values as the header
                pass
            continue
        place = f"`{TABLE}` in {path.parent.name!r}"
        for separator in OTHER_SEPARATORS:
            if {*header.replace('"', "").split(separator)} & {*FILE_COLUMNS}:
                raise ValueError(
                    f"{place} must separate its columns by commas; got {separator!r} in {header[:100]!r}. Save it "
                    "again with commas."
                )
        raise ValueError(
            f"{place} must have a column `file_name`; got {', '.join(names) or 'an empty line'}. Write the column "
            "names, such as `file_name,label`, into its first line."
        )
    return tables


def read_texts(tables: Sequence[Path], column: str) -> set[str]:
    """The values of a column as the tables write them, such as 01, which a reader of numbers takes for 1."""
    texts = set()
    for path in tables:
        lines = (values for _, values in read_lines(path))
        header = next(lines)
        if column in header:
            texts |= {values[header.index(column)] for values in lines}
    return texts


def warn_of_unlisted_images(tables: Sequence[Path], loaded: datasets.DatasetDict) -> None:
    """Say how many images were left out since the table in their folder does not list them."""
    if not tables:
        return
    suffixes = Image.registered_extensions()
    listed = {
        Path(row["image"]["path"] or "").resolve()
        for rows in loaded.values()
        for row in rows.select_columns(["image"]).cast_column("image", datasets.Image(decode=False))
    }
    for table in tables:
        files = [path for path in sorted(table.parent.rglob("*")) if path.suffix.lower() in suffixes]
        unlisted = [path for path in files if path.resolve() not in listed]
        if unlisted:
            logger.warning(
                f"Left out {len(unlisted)} of {len(files)} images in {table.parent.name!r}, which its `{table.name}` "
                f"does not list; the first is {unlisted[0].relative_to(table.parent)}."
            )


__all__ = ["find_image_tables", "read_texts", "warn_of_unlisted_images"]
