"""Graphs as tables: one of nodes and one of edges, from CSV files or data frames, to the arrays of an `.npz` file.

- nodes: a column `node` (any names; without it nodes are numbered), `label` (names or numbers; empty where there is
  none), `split` or `split_<name>` (train, validation, test, or empty), `sensitive`; every other column is a feature
  and holds numbers;
- edges: `source` and `target`, as the column `node` has them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .own_tables import read_table


NODE_TABLE, EDGE_TABLE = "nodes.csv", "edges.csv"
CODES = {"train": 0, "validation": 1, "val": 1, "test": 2}
NO_PART, UNLABELED = 255, -100
COLUMNS = ("node", "label", "sensitive")
ENDS = ("source", "target")


def read_tables(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a graph, from its table of nodes; that of edges has the same name with `edges` for `nodes`.

    Raises:
        FileNotFoundError: If there is no table of edges.
        ValueError: If a table lacks a column or holds what cannot be read.
    """
    if not path.name.endswith(NODE_TABLE):
        raise ValueError(f"`{path}` must end in `{NODE_TABLE}`, a table of nodes with one of edges beside it.")
    edges = path.with_name(path.name.removesuffix(NODE_TABLE) + EDGE_TABLE)
    if not edges.is_file():
        raise FileNotFoundError(f"`{edges}` must be the table of the edges between the nodes of `{path}`.")
    try:
        return convert_tables(read_table(path, texts=["node"]), read_table(edges, texts=ENDS))
    except (ValueError, pd.errors.ParserError) as error:
        raise ValueError(f"In `{path}` and `{edges.name}`: {error}") from error


def convert_tables(nodes: Any, edges: Any) -> dict[str, np.ndarray]:
    """The arrays of a graph in two tables.

    Args:
        nodes (`pandas.DataFrame`): see the module.
        edges (`pandas.DataFrame`): see the module.

    Raises:
        ValueError: If a column is missing or holds what cannot be read.
    """
    for column in ENDS:
        if column not in edges:
            raise ValueError(f"the table of edges must have the column {column!r}; it has {', '.join(edges)}.")
    for column in edges.columns.difference(ENDS):
        if edges[column].nunique(dropna=False) > 1:
            raise ValueError(
                f"the table of edges must have the columns 'source' and 'target' only; got {column!r}, which no model "
                "reads. Drop it if all edges may count alike."
            )
    if "node" in nodes and nodes["node"].isna().any():
        line = int(nodes["node"].isna().to_numpy().argmax()) + 2  # the header is line 1
        raise ValueError(f"the column 'node' must hold a name in each line; got none in line {line}.")
    names = pd.Index(nodes["node"] if "node" in nodes else range(len(nodes))).map(_to_text)
    if names.has_duplicates:
        raise ValueError(f"the column 'node' must hold different names; got {names[names.duplicated()][0]!r} twice.")
    ends = np.stack([names.get_indexer(edges[column].map(_to_text, na_action="ignore")) for column in ENDS])
    if (ends < 0).any():
        row, line = np.argwhere(ends < 0)[0]
        column = ENDS[row]
        raise ValueError(
            f"{column!r} in the table of edges must be a node; got {edges[column].iloc[line]!r} in line {line + 2}."
        )
    arrays = {"edge_index": ends.astype(np.int64), **_read_features(nodes)}
    if names.tolist() != [str(number) for number in range(len(names))]:
        arrays["node_names"] = np.array(names, dtype=str)
    if "label" in nodes:
        arrays |= _read_labels(nodes["label"])
    if "sensitive" in nodes:
        arrays["sensitive"] = nodes["sensitive"].to_numpy()
    for column in _list_splits(nodes):
        arrays["splits" if column == "split" else column] = _read_split(nodes[column])
    return arrays


