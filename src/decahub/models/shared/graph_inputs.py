"""Reading one graph, whatever it comes as, into checked arrays.

Accepted are a mapping of arrays, a pair `(node_features, edge_index)`, a row of a dataset, a torch-geometric `Data`
and a networkx graph. Neither library is imported: an object that has their attributes is read. What a graph holds is
read or refused, and nothing is left out in silence: labels come with the mask that says which of them may be used.
"""

import warnings
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import BatchFeature

from .checks import refuse_unknown
from .npz_files import check_memory


# What a graph may call its arrays, ours first, then those of torch-geometric.
FEATURE_NAMES = ("node_features", "x")
EDGE_NAMES = ("edge_index", "edges")
LABEL_NAMES = ("labels", "y")
SENSITIVE_NAMES = ("sensitive", "sens")
MASK_NAMES = {
    "train_mask": ("train_mask",),
    "validation_mask": ("validation_mask", "val_mask"),
    "test_mask": ("test_mask",),
}
EDGE_VALUE_NAMES = ("edge_weight", "edge_attr")  # no model of ours reads them
NODE_ARRAYS = (*FEATURE_NAMES, *LABEL_NAMES, *SENSITIVE_NAMES, *sum(MASK_NAMES.values(), ()))
DESCRIPTIONS = ("node_names", "feature_names", "label_names", "split_names", "name", "num_nodes")
# What a feature extractor gives besides the inputs of a model, which may be passed on to it.
EXTRACTED_ONLY = ("sensitive", "validation_mask", "test_mask", "num_nodes_per_graph", "node_names")
KNOWN_NAMES = (
    *NODE_ARRAYS, *EDGE_NAMES, "adj_t", *EDGE_VALUE_NAMES, *DESCRIPTIONS, *EXTRACTED_ONLY, "split", "measured_part",
)  # fmt: skip


@dataclass(frozen=True)
class Graph:
    """One graph as checked arrays.

    Args:
        node_features (`numpy.ndarray` of shape `(num_nodes, num_features)`): float32, finite; or a CSR tensor of torch
            where the graph came with a sparse matrix.
        edge_index (`numpy.ndarray` of shape `(2, num_edges)`): int64 node ids in `[0, num_nodes)`.
        labels (`numpy.ndarray` of shape `(num_nodes,)`, *optional*): int64; -100 where there is none.
        train_mask, validation_mask, test_mask (`numpy.ndarray` of shape `(num_nodes,)`, *optional*): bool.
        sensitive (`numpy.ndarray` of shape `(num_nodes,)`, *optional*): int64 group of each node; float64 where it is
            a continuous attribute.
        node_names (`tuple`, *optional*): what the graph calls its nodes, in their order, where that is not 0, 1, ...
    """

    node_features: np.ndarray | torch.Tensor
    edge_index: np.ndarray
    labels: np.ndarray | None = None
    train_mask: np.ndarray | None = None
    validation_mask: np.ndarray | None = None
    test_mask: np.ndarray | None = None
    sensitive: np.ndarray | None = None
    node_names: tuple[str | int, ...] | None = None

    @property
    def num_nodes(self) -> int:
        """Number of nodes."""
        return self.node_features.shape[0]


