"""Graphs to tensors for RAW-GNN, and the random walks that it would draw on them."""

from typing import Any

import numpy as np
import torch
from transformers import BatchFeature, FeatureExtractionMixin

from ..shared.checks import refuse_unknown_options
from ..shared.graph_inputs import merge_graphs, read_graph
from .walks.sampling import WalkGraph, sample_walks, transition_probabilities


class RawGnnFeatureExtractor(FeatureExtractionMixin):
    """Reads a graph, checks it, and hands it out as tensors.

    Edges are passed on as they are: the model makes them undirected and adds self-loops as its configuration says.

    Args:
        num_features (`int`, *optional*): columns that `node_features` must have; unset: any.
        normalize_features (`bool`, defaults to `False`): divide each row by the sum of its absolute values; rows of
            zeros stay. The authors use raw features.
        sparse_features (`bool`, defaults to `False`): give `node_features` as a sparse CSR tensor (only with
            `return_tensors="pt"`). Faster where most values are zero, as in bags of words.
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
        self.num_features = num_features
        self.normalize_features = normalize_features
        self.sparse_features = sparse_features

    def __call__(self, graph: Any, return_tensors: str | None = None) -> BatchFeature:
        """Tensors of one graph, or of the disjoint union of a list of graphs.

        Args:
            graph: a mapping of arrays (`node_features`, `edge_index`, optionally `labels`, `train_mask`,
                `sensitive`), a pair `(node_features, edge_index)`, a row of `load_dataset`, a torch-geometric `Data`,
                a networkx graph, or a list of these.
            return_tensors (`str`, *optional*): "pt" or "np"; unset: numpy arrays.

        Returns:
            `BatchFeature` with `node_features` of shape `(num_nodes, num_features)`, `edge_index` of shape
            `(2, num_edges)`, and where given `labels`, `train_mask` and `sensitive`; for a list also
            `num_nodes_per_graph`, by which its answers can be taken apart.

        Raises:
            TypeError: If `graph` is none of these.
            ValueError: If an array is missing, has another shape, or holds NaN, infinity or an id out of range.
        """
        if self.sparse_features and return_tensors != "pt":
            raise ValueError(f"`return_tensors` must be 'pt' for sparse features; got {return_tensors!r}.")
        graphs = [read_graph(item, self.num_features) for item in (graph if isinstance(graph, list) else [graph])]
        merged = merge_graphs(graphs)
        features = merged.node_features
        if self.normalize_features:
            total = np.abs(features).sum(axis=1, keepdims=True)
            features = features / np.where(total > 0, total, 1)
        data = {"node_features": features, "edge_index": merged.edge_index}
        for name in ("labels", "train_mask", "sensitive"):
            if getattr(merged, name) is not None:
                data[name] = getattr(merged, name)
        if isinstance(graph, list):
            data["num_nodes_per_graph"] = np.array([item.num_nodes for item in graphs])
        inputs = BatchFeature(data, tensor_type=return_tensors)
        if self.sparse_features:
            inputs["node_features"] = inputs["node_features"].to_sparse_csr()
        return inputs

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
        read = read_graph(graph, self.num_features)
        return WalkGraph.from_edge_index(torch.from_numpy(read.edge_index), read.num_nodes)


__all__ = ["RawGnnFeatureExtractor"]
