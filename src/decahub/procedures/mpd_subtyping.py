"""MPD subtyping: from a table of patients and controls to subtypes, and a report on whether they are real.

from decahub.procedures import mpd_subtyping

outcome = mpd_subtyping.fit(table, feature_names=["thickness_*"], output_dir="runs/subtypes")
print(outcome.validity["verdict"])
"""

import dataclasses
import json
import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from accelerate.utils import set_seed
from filelock import FileLock, Timeout

from decahub import MpdSubtypingConfig, MpdSubtypingFeatureExtractor, MpdSubtypingModel, load_dataset
from decahub.data.cohorts import check_leakage, read_csv, to_columns
from decahub.evaluation.subtype_report import draw_profiles, write_report
from decahub.metrics.subtype_validity.external import KINDS
from decahub.metrics.subtype_validity.subtype_validity import read_options
from decahub.models.mpd_subtyping.cohort_table import read_columns
from decahub.models.mpd_subtyping.fitting_mpd_subtyping import (
    PATIENTS_PER_CLUSTER,
    REFITS,
    FitReport,
    prepare_members,
)
from decahub.models.mpd_subtyping.optimization import MemberRecord, build_parameter_groups, split_validation
from decahub.options import check_options
from decahub.tasks import Measurement, get_task
from decahub.tasks.measurement import MeasurementContext
from decahub.tasks.patient_subtyping import build_check_report
from decahub.training import LoopArguments, TrainingResult, Update, argument, train
from decahub.training.checkpoint import PROGRESS_FILE, CheckpointError
from decahub.training.fingerprint import find_differences, fingerprint_data, fingerprint_recipe
from decahub.training.loop import LOCK_FILE, LOCK_SECONDS
from decahub.training.train_log import TrainLog
from decahub.training.updates import call_model

from .data_arguments import TRAIN, DataArguments
from .outcome import Outcome


logger = logging.getLogger(__name__)
TASK, FAMILY = "patient-subtyping", "cohorts"
IMPROVEMENTS = "num_improvements"
TABLE = "table"  # stands for the dataset of a table that was given in Python
GIVEN = ("features", "labels", "model", "clinical", "nuisance", "kinds", "diagnosis", "site", "fit_report", "transfer",
         "num_controls", "training")  # fmt: skip
VALIDITY = ("checks", "quick", "repetitions", "covariance")  # options of the metric that can be checked without data
ROOM = "decahub.models.mpd_subtyping"
PROFILE_PLOT = "subtype_profiles.png"
RUN_FILE = "run.json"  # recipe and data of a run without checkpoints
LEAST_CONTROLS = 10  # of the sites of some patients, to compare these with them alone


