"""Images with a class for each pixel: columns `image` and `annotation`, joint transforms of both, collator.

An annotation is a single-channel image whose values are class ids; `IGNORE_INDEX` marks pixels to leave out.
"""

import logging
import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from decahub.models.shared.checks import check_bounds, check_probability, is_pair

from .catalog import IGNORE_INDEX
from .family import DataFamily
from .image_classification import Normalization, image_to_tensor
from .image_files import check_same_size


logger = logging.getLogger(__name__)

IMAGE_FOLDER, ANNOTATION_FOLDER = "images", "annotations"
ANNOTATION_MODES = ("1", "L", "P", "I", "I;16", "I;16B")  # one channel: gray values or indices into a palette
CROP_ATTEMPTS = 10  # as in the recipe's code; the last crop is taken as it is


def annotation_to_tensor(annotation: Image.Image | torch.Tensor) -> torch.Tensor:
    """Class ids of an annotation.

    Returns:
        `torch.ByteTensor` of shape `(height, width)`.

    Raises:
        ValueError: If the annotation has more than one channel, or an id above 255.
    """
    if isinstance(annotation, torch.Tensor):
        return annotation
    if annotation.mode not in ANNOTATION_MODES:
        raise ValueError(
            f"`annotation` must be a PIL image with one channel of class ids, such as mode 'L' or 'P'; got mode "
            f"{annotation.mode!r}. Convert colors to ids first."
        )
    ids = np.array(annotation)
    if ids.dtype != np.uint8 and ids.size and not 0 <= ids.min() <= ids.max() <= IGNORE_INDEX:
        raise ValueError(f"`annotation` must hold class ids in [0, {IGNORE_INDEX}]; got {ids.min()} to {ids.max()}.")
    return torch.from_numpy(ids.astype(np.uint8))


def decode_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """One row with image `(3, height, width)` and annotation `(height, width)` as bytes; for `InMemoryDataset`."""
    image, annotation = image_to_tensor(row["image"]), annotation_to_tensor(row["annotation"])
    if image.shape[1:] != annotation.shape:
        raise ValueError(
            f"`annotation` must have the size of its image, {tuple(image.shape[1:])}; got {tuple(annotation.shape)}."
        )
    return {"image": image, "annotation": annotation}


def find_files(folder: Path) -> dict[str, list[Path]]:
    """Images of each split in a folder `<split>/images/*`, each with its map in `<split>/annotations/<stem>.png`.

    Raises:
        ValueError: If images lie in folders below, where they would be left out.
    """
    suffixes = Image.registered_extensions()
    found = {}
    for place in sorted(path for path in folder.glob(f"*/{IMAGE_FOLDER}") if path.is_dir()):
        images = sorted(path for path in place.rglob("*") if path.suffix.lower() in suffixes)
        nested = [path for path in images if path.parent != place]
        if nested:
            raise ValueError(
                f"images must lie in {place} itself; got {len(nested)} in folders below it, the first is {nested[0]}. "
                "Move them up, and their maps too."
            )
        found[place.parent.name] = images
    return found


def read_files(files: Mapping[str, Sequence[Path]], entry: Any = None) -> datasets.DatasetDict:
    """Dataset of what `find_files` found; files are read when a row is asked for.

    Raises:
        FileNotFoundError: If an image has no map of classes.
    """
    features = datasets.Features(image=datasets.Image(), annotation=datasets.Image())
    loaded = datasets.DatasetDict()
    for split, images in files.items():
        annotations = [path.parents[1] / ANNOTATION_FOLDER / f"{path.stem}.png" for path in images]
        missing = [path for path in annotations if not path.is_file()]
        if missing:
            raise FileNotFoundError(
                f"each image needs a map of classes; {len(missing)} are missing, the first is {missing[0]}."
            )
        columns = {"image": [str(path) for path in images], "annotation": [str(path) for path in annotations]}
        loaded[split] = datasets.Dataset.from_dict(columns, features=features)
    return loaded


