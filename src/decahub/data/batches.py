"""Rows of an evaluation that are transformed several at once, where that gives the same examples bit by bit."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from decahub.models.shared.image_processing import ImageProcessing


MAX_PIXELS = 2**20  # of images that a processor takes at once: many small ones gain, large ones would fill the memory


class BatchedRows(Dataset):
    """A map-style dataset whose rows are transformed several at once; data loaders ask it for whole batches.

    Args:
        dataset: Anything with `len()` and integer indexing, whose rows have an `image`.
        transform (`Callable`): Takes one row, returns one example; `transform.transform_rows(rows)` returns the same
            examples of several rows. It must not draw random numbers.
    """

    def __init__(self, dataset: Sequence[Any], transform: Any):
        self.dataset = dataset
        self.transform = transform

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.transform(self.dataset[index])

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """The items of a batch; torch looks for this method."""
        groups = group_rows(self.dataset[index] for index in indices)
        return [example for rows in groups for example in self.transform.transform_rows(rows)]


def group_rows(rows: Iterable[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    """Successive rows together until their images have `MAX_PIXELS` pixels."""
    group: list[Mapping[str, Any]] = []
    num_pixels = 0
    for row in rows:
        group.append(row)
        num_pixels += _count_pixels(row["image"])
        if num_pixels >= MAX_PIXELS:
            yield group
            group, num_pixels = [], 0
    if group:
        yield group


def _count_pixels(image: Any) -> int:
    return image.width * image.height if isinstance(image, Image.Image) else int(np.prod(image.shape))


def can_batch(processor: Any) -> bool:
    """Whether a processor is known to give the same pixels for an image, whatever images are beside it."""
    return isinstance(processor, ImageProcessing)


def process_images(processor: Any, rows: Sequence[Mapping[str, Any]]) -> list[torch.Tensor]:
    """Pixel values `(channels, height, width)` of the images of rows, whose sizes may differ."""
    return [torch.as_tensor(values) for values in processor([row["image"] for row in rows])["pixel_values"]]


__all__ = ["BatchedRows", "can_batch", "group_rows", "process_images"]
