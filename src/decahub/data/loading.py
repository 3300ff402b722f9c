"""`load_dataset`: one call for the catalog's datasets and for a user's own, with the same columns for both."""

import importlib
import inspect
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import datasets
import pyarrow.compute as pc

from .catalog import DATASETS, DatasetEntry
from .family import DataFamily, get_family
from .image_tables import find_image_tables, read_texts, warn_of_unlisted_images


class ColumnTypeError(TypeError, ValueError):
    """A column of another kind: an error in a user's data."""


logger = logging.getLogger(__name__)

DATA_DIR_VARIABLE = "DECAHUB_DATA_DIR"
LABEL_COLUMN = "label"


def load_dataset(
    name: str | os.PathLike,
    data_dir: str | os.PathLike | None = None,
    *,
    family: str | None = None,
    needs_labels: bool = True,
) -> datasets.DatasetDict:
    """Load a dataset with the columns of its family.

    A name of `DATASETS` is looked for as `<data_dir>/<folder>/<split>.parquet` (graphs: `.npz`). Without `data_dir`
    the variable `DECAHUB_DATA_DIR` gives the directory; where that has no such folder either, the Hub is asked. An
    explicit `data_dir` is never replaced by the Hub.

    Anything else is a user's own data, here or in `data_dir`, and needs `family`: a folder of `<split>.parquet` files,
    a folder of images in the layout of `datasets`' `imagefolder` (`<split>/<class>/<file>`, or `<split>/<file>` with a
    table `<split>/metadata.csv` of `file_name` and `label`), a folder of images and maps of classes
    (`<split>/images/<name>.jpg`, `<split>/annotations/<name>.png`), a folder of images with a table `scores.csv` or in
    an official layout (`decahub.data.quality_layouts`), a COCO file and a folder of images for each split
    (`<split>.json`, `<split>/<file>`; see `decahub.data.coco_files`), a folder of graphs (`<graph>.npz`, the arrays of
    `decahub.data.graph_files`), a folder of grooves (`<split>/<name>.mid`), a folder of tables of
    people (`<split>.csv`), a folder of frames (`<split>/<name>.json`,
    the tables of `decahub.models.cmt.frame_files`), nuScenes in its official layout, or the id of a repository on the
    Hub.

    Columns by family:

    - `"image-classification"`: `image`, `label` (a `ClassLabel`).
    - `"semantic-segmentation"`: `image`, `annotation` (an image whose values are class ids; 255 is ignored).
    - `"node-classification"`: one split `graph` with one row for each graph, in numpy format: `node_features`
      `(num_nodes, num_features)`, `edge_index` `(num_edges, 2)`, `labels` (-100: none), `train_mask`,
      `validation_mask`, `test_mask` `(num_splits, num_nodes)`, and where there is one `sensitive`.
    - `"object-detection-3d"`: `images`, `intrinsics` and `lidar2cam` of the cameras, `points`, `boxes`, `labels`; see
      `decahub.data.object_detection_3d`.
    - `"image-quality"`: `image`, `score` (MOS or DMOS), and where there are such `name`, `reference`, `source`.
    - `"few-shot-instance-segmentation"`: `image`, `image_id`, `annotations`: a list with `id`, `label` (a
      `ClassLabel`), `segmentation` (JSON of a COCO RLE), `iscrowd` and `area` for each instance.
    - `"cohorts"`: one row for each person: `group` ("control" or a diagnosis), features, covariates, and where there
      are such `id` and `subtype`.
    - `"drum-generation"`: `midi`, the bytes of a file, and where it is known `name`, `style`, `bpm`, `time_signature`.

    Args:
        name (`str` or path): Name in the catalog, folder, or Hub id.
        data_dir (`str` or path, *optional*): Directory of the catalog's folders.
        family (`str`, *optional*): Kind of data, for a user's own.
        needs_labels (`bool`): Whether images must have a class; without, a folder of images will do.

    Returns:
        `datasets.DatasetDict`: one `Dataset` per split.

    Raises:
        FileNotFoundError: If the data is in none of the places; the message lists them.
        TypeError: If a column is of another kind.
        ValueError: If the name or family is unknown, a column is missing, or a label is out of range.
    """
    entry = DATASETS.get(str(name))
    if entry is None:
        name = find_own_folder(name, data_dir) or name
        _check_own_name(name)
        kind = get_family(family)
        return _normalize(_encode_labels(_load_own(name, kind), needs_labels), kind, str(name), needs_labels)
    if family not in (None, entry.family):
        raise ValueError(f"`family` of {entry.name!r} must be {entry.family!r}; got {family!r}. Leave it out.")
    kind = get_family(entry.family)
    loaded = _normalize(_load_entry(entry, kind, data_dir), kind, entry.name, needs_labels)
    if entry.void_label is None or kind.ignore_label is None:
        return loaded
    return kind.ignore_label(loaded, entry.void_label)


