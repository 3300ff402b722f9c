"""Graphs from tables: rows that are alike become neighbors, as in the graphs of the fairness literature.

With `d` the Euclidean distance of two rows, their similarity is `s = 1 / (d + 1)`. Row `i` chooses row `j` if
`s_ij > threshold * max_k s_ik`, the maximum over all other rows; an edge joins two rows of which one chose the other.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from .graph_files import MASKS


METHODS = ("auto", "kd_tree", "chunked")
MAX_KD_TREE_FEATURES = 40  # beyond, a tree visits most of its leaves, and the plain search is faster
MAX_EDGES = 20_000_000
CANDIDATES_PER_CHUNK = 2**18  # bounds memory to some 40 MB with 18 features
# The search prunes with distances of its own; only the definition's expression decides. So it must find a little more
# than what the definition accepts: rounding of a distance in float64 is smaller than this by far.
SLACK = 1e-9


def _scale_to_range(values: np.ndarray) -> np.ndarray:
    return 2 * (values - values.min()) / (np.ptp(values) or 1) - 1


def _standardize(values: np.ndarray) -> np.ndarray:
    deviation = values.std(ddof=1) if len(values) > 1 else 0  # the sample's, as pandas computes it
    return (values - values.mean()) / (deviation or 1)


SCALES = {"range": _scale_to_range, "standard": _standardize}


def build_similarity_edges(
    features: np.ndarray, threshold: float, *, max_edges: int = MAX_EDGES, method: str = "auto"
) -> np.ndarray:
    """Edges between similar rows, exactly as the module defines them.

    Args:
        features (`numpy.ndarray` of shape `(num_nodes, num_features)`): finite numbers; distances are in float64.
        threshold (`float`): in (0, 1); the lower, the more edges.
        max_edges (`int`, *optional*): refuse to build more undirected edges than these.
        method (`str`, *optional*): "kd_tree" searches the rows within the distance that can matter, "chunked" compares
            all pairs a few rows at a time, "auto" chooses by the number of features. Both give the same edges.

    Returns:
        `numpy.ndarray` of shape `(2, num_edges)`: int64, both directions of each edge, sorted, no self-loops.

    Raises:
        ValueError: If a value is out of range or not finite, or if there would be too many edges, as with features
            that are constant.
    """
    features = np.ascontiguousarray(features, dtype=np.float64)
    if features.ndim != 2 or features.shape[1] == 0:
        raise ValueError(f"`features` must have shape (num_nodes, num_features); got {features.shape}.")
    if not 0 < threshold < 1:
        raise ValueError(f"`threshold` must be in (0, 1); got {threshold}.")
    if method not in METHODS:
        raise ValueError(f"`method` must be one of {', '.join(METHODS)}; got {method!r}.")
    if not np.isfinite(features).all():
        row, column = np.argwhere(~np.isfinite(features))[0]
        raise ValueError(
            f"`features` must be finite; got {features[row, column]} in row {row}, column {column}. Fill or drop "
            "missing values first."
        )
    num_nodes = len(features)
    if num_nodes < 2:
        return np.zeros((2, 0), dtype=np.int64)
    if method == "auto":
        method = "kd_tree" if features.shape[1] <= MAX_KD_TREE_FEATURES else "chunked"
    search = _search_tree if method == "kd_tree" else _search_chunks
    keys: list[np.ndarray] = []
    num_chosen = 0
    for rows, columns in search(features, threshold, max_edges):
        chosen = _choose(features, rows, columns, threshold)
        num_chosen += int(chosen.sum())
        if num_chosen > 2 * max_edges:  # two rows may have chosen each other
            raise _build_size_error(f"more than {num_chosen // 2}", max_edges)
        keys.append(rows[chosen] * num_nodes + columns[chosen])
    return _symmetrize(np.concatenate(keys), num_nodes, max_edges)


def _build_size_error(number: str, max_edges: int) -> ValueError:
    return ValueError(
        f"the graph must have at most {max_edges} edges (`max_edges`); these features would give {number}. Are "
        "features constant, or many rows equal? Raise `threshold`, add features that tell rows apart, or raise "
        "`max_edges` if the memory allows it."
    )


# The search: pairs of rows that the definition may accept, all those of a row in one chunk.

Pairs = Iterator[tuple[np.ndarray, np.ndarray]]


def _search_tree(features: np.ndarray, threshold: float, max_edges: int) -> Pairs:
    tree = cKDTree(features)
    nearest = tree.query(features, k=2)[0][:, 1]  # of the two smallest distances one is that of the row to itself
    radii = ((1 + nearest) / threshold - 1) * (1 + SLACK) + SLACK
    counts = tree.query_ball_point(features, radii, return_length=True)
    num_candidates = int(counts.sum()) - len(features)
    if num_candidates > 2 * max_edges:
        raise _build_size_error(f"{num_candidates // 2} to {num_candidates}", max_edges)
    chunk_numbers = np.cumsum(counts) // CANDIDATES_PER_CHUNK
    starts = np.flatnonzero(np.diff(chunk_numbers, prepend=-1))
    for start, stop in zip(starts, [*starts[1:], len(features)], strict=True):
        found = tree.query_ball_point(features[start:stop], radii[start:stop], return_sorted=False)
        rows = np.repeat(np.arange(start, stop), counts[start:stop])
        columns = np.concatenate(found).astype(np.int64)
        yield rows[rows != columns], columns[rows != columns]


def _search_chunks(features: np.ndarray, threshold: float, max_edges: int) -> Pairs:
    size = max(1, CANDIDATES_PER_CHUNK // len(features))
    for start in range(0, len(features), size):
        distances = cdist(features[start : start + size], features)
        own = np.arange(len(distances))
        distances[own, start + own] = np.inf
        radii = ((1 + distances.min(axis=1)) / threshold - 1) * (1 + SLACK) + SLACK
        rows, columns = np.nonzero(distances <= radii[:, None])
        yield rows + start, columns


# The decision


def _choose(features: np.ndarray, rows: np.ndarray, columns: np.ndarray, threshold: float) -> np.ndarray:
    """Which pairs the definition accepts; `rows` is sorted, and every row has its nearest one among its pairs."""
    distances = np.sqrt(((features[rows] - features[columns]) ** 2).sum(axis=-1))
    similarities = 1 / (distances + 1)
    starts = np.flatnonzero(np.diff(rows, prepend=-1))
    largest = np.maximum.reduceat(similarities, starts)
    return similarities > threshold * np.repeat(largest, np.diff(starts, append=len(rows)))


def _symmetrize(keys: np.ndarray, num_nodes: int, max_edges: int) -> np.ndarray:
    rows, columns = np.divmod(keys, num_nodes)
    keys = np.concatenate([keys, columns * num_nodes + rows])
    keys.sort()
    keys = keys[np.diff(keys, prepend=-1) > 0]
    if len(keys) > 2 * max_edges:
        raise _build_size_error(str(len(keys) // 2), max_edges)
    return np.stack(np.divmod(keys, num_nodes))


def build_similarity_graph(
    table: Any,
    label: str,
    sensitive: str,
    threshold: float,
    *,
    drop: Sequence[str] = (),
    scale: Mapping[str, str] | None = None,
    mapping: Mapping[str, Mapping[Any, int | float]] | None = None,
    splits: np.ndarray | None = None,
    max_edges: int = MAX_EDGES,
    method: str = "auto",
) -> dict[str, Any]:
    """A table as a graph with one node for each line.

    All columns but `label` and `drop` become features, the sensitive one among them, and decide about the edges.

    Args:
        table (`pandas.DataFrame` or mapping of columns): the data.
        label (`str`): column of the class.
        sensitive (`str`): column of the group.
        threshold (`float`): see the module.
        drop (`Sequence[str]`, *optional*): columns to leave out.
        scale (`Mapping[str, str]`, *optional*): column to "range" (to [-1, 1]) or "standard" (mean 0, sample
            deviation 1) before distances are computed; the features of the graph stay as they are.
        mapping (`Mapping[str, Mapping]`, *optional*): column to its values as numbers, `{"Gender": {"Female": 1,
            "Male": 0}}`; needed where a column has texts, or where classes or groups are not numbered from 0.
        splits (`numpy.ndarray` of shape `(num_nodes,)` or `(num_splits, num_nodes)`, *optional*): codes as
            `stratified_split` gives them; become the masks.
        max_edges (`int`, *optional*): see `build_similarity_edges`.
        method (`str`, *optional*): see `build_similarity_edges`.

    Returns:
        `dict`: a row of the family "node-classification": `node_features`, `edge_index` `(num_edges, 2)`, `labels`,
        `sensitive`, `feature_names` and, with `splits`, the masks. `build_graph_dataset` makes a dataset of rows.

    Raises:
        ValueError: If a column is missing or has values that cannot be used, or if there would be too many edges.
    """
    mapping, scale = mapping or {}, scale or {}
    columns = {str(name): np.asarray(table[name]) for name in table}
    for name in (label, sensitive, *drop, *scale, *mapping):
        if name not in columns:
            raise ValueError(f"`table` must have the column {name!r}; it has {', '.join(columns)}.")
    columns = {
        name: _map_column(name, values, mapping.get(name)) for name, values in columns.items() if name not in drop
    }
    labels, groups = (_read_ids(name, columns[name]) for name in (label, sensitive))
    names = [name for name in columns if name != label]
    raw = np.stack([columns[name] for name in names], axis=1)
    scaled = np.stack([_scale(name, columns[name], scale) for name in names], axis=1)
    row = {
        "node_features": raw.astype(np.float32),
        "edge_index": build_similarity_edges(scaled, threshold, max_edges=max_edges, method=method).T.copy(),
        "labels": labels,
        "sensitive": groups,
        "feature_names": names,
    }
    if splits is not None:
        codes = np.atleast_2d(splits)
        if codes.shape[1] != len(labels):
            raise ValueError(f"`splits` must have a code for each of the {len(labels)} nodes; got {codes.shape[1]}.")
        row.update({mask: codes == code for code, mask in enumerate(MASKS)})
    return row


def _map_column(name: str, values: np.ndarray, mapping: Mapping[Any, int | float] | None) -> np.ndarray:
    if mapping is not None:
        unknown = sorted({str(value) for value in values.tolist() if value not in mapping})
        if unknown:
            raise ValueError(
                f"`mapping` of column {name!r} must have all of its values; it lacks {', '.join(unknown)}."
            )
        values = np.array([mapping[value] for value in values.tolist()])
    if not (np.issubdtype(values.dtype, np.number) or values.dtype == bool):
        raise ValueError(
            f"column {name!r} must hold numbers; got {values.dtype}. Give its values in `mapping`, or name it in "
            "`drop`."
        )
    return values.astype(np.float64)


def _read_ids(name: str, values: np.ndarray) -> np.ndarray:
    """Classes or groups, which must be numbered from 0."""
    found = np.unique(values)
    if not np.array_equal(found, np.arange(len(found))):
        shown = ", ".join(f"{value:g}" for value in found[:5])
        raise ValueError(
            f"column {name!r} must be numbered from 0 without a gap; got the values {shown}"
            f"{', ...' if len(found) > 5 else ''}. Give them in `mapping`."
        )
    return values.astype(np.int64)


def _scale(name: str, values: np.ndarray, scale: Mapping[str, str]) -> np.ndarray:
    if name not in scale:
        return values
    if scale[name] not in SCALES:
        raise ValueError(f"`scale` of column {name!r} must be one of {', '.join(SCALES)}; got {scale[name]!r}.")
    return SCALES[scale[name]](values)


def stratified_split(
    labels: np.ndarray,
    fractions: Sequence[float] = (0.5, 0.25),
    seed: int = 20,
    max_train_per_class: int | None = None,
) -> np.ndarray:
    """Split the nodes of each class by the same fractions, as the published splits of the fairness graphs are.

    bail has (0.3, 0.2); german (seed 0), dblp_small and NIFTY's german (0.5, 0.25); credit and NIFTY's bail
    (0.5, 0.25) with at most 500 training nodes of a class.

    Args:
        labels (`numpy.ndarray` of shape `(num_nodes,)`): classes; nodes with a negative one get no part.
        fractions (`Sequence[float]`, *optional*): of training and of validation nodes; the rest is for testing.
        seed (`int`, *optional*): of Python's generator, which shuffles the nodes of one class after the other.
        max_train_per_class (`int`, *optional*): training nodes of a class beyond these get no part.

    Returns:
        `numpy.ndarray` of shape `(num_nodes,)`: uint8 codes, 0 train, 1 validation, 2 test, 255 no part.

    Raises:
        ValueError: If the fractions leave nothing to test or are negative.
    """
    if len(fractions) != 2 or min(fractions) < 0 or sum(fractions) >= 1:
        raise ValueError(f"`fractions` must be those of training and validation, below 1 in all; got {fractions}.")
    labels = np.asarray(labels)
    generator = random.Random(seed)
    codes = np.full(len(labels), 255, dtype=np.uint8)
    for value in np.unique(labels[labels >= 0]):
        nodes = np.flatnonzero(labels == value).tolist()
        generator.shuffle(nodes)
        num_train = int(fractions[0] * len(nodes))
        num_learned = int(sum(fractions) * len(nodes))
        codes[nodes[: num_train if max_train_per_class is None else min(num_train, max_train_per_class)]] = 0
        codes[nodes[num_train:num_learned]] = 1
        codes[nodes[num_learned:]] = 2
    return codes


__all__ = ["MAX_EDGES", "METHODS", "build_similarity_edges", "build_similarity_graph", "stratified_split"]
