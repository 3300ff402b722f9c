"""Graphs in `.npz` files to rows of a dataset.

A file holds arrays and no pickles:

- `edge_index` of shape `(2, num_edges)`, the ids of source and target nodes;
- features: `node_features` or `x` of shape `(num_nodes, num_features)`, or a CSR matrix `x_indptr`, `x_indices`,
  `x_shape` and `x_data`, which is absent where all stored values are 1;
- `labels` or `y` of shape `(num_nodes,)`, -100 where there is none; or the ids of such nodes in `unlabeled`;
- masks: booleans `train_mask`, `validation_mask`, `test_mask` of shape `(num_nodes,)` or `(num_splits, num_nodes)`; or
  codes `splits` of that shape, and `split_<name>` of shape `(num_nodes,)`: 0 train, 1 validation, 2 test, else unused;
- optionally `sensitive` or `sens` of shape `(num_nodes,)`, `feature_names`, `label_names` and `node_names`;
- `edge_weight` or `edge_attr` if the same for all edges, and `<name>_raw`, which nothing reads.

A graph may also be two tables: `nodes.csv`, or `<name>_nodes.csv`, and `edges.csv` beside it; see `graph_tables.py`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import torch
from datasets.features.features import Array2DExtensionType
from datasets.table import InMemoryTable

from decahub.models.shared.checks import refuse_unknown
from decahub.models.shared.graph_inputs import EDGE_VALUE_NAMES, build_csr, orient_edges, refuse_edge_values
from decahub.models.shared.npz_files import check_memory, read_npz

from .dataset_entry import DatasetEntry
from .graph_tables import NODE_TABLE, read_tables


UNLABELED = -100
PARTS = ("train", "validation", "test")  # in the order of their codes
MASKS = tuple(f"{part}_mask" for part in PARTS)
# Names of one thing, of which a file holds one.
SYNONYMS = (
    ("node_features", "x", "x_indptr"), ("labels", "y"), ("sensitive", "sens"), ("unlabeled", "unlabelled"),
)  # fmt: skip
ARRAYS = (
    "edge_index", *sum(SYNONYMS, ()), "x_indices", "x_shape", "x_data", *MASKS, "splits", "feature_names",
    "label_names", "node_names", *EDGE_VALUE_NAMES,
)  # fmt: skip
MAX_DEGREE_BITS = 16  # width of degree features; degrees of 2 ** 15 and more share the last column

Arrays = Mapping[str, np.ndarray]


def read_graph_files(files: Mapping[str, Sequence[Path]], entry: DatasetEntry | None = None) -> datasets.DatasetDict:
    """Dataset with one row for each file.

    Args:
        files (`Mapping[str, Sequence[Path]]`): split to its files.
        entry (`DatasetEntry`, *optional*): names of classes and splits; without it classes are numbered.

    Returns:
        `datasets.DatasetDict`: the columns of the family "node-classification".

    Raises:
        ValueError: If a file is damaged or lacks an array, or an array has another shape.
    """
    rows = {split: [read_graph_file(path, entry) for path in paths] for split, paths in files.items()}
    every_row = [row for split_rows in rows.values() for row in split_rows]
    given = {tuple(row.pop("label_names", ())) for row in every_row}
    if len(given) > 1:
        raise ValueError(f"`label_names` of all graphs must be the same; got {sorted(given)}.")
    names: Sequence[str] = given.pop()
    if entry is not None:
        names = entry.label_names
    elif not names:
        names = _number_classes(np.unique(np.concatenate([row["labels"] for row in every_row])))
    return datasets.DatasetDict({split: build_graph_dataset(split_rows, names) for split, split_rows in rows.items()})


def _number_classes(labels: np.ndarray) -> list[str]:
    """The ids of classes as names: a dataset without names makes none up."""
    known = labels[labels >= 0]
    if not np.array_equal(known, np.arange(len(known))):
        raise ValueError(
            f"`labels` must be numbered from 0 without a gap; got {', '.join(map(str, known[:5]))}"
            f"{', ...' if len(known) > 5 else ''}. Number them anew, or name all classes in an array `label_names`."
        )
    return [str(number) for number in range(max(len(known), 1))]


def find_graph_files(folder: Path) -> dict[str, list[Path]]:
    """The graphs in a user's own folder: `.npz` files, or tables of nodes with one of edges beside each.

    Raises:
        FileNotFoundError: If the folder holds neither these nor parquet files.
        ValueError: If it holds both.
    """
    arrays, tables = sorted(folder.glob("*.npz")), sorted(folder.glob(f"*{NODE_TABLE}"))
    if arrays and tables:
        raise ValueError(
            f"`{folder}` must hold graphs as `.npz` or as tables, not both; got {arrays[0].name} and "
            f"{tables[0].name}. Move one of them out."
        )
    graphs = arrays or tables
    if not graphs and not any(folder.glob("*.parquet")):
        raise FileNotFoundError(
            f"`{folder}` must hold graphs: `<name>.npz`, or `nodes.csv` and `edges.csv`; it holds "
            f"{', '.join(sorted(path.name for path in folder.iterdir())[:5]) or 'nothing'}. "
            "`decahub.data.save_graph` writes such a folder."
        )
    return {"graph": graphs} if graphs else {}


def read_graph_file(path: Path, entry: DatasetEntry | None = None) -> dict[str, Any]:
    """One graph as a row: see the module for what the file holds."""
    arrays = _read_arrays(path)
    try:
        _check_names(arrays)
        return _build_row(arrays, path.stem, entry)
    except ValueError as error:
        raise ValueError(f"In `{path}`: {error}") from error


def read_unlabeled_graph(path: Path) -> dict[str, Any]:
    """Features, edges and names of a file, all that a prediction needs: labels and masks may be absent."""
    arrays = _read_arrays(path)
    try:
        _check_names(arrays)
        graph = {"node_features": _read_features(arrays, sparse=True), "edge_index": _find(arrays, "edge_index")}
        return graph | {name: arrays[name] for name in ("node_names",) if name in arrays}
    except ValueError as error:
        raise ValueError(f"In `{path}`: {error}") from error


def _read_arrays(path: Path) -> Arrays:
    return read_tables(path) if path.suffix == ".csv" else read_npz(path)


def _check_names(arrays: Arrays) -> None:
    """Refuses what would be left out: unknown arrays, the second of two that mean the same, edges that differ."""
    splits = [name for name in arrays if name == "splits" or name.startswith("split_")]
    others = [name for name in arrays if name not in splits and not name.endswith("_raw")]
    refuse_unknown(others, ARRAYS, f"an array of a graph file ({', '.join(ARRAYS)}, `split_<name>`)")
    for names in (*SYNONYMS, *((mask, split) for mask in MASKS for split in splits)):
        given = [name for name in names if name in arrays]
        if len(given) > 1:
            raise ValueError(f"`{given[0]}` and `{given[1]}` must not both be given. Leave one of them out.")
    refuse_edge_values(arrays)


def _build_row(arrays: Arrays, name: str, entry: DatasetEntry | None) -> dict[str, Any]:
    edges = orient_edges(_find(arrays, "edge_index"), is_row=False)
    labels = _find_ids(arrays, "labels", "y")
    num_nodes = len(labels)
    for key in SYNONYMS[-1]:
        if key in arrays:
            labels[_check_nodes(key, arrays[key], num_nodes)] = UNLABELED
    has_degrees = entry is not None and entry.degree_features
    masks, split_names = _read_masks(arrays, entry)
    row = {
        "node_features": encode_degrees(edges, num_nodes) if has_degrees else _read_features(arrays),
        "edge_index": np.ascontiguousarray(edges.T, dtype=np.int64),
        "labels": labels,
        **masks,
        "name": name if entry is None else entry.name,
        "split_names": list(split_names),
    }
    if "sens" in arrays or "sensitive" in arrays:
        row["sensitive"] = _find_ids(arrays, "sensitive", "sens")
    for name in ("feature_names", "label_names", "node_names"):
        if name in arrays and not (name == "feature_names" and has_degrees):
            row[name] = [str(value) for value in arrays[name].tolist()]
    return row


def _find(arrays: Arrays, *names: str) -> np.ndarray:
    for name in names:
        if name in arrays:
            return arrays[name]
    raise ValueError(f"`{'` or `'.join(names)}` must be among the arrays; got {', '.join(arrays)}.")


def _find_ids(arrays: Arrays, *names: str) -> np.ndarray:
    values = _find(arrays, *names)
    if values.ndim != 1:
        raise ValueError(
            f"`{'` or `'.join(names)}` must have one dimension, an id for each node; got shape {values.shape}. Make "
            f"ids of one-hot rows by `{names[0]}.argmax(axis=1)`, and of a single column by `{names[0]}[:, 0]`."
        )
    if values.dtype.kind not in "iub" and not (values.dtype.kind == "f" and (values == np.trunc(values)).all()):
        raise ValueError(f"`{'` or `'.join(names)}` must hold whole numbers; got {values.dtype}. Number the values.")
    return values.astype(np.int64)


def _check_nodes(name: str, values: np.ndarray, num_nodes: int) -> np.ndarray:
    """Ids of nodes as integers."""
    if values.dtype.kind not in "iuf":
        raise ValueError(f"`{name}` must hold node ids in [0, {num_nodes}); got {values.dtype}.")
    is_node = (values >= 0) & (values < num_nodes) & (values == np.trunc(values))
    if not is_node.all():
        raise ValueError(f"`{name}` must hold node ids in [0, {num_nodes}); got {values[~is_node][0]}.")
    return values.astype(np.int64)


def _read_features(arrays: Arrays, sparse: bool = False) -> Any:
    """Features as a dense array; with `sparse`, a matrix that the file keeps sparse as a CSR tensor of torch."""
    if "x_indptr" not in arrays:
        return np.ascontiguousarray(_find(arrays, "node_features", "x"), dtype=np.float32)
    shape, columns = _find(arrays, "x_shape").tolist(), _find(arrays, "x_indices").astype(np.int64)
    if np.shape(shape) != (2,):
        raise ValueError(f"`x_shape` must be the numbers of nodes and of features; got {shape}.")
    num_nodes, num_features = shape
    starts = arrays["x_indptr"].astype(np.int64)
    values = np.broadcast_to(arrays.get("x_data", np.float32(1)), columns.shape).astype(np.float32)
    if (
        len(starts) != num_nodes + 1 or starts[0] != 0 or starts[-1] != len(columns) or (np.diff(starts) < 0).any()
        or (len(columns) and not 0 <= columns.min() <= columns.max() < num_features)
    ):  # fmt: skip
        raise ValueError(f"`x_indptr` and `x_indices` must be those of a matrix of shape {(num_nodes, num_features)}.")
    if sparse:
        shape = (num_nodes, num_features)
        return build_csr(torch.from_numpy(starts), torch.from_numpy(columns), torch.from_numpy(values), shape)
    check_memory(4 * num_nodes * num_features, "`x` as a dense matrix")
    features = np.zeros((num_nodes, num_features), dtype=np.float32)
    features[np.repeat(np.arange(num_nodes), np.diff(starts)), columns] = values
    return features


def encode_degrees(edges: np.ndarray, num_nodes: int) -> np.ndarray:
    """Features for a graph that has none: one-hot of the number of binary digits of a node's degree.

    Args:
        edges (`numpy.ndarray` of shape `(2, num_edges)`): both directions of each edge.
        num_nodes (`int`): number of nodes.

    Returns:
        `numpy.ndarray` of shape `(num_nodes, 16)`: degree 0 has column 0, 1 has 1, 2 and 3 have 2, 4 to 7 have 3, ...
    """
    degrees = np.bincount(edges[0], minlength=num_nodes)
    digits = np.frexp(degrees.astype(np.float64))[1]
    return np.eye(MAX_DEGREE_BITS, dtype=np.float32)[np.minimum(digits, MAX_DEGREE_BITS - 1)]


def _read_masks(arrays: Arrays, entry: DatasetEntry | None) -> tuple[dict[str, np.ndarray], Sequence[str]]:
    if MASKS[0] in arrays:
        masks = {name: np.atleast_2d(_find(arrays, name)) for name in MASKS}
        for name, mask in masks.items():
            if mask.dtype != bool:
                raise ValueError(f"`{name}` must hold booleans; got {mask.dtype}.")
        names: Sequence[str] = [str(number) for number in range(len(masks[MASKS[0]]))]
        return masks, names
    for name, codes in arrays.items():
        if (name == "splits" or name.startswith("split_")) and codes.dtype.kind not in "iu":
            raise ValueError(f"`{name}` must hold codes, 0 train, 1 validation, 2 test, 255 none; got {codes.dtype}.")
    public = np.atleast_2d(arrays["splits"]) if "splits" in arrays else None
    names = [str(number) for number in range(0 if public is None else len(public))]
    named = {name.removeprefix("split_"): codes for name, codes in arrays.items() if name.startswith("split_")}
    if not names and not named:
        raise ValueError(f"`train_mask` or `splits` must be among the arrays; got {', '.join(arrays)}.")
    codes = np.concatenate(([] if public is None else [public]) + [code[None] for code in named.values()])
    names = [*names, *named]
    if entry is not None and entry.split_names != tuple(names):
        raise ValueError(f"splits must be {', '.join(entry.split_names)}; got {', '.join(names)}.")
    return {mask: codes == code for code, mask in enumerate(MASKS)}, names


# Rows to Arrow: the arrays are wrapped, not copied, and come back as they are under the "numpy" format.


def build_graph_dataset(rows: Sequence[Mapping[str, Any]], label_names: Sequence[str]) -> datasets.Dataset:
    """Dataset of graphs, in numpy format.

    Args:
        rows (sequence of mappings): `node_features` `(num_nodes, num_features)` float32, `edge_index`
            `(num_edges, 2)`, `labels` `(num_nodes,)`, masks `(num_splits, num_nodes)` or `(num_nodes,)`; optionally
            `sensitive` `(num_nodes,)`, `name`, `split_names`, `feature_names`, `node_names`.
            Either all rows have a column or none.
        label_names (`Sequence[str]`): names of the classes.

    Raises:
        ValueError: If columns or widths differ between rows.
    """
    columns = list(rows[0])
    if any(set(row) != set(columns) for row in rows):
        raise ValueError(f"all graphs must have the same columns; got {sorted({', '.join(row) for row in rows})}.")
    rows = [_shape_row(row) for row in rows]
    widths = sorted({np.shape(row["node_features"])[-1] for row in rows})
    if len(widths) > 1:
        raise ValueError(f"`node_features` of all graphs must have one width; got {widths}.")
    string = datasets.Value("string")
    known = {
        "node_features": datasets.Array2D((None, widths[0]), "float32"),
        "edge_index": datasets.Array2D((None, 2), "int64"),
        "labels": datasets.List(datasets.ClassLabel(names=list(label_names))),
        **{mask: datasets.List(datasets.List(datasets.Value("bool"))) for mask in MASKS},
        "sensitive": datasets.List(datasets.Value("int64")),
        "name": string,
        "split_names": datasets.List(string),
        "feature_names": datasets.List(string),
        "node_names": datasets.List(string),
    }
    features = datasets.Features({column: known[column] for column in columns})
    table = pa.table({column: _wrap_column([row[column] for row in rows], known[column]) for column in columns})
    # Without a fingerprint of its own the whole table would be hashed.
    dataset = datasets.Dataset(
        InMemoryTable(table),
        info=datasets.DatasetInfo(features=features),
        fingerprint=datasets.fingerprint.generate_random_fingerprint(),
    )
    return dataset.with_format("numpy")


def _shape_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row whose edges are `(num_edges, 2)` and whose masks have one line for each split."""
    shaped = {**row, "edge_index": orient_edges(row["edge_index"], is_row=True).T}
    return shaped | {mask: np.atleast_2d(row[mask]) for mask in MASKS if mask in row}