@dataclass
class Arguments(DataArguments, LoopArguments):
    """Arguments of a run: of the loop, the table, the members, and the report."""

    method: ClassVar[str] = "mpd_subtyping"
    MAY_CHANGE: ClassVar[tuple[str, ...]] = ("validity", "clinical", "nuisance", "kinds")

    dataset: str = argument("mpd_synthetic", "Name of a dataset, a CSV file, or a folder of CSV files.")
    train_split: str = argument("train", "Split to fit on; a single CSV file has no other.")
    monitor_split: str | None = argument("train", "Members are monitored on a part of the training patients.")
    feature_extractor: dict = argument({}, "Arguments of MpdSubtypingFeatureExtractor; `feature_names` above all.")
    variant: str = argument("paper", "Variant of the ensemble: paper, small or linear.")
    config: dict = argument({}, "Fields of MpdSubtypingConfig to change.")
    validation_share: float = argument(0.1, "Share of the training patients on which each member's epoch is chosen.")
    validity: dict = argument({}, "Arguments of the metric subtype_validity: quick, checks, refit, repetitions.")
    clinical: list[str] = argument([], "Columns in which subtypes may differ.")
    nuisance: list[str] = argument([], "Columns that must not make subtypes, such as site and motion.")
    kinds: dict = argument({}, "Kind of such a column: continuous, ordinal or categorical.")

    # The loop, as the method has it
    num_train_epochs: float = argument(100.0, "Epochs at most.")
    per_device_train_batch_size: int = argument(64, "Patients of a step.")
    dataloader_drop_last: bool = argument(False, "Leave out patients that do not fill a step.")
    weight_decay: float = argument(1e-4, "Weight decay of AdamW.")
    lr_scheduler_type: str = argument("constant", "Learning-rate schedule.")
    eval_epochs: int | None = argument(1, "Epochs between looks at the validation patients.")
    metric_for_best_model: str | None = argument(IMPROVEMENTS, "Members keep their own best epochs.")
    early_stopping_patience: int | None = argument(10, "Epochs without improvement after which a member is done.")

    def __post_init__(self):
        super().__post_init__()
        for name in ("label_names", "max_train_samples", "max_eval_samples"):
            if getattr(self, name):
                raise ValueError(
                    f"`{name}` must be unset: a cohort is fitted as a whole; got {getattr(self, name)!r}."
                )
        if not 0 < self.validation_share < 1:
            raise ValueError(f"`validation_share` must lie in (0, 1); got {self.validation_share}.")
        if self.metric_for_best_model != IMPROVEMENTS or self.eval_epochs != 1:
            raise ValueError(
                f"`metric_for_best_model` must be {IMPROVEMENTS!r} and `eval_epochs` 1, since each member keeps the "
                f"weights of its own best epoch; got {self.metric_for_best_model!r} and {self.eval_epochs}."
            )
        if self.early_stopping_patience is None:
            raise ValueError("`early_stopping_patience` must be set; a large one lets members train to the end.")
        check_options("config", self.config, MpdSubtypingConfig, given=["num_features", "feature_names"])
        check_options("feature_extractor", self.feature_extractor, MpdSubtypingFeatureExtractor, given=["fitted"])
        metric = get_task(TASK).build_metric()
        check_options("validity", self.validity, type(metric).measure, given=["self", *GIVEN])
        read_options(**{name: value for name, value in self.validity.items() if name in VALIDITY})
        if self.validity.get("refit") not in (None, *REFITS):
            raise ValueError(f"`refit` must be one of {', '.join(REFITS)}; got {self.validity['refit']!r}.")
        for key, value in self.kinds.items():
            if key not in (*self.clinical, *self.nuisance) or value not in KINDS:
                raise ValueError(
                    "`kinds` must have columns of `clinical` or `nuisance` as keys, and continuous, ordinal or "
                    f"categorical as values; got {key!r}: {value!r}."
                )


@dataclass(frozen=True)
class SubtypingOutcome(Outcome):
    """Result of a run, with what was found in the training patients.

    Args:
        fit ([`FitReport`]): Subtypes of the training patients and how members agree.
        validity (`dict`): What `subtype_validity` returned for them.
        report (`Path`): The HTML page; beside it are the same numbers as JSON.
    """

    fit: FitReport | None = None
    validity: Mapping[str, Any] = field(default_factory=dict)
    report: Path | None = None


@dataclass(frozen=True)
class Cohort:
    """Columns of the people to fit on, and of others to measure on."""

    train: Mapping[str, np.ndarray]
    test: Any = None  # rows of a dataset


