"""RefT: train on base classes, then learn novel classes from K shots of each (FSIS, gFSIS, iFSIS).

from decahub.procedures import reft

outcome = reft.run(reft.Arguments(dataset="refshapes", max_steps=100, output_dir="runs/reft"))
print(outcome.measurement.scores)
"""

import copy
import dataclasses
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import datasets
import torch
from accelerate.utils import set_seed
from PIL import ExifTags, Image
from transformers import pipeline

from decahub import RefTConfig, RefTForFewShotInstanceSegmentation, RefTImageProcessor, RefTProcessor
from decahub.data import DATASETS, InMemoryDataset, SeededTransform, few_shot_instance_segmentation, load_dataset
from decahub.data.few_shot_splits import FewShotSplit, read_few_shot_split, sample_few_shot_split
from decahub.data.image_files import check_images
from decahub.models.reft.optimization import (
    build_parameter_groups,
    freeze_for_setting,
    reset_class_rows,
    training_step,
)
from decahub.options import check_options
from decahub.tasks import Measurement
from decahub.training import LoopArguments, TrainingResult, Update, argument, train

from .data_arguments import DataArguments, Splits, load_splits, name_classes
from .outcome import Outcome, conclude, measure_rows
from .pretrained import check_source, load_pretrained


TASK = "few-shot-instance-segmentation"
BASE, FSIS, GENERALIZED, INCREMENTAL = "base", "fsis", "gfsis", "ifsis"
# The stage whose frozen parts an option means.
FROZEN_AS: dict[str, Any] = {"nothing": BASE, "backbone": FSIS, "incremental": INCREMENTAL}
SHOTS_SPLIT = "shots"  # of datasets that hold the rows for shots apart
COCO_CHECKPOINT = "facebook/mask2former-swin-tiny-coco-instance"
STEPS_PER_SHOT, MIN_STEPS = 50, 200
FROM_DATA = ("base_label_ids", "novel_label_ids", "id2label", "label2id", "num_labels")  # fields of the configuration
NUM_CENTER_ROWS = 512  # images that the centers of base classes are fitted on
TRANSPOSED = 5  # least EXIF orientation that swaps width and height
OVERLAY, NUM_SHOWN, SHOWN_SIZE = "segmented.png", 6, 256


