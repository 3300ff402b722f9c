"""The stages of TinyMIM: what each trains, on which views, with which optimizer groups, and what it hands on.

    reconstruct   a masked autoencoder learns from images alone; its encoder becomes a teacher
    distill       a small student imitates a block of a frozen teacher, without labels
    finetune      a classifier, from a pre-trained folder or from random weights
    segment       the same with a class for each pixel

A stage is a record of functions; `train.py` runs one, `reproduce.py` many.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import AutoModel, PreTrainedModel, ViTMAEConfig, ViTMAEForPreTraining

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
    get_label_names,
    image_classification,
    image_mixing,
    image_views,
    semantic_segmentation,
)
from decahub.evaluation import evaluate_model
from decahub.models.tinymim.configuration_tinymim import VARIANTS
from decahub.models.tinymim.optimization import (
    build_layer_decay_parameter_groups,
    build_pretraining_parameter_groups,
    distillation_step,
    finetuning_step,
    reconstruction_step,
)
from decahub.models.tinymim.vit_weights import from_vit
from decahub.tasks import Measurement
from decahub.training import LoopArguments, TrainingResult, Update, argument, train


@dataclass
class StageArguments(LoopArguments):
    """Arguments of one stage: of the loop, the data, the model and the optimizer."""

    stage: str = argument("distill", "reconstruct, distill, finetune or segment.")
    dataset: str = argument("cifar10", "Name of a dataset (`decahub list --datasets`), or a folder of your own.")
    data_dir: str | None = argument(None, "Folder of the datasets; by default $DECAHUB_DATA_DIR, then the Hub.")
    label_names: list[str] = argument([], "Classes of your own data, where its files do not name them.")
    eval_split: str = argument("test", "Split that the scores of the model card are measured on.")
    max_eval_samples: int | None = argument(None, "Evaluate at most this many rows.")
    max_train_samples: int | None = argument(None, "Train on at most this many rows.")
    num_labeled_per_class: int | None = argument(None, "Train on at most this many rows of each class.")
    labeled_seed: int = argument(0, "Seed of the choice of those rows.")
    num_fit_rows: int | None = argument(None, "Training rows that probes are fitted on; by default the task's 6000.")
    teacher: str | None = argument(None, "Model folder or Hub id of a vision transformer: the teacher of `distill`.")
    teacher_precision: Literal["no", "bf16"] = argument("no", "Precision of the teacher, beside that of the student.")
    pretrained: str | None = argument(None, "Model folder or Hub id to fine-tune; by default random.")
    variant: str = argument("tiny", f"Published sizes to start from: {', '.join(VARIANTS)}.")
    config: dict = argument({}, "Fields of TinyMimConfig to change; of ViTMAEConfig for `reconstruct`.")
    processor: dict = argument({}, "Attributes of TinyMimImageProcessor to change.")
    augmentation: dict = argument({}, "Arguments of `build_train_transform`; of `build_pair_transform` for `distill`.")
    mixing: dict = argument({}, "`mixup_alpha` and `cutmix_alpha` of `finetune`.")
    adam_betas: list[float] = argument([0.9, 0.95], "Betas of AdamW.")
    layer_decay: float = argument(1.0, "Ratio of the learning rates of neighboring layers in fine-tuning.")


@dataclass(frozen=True)
class Stage:
    """How one stage is run.

    Args:
        task: Task of `decahub.evaluation` that measures its result.
        build_model: `build_model(arguments, label_names)` gives the model that learns.
        build_transform: `build_transform(processor, **augmentation)` gives the random transform of a row.
        build_collate: `build_collate(arguments, label_names)` gives the collator.
        build_groups: `build_groups(model, arguments)` gives the parameter groups of the optimizer.
        step: Step of the training loop.
        export: `export(model)` gives the model that is saved and measured.
        family: Kind of its datasets.
        decode_row: `decode_row(row)` gives the pixels of a row.
    """

    task: str
    build_model: Callable[[StageArguments, list[str]], PreTrainedModel]
    build_transform: Callable[..., Callable]
    build_collate: Callable[[StageArguments, list[str]], Callable]
    build_groups: Callable[[nn.Module, StageArguments], list[dict]]
    step: Callable
    export: Callable[[Any], PreTrainedModel]
    family: str = "image-classification"
    decode_row: Callable = image_classification.decode_row


def build_autoencoder(arguments: StageArguments, label_names: list[str]) -> ViTMAEForPreTraining:
    defaults = {"image_size": TinyMimConfig.image_size, "layer_norm_eps": TinyMimConfig.layer_norm_eps}
    fields = {**defaults, **VARIANTS[arguments.variant], **arguments.config}
    return ViTMAEForPreTraining(ViTMAEConfig(**fields))


def build_student(arguments: StageArguments, label_names: list[str]) -> TinyMimForPreTraining:
    """A student with random weights and its teacher."""
    if arguments.teacher is None:
        raise ValueError("`teacher` must be a model folder or Hub id for the stage 'distill'; got None.")
    given = {"num_labels": 0, **arguments.config}
    fields = TinyMimConfig.from_variant(arguments.variant, **given)
    teacher = TinyMimTeacher(
        AutoModel.from_pretrained(arguments.teacher).eval(),
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
    arguments: StageArguments, label_names: list[str], model_class: type = TinyMimForImageClassification
) -> PreTrainedModel:
    fields = {
        "id2label": dict(enumerate(label_names)),
        "label2id": {name: index for index, name in enumerate(label_names)},
        **arguments.config,
    }
    if arguments.pretrained is None:
        return model_class(TinyMimConfig.from_variant(arguments.variant, **fields))
    # The head of another set of classes is replaced.
    return model_class.from_pretrained(arguments.pretrained, ignore_mismatched_sizes=True, **fields)


def build_segmenter(arguments: StageArguments, label_names: list[str]) -> PreTrainedModel:
    return build_classifier(arguments, label_names, TinyMimForSemanticSegmentation)


def group_for_pretraining(model: nn.Module, arguments: StageArguments) -> list[dict]:
    return build_pretraining_parameter_groups(model, arguments.weight_decay)


def group_by_layer(model: nn.Module, arguments: StageArguments) -> list[dict]:
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
    ),
    "distill": Stage(
        task="image-feature-extraction",
        build_model=build_student,
        build_transform=image_views.build_pair_transform,
        build_collate=lambda arguments, label_names: image_views.collate_views,
        build_groups=group_for_pretraining,
        step=distillation_step,
        export=lambda model: model.tinymim,
    ),
    "finetune": Stage(
        task="image-classification",
        build_model=build_classifier,
        build_transform=image_classification.build_train_transform,
        build_collate=lambda arguments, label_names: image_mixing.build_collate(len(label_names), **arguments.mixing),
        build_groups=group_by_layer,
        step=finetuning_step,
        export=lambda model: model,
    ),
    "segment": Stage(
        task="semantic-segmentation",
        build_model=build_segmenter,
        build_transform=semantic_segmentation.build_train_transform,
        build_collate=lambda arguments, label_names: semantic_segmentation.collate,
        build_groups=group_by_layer,
        step=finetuning_step,
        export=lambda model: model,
        family="semantic-segmentation",
        decode_row=semantic_segmentation.decode_row,
    ),
}


def get_stage(name: str) -> Stage:
    if name not in STAGES:
        raise ValueError(f"`stage` must be one of {', '.join(STAGES)}; got {name!r}.")
    return STAGES[name]


def select_rows(arguments: StageArguments, rows: Any) -> Any:
    """The training rows of a run."""
    if arguments.num_labeled_per_class is not None:
        rows = image_mixing.select_balanced(rows, arguments.num_labeled_per_class, arguments.labeled_seed)
    if arguments.max_train_samples is not None:
        rows = rows.select(range(min(arguments.max_train_samples, len(rows))))
    return rows


def decode_rows(rows: Any, decode_row: Callable = image_classification.decode_row) -> InMemoryDataset:
    return InMemoryDataset(rows, decode_row, "Decoding images")


def build_dataset(arguments: StageArguments, images: Dataset, processor: TinyMimImageProcessor) -> SeededTransform:
    """Examples of a run from decoded images."""
    transform = get_stage(arguments.stage).build_transform(processor, **arguments.augmentation)
    return SeededTransform(images, transform, arguments.seed)


def measure(arguments: StageArguments, model: PreTrainedModel, processor: Any, splits: Any) -> Measurement:
    """Scores of what a stage hands on."""
    return evaluate_model(
        model,
        processor,
        splits[arguments.eval_split],
        get_stage(arguments.stage).task,
        batch_size=arguments.per_device_eval_batch_size,
        limit=arguments.max_eval_samples,
        label_names=get_label_names(arguments.dataset, splits["train"], arguments.label_names),
        train_dataset=splits["train"],
        facts={"num_fit_rows": arguments.num_fit_rows},
    )


def run_stage(
    arguments: StageArguments, splits: Any, train_dataset: Any = None
) -> tuple[TrainingResult, TinyMimImageProcessor]:
    """Train one stage; its result holds the model to save.

    Args:
        arguments (`StageArguments`): Of the run.
        splits: The dataset by split.
        train_dataset (*optional*): Examples to learn from instead of those that the
            arguments name.
    """
    stage = get_stage(arguments.stage)
    label_names = get_label_names(arguments.dataset, splits["train"], arguments.label_names)
    processor = TinyMimImageProcessor(**arguments.processor)
    if train_dataset is None:
        images = decode_rows(select_rows(arguments, splits["train"]), stage.decode_row)
        train_dataset = build_dataset(arguments, images, processor)
    model = stage.build_model(arguments, label_names)
    optimizer = torch.optim.AdamW(
        stage.build_groups(model, arguments), lr=arguments.learning_rate, betas=tuple(arguments.adam_betas), fused=True
    )
    update = Update(optimizer, stage.step, scheduler=arguments.build_scheduler)

    def evaluate(model: PreTrainedModel) -> dict[str, float]:
        return measure(arguments, stage.export(model), processor, splits).scores

    result = train(
        model,
        update,
        train_dataset,
        arguments,
        collate_fn=stage.build_collate(arguments, label_names),
        evaluate=evaluate if arguments.eval_epochs or arguments.eval_steps else None,
    )
    return dataclasses.replace(result, model=stage.export(result.model)), processor