def count_labels(rows: datasets.Dataset) -> np.ndarray:
    """Number of pixels of each value in the annotations of a split.

    Returns:
        `numpy.ndarray` of shape `(256,)`.
    """
    counts = np.zeros(IGNORE_INDEX + 1, dtype=np.int64)
    for row in rows.select_columns(["annotation"]):
        counts += torch.bincount(annotation_to_tensor(row["annotation"]).flatten(), minlength=len(counts)).numpy()
    return counts


def check_annotations(
    rows: datasets.Dataset, label_names: Sequence[str], where: str, do_reduce_labels: bool = False
) -> list[str]:
    """Compare the values of annotations with the classes.

    Args:
        rows (`datasets.Dataset`): One split.
        label_names (`Sequence[str]`): Names of the classes, in the order of their ids.
        where (`str`): Name of the split, for the message.
        do_reduce_labels (`bool`): Whether 0 means "ignore" and the classes begin at 1, as in ADE20K.

    Returns:
        `list[str]`: Names of the classes without a single pixel. No score of theirs can be measured.

    Raises:
        ValueError: If a value is neither a class nor 255, if 255, which is ignored, seems to be a class, or if an
            annotation has another size than its image.
    """
    check_same_size(rows, "annotation", "image", where)
    first, num_labels = int(do_reduce_labels), len(label_names)
    counts = count_labels(rows)
    values = np.flatnonzero(counts[:IGNORE_INDEX])
    check_ids(values, num_labels, first, where)
    absent = [name for index, name in enumerate(label_names) if not counts[index + first]]
    if num_labels == 2 and not first and counts[IGNORE_INDEX] and len(absent) == 1:
        raise ValueError(
            f"`annotation` of {where} holds only {values[0]} and {IGNORE_INDEX}, which is ignored; class "
            f"{absent[0]!r} has no pixel. Is {IGNORE_INDEX} meant as a class? Then save the masks as `mask // 255`."
        )
    return absent


def check_ids(values: np.ndarray, num_labels: int, first: int, where: str) -> None:
    """Refuse values of annotations that are neither a class nor ignored; classes begin at `first`."""
    unknown = values[(values >= num_labels + first) & (values != IGNORE_INDEX)]
    if len(unknown):
        raise ValueError(
            f"`annotation` of {where} must hold ids in [0, {num_labels + first}) or {IGNORE_INDEX} (ignored), for "
            f"{num_labels} classes; got {unknown[0]}, and {len(unknown)} such values in all. Name all classes by "
            f"`label_names`, or save the others as {IGNORE_INDEX}."
        )


def check_training_annotations(
    rows: datasets.Dataset, label_names: Sequence[str], do_reduce_labels: bool = False, max_seconds: float = 60.0
) -> int:
    """Look for values that are no class in annotations to learn from, before the first step and not at some later one.

    They are read in a random order, always the same, for at most `max_seconds`; a warning says how many if not all.

    Args:
        rows (`datasets.Dataset`): The training split.
        label_names (`Sequence[str]`): Names of the classes, in the order of their ids.
        do_reduce_labels (`bool`): As in [`check_annotations`].
        max_seconds (`float`): Limit of time.

    Returns:
        `int`: How many annotations were read.

    Raises:
        ValueError: If a value is neither a class nor 255; the message names the row.
    """
    end = time.monotonic() + max_seconds
    first, num_labels = int(do_reduce_labels), len(label_names)
    annotations = rows.select_columns(["annotation"]) if isinstance(rows, datasets.Dataset) else rows
    for count, index in enumerate(np.random.default_rng(0).permutation(len(rows)).tolist()):
        if time.monotonic() > end:
            logger.warning(
                f"Checked {count} of {len(rows)} training annotations, chosen at random, in {max_seconds:g} seconds; "
                "unknown classes in the others are found when they are read."
            )
            return count
        values = np.unique(annotation_to_tensor(annotations[index]["annotation"]).numpy())
        check_ids(values, num_labels, first, f"training row {index}")
    return len(rows)


def ignore_label(loaded: datasets.DatasetDict, label: int) -> datasets.DatasetDict:
    """The dataset with `label` replaced by `IGNORE_INDEX` in every annotation; computed once, then cached on disk."""
    return loaded.map(
        _replace_label,
        input_columns=["annotation"],
        fn_kwargs={"label": label},
        features=next(iter(loaded.values())).features,
        desc="Marking pixels to ignore",
    )


