"""PMT-IQA: train a model of image quality on images with scores.

from decahub.procedures import pmt_iqa

outcome = pmt_iqa.run(pmt_iqa.Arguments(dataset="iqa_syn", max_steps=100, output_dir="runs/pmt_iqa"))
print(outcome.measurement.scores)
"""

import dataclasses
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import set_seed
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset, default_collate
from tqdm.auto import tqdm

from decahub import PmtIqaConfig, PmtIqaForImageQualityAssessment, PmtIqaImageProcessor, load_dataset, load_metric
from decahub.data import InMemoryDataset, SeededTransform, image_quality
from decahub.data.quality_splits import (
    SPLITS_FILE,
    find_shared_references,
    get_rows_to_split,
    load_splits_file,
    restore_splits,
    save_splits,
    split_by_reference,
)
from decahub.data.sampling import sample_rows
from decahub.models.pmt_iqa.backbone_weights import load_backbone_weights
from decahub.models.pmt_iqa.optimization import OfficialSchedule, build_official_optimizer, build_parameter_groups
from decahub.models.pmt_iqa.weighting import compute_task_weights
from decahub.options import check_options
from decahub.tasks import Measurement, MeasurementContext, Report, get_task
from decahub.tasks.task import evaluating
from decahub.training import LoopArguments, Update, argument, train

from .data_arguments import DataArguments, Splits, check_splits
from .outcome import Outcome, conclude, measure_rows
from .pretrained import load_pretrained


logger = logging.getLogger(__name__)
TASK, FAMILY = "image-quality-assessment", "image-quality"
TRAIN, VALIDATION, TEST = "train", "validation", "test"
MIN_CALIBRATION_ROWS = 20  # four parameters fit fewer images all too well
LEAST_DISTINCT = 0.9  # of the scores before calibration, on `DIGITS` digits of the range of scores
DIGITS = 5
LEAST_SHARE = 0.05  # of the range of a configuration that labels must fill; less is another scale


@dataclass
class Arguments(DataArguments, LoopArguments):
    """Arguments of a run: of the loop, the data, and the model."""

    MAY_CHANGE: ClassVar[tuple[str, ...]] = ("backbone_weights",)
    method: ClassVar[str] = "pmt_iqa"

    dataset: str = argument("iqa_syn", "Name of a dataset (`decahub list --datasets`), or your own folder.")
    test_share: float = argument(0.2, "Share of the references to test on, where the dataset has no split.")
    validation_share: float = argument(0.0, "Share of the training references to validate on (split validation).")
    split_seed: int = argument(0, "Seed of these splits.")
    splits_file: str | None = argument(None, "File of an earlier run that says which reference is in which split.")
    pretrained: str | None = argument(None, "Model folder or Hub id to start from; by default random weights.")
    variant: str = argument("tiny", "Variant of PMT-IQA to start from random weights.")
    backbone_weights: str | None = argument(
        None, "Weights for the backbone: a .safetensors file, or a Hub id of timm or transformers."
    )
    config: dict = argument({}, "Fields of PmtIqaConfig to change, above all those of the labels.")
    processor: dict = argument({}, "Attributes of PmtIqaImageProcessor to change.")
    augmentation: dict = argument({}, "Arguments of `image_quality.build_train_transform`: num_crops, flip_prob.")
    optimizer: Literal["adamw", "official"] = argument(
        "adamw", "AdamW and the schedule of the run, or what the authors do: Adam anew in each epoch, rate in steps."
    )
    backbone_rate_factor: float = argument(1.0, "Learning rate of the backbone relative to that of the heads.")
    frozen_crops: int = argument(
        0,
        "Keep the backbone as it is, and train on its features of this many random crops of each image; 0: train all.",
    )
    calibrate: bool = argument(True, "Fit a curve from scores to labels on the validation split, if there is one.")

    def __post_init__(self):
        super().__post_init__()
        if self.label_names:
            raise ValueError(f"`label_names` must be empty, since scores have no classes; got {self.label_names}.")
        for name, lowest in (("test_share", 0.0), ("validation_share", -1e-9)):
            if not lowest < getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be in {'(' if lowest == 0 else '['}0, 1); got {getattr(self, name)}.")
        if self.backbone_rate_factor <= 0:
            raise ValueError(f"`backbone_rate_factor` must be positive; got {self.backbone_rate_factor}.")
        if self.optimizer == "official" and self.backbone_rate_factor != 1:
            raise ValueError("`backbone_rate_factor` must be 1 for the official optimizer, which has one group.")
        if self.optimizer == "official":
            names = ("lr_scheduler_type", "lr_scheduler_options", "warmup_steps", "warmup_ratio")
            self.refuse_unused(*names, why="for the official optimizer, which has its own schedule")
        if self.frozen_crops < 0:
            raise ValueError(f"`frozen_crops` must not be negative; got {self.frozen_crops}.")
        if self.frozen_crops and self.backbone_rate_factor != 1:
            raise ValueError(
                f"`backbone_rate_factor` must be left out with `frozen_crops`; got {self.backbone_rate_factor}. The "
                "backbone does not learn."
            )
        if self.pretrained is not None and self.backbone_weights is not None:
            raise ValueError("`pretrained` and `backbone_weights` must not both be given; got both.")
        check_options("config", self.config, PmtIqaConfig)
        check_options("processor", self.processor, PmtIqaImageProcessor)
        check_options("augmentation", self.augmentation, image_quality.build_train_transform, given=["processor"])


