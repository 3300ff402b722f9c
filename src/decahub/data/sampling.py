"""Samples of rows: drawn by a seed, balanced over classes, in the order of the dataset."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def sample_indices(labels: Sequence[int] | np.ndarray | None, num_rows: int, size: int, seed: int = 0) -> np.ndarray:
    """Indices of a sample without repetition, sorted.

    Args:
        labels (sequence of `int`, *optional*): Class of each row: the sample has the same number of each class, as far
            as there are enough rows of it.
        num_rows (`int`): Number of rows to draw from.
        size (`int`): Size of the sample, at least 1; all rows if there are not more.
        seed (`int`): Same seed, same sample.

    Raises:
        ValueError: If `size` is below 1.
    """
    if size < 1:
        raise ValueError(f"a sample must have at least 1 row; got {size}. Use None for all rows.")
    if size >= num_rows:
        return np.arange(num_rows)
    order = np.random.default_rng(seed).permutation(num_rows)
    if labels is None:
        return np.sort(order[:size])
    # Every row by how many rows of its class come before it: taking the first of all classes in turn balances them.
    classes = np.asarray(labels)[order]
    by_class = np.argsort(classes, kind="stable")
    starts = np.searchsorted(classes[by_class], classes[by_class])
    turn = np.empty(num_rows, dtype=np.int64)
    turn[by_class] = np.arange(num_rows) - starts
    return np.sort(order[np.argsort(turn, kind="stable")[:size]])


def sample_rows(rows: Any, size: int | None, seed: int = 0) -> Any:
    """A sample of a dataset, balanced over the classes of its column `label` if it has one.

    Args:
        rows (`datasets.Dataset`): Rows to draw from.
        size (`int`, *optional*): Size of the sample; all rows by default.
        seed (`int`): Same seed, same sample.
    """
    if size is None or 1 <= size >= len(rows):
        return rows
    labels = np.asarray(rows["label"][:]) if "label" in rows.column_names else None
    return rows.select(sample_indices(labels, len(rows), size, seed))


def balance_classes(classes: Sequence[Sequence[int]], num_classes: int, seed: int = 0) -> np.ndarray:
    """Indices of rows, with repetition, in which each class is about equally frequent ("CBGS", arXiv 1908.09492).

    A class counts once for each row that holds it. For each class, rows that hold it are drawn until the class has its
    share of one by `num_classes` of these counts; so a row may be drawn for several of its classes.

    Args:
        classes (`Sequence[Sequence[int]]`): Class ids that each row holds, with or without repetition.
        num_classes (`int`): Number of classes.
        seed (`int`): Same seed, same indices.

    Returns:
        `numpy.ndarray`: indices, the draws of one class after those of another.
    """
    rows_of_class: list[list[int]] = [[] for _ in range(num_classes)]
    for row, held in enumerate(classes):
        for label in set(held):
            rows_of_class[label].append(row)
    total = sum(map(len, rows_of_class))
    generator = np.random.default_rng(seed)
    # int(len(rows) * (1 / num_classes) / (len(rows) / total)), which does not depend on the class.
    draws = [generator.choice(rows, int(total / num_classes)) for rows in rows_of_class if rows]
    return np.concatenate(draws) if draws else np.zeros(0, dtype=np.int64)


__all__ = ["balance_classes", "sample_indices", "sample_rows"]
