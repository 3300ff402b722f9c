"""Files of instances as COCO lays them out: a JSON file and a folder of images for each split, or parquet."""

import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path, PurePath
from typing import Any

import datasets

from .coco_masks import compute_area, encode_segmentation


logger = logging.getLogger(__name__)

CATEGORIES_FILE = "categories.json"
NOT_SPLITS = ("categories", "few_shot_splits")
# Where the JSON file of a split may be, and where its images; {split} is the name of the split.
JSON_PATTERNS = ("*.json", "annotations/*.json", "*/_annotations.coco.json")
IMAGE_FOLDERS = ("{split}", "images/{split}", "images", ".")
# What entries must have, and of which type.
ENTRIES: dict[str, dict[str, Any]] = {
    "images": {"id": Integral, "file_name": str, "height": Integral, "width": Integral},
    "annotations": {"id": Integral, "image_id": Integral, "category_id": Integral},
    "categories": {"id": Integral, "name": object},
}
TYPE_NAMES: dict[Any, str] = {Integral: "a whole number", str: "a text", object: "something"}
MISSING = "none"


def build_features(label_names: Sequence[str]) -> datasets.Features:
    """The columns of instance data with these classes."""
    annotation = {
        "id": datasets.Value("int64"),
        "label": datasets.ClassLabel(names=list(label_names)),
        "segmentation": datasets.Value("string"),  # JSON: polygons or a COCO RLE, as in the file
        "iscrowd": datasets.Value("bool"),
        "area": datasets.Value("float64"),
    }
    return datasets.Features(
        {"image": datasets.Image(), "image_id": datasets.Value("int64"), "annotations": datasets.List(annotation)}
    )


def find_coco_files(folder: Path) -> dict[str, list[Path]]:
    """The annotations of each split in a folder; empty if there are none.

    `<split>.json`, `annotations/<split>.json` (also `instances_<split>.json`) or `<split>/_annotations.coco.json`,
    with images in `<split>/`, `images/<split>/` or `images/`; or `<split>.parquet` beside `categories.json`.

    Raises:
        ValueError: If a split has two of them.
    """
    if (folder / CATEGORIES_FILE).is_file():
        return {path.stem: [path] for path in sorted(folder.glob("*.parquet"))}
    found: dict[str, list[Path]] = {}
    for pattern in JSON_PATTERNS:
        for path in sorted(folder.glob(pattern)):
            split = name_split(path)
            if split in found:
                raise ValueError(
                    f"the split {split!r} must have one file of annotations; got {found[split][0]} and {path}. Move "
                    "one of them out of the folder."
                )
            if split not in NOT_SPLITS:
                found[split] = [path]
    return found


def name_split(path: Path) -> str:
    """The split that a JSON file belongs to."""
    return path.parent.name if path.name.startswith("_") else path.stem.removeprefix("instances_")


def read_coco_files(files: Mapping[str, Sequence[Path]], entry: Any = None) -> datasets.DatasetDict:
    """Dataset of what `find_coco_files` found; images are read when a row is asked for.

    The ids of classes follow the ascending ids of the categories.

    Raises:
        FileNotFoundError: If an image is missing.
        ValueError: If a file is not in the format of COCO; the message names the first problem.
    """
    readers = {".json": read_coco_json, ".parquet": read_coco_parquet}
    return datasets.DatasetDict({split: readers[path.suffix](path, split) for split, (path,) in files.items()})


def read_coco_json(path: Path, split: str) -> datasets.Dataset:
    """One split of a COCO file."""
    content = _read_json(path)
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise ValueError(f"{path} must be a COCO file with `images`, `annotations` and `categories`; no `{key}`.")
        check_entries(content[key], key, str(path))
    is_below = path.parent.name == "annotations" or path.name.startswith("_")
    root = path.parent.parent if is_below else path.parent
    folder = _find_image_folder(root, split, content["images"], path)
    by_image: dict[int, list[Mapping[str, Any]]] = {image["id"]: [] for image in content["images"]}
    for annotation in content["annotations"]:
        if annotation.get("image_id") not in by_image:
            raise ValueError(
                f"annotation {annotation.get('id')!r} of {path} must belong to one of the `images`; got the "
                f"`image_id` {annotation.get('image_id')!r}."
            )
        by_image[annotation["image_id"]].append(annotation)
    names, label_ids = read_categories(content["categories"], str(path))
    rows = [
        (str(folder / image["file_name"]), image["id"], by_image[image["id"]], (image["height"], image["width"]))
        for image in content["images"]
    ]
    return build_rows(rows, names, label_ids, str(path))


def read_coco_parquet(path: Path, split: str) -> datasets.Dataset:
    """One split of a parquet file with `image`, `image_id`, `height`, `width` and `annotations` (JSON of COCO)."""
    names, label_ids = read_categories(_read_json(path.with_name(CATEGORIES_FILE)), str(path))
    from .loading import without_progress

    with without_progress():
        table = datasets.Dataset.from_parquet(str(path)).cast_column("image", datasets.Image(decode=False))
    rows = [
        (row["image"], row["image_id"], json.loads(row["annotations"]), (row["height"], row["width"])) for row in table
    ]
    built = build_rows(rows, names, label_ids, str(path))
    return built.add_column("license", table["license"][:]) if "license" in table.column_names else built


