"""Images with instances of base and novel classes: columns, joint transforms of image and masks, episodes.

`annotations` holds for each instance `id`, `label`, `segmentation` (JSON of a COCO RLE), `iscrowd` and `area`. Crowds
are no targets, and evaluation ignores what falls on them.
"""

import json
import random
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import datasets
import numpy as np
import torch
from torchvision.transforms.v2 import InterpolationMode, functional

from decahub.models.shared.checks import check_bounds, check_probability

from .coco_files import find_coco_files, read_coco_files
from .coco_masks import decode_masks
from .family import DataFamily
from .few_shot_splits import get_class_names, iterate_annotations
from .image_classification import Normalization, image_to_tensor


STRIDE = 32


def decode_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """One row with its image as bytes `(3, height, width)` and its masks as RLEs; for `InMemoryDataset`."""
    image = image_to_tensor(row["image"])
    annotations = [
        annotation
        if isinstance(annotation["segmentation"], Mapping)
        else {**annotation, "segmentation": json.loads(annotation["segmentation"])}
        for annotation in row["annotations"]
    ]
    for annotation in annotations:
        if annotation["segmentation"]["size"] != list(image.shape[1:]):
            raise ValueError(
                f"`segmentation` of annotation {annotation['id']} must have the size of its image, "
                f"{tuple(image.shape[1:])}; got {annotation['segmentation']['size']}."
            )
    return {"image": image, "image_id": row["image_id"], "annotations": annotations}