def read_graph(
    graph: Any, num_features: int | None = None, *, split: int | str | None = None, needs_labels: bool = True
) -> Graph:
    """Read and check one graph.

    Args:
        graph: a mapping with `node_features` (or `x`) and `edge_index`, and optionally `labels` (or `y`),
            `train_mask`, `validation_mask` (or `val_mask`), `test_mask`, `sensitive`, `node_names`; a pair
            `(node_features, edge_index)`; a torch-geometric `Data`; or a networkx graph whose nodes have an attribute
            `node_features` (or `x`) and optionally the others. Arrays are lists, numpy arrays, torch tensors, or
            sparse matrices of scipy or torch. Edges are `(2, num_edges)` or `(num_edges, 2)`, or a sparse adjacency
            matrix; where both dimensions are 2 they are read as the former, in a row of a dataset (whose masks have
            one line for each split) as the latter.
        num_features (`int`, *optional*): what the number of features must be.
        split (`int` or `str`, *optional*): number or name of the split, where masks have several.
        needs_labels (`bool`): whether labels, masks and groups are read. A prediction needs none of them.

    Returns:
        [`Graph`].

    Raises:
        TypeError: If it is none of these.
        ValueError: If an array is missing or unknown, has another shape, or holds NaN, infinity or an id out of range;
            if there are several splits and none is chosen; if edges have weights.
    """
    fields = collect_fields(graph)
    node_features = _read_features(_find(fields, FEATURE_NAMES), num_features)
    num_nodes = node_features.shape[0]
    has_splits = any(np.ndim(_get(fields, names)) == 2 for names in MASK_NAMES.values())
    is_row = has_splits and isinstance(graph, Mapping)  # torch-geometric has masks for several splits as well
    refuse_edge_values(fields)
    edge_index = _read_edges(fields, num_nodes, is_row)
    names = _read_names(fields.get("node_names"), num_nodes)
    if not needs_labels:
        return Graph(node_features, edge_index, node_names=names)
    labels = _read_integers(fields, LABEL_NAMES, num_nodes)
    if labels is not None:
        _refuse_indices(graph)
    masks = {}
    if labels is not None or split is not None or not has_splits:  # without labels there is nothing to hold back
        masks = _read_masks(fields, num_nodes, isinstance(graph, Mapping), split)
    if labels is not None and masks and "train_mask" not in masks:
        raise ValueError(
            f"`train_mask` must be given where there is `{next(iter(masks))}`; without it all labels would be used."
        )
    sensitive = _read_integers(fields, SENSITIVE_NAMES, num_nodes, allow_fractions=True)
    return Graph(node_features, edge_index, labels, **masks, sensitive=sensitive, node_names=names)


def read_graphs(graph: Any, num_features: int | None = None, **options: Any) -> tuple[Graph, list[int]]:
    """One graph, or the disjoint union of a list of graphs, as [`read_graph`] reads them, and the size of each."""
    graphs = [read_graph(item, num_features, **options) for item in (graph if isinstance(graph, list) else [graph])]
    return merge_graphs(graphs), [part.num_nodes for part in graphs]


def build_inputs(
    graph: Graph, node_features: Any, sizes: Sequence[int] | None, return_tensors: str | None
) -> BatchFeature:
    """What a feature extractor gives.

    Args:
        graph ([`Graph`]): what was read.
        node_features: its features, normalized.
        sizes (`Sequence[int]`, *optional*): of the graphs in a list, which become `num_nodes_per_graph`.
        return_tensors (`str`, *optional*): "pt" or "np".
    """
    data: dict[str, Any] = {"node_features": node_features, "edge_index": graph.edge_index}
    for name in ("labels", *MASK_NAMES, "sensitive"):
        if getattr(graph, name) is not None:
            data[name] = getattr(graph, name)
    if sizes is not None:
        data["num_nodes_per_graph"] = np.array(sizes)
    inputs = BatchFeature(data, tensor_type=return_tensors)
    if graph.node_names is not None:
        inputs["node_names"] = list(graph.node_names)
    return inputs


def merge_graphs(graphs: Sequence[Graph]) -> Graph:
    """The disjoint union of graphs, nodes in their order.

    Raises:
        ValueError: If there is none, their widths differ, or only some have labels, masks or groups.
    """
    if not graphs:
        raise ValueError("`graph` must be at least one graph; got an empty list.")
    if len(graphs) == 1:
        return graphs[0]
    widths = sorted({graph.node_features.shape[1] for graph in graphs})
    if len(widths) > 1:
        raise ValueError(f"`node_features` of graphs in one list must have one width; got {widths}.")
    offsets = np.cumsum([0, *(graph.num_nodes for graph in graphs[:-1])])
    edges = [graph.edge_index + offset for graph, offset in zip(graphs, offsets, strict=True)]
    names = None
    if any(graph.node_names for graph in graphs):
        names = tuple(name for graph in graphs for name in graph.node_names or range(graph.num_nodes))
    node_arrays = ("labels", *MASK_NAMES, "sensitive")
    return Graph(
        _concatenate_features([graph.node_features for graph in graphs]),
        np.concatenate(edges, axis=1),
        **{name: _concatenate(graphs, name) for name in node_arrays},
        node_names=names,
    )