def _load_entry(entry: DatasetEntry, kind: DataFamily, data_dir: str | os.PathLike | None) -> datasets.DatasetDict:
    if entry.builder is not None:
        module_name, function_name = entry.builder.split(":")
        build = getattr(importlib.import_module(module_name), function_name)
        return build(data_dir) if "data_dir" in inspect.signature(build).parameters else build()
    directory = data_dir or os.environ.get(DATA_DIR_VARIABLE)
    tried = []
    if directory:
        folder = Path(directory) / entry.folder
        files = {split: folder / f"{stem}.{entry.file_format}" for split, stem in entry.splits.items()}
        if all(path.is_file() for path in files.values()):
            if kind.read_files is not None and (kind.reads_parquet or entry.file_format != "parquet"):
                return kind.read_files({split: [path] for split, path in files.items()}, entry)
            return _rename(_read_parquet(files), entry.columns)
        tried = [str(path) for path in files.values() if not path.is_file()]
    if data_dir or entry.hub_id is None:
        raise FileNotFoundError(_describe_absence(entry, tried))
    logger.warning(f"Loading {entry.name} from the Hub ({entry.hub_id}). {entry.hub_note}")
    try:
        return _rename(datasets.load_dataset(entry.hub_id), entry.hub_columns)
    except OSError as error:  # also ConnectionError and the Hub's not-found and offline errors
        raise FileNotFoundError(_describe_absence(entry, [*tried, f"Hub repository {entry.hub_id}"])) from error


def _describe_absence(entry: DatasetEntry, tried: Iterable[str]) -> str:
    places = (
        ", ".join(tried) or f"nowhere (`--data-dir` and ${DATA_DIR_VARIABLE} are not set, no Hub repository is known)"
    )
    files = ", ".join(f"{entry.folder}/{stem}.{entry.file_format}" for stem in entry.splits.values())
    return (
        f"`{entry.name}` was not found; tried {places}. Set `--data-dir` or ${DATA_DIR_VARIABLE} to a directory "
        f"that holds {files}. Source of the data: {entry.homepage}"
    )


def find_own_folder(name: str | os.PathLike, data_dir: str | os.PathLike | None = None) -> Path | None:
    """A user's own folder of data: the path itself, or a folder of that name in the directory of the datasets."""
    directory = data_dir or os.environ.get(DATA_DIR_VARIABLE)
    paths = [Path(name), *([Path(directory, name)] if directory and len(Path(name).parts) == 1 else [])]
    return next((path for path in paths if path.is_dir()), None)


def _looks_like_hub_id(name: str | os.PathLike) -> bool:
    return str(name).count("/") == 1 and not Path(name).is_absolute()


def _check_own_name(name: str | os.PathLike) -> None:
    folder = Path(name)
    if folder.is_dir() or _looks_like_hub_id(name):
        return
    if folder.parent != Path():
        raise FileNotFoundError(f"`{name}` was not found; tried the folder {folder.resolve()}.")
    nearest = get_close_matches(str(name), DATASETS, n=1)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    raise ValueError(f"`name` must be one of {', '.join(DATASETS)}, a folder or a Hub id; got {str(name)!r}.{hint}")


def _load_own(name: str | os.PathLike, kind: DataFamily) -> datasets.DatasetDict:
    folder = Path(name)
    if folder.is_dir():
        files = {path.stem: path for path in sorted(folder.glob("*.parquet"))}
        if kind.find_files is not None and kind.read_files is not None and (found := kind.find_files(folder)):
            _refuse_both(folder, found, files)
            return kind.read_files(found)
        if files:
            return _read_parquet(files)
        tables = find_image_tables(folder)
        with without_progress():
            loaded = datasets.load_dataset("imagefolder", data_dir=str(folder))
            loaded = _name_numbers(loaded, read_texts(tables, LABEL_COLUMN))
        warn_of_unlisted_images(tables, loaded)
        return loaded
    try:
        return datasets.load_dataset(str(name))
    except OSError as error:
        raise FileNotFoundError(
            f"`{name}` was not found; tried the folder {folder.resolve()} and the Hub repository {name}."
        ) from error


def _refuse_both(folder: Path, found: Mapping[str, list[Path]], parquet: Mapping[str, Path]) -> None:
    """Refuses parquet files beside those of another kind, which would be left out."""
    others = [path for paths in found.values() for path in paths if path not in parquet.values()]
    if others and parquet:
        raise ValueError(
            f"`{folder}` must hold data of one kind; got {others[0].relative_to(folder)} and "
            f"{next(iter(parquet.values())).name}. Move one of them out."
        )


def _read_parquet(files: dict[str, Path]) -> datasets.DatasetDict:
    with without_progress():
        return datasets.load_dataset("parquet", data_files={split: str(path) for split, path in files.items()})


