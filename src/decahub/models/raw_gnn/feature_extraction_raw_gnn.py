"""Graphs to tensors for RAW-GNN, and the random walks that it would draw on them."""

from typing import Any

import numpy as np
import torch
from transformers import BatchFeature, FeatureExtractionMixin

from ..shared.checks import refuse_unknown_options
from ..shared.graph_inputs import build_csr, build_inputs, read_graph, read_graphs, to_csr, to_dense
from .walks.sampling import WalkGraph, sample_walks, transition_probabilities


class RawGnnFeatureExtractor(FeatureExtractionMixin):
    """Reads a graph, checks it, and hands it out as tensors.

    Edges are passed on as they are: the model makes them undirected and adds self-loops as its configuration says.

    Args:
        num_features (`int`, *optional*): columns that `node_features` must have; unset: any.
        normalize_features (`bool`, defaults to `False`): divide each row by the sum of its absolute values; rows of
            zeros stay. The authors use raw features.
        sparse_features (`bool`, defaults to `False`): give `node_features` as a sparse CSR tensor (only with
            `return_tensors="pt"`). Faster where most values are zero, as in bags of words. A graph that comes with a
            sparse matrix keeps it in any case.

    Raises:
        ValueError: If an argument is unknown or of another type.
    """

    model_input_names = ["node_features", "edge_index"]

    def __init__(
        self,
        num_features: int | None = None,
        normalize_features: bool = False,
        sparse_features: bool = False,
        **kwargs: Any,
    ):
        refuse_unknown_options(self, kwargs)
        super().__init__(**kwargs)
        for name, value in (("normalize_features", normalize_features), ("sparse_features", sparse_features)):
            if not isinstance(value, bool):
                raise ValueError(f"`{name}` must be True or False; got {value!r}.")
        self.num_features = num_features
        self.normalize_features = normalize_features
        self.sparse_features = sparse_features

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
                `validation_mask`, `test_mask`, `sensitive`, `node_names`), a pair `(node_features, edge_index)`, a row
                of `load_dataset`, a torch-geometric `Data`, a networkx graph, or a list of these.
            return_tensors (`str`, *optional*): "pt" or "np"; unset: numpy arrays, which are dense.
            split (`int` or `str`, *optional*): number or name of the split, where the masks have several.
            needs_labels (`bool`): whether to read labels, masks and groups; a prediction needs none of them.

        Returns:
            `BatchFeature` with `node_features` of shape `(num_nodes, num_features)`, `edge_index` of shape
            `(2, num_edges)`, and where given `labels`, masks, `sensitive` and `node_names`; for a list also
            `num_nodes_per_graph`, by which its answers can be taken apart.

        Raises:
            TypeError: If `graph` is none of these.
            ValueError: If an array is missing or unknown, has another shape, or holds NaN, infinity or an id out of
                range; if edges have weights; if there are several splits and none is chosen.
        """
        if self.sparse_features and return_tensors != "pt":
            raise ValueError(f"`return_tensors` must be 'pt' for sparse features; got {return_tensors!r}.")
        read, sizes = read_graphs(graph, self.num_features, split=split, needs_labels=needs_labels)
        if read.sensitive is not None and read.sensitive.dtype.kind == "f":
            raise ValueError("`sensitive` must hold integers, the group of each node; got fractions.")
        features = self._normalize(read.node_features)
        features = features if return_tensors == "pt" else to_dense(features)
        inputs = build_inputs(read, features, sizes if isinstance(graph, list) else None, return_tensors)
        if self.sparse_features and inputs["node_features"].layout == torch.strided:
            inputs["node_features"] = to_csr(inputs["node_features"])
        return inputs

    def _normalize(self, features: np.ndarray | torch.Tensor) -> np.ndarray | torch.Tensor:
        if not self.normalize_features:
            return features
        if isinstance(features, np.ndarray):
            total = np.abs(features).sum(axis=1, keepdims=True)
            return features / np.where(total > 0, total, 1)
        rows, values = features.crow_indices(), features.values()
        owner = torch.arange(features.shape[0]).repeat_interleave(rows.diff())
        total = values.new_zeros(features.shape[0]).index_add(0, owner, values.abs())
        return build_csr(rows, features.col_indices(), values / total.where(total > 0, 1)[owner], features.shape)

    def sample_walks(self, graph: Any, start_nodes: Any, **walk: Any) -> torch.Tensor:
        """Random walks on a graph as the model would prepare it: both directions, one self-loop for each node.

        Args:
            graph: one graph in any form that `__call__` takes.
            start_nodes (array of shape `(num_walks,)`): ids of nodes, which may repeat.
            walk: `length`, `p`, `q`, `law`, `seed` and so on, as in `sample_walks` of `walks/sampling.py`.

        Returns:
            `torch.LongTensor` of shape `(num_walks, length + 1)`.
        """
        return sample_walks(self._build_walk_graph(graph), torch.as_tensor(start_nodes), **walk)

    def transition_probabilities(
        self, graph: Any, previous: int, current: int, *, p: float, q: float, law: str = "node2vec"
    ) -> torch.Tensor:
        """Exact probability of each next node of a walk that went from `previous` to `current`.

        Args:
            graph: one graph in any form that `__call__` takes.
            previous (`int`): node before.
            current (`int`): node where the walk is.
            p (`float`): a step back has weight 1/p.
            q (`float`): a step away from the neighborhood of `previous` has weight 1/q.
            law (`str`): `"node2vec"` or `"torch_cluster"`.

        Returns:
            `torch.DoubleTensor` of shape `(num_nodes,)`.
        """
        return transition_probabilities(self._build_walk_graph(graph), previous, current, p, q, law)

    def _build_walk_graph(self, graph: Any) -> WalkGraph:
        read = read_graph(graph, self.num_features, needs_labels=False)
        return WalkGraph.from_edge_index(torch.from_numpy(read.edge_index), read.num_nodes)


__all__ = ["RawGnnFeatureExtractor"]
