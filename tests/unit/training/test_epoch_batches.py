"""Which rows make which batch: each once, in equal shares, and the same whatever the division and the first step."""

import random

import numpy as np
import pytest
import torch

from decahub.training.batches import EpochBatches, iterate_batches


def list_batches(epoch: int = 0, first_step: int = 0, **options) -> list[list[int]]:
    batches = EpochBatches(**{"num_rows": 23, "batch_size": 4, **options})
    batches.set_position(epoch, first_step)
    return list(batches)


def flatten(batches: list[list[int]]) -> list[int]:
    return [row for batch in batches for row in batch]


def test_every_row_once_an_epoch():
    assert sorted(flatten(list_batches(drop_last=False))) == list(range(23))


def test_drops_what_fills_no_step():
    batches = list_batches(accumulation_steps=2)

    assert [len(batch) for batch in batches] == [4, 4, 4, 4]
    assert len(set(flatten(batches))) == 16


@pytest.mark.parametrize("change", [{"epoch": 1}, {"seed": 1}], ids=["epoch", "seed"])
def test_order_changes_with(change):
    assert list_batches(**change) != list_batches()


def test_same_order_again():
    assert list_batches(epoch=3) == list_batches(epoch=3)


@pytest.mark.parametrize("drop_last", [True, False], ids=["drop", "keep"])
@pytest.mark.parametrize("first_step", [0, 1, 2])
def test_starts_at_any_step(first_step, drop_last):
    options = {"epoch": 2, "accumulation_steps": 2, "drop_last": drop_last}

    assert list_batches(first_step=first_step, **options) == list_batches(**options)[2 * first_step :]


def test_rows_of_a_step_do_not_depend_on_its_division():
    whole = flatten(list_batches(batch_size=8))
    accumulated = flatten(list_batches(batch_size=4, accumulation_steps=2))
    ranks = [list_batches(batch_size=2, accumulation_steps=2, num_processes=2, rank=rank) for rank in range(2)]

    assert accumulated == whole
    assert [row for pair in zip(*ranks, strict=True) for row in flatten(pair)] == whole


def test_processes_share_the_last_rows_evenly():
    ranks = [list_batches(num_processes=2, rank=rank, drop_last=False) for rank in range(2)]

    assert [[len(batch) for batch in batches] for batches in ranks] == [[4, 4, 4], [4, 4, 4]]
    rows = flatten(ranks[0]) + flatten(ranks[1])
    assert sorted(set(rows)) == list(range(23))
    assert len(rows) == 24
    assert ranks[1][-1][-1] == ranks[0][0][0]  # the first row of the epoch, once more


def test_one_row_is_shared_by_all_processes():
    assert [list_batches(num_rows=1, num_processes=3, rank=rank) for rank in range(3)] == [[[0]]] * 3


def test_missing_rows_are_taken_from_the_beginning_in_order():
    ranks = [list_batches(num_rows=6, num_processes=4, rank=rank, drop_last=False) for rank in range(4)]

    order = flatten(flatten(ranks))[:6]
    assert flatten(flatten(ranks)) == order + order[:2]


class Drawing:
    """Rows, and a collator, that draw from the global generators."""

    def __len__(self):
        return 23

    def __getitem__(self, index):
        return index, torch.rand(()).item(), random.random()

    def collate(self, rows):
        return rows, float(np.random.rand()), torch.rand(()).item()


def iterate_draws(epoch=0, first_step=0, num_workers=0, **options):
    batches = EpochBatches(23, 4, accumulation_steps=2, drop_last=False, **options)
    batches.set_position(epoch, first_step)
    return list(iterate_batches(Drawing(), batches, collate_fn=Drawing().collate, num_workers=num_workers))


def test_draws_are_the_same_in_workers_and_from_any_step():
    expected = iterate_draws(epoch=1)

    assert iterate_draws(epoch=1, num_workers=2) == expected
    assert iterate_draws(epoch=1, first_step=2) == expected[4:]
    assert iterate_draws(epoch=1, first_step=1, num_workers=2) == expected[2:]


def test_draws_differ_between_batches_epochs_seeds_and_processes():
    runs = [iterate_draws(), iterate_draws(epoch=1), iterate_draws(seed=1)]
    runs += [iterate_draws(num_processes=2, rank=rank) for rank in range(2)]
    draws = [batch[1] for run in runs for batch in run]

    shared = len(iterate_draws(num_processes=2))  # whose keys are those of a run with one process
    assert len(set(draws)) == len(draws) - shared


def test_global_state_is_left_alone():
    state = torch.get_rng_state()

    iterate_draws()

    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("options", "steps", "lengths"),
    [
        ({"num_rows": 1}, 1, [1]),
        ({"num_rows": 3, "accumulation_steps": 2}, 1, [3]),
        ({"num_rows": 1, "num_processes": 2, "rank": 1}, 1, [1]),
        ({"num_rows": 24, "accumulation_steps": 2}, 3, [4] * 6),
        ({"num_rows": 21, "accumulation_steps": 2, "drop_last": False}, 3, [4, 4, 4, 4, 4, 1]),
    ],
    ids=["one-row", "less-than-a-step", "one-row-for-two", "even", "rest"],
)
def test_lengths(options, steps, lengths):
    batches = EpochBatches(**{"batch_size": 4, **options})

    assert batches.steps_per_epoch == steps
    assert [len(batch) for batch in batches] == lengths
    assert len(batches) == len(lengths)
    assert sum(batches.batches_in_step(step) for step in range(steps)) == len(lengths)