def _wrap_column(values: Sequence[Any], feature: Any) -> pa.Array:
    if isinstance(feature, datasets.Array2D):
        dtype = np.dtype(feature.dtype)
        arrays = [np.ascontiguousarray(value, dtype=dtype) for value in values]
        storage = pa.concat_arrays([_wrap_lists(array) for array in arrays])
        return pa.ExtensionArray.from_storage(Array2DExtensionType(feature.shape, feature.dtype), storage)
    if isinstance(values[0], np.ndarray):
        if values[0].ndim == 2:
            return pa.concat_arrays([_wrap_lists(np.asarray(value, dtype=bool)) for value in values])
        return pa.concat_arrays([_wrap_list(pa.array(value)) for value in values])
    return pa.array(values)


def _wrap_list(values: pa.Array) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values)


def _wrap_lists(matrix: np.ndarray) -> pa.ListArray:
    """One value: the matrix as a list of its rows."""
    offsets = pa.array(np.arange(len(matrix) + 1, dtype=np.int32) * matrix.shape[1], pa.int32())
    return _wrap_list(pa.ListArray.from_arrays(offsets, pa.array(matrix.reshape(-1))))


__all__ = [
    "MASKS",
    "PARTS",
    "UNLABELED",
    "build_graph_dataset",
    "encode_degrees",
    "find_graph_files",
    "read_graph_files",
    "read_unlabeled_graph",
]