@dataclass(frozen=True)
class QualitySplits(Splits):
    """The rows of a run, and the record of how they were split; without one the dataset came with its splits."""

    record: Mapping[str, Any] | None = None


def load_splits(arguments: Arguments) -> QualitySplits:
    """Load the dataset of a run; make splits with disjoint references where it has none.

    Raises:
        ValueError: If a split is missing.
    """
    loaded = load_dataset(arguments.dataset, arguments.data_dir, family=FAMILY)
    record = None
    if arguments.splits_file is not None:
        record = load_splits_file(arguments.splits_file)
        loaded = restore_splits(loaded, record)
    elif TRAIN not in loaded:
        rows = get_rows_to_split(loaded)
        kept = 1 - arguments.test_share
        shares = {TRAIN: kept * (1 - arguments.validation_share), VALIDATION: kept * arguments.validation_share}
        shares = {name: share for name, share in shares.items() if share > 0} | {TEST: arguments.test_share}
        loaded, record = split_by_reference(rows, shares, arguments.split_seed)
    elif arguments.validation_share:
        if VALIDATION in loaded:
            raise ValueError("`validation_share` must be 0 where the dataset has a split validation; got more.")
        shares = {TRAIN: 1 - arguments.validation_share, VALIDATION: arguments.validation_share}
        parts, record = split_by_reference(loaded[TRAIN], shares, arguments.split_seed)
        loaded = {**loaded, **parts}
    for name, split in (
        ("`eval_split`", arguments.eval_split),
        ("`monitor_split`", arguments.monitor_split or TRAIN),
    ):
        if split not in loaded:
            raise ValueError(f"{name} must be one of {', '.join(loaded)}; got {split!r}.")
    shared = find_shared_references(loaded[TRAIN], loaded[arguments.eval_split])
    if shared and arguments.eval_split != TRAIN:
        logger.warning(
            "%d references are in the splits %s and %s, the first is %r: scores on %s will be too good.",
            len(shared), TRAIN, arguments.eval_split, shared[0], arguments.eval_split,
        )  # fmt: skip
    return QualitySplits(
        train=sample_rows(image_quality.drop_unscored(loaded[TRAIN]), arguments.max_train_samples, arguments.seed),
        evaluation=loaded[arguments.eval_split],
        monitor=loaded[arguments.monitor_split or (VALIDATION if VALIDATION in loaded else arguments.eval_split)],
        record=record,
    )


def build_processor(arguments: Arguments) -> PmtIqaImageProcessor:
    """The image processor of the run, which cuts crops of the size that the model takes."""
    size = arguments.config.get("crop_size")
    given = {} if size is None else {"crop_size": {"height": size, "width": size}}
    return PmtIqaImageProcessor(**{**given, **arguments.processor})