def _replace_label(annotation: Image.Image, label: int) -> dict[str, Image.Image]:
    return {"annotation": annotation.point([IGNORE_INDEX if value == label else value for value in range(256)])}


def reduce_labels(labels: torch.Tensor) -> torch.Tensor:
    """ADE20K's convention: 0 becomes `IGNORE_INDEX`, every other class moves down by one."""
    reduced = labels - 1  # bytes wrap around, so 0 becomes 255
    return torch.where(labels == IGNORE_INDEX, labels, reduced)


class RandomResizedPair:
    """Resize image and annotation by one random ratio; the annotation by nearest neighbor, as ids cannot be mixed."""

    def __init__(self, shortest_edge: int | None, ratio_range: Sequence[float]):
        self.shortest_edge = shortest_edge
        self.ratio_range = ratio_range

    def __call__(self, pixels: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scale = random.uniform(*self.ratio_range)
        if self.shortest_edge is not None:
            scale *= self.shortest_edge / min(labels.shape)
        size = [max(1, round(length * scale)) for length in labels.shape]
        pixels = functional.resize(pixels, size, antialias=True)
        return pixels, functional.resize(labels[None], size, interpolation=v2.InterpolationMode.NEAREST)[0]


class RandomCropPair:
    """Crop image and annotation at one random place, where possible one at which no class covers most of the crop."""

    def __init__(self, size: tuple[int, int], max_class_share: float):
        self.size = size
        self.max_class_share = max_class_share

    def _is_mixed(self, labels: torch.Tensor) -> bool:
        counts = torch.bincount(labels.flatten(), minlength=IGNORE_INDEX + 1)[:IGNORE_INDEX]
        return int(counts.max()) < self.max_class_share * int(counts.sum())

    def __call__(self, pixels: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        height, width = (min(wanted, given) for wanted, given in zip(self.size, labels.shape, strict=True))
        for _ in range(CROP_ATTEMPTS):
            top, left = random.randint(0, labels.shape[0] - height), random.randint(0, labels.shape[1] - width)
            window = (slice(top, top + height), slice(left, left + width))
            if self._is_mixed(labels[window]):
                break
        return pixels[(slice(None), *window)], labels[window]


class TrainTransform:
    """One row to `{"pixel_values", "labels"}` of one fixed size; see `build_train_transform`."""

    def __init__(
        self,
        processor: Any,
        resize: RandomResizedPair,
        crop: RandomCropPair,
        flip_prob: float,
        distort: v2.Transform | None,
    ):
        self.resize = resize
        self.crop = crop
        self.flip_prob = flip_prob
        self.distort = distort
        self.normalize = Normalization(processor)
        self.do_reduce_labels = bool(getattr(processor, "do_reduce_labels", False))

    def __call__(self, row: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        row = decode_row(row)
        labels = reduce_labels(row["annotation"]) if self.do_reduce_labels else row["annotation"]
        pixels, labels = self.crop(*self.resize(row["image"], labels))
        if random.random() < self.flip_prob:
            pixels, labels = pixels.flip(-1), labels.flip(-1)
        if self.distort is not None:
            pixels = self.distort(pixels)
        bottom, right = (wanted - given for wanted, given in zip(self.crop.size, labels.shape, strict=True))
        # Padded after normalization, so that the border has the mean color.
        pixel_values = torch.nn.functional.pad(self.normalize(pixels), (0, right, 0, bottom))
        labels = torch.nn.functional.pad(labels, (0, right, 0, bottom), value=IGNORE_INDEX)
        return {"pixel_values": pixel_values, "labels": labels.long()}


class EvalTransform:
    """One row to `{"pixel_values", "labels"}`: the whole image through the processor, labels at their own size."""

    def __init__(self, processor: Any):
        self.processor = processor
        self.do_reduce_labels = bool(getattr(processor, "do_reduce_labels", False))

    def __call__(self, row: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        labels = annotation_to_tensor(row["annotation"])
        labels = reduce_labels(labels) if self.do_reduce_labels else labels
        return {
            "pixel_values": self.processor(row["image"], return_tensors="pt")["pixel_values"][0],
            "labels": labels.long(),
        }


def build_train_transform(
    processor: Any,
    crop_size: Sequence[int],
    *,
    shortest_edge: int | None = None,
    ratio_range: Sequence[float] = (0.5, 2.0),
    max_class_share: float = 0.75,
    flip_prob: float = 0.5,
    distort_colors: bool = True,
) -> TrainTransform:
    """Random training transform of image and annotation together (EMO's recipe for semantic segmentation).

    Random resize, random crop, flip, photometric distortion, normalization, and padding on the right and at the bottom
    where the resized image is smaller than the crop. The distortion is torchvision's, which scales brightness where
    the recipe's code adds to it.

    Args:
        processor: The model's image processor: it gives mean, std and `do_reduce_labels`.
        crop_size (`tuple[int, int]`): Height and width of the result.
        shortest_edge (`int`, *optional*): Size at ratio 1; by default the image's own.
        ratio_range (`tuple[float, float]`): Bounds of the random resize.
        max_class_share (`float`): A crop in which one class covers this share of the labeled pixels or more is drawn
            again, up to 10 times.
        flip_prob (`float`): Probability of a horizontal flip.
        distort_colors (`bool`): Whether to distort brightness, contrast, saturation and hue.

    Returns:
        `TrainTransform`: maps `{"image", "annotation"}` to `{"pixel_values", "labels"}`.

    Raises:
        ValueError: If a number is out of its range.
    """
    if not is_pair(crop_size) or min(crop_size) < 1:
        raise ValueError(f"`crop_size` must hold a positive height and width; got {crop_size}.")
    if shortest_edge is not None and shortest_edge < 1:
        raise ValueError(f"`shortest_edge` must be at least 1; got {shortest_edge}.")
    check_probability("flip_prob", flip_prob)
    if not 0 < max_class_share <= 1:
        raise ValueError(f"`max_class_share` must be in (0, 1]; got {max_class_share}.")
    check_bounds("ratio_range", ratio_range)
    distort = v2.RandomPhotometricDistort(hue=(-0.1, 0.1)) if distort_colors else None
    resize = RandomResizedPair(shortest_edge, ratio_range)
    crop = RandomCropPair((crop_size[0], crop_size[1]), max_class_share)
    return TrainTransform(processor, resize, crop, flip_prob, distort)


def build_eval_transform(processor: Any) -> EvalTransform:
    """Deterministic transform for evaluation on whole images, scored at the size of their annotations.

    Raises:
        ValueError: If `processor` crops, since the pixels outside the crop would get no prediction.
    """
    if getattr(processor, "do_center_crop", False):
        raise ValueError(
            "`processor.do_center_crop` must be False for semantic segmentation; got True. Save the processor with "
            "`do_center_crop=False`."
        )
    return EvalTransform(processor)


def collate(examples: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, Any]:
    """Stack examples.

    Returns:
        `{"pixel_values": (batch_size, num_channels, height, width), "labels": (batch_size, height, width)}`; where
        annotations differ in size, `labels` is a list of `(height, width)` tensors.

    Raises:
        ValueError: If the images differ in size.
    """
    sizes = {tuple(example["pixel_values"].shape[-2:]) for example in examples}
    if len(sizes) > 1:
        raise ValueError(
            f"`pixel_values` of one batch must have one size; got {sorted(sizes)}. Use batch size 1 or a processor "
            "with a fixed height and width."
        )
    labels = [example["labels"] for example in examples]
    return {
        "pixel_values": torch.stack([example["pixel_values"] for example in examples]),
        "labels": torch.stack(labels) if len({label.shape for label in labels}) == 1 else labels,
    }


FAMILY = DataFamily(
    columns={"image": datasets.Image, "annotation": datasets.Image},
    build_eval_transform=build_eval_transform,
    build_train_transform=build_train_transform,
    collate=collate,
    decode_row=decode_row,
    find_files=find_files,
    read_files=read_files,
    ignore_label=ignore_label,
)

__all__ = [
    "FAMILY",
    "annotation_to_tensor",
    "build_eval_transform",
    "build_train_transform",
    "check_annotations",
    "check_training_annotations",
    "collate",
    "decode_row",
    "ignore_label",
    "reduce_labels",
]