def fit(
    table: Any,
    *,
    feature_names: Sequence[str],
    test_table: Any = None,
    output_dir: str = "runs/mpd_subtyping",
    **options: Any,
) -> SubtypingOutcome:
    """Fit subtypes to a table that you have in Python, and write the report.

    Started again with the same arguments, a killed fit goes on where it stopped and ends with the same bits.

    Args:
        table: A pandas table, a dataset, a mapping of columns or a list of rows, with patients and controls.
        feature_names (`Sequence[str]`): Columns of features; patterns such as `"thickness_*"` are expanded.
        test_table (*optional*): Further people, of whom none may be in `table`.
        output_dir (`str`): Where checkpoints, log, and report go.
        options: Further fields of [`Arguments`], such as `config`, `feature_extractor`, `nuisance`, `validity`.
    """
    extractor = {**options.pop("feature_extractor", {}), "feature_names": list(feature_names)}
    arguments = Arguments(dataset=TABLE, feature_extractor=extractor, output_dir=output_dir, **options)
    test = None
    if test_table is not None:
        from datasets import Dataset

        test = Dataset.from_dict({name: values.tolist() for name, values in read_columns(test_table).items()})
    return run(arguments, Cohort(read_columns(table), test))


def load_cohort(arguments: Arguments) -> Cohort:
    """The tables that the arguments name: a CSV file, or splits of a dataset.

    Raises:
        FileNotFoundError: If there is no such file or dataset.
        ValueError: If a split is missing; that of `eval_split` may be, by its default name.
    """
    splits: Mapping[str, Any] = {TRAIN: None}
    is_file = Path(arguments.dataset).is_file()
    if not is_file:
        splits = load_dataset(arguments.dataset, arguments.data_dir, family=FAMILY)
    for name, is_needed in (("train_split", True), ("eval_split", arguments.eval_split != Arguments.eval_split)):
        if is_needed and getattr(arguments, name) not in splits:
            raise ValueError(f"`{name}` must be one of {', '.join(splits)}; got {getattr(arguments, name)!r}.")
    test = splits.get(arguments.eval_split) if arguments.eval_split != arguments.train_split else None
    if test is None:
        logger.warning(
            "%r has no split %r beside that of the fit: nothing is measured.", arguments.dataset, arguments.eval_split
        )
    if is_file:
        return Cohort(read_csv(arguments.dataset, arguments.feature_extractor.get("id_column")))
    return Cohort(to_columns(splits[arguments.train_split]), test)


def build_feature_extractor(arguments: Arguments, columns: Mapping[str, np.ndarray]) -> MpdSubtypingFeatureExtractor:
    """The extractor of the run, fitted on controls of the table."""
    return MpdSubtypingFeatureExtractor(**arguments.feature_extractor).fit(columns)


def build_model(arguments: Arguments, feature_extractor: MpdSubtypingFeatureExtractor) -> MpdSubtypingModel:
    """New members for the selected features; sizes that are too large for them are left out."""
    names = feature_extractor.selected_names
    fields = {"seed": arguments.seed, **arguments.config, "num_features": len(names), "feature_names": names}
    if "latent_dims" not in fields:
        width = fields.get("pre_pca_components") or len(names)
        wanted = MpdSubtypingConfig.from_variant(arguments.variant).latent_dims
        fields["latent_dims"] = [size for size in wanted if size < width]
        if len(fields["latent_dims"]) < len(wanted):
            logger.warning("Embeddings of %d sizes are left out: there are %d features.",
                           len(wanted) - len(fields["latent_dims"]), width)  # fmt: skip
    return MpdSubtypingModel(MpdSubtypingConfig.from_variant(arguments.variant, **fields))


def count_steps(arguments: Arguments, num_rows: int) -> int:
    """Optimizer steps of an epoch."""
    steps = num_rows / (arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps)
    return max(1, math.floor(steps) if arguments.dataloader_drop_last else math.ceil(steps))


def list_training(arguments: Arguments, num_patients: int) -> dict[str, Any]:
    """The run's own training as arguments of `MpdSubtypingModel.fit`, for members that resampling trains anew."""
    num_rows = len(split_validation(num_patients, arguments.validation_share, arguments.seed)[0])
    epochs = arguments.num_train_epochs
    if arguments.max_steps is not None:
        epochs = arguments.max_steps / count_steps(arguments, num_rows)
    return {
        "num_epochs": math.ceil(epochs),
        "batch_size": arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps,
        "learning_rate": arguments.learning_rate,
        "weight_decay": arguments.weight_decay,
        "validation_share": arguments.validation_share,
        "patience": int(arguments.early_stopping_patience or 1),
    }