def build_train_dataset(arguments: Arguments, rows: Any, processor: PmtIqaImageProcessor) -> SeededTransform:
    """Rows, decoded once and kept in memory, as random crops."""
    transform = image_quality.build_train_transform(processor, **arguments.augmentation)
    images: Any = InMemoryDataset(rows, image_quality.decode_row, "Decoding images")
    return SeededTransform(images, transform, arguments.seed)


class PooledMaps(Dataset):
    """What a frozen backbone makes of the crops of the first epochs, computed once.

    Epoch `t` has the crops of epoch `t % num_epochs`, so a resumed run sees those that it would have seen.

    Args:
        crops ([`SeededTransform`]): Gives the crops of each image and epoch, and their labels.
        model ([`PmtIqaForImageQualityAssessment`]): Whose backbone stays as it is.
        num_epochs (`int`): Epochs whose crops are kept.
        batch_size (`int`): Images that are computed at once.
    """

    def __init__(
        self, crops: SeededTransform, model: PmtIqaForImageQualityAssessment, num_epochs: int, batch_size: int
    ):
        self.crops, self.fingerprint_source = crops, crops.fingerprint_source
        base, self.maps, self.labels = model.pmt_iqa, [], torch.zeros(0)
        with evaluating(model), torch.no_grad():
            for epoch in tqdm(range(num_epochs), desc="Features of crops", leave=False):
                crops.set_epoch(epoch)
                maps, labels = [], []
                for batch in DataLoader(crops, batch_size, collate_fn=image_quality.collate):
                    pixels = batch["pixel_values"].to(model.device)
                    pooled = base.compute_pooled_maps(pixels.flatten(0, 1))
                    maps.append(pooled.unflatten(0, pixels.shape[:2]).cpu())
                    labels.append(batch["labels"])
                self.maps.append(torch.cat(maps))
                self.labels = torch.cat(labels)
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        self.crops.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.crops)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        maps = self.maps[self.crops.epoch % len(self.maps)]
        return {"pooled_maps": maps[index], "labels": self.labels[index]}


def build_model(arguments: Arguments) -> PmtIqaForImageQualityAssessment:
    """A model with random weights, with those of a pre-trained backbone, or a pre-trained one.

    It is in `channels_last` memory, in which convolutions of a CPU train a quarter faster.
    """
    return _build_model(arguments).to(memory_format=torch.channels_last)


def _build_model(arguments: Arguments) -> Any:
    if arguments.pretrained is not None:
        return load_pretrained(PmtIqaForImageQualityAssessment, arguments.pretrained, **arguments.config)
    model = PmtIqaForImageQualityAssessment(PmtIqaConfig.from_variant(arguments.variant, **arguments.config))
    if arguments.backbone_weights is not None:
        unused = load_backbone_weights(model.pmt_iqa.backbone, read_weights(arguments.backbone_weights))
        logger.info("%d tensors of %s have no place in the backbone.", len(unused), arguments.backbone_weights)
    return model


def read_weights(source: str) -> dict[str, torch.Tensor]:
    """Tensors of a .safetensors file, or of that of a repository on the Hub."""
    if Path(source).is_file():
        try:
            return load_file(source)
        except SafetensorError as error:
            raise ValueError(
                f"`backbone_weights` must be a complete .safetensors file; {source!r} is none ({error})."
            ) from error
    if source.count("/") != 1 or Path(source).suffix == ".safetensors":
        raise FileNotFoundError(
            f"`backbone_weights` must be a .safetensors file or a Hub id; {source!r} does not exist."
        )
    from huggingface_hub import hf_hub_download

    return load_file(hf_hub_download(source, "model.safetensors"))


def check_crop_size(config: PmtIqaConfig, processor: PmtIqaImageProcessor) -> None:
    """Refuse a processor that cuts crops of another size than the model takes."""
    given = processor.crop_size["height"]
    if config.strict_crop_size and given != config.crop_size:
        raise ValueError(
            f"`processor` must cut crops of the `crop_size` of the model, {config.crop_size}; got {given}. Set one of "
            "`--config` and `--processor` only."
        )


