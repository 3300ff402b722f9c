"""Data sets by name, one module per family of data, and seeded transforms.

Names resolve lazily: `decahub.data.catalog` can be read without importing datasets or torch.
"""

import importlib
from typing import TYPE_CHECKING, Any


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


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(_HOMES)


__all__ = [
    "DATASETS",
    "IGNORE_INDEX",
    "DatasetEntry",
    "InMemoryDataset",
    "SeededTransform",
    "load_dataset",
    "seeded_random_state",
]
