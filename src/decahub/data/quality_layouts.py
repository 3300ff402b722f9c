"""Image quality datasets as their authors distribute them: where each folder has its images, scores and references.

A reader turns the unpacked folder of a dataset into rows; images are not read. What a layout is recognized by is the
table of scores that it comes with.
"""

import csv
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .own_tables import read_lines


NUM_TRAINING_IMAGES = 7  # of LIVE Challenge, shown to its observers beforehand
LIVE_FOLDERS = {"jp2k": 227, "jpeg": 233, "wn": 174, "gblur": 174, "fastfading": 174}
CSIQ_TYPES = {"noise": "awgn", "jpeg 2000": "jpeg2000"}  # of the table to the names of files, where they differ
SPLITS = {"training": "train", "train": "train", "validation": "validation", "val": "validation", "test": "test"}
IMAGE_COLUMNS, SCORE_COLUMNS = ("file_name", "image", "name", "path"), ("score", "mos", "dmos")
# Other names that tables give to our columns; left out, they would divide images of one reference, or forget a split.
OTHER_NAMES = {
    "split": ("set", "sets", "splits", "partition"),
    "reference": ("references", "ref", "ref_img", "ref_image", "ref_name", "reference_image"),
}


@dataclass(frozen=True)
class QualityRow:
    """An image with its label."""

    path: Path
    score: float
    reference: str = ""  # image that it was made from; its own name where it is an original
    source: str = ""  # part of the dataset, such as the kind of distortion
    split: str = ""  # where the dataset comes with a split


@dataclass(frozen=True)
class QualityLayout:
    """How a dataset is laid out.

    Args:
        name: Of the dataset.
        marker: Path of the file that shows it.
        read: Gives the rows of a folder.
        score_range: Lowest and highest label.
        lower_is_better: Whether labels are DMOS.
        level_preset: Key of `LEVEL_PRESETS` of the model room.
        columns: Of the marker, where a table of a user may have its name.
    """

    name: str
    marker: str
    read: Callable[[Path, Path], list[QualityRow]]
    score_range: tuple[float, float]
    lower_is_better: bool = False
    level_preset: str = ""
    columns: tuple[str, ...] = ()