def check_score_range(config: PmtIqaConfig, rows: Any) -> None:
    """Refuse labels on another scale than the configuration has.

    Raises:
        ValueError: If a label lies outside of it, or labels fill less than a twentieth of it.
    """
    lowest, highest = image_quality.get_score_range(rows)
    low, high = config.score_low, config.score_high
    if lowest < low or highest > high or highest - lowest < LEAST_SHARE * (high - low):
        raise ValueError(
            f"`config` must have a `score_low` and `score_high` that are the scale of the labels, which go from "
            f"{lowest:g} to {highest:g}; got {low:g} and {high:g}. For example: "
            f"`--config.score_low {lowest:g} --config.score_high {highest:g}`."
        )


class ScheduledStep:
    """The step of the run: sets the task weights of the epoch, then calls the model.

    Weights are a function of the number of the epoch, so a resumed run has those of the epoch that it is in.
    """

    def __init__(self, config: PmtIqaConfig, num_epochs: int):
        self.config = config
        self.num_epochs = num_epochs
        self.weights = (float(config.w_reg), float(config.w_cls))

    def set_epoch(self, epoch: int) -> None:
        self.weights = compute_task_weights(self.config, min(epoch, self.num_epochs - 1), self.num_epochs)

    def __call__(self, model: Any, batch: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        getattr(model, "module", model).task_weights = self.weights
        outputs = model(**batch)
        return {name: outputs[name] for name in ("loss", "loss_reg", "loss_cls")}


def count_steps(arguments: Arguments, num_rows: int) -> tuple[int, int]:
    """Optimizer steps of an epoch, and number of epochs of the run."""
    rows_per_step = (
        arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps * PartialState().num_processes
    )
    steps = num_rows / rows_per_step
    steps_per_epoch = max(1, math.floor(steps) if arguments.dataloader_drop_last else math.ceil(steps))
    if arguments.max_steps is not None:
        return steps_per_epoch, math.ceil(arguments.max_steps / steps_per_epoch)
    return steps_per_epoch, math.ceil(arguments.num_train_epochs)


def build_update(arguments: Arguments, model: PmtIqaForImageQualityAssessment, num_rows: int) -> Update:
    """Optimizer, schedule and step of the run."""
    steps_per_epoch, num_epochs = count_steps(arguments, num_rows)
    step = ScheduledStep(model.config, num_epochs)
    if arguments.optimizer == "official":
        optimizer: Optimizer = build_official_optimizer(model, arguments.learning_rate, arguments.weight_decay)
        return Update(optimizer, step, lambda optimizer, _: OfficialSchedule(optimizer, steps_per_epoch))
    groups = build_parameter_groups(
        model, arguments.learning_rate, arguments.weight_decay, arguments.backbone_rate_factor
    )
    return Update(torch.optim.AdamW(groups), step, arguments.build_scheduler)


def measure(
    arguments: Arguments, model: PmtIqaForImageQualityAssessment, processor: PmtIqaImageProcessor, rows: Any
) -> Measurement:
    """Scores of a model on some rows."""
    return measure_rows(arguments, model, processor, rows, TASK)


def predict(arguments: Arguments, model: Any, processor: PmtIqaImageProcessor, rows: Any) -> Any:
    """The metric `image_quality`, filled with the predictions of a model for some rows."""
    metric = load_metric("image_quality")
    for columns in compute_columns(arguments, model, processor, rows):
        metric.add_batch(**columns)
    return metric


def compute_columns(arguments: Any, model: Any, processor: PmtIqaImageProcessor, rows: Any) -> list[dict[str, Any]]:
    """Scores and levels of a model for each batch of rows, beside their labels."""
    context = MeasurementContext(batch_size=arguments.per_device_eval_batch_size)
    with evaluating(model):
        return list(get_task(TASK).iterate_predictions(model, processor, rows, context))


def fit_calibration(
    arguments: Arguments, model: Any, processor: PmtIqaImageProcessor, rows: Any
) -> list[float] | None:
    """Parameters of the curve from scores to labels, fitted on rows that are not the test's.

    There are none where too few images are left to validate on, or the fit finds no curve that keeps their order.
    """
    rows = image_quality.drop_unscored(rows)
    if len(rows) < MIN_CALIBRATION_ROWS:
        logger.warning(
            "The scores are not calibrated: it takes %d images to validate on, got %d.",
            MIN_CALIBRATION_ROWS,
            len(rows),
        )
        return None
    model.config.calibration = None
    columns = compute_columns(arguments, model, processor, rows)
    scores, labels = (np.concatenate([part[name] for part in columns]) for name in ("predictions", "references"))
    params = load_metric("image_quality").compute(predictions=scores, references=labels)["fit_params"]
    if params is None or not keeps_order(model, scores, params):
        logger.warning("The scores are not calibrated: no curve to the labels keeps the order of images.")
        return None
    return params


def keeps_order(model: PmtIqaForImageQualityAssessment, scores: np.ndarray, params: Sequence[float]) -> bool:
    """Whether a curve of calibration rises, and does not give most images its lowest or highest value.

    With noisy labels, or a model that has learned little, least squares often finds a step or a falling curve.
    """
    config = model.config
    config.calibration = list(params)
    calibrated = model.calibrate(torch.as_tensor(scores)).numpy()
    config.calibration = None
    places = np.round(calibrated / (config.score_high - config.score_low), DIGITS)
    highest, lowest = params[:2]
    return highest > lowest and len(np.unique(places)) >= LEAST_DISTINCT * len(np.unique(scores))


def measure_intervals(
    arguments: Any, model: PmtIqaForImageQualityAssessment, processor: PmtIqaImageProcessor, rows: Any
) -> dict[str, list[float]]:
    """Bootstrap intervals of the correlations, over `arguments.num_bootstrap` resamples of the images."""
    scores = predict(arguments, model, processor, rows).compute(num_bootstrap=arguments.num_bootstrap)
    return {name: value for name, value in scores.items() if name.endswith("_interval")}


def build_splits_report(record: Mapping[str, Any]) -> Report:
    """The table of the card on how images were split."""
    rows = [
        (name, len(part["references"]), part["num_images"], ", ".join(part["references"][:5]))
        for name, part in record["splits"].items()
    ]
    return Report(
        "Splits",
        ["split", "references", "images", "first references"],
        rows,
        f"No reference is in two splits (seed {record['seed']}). All of them are in {SPLITS_FILE}.",
    )


def run(arguments: Arguments, splits: QualitySplits | None = None) -> Outcome:
    """Train PMT-IQA and measure it.

    Args:
        arguments ([`Arguments`]): Of the run.
        splits ([`QualitySplits`], *optional*): Your own datasets; by default those that the arguments name.
    """
    set_seed(arguments.seed)
    splits = load_splits(arguments) if splits is None else splits
    processor = build_processor(arguments)
    model = build_model(arguments)
    check_crop_size(model.config, processor)
    check_score_range(model.config, splits.train)
    check_splits(arguments, splits, processor, FAMILY)
    train_dataset: Any = build_train_dataset(arguments, splits.train, processor)
    if arguments.frozen_crops:
        train_dataset = PooledMaps(train_dataset, model, arguments.frozen_crops, arguments.per_device_eval_batch_size)
        if arguments.pretrained is None and arguments.backbone_weights is None:
            logger.warning(
                "`frozen_crops` keeps a backbone of random weights. Give `backbone_weights` or `pretrained`."
            )
    model.pmt_iqa.backbone.requires_grad_(not arguments.frozen_crops)

    def measure_on(rows: Any, model: Any) -> Measurement:
        return measure(arguments, model, processor, rows)

    is_monitored = arguments.eval_epochs or arguments.eval_steps
    result = train(
        model,
        build_update(arguments, model, len(train_dataset)),
        train_dataset,
        arguments,
        collate_fn=default_collate if arguments.frozen_crops else image_quality.collate,
        evaluate=(lambda model: measure_on(splits.monitor, model).scores) if is_monitored else None,
    )
    result.model.requires_grad_(True)
    if arguments.calibrate and splits.monitor is not splits.evaluation and result.is_main_process:
        result.model.config.calibration = fit_calibration(arguments, result.model, processor, splits.monitor)
    reports = {}
    if splits.record is not None and result.is_main_process:
        reports = {"reports": [save_splits(splits.record, Path(arguments.output_dir) / SPLITS_FILE)]}

    def measure_result() -> Measurement:
        measurement = measure_on(splits.evaluation, result.model)
        report = None if splits.record is None else build_splits_report(splits.record)
        return dataclasses.replace(measurement, report=report)

    return conclude(arguments, result, processor, measure_result, TASK, **reports)