def _concatenate(graphs: Sequence[Graph], name: str) -> np.ndarray | None:
    arrays = [getattr(graph, name) for graph in graphs]
    present = [array for array in arrays if array is not None]
    if present and len(present) < len(arrays):
        raise ValueError(f"`{name}` must be given for all graphs of a list or for none; got {len(present)} of them.")
    return np.concatenate(present) if present else None


def _concatenate_features(parts: list[np.ndarray | torch.Tensor]) -> np.ndarray | torch.Tensor:
    sparse = [part for part in parts if isinstance(part, torch.Tensor)]
    if len(sparse) < len(parts):
        return np.concatenate([to_dense(part) for part in parts])
    offsets = np.cumsum([0, *(part.values().numel() for part in sparse)])
    rows = [part.crow_indices()[1:] + offset for part, offset in zip(sparse, offsets, strict=False)]
    return build_csr(
        torch.cat([torch.zeros(1, dtype=torch.int64), *rows]),
        torch.cat([part.col_indices() for part in sparse]),
        torch.cat([part.values() for part in sparse]),
        (sum(part.shape[0] for part in sparse), sparse[0].shape[1]),
    )


def build_csr(rows: torch.Tensor, columns: torch.Tensor, values: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """A sparse tensor in CSR layout, without torch's remark that it is in beta state."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta state")
        return torch.sparse_csr_tensor(rows, columns, values, shape, check_invariants=False)


def to_csr(matrix: torch.Tensor) -> torch.Tensor:
    """A matrix in CSR layout, without that remark."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta state")
        return matrix.to_sparse_csr()


def to_dense(features: np.ndarray | torch.Tensor) -> np.ndarray:
    """Features as a numpy array.

    Raises:
        ValueError: If it would not fit into memory.
    """
    if isinstance(features, np.ndarray):
        return features
    check_memory(4 * features.shape[0] * features.shape[1], "`node_features` as a dense matrix")
    return features.to_dense().numpy()


# Where the arrays are


def collect_fields(graph: Any) -> Mapping[str, Any]:
    """The arrays of a graph by their names, as they are; see [`read_graph`] for what it may be."""
    if isinstance(graph, Mapping):
        refuse_unknown(map(str, graph), KNOWN_NAMES, f"an array of a graph ({', '.join(KNOWN_NAMES)})")
        return graph
    if isinstance(graph, tuple) and len(graph) == 2:
        return {"node_features": graph[0], "edge_index": graph[1]}
    if hasattr(graph, "edge_index"):  # torch-geometric
        return {name: getattr(graph, name, None) for name in KNOWN_NAMES if name != "edges"}
    if hasattr(graph, "nodes") and hasattr(graph, "edges"):  # networkx
        return _collect_networkx(graph)
    raise TypeError(
        "`graph` must be a mapping of arrays, a pair (node_features, edge_index), a torch-geometric Data or a "
        f"networkx graph; got {type(graph).__name__}."
    )


def _refuse_indices(graph: Any) -> None:
    """Refuses a torch-geometric graph whose splits are lists of nodes, which would be left out."""
    for name in ("train_idx", "val_idx", "valid_idx", "test_idx"):
        if not isinstance(graph, (Mapping, tuple)) and getattr(graph, name, None) is not None:
            mask = {"train_idx": "train_mask", "test_idx": "test_mask"}.get(name, "val_mask")
            if getattr(graph, mask, None) is None:
                raise ValueError(
                    f"`{name}` must be given as the mask `{mask}`; got ids of nodes. Use "
                    f"`torch_geometric.utils.index_to_mask(data.{name}, data.num_nodes)`."
                )