def _read_csv(path: Path, *columns: str) -> list[dict[str, str]]:
    """Rows of an official table, which has at least these columns."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        names = [name.strip() for name in reader.fieldnames or ()]
        missing = [name for name in columns if name not in names]
        if missing:
            raise ValueError(f"{path} must have the column {missing[0]!r}; it has {', '.join(names)}.")
        return [{(key or "").strip(): (value or "").strip() for key, value in row.items() if isinstance(value, str)}
                for row in reader]  # fmt: skip


def _read_excel(path: Path, sheet: str | int = 0) -> list[list[Any]]:
    """Cells of a sheet, row by row."""
    try:
        import openpyxl  # noqa: F401 (pandas asks for it)
        import pandas
    except ImportError as error:
        raise ImportError(f'{path.name} needs openpyxl: pip install "decahub[pmt_iqa]".') from error
    return pandas.read_excel(path, sheet_name=sheet, header=None).values.tolist()


def _read_mat(path: Path, name: str) -> list[Any]:
    """A variable of a MATLAB file, flat; cells of text as text."""
    from scipy.io import loadmat

    def unpack(value: Any) -> Any:
        while getattr(value, "size", 0) == 1 and hasattr(value, "item"):
            value = value.item()
        return value

    content = loadmat(path)
    if name not in content:
        raise ValueError(f"{path.name} must hold the variable `{name}`; it has {sorted(content)}.")
    return [unpack(value) for value in content[name].ravel()]


def _index_names(folder: Path) -> dict[str, list[Path]]:
    """Every file below a folder by its name in lower case; archives and tables do not agree on it."""
    names: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            names.setdefault(path.name.lower(), []).append(path)
    return names


def _find(names: Mapping[str, list[Path]], name: str, table: Path) -> Path:
    places = names.get(name.lower(), [])
    if not places:
        raise FileNotFoundError(f"the image {name!r} of {table.name} is not in {table.parent}.")
    if len(places) > 1:
        folders = " and ".join(path.parent.name for path in places)
        raise ValueError(
            f"the image {name!r} of {table.name} must be in one folder; got it in {folders}. Move the others out."
        )
    return places[0]


def read_bid(folder: Path, table: Path) -> list[QualityRow]:
    """`DatabaseGrades.xlsx` (number, MOS in 0..5) and `DatabaseImage0001.JPG` ..."""
    names = _index_names(folder)
    rows = [cells for cells in _read_excel(table) if isinstance(cells[0], (int, float)) and cells[0] == cells[0]]
    return [
        QualityRow(_find(names, f"DatabaseImage{int(number):04d}.JPG", table), float(mos)) for number, mos, *_ in rows
    ]


def read_live(folder: Path, table: Path) -> list[QualityRow]:
    """`dmos_realigned.mat`, `refnames_all.mat`, five folders of `img<number>.bmp`; originals are left out."""
    names = _read_mat(folder / "refnames_all.mat", "refnames_all")
    scores, is_original = _read_mat(table, "dmos_new"), _read_mat(table, "orgs")
    counts = {kind: len(list((folder / kind).glob("img*.bmp"))) for kind in LIVE_FOLDERS}
    if sum(counts.values()) != len(scores):
        raise ValueError(f"{table.name} must have a score for each image; it has {len(scores)}, images are {counts}.")
    places = [(kind, number) for kind, count in counts.items() for number in range(1, count + 1)]
    return [
        QualityRow(folder / kind / f"img{number}.bmp", float(score), str(name), kind)
        for (kind, number), score, original, name in zip(places, scores, is_original, names, strict=True)
        if not original and score >= 0
    ]


def read_live_challenge(folder: Path, table: Path) -> list[QualityRow]:
    """`Data/AllImages_release.mat`, `Data/AllMOS_release.mat`, `Images/`; the first 7, for training, are left out."""
    images = _read_mat(table.parent / "AllImages_release.mat", "AllImages_release")
    scores = _read_mat(table, "AllMOS_release")
    pairs = list(zip(images, scores, strict=True))[NUM_TRAINING_IMAGES:]
    return [QualityRow(folder / "Images" / str(name), float(score)) for name, score in pairs]


def read_koniq10k(folder: Path, table: Path) -> list[QualityRow]:
    """`koniq10k_scores_and_distributions.csv` (`MOS_zscore` in 0..100), images in `1024x768/` or `512x384/`."""
    names = _index_names(folder)
    sets = folder / "koniq10k_distributions_sets.csv"
    set_rows = _read_csv(sets, "image_name", "set") if sets.is_file() else []
    splits = {row["image_name"]: SPLITS.get(row["set"], row["set"]) for row in set_rows}
    return [
        QualityRow(
            _find(names, row["image_name"], table), float(row["MOS_zscore"]), split=splits.get(row["image_name"], "")
        )
        for row in _read_csv(table, "image_name", "MOS_zscore")
    ]


def read_csiq(folder: Path, table: Path) -> list[QualityRow]:
    """`csiq.DMOS.xlsx` (sheet `all_by_image`), or `csiq_label.txt`; images `<reference>.<type>.<level>.png` below."""
    names = _index_names(folder)
    if table.suffix == ".txt":
        pairs = [line.split() for line in table.read_text(encoding="utf-8").splitlines() if line.strip()]
    else:
        cells = _read_excel(table, "all_by_image")
        start = next(index for index, row in enumerate(cells) if "dmos" in row and "image" in row)
        columns = {name: cells[start].index(name) for name in ("image", "dst_type", "dst_lev", "dmos")}
        pairs = []
        for row in cells[start + 1 :]:
            image, kind, level, dmos = (row[column] for column in columns.values())
            kind = CSIQ_TYPES.get(str(kind).lower(), str(kind))
            pairs.append([f"{image}.{kind}.{int(level)}.png", dmos])
    rows = []
    for name, dmos in pairs:
        reference, kind = name.split(".")[:2]
        rows.append(QualityRow(_find(names, name, table), float(dmos), reference, kind.lower()))
    return rows


def read_tid2013(folder: Path, table: Path) -> list[QualityRow]:
    """`mos_with_names.txt` and `distorted_images/I01_01_1.bmp` (reference, type, level)."""
    names = _index_names(folder)
    rows = []
    for line in table.read_text(encoding="utf-8").splitlines():
        if line.strip():
            score, name = line.split()
            reference, kind = Path(name).stem.upper().split("_")[:2]
            rows.append(QualityRow(_find(names, name, table), float(score), reference, kind))
    return rows


def read_kadid10k(folder: Path, table: Path) -> list[QualityRow]:
    """`dmos.csv` (1..5; a larger value is a better image, despite its name) and `images/`."""
    return [
        QualityRow(
            folder / "images" / row["dist_img"],
            float(row["dmos"]),
            Path(row["ref_img"]).stem,
            Path(row["dist_img"]).stem.split("_")[1],
        )
        for row in _read_csv(table)
    ]


def read_biq2021(folder: Path, table: Path) -> list[QualityRow]:
    """`Train (Images and MOS).csv`, `Test (Images and MOS).csv` (MOS in 0..1) and `Images/`."""
    names = _index_names(folder / "Images")
    return [
        QualityRow(
            _find(names, row["Image Name"], path), float(row["MOS"]), source=row["Image Name"].split()[0], split=split
        )
        for split, path in (("train", table), ("test", table.with_name(table.name.replace("Train", "Test"))))
        for row in _read_csv(path, "Image Name", "MOS")
        if row["Image Name"]
    ]


def read_own_table(folder: Path, table: Path) -> list[QualityRow]:
    """A table of your own: a column of file names, one of scores, and perhaps `reference`, `source` and `split`."""
    header, rows = _read_own_csv(table)
    by_name = {name.lower(): name for name in header if name}
    image = next((by_name[name] for name in IMAGE_COLUMNS if name in by_name), None)
    score = next((by_name[name] for name in SCORE_COLUMNS if name in by_name), None)
    if image is None or score is None:
        raise ValueError(
            f"{table} must have a column of images ({', '.join(IMAGE_COLUMNS)}) and one of scores "
            f"({', '.join(SCORE_COLUMNS)}), separated by commas; it has {', '.join(header)}."
        )
    for wanted, others in OTHER_NAMES.items():
        for name in others:
            if name in by_name and wanted not in by_name:
                raise ValueError(f"{table} has the column {by_name[name]!r}; name it {wanted!r}, or drop it.")
    further = [by_name.get(name) for name in ("reference", "source", "split")]
    found: dict[str, QualityRow] = {}
    for line, row in rows:
        if row[image] in found:
            raise ValueError(
                f"{table} must list each image once; {row[image]!r} is in line {line} again. If it has several "
                "scores, take their mean."
            )
        reference, source, split = ("" if name is None else row[name] for name in further)
        score_of_row = _parse_score(row[score], table, line)
        found[row[image]] = QualityRow(
            folder / row[image], score_of_row, reference, source, SPLITS.get(split.lower(), split)
        )
    return list(found.values())


def _read_own_csv(table: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Header and rows of a table of a user, with the line of each row."""
    cells = list(read_lines(table))
    if len(cells) < 2:
        raise ValueError(f"{table} must have at least one row below its header; it has none.")
    (_, header), *rows = cells
    names = [name.lower() for name in header if name]
    if len(set(names)) < len(names):
        raise ValueError(f"{table} must have columns of different names; it has {', '.join(header)}.")
    return header, [(line, dict(zip(header, row, strict=True))) for line, row in rows]


