"""Trains RAW-GNN on one graph from a recipe.

    accelerate launch examples/raw_gnn/train.py examples/raw_gnn/texas.yaml [--split 3 --learning_rate 1e-2 ...]

`output_dir` then holds `model/`, a folder that `from_pretrained` loads, with figures and a model card, beside the
checkpoints and the log of the run. Killed and started again, the run goes on where it was.
"""

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate.utils import set_seed

from decahub import RawGnnConfig, RawGnnFeatureExtractor, RawGnnForNodeClassification
from decahub.data import DATASETS, load_dataset, node_classification
from decahub.evaluation import build_evaluation, evaluate_nodes, measure_nodes
from decahub.hub import CardArguments, save_model_folder
from decahub.models.raw_gnn.optimization_raw_gnn import build_parameter_groups, training_step
from decahub.training import LoopArguments, Update, argument, load_recipe, train


@dataclass
class Arguments(CardArguments, LoopArguments):
    dataset: str = argument("texas", "Name of a graph (`decahub list --datasets`), or a folder of your own.")
    data_dir: str | None = argument(None, "Folder of the data sets; by default $DECAHUB_DATA_DIR, then the Hub.")
    label_names: list[str] = argument([], "Classes of your own data, where its files do not name them.")
    split: int = argument(0, "Number of the public split: which nodes train, validate and test.")
    pretrained: str | None = argument(None, "Model folder or Hub id to start from; by default random weights.")
    variant: str = argument("paper", "Published variant to start from random weights: paper or official.")
    config: dict = argument({}, "Fields of RawGnnConfig to change.")
    feature_extractor: dict = argument({}, "Arguments of RawGnnFeatureExtractor.")


def get_label_names(arguments: Arguments, labels: torch.Tensor) -> list[str]:
    if arguments.label_names:
        return arguments.label_names
    if arguments.dataset in DATASETS:
        return list(DATASETS[arguments.dataset].label_names)
    return [f"class {index}" for index in range(int(labels.max()) + 1)]


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

    # To use your own graph: `dataset: path/to/folder` in the recipe, or build the same dictionary of tensors here.
    row = load_dataset(arguments.dataset, arguments.data_dir, family="node-classification")["graph"][0]
    feature_extractor = RawGnnFeatureExtractor(**arguments.feature_extractor)
    inputs = node_classification.build_graph_inputs(row, feature_extractor, split=arguments.split)
    feature_extractor.num_features = inputs["node_features"].shape[1]

    model = build_model(arguments, feature_extractor.num_features, get_label_names(arguments, inputs["labels"]))
    groups = build_parameter_groups(model, arguments.weight_decay)
    update = Update(
        torch.optim.Adam(groups, lr=arguments.learning_rate), training_step, scheduler=arguments.build_scheduler
    )

    def evaluate(model):
        return evaluate_nodes(model, inputs, inputs["validation_mask"])

    result = train(model, update, [inputs], arguments, collate_fn=lambda rows: rows[0], evaluate=evaluate)
    if not result.is_main_process:
        return

    started = time.monotonic()
    measurement = measure_nodes(result.model, inputs, inputs["test_mask"])
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
    )
    print({name: round(value, 4) for name, value in measurement.figures.items()})
    print(f"Saved to {folder}")


if __name__ == "__main__":
    main()