def train_members(arguments: Arguments, model: MpdSubtypingModel, features: torch.Tensor) -> TrainingResult:
    """Train all members in the one loop; each ends with the weights of its own best epoch."""
    if not prepare_members(model, features):
        return _skip_training(arguments, model, features)
    check_same_run(arguments, features, [Path(arguments.output_dir, RUN_FILE)])
    train_rows, validation_rows = split_validation(len(features), arguments.validation_share, arguments.seed)
    rows = [{"features": row} for row in features[torch.from_numpy(train_rows)]]
    patience = int(arguments.early_stopping_patience or 0)
    validation = features[torch.from_numpy(validation_rows)]
    record = MemberRecord(model, validation, count_steps(arguments, len(rows)), patience)

    def take_step(model: Any, batch: Mapping[str, Any], record: MemberRecord) -> Mapping[str, torch.Tensor]:
        return call_model(model, batch)

    groups = build_parameter_groups(model, arguments.weight_decay)
    update = Update(
        torch.optim.AdamW(groups, lr=arguments.learning_rate),
        take_step,
        arguments.build_scheduler,
        after=lambda model, batch, record: record.update(model),
    )
    result = train(
        model,
        update,
        rows,
        arguments,
        companions={"record": record},
        evaluate=lambda model: {
            IMPROVEMENTS: float(record.num_improvements),
            "validation_error": float(record.best_error.mean()),
        },
    )
    record.restore(result.model)
    return result


def check_same_run(arguments: Arguments, features: torch.Tensor, paths: Sequence[Path]) -> dict[str, Any]:
    """What identifies a run: its recipe and its data; refuses files of another run.

    Raises:
        CheckpointError: If one of `paths` exists and has something else.
    """
    run: dict[str, Any] = {"recipe": fingerprint_recipe(arguments), "data": fingerprint_data(features)}
    for path in paths:
        saved = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else run
        differences = find_differences(saved["recipe"], run["recipe"])
        if saved["data"] != run["data"]:
            differences["table"] = (f"data {saved['data']}", f"data {run['data']}")
        for name, (old, new) in differences.items():
            raise CheckpointError(
                f"`{name}` must be {old!r} as in {path}; got {new!r}. Start with the run's own arguments and data, or "
                "in another `output_dir`."
            )
    return run


