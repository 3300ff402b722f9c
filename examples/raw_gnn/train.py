"""Trains RAW-GNN on one graph from a recipe.

    accelerate launch examples/raw_gnn/train.py examples/raw_gnn/texas.yaml [--split 3 --learning_rate 1e-2 ...]

`output_dir` then holds `model/`, a folder that `from_pretrained` loads, with scores and a model card, beside the
checkpoints and the log of the run. Killed and started again, the run goes on where it was.
"""

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate.utils import set_seed

from decahub import RawGnnConfig, RawGnnFeatureExtractor, RawGnnForNodeClassification
from decahub.data import load_dataset, node_classification
from decahub.evaluation import build_evaluation
from decahub.hub import CardArguments, save_model_folder
from decahub.models.raw_gnn.optimization import build_parameter_groups, training_step
from decahub.tasks import evaluate_nodes
from decahub.training import LoopArguments, Update, argument, load_recipe, train


@dataclass
class Arguments(CardArguments, LoopArguments):
    dataset: str = argument("texas", "Name of a graph (`decahub list --datasets`), or a folder of your own.")
    data_dir: str | None = argument(None, "Folder of the datasets; by default $DECAHUB_DATA_DIR, then the Hub.")
    label_names: list[str] = argument([], "Classes of your own data, where its files do not name them.")
    split: int = argument(0, "Number of the public split: which nodes train, validate and test.")
    pretrained: str | None = argument(None, "Model folder or Hub id to start from; by default random weights.")
    nodes_per_batch: int | None = argument(
        None, "Train in mini-batches of this many nodes, for large graphs; by default a step takes the whole graph."
    )
    splits_file: str | None = argument(None, "A `splits.json`, results over all splits, to show in the card.")
    variant: str = argument("paper", "Published variant to start from random weights: paper or official.")
    config: dict = argument({}, "Fields of RawGnnConfig to change.")
    feature_extractor: dict = argument({}, "Arguments of RawGnnFeatureExtractor.")


def get_label_names(arguments: Arguments, graphs, labels: torch.Tensor) -> list[str]:
    names = getattr(graphs.features["labels"].feature, "names", None)
    return arguments.label_names or names or [f"class {index}" for index in range(int(labels.max()) + 1)]


def build_train_dataset(arguments: Arguments, inputs: dict):
    """What a step takes: the graph, or mini-batches of training nodes with the graph."""
    if arguments.nodes_per_batch is None:
        return [inputs], lambda rows: rows[0]
    arguments.per_device_train_batch_size = arguments.nodes_per_batch
    graph = {name: inputs[name] for name in ("node_features", "edge_index")}
    nodes = (inputs["train_mask"] & (inputs["labels"] >= 0)).nonzero().squeeze(1)

    def collate(rows):
        target_nodes = torch.stack(rows)
        return {**graph, "target_nodes": target_nodes, "labels": inputs["labels"][target_nodes]}

    return nodes, collate


def build_model(arguments: Arguments, num_features: int, label_names: list[str]) -> RawGnnForNodeClassification:
    fields = {
        "num_features": num_features,
        "id2label": dict(enumerate(label_names)),
        "label2id": {name: index for index, name in enumerate(label_names)},
        **arguments.config,
    }
    if arguments.pretrained is None:
        return RawGnnForNodeClassification(RawGnnConfig.from_variant(arguments.variant, **fields))
    # The classifier of another set of classes is replaced.
    return RawGnnForNodeClassification.from_pretrained(arguments.pretrained, ignore_mismatched_sizes=True, **fields)


def main():
    arguments = load_recipe(Arguments)
    set_seed(arguments.seed)
    extra_files = [] if arguments.splits_file is None else [Path(arguments.splits_file)]
    for path in extra_files:  # looked for now and not after the training
        if not path.is_file():
            raise FileNotFoundError(f"`splits_file` must be a file; got {str(path)!r}. `reproduce.py` writes it.")

    # To use your own graph: `dataset: path/to/folder` in the recipe, or build the same dictionary of tensors here.
    graphs = load_dataset(arguments.dataset, arguments.data_dir, family="node-classification")["graph"]
    feature_extractor = RawGnnFeatureExtractor(**arguments.feature_extractor)
    inputs = node_classification.build_graph_inputs(graphs[0], feature_extractor, split=arguments.split)
    feature_extractor.num_features = inputs["node_features"].shape[1]

    label_names = get_label_names(arguments, graphs, inputs["labels"])
    model = build_model(arguments, feature_extractor.num_features, label_names)
    groups = build_parameter_groups(model, arguments.weight_decay)
    update = Update(
        torch.optim.Adam(groups, lr=arguments.learning_rate), training_step, scheduler=arguments.build_scheduler
    )

    def evaluate(model):
        return evaluate_nodes(model, inputs, inputs["validation_mask"]).scores

    train_dataset, collate = build_train_dataset(arguments, inputs)
    result = train(model, update, train_dataset, arguments, collate_fn=collate, evaluate=evaluate)
    if not result.is_main_process:
        return

    started = time.monotonic()
    measurement = evaluate_nodes(result.model, inputs, inputs["test_mask"])
    evaluation = build_evaluation(
        measurement,
        task="node-classification",
        dataset=arguments.dataset,
        split=f"test/{arguments.split}",
        minutes=(time.monotonic() - started) / 60,
    )
    folder = save_model_folder(
        Path(arguments.output_dir) / "model",
        result.model,
        feature_extractor,
        evaluation=evaluation,
        recipe=dataclasses.asdict(arguments),
        train_log=result.train_log,
        training_minutes=result.minutes,
        extra_files=extra_files,
    )
    print({name: round(value, 4) for name, value in measurement.scores.items()})
    print(f"Saved to {folder}")


if __name__ == "__main__":
    main()
