"""Graphs with a class for each node: columns, splits of the nodes, tensors for training and for evaluation.

A row is one graph. Its masks have one line for each way in which the nodes are split; `select_split` chooses one, and
says which nodes an evaluation measures. Arrays come in numpy format: as lists, a graph would take seconds to read.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import datasets
import numpy as np
import torch

from decahub.models.shared.graph_inputs import orient_edges

from .family import DataFamily
from .graph_files import MASKS, PARTS, UNLABELED, build_graph_dataset, find_graph_files, read_graph_files
from .graph_statistics import compute_homophily, describe_graph


SPLIT_COLUMN, PART_COLUMN = "split", "measured_part"  # what `select_split` adds
NUM_EXAMPLES = 5  # ids that an error shows


def finish_loading(dataset: datasets.Dataset, where: str) -> datasets.Dataset:
    """The dataset in numpy format, after a look at every graph.

    Raises:
        ValueError: If a shape, a node id or a label is wrong, or if masks of one split overlap.
    """
    dataset = dataset.with_format("numpy")
    for index in range(len(dataset)):
        _check_row(dataset[index], dataset.features["labels"], f"row {index} of {where}")
    return dataset


def _check_row(row: Mapping[str, Any], label_feature: Any, where: str) -> None:
    num_nodes = len(row["node_features"])
    edges, labels = row["edge_index"], row["labels"]
    if len(edges) and (edges.min() < 0 or edges.max() >= num_nodes):
        raise ValueError(
            f"`edge_index` in {where} must hold node ids in [0, {num_nodes}); got {edges.min()} to {edges.max()}."
        )
    for name in ("labels", "sensitive"):
        if name in row and np.shape(row[name]) != (num_nodes,):
            raise ValueError(f"`{name}` in {where} must have shape ({num_nodes},); got {np.shape(row[name])}.")
    num_classes = getattr(label_feature.feature, "num_classes", None)
    outside = (labels < 0) & (labels != UNLABELED)
    if num_classes is not None:
        outside |= labels >= num_classes
    if outside.any():
        node = int(np.flatnonzero(outside)[0])
        raise ValueError(
            f"`labels` in {where} must be class ids in [0, {num_classes or 'classes'}) or {UNLABELED}, which marks a "
            f"node without a label; got {labels[node]} at node {node}."
        )
    shapes = {mask: np.shape(row[mask]) for mask in MASKS}
    if len(set(shapes.values())) > 1 or len(shapes[MASKS[0]]) != 2 or shapes[MASKS[0]][1] != num_nodes:
        raise ValueError(f"the masks in {where} must have one shape (num_splits, {num_nodes}); got {shapes}.")
    is_used = np.any([np.asarray(row[mask]) for mask in MASKS], axis=(0, 2))
    if not is_used.all():
        raise ValueError(
            f"the masks in {where} must choose at least one node in each split; got none in split "
            f"{int(is_used.argmin())}. Are the codes of the splits 0, 1 and 2?"
        )
    _check_overlaps(row, where)


def _check_overlaps(row: Mapping[str, Any], where: str) -> None:
    for first, second in ((0, 1), (0, 2), (1, 2)):
        overlap = np.asarray(row[MASKS[first]]) & np.asarray(row[MASKS[second]])
        if overlap.any():
            split = int(np.flatnonzero(overlap.any(axis=1))[0])
            nodes = np.flatnonzero(overlap[split])
            raise ValueError(
                f"`{MASKS[first]}` and `{MASKS[second]}` in {where} must not overlap; got {len(nodes)} common nodes "
                f"in split {split} ({_name_nodes(nodes)}). Leave each node in one of them."
            )


def _name_nodes(nodes: np.ndarray) -> str:
    shown = ", ".join(str(node) for node in nodes[:NUM_EXAMPLES])
    return f"ids {shown}, ..." if len(nodes) > NUM_EXAMPLES else f"ids {shown}"


def get_single_graph(dataset: datasets.Dataset, source: str) -> Mapping[str, Any]:
    """The only row of a dataset.

    Args:
        dataset (`datasets.Dataset`): graphs.
        source (`str`): where they are from, for the message.

    Raises:
        ValueError: If there are several, of which all but one would be left out.
    """
    if len(dataset) != 1:
        raise ValueError(
            f"{source!r} must hold one graph to train on; got {len(dataset)}. Put each into its own folder."
        )
    return dataset[0]


def check_leakage(used_mask: Any, held_out_mask: Any, what: str, allow: bool = False) -> None:
    """Refuse nodes that are used to learn and shall be measured later.

    Args:
        used_mask (array or tensor of shape `(num_nodes,)`): nodes whose labels, or whose groups, enter a loss.
        held_out_mask (array or tensor of shape `(num_nodes,)`): nodes that are kept for the measurement.
        what (`str`): what uses the nodes, for the message: "`train_mask`", "the fairness term".
        allow (`bool`): the caller's `allow_test_nodes_in_training`.

    Raises:
        ValueError: If there is such a node and `allow` is false, or if the masks differ in shape.
    """
    used, held_out = np.asarray(used_mask, dtype=bool), np.asarray(held_out_mask, dtype=bool)
    if used.shape != held_out.shape:
        raise ValueError(f"masks must have one shape; got {used.shape} and {held_out.shape}.")
    nodes = np.flatnonzero(used & held_out)
    if len(nodes) and not allow:
        raise ValueError(
            f"{what} must not use held-out nodes; got {len(nodes)} of the {int(held_out.sum())} held-out nodes "
            f"({_name_nodes(nodes)}). Take them out, or pass `allow_test_nodes_in_training=True`, after which scores "
            "on these nodes say nothing about new ones."
        )


def select_split(dataset: Any, name: str) -> Any:
    """Choose the split of the nodes, and which of its parts an evaluation measures.

    Args:
        dataset (`DatasetDict`, `Dataset` or a row): graphs as `load_dataset` gives them.
        name (`str`): part and split: "test/3" measures the test nodes of split 3, "validation/reliant" those of a
            split with a name. "test" alone will do where there is only one split.

    Returns:
        What was given (of a `DatasetDict` its split `graph`) with the columns `split` and `measured_part`.

    Raises:
        ValueError: If the part or the split does not exist.
    """
    if isinstance(dataset, datasets.DatasetDict):
        dataset = next(iter(dataset.values())) if len(dataset) == 1 else dataset["graph"]
    part, _, split = name.partition("/")
    if part not in PARTS:
        raise ValueError(f"`name` must be like 'test/3' and begin with one of {', '.join(PARTS)}; got {name!r}.")
    if isinstance(dataset, Mapping):
        return {**dataset, SPLIT_COLUMN: find_split(dataset, split), PART_COLUMN: part}
    few = dataset.select_columns([column for column in (MASKS[0], "split_names") if column in dataset.column_names])
    numbers = [find_split(few[index], split) for index in range(len(few))]
    dataset = dataset.remove_columns([item for item in (SPLIT_COLUMN, PART_COLUMN) if item in dataset.column_names])
    return dataset.add_column(SPLIT_COLUMN, numbers).add_column(PART_COLUMN, [part] * len(numbers))


def find_split(row: Mapping[str, Any], split: int | str = "") -> int:
    """Number of a split that is given by number or name; of the only one if `split` is empty.

    Raises:
        ValueError: If there is no such split.
    """
    num_splits = len(np.atleast_2d(row[MASKS[0]]))
    names = [str(name) for name in row.get("split_names", range(num_splits))]
    if split == "" and num_splits == 1:
        return 0
    if str(split) in names:
        return names.index(str(split))
    if str(split).isdecimal() and int(split) < num_splits:
        return int(split)
    raise ValueError(
        f"the split must be one of {', '.join(names)}; got {str(split)!r}. Name it like 'test/{names[0]}'."
    )


def build_graph_inputs(
    row: Mapping[str, Any],
    feature_extractor: Any,
    split: int | str | None = None,
    *,
    allow_test_nodes_in_training: bool = False,
) -> dict[str, torch.Tensor]:
    """Tensors of one graph and one split of its nodes.

    Args:
        row (`Mapping`): a row of `load_dataset`.
        feature_extractor: the model's; makes `node_features` and `edge_index`, and `sensitive` where it knows the
            groups better than the row: by the name of a column, or by a mapping of its values.
        split (`int` or `str`, *optional*): number or name of the split; by default the one of `select_split`, else 0.
        allow_test_nodes_in_training (`bool`): accept masks that overlap.

    Returns:
        `dict`: `node_features` of shape `(num_nodes, num_features)`, `edge_index` of shape `(2, num_edges)`, `labels`
        (int64, -100 = none), `train_mask`, `validation_mask`, `test_mask` (bool) and, where there is one, `sensitive`
        (int64), each of shape `(num_nodes,)`.

    Raises:
        ValueError: If the split does not exist, or if training nodes are held-out nodes as well.
    """
    number = find_split(row, row.get(SPLIT_COLUMN, 0) if split is None else split)
    masks = {mask: torch.tensor(np.atleast_2d(row[mask])[number], dtype=torch.bool) for mask in MASKS}
    for held_out in MASKS[1:]:
        check_leakage(masks[MASKS[0]], masks[held_out], f"`{MASKS[0]}`", allow_test_nodes_in_training)
    graph = {"node_features": row["node_features"], "edge_index": orient_edges(row["edge_index"], is_row=True)}
    graph |= {name: row[name] for name in ("sensitive", "feature_names") if row.get(name) is not None}
    extracted = feature_extractor(graph, return_tensors="pt")
    inputs = {name: extracted[name] for name in ("node_features", "edge_index")}
    inputs["labels"] = torch.tensor(np.asarray(row["labels"]), dtype=torch.int64)
    inputs.update(masks)
    if "sensitive" in extracted:
        inputs["sensitive"] = extracted["sensitive"].long()
    return inputs


class EvalTransform:
    """One row of `select_split` to the tensors of `build_graph_inputs` and `evaluation_mask`, the nodes to measure."""

    def __init__(self, processor: Any):
        self.processor = processor

    def __call__(self, row: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        if PART_COLUMN not in row:
            raise ValueError(
                "the nodes to measure must be chosen first; got a graph with all its splits. Use "
                "`select_split(dataset, 'test/0')` of decahub.data.node_classification."
            )
        inputs = build_graph_inputs(row, self.processor)
        inputs["evaluation_mask"] = inputs[f"{row[PART_COLUMN]}_mask"]
        return inputs


def build_eval_transform(processor: Any) -> EvalTransform:
    """Deterministic transform for evaluation: maps a row of `select_split` to tensors of the whole graph."""
    return EvalTransform(processor)


def collate(examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The only example of a batch: a graph is a batch by itself.

    Raises:
        ValueError: If there are several.
    """
    if len(examples) != 1:
        raise ValueError(f"a batch must be one graph; got {len(examples)}. Use batch size 1.")
    return dict(examples[0])


FAMILY = DataFamily(
    columns={
        "node_features": datasets.Array2D,
        "edge_index": datasets.Array2D,
        "labels": datasets.List,
        **dict.fromkeys(MASKS, (datasets.List, datasets.Array2D)),
    },
    build_eval_transform=build_eval_transform,
    collate=collate,
    find_files=find_graph_files,
    read_files=read_graph_files,
    finish_loading=finish_loading,
    select_split=select_split,
)

__all__ = [
    "FAMILY",
    "MASKS",
    "PARTS",
    "UNLABELED",
    "build_eval_transform",
    "build_graph_dataset",
    "build_graph_inputs",
    "check_leakage",
    "collate",
    "compute_homophily",
    "describe_graph",
    "find_split",
    "finish_loading",
    "get_single_graph",
    "select_split",
]
