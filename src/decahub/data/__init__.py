"""Data sets by name, one module per family of data, and seeded transforms.

Names resolve lazily: `decahub.data.catalog` can be read without importing datasets or torch.
"""

from typing import TYPE_CHECKING

from decahub.lazy import attach


if TYPE_CHECKING:
    from .catalog import DATASETS, IGNORE_INDEX, DatasetEntry
    from .loading import load_dataset
    from .seeded import InMemoryDataset, SeededTransform, seeded_random_state

_HOMES = {
    "DATASETS": "catalog",
    "IGNORE_INDEX": "catalog",
    "DatasetEntry": "catalog",
    "InMemoryDataset": "seeded",
    "SeededTransform": "seeded",
    "load_dataset": "loading",
    "seeded_random_state": "seeded",
}

__getattr__, __dir__ = attach(__name__, _HOMES)


__all__ = [
    "DATASETS",
    "IGNORE_INDEX",
    "DatasetEntry",
    "InMemoryDataset",
    "SeededTransform",
    "load_dataset",
    "seeded_random_state",
]