def _skip_training(arguments: Arguments, model: MpdSubtypingModel, features: torch.Tensor) -> TrainingResult:
    """Principal components are computed, not trained; a file says of which run they are in place of checkpoints."""
    folder = Path(arguments.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    log, partial = TrainLog(folder), folder / f".{RUN_FILE}.partial"
    try:
        with FileLock(folder / LOCK_FILE, timeout=LOCK_SECONDS):
            others = sorted(folder.glob(f"checkpoint-*/{PROGRESS_FILE}"))
            run = check_same_run(arguments, features, [folder / RUN_FILE, *others])
            partial.write_text(json.dumps(run), encoding="utf-8")
            partial.replace(folder / RUN_FILE)
    except Timeout:
        raise CheckpointError(
            f"`output_dir` must be the folder of one run at a time; another process trains in {folder}. Wait until it "
            "has finished, or choose another `output_dir`."
        ) from None
    if not log.path.exists():
        log.append({"step": 0, "epoch": 0, "note": "linear members are principal components: nothing was trained"})
    return TrainingResult(
        model=model.eval(), step=0, epoch=0.0, metrics={}, minutes=0.0, skipped_updates=0, checkpoint=Path(),
        train_log=log.path, is_main_process=True,
    )  # fmt: skip


class Transfer:
    """A fit of the whole procedure on some patients, and its answers for others: covariates and selection included.

    Controls of sites that have no training patient take no part in the fit, as long as ten others are left; such sites
    are compared with the mean site. Members are principal components, which cost nothing to fit again.

    Args:
        columns (`Mapping`): The table.
        extractor_options (`Mapping`): Arguments of the feature extractor.
        num_subtypes (`int`): Number of subtypes.
    """

    def __init__(self, columns: Mapping[str, np.ndarray], extractor_options: Mapping[str, Any], num_subtypes: int):
        self.columns, self.num_subtypes = columns, num_subtypes
        self.options = {**extractor_options, "unseen_site": "pooled"}
        probe = MpdSubtypingFeatureExtractor(**self.options)
        groups = np.array([str(value) for value in columns[probe.group_column]])
        self.patients, self.controls = (np.flatnonzero(mask) for mask in (groups != probe.control_label,
                                                                          groups == probe.control_label))  # fmt: skip
        site = columns.get(probe.site_column or "")
        self.site = None if site is None else np.asarray(site)

    def __call__(self, train_rows: np.ndarray, test_rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Subtypes that a fit on the first rows of patients gives to the others, and those of a fit on these."""
        extractor, model = self._fit(train_rows)
        own_extractor, own_model = self._fit(test_rows)
        table = self._take(self.patients[test_rows])
        with silence(ROOM):
            return _assign(extractor, model, table), _assign(own_extractor, own_model, table)

    def _fit(self, rows: np.ndarray) -> tuple[MpdSubtypingFeatureExtractor, MpdSubtypingModel]:
        with silence(ROOM):  # what it warns of was said of the fit on all
            return self._fit_aloud(rows)

    def _fit_aloud(self, rows: np.ndarray) -> tuple[MpdSubtypingFeatureExtractor, MpdSubtypingModel]:
        patients, controls = self.patients[rows], self.controls
        if self.site is not None:
            known = np.isin(self.site[controls], np.unique(self.site[patients]))
            if known.sum() >= LEAST_CONTROLS:
                controls = controls[known]
        table = self._take(np.concatenate([patients, controls]))
        extractor = MpdSubtypingFeatureExtractor(**self.options).fit(table)
        features = extractor(self._take(patients))["features"]
        sizes = [size for size in MpdSubtypingConfig().latent_dims if size < features.shape[1]]
        most = max(2, len(features) // PATIENTS_PER_CLUSTER)  # clusters that a small site allows
        config = MpdSubtypingConfig()
        model = MpdSubtypingModel(
            MpdSubtypingConfig.from_variant(
                "linear",
                num_features=features.shape[1],
                latent_dims=sizes,
                num_subtypes=self.num_subtypes,
                base_num_clusters=min(config.base_num_clusters, most),
                num_fine_clusters=max(self.num_subtypes, min(config.num_fine_clusters, most)),
            )
        )
        model.fit(features)
        return extractor, model

    def _take(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        return {name: np.asarray(values)[rows] for name, values in self.columns.items()}


@contextmanager
def silence(name: str) -> Iterator[None]:
    """Run a block without the warnings of a part of decahub."""
    room = logging.getLogger(name)
    level = room.level
    room.setLevel(logging.ERROR)
    try:
        yield
    finally:
        room.setLevel(level)


def _assign(extractor: MpdSubtypingFeatureExtractor, model: MpdSubtypingModel, table: Any) -> np.ndarray:
    with torch.no_grad():
        return model(extractor(table)["features"]).subtypes.numpy()


def check_validity(
    arguments: Arguments,
    model: MpdSubtypingModel,
    feature_extractor: MpdSubtypingFeatureExtractor,
    columns: Mapping[str, np.ndarray],
    features: np.ndarray,
    fit_report: FitReport,
) -> dict[str, Any]:
    """All checks of the subtypes of the training patients."""
    group = np.array([str(value) for value in columns[feature_extractor.group_column]])
    is_patient = group != feature_extractor.control_label
    chosen = {name: _choose(columns, getattr(arguments, name), is_patient, name) for name in ("clinical", "nuisance")}
    site = columns.get(feature_extractor.site_column or "")
    metric = get_task(TASK).build_metric()
    transfer = Transfer(columns, arguments.feature_extractor, int(model.config.num_subtypes))
    return metric.measure(
        features=features,
        labels=fit_report.subtypes,
        model=model,
        kinds=arguments.kinds,
        diagnosis=group[is_patient],
        site=None if site is None else np.asarray(site)[is_patient].astype(str),
        fit_report=vars(fit_report),
        transfer=transfer,
        num_controls=int((~is_patient).sum()),
        training=list_training(arguments, len(features)),
        **{"seed": arguments.seed, **arguments.validity, **chosen},
    )


def _choose(
    columns: Mapping[str, np.ndarray], names: Sequence[str], rows: np.ndarray, argument_name: str
) -> dict[str, np.ndarray]:
    for name in names:
        if name not in columns:
            raise ValueError(f"`{argument_name}` must name columns of the table; got {name!r}.")
    return {name: np.asarray(columns[name])[rows] for name in names}


def measure(arguments: Arguments, model: Any, feature_extractor: Any, rows: Any) -> Measurement:
    """Scores of the model on people it has not seen."""
    context = MeasurementContext(batch_size=arguments.per_device_eval_batch_size)
    return get_task(TASK).measure(model, feature_extractor, rows, context)


def check_test(cohort: Cohort, feature_extractor: MpdSubtypingFeatureExtractor) -> None:
    """Refuse people whom the model could not be measured on, before it is trained.

    Raises:
        ValueError: If the table does not fit that of the fit, or someone is in both.
    """
    task: Any = get_task(TASK)
    try:
        task.read_patients(feature_extractor, cohort.test)
    except ValueError as error:
        raise ValueError(f"the test table cannot be measured: {error}") from error
    check_leakage(cohort.train, to_columns(cohort.test), feature_extractor.selected_names)


def run(arguments: Arguments, cohort: Cohort | None = None) -> SubtypingOutcome:
    """Fit subtypes to a cohort, check them, and write the report.

    Args:
        arguments ([`Arguments`]): Of the run.
        cohort ([`Cohort`], *optional*): Your own tables; by default those that the arguments name.
    """
    set_seed(arguments.seed)
    cohort = load_cohort(arguments) if cohort is None else cohort
    feature_extractor = build_feature_extractor(arguments, cohort.train)
    batch = feature_extractor(cohort.train)
    features = batch["features"][batch["is_patient"]]
    for name in ("clinical", "nuisance"):
        _choose(cohort.train, getattr(arguments, name), batch["is_patient"].numpy(), name)
    if cohort.test is not None:
        check_test(cohort, feature_extractor)
    model = build_model(arguments, feature_extractor)
    result = train_members(arguments, model, features)
    fitted: Any = result.model
    fit_report = fitted.fit_clusters(features)
    started = time.monotonic()
    validity = check_validity(
        arguments, fitted, feature_extractor, cohort.train, features.double().numpy(), fit_report
    )
    folder = Path(arguments.output_dir)
    page = write_report(folder, result.model, validity, vars(fit_report), feature_extractor.fitted)
    images = [draw_profiles(result.model, folder / PROFILE_PLOT)]
    find = partial(measure, arguments, result.model, feature_extractor)
    measurement = None if cohort.test is None else find(cohort.test)
    if measurement is not None:
        measurement = dataclasses.replace(measurement, report=build_check_report(validity))
    return SubtypingOutcome(
        result=result,
        processor=feature_extractor,
        measurement=measurement,
        task=TASK,
        dataset=arguments.dataset,
        split=arguments.eval_split,
        minutes=(time.monotonic() - started) / 60,
        images=images,
        fit=fit_report,
        validity=validity,
        report=page,
    )
