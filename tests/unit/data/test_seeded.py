"""Items of `SeededTransform` depend on (seed, epoch, index) alone, and the global random state stays as it was."""

import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from decahub.data import InMemoryDataset, SeededTransform, seeded_random_state
from decahub.seeding import derive_seed


DRAWN = (0.38052780576693346, 0.21968678373237183, 0.9185271187717051)
ORDER_SEED = 5740146499394323429


def draw(row):
    """One draw from each generator that a transform may use."""
    return row, random.random(), float(np.random.rand()), float(torch.rand(()))


def draw_globally():
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def seed_globally():
    random.seed(1), np.random.seed(2), torch.manual_seed(3)


def test_item_is_the_same_whatever_was_drawn_before():
    dataset = SeededTransform([10, 20, 30], draw, seed=4)
    first = dataset[1]

    draw_globally(), dataset[2]

    assert dataset[1] == first


@pytest.mark.parametrize("part", [1, 2, 3], ids=["random", "numpy", "torch"])
@pytest.mark.parametrize(
    ("seed", "epoch", "index"), [(5, 0, 1), (4, 1, 1), (4, 0, 2)], ids=["other seed", "other epoch", "other index"]
)
def test_draws_differ(seed, epoch, index, part):
    dataset = SeededTransform([7, 7, 7], draw, seed=seed)
    dataset.set_epoch(epoch)

    assert dataset[index][part] != SeededTransform([7, 7, 7], draw, seed=4)[1][part]


def test_draws_of_a_seed_do_not_change():
    # Published weights were trained with them.
    with seeded_random_state(3, 1, 4):
        drawn = random.random(), float(np.random.rand()), float(torch.rand((), dtype=torch.float64))
    assert drawn == pytest.approx(DRAWN, rel=1e-12)
    assert derive_seed(3, "order", 1) == ORDER_SEED


def test_leaves_global_state_as_it_was():
    seed_globally()
    expected = [draw_globally(), draw_globally()]

    seed_globally()
    before = draw_globally()
    SeededTransform([1], draw)[0]

    assert [before, draw_globally()] == expected


def test_leaves_global_state_as_it_was_after_an_error():
    seed_globally()
    expected = draw_globally()

    seed_globally()
    with pytest.raises(KeyError):
        SeededTransform([1], lambda row: {}[draw_globally()])[0]

    assert draw_globally() == expected


def test_nested_blocks_do_not_disturb_each_other():
    with seeded_random_state(1):
        expected = [draw_globally(), draw_globally()]

    with seeded_random_state(1):
        first = draw_globally()
        with seeded_random_state(2):
            inner = draw_globally()
        second = draw_globally()

    assert [first, second] == expected
    assert inner not in expected


def test_workers_give_the_items_of_the_main_process_in_every_epoch():
    dataset = SeededTransform([10, 20, 30], draw, seed=4)
    loader = DataLoader(dataset, batch_size=None, num_workers=1, persistent_workers=True)

    for epoch in range(2):
        dataset.set_epoch(epoch)
        by_worker = [tuple(item) for item in loader]

        assert by_worker == [dataset[index] for index in range(3)]


@pytest.mark.parametrize("indices", [[0, 1, 2, 3], [3, 1], [2, 2, -4]], ids=["all", "some", "twice"])
def test_batches_hold_the_items_of_single_calls(indices):
    dataset = SeededTransform([10, 20, 30, 40], draw, seed=4)
    dataset.set_epoch(2)

    assert dataset.__getitems__(indices) == [dataset[index] for index in indices]


def test_batch_leaves_global_state_as_it_was():
    seed_globally()
    expected = draw_globally()

    seed_globally()
    SeededTransform([1, 2], draw).__getitems__([0, 1])

    assert draw_globally() == expected


def test_batch_leaves_global_state_as_it_was_after_an_error():
    seed_globally()
    expected = draw_globally()

    seed_globally()
    with pytest.raises(IndexError, match="got 5"):
        SeededTransform([1, 2], draw).__getitems__([0, 5])

    assert draw_globally() == expected


def test_a_transform_may_seed_a_block_of_its_own():
    def draw_twice(row):
        first = draw(row)
        with seeded_random_state("inner", row):
            draw_globally()
        return first, draw(row)

    def draw_twice_at_once(row):
        return draw(row), draw(row)

    expected = SeededTransform([10, 20], draw_twice_at_once)

    assert SeededTransform([10, 20], draw_twice).__getitems__([0, 1]) == [expected[0], expected[1]]


@pytest.mark.parametrize("batch_size", [1, 2, 5])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_loader_gives_the_same_items_whatever_the_batch_and_the_workers(batch_size, num_workers):
    dataset = SeededTransform([10, 20, 30, 40, 50], draw, seed=4)

    loader = DataLoader(dataset, batch_size, num_workers=num_workers, collate_fn=list)

    assert [item for batch in loader for item in batch] == [dataset[index] for index in range(5)]


def test_batches_of_a_subclass_hold_its_own_items():
    class Negated(SeededTransform):
        def __getitem__(self, index):
            return -super().__getitem__(index)[0]

    assert Negated([10, 20], draw).__getitems__([1, 0]) == [-20, -10]


def test_negative_index_counts_from_the_end():
    dataset = SeededTransform([10, 20, 30], draw)

    assert dataset[-1] == dataset[2]


@pytest.mark.parametrize("index", [3, -4])
def test_refuses_index_out_of_range(index):
    with pytest.raises(IndexError, match=rf"`index` must be in \[-3, 3\); got {index}"):
        SeededTransform([10, 20, 30], draw)[index]


def test_in_memory_dataset_decodes_each_row_once():
    decoded = []

    dataset = InMemoryDataset([1, 2, 3], lambda row: decoded.append(row) or row * 10)

    assert ([dataset[2], dataset[0], dataset[2]], len(dataset), decoded) == ([30, 10, 30], 3, [1, 2, 3])


def test_rows_that_take_too_much_memory_are_decoded_on_demand(caplog):
    images = [np.zeros((size, 10, 3), dtype=np.uint8) for size in (10, 20, 30, 40)]

    dataset = InMemoryDataset(images, lambda image: {"image": image + 1}, max_bytes=2999)

    assert (dataset.rows, len(dataset), dataset[3]["image"].shape) == (None, 4, (40, 10, 3))
    assert "4 rows would take about" in caplog.text
    assert InMemoryDataset(images, lambda image: {"image": image}, max_bytes=3200).rows is not None
    assert InMemoryDataset(images, lambda image: {"image": image}, max_bytes=None).rows is not None
