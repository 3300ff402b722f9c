"""Random transforms whose result depends on (seed, epoch, index) and on nothing else, and rows kept in memory."""

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from decahub.seeding import preserved_random_state, seeded_random_state


logger = logging.getLogger(__name__)

MAX_BYTES = 2**31  # of rows that are kept in memory
NUM_SAMPLED = 16  # rows that are decoded to estimate the memory of all


class SeededTransform(Dataset):
    """A map-style dataset whose item `index` in epoch `epoch` is the same whenever and wherever it is made.

    Item `index` is `transform(dataset[index])`, computed under random state derived from `(seed, epoch, index)`; the
    global random state is left as it was. So a run that is resumed in the middle of an epoch sees the images that an
    uninterrupted run would have seen.

    Args:
        dataset: Anything with `len()` and integer indexing, such as a `datasets.Dataset`.
        transform (`Callable`): Takes one row, returns one training example. It may draw from `random`, `numpy.random`
            and torch's CPU generator.
        seed (`int`, *optional*, defaults to 0): The run's seed.
    """

    def __init__(self, dataset: Sequence[Any], transform: Callable[[Any], Any], seed: int = 0):
        self.dataset = dataset
        self.fingerprint_source = dataset
        self.transform = transform
        self.seed = seed
        # Shared memory, so that data loader workers that live through several epochs see the new value.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    @property
    def epoch(self) -> int:
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose random draws the items use; data loaders of Accelerate call it by themselves."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        return self._make_items([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """The items of a batch, each the same as alone; torch's data loaders look for this method."""
        if type(self).__getitem__ is not SeededTransform.__getitem__:
            return [self[index] for index in indices]  # of a subclass that makes its items in another way
        return self._make_items(indices)

    def _make_items(self, indices: Sequence[int]) -> list[Any]:
        size, epoch, items = len(self), self.epoch, []
        with preserved_random_state() as seed:
            for index in indices:
                if not -size <= index < size:
                    raise IndexError(f"`index` must be in [-{size}, {size}); got {index}.")
                position = int(index) % size
                seed(self.seed, epoch, position)
                items.append(self.transform(self.dataset[position]))
        return items


class InMemoryDataset(Dataset):
    """Rows decoded once and kept, so that an epoch over small images is not spent on decoding JPEGs again.

    Rows that would take more than `max_bytes` are decoded whenever they are asked for; a warning says so.

    Args:
        dataset: Anything with `len()` and integer indexing.
        decode (`Callable`): Takes one row, returns what is kept. Each family of data offers one
            (`decahub.data.image_classification.decode_row`, ...).
        description (`str`, *optional*): Text beside the progress bar; without it there is no bar.
        max_bytes (`int`, *optional*): Limit on the memory of all rows, estimated from a sample of them; `None` for
            no limit.
    """

    def __init__(
        self,
        dataset: Sequence[Any],
        decode: Callable[[Any], Any],
        description: str | None = None,
        max_bytes: int | None = MAX_BYTES,
    ):
        self.dataset, self.decode = dataset, decode
        self.features = getattr(dataset, "features", None)  # names of classes
        self.rows: list[Any] | None = None
        sample = sorted(
            {round(index) for index in np.linspace(0, len(dataset) - 1, NUM_SAMPLED)} if len(dataset) else ()
        )
        decoded = {index: decode(dataset[index]) for index in sample}
        num_bytes = sum(map(_count_bytes, decoded.values())) * len(dataset) / max(1, len(sample))
        if max_bytes is not None and num_bytes > max_bytes:
            self.fingerprint_source = dataset
            logger.warning(
                f"{len(dataset)} rows would take about {num_bytes / 2**30:.1f} GiB of memory, more than "
                f"{max_bytes / 2**30:.1f} GiB: they are decoded again in each epoch. Scale the images down to train "
                "faster, or raise `max_bytes`."
            )
            return
        bar = tqdm(range(len(dataset)), desc=description, disable=description is None, leave=False)
        self.rows = [decoded.pop(index) if index in decoded else decode(dataset[index]) for index in bar]

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        return self.decode(self.dataset[index]) if self.rows is None else self.rows[index]


def _count_bytes(value: Any) -> int:
    if isinstance(value, Mapping):
        return sum(_count_bytes(item) for item in value.values())
    if isinstance(value, (list, tuple)):
        return sum(_count_bytes(item) for item in value)
    return getattr(value, "nbytes", None) or sys.getsizeof(value)


__all__ = ["InMemoryDataset", "SeededTransform", "seeded_random_state"]
