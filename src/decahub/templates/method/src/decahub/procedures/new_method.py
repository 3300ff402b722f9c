"""NewMethod: train a classifier of images.

In a notebook:

    from decahub.procedures import new_method

    outcome = new_method.run(new_method.Arguments(max_steps=100, output_dir="runs/new_method"))
    print(outcome.measurement.scores)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from accelerate.utils import set_seed
from transformers import PreTrainedModel

from decahub import NewMethodConfig, NewMethodForImageClassification, NewMethodImageProcessor
from decahub.data import InMemoryDataset, SeededTransform, image_classification
from decahub.options import check_options
from decahub.tasks import Measurement
from decahub.training import LoopArguments, Update, argument, train

from .data_arguments import DataArguments, Splits, load_splits, name_classes
from .outcome import Outcome, conclude, measure_rows


TASK = "image-classification"


@dataclass
class Arguments(DataArguments, LoopArguments):
    """Arguments of a run: of the loop, the data, and the model."""

    method: ClassVar[str] = "new_method"

    dataset: str = argument("sklearn_digits", "Name of a dataset (`decahub list --datasets`), or your own folder.")
    variant: str = argument("tiny", "Published variant of NewMethod.")
    config: dict = argument({}, "Fields of NewMethodConfig to change.")
    processor: dict = argument({}, "Attributes of NewMethodImageProcessor to change.")
    augmentation: dict = argument({}, "Arguments of `build_train_transform`.")

    def __post_init__(self):
        super().__post_init__()
        check_options("config", self.config, NewMethodConfig)
        check_options("processor", self.processor, NewMethodImageProcessor)
        transform = image_classification.build_train_transform
        check_options("augmentation", self.augmentation, transform, given=["processor"])


def build_processor(arguments: Arguments) -> NewMethodImageProcessor:
    """The image processor of the run."""
    return NewMethodImageProcessor(**arguments.processor)


def build_train_dataset(arguments: Arguments, rows: Any, processor: NewMethodImageProcessor) -> SeededTransform:
    """Rows, decoded once and kept in memory, as augmented training examples."""
    transform = image_classification.build_train_transform(processor, **arguments.augmentation)
    images: Any = InMemoryDataset(rows, image_classification.decode_row, "Decoding images")
    return SeededTransform(images, transform, arguments.seed)


def build_model(arguments: Arguments, label_names: Sequence[str]) -> NewMethodForImageClassification:
    """A model with random weights."""
    fields = {**name_classes(label_names), **arguments.config}
    return NewMethodForImageClassification(NewMethodConfig.from_variant(arguments.variant, **fields))


def build_update(arguments: Arguments, model: PreTrainedModel) -> Update:
    """AdamW and its schedule; the step is the loop's default, a call of the model."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=arguments.learning_rate, weight_decay=arguments.weight_decay)
    return Update(optimizer, scheduler=arguments.build_scheduler)


def measure(
    arguments: Arguments, model: PreTrainedModel, processor: Any, rows: Any, label_names: Sequence[str]
) -> Measurement:
    """Scores of a model on some rows."""
    return measure_rows(arguments, model, processor, rows, TASK, label_names=label_names)


def run(arguments: Arguments, splits: Splits | None = None) -> Outcome:
    """Train NewMethod and measure it.

    Args:
        arguments ([`Arguments`]): Of the run.
        splits ([`Splits`], *optional*): Your own datasets; by default those that the arguments name.
    """
    set_seed(arguments.seed)
    splits = load_splits(arguments, TASK) if splits is None else splits
    processor = build_processor(arguments)
    train_dataset = build_train_dataset(arguments, splits.train, processor)
    model = build_model(arguments, splits.label_names)

    def measure_on(rows: Any, model: PreTrainedModel) -> Measurement:
        return measure(arguments, model, processor, rows, splits.label_names)

    result = train(
        model,
        build_update(arguments, model),
        train_dataset,
        arguments,
        collate_fn=image_classification.collate,
        evaluate=lambda model: measure_on(splits.monitor, model).scores,
    )
    return conclude(arguments, result, processor, lambda: measure_on(splits.evaluation, result.model), TASK)
