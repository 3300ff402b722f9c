"""What a graph is like: homophily, degrees, labels, and all of it by group where there is a sensitive attribute."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from decahub.models.shared.graph_inputs import orient_edges

from .graph_files import UNLABELED


def clean_edges(edges: np.ndarray, num_nodes: int) -> np.ndarray:
    """Both directions of every edge, once and without self-loops.

    Args:
        edges (`numpy.ndarray` of shape `(num_edges, 2)`): in any order, directed or not.
        num_nodes (`int`): number of nodes.

    Returns:
        `numpy.ndarray` of shape `(num_directed_edges, 2)`, sorted.
    """
    edges = orient_edges(edges, is_row=True).T.astype(np.int64)
    edges = edges[edges[:, 0] != edges[:, 1]]
    source, target = edges[:, 0], edges[:, 1]
    keys = np.concatenate([source * num_nodes + target, target * num_nodes + source])
    keys.sort()
    keys = keys[np.diff(keys, prepend=-1) > 0]  # several times as fast as np.unique
    return np.stack(np.divmod(keys, num_nodes), axis=1)


def compute_homophily(edges: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """How often neighbors agree.

    - `edge_homophily`: share of the edges whose ends have one class (Zhu et al., 2020);
    - `node_homophily`: mean over the nodes of the share of neighbors with the node's class; a node without neighbors
      counts 0, as in torch-geometric (Pei et al., 2020);
    - `adjusted_homophily`: edge homophily less what the classes' shares of edge ends give by chance, divided by the
      largest value that this difference can have (Platonov et al., 2023); absent where one class has all of them.

    Edges of nodes without a label are left out, and so are these nodes.

    Args:
        edges (`numpy.ndarray` of shape `(num_edges, 2)`): both directions, as `clean_edges` gives them.
        labels (`numpy.ndarray` of shape `(num_nodes,)`): -100 where there is none.

    Returns:
        `dict[str, float]`; empty where no edge has two labels.
    """
    labels = np.asarray(labels)
    known = labels != UNLABELED
    edges = edges[known[edges].all(axis=1)]
    if not len(edges):
        return {}
    ends = labels[edges]
    agrees = ends[:, 0] == ends[:, 1]
    degrees = np.bincount(edges[:, 0], minlength=len(labels))
    agreeing = np.bincount(edges[agrees, 0], minlength=len(labels))
    shares = np.bincount(ends[:, 0]) / len(edges)
    by_chance = float((shares**2).sum())
    statistics = {
        "edge_homophily": float(agrees.mean()),
        "node_homophily": float((agreeing / np.maximum(degrees, 1))[known].mean()),
    }
    if by_chance < 1:
        statistics["adjusted_homophily"] = (statistics["edge_homophily"] - by_chance) / (1 - by_chance)
    return statistics


def describe_graph(row: Mapping[str, Any], label_names: list[str] | None = None) -> dict[str, Any]:
    """Statistics of one graph; edges are counted once, without direction, self-loops and repetition.

    Args:
        row (`Mapping`): a row of `load_dataset`.
        label_names (`list[str]`, *optional*): names of the classes, for `label_rates`.

    Returns:
        `dict`: `num_nodes`, `num_features`, `num_classes`, `num_edges`, `num_self_loops`, `num_isolated_nodes`,
        `num_unlabeled_nodes`, `mean_degree`, `median_degree`, `max_degree`, the statistics of `compute_homophily`,
        `label_rates` (class to its share of the labeled nodes), and where there is a sensitive attribute also
        `sensitive_rates`, `sensitive_edge_homophily`, `label_rates_by_group`, `mean_degree_by_group` and, for two
        classes and two groups, `label_rate_gap`.
    """
    labels = np.asarray(row["labels"])
    raw_edges = orient_edges(row["edge_index"], is_row=True).T
    edges = clean_edges(raw_edges, len(labels))
    degrees = np.bincount(edges[:, 0], minlength=len(labels))
    labeled = labels[labels != UNLABELED]
    num_classes = len(label_names) if label_names else int(labeled.max(initial=-1)) + 1
    names = label_names or [str(number) for number in range(num_classes)]
    statistics = {
        "num_nodes": len(labels),
        "num_features": int(np.shape(row["node_features"])[1]),
        "num_classes": num_classes,
        "num_edges": len(edges) // 2,
        "num_self_loops": int((raw_edges[:, 0] == raw_edges[:, 1]).sum()),
        "num_isolated_nodes": int((degrees == 0).sum()),
        "num_unlabeled_nodes": len(labels) - len(labeled),
        "mean_degree": float(degrees.mean()),
        "median_degree": float(np.median(degrees)),
        "max_degree": int(degrees.max()),
        **compute_homophily(edges, labels),
        "label_rates": _compute_rates(labeled, names),
    }
    if row.get("sensitive") is not None:
        statistics.update(_describe_groups(edges, degrees, labels, np.asarray(row["sensitive"]), names))
    return statistics


def _compute_rates(values: np.ndarray, names: list[str]) -> dict[str, float]:
    counts = np.bincount(values, minlength=len(names))
    return {name: float(count / max(len(values), 1)) for name, count in zip(names, counts, strict=True)}


def _describe_groups(
    edges: np.ndarray, degrees: np.ndarray, labels: np.ndarray, sensitive: np.ndarray, names: list[str]
) -> dict[str, Any]:
    groups = [int(group) for group in np.unique(sensitive)]
    rates = {group: _compute_rates(labels[(sensitive == group) & (labels != UNLABELED)], names) for group in groups}
    statistics: dict[str, Any] = {
        "sensitive_rates": {group: float((sensitive == group).mean()) for group in groups},
        "label_rates_by_group": rates,
        "mean_degree_by_group": {group: float(degrees[sensitive == group].mean()) for group in groups},
    }
    if len(edges):
        statistics["sensitive_edge_homophily"] = compute_homophily(edges, sensitive)["edge_homophily"]
    if len(groups) == len(names) == 2:
        statistics["label_rate_gap"] = abs(rates[groups[0]][names[1]] - rates[groups[1]][names[1]])
    return statistics


__all__ = ["clean_edges", "compute_homophily", "describe_graph"]
