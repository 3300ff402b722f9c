"""Images with a quality score each: columns `image` and `score`, transforms of crops, collator, official layouts.

`reference` names the image that another one was made from, `source` the part of the dataset that it belongs to, `name`
its file; each is there if the dataset has it.
"""

import logging
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch

from decahub.models.shared.checks import check_probability

from .family import DataFamily
from .image_classification import image_to_tensor
from .image_tables import warn_of_unlisted_images
from .quality_layouts import find_layout, group_by_split, read_layout


logger = logging.getLogger(__name__)
SCORE = "score"
MAX_SEED = 2**31 - 1


def decode_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """One row with its image as bytes of shape `(3, height, width)`; for `InMemoryDataset`."""
    return {"image": image_to_tensor(row["image"]), SCORE: row[SCORE]}


class TrainTransform:
    """One row to `{"pixel_values", "labels"}`: random crops of the image, which may be flipped."""

    def __init__(self, processor: Any, num_crops: int, flip_prob: float):
        self.processor = processor
        self.num_crops = num_crops
        self.flip_prob = flip_prob

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        image = image_to_tensor(row["image"])
        image = image.flip(-1) if random.random() < self.flip_prob else image
        crops = self.processor(
            image,
            crop_strategy="random",
            num_crops=self.num_crops,
            seed=random.randrange(MAX_SEED),
            return_tensors="pt",
        )
        return {"pixel_values": crops["pixel_values"][0], "labels": float(row[SCORE])}


class EvalTransform:
    """One row to what the processor makes of the image, and its score and source."""

    def __init__(self, processor: Any):
        self.processor = processor

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        prepared = self.processor(row["image"], return_tensors="pt")
        example = {name: prepared[name][0] for name in self.processor.model_input_names if name in prepared}
        return {**example, "labels": float(row[SCORE]), "source": row.get("source") or ""}


def build_train_transform(processor: Any, *, num_crops: int = 1, flip_prob: float = 0.5) -> TrainTransform:
    """Random training transform.

    Wrap it into `SeededTransform`, which makes its draws repeatable.

    Args:
        processor: The model's image processor; it cuts and normalizes.
        num_crops (`int`): Crops of an image in one epoch; each has the score of the image.
        flip_prob (`float`): Probability of a horizontal flip.
    """
    if num_crops < 1:
        raise ValueError(f"`num_crops` must be at least 1; got {num_crops}.")
    check_probability("flip_prob", flip_prob)
    return TrainTransform(processor, num_crops, flip_prob)


def build_eval_transform(processor: Any) -> EvalTransform:
    """Deterministic transform for evaluation.

    Raises:
        ValueError: If `processor` does not give crops, which scores of a batch need.
    """
    if getattr(processor, "crop_strategy", "grid") == "dense":
        raise ValueError("`crop_strategy` must be one that cuts crops to evaluate in batches; got 'dense'.")
    return EvalTransform(processor)


def collate(examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Stack examples; images with fewer crops than others are filled up with zeros, which `crop_mask` hides.

    Returns:
        `{"pixel_values": (batch_size, num_crops, channels, height, width), "labels": (batch_size,)}`, `crop_mask`
        where crops differ in number, and `source`, a list, where the examples have it.
    """
    numbers = [len(example["pixel_values"]) for example in examples]
    largest = max(numbers)
    pixel_values = torch.stack(
        [
            torch.cat([crops, crops.new_zeros(largest - len(crops), *crops.shape[1:])])
            for crops in (example["pixel_values"] for example in examples)
        ]
    )
    labels = torch.tensor([example["labels"] for example in examples], dtype=torch.float32)
    batch: dict[str, Any] = {"pixel_values": pixel_values, "labels": labels}
    if min(numbers) < largest:
        batch["crop_mask"] = torch.tensor(numbers)[:, None] > torch.arange(largest)
    if "source" in examples[0]:
        batch["source"] = [example["source"] for example in examples]
    return batch


def find_files(folder: Path) -> dict[str, list[Path]]:
    """The table of scores in a folder that has an official layout, or a table of a user's own beside images."""
    found = find_layout(folder)
    return {} if found is None else {"all": [found[1]]}


def read_files(files: Mapping[str, Sequence[Path]], entry: Any = None) -> datasets.DatasetDict:
    """Dataset of a table that `find_files` found; images are read when a row is asked for."""
    (table,) = files["all"]
    folder = table.parent.parent if table.parent.name == "Data" else table.parent
    layout, table = find_layout(folder) or (None, table)
    loaded = datasets.DatasetDict()
    for split, rows in group_by_split(read_layout(folder, layout, table)):
        columns: dict[str, list] = {
            "image": [str(row.path) for row in rows],
            SCORE: [row.score for row in rows],
            "name": [_shorten(row.path, folder) for row in rows],
        }
        for name in ("reference", "source"):
            values = [getattr(row, name) for row in rows]
            if any(values):
                columns[name] = values
        features = datasets.Features(
            {
                "image": datasets.Image(),
                SCORE: datasets.Value("float64"),
                **{name: datasets.Value("string") for name in columns if name not in ("image", SCORE)},
            }
        )
        loaded[split] = datasets.Dataset.from_dict(columns, features=features)
    if layout is None:
        warn_of_unlisted_images([table], loaded)
    return loaded


def _shorten(path: Path, folder: Path) -> str:
    """Path of an image in the folder of its dataset; the whole path where it is elsewhere."""
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path)


def finish_loading(dataset: datasets.Dataset, where: str) -> datasets.Dataset:
    """Refuse scores that are no numbers.

    Raises:
        ValueError: If the column `score` holds text, or no finite number.
    """
    feature = dataset.features[SCORE]
    if not feature.dtype.startswith(("float", "int", "uint")):
        raise ValueError(f"column `{SCORE}` of {where} must hold numbers; got {feature.dtype}.")
    scores = np.asarray(dataset[SCORE], dtype=np.float64)
    if not np.isfinite(scores).any():
        raise ValueError(f"column `{SCORE}` of {where} must hold at least one finite number; got none.")
    return dataset


def drop_unscored(rows: datasets.Dataset) -> datasets.Dataset:
    """The rows whose score is a finite number; a warning counts the others."""
    known = np.flatnonzero(np.isfinite(np.asarray(rows[SCORE], dtype=np.float64)))
    if len(known) == len(rows):
        return rows
    logger.warning("%d of %d images have no finite score and are left out.", len(rows) - len(known), len(rows))
    return rows.select(known)


def get_score_range(rows: datasets.Dataset) -> tuple[float, float]:
    """Lowest and highest finite score."""
    scores = np.asarray(rows[SCORE], dtype=np.float64)
    scores = scores[np.isfinite(scores)]
    return float(scores.min()), float(scores.max())


FAMILY = DataFamily(
    columns={"image": datasets.Image, SCORE: datasets.Value},
    build_eval_transform=build_eval_transform,
    build_train_transform=build_train_transform,
    collate=collate,
    decode_row=decode_row,
    find_files=find_files,
    read_files=read_files,
    finish_loading=finish_loading,
)

__all__ = [
    "FAMILY",
    "build_eval_transform",
    "build_train_transform",
    "collate",
    "decode_row",
    "drop_unscored",
    "get_score_range",
]