def _to_text(value: Any) -> str:
    """A name as the tables write it; numbers of a column with gaps are read as 3.0."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _list_splits(nodes: Any) -> list[str]:
    return [column for column in nodes if column == "split" or str(column).startswith("split_")]


def _read_features(nodes: Any) -> dict[str, np.ndarray]:
    table = nodes.drop(columns=[column for column in (*COLUMNS, *_list_splits(nodes)) if column in nodes])
    if not table.shape[1]:
        raise ValueError("the table of nodes must have at least one column of features besides 'node' and 'label'.")
    if any(str(column).startswith("Unnamed: ") for column in table):  # as pandas calls it
        raise ValueError(
            "each column of the nodes must have a name; got one without. Drop it if it numbers the rows: "
            "`to_csv(path, index=False)`."
        )
    for column in table:
        if not (pd.api.types.is_numeric_dtype(table[column]) and np.isfinite(table[column]).all()):
            raise ValueError(
                f"the column {column!r} of the nodes must hold finite numbers; got {_find_bad(table[column])}. "
                "Encode texts and fill missing values first."
            )
    return {"x": table.to_numpy(dtype=np.float32), "feature_names": np.array(table.columns, dtype=str)}


def _find_bad(column: Any) -> Any:
    """The first value that is not a finite number."""
    numbers = pd.to_numeric(column, errors="coerce")
    return column[~np.isfinite(numbers)].iloc[0]


def _read_labels(column: Any) -> dict[str, np.ndarray]:
    known = column.notna()
    if pd.api.types.is_numeric_dtype(column):
        return {"y": column.where(known, UNLABELED).to_numpy()}
    names, numbers = np.unique(column[known].astype(str), return_inverse=True)
    labels = np.full(len(column), UNLABELED)
    labels[known.to_numpy()] = numbers
    return {"y": labels, "label_names": names.astype(str)}


def _read_split(column: Any) -> np.ndarray:
    unknown = sorted(set(column.dropna().astype(str)) - set(CODES))
    if unknown:
        raise ValueError(f"{column.name!r} must be one of {', '.join(CODES)}, or empty; got {', '.join(unknown[:3])}.")
    return column.map(CODES).fillna(NO_PART).to_numpy(dtype=np.uint8)


def save_graph(
    folder: Any, data: Any, *, name: str = "graph", splits: np.ndarray | None = None, label_names: Any = None
) -> Path:
    """Write a graph to a folder that training, evaluation and prediction read.

    Args:
        folder (`str` or `PathLike`): made if it does not exist.
        data: a torch-geometric `Data`, a networkx graph, a mapping of arrays, a pair `(node_features, edge_index)`, a
            row of `load_dataset` or of `build_similarity_graph`; or a pair of data frames, nodes and edges, with the
            columns of this module.
        name (`str`): stem of the file.
        splits (`numpy.ndarray` of shape `(num_nodes,)` or `(num_splits, num_nodes)`, *optional*): codes 0 train, 1
            validation, 2 test, 255 none, in place of masks.
        label_names (`Sequence[str]`, *optional*): names of the classes.

    Returns:
        `Path`: the file.

    Raises:
        ValueError: If the graph cannot be read, has labels and no masks, or splits or names do not fit it.

    Example:
    ```python
    >>> import tempfile
    >>> graph = {"x": [[0.1], [0.7]], "edge_index": [[0], [1]], "y": [0, 1]}
    >>> save_graph(tempfile.mkdtemp(), graph, splits=[0, 2], label_names=["no", "yes"]).name
    'graph.npz'

    ```
    """
    if isinstance(data, tuple) and len(data) == 2 and all(isinstance(part, pd.DataFrame) for part in data):
        arrays = convert_tables(*data)
    else:
        arrays = _collect_arrays(data)
    if splits is not None:
        num_nodes = arrays["x_shape"][0] if "x_shape" in arrays else len(arrays["x"])
        arrays = {name: array for name, array in arrays.items() if not name.endswith("_mask")}
        arrays["splits"] = _check_splits(np.asarray(splits), num_nodes)
    if label_names is not None:
        num_classes = int(max(arrays.get("y", ()), default=-1)) + 1
        if len(label_names) < num_classes:
            raise ValueError(f"`label_names` must name {num_classes} classes; got {', '.join(map(str, label_names))}.")
        arrays["label_names"] = np.array(label_names, dtype=str)
    if "y" in arrays and not any(key == "train_mask" or key.startswith("split") for key in arrays):
        raise ValueError("`splits` must be given for a graph with labels and without masks. See `stratified_split`.")
    path = Path(folder) / f"{name}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        np.savez_compressed(file, **dict[str, Any](arrays))
    partial.replace(path)
    return path


def _check_splits(splits: np.ndarray, num_nodes: int) -> np.ndarray:
    if splits.ndim not in (1, 2) or splits.shape[-1] != num_nodes:
        raise ValueError(f"`splits` must have a code for each of the {num_nodes} nodes; got shape {splits.shape}.")
    if unknown := sorted(set(splits.flat) - {*CODES.values(), NO_PART}):
        raise ValueError(f"`splits` must hold 0 (train), 1 (validation), 2 (test) or 255 (none); got {unknown[0]}.")
    return splits


def _collect_arrays(data: Any) -> dict[str, np.ndarray]:
    from decahub.models.shared.graph_inputs import collect_fields, orient_edges, read_graph

    fields = {key: value for key, value in collect_fields(data).items() if value is not None}
    mask_names = [key for key in fields if key.endswith("_mask") and np.ndim(fields[key]) == 2]
    several = {key: np.asarray(fields.pop(key)) for key in mask_names}
    if several and isinstance(data, Mapping):  # a row, whose masks have one line for each split
        fields["edge_index"] = orient_edges(fields["edge_index"], is_row=True)
    elif several:
        several = {key: mask.T for key, mask in several.items()}
    graph = read_graph(fields)
    names = [str(value) for value in fields.get("split_names", ())]
    if several and names and names != [str(number) for number in range(len(names))]:
        codes = np.full(next(iter(several.values())).shape, NO_PART, dtype=np.uint8)
        for key, mask in several.items():
            codes[mask] = CODES[key.removesuffix("_mask")]
        several = {f"split_{value}": line for value, line in zip(names, codes, strict=True)}
    masks = {("validation_mask" if key == "val_mask" else key): mask for key, mask in several.items()}
    masks |= {key: np.array(fields[key], dtype=str) for key in ("feature_names", "label_names") if key in fields}
    arrays = {"edge_index": graph.edge_index, **_store_features(graph.node_features)}
    for key, value in (("y", graph.labels), ("sensitive", graph.sensitive)):
        if value is not None:
            arrays[key] = value
    present = {key: getattr(graph, key) for key in ("train_mask", "validation_mask", "test_mask")}
    if graph.train_mask is not None:
        nothing = np.zeros(graph.num_nodes, dtype=bool)
        arrays |= {key: nothing if mask is None else mask for key, mask in present.items()}
    if graph.node_names is not None:
        arrays["node_names"] = np.array(graph.node_names, dtype=str)
    return arrays | masks


def _store_features(features: Any) -> dict[str, np.ndarray]:
    if isinstance(features, np.ndarray):
        return {"x": features}
    return {
        "x_indptr": features.crow_indices().numpy(),
        "x_indices": features.col_indices().numpy(),
        "x_data": features.values().numpy(),
        "x_shape": np.array(features.shape),
    }


__all__ = ["EDGE_TABLE", "NODE_TABLE", "convert_tables", "read_tables", "save_graph"]