def _parse_score(text: str, table: Path, line: int) -> float:
    """The score; NaN for an empty cell."""
    if not text:
        return math.nan
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f"scores in {table} must be numbers; got {text!r} in line {line}.") from error


LAYOUTS: tuple[QualityLayout, ...] = (
    QualityLayout("BID", "DatabaseGrades.xlsx", read_bid, (0.0, 5.0), level_preset="bid"),
    QualityLayout("LIVE", "dmos_realigned.mat", read_live, (0.0, 100.0), True, "live"),
    QualityLayout(
        "LIVE Challenge", "Data/AllMOS_release.mat", read_live_challenge, (0.0, 100.0), level_preset="live_challenge"
    ),
    QualityLayout(
        "KonIQ-10k", "koniq10k_scores_and_distributions.csv", read_koniq10k, (0.0, 100.0), level_preset="koniq10k"
    ),
    QualityLayout("CSIQ", "csiq.DMOS.xlsx", read_csiq, (0.0, 1.0), True, "csiq"),
    QualityLayout("CSIQ", "csiq_label.txt", read_csiq, (0.0, 1.0), True, "csiq"),
    QualityLayout("TID2013", "mos_with_names.txt", read_tid2013, (0.0, 9.0), level_preset="tid2013"),
    QualityLayout(
        "KADID-10k",
        "dmos.csv",
        read_kadid10k,
        (1.0, 5.0),
        level_preset="kadid10k",
        columns=("dist_img", "ref_img", "dmos"),
    ),
    QualityLayout("BIQ2021", "Train (Images and MOS).csv", read_biq2021, (0.0, 1.0), level_preset="biq2021"),
)
"""Official layouts, in the order in which a folder is compared with them."""
OWN_TABLES = ("scores.csv", "mos.csv", "dmos.csv", "labels.csv")


