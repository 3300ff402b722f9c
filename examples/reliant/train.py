"""Trains a teacher on one graph, or distills a fair student from a teacher, from a recipe.

    accelerate launch examples/reliant/train.py examples/reliant/teacher_gcn.yaml [--dataset german ...]
    accelerate launch examples/reliant/train.py examples/reliant/distill_akd.yaml [--teacher FOLDER ...]

Without `teacher` the labels alone are learned. `output_dir` then holds `model/`, a folder that `from_pretrained`
loads, with scores and a model card, beside the checkpoints and the log of the run. Killed and started again, the run
goes on where it was.
"""

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate.utils import set_seed
from torch import nn
from transformers import AutoFeatureExtractor

from decahub import (
    AutoModelForNodeClassification,
    ReliantConfig,
    ReliantFeatureExtractor,
    ReliantForNodeClassification,
)
from decahub.data import DATASETS, load_dataset, node_classification
from decahub.evaluation import build_evaluation
from decahub.hub import CardArguments, save_model_folder
from decahub.models.reliant.knowledge import TEACHER_OUTPUTS, TeacherKnowledge
from decahub.models.reliant.optimization import build_companions, build_updates, teacher_step
from decahub.tasks import evaluate_nodes
from decahub.training import LoopArguments, Update, argument, load_recipe, train


TASK = "fair-node-classification"


@dataclass
class DistillationArguments(LoopArguments):
    """Arguments of the loop, and learning rates of what learns beside a student."""

    proxy_learning_rate: float | None = argument(None, "Of the proxy of bias; by default the authors'.")
    discriminator_learning_rate: float | None = argument(None, "Of the discriminators; by default the authors'.")


@dataclass
class Arguments(CardArguments, DistillationArguments):
    dataset: str = argument("german", "Name of a graph (`decahub list --datasets`), or a folder of your own.")
    data_dir: str | None = argument(None, "Folder of the datasets; by default $DECAHUB_DATA_DIR, then the Hub.")
    label_names: list[str] = argument([], "Classes of your own data, where its files do not name them.")
    split: str = argument("0", "Name or number of the split: which nodes train, validate and test.")
    teacher: str | None = argument(None, "Model folder or Hub id, or a .safetensors or .npz file with its logits.")
    teacher_output: str = argument("logits", f"What such a file holds: {', '.join(TEACHER_OUTPUTS)}.")
    variant: str = argument("akd-sgc", "Named student or teacher to start from (`VARIANTS`).")
    config: dict = argument({}, "Fields of ReliantConfig to change.")
    feature_extractor: dict = argument({}, "Arguments of ReliantFeatureExtractor.")
    images: list[str] = argument([], "PNG files that the card shows.")


def get_label_names(dataset: str, given: list[str], labels: torch.Tensor) -> list[str]:
    if given:
        return given
    if dataset in DATASETS:
        return list(DATASETS[dataset].label_names)
    return [f"class {index}" for index in range(int(labels.max()) + 1)]


def build_inputs(row: dict, split: str, options: dict) -> tuple[ReliantFeatureExtractor, dict[str, torch.Tensor]]:
    """The feature extractor, with the statistics of the training nodes, and the tensors of a graph."""
    feature_extractor = ReliantFeatureExtractor(**options)
    if feature_extractor.normalize_features == "standardize":
        number = node_classification.find_split(row, split)
        feature_extractor.fit(row, nodes=row["train_mask"][number])
    inputs = node_classification.build_graph_inputs(row, feature_extractor, split=split)
    feature_extractor.num_features = inputs["node_features"].shape[1]
    return feature_extractor, inputs


