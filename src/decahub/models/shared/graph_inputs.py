"""Reading one graph, whatever it comes as, into checked arrays.

Accepted are a mapping of arrays, a pair `(node_features, edge_index)`, a row of a dataset, a torch-geometric `Data`
and a networkx graph. Neither library is imported: an object that has their attributes is read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


# What a graph may call its arrays, ours first, then those of torch-geometric.
FEATURE_NAMES = ("node_features", "x")
EDGE_NAMES = ("edge_index", "edges")
LABEL_NAMES = ("labels", "y")
SENSITIVE_NAMES = ("sensitive", "sens")
# What a feature extractor gives besides the inputs of a model, which may be passed on to it.
EXTRACTED_ONLY = ("sensitive", "validation_mask", "test_mask", "num_nodes_per_graph", "node_names")


@dataclass(frozen=True)
class Graph:
    """One graph as checked arrays.

    Args:
        node_features (`numpy.ndarray` of shape `(num_nodes, num_features)`): float32, finite.
        edge_index (`numpy.ndarray` of shape `(2, num_edges)`): int64 node ids in `[0, num_nodes)`.
        labels (`numpy.ndarray` of shape `(num_nodes,)`, *optional*): int64; -100 where there is none.
        train_mask (`numpy.ndarray` of shape `(num_nodes,)`, *optional*): bool.
        sensitive (`numpy.ndarray` of shape `(num_nodes,)`, *optional*): int64 group of each node.
    """

    node_features: np.ndarray
    edge_index: np.ndarray
    labels: np.ndarray | None = None
    train_mask: np.ndarray | None = None
    sensitive: np.ndarray | None = None

    @property
    def num_nodes(self) -> int:
        """Number of nodes."""
        return len(self.node_features)


def read_graph(graph: Any, num_features: int | None = None) -> Graph:
    """Read and check one graph.

    Args:
        graph: a mapping with `node_features` (or `x`) and `edge_index`, and optionally `labels` (or `y`),
            `train_mask`, `sensitive`; a pair `(node_features, edge_index)`; a torch-geometric `Data`; or a networkx
            graph whose nodes have an attribute `node_features` (or `x`) and optionally `labels` (or `y`). Arrays are
            lists, numpy arrays, torch tensors, or sparse matrices of scipy or torch. Edges are `(2, num_edges)` or
            `(num_edges, 2)`, or a sparse adjacency matrix; where both dimensions are 2 they are read as the former,
            in a row of a dataset (whose masks have one line for each split) as the latter.
        num_features (`int`, *optional*): what the number of features must be.

    Returns:
        [`Graph`].

    Raises:
        TypeError: If it is none of these.
        ValueError: If an array is missing, has another shape, or holds NaN, infinity or an id out of range.
    """
    fields = _collect_fields(graph)
    node_features = _read_features(_find(fields, FEATURE_NAMES), num_features)
    num_nodes = len(node_features)
    has_splits = np.ndim(fields.get("train_mask")) == 2
    is_row = has_splits and isinstance(graph, Mapping)  # torch-geometric has masks for several splits as well
    return Graph(
        node_features=node_features,
        edge_index=_read_edges(_find(fields, EDGE_NAMES), num_nodes, is_row),
        labels=_read_integers(fields, LABEL_NAMES, num_nodes),
        train_mask=None if has_splits else _read_mask(fields.get("train_mask"), num_nodes),
        sensitive=_read_integers(fields, SENSITIVE_NAMES, num_nodes),
    )


def merge_graphs(graphs: Sequence[Graph]) -> Graph:
    """The disjoint union of graphs, nodes in their order.

    Raises:
        ValueError: If there is none, their widths differ, or only some have labels, masks or groups.
    """
    if not graphs:
        raise ValueError("`graph` must be at least one graph; got an empty list.")
    widths = sorted({graph.node_features.shape[1] for graph in graphs})
    if len(widths) > 1:
        raise ValueError(f"`node_features` of graphs in one list must have one width; got {widths}.")
    offsets = np.cumsum([0, *(graph.num_nodes for graph in graphs[:-1])])
    return Graph(
        node_features=np.concatenate([graph.node_features for graph in graphs]),
        edge_index=np.concatenate(
            [graph.edge_index + offset for graph, offset in zip(graphs, offsets, strict=True)], axis=1
        ),
        labels=_concatenate(graphs, "labels"),
        train_mask=_concatenate(graphs, "train_mask"),
        sensitive=_concatenate(graphs, "sensitive"),
    )


def _concatenate(graphs: Sequence[Graph], name: str) -> np.ndarray | None:
    arrays = [getattr(graph, name) for graph in graphs]
    present = [array for array in arrays if array is not None]
    if present and len(present) < len(arrays):
        raise ValueError(f"`{name}` must be given for all graphs of a list or for none; got {len(present)} of them.")
    return np.concatenate(present) if present else None


# Where the arrays are


def _collect_fields(graph: Any) -> Mapping[str, Any]:
    if isinstance(graph, Mapping):
        return graph
    if isinstance(graph, tuple) and len(graph) == 2:
        return {"node_features": graph[0], "edge_index": graph[1]}
    if hasattr(graph, "edge_index"):  # torch-geometric
        names = (*FEATURE_NAMES, "edge_index", *LABEL_NAMES, "train_mask", *SENSITIVE_NAMES)
        return {name: getattr(graph, name, None) for name in names}
    if hasattr(graph, "nodes") and hasattr(graph, "edges"):  # networkx
        return _collect_networkx(graph)
    raise TypeError(
        "`graph` must be a mapping of arrays, a pair (node_features, edge_index), a torch-geometric Data or a "
        f"networkx graph; got {type(graph).__name__}."
    )


def _collect_networkx(graph: Any) -> dict[str, Any]:
    position = {node: index for index, node in enumerate(graph.nodes)}
    edges = np.array([(position[edge[0]], position[edge[1]]) for edge in graph.edges], dtype=np.int64).reshape(-1, 2)
    if not graph.is_directed():
        edges = np.concatenate([edges, edges[edges[:, 0] != edges[:, 1], ::-1]])
    fields: dict[str, Any] = {"edge_index": edges.T}
    for names in (FEATURE_NAMES, LABEL_NAMES, SENSITIVE_NAMES):
        for name in names:
            values = [attributes[name] for _, attributes in graph.nodes(data=True) if name in attributes]
            if values and len(values) < len(position):
                raise ValueError(f"All nodes must have the attribute {name!r} or none; got it for {len(values)}.")
            if values:
                fields[name] = values
    return fields


def _find(fields: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    for name in names:
        if fields.get(name) is not None:
            return fields[name]
    present = [name for name, value in fields.items() if value is not None]
    raise ValueError(f"`graph` must have {' or '.join(f'`{name}`' for name in names)}; got {', '.join(present)}.")


# What they hold


def _to_array(values: Any) -> np.ndarray:
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        return (values.to_dense() if values.layout != torch.strided else values).numpy()
    if hasattr(values, "toarray"):  # scipy
        return values.toarray()
    return np.asarray(values)


def _read_features(values: Any, num_features: int | None) -> np.ndarray:
    features = _to_array(values)
    if features.ndim != 2 or 0 in features.shape:
        raise ValueError(
            f"`node_features` must have shape (num_nodes, num_features), neither of them 0; got {features.shape}."
        )
    if features.dtype == object or not (np.issubdtype(features.dtype, np.number) or features.dtype == bool):
        raise ValueError(f"`node_features` must be numbers; got {features.dtype}. Encode texts and categories first.")
    features = np.ascontiguousarray(features, dtype=np.float32)
    if num_features is not None and features.shape[1] != num_features:
        raise ValueError(
            f"`node_features` must have {num_features} columns, as the model was made for; got {features.shape[1]}."
        )
    if not np.isfinite(features.sum(dtype=np.float64)):  # one pass; NaN and infinity survive a sum
        node, column = np.argwhere(~np.isfinite(features))[0]
        raise ValueError(
            f"`node_features` must be finite; got {features[node, column]} in column {column} of node {node}. "
            "Fill or drop missing values first."
        )
    return features


def _read_edges(values: Any, num_nodes: int, is_row: bool) -> np.ndarray:
    if hasattr(values, "tocoo"):  # an adjacency matrix of scipy
        values = np.stack(values.tocoo().coords)
    elif isinstance(values, torch.Tensor) and values.layout != torch.strided:
        values = values.to_sparse_coo().coalesce().indices()
    edges = _to_array(values)
    if edges.size == 0:
        return np.zeros((2, 0), dtype=np.int64)
    if edges.ndim != 2 or 2 not in edges.shape:
        raise ValueError(f"`edge_index` must have shape (2, num_edges) or (num_edges, 2); got {edges.shape}.")
    if not np.issubdtype(edges.dtype, np.integer):
        raise ValueError(f"`edge_index` must hold integers, the ids of nodes; got {edges.dtype}.")
    if edges.shape[0] != 2 or (is_row and edges.shape == (2, 2)):
        edges = edges.T
    edges = np.ascontiguousarray(edges, dtype=np.int64)
    outside = (edges < 0) | (edges >= num_nodes)
    if outside.any():
        row, column = np.argwhere(outside)[0]
        raise ValueError(
            f"`edge_index` must hold node ids in [0, {num_nodes}); got {edges[row, column]} at column {column}. "
            "Are the ids zero-based?"
        )
    return edges


def _read_integers(fields: Mapping[str, Any], names: tuple[str, ...], num_nodes: int) -> np.ndarray | None:
    name = next((name for name in names if fields.get(name) is not None), None)
    if name is None:
        return None
    values = _to_array(fields[name])
    if values.ndim == 2 and values.shape[1] == 1:  # a column, as some datasets of torch-geometric have it
        values = values[:, 0]
    if values.shape != (num_nodes,):
        raise ValueError(f"`{name}` must have shape ({num_nodes},), one for each node; got {values.shape}.")
    if not np.issubdtype(values.dtype, np.integer) and values.dtype != bool:
        raise ValueError(f"`{name}` must hold integers; got {values.dtype}.")
    return values.astype(np.int64)


def _read_mask(values: Any, num_nodes: int) -> np.ndarray | None:
    if values is None:
        return None
    mask = _to_array(values)
    if mask.shape != (num_nodes,) or mask.dtype != bool:
        raise ValueError(
            f"`train_mask` must be booleans of shape ({num_nodes},), one for each node; got {mask.dtype} of shape "
            f"{mask.shape}."
        )
    return mask


__all__ = ["EXTRACTED_ONLY", "Graph", "merge_graphs", "read_graph"]
