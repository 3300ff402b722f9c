"""Second-order random walks as a compiled loop: what the speed of `decahub.models.raw_gnn.walks` is measured against.

Each step of a walker proposes neighbors until one is accepted, after "node2vec: Scalable Feature Learning for
Networks" (arXiv 1607.00653, section 3.2); whether two nodes are neighbors is a binary search.
"""

import numba
import numpy as np


@numba.njit
def draw_walks(
    row_pointers: np.ndarray, neighbors: np.ndarray, starts: np.ndarray, length: int, p: float, q: float
) -> np.ndarray:
    """Walks of `length` steps, `(num_walks, length + 1)`; each node must have a neighbor.

    Args:
        row_pointers (`np.ndarray` of shape `(num_nodes + 1,)`): node `i` owns the neighbors from `row_pointers[i]` to
            `row_pointers[i + 1]`.
        neighbors (`np.ndarray` of shape `(num_edges,)`): node ids, ascending for each node.
        starts (`np.ndarray` of shape `(num_walks,)`): first nodes.
        length (`int`): steps of a walk.
        p (`float`): return parameter.
        q (`float`): in-out parameter.
    """
    walks = np.empty((len(starts), length + 1), dtype=np.int64)
    highest = max(1 / p, 1.0, 1 / q)
    for walk in range(len(starts)):
        walks[walk, 0] = current = starts[walk]
        previous = -1
        for step in range(1, length + 1):
            first, last = row_pointers[current], row_pointers[current + 1]
            while True:
                candidate = neighbors[np.random.randint(first, last)]
                if previous == -1:
                    break
                if candidate == previous:
                    weight = 1 / p
                else:
                    row = neighbors[row_pointers[previous] : row_pointers[previous + 1]]
                    place = np.searchsorted(row, candidate)
                    weight = 1.0 if place < len(row) and row[place] == candidate else 1 / q
                if np.random.random() * highest < weight:
                    break
            previous, current = current, candidate
            walks[walk, step] = current
    return walks


@numba.njit
def seed_walks(seed: int) -> None:
    """Seeds the generator of compiled code."""
    np.random.seed(seed)