def _collect_networkx(graph: Any) -> dict[str, Any]:
    position = {node: index for index, node in enumerate(graph.nodes)}
    edges = np.array([(position[edge[0]], position[edge[1]]) for edge in graph.edges], dtype=np.int64).reshape(-1, 2)
    if not graph.is_directed():
        edges = np.concatenate([edges, edges[edges[:, 0] != edges[:, 1], ::-1]])
    fields: dict[str, Any] = {"edge_index": edges.T, "node_names": list(position)}
    fields["edge_weight"] = [weight for _, _, weight in graph.edges(data="weight", default=1)]
    for name in NODE_ARRAYS:
        values = [attributes[name] for _, attributes in graph.nodes(data=True) if name in attributes]
        if values and len(values) < len(position):
            raise ValueError(f"All nodes must have the attribute {name!r} or none; got it for {len(values)}.")
        if values:
            fields[name] = values
    return fields


def _get(fields: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((fields[name] for name in names if fields.get(name) is not None), None)


def _find(fields: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    value = _get(fields, names)
    if value is None:
        present = [name for name, held in fields.items() if held is not None]
        hint = " For nodes without features, give each a constant or its degree." if names is FEATURE_NAMES else ""
        raise ValueError(
            f"`graph` must have {' or '.join(f'`{name}`' for name in names)}; got {', '.join(present)}.{hint}"
        )
    return value


# What they hold


def _to_array(values: Any) -> np.ndarray:
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        return (values.to_dense() if values.layout != torch.strided else values).numpy()
    if hasattr(values, "toarray"):  # scipy
        return values.toarray()
    return np.asarray(values)


def _read_sparse(values: Any) -> torch.Tensor | None:
    """A matrix of scipy or torch as float32 in CSR layout; `None` if it is neither."""
    if isinstance(values, torch.Tensor):
        return None if values.layout == torch.strided else to_csr(values.detach().cpu().float())
    if not hasattr(values, "tocsr"):
        return None
    matrix = values.tocsr().astype(np.float32)
    matrix.sum_duplicates()
    rows, columns = (torch.from_numpy(index.astype(np.int64)) for index in (matrix.indptr, matrix.indices))
    return build_csr(rows, columns, torch.from_numpy(matrix.data), matrix.shape)


def _read_features(values: Any, num_features: int | None) -> np.ndarray | torch.Tensor:
    sparse = _read_sparse(values)
    features = _to_array(values) if sparse is None else sparse
    if features.ndim != 2 or 0 in features.shape:
        raise ValueError(
            "`node_features` must have shape (num_nodes, num_features), neither of them 0; got "
            f"{tuple(features.shape)}."
        )
    if isinstance(features, np.ndarray):
        if features.dtype == object or not (np.issubdtype(features.dtype, np.number) or features.dtype == bool):
            raise ValueError(
                f"`node_features` must be numbers; got {features.dtype}. Encode texts and categories first."
            )
        features = np.ascontiguousarray(features, dtype=np.float32)
    if num_features is not None and features.shape[1] != num_features:
        raise ValueError(
            f"`node_features` must have {num_features} columns, as the model was made for; got {features.shape[1]}."
        )
    if isinstance(features, torch.Tensor):
        if not torch.isfinite(features.values()).all():
            raise ValueError("`node_features` must be finite; got NaN or infinity. Fill or drop missing values first.")
    elif not np.isfinite(features.sum(dtype=np.float64)):  # one pass; NaN and infinity survive a sum
        node, column = np.argwhere(~np.isfinite(features))[0]
        raise ValueError(
            f"`node_features` must be finite; got {features[node, column]} in column {column} of node {node}. "
            "Fill or drop missing values first."
        )
    return features


def refuse_edge_values(fields: Mapping[str, Any]) -> None:
    """Refuses weights or attributes of the edges that differ: no model reads them."""
    for name in EDGE_VALUE_NAMES:
        if fields.get(name) is not None:
            _check_equal(_to_array(fields[name]), name, f"Leave out `{name}`")


def _check_equal(values: np.ndarray, name: str, remedy: str) -> None:
    if len(values) and not (values == values[:1]).all():
        raise ValueError(
            f"`{name}` must be the same for all edges, because the model does not read it; got different values. "
            f"{remedy} if all edges may count alike."
        )


def _read_edges(fields: Mapping[str, Any], num_nodes: int, is_row: bool) -> np.ndarray:
    is_transposed = _get(fields, EDGE_NAMES) is None and fields.get("adj_t") is not None
    values = fields["adj_t"] if is_transposed else _find(fields, EDGE_NAMES)
    is_sparse = isinstance(values, torch.Tensor) and values.layout != torch.strided
    if is_sparse or hasattr(values, "tocoo"):
        edges = _read_adjacency(values, num_nodes)
        edges = edges[::-1] if is_transposed else edges
    elif is_transposed:
        raise ValueError(
            f"`adj_t` must be a sparse tensor of torch; got {type(values).__name__}. Give `edge_index` instead: "
            "`torch.stack(adj_t.coo()[:2]).flip(0)`."
        )
    else:
        edges = orient_edges(values, is_row)
    edges = np.ascontiguousarray(edges, dtype=np.int64)
    outside = (edges < 0) | (edges >= num_nodes)
    if outside.any():
        row, column = np.argwhere(outside)[0]
        raise ValueError(
            f"`edge_index` must hold node ids in [0, {num_nodes}); got {edges[row, column]} at column {column}. "
            "Are the ids zero-based?"
        )
    return edges


def _read_adjacency(values: Any, num_nodes: int) -> np.ndarray:
    """Edges of a sparse matrix; stored zeros are none."""
    if tuple(values.shape) != (num_nodes, num_nodes):
        raise ValueError(
            f"`edge_index` must have shape ({num_nodes}, {num_nodes}) as an adjacency matrix, as there are nodes in "
            f"`node_features`; got {tuple(values.shape)}."
        )
    if isinstance(values, torch.Tensor):
        matrix = values.detach().cpu().to_sparse_coo().coalesce()
        edges, weights = matrix.indices().numpy(), matrix.values().numpy()
    else:
        matrix = values.tocoo()
        edges, weights = np.stack([matrix.row, matrix.col]), matrix.data
    edges, weights = edges[:, weights != 0], weights[weights != 0]
    _check_equal(weights, "values of the adjacency matrix", "Give `adjacency != 0`")
    return edges


def orient_edges(values: Any, is_row: bool) -> np.ndarray:
    """Edges as `(2, num_edges)`, from either orientation.

    Args:
        values (array of shape `(2, num_edges)` or `(num_edges, 2)`): integers.
        is_row (`bool`): whether `(2, 2)`, which could be both, is two edges in two lines, as in rows of a dataset.

    Raises:
        ValueError: If there is another shape or type.
    """
    edges = _to_array(values)
    if edges.size == 0:
        return np.zeros((2, 0), dtype=np.int64)
    if edges.ndim != 2 or 2 not in edges.shape:
        raise ValueError(f"`edge_index` must have shape (2, num_edges) or (num_edges, 2); got {edges.shape}.")
    if not np.issubdtype(edges.dtype, np.integer):
        raise ValueError(f"`edge_index` must hold integers, the ids of nodes; got {edges.dtype}.")
    return edges.T if edges.shape[0] != 2 or (is_row and edges.shape == (2, 2)) else edges


def _read_integers(
    fields: Mapping[str, Any], names: tuple[str, ...], num_nodes: int, allow_fractions: bool = False
) -> np.ndarray | None:
    name = next((name for name in names if fields.get(name) is not None), None)
    if name is None:
        return None
    values = _to_array(fields[name])
    if values.ndim == 2 and values.shape[1] == 1:  # a column, as some datasets of torch-geometric have it
        values = values[:, 0]
    if values.shape != (num_nodes,):
        raise ValueError(f"`{name}` must have shape ({num_nodes},), one for each node; got {values.shape}.")
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            hint = "" if allow_fractions else " Write -100 where there is no label."
            node = int(np.isfinite(values).argmin())
            raise ValueError(f"`{name}` must not hold NaN or infinity; got {values[node]} at node {node}.{hint}")
        if allow_fractions and (values != np.trunc(values)).any():
            return values.astype(np.float64)
    if values.dtype.kind not in "iub" and not (values.dtype.kind == "f" and (values == np.trunc(values)).all()):
        raise ValueError(
            f"`{name}` must hold integers; got {values.dtype}. Number the values: "
            f"`names, numbers = numpy.unique({name}, return_inverse=True)`."
        )
    return values.astype(np.int64)


def _read_masks(
    fields: Mapping[str, Any], num_nodes: int, lines_first: bool, split: int | str | None
) -> dict[str, np.ndarray]:
    masks = {}
    num_splits = 0
    for name, names in MASK_NAMES.items():
        values = _get(fields, names)
        if values is None:
            continue
        mask = _to_array(values)
        if mask.ndim == 2 and (mask.shape[1] != num_nodes or (mask.shape[0] == num_nodes and not lines_first)):
            mask = mask.T
        if mask.ndim not in (1, 2) or mask.shape[-1] != num_nodes or mask.dtype != bool:
            raise ValueError(
                f"`{name}` must be booleans of shape ({num_nodes},), one for each node; got {mask.dtype} of shape "
                f"{mask.shape}."
            )
        if mask.ndim == 2:
            num_splits = len(mask)
            mask = mask[_choose_split(fields, num_splits, split)]
        masks[name] = mask
    if split is not None and masks and not num_splits:
        raise ValueError(f"`split` must be left out for a graph whose masks have one split; got {split!r}.")
    return masks


def _choose_split(fields: Mapping[str, Any], num_splits: int, split: int | str | None) -> int:
    names = fields.get("split_names")
    names = [str(name) for name in (range(num_splits) if names is None else names)]
    if split is None and num_splits == 1:
        return 0
    if split is None:
        raise ValueError(
            f"`split` must choose one of the {num_splits} splits of this graph's masks, {', '.join(names)}; got none. "
            "Without it, labels would be used that are kept for a test."
        )
    if str(split) in names:
        return names.index(str(split))
    if str(split).isdecimal() and int(split) < num_splits:
        return int(split)
    raise ValueError(f"`split` must be one of {', '.join(names)}; got {split!r}.")


def _read_names(names: Any, num_nodes: int) -> tuple[str | int, ...] | None:
    if names is None or isinstance(names, str):
        return None
    read = tuple(_to_name(name) for name in (names.tolist() if hasattr(names, "tolist") else names))
    if len(read) != num_nodes or len(set(map(str, read))) < num_nodes:
        raise ValueError(
            f"`node_names` must be {num_nodes} different names, one for each node; got {len(read)}, "
            f"{len(set(map(str, read)))} of them different."
        )
    return None if read == tuple(range(num_nodes)) else read


def _to_name(node: Hashable) -> str | int:
    if isinstance(node, (int, np.integer)) and not isinstance(node, bool):
        return int(node)
    return str(node)


__all__ = [
    "EDGE_VALUE_NAMES",
    "EXTRACTED_ONLY",
    "Graph",
    "build_csr",
    "build_inputs",
    "collect_fields",
    "merge_graphs",
    "orient_edges",
    "read_graph",
    "read_graphs",
    "refuse_edge_values",
    "to_dense",
]
