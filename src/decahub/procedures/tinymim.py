"""TinyMIM: pre-train a teacher, distill a student, fine-tune a classifier or a segmenter.

Each of these is a stage:

    reconstruct   a masked autoencoder learns from images alone; its encoder becomes a teacher
    distill       a small student imitates a block of a frozen teacher, without labels
    finetune      a classifier, from a pre-trained folder or from random weights
    segment       the same with a class for each pixel

In a notebook:

    from decahub.procedures import tinymim

    arguments = tinymim.Arguments(stage="distill", dataset="path/to/images", teacher="facebook/vit-mae-base")
    outcome = tinymim.run(arguments)
"""

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from accelerate.utils import set_seed
from torch import nn
from transformers import PreTrainedModel, ViTMAEConfig, ViTMAEForPreTraining

from decahub import (
    TinyMimConfig,
    TinyMimForImageClassification,
    TinyMimForPreTraining,
    TinyMimForSemanticSegmentation,
    TinyMimImageProcessor,
    TinyMimTeacher,
)
from decahub.data import (
    InMemoryDataset,
    SeededTransform,
    image_classification,
    image_mixing,
    image_views,
    semantic_segmentation,
)
from decahub.data.sampling import sample_rows
from decahub.models.tinymim.configuration_tinymim import VARIANTS
from decahub.models.tinymim.optimization import (
    build_layer_decay_parameter_groups,
    build_pretraining_parameter_groups,
    distillation_step,
    reconstruction_step,
)
from decahub.models.tinymim.vit_weights import from_vit
from decahub.options import check_options
from decahub.tasks import Measurement
from decahub.tasks.loading import load_model
from decahub.training import LoopArguments, TrainingResult, Update, argument, train
from decahub.training.updates import call_model

from .data_arguments import DataArguments, Splits, check_splits, load_splits, name_classes
from .outcome import Outcome, conclude, measure_rows
from .pretrained import check_source, load_pretrained


logger = logging.getLogger(__name__)

NO_LABEL = -100
# Arguments that only some stages read.
OWN_ARGUMENTS = {
    "teacher": ("distill",),
    "teacher_precision": ("distill",),
    "num_fit_rows": ("reconstruct", "distill"),
    "num_labeled_per_class": ("reconstruct", "distill", "finetune"),
    "mixing": ("finetune",),
    "pretrained": ("finetune", "segment"),
    "layer_decay": ("finetune", "segment"),
}


@dataclass
class Arguments(DataArguments, LoopArguments):
    """Arguments of one stage: of the loop, the data, the model and the optimizer."""

    method: ClassVar[str] = "tinymim"

    stage: Literal["reconstruct", "distill", "finetune", "segment"] = argument("distill", "What to train.")
    num_labeled_per_class: int | None = argument(None, "Train on this many rows of each class.")
    labeled_seed: int = argument(0, "Seed of the choice of those rows.")
    num_fit_rows: int | None = argument(None, "Training rows that probes are fitted on; by default 6000.")
    teacher: str | None = argument(None, "Model folder or Hub id of a vision transformer: the teacher of `distill`.")
    teacher_precision: Literal["no", "bf16"] = argument("no", "Precision of the teacher of `distill`.")
    pretrained: str | None = argument(None, "Model folder or Hub id to fine-tune; by default random weights.")
    variant: str = argument("tiny", f"Published size to start from: {', '.join(VARIANTS)}.")
    config: dict = argument({}, "Fields of TinyMimConfig to change; of ViTMAEConfig for `reconstruct`.")
    processor: dict = argument({}, "Attributes of TinyMimImageProcessor to change.")
    augmentation: dict = argument({}, "Arguments of `build_train_transform`; of `build_pair_transform` for `distill`.")
    mixing: dict = argument({}, "`mixup_alpha` and `cutmix_alpha` of `finetune`.")
    adam_betas: list[float] = argument([0.9, 0.95], "Betas of AdamW.")
    layer_decay: float = argument(1.0, "Ratio of the learning rates of neighboring layers in fine-tuning.")

    def __post_init__(self):
        super().__post_init__()
        stage = get_stage(self.stage)
        for item in dataclasses.fields(self):
            stages = OWN_ARGUMENTS.get(item.name, (self.stage,))
            value = getattr(self, item.name)
            if self.stage not in stages and value not in (item.default, {}):
                raise ValueError(
                    f"`{item.name}` is an argument of the stage {' or '.join(map(repr, stages))}; got {value!r} with "
                    f"{self.stage!r}."
                )
        if self.num_labeled_per_class is None:
            self.refuse_unused("labeled_seed", why="without `num_labeled_per_class`, whose rows it chooses")
        if self.stage == "distill" and self.teacher is None:
            raise ValueError("`teacher` must be a model folder or Hub id for the stage 'distill'; got None.")
        if self.variant not in VARIANTS:
            raise ValueError(f"`variant` must be one of {', '.join(VARIANTS)}; got {self.variant!r}.")
        check_options("config", self.config, ViTMAEConfig if self.stage == "reconstruct" else TinyMimConfig)
        check_options("processor", self.processor, TinyMimImageProcessor)
        check_options("augmentation", self.augmentation, stage.build_transform, given=["processor"])
        check_options("mixing", self.mixing, image_mixing.build_collate, given=["num_labels"])