class TrainTransform:
    """One row to `{"pixel_values", "pixel_mask", "mask_labels", "class_labels", "image_id"}` of one size."""

    def __init__(
        self,
        processor: Any,
        image_size: int,
        scale_range: tuple[float, float],
        flip_prob: float,
        keep_labels: Collection[int] | None,
        keep_ids: Collection[int] | None,
    ):
        self.normalize = Normalization(getattr(processor, "image_processor", processor))
        self.image_size = image_size
        self.scale_range = scale_range
        self.flip_prob = flip_prob
        self.keep_labels = None if keep_labels is None else set(keep_labels)
        self.keep_ids = None if keep_ids is None else set(keep_ids)

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        row = decode_row(row)
        image = row["image"]
        kept = [annotation for annotation in row["annotations"] if self._is_target(annotation)]
        masks = torch.from_numpy(decode_masks([one["segmentation"] for one in kept], *image.shape[1:]))
        image, masks = self._resize(image, masks)
        image, masks = self._crop(image, masks)
        if random.random() < self.flip_prob:
            image, masks = image.flip(-1), masks.flip(-1)
        is_visible = masks.flatten(1).any(1)
        padding = (0, self.image_size - image.shape[2], 0, self.image_size - image.shape[1])
        pixel_mask = torch.ones(image.shape[1:], dtype=torch.long)
        return {
            # Padded after normalization, so that the border has the mean color.
            "pixel_values": torch.nn.functional.pad(self.normalize(image), padding),
            "pixel_mask": torch.nn.functional.pad(pixel_mask, padding),
            "mask_labels": torch.nn.functional.pad(masks[is_visible].float(), padding),
            "class_labels": torch.tensor([one["label"] for one in kept], dtype=torch.long)[is_visible],
            "image_id": row["image_id"],
        }

    def _is_target(self, annotation: Mapping[str, Any]) -> bool:
        return (
            not annotation["iscrowd"]
            and (self.keep_labels is None or annotation["label"] in self.keep_labels)
            and (self.keep_ids is None or annotation["id"] in self.keep_ids)
        )

    def _resize(self, image: torch.Tensor, masks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """By one factor, so that the longer side is `image_size` times a random scale."""
        scale = self.image_size * random.uniform(*self.scale_range) / max(image.shape[1:])
        size = [max(1, round(side * scale)) for side in image.shape[1:]]
        if size == list(image.shape[1:]):
            return image, masks
        masks = functional.resize(masks.to(torch.uint8), size, interpolation=InterpolationMode.NEAREST_EXACT)
        return functional.resize(image, size, antialias=True), masks.bool()

    def _crop(self, image: torch.Tensor, masks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        top, left = (random.randint(0, max(0, side - self.image_size)) for side in image.shape[1:])
        window = (slice(None), slice(top, top + self.image_size), slice(left, left + self.image_size))
        return image[window], masks[window]


class EvalTransform:
    """One row through the processor, with its annotations as they are."""

    def __init__(self, processor: Any):
        self.processor = getattr(processor, "image_processor", processor)

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        row = decode_row(row)
        prepared = self.processor(row["image"], return_tensors="pt", input_data_format="channels_first")
        return {
            "pixel_values": prepared["pixel_values"][0],
            "pixel_mask": prepared["pixel_mask"][0],
            "size": tuple(row["image"].shape[1:]),
            "annotations": row["annotations"],
        }


def build_train_transform(
    processor: Any,
    image_size: int = 1024,
    *,
    scale_range: Sequence[float] = (0.1, 2.0),
    flip_prob: float = 0.5,
    keep_labels: Collection[int] | None = None,
    keep_ids: Collection[int] | None = None,
) -> TrainTransform:
    """Random transform of image and masks: large-scale jitter, crop or padding to a square, flip.

    Args:
        processor: Gives mean and standard deviation.
        image_size (`int`): Side of the result, a multiple of 32.
        scale_range (`tuple[float, float]`): Bounds of the longer side after resizing, in units of `image_size`.
        flip_prob (`float`): Probability of a horizontal flip.
        keep_labels (collection of `int`, *optional*): Classes that are targets; instances of others are background.
        keep_ids (collection of `int`, *optional*): Annotations that are targets.

    Raises:
        ValueError: If a number is out of range.
    """
    if image_size < STRIDE or image_size % STRIDE:
        raise ValueError(f"`image_size` must be a multiple of {STRIDE}; got {image_size}.")
    check_bounds("scale_range", scale_range)
    check_probability("flip_prob", flip_prob)
    scales = (float(scale_range[0]), float(scale_range[1]))
    return TrainTransform(processor, image_size, scales, flip_prob, keep_labels, keep_ids)


def build_eval_transform(processor: Any) -> EvalTransform:
    """Deterministic transform for evaluation at the size of each image."""
    return EvalTransform(processor)


def collate(examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A batch: images padded on the right and at the bottom to a common size, the rest as lists."""
    height, width = (max(example["pixel_mask"].shape[axis] for example in examples) for axis in range(2))

    def pad(values: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.pad(values, (0, width - values.shape[-1], 0, height - values.shape[-2]))

    spatial = ("pixel_values", "pixel_mask", "mask_labels")
    batch: dict[str, Any] = {
        name: [pad(example[name]) if name in spatial else example[name] for example in examples]
        for name in examples[0]
    }
    return batch | {name: torch.stack(batch[name]) for name in ("pixel_values", "pixel_mask")}


def select_rows(rows: Any, *, drop_labels: Collection[int] = (), keep_ids: Collection[int] | None = None) -> Any:
    """Rows that show no instance of a class of `drop_labels`, and at least one annotation of `keep_ids`.

    The strict variant of base training drops images with novel instances; fine-tuning keeps those with a shot.
    """
    drop, keep = set(drop_labels), None if keep_ids is None else set(keep_ids)
    indices = [
        index
        for index, annotations in enumerate(iterate_annotations(rows))
        if not any(annotation["label"] in drop for annotation in annotations)
        and (keep is None or any(annotation["id"] in keep for annotation in annotations))
    ]
    return rows.select(indices)


def collect_shots(rows: Any, shots: Mapping[str, Sequence[int]]) -> dict[str, list[tuple[Any, Any]]]:
    """Images and masks of annotations, as `register_support` and the pipeline take them.

    Args:
        rows (`datasets.Dataset`): Rows that have the annotations.
        shots (`Mapping[str, Sequence[int]]`): Class to ids of annotations, as `FewShotSplit.select` gives them.

    Raises:
        ValueError: If an annotation is not among the rows, or of another class.
    """
    places = {
        annotation["id"]: (index, annotation)
        for index, annotations in enumerate(iterate_annotations(rows))
        for annotation in annotations
    }
    names = get_class_names(rows)
    collected: dict[str, list[tuple[Any, Any]]] = {}
    for name, ids in shots.items():
        collected[name] = []
        for shot in ids:
            index, annotation = places.get(shot, (-1, None))
            if annotation is None or names[annotation["label"]] != name:
                raise ValueError(f"`shots` must hold annotations of {name!r} among the rows; got {shot}.")
            image = rows[index]["image"].convert("RGB")
            collected[name].append((image, json.loads(annotation["segmentation"])))
    return collected


class ShotPool:
    """Annotated instances that support is drawn from.

    Args:
        rows (sequence): Rows as `decode_row` gives them, such as an `InMemoryDataset`.
        processor: Its `preprocess_support` makes the crops.
        keep_labels (collection of `int`, *optional*): Classes to draw from.
        keep_ids (collection of `int`, *optional*): Annotations to draw from.
    """

    def __init__(
        self,
        rows: Sequence[Mapping[str, Any]],
        processor: Any,
        keep_labels: Collection[int] | None = None,
        keep_ids: Collection[int] | None = None,
    ):
        self.rows = rows
        self.processor = getattr(processor, "image_processor", processor)
        self.places: dict[int, list[tuple[int, int]]] = {}  # row and place of the annotation, by class
        for index in range(len(rows)):
            for place, annotation in enumerate(rows[index]["annotations"]):
                is_drawn = keep_ids is None or annotation["id"] in keep_ids
                is_known = keep_labels is None or annotation["label"] in keep_labels
                if is_drawn and is_known and not annotation["iscrowd"]:
                    self.places.setdefault(annotation["label"], []).append((index, place))

    @property
    def labels(self) -> list[int]:
        """Classes that have an instance, in ascending order."""
        return sorted(self.places)

    def draw(self, label: int, num_shots: int, without: Collection[int] = ()) -> dict[str, torch.Tensor]:
        """Crops of different instances, if possible of other images than those with the ids in `without`.

        Draws from Python's global generator. A class with fewer instances gives as many as it has.

        Returns:
            `support_pixel_values` `(num_shots, 3, size, size)`, `support_masks` and `support_valid`.
        """
        places = self.places[label]
        others = [place for place in places if self.rows[place[0]]["image_id"] not in without]
        chosen = random.sample(others, min(num_shots, len(others)))
        if len(chosen) < num_shots:
            rest = [place for place in places if place not in chosen]
            chosen += random.sample(rest, min(num_shots - len(chosen), len(rest)))
        images = [self.rows[index]["image"] for index, _ in chosen]
        masks = [self.rows[index]["annotations"][place]["segmentation"] for index, place in chosen]
        return self.processor.preprocess_support(images, rle=masks)


class EpisodeCollator:
    """Makes a batch, and draws the support that it is seen with: an episode.

    The support classes are those in the batch, and random others up to `episode_classes`. All draws come from Python's
    global generator, which the training loop seeds for each batch.

    Args:
        pool ([`ShotPool`]): What support is drawn from.
        episode_classes (`int`): Number of support classes; more if the batch shows more.
        episode_shots (`int`): Instances of each.
        counts_classes (`bool`): Whether the labels of targets count the support classes, as a prototype classifier
            needs it; by default they stay label ids.
    """

    def __init__(
        self, pool: ShotPool, episode_classes: int = 20, episode_shots: int = 1, counts_classes: bool = False
    ):
        if min(episode_classes, episode_shots) < 1:
            raise ValueError(
                f"`episode_classes` and `episode_shots` must be at least 1; got {episode_classes} and {episode_shots}."
            )
        self.pool = pool
        self.episode_classes = episode_classes
        self.episode_shots = episode_shots
        self.counts_classes = counts_classes

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        batch = collate(examples)
        without = set(batch.pop("image_id"))
        present = sorted({int(label) for labels in batch["class_labels"] for label in labels})
        unknown = [label for label in present if label not in self.pool.places]
        if unknown:
            raise ValueError(
                f"`pool` must hold an instance of each class that is a target; class {unknown[0]} has none."
            )
        others = [label for label in self.pool.labels if label not in present]
        drawn = random.sample(others, min(len(others), max(0, self.episode_classes - len(present))))
        labels = sorted([*present, *drawn])
        shots = [self.pool.draw(label, self.episode_shots, without) for label in labels]
        for name in ("support_pixel_values", "support_masks", "support_valid"):
            batch[name] = torch.nn.utils.rnn.pad_sequence([shot[name] for shot in shots], batch_first=True)
        if self.counts_classes:
            batch["class_labels"] = [torch.searchsorted(torch.tensor(labels), ids) for ids in batch["class_labels"]]
        else:
            batch["support_class_ids"] = torch.tensor(labels)
        return batch


def collate_training(examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the model's `forward` takes of [`collate`]: a batch without support."""
    batch = collate(examples)
    del batch["image_id"]
    return batch


def count_instances(rows: Any) -> np.ndarray:
    """Number of instances of each class, crowds left out; `(num_labels,)`."""
    labels = [one["label"] for row in iterate_annotations(rows) for one in row if not one["iscrowd"]]
    return np.bincount(np.asarray(labels, dtype=np.int64), minlength=len(get_class_names(rows)))


FAMILY = DataFamily(
    columns={"image": datasets.Image, "image_id": datasets.Value, "annotations": datasets.List},
    build_eval_transform=build_eval_transform,
    build_train_transform=build_train_transform,
    collate=collate,
    decode_row=decode_row,
    find_files=find_coco_files,
    read_files=read_coco_files,
    reads_parquet=True,
)

__all__ = [
    "FAMILY",
    "EpisodeCollator",
    "ShotPool",
    "build_eval_transform",
    "build_train_transform",
    "collate",
    "collate_training",
    "collect_shots",
    "count_instances",
    "decode_row",
    "select_rows",
]
