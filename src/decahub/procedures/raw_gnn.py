"""RAW-GNN: train a node classifier on one graph, with the whole graph in each step or with mini-batches of nodes.

from decahub.procedures import raw_gnn

outcome = raw_gnn.run(raw_gnn.Arguments(dataset="texas", max_steps=100, output_dir="runs/raw_gnn"))
print(outcome.measurement.scores)
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from accelerate.utils import set_seed

from decahub import RawGnnConfig, RawGnnFeatureExtractor, RawGnnForNodeClassification
from decahub.data import node_classification
from decahub.models.raw_gnn.optimization import build_parameter_groups, training_step
from decahub.options import check_options
from decahub.tasks import evaluate_nodes
from decahub.training import LoopArguments, Update, argument, train

from .data_arguments import GraphDataArguments, load_graph, name_classes
from .outcome import Outcome, conclude
from .pretrained import load_pretrained


TASK = "node-classification"
GRAPH = ("node_features", "edge_index")


@dataclass
class Arguments(GraphDataArguments, LoopArguments):
    """Arguments of a run: of the loop, the graph, and the model."""

    method: ClassVar[str] = "raw_gnn"
    MAY_CHANGE: ClassVar[tuple[str, ...]] = ("splits_file",)

    pretrained: str | None = argument(None, "Model folder or Hub id to start from; by default random weights.")
    nodes_per_batch: int | None = argument(None, "Nodes of a mini-batch; by default a step takes the whole graph.")
    splits_file: str | None = argument(None, "A `splits.json`, results over all splits, to show in the card.")
    variant: str = argument("paper", "Published variant to start from random weights: paper or official.")
    config: dict = argument({}, "Fields of RawGnnConfig to change.")
    feature_extractor: dict = argument({}, "Arguments of RawGnnFeatureExtractor.")

    def __post_init__(self):
        super().__post_init__()
        if self.nodes_per_batch is not None and self.nodes_per_batch < 1:
            raise ValueError(f"`nodes_per_batch` must be at least 1; got {self.nodes_per_batch}.")
        if self.per_device_train_batch_size != self.nodes_per_batch:
            self.refuse_unused("per_device_train_batch_size", why="for a graph: set `nodes_per_batch`")
        if self.splits_file is not None and not Path(self.splits_file).is_file():
            raise FileNotFoundError(
                f"`splits_file` must be a file; {self.splits_file!r} does not exist. `reproduce.py` writes it."
            )
        check_options("config", self.config, RawGnnConfig)
        check_options("feature_extractor", self.feature_extractor, RawGnnFeatureExtractor)


def build_inputs(
    arguments: Arguments, row: Mapping[str, Any]
) -> tuple[RawGnnFeatureExtractor, dict[str, torch.Tensor]]:
    """The feature extractor, and the tensors of a graph and one split of its nodes."""
    feature_extractor = RawGnnFeatureExtractor(**arguments.feature_extractor)
    inputs = node_classification.build_graph_inputs(row, feature_extractor, split=arguments.split)
    feature_extractor.num_features = inputs["node_features"].shape[1]
    return feature_extractor, inputs


def build_train_dataset(arguments: Arguments, inputs: Mapping[str, torch.Tensor]) -> tuple[Any, Callable, Arguments]:
    """What a step takes: the graph, or mini-batches of training nodes with the graph.

    Returns:
        `tuple`: the examples, the collator, and the arguments of the loop, whose batch size counts nodes.
    """
    if arguments.nodes_per_batch is None:
        return [inputs], lambda rows: rows[0], arguments
    graph = {name: inputs[name] for name in GRAPH}
    nodes = (inputs["train_mask"] & (inputs["labels"] >= 0)).nonzero().squeeze(1)

    def collate(rows: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        target_nodes = torch.stack(list(rows))
        return {**graph, "target_nodes": target_nodes, "labels": inputs["labels"][target_nodes]}

    return nodes, collate, dataclasses.replace(arguments, per_device_train_batch_size=arguments.nodes_per_batch)


def build_model(
    arguments: Arguments, inputs: Mapping[str, torch.Tensor], label_names: Sequence[str]
) -> RawGnnForNodeClassification:
    """A model with random weights, or a pre-trained one, whose classifier is replaced if it has other classes."""
    num_features = inputs["node_features"].shape[1]
    fields = {"num_features": num_features, **name_classes(label_names), **arguments.config}
    if arguments.pretrained is None:
        return RawGnnForNodeClassification(RawGnnConfig.from_variant(arguments.variant, **fields))
    return load_pretrained(RawGnnForNodeClassification, arguments.pretrained, **fields)


def build_update(arguments: Arguments, model: RawGnnForNodeClassification) -> Update:
    """Adam with weight decay in the gradient, as the authors have it, and its schedule."""
    groups = build_parameter_groups(model, arguments.weight_decay)
    optimizer = torch.optim.Adam(groups, lr=arguments.learning_rate)
    return Update(optimizer, training_step, scheduler=arguments.build_scheduler)


def list_reports(arguments: Arguments) -> list[Path]:
    """Files that the model card shows as tables."""
    return [] if arguments.splits_file is None else [Path(arguments.splits_file)]


def run(arguments: Arguments) -> Outcome:
    """Train RAW-GNN on the training nodes of a graph and measure it on the test nodes."""
    set_seed(arguments.seed)
    row, label_names = load_graph(arguments)
    feature_extractor, inputs = build_inputs(arguments, row)
    model = build_model(arguments, inputs, label_names)
    train_dataset, collate, loop_arguments = build_train_dataset(arguments, inputs)
    result = train(
        model,
        build_update(arguments, model),
        train_dataset,
        loop_arguments,
        collate_fn=collate,
        evaluate=lambda model: evaluate_nodes(model, inputs, inputs["validation_mask"]).scores,
    )
    measure = partial(evaluate_nodes, result.model, inputs, inputs["test_mask"])
    return conclude(arguments, result, feature_extractor, measure, TASK, reports=list_reports(arguments))