def decode_image(row: Mapping[str, Any]) -> dict[str, Any]:
    """One row with its image as bytes; a row without a class gets -100."""
    return image_classification.decode_row({"label": NO_LABEL, **row})


@dataclass(frozen=True)
class Stage:
    """How one stage is trained."""

    task: str  # what its result is measured by
    build_model: Callable[[Arguments, Sequence[str]], PreTrainedModel]  # from the names of the classes
    build_transform: Callable[..., Callable]  # random transform of a row, from processor and augmentation
    build_collate: Callable[[Arguments, Sequence[str]], Callable]
    build_groups: Callable[[nn.Module, Arguments], list[dict]]  # of the optimizer
    step: Callable = call_model
    export: Callable[[Any], PreTrainedModel] = lambda model: model  # what is saved and measured
    family: str = "image-classification"
    decode_row: Callable = decode_image
    needs_labels: bool = True


def build_autoencoder(arguments: Arguments, label_names: Sequence[str] = ()) -> ViTMAEForPreTraining:
    """A masked autoencoder with random weights."""
    defaults = {"image_size": TinyMimConfig.image_size, "layer_norm_eps": TinyMimConfig.layer_norm_eps}
    fields = {**defaults, **VARIANTS[arguments.variant], **arguments.config}
    return ViTMAEForPreTraining(ViTMAEConfig(**fields))


def build_student(arguments: Arguments, label_names: Sequence[str] = ()) -> TinyMimForPreTraining:
    """A student with random weights and its teacher."""
    given = {"num_labels": 0, **arguments.config}
    fields = TinyMimConfig.from_variant(arguments.variant, **given)
    check_source("teacher", str(arguments.teacher))
    teacher = TinyMimTeacher(
        load_model(str(arguments.teacher), "AutoModel", unused="pooler."),
        layer=fields.teacher_layer,
        student_num_hidden_layers=fields.num_hidden_layers,
        image_size=fields.teacher_image_size,
        image_mean=fields.teacher_image_mean,
        image_std=fields.teacher_image_std,
        dtype=torch.bfloat16 if arguments.teacher_precision == "bf16" else None,
    )
    config = TinyMimConfig.from_variant(arguments.variant, **{**given, **teacher.to_config_fields()})
    student = TinyMimForPreTraining(config)
    student.attach_teacher(teacher)
    return student


def build_classifier(
    arguments: Arguments, label_names: Sequence[str], model_class: Any = TinyMimForImageClassification
) -> PreTrainedModel:
    """A model with random weights, or a pre-trained one, whose head is replaced if it has other classes."""
    fields = {**name_classes(label_names), **arguments.config}
    if arguments.pretrained is None:
        return model_class(TinyMimConfig.from_variant(arguments.variant, **fields))
    return load_pretrained(model_class, arguments.pretrained, **fields)


def group_for_pretraining(model: nn.Module, arguments: Arguments) -> list[dict]:
    """Parameter groups of pre-training: norms and biases do not decay."""
    return build_pretraining_parameter_groups(model, arguments.weight_decay)


def group_by_layer(model: nn.Module, arguments: Arguments) -> list[dict]:
    """Parameter groups of fine-tuning: deeper layers learn faster."""
    return build_layer_decay_parameter_groups(
        model, arguments.learning_rate, arguments.weight_decay, arguments.layer_decay
    )


STAGES = {
    "reconstruct": Stage(
        task="image-feature-extraction",
        build_model=build_autoencoder,
        build_transform=image_classification.build_train_transform,
        build_collate=lambda arguments, label_names: image_classification.collate,
        build_groups=group_for_pretraining,
        step=reconstruction_step,
        export=from_vit,
        needs_labels=False,
    ),
    "distill": Stage(
        task="image-feature-extraction",
        build_model=build_student,
        build_transform=image_views.build_pair_transform,
        build_collate=lambda arguments, label_names: image_views.collate_views,
        build_groups=group_for_pretraining,
        step=distillation_step,
        export=lambda model: model.tinymim,
        needs_labels=False,
    ),
    "finetune": Stage(
        task="image-classification",
        build_model=build_classifier,
        build_transform=image_classification.build_train_transform,
        build_collate=lambda arguments, label_names: image_mixing.build_collate(len(label_names), **arguments.mixing),
        build_groups=group_by_layer,
    ),
    "segment": Stage(
        task="semantic-segmentation",
        build_model=partial(build_classifier, model_class=TinyMimForSemanticSegmentation),
        build_transform=semantic_segmentation.build_train_transform,
        build_collate=lambda arguments, label_names: semantic_segmentation.collate,
        build_groups=group_by_layer,
        family="semantic-segmentation",
        decode_row=semantic_segmentation.decode_row,
    ),
}


