"""Which rows make which batch: a pure function of (seed, epoch, step, rank), so that any step can be started from."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from decahub.seeding import derive_seed, seeded_random_state


@dataclass(eq=False)
class EpochBatches(Sampler[list[int]]):
    """The batches of one process in one epoch, from any optimizer step of it on.

    Every epoch is a new permutation of the rows, equal in all processes. An optimizer step takes the next
    `batch_size * num_processes * accumulation_steps` rows; within a step the micro-batches follow each other, and
    within a micro-batch the processes do. So the rows of a step do not depend on how it is divided.
    `drop_last` leaves out what is left when no full step can be made; a dataset smaller than one step is one step
    nevertheless. Where rows do not divide evenly among processes, the first rows of the epoch are used again.
    """

    num_rows: int
    batch_size: int  # of one micro-batch in one process
    accumulation_steps: int = 1
    seed: int = 0
    rank: int = 0
    num_processes: int = 1
    drop_last: bool = True
    epoch: int = 0
    first_step: int = 0

    @property
    def rows_per_batch(self) -> int:
        """Rows of one micro-batch in all processes."""
        return self.batch_size * self.num_processes

    @property
    def rows_per_step(self) -> int:
        """Rows of one full optimizer step in all processes."""
        return self.rows_per_batch * self.accumulation_steps

    @property
    def steps_per_epoch(self) -> int:
        full_steps, rest = divmod(self.num_rows, self.rows_per_step)
        return full_steps + (rest > 0 and (not full_steps or not self.drop_last))

    def rows_in_step(self, step: int) -> int:
        """Rows of the `step`-th optimizer step of an epoch (fewer than usual only in its last one)."""
        return min(self.rows_per_step, self.num_rows - step * self.rows_per_step)

    def batches_in_step(self, step: int) -> int:
        """Micro-batches of the `step`-th optimizer step of an epoch."""
        return -(-self.rows_in_step(step) // self.rows_per_batch)

    def set_position(self, epoch: int, first_step: int = 0) -> None:
        """Choose the epoch, and the optimizer step in it, at which the next iteration starts."""
        self.epoch, self.first_step = epoch, first_step

    def __len__(self) -> int:
        return sum(self.batches_in_step(step) for step in range(self.first_step, self.steps_per_epoch))

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "order", self.epoch))
        order = torch.randperm(self.num_rows, generator=generator).tolist()
        end = min(self.num_rows, self.steps_per_epoch * self.rows_per_step)
        for start in range(self.first_step * self.rows_per_step, end, self.rows_per_batch):
            rows = order[start : min(start + self.rows_per_batch, end)]
            share = -(-len(rows) // self.num_processes)
            missing = share * self.num_processes - len(rows)
            rows += [order[index % self.num_rows] for index in range(missing)]
            yield rows[self.rank * share : (self.rank + 1) * share]


class _CollatedBatches(Dataset):
    """Batches by (number in the epoch, indices of its rows), read and collated under a random state of their own.

    The state depends on (seed, epoch, number, rank), so that rows and collators may draw from the global generators,
    in the main process and in workers alike.
    """

    def __init__(self, dataset: Any, batches: EpochBatches, collate_fn: Callable | None):
        self.dataset = dataset
        self.collate = collate_fn or default_collate
        self.seed = batches.seed
        self.epoch = batches.epoch
        self.rank = batches.rank

    def __getitem__(self, key: tuple[int, list[int]]) -> Any:
        number, indices = key
        with seeded_random_state(self.seed, "batch", self.epoch, number, self.rank):
            if hasattr(self.dataset, "__getitems__"):
                return self.collate(self.dataset.__getitems__(indices))
            return self.collate([self.dataset[index] for index in indices])


def iterate_batches(
    dataset: Dataset, batches: EpochBatches, *, collate_fn: Callable | None = None, num_workers: int = 0
) -> Iterator[Any]:
    """The batches of an epoch from the position of `batches` on, the same with and without workers.

    Without workers rows are read here, one after the other, as a data loader would do: to build one for each epoch
    takes as long as a step on a small graph, which is an epoch. Workers are started anew in each epoch: persistent
    ones would keep a copy of the dataset that never hears of `set_epoch`. Their seeds come from a generator of its
    own; the global one is left alone.
    """
    collated = _CollatedBatches(dataset, batches, collate_fn)
    keys = enumerate(batches, start=batches.first_step * batches.accumulation_steps)
    if num_workers == 0:
        return (collated[key] for key in keys)
    generator = torch.Generator().manual_seed(derive_seed(batches.seed, "workers", batches.epoch))
    loader = DataLoader(
        collated,
        batch_size=None,
        sampler=list(keys),
        collate_fn=_return_as_it_is,
        num_workers=num_workers,
        generator=generator,
    )
    return iter(loader)


def _return_as_it_is(batch: Any) -> Any:
    return batch
