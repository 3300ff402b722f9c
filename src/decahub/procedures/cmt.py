"""CMT: train a detector of 3D boxes from cameras, LiDAR, or both.

from decahub.procedures import cmt

outcome = cmt.run(cmt.Arguments(dataset="driving_scenes", max_steps=100, output_dir="runs/cmt"))
print(outcome.measurement.scores)
"""

import logging
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any, ClassVar

import torch
from accelerate.utils import set_seed
from torch.utils.data import Subset
from tqdm.auto import tqdm

from decahub import (
    CmtConfig,
    CmtForObjectDetection3D,
    CmtImageProcessor,
    CmtPointCloudFeatureExtractor,
    CmtProcessor,
)
from decahub.data import InMemoryDataset
from decahub.data.frame_augmentation import AugmentedFrames, build_train_transform, compute_lidar2img
from decahub.data.ground_truth_sampling import ObjectSampler, build_database, read_target_counts
from decahub.data.object_detection_3d import build_eval_transform, collate, decode_row
from decahub.data.sampling import balance_classes
from decahub.models.cmt.head.focus import focus_attention
from decahub.models.cmt.optimization import build_parameter_groups
from decahub.models.shared.pixels import UNREADABLE
from decahub.options import check_options
from decahub.tasks import Measurement
from decahub.training import LoopArguments, Update, argument, train

from .data_arguments import DataArguments, Splits, load_splits, name_classes
from .outcome import Outcome, conclude, measure_rows
from .pretrained import check_source, load_pretrained


logger = logging.getLogger(__name__)

TASK = "object-detection-3d"
CHECK_SECONDS = 60.0  # for the frames of a split: nuScenes has thousands, of six large images each
GIVEN_TO_TRANSFORM = ("processor", "sampler")


@dataclass
class Arguments(DataArguments, LoopArguments):
    """Arguments of a run: of the loop, the data, and the model."""

    method: ClassVar[str] = "cmt"

    dataset: str = argument("driving_scenes", "Name of a dataset (`decahub list --datasets`), or your own folder.")
    pretrained: str | None = argument(None, "Model folder or Hub id to start from; by default random weights.")
    image_backbone: str | None = argument(None, "Model folder or Hub id with weights of the image backbone alone.")
    variant: str = argument("r50", "Published variant of CMT to start from random weights.")
    focus_attention: bool = argument(False, "Start with attention to what is near; for training from random weights.")
    config: dict = argument({}, "Fields of CmtConfig to change.")
    image_processor: dict = argument({}, "Attributes of CmtImageProcessor to change, such as size.")
    feature_extractor: dict = argument({}, "Attributes of CmtPointCloudFeatureExtractor to change.")
    augmentation: dict = argument({}, "Arguments of `build_train_transform` of `decahub.data.frame_augmentation`.")
    balance_classes: bool = argument(False, "Repeat rows so that classes are about equally frequent (CBGS).")
    gt_sampling: dict = argument({}, "Objects of each class that frames are filled up to with those of others.")
    gt_sampling_fade_epoch: int | None = argument(None, "First epoch, counted from 0, without such objects.")
    gt_sampling_max_objects: int | None = argument(None, "Most objects of a class that are kept for it in memory.")
    backbone_learning_rate_factor: float = argument(0.01, "Rate of the image backbone; 1 from random weights.")
    backbone_weight_decay_factor: float = argument(5.0, "Weight decay of the image backbone.")
    neck_learning_rate_factor: float = argument(0.1, "Rate of the image neck; 1 from random weights.")

    def __post_init__(self):
        super().__post_init__()
        check_options("config", self.config, CmtConfig)
        check_options("image_processor", self.image_processor, CmtImageProcessor)
        check_options("feature_extractor", self.feature_extractor, CmtPointCloudFeatureExtractor)
        check_options("augmentation", self.augmentation, build_train_transform, given=GIVEN_TO_TRANSFORM)
        if self.pretrained is not None and self.image_backbone is not None:
            raise ValueError("`image_backbone` must not come with `pretrained`, which has a backbone of its own.")
        if self.pretrained is not None and self.focus_attention:
            raise ValueError(
                "`focus_attention` must be false with `pretrained`, whose attention is learned; got true. Add "
                "`--focus_attention false`."
            )
        for name in ("gt_sampling_fade_epoch", "gt_sampling_max_objects"):
            value = getattr(self, name)
            if value is not None and not self.gt_sampling:
                raise ValueError(f"`{name}` must come with `gt_sampling`; got {value!r} without.")
            if value is not None and value < 0:
                raise ValueError(f"`{name}` must not be negative; got {value!r}.")


def build_model(arguments: Arguments, label_names: Sequence[str]) -> CmtForObjectDetection3D:
    """A model with random weights, or a pre-trained one, whose heads are replaced if it has other classes."""
    fields = {**name_classes(label_names), **arguments.config}
    if arguments.pretrained is not None:
        return load_pretrained(CmtForObjectDetection3D, arguments.pretrained, **fields)
    model = CmtForObjectDetection3D(CmtConfig.from_variant(arguments.variant, **fields))
    if arguments.focus_attention:
        focus_attention(model)
    if arguments.image_backbone is not None:
        check_source("image_backbone", arguments.image_backbone)
        model.model.load_image_backbone(arguments.image_backbone)
    return model