@dataclass
class Arguments(DataArguments, LoopArguments):
    """Arguments of a run: of the loop, the data, the shots, and the model."""

    method: ClassVar[str] = "reft"

    dataset: str = argument("refshapes", "Name of a dataset (`decahub list --datasets`), or your own COCO folder.")
    stage: Literal["base", "fsis", "gfsis", "ifsis"] = argument(
        BASE,
        "base: base classes; then K shots of novel (fsis), of all (gfsis), or of novel without base data (ifsis).",
    )
    pretrained: str | None = argument(None, "Model folder or Hub id to go on from; the base model of later stages.")
    init: str | None = argument(None, "Mask2Former to begin base training with: folder, Hub id, or coco (leaks).")
    allow_leak: bool = argument(False, "Allow weights that have seen the novel classes.")
    novel_classes: list[str] = argument([], "Names of the novel classes; by default those of the catalog.")
    drop_novel_images: bool = argument(False, "Leave images with novel instances out of base training.")
    num_shots: int = argument(5, "K, instances of each class to learn from; in base training, to measure with.")
    shot_seed: int = argument(0, "Which draw of the shots.")
    few_shot_split: str | None = argument(None, "JSON file of K-shot splits; by default they are drawn from the data.")
    use_support: bool = argument(True, "Show support to the model; without, it is Mask2Former.")
    episode_classes: int = argument(20, "Support classes of a training step.")
    episode_shots: int = argument(1, "Support instances of each class in a training step.")
    distill: bool = argument(True, "ifsis: distill the base classes from the base model.")
    freeze: Literal["auto", "nothing", "backbone", "incremental"] = argument(
        "auto", "What is not trained; auto: the backbone after base training, for ifsis all but what learns classes."
    )
    backbone_factor: float = argument(0.1, "Learning rate of the backbone in units of `learning_rate`.")
    projection_factor: float = argument(1.0, "That of the input projections of the pixel decoder.")
    config: dict = argument({}, "Fields of RefTConfig to change.")
    processor: dict = argument({}, "Attributes of RefTImageProcessor to change.")
    augmentation: dict = argument({}, "Arguments of `build_train_transform` of the data module.")

    def __post_init__(self):
        super().__post_init__()
        for name in ("num_shots", "episode_classes", "episode_shots"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1; got {getattr(self, name)}.")
        if self.stage != BASE and self.pretrained is None:
            raise ValueError(f"`pretrained` must be the base model for the stage {self.stage!r}; got None.")
        if self.init is not None and (self.pretrained is not None or self.stage != BASE):
            raise ValueError("`init` must come alone and in base training; go on from a model with `pretrained`.")
        if self.init is not None and "coco" in self.init.lower() and not self.allow_leak:
            raise ValueError(
                f"`init` must not have seen the novel classes; {self.init!r} was trained on all classes of COCO. Set "
                "`allow_leak` if you do not compare with few-shot results."
            )
        check_options("config", self.config, RefTConfig)
        derived = [name for name in FROM_DATA if name in self.config]
        if derived:
            raise ValueError(f"`config` must not hold {derived[0]!r}, which the data give.")
        check_options("processor", self.processor, RefTImageProcessor)
        transform = few_shot_instance_segmentation.build_train_transform
        check_options("augmentation", self.augmentation, transform, given=["processor", "keep_labels", "keep_ids"])


@dataclass(frozen=True)
class FewShotSplits(Splits):
    """The rows of a run, those that shots are drawn from, and which classes are novel."""

    shots: Any = None  # by default the training rows
    novel_classes: Sequence[str] = ()

    def __post_init__(self):
        super().__post_init__()
        if self.shots is None:
            object.__setattr__(self, "shots", self.fit)
        unknown = [name for name in self.novel_classes if name not in self.label_names]
        if unknown:
            raise ValueError(f"`novel_classes` must be classes of the data; {unknown[0]!r} is none.")
        if self.novel_classes and len(self.novel_classes) == len(self.label_names):
            raise ValueError("`novel_classes` must leave a base class; got all classes.")

    @cached_property
    def novel_ids(self) -> list[int]:
        """Label ids of the novel classes."""
        return [label for label, name in enumerate(self.label_names) if name in self.novel_classes]

    @cached_property
    def base_ids(self) -> list[int]:
        """Label ids of the other classes."""
        return [label for label, name in enumerate(self.label_names) if name not in self.novel_classes]


def load_data(arguments: Arguments) -> FewShotSplits:
    """The rows of a run, and the classes that are novel in it."""
    splits = load_splits(arguments, TASK)
    loaded = load_dataset(arguments.dataset, arguments.data_dir, family=TASK)
    catalog = DATASETS[arguments.dataset].novel_labels if arguments.dataset in DATASETS else ()
    novel = arguments.novel_classes or list(catalog)
    if arguments.stage != BASE and not novel:
        raise ValueError(f"`novel_classes` must name the novel classes of {arguments.dataset!r}; got none.")
    parts = {item.name: getattr(splits, item.name) for item in dataclasses.fields(Splits)}
    return FewShotSplits(**parts, shots=loaded.get(SHOTS_SPLIT), novel_classes=novel)


def find_shots(arguments: Arguments, splits: FewShotSplits) -> dict[str, list[int]]:
    """Ids of the annotations that a run learns from, or base training is measured with, by class."""
    names = list(splits.label_names)
    if arguments.stage != GENERALIZED:
        labels = splits.base_ids if arguments.stage == BASE else splits.novel_ids
        names = [names[label] for label in labels]
    split = load_few_shot_split(arguments, splits)
    if arguments.stage == BASE:  # classes with too few instances are measured without support
        filled = split.select(arguments.shot_seed, arguments.num_shots)
        return {name: filled[name] for name in names if name in filled}
    return split.select(arguments.shot_seed, arguments.num_shots, names)


def load_few_shot_split(arguments: Arguments, splits: FewShotSplits) -> FewShotSplit:
    """The split file of a run, or a draw from its rows."""
    if arguments.few_shot_split is not None:
        return read_few_shot_split(arguments.few_shot_split, splits.shots)
    shots = sorted({1, 2, 3, 5, 10, 30, arguments.num_shots})
    return sample_few_shot_split(splits.shots, shots, [arguments.shot_seed], novel_classes=splits.novel_classes)


def build_processor(arguments: Arguments) -> RefTProcessor:
    """The processor of the run: that of the model it goes on from, or a new one; support crops as configured."""
    shared = {"support_size", "support_context"} & arguments.config.keys()
    options = {**{name: arguments.config[name] for name in shared}, **arguments.processor}
    if arguments.pretrained is None:
        return RefTProcessor(RefTImageProcessor(**options))
    check_source("pretrained", arguments.pretrained)
    return RefTProcessor(RefTImageProcessor.from_pretrained(arguments.pretrained, **options))


def check_data(arguments: Arguments, splits: FewShotSplits, processor: RefTProcessor) -> None:
    """Reads the images that are measured or learned from as shots, so that a damaged one is found before training.

    Raises:
        ValueError: If an image is damaged or of another size than its annotations, or there are too few instances.
    """
    used = {
        id(rows): (rows, where)
        for rows, where in (
            (splits.shots, "the rows of shots"),
            (splits.monitor, "the monitored split"),
            (splits.evaluation, "the measured split"),
        )
        if rows is not None
    }
    for rows, where in used.values():
        check_images(rows, "image", where)
        check_sizes(rows, where)
    find_shots(arguments, splits)
    if arguments.stage != BASE and splits.evaluation is not None:
        counts = few_shot_instance_segmentation.count_instances(splits.evaluation)
        if not counts[splits.novel_ids].any():
            raise ValueError(
                "`novel_classes` must have an instance in the measured split, for nAP; got none of "
                f"{', '.join(splits.novel_classes)}. Choose another split with `eval_split`."
            )


def check_sizes(rows: Any, where: str) -> None:
    """Compares the sizes of images, by the headers of their files, with those of their annotations.

    Raises:
        ValueError: If two differ.
    """
    for row in rows.select_columns(["image", "annotations"]).cast_column("image", datasets.Image(decode=False)):
        content = row["image"]["bytes"]
        with Image.open(row["image"]["path"] if content is None else io.BytesIO(content)) as image:
            is_turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= TRANSPOSED
            size = (image.width, image.height) if is_turned else (image.height, image.width)
        for annotation in row["annotations"]:
            given = json.loads(annotation["segmentation"])["size"]
            if tuple(given) != size:
                raise ValueError(
                    f"`segmentation` of annotation {annotation['id']} of {where} must have the size of its image, "
                    f"{size}; got {tuple(given)}."
                )


@dataclass(frozen=True)
class TrainData:
    """Training rows: decoded, and as random examples."""

    rows: Any
    dataset: SeededTransform
    keep_labels: list[int] | None = None
    keep_ids: set[int] | None = None


def build_train_data(arguments: Arguments, splits: FewShotSplits, processor: RefTProcessor) -> TrainData:
    """Base training: all rows, without novel instances. Later: the rows of the shots, with the shots alone."""
    keep_labels, keep_ids = None, None
    if arguments.stage == BASE:
        dropped = splits.novel_ids if arguments.drop_novel_images else []
        rows = few_shot_instance_segmentation.select_rows(splits.train, drop_labels=dropped)
        keep_labels = splits.base_ids
    else:
        keep_ids = {shot for shots in find_shots(arguments, splits).values() for shot in shots}
        rows = few_shot_instance_segmentation.select_rows(splits.shots, keep_ids=keep_ids)
    decoded: Any = InMemoryDataset(rows, few_shot_instance_segmentation.decode_row, "Decoding images")
    transform = few_shot_instance_segmentation.build_train_transform(
        processor, **arguments.augmentation, keep_labels=keep_labels, keep_ids=keep_ids
    )
    return TrainData(decoded, SeededTransform(decoded, transform, arguments.seed), keep_labels, keep_ids)


def build_collate(arguments: Arguments, data: TrainData, processor: RefTProcessor, classifier: str) -> Callable:
    """The function that makes a batch, and draws its support."""
    if not arguments.use_support:
        return few_shot_instance_segmentation.collate_training
    pool = few_shot_instance_segmentation.ShotPool(data.rows, processor, data.keep_labels, data.keep_ids)
    return few_shot_instance_segmentation.EpisodeCollator(
        pool, arguments.episode_classes, arguments.episode_shots, counts_classes=classifier == "prototype"
    )


def build_model(arguments: Arguments, splits: FewShotSplits, processor: RefTProcessor) -> Any:
    """A new model, one from Mask2Former, or a trained one; for later stages with its novel classes begun.

    For `ifsis` with `distill` the base model becomes its teacher. The backbone is in `channels_last` memory, in which
    a CPU trains it a twentieth faster.
    """
    model = _build_model(arguments, splits, processor)
    model.model.pixel_level_module.encoder.to(memory_format=torch.channels_last)
    return model


def _build_model(arguments: Arguments, splits: FewShotSplits, processor: RefTProcessor) -> Any:
    fields = {**name_classes(splits.label_names), "base_label_ids": splits.base_ids, **arguments.config}
    if not arguments.use_support:
        fields |= {"feature_fusion": "none", "query_enhancement_targets": []}
    if arguments.init is not None:
        source = COCO_CHECKPOINT if arguments.init == "coco" else arguments.init
        check_source("init", source)
        return RefTForFewShotInstanceSegmentation.from_mask2former(source, ignore_mismatched_sizes=True, **fields)
    if arguments.pretrained is None:
        return RefTForFewShotInstanceSegmentation(RefTConfig(**fields))
    if arguments.stage != BASE:  # a few shots are no statistics for batch norms
        fields = {"freeze_batch_norm": True, **fields, "novel_label_ids": splits.novel_ids}
    if arguments.stage != BASE and not arguments.allow_leak:
        check_novelty(arguments, splits)
    model = load_pretrained(RefTForFewShotInstanceSegmentation, arguments.pretrained, **fields)
    if arguments.stage != BASE:
        begin_novel_classes(arguments, model, splits, processor)
    return model


def check_novelty(arguments: Arguments, splits: FewShotSplits) -> None:
    """Refuses novel classes that the model `pretrained` has learned as base classes."""
    config: Any = RefTConfig.from_pretrained(str(arguments.pretrained))
    known = [config.id2label[label] for label in config.base_label_ids or []]
    learned = [name for name in splits.novel_classes if name in known]
    if learned:
        raise ValueError(
            f"`novel_classes` must be new to the model {arguments.pretrained!r}; it has learned {learned[0]!r} as a "
            "base class. Set `allow_leak` if you do not compare with few-shot results."
        )


def begin_novel_classes(arguments: Arguments, model: Any, splits: FewShotSplits, processor: RefTProcessor) -> None:
    """Gives the novel classes rows in the head, and an incremental model its teacher."""
    base_memory = model.support_memory
    if arguments.stage == INCREMENTAL and arguments.distill and model.config.classifier != "prototype":
        model.attach_teacher(copy.deepcopy(model), base_memory)
    if model.config.classifier == "linear":
        reset_class_rows(model, splits.novel_ids)
    elif model.config.classifier == "cosine":
        shots = find_shots(arguments, splits)
        novel = {name: ids for name, ids in shots.items() if name in splits.novel_classes}
        images = few_shot_instance_segmentation.collect_shots(splits.shots, novel)
        model.register_support(images, processor=processor, imprint=True)


def build_update(arguments: Arguments, model: Any) -> Update:
    """AdamW over what is not frozen, and its schedule."""
    freeze_for_setting(model, FROZEN_AS.get(arguments.freeze, arguments.stage))
    groups = build_parameter_groups(
        model,
        arguments.learning_rate,
        arguments.weight_decay,
        arguments.backbone_factor,
        arguments.projection_factor,
    )
    optimizer = torch.optim.AdamW(groups, lr=arguments.learning_rate)
    return Update(optimizer, training_step, scheduler=arguments.build_scheduler)


def set_length(arguments: Arguments, splits: FewShotSplits) -> Arguments:
    """The arguments with `max_steps`: after base training 50 passes over the novel shots, and at least 200 steps."""
    if arguments.stage == BASE or arguments.max_steps is not None:
        return arguments
    batch_size = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps
    steps = round(STEPS_PER_SHOT * len(splits.novel_ids) * arguments.num_shots / batch_size)
    return dataclasses.replace(arguments, max_steps=max(MIN_STEPS, steps))


def register_shots(
    arguments: Arguments, model: Any, splits: FewShotSplits, processor: RefTProcessor, base_memory: Any = None
) -> None:
    """Sets the memory that a model is measured and saved with: its shots as its weights see them now.

    Where base data is gone (`ifsis`), the base classes are remembered as the base model saw them.
    """
    if not arguments.use_support:
        return
    shots = find_shots(arguments, splits)
    if not shots:
        raise ValueError(
            f"`num_shots` must be a number of instances that a class has; no class has {arguments.num_shots}."
        )
    images = few_shot_instance_segmentation.collect_shots(splits.shots, shots)
    memory = model.register_support(images, processor=processor)
    if arguments.stage == INCREMENTAL and base_memory is not None:
        memory = base_memory.merge(memory)
    model.support_memory = memory


def measure(
    arguments: Arguments,
    model: Any,
    processor: RefTProcessor,
    rows: Any,
    splits: FewShotSplits,
    base_memory: Any = None,
) -> Measurement:
    """Scores of a model on some rows, with the shots of the run as support."""
    register_shots(arguments, model, splits, processor, base_memory)
    return measure_rows(arguments, model, processor, rows, TASK, label_names=splits.label_names)


def measure_result(arguments: Arguments, model: Any, processor: RefTProcessor, splits: FewShotSplits) -> Measurement:
    """Scores of a trained model on the split of the card, with the memory that it has."""
    return measure_rows(arguments, model, processor, splits.evaluation, TASK, label_names=splits.label_names)


def fit_centers(arguments: Arguments, model: Any, data: TrainData) -> None:
    """Fits the centers of the base classes, which distillation needs when base data is gone."""
    if arguments.stage != BASE or model.config.classifier == "prototype":
        return
    count = min(NUM_CENTER_ROWS, len(data.dataset))
    size = arguments.per_device_eval_batch_size
    batches = (
        few_shot_instance_segmentation.collate(
            [data.dataset[index] for index in range(start, min(start + size, count))]
        )
        for start in range(0, count, size)
    )
    model.fit_base_class_centers(batches)


def train_model(arguments: Arguments, splits: FewShotSplits, processor: RefTProcessor, model: Any) -> TrainingResult:
    """Train one stage; the result has the memory and the centers that are saved with it."""
    data = build_train_data(arguments, splits, processor)
    base_memory = model.support_memory

    def evaluate(model: Any) -> dict[str, float]:
        return measure(arguments, model, processor, splits.monitor, splits, base_memory).scores

    result = train(
        model,
        build_update(arguments, model),
        data.dataset,
        arguments,
        collate_fn=build_collate(arguments, data, processor, model.config.classifier),
        evaluate=evaluate if arguments.eval_epochs or arguments.eval_steps else None,
    )
    fit_centers(arguments, result.model, data)
    register_shots(arguments, result.model, splits, processor, base_memory)
    return result


def measure_without_training(
    arguments: Arguments, splits: FewShotSplits, processor: RefTProcessor, *, is_shuffled: bool = False
) -> Measurement:
    """Scores of the model `pretrained` with the shots of the run as support, and no training on them.

    Args:
        arguments ([`Arguments`]): Of a run after base training.
        splits ([`FewShotSplits`]): Of the run.
        processor ([`RefTProcessor`]): Of the run.
        is_shuffled (`bool`): Whether each class gets the shots of the next one, as a control.
    """
    fields = {**name_classes(splits.label_names), "novel_label_ids": splits.novel_ids}
    model = load_pretrained(RefTForFewShotInstanceSegmentation, str(arguments.pretrained), **fields)
    images = few_shot_instance_segmentation.collect_shots(splits.shots, find_shots(arguments, splits))
    names = list(images)
    sources = [*names[1:], names[0]] if is_shuffled else names
    support = {name: images[source] for name, source in zip(names, sources, strict=True)}
    model.support_memory = model.register_support(support, processor=processor)
    return measure_rows(arguments, model, processor, splits.evaluation, TASK, label_names=splits.label_names)


def draw_examples(arguments: Arguments, model: Any, processor: RefTProcessor, rows: Any) -> list[Path]:
    """A row of images, in `output_dir`, with what the model finds in them."""
    segment = pipeline(TASK, model=model, processor=processor)  # type: ignore[call-overload]
    shown = []
    for index in range(min(NUM_SHOWN, len(rows))):
        image = rows[index]["image"].convert("RGB")
        overlay = segment.draw_overlay(image, segment(image))
        shown.append(overlay.resize((SHOWN_SIZE, SHOWN_SIZE), Image.Resampling.LANCZOS))
    row = Image.new("RGB", (SHOWN_SIZE * len(shown), SHOWN_SIZE))
    for place, overlay in enumerate(shown):
        row.paste(overlay, (place * SHOWN_SIZE, 0))
    path, content = Path(arguments.output_dir) / OVERLAY, io.BytesIO()
    row.save(content, format="PNG")
    path.write_bytes(content.getvalue())
    return [path]


def run(arguments: Arguments, splits: FewShotSplits | None = None) -> Outcome:
    """Train one stage of RefT and measure it.

    Args:
        arguments ([`Arguments`]): Of the run.
        splits ([`FewShotSplits`], *optional*): Your own datasets; by default those that the arguments name.
    """
    set_seed(arguments.seed)
    splits = load_data(arguments) if splits is None else splits
    arguments = set_length(arguments, splits)
    processor = build_processor(arguments)
    check_data(arguments, splits, processor)
    result = train_model(arguments, splits, processor, build_model(arguments, splits, processor))
    images = draw_examples(arguments, result.model, processor, splits.evaluation) if result.is_main_process else []

    measure_now = partial(measure_result, arguments, result.model, processor, splits)
    return conclude(arguments, result, processor, measure_now, TASK, images=images)


__all__ = ["Arguments", "FewShotSplits", "load_data", "run"]