def read_teacher(teacher: str, row: dict, split: str, teacher_output: str = "logits") -> TeacherKnowledge:
    """What a teacher knows of a graph: read from a file, or asked of a model with its own feature extractor."""
    if Path(teacher).suffix in (".safetensors", ".npz"):
        return TeacherKnowledge.from_file(teacher, teacher_output)
    model = AutoModelForNodeClassification.from_pretrained(teacher)
    inputs = node_classification.build_graph_inputs(row, AutoFeatureExtractor.from_pretrained(teacher), split=split)
    return TeacherKnowledge.from_model(model, inputs["node_features"], inputs["edge_index"])


def build_model(
    variant: str, fields: dict, inputs: dict[str, torch.Tensor], label_names: list[str]
) -> ReliantForNodeClassification:
    num_nodes, num_features = inputs["node_features"].shape
    config = ReliantConfig.from_variant(
        variant,
        num_features=num_features,
        id2label=dict(enumerate(label_names)),
        label2id={name: index for index, name in enumerate(label_names)},
        **fields,
    )
    if config.architecture == "plp":  # which keeps what it learns of single nodes
        config.num_nodes = num_nodes
    return ReliantForNodeClassification(config)


def prepare_training(
    model: ReliantForNodeClassification,
    inputs: dict[str, torch.Tensor],
    knowledge: TeacherKnowledge | None,
    arguments: DistillationArguments,
) -> tuple[list[Update], dict[str, nn.Module], dict[str, torch.Tensor]]:
    """Updates, companions and the batch that they read: of a teacher, or of a student if there is `knowledge`."""
    config, (num_nodes, _) = model.config, inputs["node_features"].shape
    if knowledge is None:
        optimizer = torch.optim.Adam(
            model.parameters(), lr=arguments.learning_rate, weight_decay=arguments.weight_decay
        )
        return [Update(optimizer, teacher_step, scheduler=arguments.build_scheduler)], {}, inputs
    knowledge.check_fits(num_nodes, config.num_labels, needs_embedding=config.framework == "akd")
    batch = {**inputs, **knowledge.to_batch()}
    companions = build_companions(config, num_nodes, inputs.get("sensitive"), knowledge.embedding_size)
    updates = build_updates(
        config,
        model,
        companions,
        batch,
        learning_rate=arguments.learning_rate,
        proxy_learning_rate=arguments.proxy_learning_rate,
        discriminator_learning_rate=arguments.discriminator_learning_rate,
        weight_decay=arguments.weight_decay,
    )
    scheduler = arguments.build_scheduler
    return [Update(scheduler=scheduler, **update._asdict()) for update in updates], companions, batch


def main():
    arguments = load_recipe(Arguments)
    set_seed(arguments.seed)

    # To use your own graph: `dataset: path/to/folder` in the recipe, or build the same dictionary of tensors here.
    row = load_dataset(arguments.dataset, arguments.data_dir, family="node-classification")["graph"][0]
    feature_extractor, inputs = build_inputs(row, arguments.split, arguments.feature_extractor)
    knowledge = None
    if arguments.teacher is not None:
        knowledge = read_teacher(arguments.teacher, row, arguments.split, arguments.teacher_output)

    label_names = get_label_names(arguments.dataset, arguments.label_names, inputs["labels"])
    model = build_model(arguments.variant, arguments.config, inputs, label_names)
    updates, companions, batch = prepare_training(model, inputs, knowledge, arguments)

    def evaluate(model):
        return evaluate_nodes(model, inputs, inputs["validation_mask"], TASK, with_loss=True).scores

    result = train(
        model,
        updates,
        [batch],
        arguments,
        collate_fn=lambda rows: rows[0],
        companions=companions,
        evaluate=evaluate,
    )
    if not result.is_main_process:
        return

    started = time.monotonic()
    measurement = evaluate_nodes(result.model, inputs, inputs["test_mask"], TASK)
    evaluation = build_evaluation(
        measurement,
        task=TASK,
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
        images=arguments.images,
    )
    print({name: round(value, 4) for name, value in measurement.scores.items()})
    print(f"Saved to {folder}")


if __name__ == "__main__":
    main()