def read_categories(categories: Any, where: str) -> tuple[list[str], dict[int, int]]:
    """Names of the classes in the order of their ids, and the class of each category id."""
    if not isinstance(categories, list) or not categories:
        raise ValueError(f"the categories of {where} must be a list that is not empty; got {str(categories)[:80]}.")
    check_entries(categories, "categories", where)
    ordered = sorted(categories, key=lambda category: category["id"])
    names = [str(category["name"]) for category in ordered]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"the categories of {where} must have names of their own; got {twice[0]!r} twice.")
    return names, {category["id"]: label for label, category in enumerate(ordered)}


def check_entries(entries: Sequence[Any], kind: str, where: str) -> None:
    """Refuses images, annotations or categories that lack something, or that share an id."""
    for place, entry in enumerate(entries):
        for key, expected in ENTRIES[kind].items():
            given = entry.get(key, MISSING) if isinstance(entry, Mapping) else entry
            if not isinstance(entry, Mapping) or given is MISSING or not isinstance(given, expected):
                raise ValueError(
                    f"entry {place} of the `{kind}` of {where} must have {TYPE_NAMES[expected]} as `{key}`; got "
                    f"{str(given)[:80]!r}."
                )
        if kind == "images" and min(entry["height"], entry["width"]) < 1:
            raise ValueError(
                f"image {entry['id']} of {where} must have at least one pixel; got {entry['height']} x "
                f"{entry['width']}."
            )
    twice = [number for number, count in Counter(entry["id"] for entry in entries).items() if count > 1]
    if twice:
        raise ValueError(f"the `{kind}` of {where} must have ids of their own; {twice[0]} is there twice.")


def build_rows(
    rows: Iterable[tuple[Any, int, Sequence[Mapping[str, Any]], tuple[int, int]]],
    label_names: Sequence[str],
    label_ids: Mapping[int, int],
    where: str,
) -> datasets.Dataset:
    """Dataset of images (file, or what the feature `Image` takes) with their ids, COCO annotations and sizes.

    Instances without a pixel are left out, with a warning: nothing could be learned from them, or find them.
    """
    columns: dict[str, list[Any]] = {"image": [], "image_id": [], "annotations": []}
    empty: list[int] = []
    for image, image_id, annotations, (height, width) in rows:
        columns["image"].append(image)
        columns["image_id"].append(image_id)
        read = [_read_annotation(annotation, label_ids, height, width, where) for annotation in annotations]
        columns["annotations"].append([annotation for annotation, num_pixels in read if num_pixels])
        empty += [annotation["id"] for annotation, num_pixels in read if not num_pixels]
    if empty:
        logger.warning(f"Left out {len(empty)} annotations of {where} whose masks are empty; the first is {empty[0]}.")
    return datasets.Dataset.from_dict(columns, features=build_features(label_names))


def _read_annotation(
    annotation: Mapping[str, Any], label_ids: Mapping[int, int], height: int, width: int, where: str
) -> tuple[dict[str, Any], float]:
    """An annotation as it is stored, and its pixels."""
    name = f"annotation {annotation.get('id')!r} of {where}"
    if annotation.get("category_id") not in label_ids:
        raise ValueError(f"{name} must have one of the categories; got {annotation.get('category_id')!r}.")
    if not annotation.get("segmentation"):
        raise ValueError(f"{name} must have a `segmentation`, polygons or an RLE; a box alone is no instance mask.")
    try:
        rle = encode_segmentation(annotation["segmentation"], height, width)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: {error}") from error
    area, num_pixels = annotation.get("area"), compute_area(rle)
    if area is not None and not isinstance(area, Real):
        raise ValueError(f"{name} must have a number as `area`; got {area!r}.")
    stored = {
        "id": annotation["id"],
        "label": label_ids[annotation["category_id"]],
        "segmentation": json.dumps(rle),
        "iscrowd": bool(annotation.get("iscrowd", False)),
        "area": num_pixels if area is None else float(area),
    }
    return stored, num_pixels


def _find_image_folder(root: Path, split: str, images: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """The folder that has the most of the images; refused if it lacks one, or if a name leads out of it."""
    folders = [root / pattern.format(split=split) for pattern in IMAGE_FOLDERS]
    names = [image["file_name"] for image in images]
    for name in names:
        if PurePath(name).is_absolute() or ".." in PurePath(name).parts:
            raise ValueError(
                f"each `file_name` of {path} must be a path within the folder of the images; got {name!r}."
            )
    missing = {folder: [name for name in names if not (folder / name).is_file()] for folder in folders}
    best = min(folders, key=lambda folder: len(missing[folder]))
    if missing[best]:
        tried = ", ".join(str(folder) for folder in folders)
        raise FileNotFoundError(
            f"the images of {path} must be in one of {tried}; {len(missing[best])} are missing, the first is "
            f"{missing[best][0]!r}."
        )
    return best


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} must be a JSON file; {error}. Is it truncated?") from error


__all__ = ["build_features", "build_rows", "find_coco_files", "read_coco_files"]
