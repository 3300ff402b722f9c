"""Graphs in `.npz` files to rows of a dataset.

A file holds arrays and no pickles:

- `edge_index` of shape `(2, num_edges)`, the ids of source and target nodes;
- features: `node_features` or `x` of shape `(num_nodes, num_features)`, or a CSR matrix `x_indptr`, `x_indices`,
  `x_shape` and `x_data`, which is absent where all stored values are 1;
- `labels` or `y` of shape `(num_nodes,)`, -100 where there is none; or the ids of such nodes in `unlabeled`;
- masks: booleans `train_mask`, `validation_mask`, `test_mask` of shape `(num_nodes,)` or `(num_splits, num_nodes)`; or
  codes `splits` of that shape, and `split_<name>` of shape `(num_nodes,)`: 0 train, 1 validation, 2 test, else unused;
- optionally `sensitive` or `sens` of shape `(num_nodes,)`, and `feature_names`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import datasets
import numpy as np
import pyarrow as pa
from datasets.features.features import Array2DExtensionType
from datasets.table import InMemoryTable

from .dataset_entry import DatasetEntry


UNLABELED = -100
PARTS = ("train", "validation", "test")  # in the order of their codes
MASKS = tuple(f"{part}_mask" for part in PARTS)
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
    names: Sequence[str]
    if entry is not None:
        names = entry.label_names
    else:
        largest = max(int(row["labels"].max(initial=0)) for split_rows in rows.values() for row in split_rows)
        names = [f"class {number}" for number in range(largest + 1)]
    return datasets.DatasetDict({split: build_graph_dataset(split_rows, names) for split, split_rows in rows.items()})


def read_graph_file(path: Path, entry: DatasetEntry | None = None) -> dict[str, Any]:
    """One graph as a row: see the module for what the file holds."""
    arrays = _read_arrays(path)
    try:
        return _build_row(arrays, path.stem, entry)
    except ValueError as error:
        raise ValueError(f"In `{path}`: {error}") from error


def read_unlabeled_graph(path: Path) -> dict[str, np.ndarray]:
    """Features and edges of a file, all that a prediction needs: labels and masks may be absent."""
    arrays = _read_arrays(path)
    try:
        return {"node_features": _read_features(arrays), "edge_index": _find(arrays, "edge_index")}
    except ValueError as error:
        raise ValueError(f"In `{path}`: {error}") from error


def _read_arrays(path: Path) -> Arrays:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return dict(archive)
    except (BadZipFile, EOFError, TypeError, ValueError) as error:  # TypeError: a single array, as in .npy files
        raise ValueError(f"`{path}` must be an intact .npz file without pickled objects; got: {error}.") from error


def _build_row(arrays: Arrays, name: str, entry: DatasetEntry | None) -> dict[str, Any]:
    edges = _find(arrays, "edge_index")
    if edges.ndim != 2 or len(edges) != 2:
        raise ValueError(f"`edge_index` must have shape (2, num_edges); got {edges.shape}. Transpose it.")
    labels = _find_ids(arrays, "labels", "y")
    for key in ("unlabeled", "unlabelled"):
        if key in arrays:
            labels[arrays[key]] = UNLABELED
    num_nodes = len(labels)
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
    if "feature_names" in arrays and not has_degrees:
        row["feature_names"] = arrays["feature_names"].tolist()
    return row


def _find(arrays: Arrays, *names: str) -> np.ndarray:
    for name in names:
        if name in arrays:
            return arrays[name]
    raise ValueError(f"`{'` or `'.join(names)}` must be among the arrays; got {', '.join(arrays)}.")


def _find_ids(arrays: Arrays, *names: str) -> np.ndarray:
    values = _find(arrays, *names)
    if values.dtype.kind not in "iub" and not (values.dtype.kind == "f" and (values == np.trunc(values)).all()):
        raise ValueError(f"`{'` or `'.join(names)}` must hold whole numbers; got {values.dtype}. Number the values.")
    return values.astype(np.int64)


def _read_features(arrays: Arrays) -> np.ndarray:
    if "x_indptr" not in arrays:
        return np.ascontiguousarray(_find(arrays, "node_features", "x"), dtype=np.float32)
    features = np.zeros(arrays["x_shape"], dtype=np.float32)
    nodes = np.repeat(np.arange(len(features)), np.diff(arrays["x_indptr"]))
    features[nodes, arrays["x_indices"]] = arrays.get("x_data", 1)
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
        names: Sequence[str] = [str(number) for number in range(len(masks[MASKS[0]]))]
        return masks, names
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
            `(num_edges, 2)`, `labels` `(num_nodes,)`, masks `(num_splits, num_nodes)`; optionally `sensitive`
            `(num_nodes,)`, `name`, `split_names`, `feature_names`. Either all rows have a column or none.
        label_names (`Sequence[str]`): names of the classes.

    Raises:
        ValueError: If columns or widths differ between rows.
    """
    columns = list(rows[0])
    if any(set(row) != set(columns) for row in rows):
        raise ValueError(f"all graphs must have the same columns; got {sorted({', '.join(row) for row in rows})}.")
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


def _wrap_column(values: Sequence[Any], feature: Any) -> pa.Array:
    if isinstance(feature, datasets.Array2D):
        dtype = np.dtype(feature.dtype)
        arrays = [np.ascontiguousarray(value, dtype=dtype).reshape(-1, feature.shape[1]) for value in values]
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


__all__ = ["MASKS", "PARTS", "UNLABELED", "build_graph_dataset", "encode_degrees", "read_graph_files"]
