"""Random transforms whose result depends on (seed, epoch, index) and on nothing else, and rows kept in memory."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from decahub.seeding import seeded_random_state


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
        size = len(self)
        if not -size <= index < size:
            raise IndexError(f"`index` must be in [-{size}, {size}); got {index}.")
        position = int(index) % size
        with seeded_random_state(self.seed, self.epoch, position):
            return self.transform(self.dataset[position])


class InMemoryDataset(Dataset):
    """Rows decoded once and kept, so that an epoch over small images is not spent on decoding JPEGs again.

    Args:
        dataset: Anything with `len()` and integer indexing.
        decode (`Callable`): Takes one row, returns what is kept. Each family of data offers one
            (`decahub.data.image_classification.decode_row`, ...).
        description (`str`, *optional*): Text beside the progress bar; without it there is no bar.
    """

    def __init__(self, dataset: Sequence[Any], decode: Callable[[Any], Any], description: str | None = None):
        bar = tqdm(dataset, desc=description, disable=description is None, leave=False)
        self.rows = [decode(row) for row in bar]
        self.features = getattr(dataset, "features", None)  # names of classes

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        return self.rows[index]


__all__ = ["InMemoryDataset", "SeededTransform", "seeded_random_state"]