@contextmanager
def without_progress() -> Iterator[None]:
    """Hides the bars of `datasets`, which call the reading of local files a download."""
    if datasets.are_progress_bars_disabled():
        yield
        return
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.enable_progress_bars()


def _rename(loaded: datasets.DatasetDict, columns: Mapping[str, str]) -> datasets.DatasetDict:
    present = next(iter(loaded.values())).column_names
    return loaded.rename_columns({old: new for old, new in columns.items() if old in present})


def _name_numbers(loaded: datasets.DatasetDict, written: Iterable[str]) -> datasets.DatasetDict:
    """Numbers as labels, as a table beside the images may have them, as classes in their order, named as written."""
    features = next(iter(loaded.values())).features
    if features.get(LABEL_COLUMN) != datasets.Value("int64"):
        return loaded
    numbers = {number for rows in loaded.values() for number in rows.unique(LABEL_COLUMN)}
    if None in numbers or min(numbers) < 0:
        wrong = "none" if None in numbers else min(numbers)
        raise ValueError(f"column `{LABEL_COLUMN}` must hold a class in each row; got {wrong}. Drop unlabeled rows.")
    names = dict.fromkeys(sorted(numbers), "")
    for text in sorted(written):
        if names.get(int(text)):
            raise ValueError(
                f"column `{LABEL_COLUMN}` must write each class in one way; got {names[int(text)]!r} and {text!r}."
            )
        names[int(text)] = text
    texts = loaded.cast_column(LABEL_COLUMN, datasets.Value("string"))
    named = texts.cast_column(LABEL_COLUMN, datasets.ClassLabel(names=[str(number) for number in names]))
    names_or_numbers = [name or str(number) for number, name in names.items()]
    return named.cast_column(LABEL_COLUMN, datasets.ClassLabel(names=names_or_numbers))


def _encode_labels(loaded: datasets.DatasetDict, needs_labels: bool) -> datasets.DatasetDict:
    """Text labels, as a table beside the images has them, as class ids in the order of their names."""
    if not needs_labels and any(None in rows.unique(LABEL_COLUMN) for rows in loaded.values() if _has_labels(rows)):
        return loaded.remove_columns(LABEL_COLUMN)  # classes that were made up from the names of folders
    texts = [split for split, rows in loaded.items() if _has_labels(rows) and _is_text(rows.features[LABEL_COLUMN])]
    if not texts:
        return loaded
    names = sorted({name for split in texts for name in loaded[split].unique(LABEL_COLUMN) if name is not None})
    return loaded.cast_column(LABEL_COLUMN, datasets.ClassLabel(names=names))


def _has_labels(rows: datasets.Dataset) -> bool:
    return LABEL_COLUMN in rows.column_names


def _is_text(feature: Any) -> bool:
    return isinstance(feature, datasets.Value) and feature.dtype in ("string", "large_string")


def _normalize(
    loaded: datasets.DatasetDict, kind: DataFamily, source: str, needs_labels: bool
) -> datasets.DatasetDict:
    for split, dataset in loaded.items():
        where = f"split {split!r} of {source!r}"
        for column, feature_types in kind.columns.items():
            if column == LABEL_COLUMN and not needs_labels and column not in dataset.column_names:
                continue
            allowed = feature_types if isinstance(feature_types, tuple) else (feature_types,)
            _check_column(dataset, column, allowed, where)
        if kind.finish_loading is not None:
            loaded[split] = kind.finish_loading(dataset, where)
    return loaded


def _check_column(dataset: datasets.Dataset, column: str, feature_types: tuple[type, ...], where: str) -> None:
    if column not in dataset.column_names:
        raise ValueError(
            f"column `{column}` is missing from {where}; it has {', '.join(dataset.column_names)}. "
            f"Rename the column that holds it: `dataset.rename_column(<yours>, {column!r})`, then save it as parquet."
        )
    feature = dataset.features[column]
    if not isinstance(feature, feature_types):
        kind = feature_types[0].__name__
        raise ColumnTypeError(
            f"column `{column}` of {where} must be a `datasets.{kind}`; got {feature}. "
            f"Cast it: `dataset.cast_column({column!r}, datasets.{kind}(...))`."
        )
    if isinstance(feature, datasets.ClassLabel):
        _check_labels(dataset, column, feature.num_classes, where)


def _check_labels(dataset: datasets.Dataset, column: str, num_classes: int, where: str) -> None:
    labels = dataset.data.column(column)
    is_valid = pc.and_(pc.greater_equal(labels, 0), pc.less(labels, num_classes))
    row = pc.index(pc.fill_null(is_valid, False), False).as_py()
    if row >= 0:
        raise ValueError(
            f"column `{column}` of {where} must hold class ids in [0, {num_classes}); got {labels[row].as_py()} in "
            f"row {row}. Unlabeled rows (-1 or none) must be dropped."
        )


__all__ = ["DATA_DIR_VARIABLE", "find_own_folder", "load_dataset", "without_progress"]