def find_layout(folder: Path) -> tuple[QualityLayout | None, Path] | None:
    """Layout of a folder and its table, without a layout for a table of a user; none where nothing is recognized.

    Raises:
        ValueError: If there are several tables, of which all but one would be left out.
    """
    official = next((layout for layout in LAYOUTS if _has_table(folder, layout)), None)
    tables = [] if official is None else [folder / official.marker]
    tables += [folder / name for name in OWN_TABLES if (folder / name).is_file() and folder / name not in tables]
    if len(tables) > 1:
        raise ValueError(
            f"{folder} must have one table of scores; got {' and '.join(table.name for table in tables)}. Move the "
            "others out."
        )
    return (official, tables[0]) if tables else None


def _has_table(folder: Path, layout: QualityLayout) -> bool:
    table = folder / layout.marker
    if not table.is_file() or not layout.columns:
        return table.is_file()
    return set(layout.columns) <= set(next(read_lines(table), (0, []))[1])


def read_layout(folder: Path, layout: QualityLayout | None, table: Path) -> list[QualityRow]:
    """Rows of a folder; refuses images that are missing.

    Raises:
        FileNotFoundError: If an image of the table does not exist.
        ValueError: If the table cannot be read.
    """
    rows = (read_own_table if layout is None else layout.read)(folder, table)
    missing = [row.path for row in rows if not row.path.is_file()]
    if missing:
        raise FileNotFoundError(f"{len(missing)} images of {table} are missing, the first is {missing[0]}.")
    return rows


def group_by_split(rows: Sequence[QualityRow]) -> Iterator[tuple[str, list[QualityRow]]]:
    """Rows of each split that the dataset comes with; `all` where it has none.

    Raises:
        ValueError: If some rows have a split and others do not.
    """
    names = {row.split for row in rows}
    if "" in names and len(names) > 1:
        raise ValueError(f"each image must have a split, or none may; got {sorted(names)}.")
    for name in sorted(names, key=lambda name: (name != "train", name)):
        if name and not re.fullmatch(r"\w+", name):
            raise ValueError(f"a split must be named by letters and digits; got {name!r}.")
        yield name or "all", [row for row in rows if row.split == name]


__all__ = ["LAYOUTS", "QualityLayout", "QualityRow", "find_layout", "group_by_split", "read_layout"]