def build_processor(arguments: Arguments, config: CmtConfig) -> CmtProcessor:
    """The processor of a model."""
    image_processor = CmtImageProcessor(**arguments.image_processor)
    fitting = CmtProcessor.from_config(config, image_processor).feature_extractor.to_dict()
    fields = {name: fitting[name] for name in signature(CmtPointCloudFeatureExtractor).parameters if name in fitting}
    extractor = CmtPointCloudFeatureExtractor(**{**fields, **arguments.feature_extractor})
    return CmtProcessor.from_config(config, image_processor, extractor)


def build_train_dataset(
    arguments: Arguments, rows: Any, processor: CmtProcessor, label_names: Sequence[str]
) -> AugmentedFrames:
    """Rows, decoded once and kept in memory if there is room, as augmented training examples."""
    frames: Any = InMemoryDataset(rows, decode_row, "Decoding frames")
    sampler = build_sampler(arguments, frames, label_names)
    transform = build_train_transform(processor, sampler=sampler, **arguments.augmentation)
    if arguments.balance_classes:
        indices = balance_classes(rows["labels"][:], len(label_names), arguments.seed)
        frames = Subset(frames, indices.tolist())
    return AugmentedFrames(frames, transform, arguments.seed, arguments.gt_sampling_fade_epoch)


def build_sampler(arguments: Arguments, frames: Any, label_names: Sequence[str]) -> ObjectSampler | None:
    """What pastes objects of other frames; nothing without `gt_sampling`."""
    if not arguments.gt_sampling:
        return None
    counts = read_target_counts(arguments.gt_sampling, label_names)

    def iterate() -> Iterable[Mapping[str, Any]]:
        for index in range(len(frames)):
            frame = frames[index]
            yield {**frame, "lidar2img": compute_lidar2img(frame)}

    return ObjectSampler(build_database(iterate(), max_objects=arguments.gt_sampling_max_objects), counts)


def check_frames(splits: Splits, processor: CmtProcessor) -> None:
    """Prepare the frames that are measured, so that what cannot be used is found before training.

    A split that takes longer than `CHECK_SECONDS` is checked in part, in a random order.

    Raises:
        ValueError: If there is none, or one is damaged or does not fit the processor.
    """
    transform = build_eval_transform(processor)
    measured = {"the measured split": splits.evaluation, "the monitored split": splits.monitor}
    if splits.monitor is splits.evaluation:
        del measured["the monitored split"]
    for where, rows in measured.items():
        if len(rows) == 0:
            raise ValueError(f"{where} must have at least one frame; got none.")
        end = time.monotonic() + CHECK_SECONDS
        order = random.Random(0).sample(range(len(rows)), len(rows))
        for count, number in enumerate(tqdm(order, desc=f"Checking {where}", leave=False)):
            if time.monotonic() > end:
                logger.warning(f"Checked {count} of {len(rows)} frames of {where} in {CHECK_SECONDS:g} seconds.")
                break
            try:
                transform(rows[number])
            except UNREADABLE as error:
                raise ValueError(f"{where} must hold frames that can be used; row {number} cannot: {error}") from error


def compute_terms(model: Any, batch: Mapping[str, Any], **companions: Any) -> dict[str, torch.Tensor]:
    """The loss of a batch, and the terms of the last layer for the log."""
    outputs = model(**batch)
    terms = {name: value.detach() for name, value in outputs.loss_dict.items() if "." not in name}
    return {"loss": outputs.loss, **terms}


def build_update(arguments: Arguments, model: CmtForObjectDetection3D) -> Update:
    """AdamW over the parameter groups of the recipe, and its schedule."""
    groups = build_parameter_groups(
        model,
        arguments.learning_rate,
        arguments.weight_decay,
        arguments.backbone_learning_rate_factor,
        arguments.backbone_weight_decay_factor,
        arguments.neck_learning_rate_factor,
    )
    optimizer = torch.optim.AdamW(groups, lr=arguments.learning_rate)
    return Update(optimizer, compute_terms, scheduler=arguments.build_scheduler)


def measure(
    arguments: Arguments,
    model: CmtForObjectDetection3D,
    processor: CmtProcessor,
    rows: Any,
    label_names: Sequence[str],
) -> Measurement:
    """Scores of a model on some rows."""
    return measure_rows(arguments, model, processor, rows, TASK, label_names=label_names)


def run(arguments: Arguments, splits: Splits | None = None) -> Outcome:
    """Train CMT and measure it.

    Args:
        arguments ([`Arguments`]): Of the run.
        splits ([`Splits`], *optional*): Your own datasets; by default those that the arguments name.
    """
    set_seed(arguments.seed)
    splits = load_splits(arguments, TASK) if splits is None else splits
    model = build_model(arguments, splits.label_names)
    processor = build_processor(arguments, model.config)
    check_frames(splits, processor)
    train_dataset = build_train_dataset(arguments, splits.train, processor, splits.label_names)

    def measure_on(rows: Any, model: Any) -> Measurement:
        return measure(arguments, model, processor, rows, splits.label_names)

    result = train(
        model,
        build_update(arguments, model),
        train_dataset,
        arguments,
        collate_fn=collate,
        evaluate=lambda model: measure_on(splits.monitor, model).scores,
    )
    return conclude(arguments, result, processor, lambda: measure_on(splits.evaluation, result.model), TASK)
