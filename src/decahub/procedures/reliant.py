"""RELIANT: train a teacher on one graph, or distill a fair student from a teacher.

from decahub.procedures import reliant

outcome = reliant.run(reliant.Arguments(dataset="german", variant="gcn-teacher", split="reliant"))
print(outcome.measurement.scores)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from accelerate.utils import set_seed
from torch import nn

from decahub import (
    ReliantConfig,
    ReliantFeatureExtractor,
    ReliantForNodeClassification,
)
from decahub.data import node_classification
from decahub.models.reliant.knowledge import TEACHER_OUTPUTS, TeacherKnowledge
from decahub.models.reliant.optimization import build_companions, build_updates, teacher_step
from decahub.options import check_options
from decahub.tasks import evaluate_nodes
from decahub.tasks.loading import load_model, load_processor
from decahub.training import LoopArguments, Update, argument, train

from .data_arguments import GraphDataArguments, load_graph, name_classes
from .outcome import Outcome, conclude
from .pretrained import check_source


TASK = "fair-node-classification"

TEACHER_FILES = (".safetensors", ".npz")


@dataclass
class DistillationArguments(LoopArguments):
    """Arguments of the loop, and learning rates of what learns beside a student."""

    proxy_learning_rate: float | None = argument(None, "Learning rate of the proxy of bias; by default the authors'.")
    discriminator_learning_rate: float | None = argument(None, "That of the discriminators; by default the authors'.")


@dataclass
class Arguments(GraphDataArguments, DistillationArguments):
    """Arguments of a run: of the loop, the graph, the teacher, and the model."""

    method: ClassVar[str] = "reliant"
    MAY_CHANGE: ClassVar[tuple[str, ...]] = ("images",)

    dataset: str = argument("german", "Name of a graph (`decahub list --datasets`), or your own folder.")
    teacher: str | None = argument(
        None, "Model folder or Hub id of the teacher, or a .safetensors or .npz file with its logits."
    )
    teacher_output: str = argument("logits", f"What such a file holds: {', '.join(TEACHER_OUTPUTS)}.")
    variant: str = argument("akd-sgc", "Named student or teacher to start from (`VARIANTS`).")
    config: dict = argument({}, "Fields of ReliantConfig to change.")
    feature_extractor: dict = argument({}, "Arguments of ReliantFeatureExtractor.")
    images: list[str] = argument([], "PNG files that the card shows.")

    def __post_init__(self):
        super().__post_init__()
        check_options("config", self.config, ReliantConfig)
        check_options("feature_extractor", self.feature_extractor, ReliantFeatureExtractor)
        for image in self.images:
            if not Path(image).is_file():
                raise FileNotFoundError(
                    f"`images` must be PNG files; {image!r} does not exist. Drop it: --images '[]'."
                )
        if self.teacher_output not in TEACHER_OUTPUTS:
            raise ValueError(
                f"`teacher_output` must be one of {', '.join(TEACHER_OUTPUTS)}; got {self.teacher_output!r}."
            )
        self.refuse_unused("per_device_train_batch_size", why="for a graph, which is one batch")
        if Path(self.teacher or "").suffix not in TEACHER_FILES:
            self.refuse_unused("teacher_output", why="without a teacher's file, which holds one output")
        if self.teacher is None:
            self._check_learns_without_teacher()

    def _check_learns_without_teacher(self):
        """Refuses settings that only distillation reads."""
        config = ReliantConfig.from_variant(self.variant, **self.config)
        is_fair = config.fairness_weight > 0 or config.proxy_mode != "none"
        if not self.variant.endswith("-teacher") or config.framework != "kd" or is_fair:
            raise ValueError(
                f"`teacher` must be given to distill the student {self.variant!r} (framework {config.framework!r}, "
                f"fairness weight {config.fairness_weight:g}); got None. To learn from labels alone, choose a variant "
                "whose name ends in '-teacher', without a fairness weight."
            )
        for name in ("proxy_learning_rate", "discriminator_learning_rate"):
            if getattr(self, name) is not None:
                raise ValueError(f"`{name}` must come with a `teacher`; got {getattr(self, name)} without one.")


def build_inputs(
    row: Mapping[str, Any], split: str, options: Mapping[str, Any]
) -> tuple[ReliantFeatureExtractor, dict[str, torch.Tensor]]:
    """The feature extractor, with the statistics of the training nodes, and the tensors of a graph."""
    feature_extractor = ReliantFeatureExtractor(**options)
    if feature_extractor.normalize_features == "standardize":
        number = node_classification.find_split(row, split)
        feature_extractor.fit(row, nodes=row["train_mask"][number])
    inputs = node_classification.build_graph_inputs(row, feature_extractor, split=split)
    feature_extractor.num_features = inputs["node_features"].shape[1]
    return feature_extractor, inputs


def find_knowledge(arguments: Arguments, row: Mapping[str, Any]) -> TeacherKnowledge | None:
    """What the teacher of a run, if there is one, knows of a graph: read from a file, or computed by its model."""
    teacher = arguments.teacher
    if teacher is None:
        return None
    if Path(teacher).suffix in TEACHER_FILES:
        return TeacherKnowledge.from_file(teacher, arguments.teacher_output)
    check_source("teacher", teacher)
    model = load_model(teacher, "AutoModelForNodeClassification")
    extractor = load_processor(teacher, "AutoFeatureExtractor")
    inputs = node_classification.build_graph_inputs(row, extractor, split=arguments.split)
    return TeacherKnowledge.from_model(model, inputs["node_features"], inputs["edge_index"])


def build_model(
    variant: str, fields: Mapping[str, Any], inputs: Mapping[str, torch.Tensor], label_names: Sequence[str]
) -> ReliantForNodeClassification:
    """A student or teacher of `VARIANTS` for a graph, with random weights and changed fields of its configuration."""
    num_nodes, num_features = inputs["node_features"].shape
    config = ReliantConfig.from_variant(variant, num_features=num_features, **name_classes(label_names), **fields)
    if config.architecture == "plp":  # which keeps what it learns of single nodes
        config.num_nodes = num_nodes
    return ReliantForNodeClassification(config)


def build_updates_of(
    arguments: DistillationArguments,
    model: ReliantForNodeClassification,
    inputs: dict[str, torch.Tensor],
    knowledge: TeacherKnowledge | None,
) -> tuple[list[Update], dict[str, nn.Module], dict[str, torch.Tensor]]:
    """Updates, companions and the batch that they read: of a student if there is `knowledge`, else of a teacher."""
    scheduler = arguments.build_scheduler
    if knowledge is None:
        optimizer = torch.optim.Adam(
            model.parameters(), lr=arguments.learning_rate, weight_decay=arguments.weight_decay
        )
        return [Update(optimizer, teacher_step, scheduler=scheduler)], {}, inputs
    config: Any = model.config
    num_nodes = len(inputs["node_features"])
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
    return [Update(scheduler=scheduler, **update._asdict()) for update in updates], companions, batch


def run(arguments: Arguments) -> Outcome:
    """Train a teacher, or distill a student, on the training nodes of a graph and measure it on the test nodes."""
    set_seed(arguments.seed)
    row, label_names = load_graph(arguments)
    feature_extractor, inputs = build_inputs(row, arguments.split, arguments.feature_extractor)
    knowledge = find_knowledge(arguments, row)
    model = build_model(arguments.variant, arguments.config, inputs, label_names)
    updates, companions, batch = build_updates_of(arguments, model, inputs, knowledge)
    result = train(
        model,
        updates,
        [batch],
        arguments,
        collate_fn=lambda rows: rows[0],
        companions=companions,
        evaluate=lambda model: evaluate_nodes(model, inputs, inputs["validation_mask"], TASK, with_loss=True).scores,
    )
    measure = partial(evaluate_nodes, result.model, inputs, inputs["test_mask"], TASK)
    return conclude(arguments, result, feature_extractor, measure, TASK, images=[*map(Path, arguments.images)])
