"""Graphs that a model prepared, remembered for the next forward pass over the same edges."""

import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import torch


Prepared = TypeVar("Prepared")

MAX_GRAPHS = 4  # each costs about as much memory as its edges, several times


class PreparedGraphs(Generic[Prepared]):
    """Remembers what was made of the edge lists that were used last.

    Edges are compared by content: a copy, as each batch on an accelerator is one, finds what was prepared for the
    original, and a tensor that was changed does not, whoever changed it. A comparison is one pass over the edges.
    """

    def __init__(self) -> None:
        self._items: list[tuple[Hashable, torch.Tensor, Prepared]] = []  # the last one used is at the end
        self._lock = threading.Lock()

    def get(self, edge_index: torch.Tensor, options: Hashable, build: Callable[[torch.Tensor], Prepared]) -> Prepared:
        """What `build` made of these edges with these options, now or before.

        Args:
            edge_index (`torch.LongTensor` of shape `(2, num_edges)`): edges.
            options: what else the result depends on.
            build (`Callable`): makes the result of a copy of the edges, outside of the inference mode, so that
                training can use it.
        """
        key = (options, edge_index.shape, edge_index.dtype, edge_index.device)
        with self._lock:
            for place, (known, edges, prepared) in enumerate(self._items):
                if known == key and torch.equal(edges, edge_index):
                    self._items.append(self._items.pop(place))
                    return prepared
            with torch.inference_mode(False), torch.no_grad():
                edges = edge_index.clone()
                self._items = [*self._items, (key, edges, build(edges))][-MAX_GRAPHS:]
            return self._items[-1][2]


__all__ = ["PreparedGraphs"]
