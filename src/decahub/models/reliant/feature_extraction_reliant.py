"""Graphs to tensors for RELIANT: features, edges, and the sensitive attribute by the name of its column."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from transformers import BatchFeature, FeatureExtractionMixin

from ..shared.checks import refuse_unknown_options
from ..shared.graph_inputs import Graph, build_inputs, merge_graphs, read_graph, to_dense


NORMALIZATIONS = ("none", "row_l1", "standardize")
NUM_GROUPS = 2


class ReliantFeatureExtractor(FeatureExtractionMixin):
    """Reads a graph, checks it, and hands it out as tensors.

    Edges are passed on as they are: the model adds self-loops as its configuration says.

    Args:
        num_features (`int`, *optional*): columns that `node_features` must have; unset: any.
        normalize_features (`str`, defaults to `"none"`): `"row_l1"` divides each row by the sum of its absolute values
            (rows of zeros stay); `"standardize"` subtracts `feature_means` and divides by `feature_scales`, which
            [`~ReliantFeatureExtractor.fit`] finds. Statistics are saved with the extractor.
        feature_means (`list[float]`, *optional*): of each column.
        feature_scales (`list[float]`, *optional*): of each column, none of them 0.
        sensitive_column (`str` or `int`, *optional*): feature column that is the sensitive attribute, by number, or by
            name where `feature_names` are known. It stays a feature as well. Unset: `sensitive` of the graph.
        sensitive_values (`list`, *optional*): two values, or two lists of values, of the attribute: those of group 0
            and those of group 1. Unset: the attribute must be 0 or 1.
        sensitive_threshold (`float`, *optional*): for a continuous attribute: values below it are group 0, the others
            group 1. It takes the place of `sensitive_values`.
        feature_names (`list[str]`, *optional*): names of the columns, for graphs that do not carry them.

    Raises:
        ValueError: If an argument is none of the allowed, or statistics do not fit each other.

    Example:
    ```python
    >>> extractor = ReliantFeatureExtractor(sensitive_column="age", sensitive_values=[[1, 2], [3]])
    >>> graph = {"node_features": [[0.5, 1.0], [0.1, 3.0]], "edge_index": [[0], [1]], "feature_names": ["debt", "age"]}
    >>> extractor(graph)["sensitive"].tolist()
    [0, 1]

    ```
    """

    model_input_names = ["node_features", "edge_index"]

    def __init__(
        self,
        num_features: int | None = None,
        normalize_features: str = "none",
        feature_means: Sequence[float] | None = None,
        feature_scales: Sequence[float] | None = None,
        sensitive_column: str | int | None = None,
        sensitive_values: Sequence[Any] | None = None,
        sensitive_threshold: float | None = None,
        feature_names: Sequence[str] | None = None,
        **kwargs: Any,
    ):
        refuse_unknown_options(self, kwargs)
        super().__init__(**kwargs)
        if normalize_features not in NORMALIZATIONS:
            raise ValueError(
                f"`normalize_features` must be one of {list(NORMALIZATIONS)}; got {normalize_features!r}."
            )
        if (feature_means is None) != (feature_scales is None):
            raise ValueError("`feature_means` and `feature_scales` must be given together.")
        if feature_means is not None and len(feature_means) != len(feature_scales):
            raise ValueError(
                f"`feature_scales` must have {len(feature_means)} entries, as `feature_means`; got "
                f"{len(feature_scales)}."
            )
        if feature_scales is not None and not all(scale > 0 for scale in feature_scales):
            raise ValueError("`feature_scales` must be above 0; use 1 for a constant column.")
        if sensitive_values is not None and len(sensitive_values) != NUM_GROUPS:
            raise ValueError(f"`sensitive_values` must have two entries; got {len(sensitive_values)}.")
        if sensitive_threshold is not None and (sensitive_values is not None or not np.isfinite(sensitive_threshold)):
            raise ValueError(
                "`sensitive_threshold` must be a finite number, and no `sensitive_values` be given; got "
                f"{sensitive_threshold!r} and {sensitive_values!r}."
            )
        self.num_features = num_features
        self.normalize_features = normalize_features
        self.feature_means = None if feature_means is None else [float(mean) for mean in feature_means]
        self.feature_scales = None if feature_scales is None else [float(scale) for scale in feature_scales]
        self.sensitive_column = sensitive_column
        self.sensitive_values = None if sensitive_values is None else [_to_list(part) for part in sensitive_values]
        self.sensitive_threshold = None if sensitive_threshold is None else float(sensitive_threshold)
        self.feature_names = None if feature_names is None else [str(name) for name in feature_names]

    def fit(self, graph: Any, nodes: Any | None = None) -> "ReliantFeatureExtractor":
        """Finds the statistics of `"standardize"` and returns the extractor itself.

        Args:
            graph: as in [`~ReliantFeatureExtractor.__call__`].
            nodes (`numpy.ndarray` or `torch.BoolTensor` of shape `(num_nodes,)`, *optional*): mask of the nodes to
                look at, such as those of training; all by default.

        Raises:
            ValueError: If the mask chooses no node or does not fit.
        """
        features = to_dense(self._read(graph, needs_labels=False)[0].node_features).astype(np.float64)
        if nodes is not None:
            mask = np.asarray(nodes)
            if mask.shape != features.shape[:1] or mask.dtype != bool or not mask.any():
                raise ValueError(f"`nodes` must be a mask of shape ({len(features)},) that chooses one node at least.")
            features = features[mask]
        scales = features.std(axis=0)
        self.feature_means = features.mean(axis=0).tolist()
        self.feature_scales = np.where(scales > 0, scales, 1.0).tolist()
        return self

    def __call__(
        self,
        graph: Any,
        return_tensors: str | None = None,
        *,
        split: int | str | None = None,
        needs_labels: bool = True,
    ) -> BatchFeature:
        """Tensors of one graph, or of the disjoint union of a list of graphs.

        Args:
            graph: a mapping of arrays (`node_features`, `edge_index`, optionally `labels`, `train_mask`,
                `validation_mask`, `test_mask`, `sensitive`, `feature_names`, `node_names`), a pair
                `(node_features, edge_index)`, a row of `load_dataset`, a torch-geometric `Data`, a networkx graph, or
                a list of these. Sparse features become dense.
            return_tensors (`str`, *optional*): "pt" or "np"; unset: numpy arrays.
            split (`int` or `str`, *optional*): number or name of the split, where the masks have several.
            needs_labels (`bool`): whether to read labels, masks and groups; a prediction needs none of them.

        Returns:
            `BatchFeature` with `node_features` of shape `(num_nodes, num_features)`, `edge_index` of shape
            `(2, num_edges)`, and where given `labels`, masks, `sensitive` (0 or 1 for each node) and `node_names`; for
            a list also `num_nodes_per_graph`, by which its answers can be taken apart.

        Raises:
            TypeError: If `graph` is none of these.
            ValueError: If an array is missing or unknown, has another shape, or holds NaN, infinity or an id out of
                range; if edges have weights; if there are several splits and none is chosen; if there is no such
                `sensitive_column`, or a value of it belongs to neither group.
        """
        read, sizes = self._read(graph, split=split, needs_labels=needs_labels)
        if read.sensitive is not None:
            read = dataclasses.replace(read, sensitive=self._map_groups(read.sensitive))
        features = self._normalize(to_dense(read.node_features))
        return build_inputs(read, features, sizes if isinstance(graph, list) else None, return_tensors)

    def _read(self, graph: Any, **options: Any) -> tuple[Graph, list[int]]:
        """The graph, or the union of several, with values of the sensitive attribute, and the sizes of the parts."""
        items = graph if isinstance(graph, list) else [graph]
        graphs = [read_graph(item, self.num_features, **options) for item in items]
        merged, sizes = merge_graphs(graphs), [part.num_nodes for part in graphs]
        if self.sensitive_column is None or not options.get("needs_labels", True):
            return merged, sizes
        columns = [
            to_dense(read.node_features)[:, self._find_column(item, read.node_features.shape[1])]
            for item, read in zip(items, graphs, strict=True)
        ]
        return dataclasses.replace(merged, sensitive=np.concatenate(columns)), sizes

    def _find_column(self, graph: Any, num_features: int) -> int:
        column = self.sensitive_column
        if isinstance(column, int):
            if not 0 <= column < num_features:
                raise ValueError(f"`sensitive_column` must lie in [0, {num_features}); got {column}.")
            return column
        own = graph.get("feature_names") if isinstance(graph, Mapping) else getattr(graph, "feature_names", None)
        names = list(own if own is not None else self.feature_names or [])
        if len(names) != num_features:
            raise ValueError(
                f"`feature_names` must name all {num_features} columns where `sensitive_column` is a name; got "
                f"{len(names)}. Give them with the graph or to the extractor, or the column's number."
            )
        if column not in names:
            raise ValueError(f"`sensitive_column` must be one of {names}; got {column!r}.")
        return names.index(column)

    def _map_groups(self, sensitive: np.ndarray) -> np.ndarray:
        if self.sensitive_threshold is not None:
            return (sensitive >= np.asarray(self.sensitive_threshold, dtype=sensitive.dtype)).astype(np.int64)
        wanted = self.sensitive_values or [[0], [1]]
        groups = np.full(sensitive.shape, -1, dtype=np.int64)
        for group, values in enumerate(wanted):
            # Features are float32: a value such as 0.1 must be rounded as they are. Integers must not be.
            values = np.asarray(values, dtype=np.float32) if sensitive.dtype == np.float32 else values
            groups[np.isin(sensitive, values)] = group
        wrong = sensitive[groups < 0]
        if wrong.size:
            raise ValueError(
                f"`sensitive` must hold the values {wanted[0]} (group 0) and {wanted[1]} (group 1); got "
                f"{wrong[0].item():g}, and {wrong.size} such values in all. Say which values are which group by "
                "`sensitive_values`, or where group 1 begins by `sensitive_threshold`."
            )
        return groups

    def _normalize(self, features: np.ndarray) -> np.ndarray:
        if self.normalize_features == "row_l1":
            total = np.abs(features).sum(axis=1, keepdims=True)
            return features / np.where(total > 0, total, 1)
        if self.normalize_features == "none":
            return features
        if self.feature_means is None:
            raise ValueError(
                "`feature_means` must be known with `normalize_features='standardize'`. Call `fit` first."
            )
        if len(self.feature_means) != features.shape[1]:
            raise ValueError(
                f"`node_features` must have {len(self.feature_means)} columns, as the statistics have; got "
                f"{features.shape[1]}."
            )
        return ((features - np.array(self.feature_means)) / np.array(self.feature_scales)).astype(np.float32)


def _to_list(values: Any) -> list[Any]:
    return list(values) if isinstance(values, (list, tuple)) else [values]


__all__ = ["ReliantFeatureExtractor"]