def get_stage(name: str) -> Stage:
    """The record of a stage."""
    if name not in STAGES:
        raise ValueError(f"`stage` must be one of {', '.join(STAGES)}; got {name!r}. Choose what to train.")
    return STAGES[name]


def load_data(arguments: Arguments) -> Splits:
    """The dataset of a stage; stages that learn without labels take a folder of images as well."""
    stage = get_stage(arguments.stage)
    splits = load_splits(arguments, stage.family, needs_labels=stage.needs_labels)
    if splits.evaluation is None:
        logger.warning(f"{arguments.dataset!r} has no labels: the model is trained, and its features are not probed.")
        return splits
    return dataclasses.replace(splits, train=select_rows(arguments, splits.fit))


def select_rows(arguments: Arguments, rows: Any) -> Any:
    """The training rows of a run."""
    if arguments.num_labeled_per_class is not None:
        rows = image_mixing.select_balanced(rows, arguments.num_labeled_per_class, arguments.labeled_seed)
    return sample_rows(rows, arguments.max_train_samples, arguments.seed)


def decode_rows(rows: Any, decode_row: Callable = decode_image) -> Any:
    """Rows whose images are decoded once and kept in memory."""
    return InMemoryDataset(rows, decode_row, "Decoding images")


def build_processor(arguments: Arguments) -> TinyMimImageProcessor:
    """The image processor of the run."""
    return TinyMimImageProcessor(**arguments.processor)


def build_dataset(arguments: Arguments, images: Any, processor: TinyMimImageProcessor) -> SeededTransform:
    """Decoded images as augmented training examples."""
    transform = get_stage(arguments.stage).build_transform(processor, **arguments.augmentation)
    return SeededTransform(images, transform, arguments.seed)


def build_update(arguments: Arguments, model: PreTrainedModel) -> Update:
    """AdamW over the parameter groups of the stage, and its schedule."""
    stage = get_stage(arguments.stage)
    groups = stage.build_groups(model, arguments)
    betas = (arguments.adam_betas[0], arguments.adam_betas[1])
    optimizer = torch.optim.AdamW(groups, lr=arguments.learning_rate, betas=betas, fused=True)
    return Update(optimizer, stage.step, scheduler=arguments.build_scheduler)


def measure(arguments: Arguments, model: PreTrainedModel, processor: Any, rows: Any, splits: Splits) -> Measurement:
    """Scores of what a stage trained, on some rows."""
    task, facts = get_stage(arguments.stage).task, {"num_fit_rows": arguments.num_fit_rows}
    options = {"label_names": splits.label_names, "train_dataset": splits.fit, "facts": facts}
    return measure_rows(arguments, model, processor, rows, task, **options)


def is_watched(arguments: Arguments, splits: Splits) -> bool:
    """Whether the model is evaluated during training."""
    return splits.monitor is not None and bool(arguments.eval_epochs or arguments.eval_steps)


def train_stage(
    arguments: Arguments, splits: Splits, processor: TinyMimImageProcessor, train_dataset: Any = None
) -> TrainingResult:
    """Train one stage; the result holds the model to save. `train_dataset` takes the place of `splits.train`."""
    stage = get_stage(arguments.stage)
    check_splits(arguments, splits, processor, stage.family)
    if train_dataset is None:
        train_dataset = build_dataset(arguments, decode_rows(splits.train, stage.decode_row), processor)
    model = stage.build_model(arguments, splits.label_names)

    def evaluate(model: PreTrainedModel) -> dict[str, float]:
        return measure(arguments, stage.export(model), processor, splits.monitor, splits).scores

    result = train(
        model,
        build_update(arguments, model),
        train_dataset,
        arguments,
        collate_fn=stage.build_collate(arguments, splits.label_names),
        evaluate=evaluate if is_watched(arguments, splits) else None,
    )
    return dataclasses.replace(result, model=stage.export(result.model))


def run(arguments: Arguments, splits: Splits | None = None) -> Outcome:
    """Train one stage and measure what it trained.

    Args:
        arguments ([`Arguments`]): Of the run.
        splits ([`Splits`], *optional*): Your own datasets; by default those that the arguments name.
    """
    set_seed(arguments.seed)
    splits = load_data(arguments) if splits is None else splits
    processor = build_processor(arguments)
    result = train_stage(arguments, splits, processor)

    def measure_result() -> Measurement | None:
        if splits.evaluation is None:
            return None
        return measure(arguments, result.model, processor, splits.evaluation, splits)

    return conclude(arguments, result, processor, measure_result, get_stage(arguments.stage).task)
