"""EMO: train a classifier or a segmenter of images, from random weights or from a model folder.

from decahub.procedures import emo

outcome = emo.run(emo.Arguments(dataset="sign_digits", max_steps=100, output_dir="runs/emo"))
print(outcome.measurement.scores)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from accelerate.utils import set_seed
from transformers import PreTrainedModel

from decahub import EmoConfig, EmoForImageClassification, EmoForSemanticSegmentation, EmoImageProcessor
from decahub.data import InMemoryDataset, SeededTransform, image_classification, image_mixing, semantic_segmentation
from decahub.models.emo.optimization import build_parameter_groups, build_segmentation_parameter_groups
from decahub.options import check_options
from decahub.tasks import Measurement
from decahub.training import LoopArguments, Update, argument, train

from .data_arguments import DataArguments, Splits, check_splits, load_splits, name_classes
from .image_distillation import Distillation, DistillationStep, ImageTeacher
from .outcome import Outcome, conclude, measure_rows
from .pretrained import load_pretrained


CLASSIFICATION, SEGMENTATION = "image-classification", "semantic-segmentation"
# For each task: kind of data, model, and which parameters decay.
TASKS: dict[str, tuple[Any, Any, Callable]] = {
    CLASSIFICATION: (image_classification, EmoForImageClassification, build_parameter_groups),
    SEGMENTATION: (semantic_segmentation, EmoForSemanticSegmentation, build_segmentation_parameter_groups),
}


@dataclass
class Arguments(DataArguments, LoopArguments):
    """Arguments of a run: of the loop, the data, and the model."""

    method: ClassVar[str] = "emo"

    task: Literal["image-classification", "semantic-segmentation"] = argument(CLASSIFICATION, "What to learn.")
    pretrained: str | None = argument(None, "Model folder or Hub id to start from; by default random weights.")
    variant: str = argument("1m", "Published variant of EMO to start from random weights.")
    decode_head: str | None = argument(None, "For segmentation: deeplabv3 (default), pspnet, segformer or sem_fpn.")
    config: dict = argument({}, "Fields of EmoConfig to change.")
    processor: dict = argument({}, "Attributes of EmoImageProcessor to change.")
    augmentation: dict = argument({}, "Arguments of `build_train_transform` of the data module.")
    mixing: dict = argument({}, "For classification: `mixup_alpha` and `cutmix_alpha`.")
    teacher: str | None = argument(None, "Image classifier to imitate, beside the labels: folder or Hub id.")
    distillation: dict = argument({}, "With a teacher: `weight` of its answers in the loss, and `temperature`.")

    def __post_init__(self):
        super().__post_init__()
        if self.task not in TASKS:
            raise ValueError(f"`task` must be one of {', '.join(TASKS)}; got {self.task!r}.")
        if self.decode_head is not None and self.task != SEGMENTATION:
            raise ValueError(f"`decode_head` must come with the task {SEGMENTATION!r}; got {self.task!r}.")
        if self.teacher is not None and self.task != CLASSIFICATION:
            raise ValueError(f"`teacher` must come with the task {CLASSIFICATION!r}; got {self.task!r}.")
        if self.task != CLASSIFICATION:
            self.refuse_unused("mixing", why=f"for the task {self.task!r}")
        if self.is_mixed and self.per_device_train_batch_size == 1:
            raise ValueError("`per_device_train_batch_size` must be at least 2 with `mixing`; got 1.")
        if self.teacher is None:
            self.refuse_unused("distillation", why="without a `teacher`")
        check_options("mixing", self.mixing, image_mixing.build_collate, given=["num_labels"])
        image_mixing.build_collate(1, **self.mixing)
        check_options("distillation", self.distillation, Distillation)
        Distillation(**self.distillation)
        check_options("config", self.config, EmoConfig)
        check_options("processor", self.processor, EmoImageProcessor)
        transform = TASKS[self.task][0].build_train_transform
        check_options("augmentation", self.augmentation, transform, given=["processor"])

    @property
    def is_mixed(self) -> bool:
        """Whether images of a batch are mixed with each other."""
        return any(self.mixing.values())


def build_processor(arguments: Arguments) -> EmoImageProcessor:
    """The image processor of the run."""
    return EmoImageProcessor(**arguments.processor)


def build_train_dataset(arguments: Arguments, rows: Any, processor: EmoImageProcessor) -> SeededTransform:
    """Rows, decoded once and kept in memory, as augmented training examples."""
    data_module = TASKS[arguments.task][0]
    transform = data_module.build_train_transform(processor, **arguments.augmentation)
    images: Any = InMemoryDataset(rows, data_module.decode_row, "Decoding images")
    return SeededTransform(images, transform, arguments.seed)


def get_collate(arguments: Arguments, label_names: Sequence[str]) -> Callable:
    """The function that makes a batch of examples, mixed with each other if the run says so."""
    if arguments.is_mixed:
        return image_mixing.build_collate(len(label_names), **arguments.mixing)
    return TASKS[arguments.task][0].collate


def build_model(arguments: Arguments, label_names: Sequence[str]) -> PreTrainedModel:
    """A model with random weights, or a pre-trained one, whose head is replaced if it has other classes."""
    model_class = TASKS[arguments.task][1]
    head = {} if arguments.decode_head is None else {"decode_head": arguments.decode_head}
    fields = {**name_classes(label_names), **head, **arguments.config}
    if arguments.pretrained is None:
        model = model_class(EmoConfig.from_variant(arguments.variant, **fields))
    else:
        model = load_pretrained(model_class, arguments.pretrained, **fields)
    if arguments.task == CLASSIFICATION:
        check_loss(arguments, model.config)
    return model


def check_loss(arguments: Arguments, config: EmoConfig) -> None:
    """Refuse what the loss of a classifier would not read, be it from the recipe or from a pre-trained model."""
    if config.problem_type not in (None, "single_label_classification"):
        raise ValueError(
            f"`config.problem_type` must be 'single_label_classification' for images of one class each; got "
            f"{config.problem_type!r}."
        )
    is_unread = arguments.is_mixed or Distillation(**arguments.distillation).weight == 1
    if config.label_smoothing and is_unread:
        name = "mixing" if arguments.is_mixed else "distillation.weight=1"
        raise ValueError(
            f"`config.label_smoothing` must be 0 with `{name}`; got {config.label_smoothing!r}. Set it in `config`."
        )


def build_teacher(
    arguments: Arguments, processor: EmoImageProcessor, label_names: Sequence[str]
) -> ImageTeacher | None:
    """The classifier to imitate, if the run has one."""
    if arguments.teacher is None:
        return None
    return ImageTeacher.from_pretrained(arguments.teacher, processor, label_names)


def build_update(arguments: Arguments, model: PreTrainedModel, teacher: ImageTeacher | None = None) -> Update:
    """AdamW over the parameter groups of the task, and its schedule; with a teacher, its answers count in the loss."""
    groups = TASKS[arguments.task][2](model, arguments.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=arguments.learning_rate)
    if teacher is None:
        return Update(optimizer, scheduler=arguments.build_scheduler)
    step = DistillationStep(teacher, Distillation(**arguments.distillation))
    return Update(optimizer, step, scheduler=arguments.build_scheduler)


def measure(
    arguments: Arguments, model: PreTrainedModel, processor: EmoImageProcessor, rows: Any, label_names: Sequence[str]
) -> Measurement:
    """Scores of a model on some rows."""
    return measure_rows(arguments, model, processor, rows, arguments.task, label_names=label_names)


def run(arguments: Arguments, splits: Splits | None = None) -> Outcome:
    """Train EMO and measure it.

    Args:
        arguments ([`Arguments`]): Of the run.
        splits ([`Splits`], *optional*): Your own datasets; by default those that the arguments name.
    """
    set_seed(arguments.seed)
    splits = load_splits(arguments, arguments.task) if splits is None else splits
    processor = build_processor(arguments)
    check_splits(arguments, splits, processor, arguments.task)
    teacher = build_teacher(arguments, processor, splits.label_names)
    train_dataset = build_train_dataset(arguments, splits.train, processor)
    model = build_model(arguments, splits.label_names)

    def measure_on(rows: Any, model: PreTrainedModel) -> Measurement:
        return measure(arguments, model, processor, rows, splits.label_names)

    result = train(
        model,
        build_update(arguments, model, teacher),
        train_dataset,
        arguments,
        collate_fn=get_collate(arguments, splits.label_names),
        evaluate=lambda model: measure_on(splits.monitor, model).scores,
    )
    return conclude(arguments, result, processor, lambda: measure_on(splits.evaluation, result.model), arguments.task)
