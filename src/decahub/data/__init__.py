"""Datasets by name, one module per family of data, and seeded transforms.

Names resolve lazily: `decahub.data.catalog` can be read without importing datasets or torch.
"""

from typing import TYPE_CHECKING

from decahub.lazy import attach


if TYPE_CHECKING:
    from .catalog import DATASETS, IGNORE_INDEX, DatasetEntry
    from .graph_tables import save_graph
    from .label_names import get_label_names
    from .loading import load_dataset
    from .node_classification import check_leakage, describe_graph, select_split
    from .seeded import InMemoryDataset, SeededTransform, seeded_random_state
    from .similarity_graph import build_similarity_edges, build_similarity_graph, stratified_split

__getattr__, __dir__ = attach(__name__, __file__)

__all__ = [
    "DATASETS",
    "IGNORE_INDEX",
    "DatasetEntry",
    "InMemoryDataset",
    "SeededTransform",
    "build_similarity_edges",
    "build_similarity_graph",
    "check_leakage",
    "describe_graph",
    "get_label_names",
    "load_dataset",
    "save_graph",
    "seeded_random_state",
    "select_split",
    "stratified_split",
]
