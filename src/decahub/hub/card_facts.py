"""What a model card is made of: texts that a person writes, and facts from a folder and from decahub's tables."""

import dataclasses
import math
import re
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from huggingface_hub.utils import validate_repo_id

from decahub.data.catalog import DATASETS, DatasetEntry
from decahub.environment import redact
from decahub.evaluation.record import check_keys, is_number
from decahub.options import argument
from decahub.registry import METHODS, Method, ModelEntry
from decahub.tasks import Report, Task, find_task, get_task

from .files import CONFIG, SPLITS, TRAIN_LOG, TRAINING_MINUTES
from .flattening import get_class_reference, get_reference


CARD_PREFIX = "card_"
REQUIRED_TEXTS = ("card_title", "card_summary", "card_intended_use", "card_limits")
MAX_CHARACTERS = 20_000
LICENSE = re.compile(r"[\w.+-]+")
# What a recipe says of its own dataset, and not of another one that a user names on the command line. A license stays:
# it may be that of the weights which training starts from.
OF_ITS_DATASET = (*REQUIRED_TEXTS, "card_checkpoint", "card_repo_id", "images", "splits_file")

SPLIT_KEYS = ("metric", "rows", "mean", "spread", "command")
SPLIT_ROW_KEYS = ("split", "value")
ROUNDING = 5e-5  # a mean may be written with four digits


@dataclass(kw_only=True)
class CardArguments:
    """Texts of the model card that a person writes: the part of a recipe that no program can fill in.

    A script's arguments derive from it, `class Arguments(CardArguments, LoopArguments)`, so that an unusable text and
    a missing license are refused before the run. Texts may be written later, into the `recipe.yaml` of the model
    folder; `decahub publish` needs them.

    Raises:
        ValueError: If a text is empty, the repository id is malformed, or the dataset is not in the catalog and no
            license is given.
    """

    MAY_CHANGE: ClassVar[tuple[str, ...]] = (  # when a run is resumed
        *REQUIRED_TEXTS, "card_checkpoint", "card_repo_id", "card_base_model", "card_license"
    )  # fmt: skip

    card_title: str | None = argument(None, "Name of the model, as its repository is called: 'emo-1m-cifar10'.")
    card_summary: str | None = argument(None, "What the model is and does, in one or two sentences.")
    card_intended_use: str | None = argument(None, "What the model is meant for.")
    card_limits: str | None = argument(None, "What it is not good for, and where it is known to fail.")
    card_checkpoint: str | None = argument(None, "How the weights were chosen; by default read off the recipe.")
    card_repo_id: str | None = argument(None, "Repository, '<owner>/<name>'; `decahub publish` fills it in.")
    card_base_model: str | None = argument(None, "Repository of the weights that training started from.")
    card_license: str | None = argument(None, "License of the weights; by default that of the dataset in the catalog.")

    def __post_init__(self):
        for item in dataclasses.fields(CardArguments):
            text = getattr(self, item.name)
            if text is not None and (not isinstance(text, str) or not text.strip() or len(text) > MAX_CHARACTERS):
                limit = f"a text of at most {MAX_CHARACTERS:,} characters"
                raise ValueError(f"`{item.name}` must be {limit}; got {text!r:.200}. Write it into the recipe.")
        if self.card_repo_id is not None:
            validate_repo_id(self.card_repo_id)
        if self.card_license is not None and not LICENSE.fullmatch(self.card_license):
            raise ValueError(
                f"`card_license` must be an identifier such as apache-2.0 or other; got {self.card_license!r:.200}."
            )
        dataset = getattr(self, "dataset", None)  # of the script's own arguments
        if isinstance(dataset, str):
            choose_license(self.card_license, dataset)
        getattr(super(), "__post_init__", lambda: None)()

    @classmethod
    def adapt_recipe(cls, recipe: dict[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
        """A recipe for the dataset that the command line names: without the texts and images of its own."""
        default = getattr(cls, "dataset", None)
        own = str(recipe.get("dataset", default))
        chosen = str(options.get("dataset", own))
        if chosen == own or (Path(own).exists() and Path(chosen).exists() and Path(chosen).samefile(own)):
            return recipe
        return {key: value for key, value in recipe.items() if key not in OF_ITS_DATASET}

    @classmethod
    def from_recipe(cls, recipe: Mapping[str, Any]) -> "CardArguments":
        """The `card_*` keys of a recipe."""
        given = {key: value for key, value in recipe.items() if key.startswith(CARD_PREFIX)}
        known = [item.name for item in dataclasses.fields(CardArguments)]
        unknown = [key for key in given if key not in known]
        if unknown:
            raise ValueError(f"`card_*` keys of a recipe must be among {', '.join(known)}; got {', '.join(unknown)}.")
        return CardArguments(**given)

    @property
    def missing_texts(self) -> list[str]:
        """Names of the texts that a published card needs and this one lacks."""
        return [name for name in REQUIRED_TEXTS if getattr(self, name) is None]


def choose_license(license: str | None, dataset: str) -> str:
    """The given license of the weights, or the one that the catalog states for the dataset."""
    if license is not None:
        return license
    if dataset not in DATASETS:
        raise ValueError(
            f"`card_license` must be given for a dataset that is not in the catalog; got none for "
            f"{redact(dataset)!r:.200}. Add `--card_license` with the license of the weights, such as apache-2.0 or "
            "other, or write it into the recipe."
        )
    return DATASETS[dataset].license


@dataclass(frozen=True)
class FolderFacts:
    """All that a card says, gathered from one folder and decahub's tables."""

    config: dict[str, Any]
    recipe: dict[str, Any]
    evaluation: dict[str, Any]
    train_log: list[dict[str, Any]]
    images: list[str]
    reports: list[Report]

    def __post_init__(self):
        check_config(self.config)
        self.card, self.training  # noqa: B018  (refuse what is unusable)

    @property
    def method(self) -> Method:
        """The method of the model."""
        return find_method(self.config)[0]

    @property
    def entry(self) -> ModelEntry:
        """Its row in the table of models."""
        return find_method(self.config)[1]

    @property
    def card(self) -> CardArguments:
        """The texts of the recipe."""
        return CardArguments.from_recipe(self.recipe)

    @property
    def architecture(self) -> str:
        """Name of the class that the weights belong to."""
        return self.config["architectures"][0]

    @property
    def class_reference(self) -> str:
        """That class as remote code names it."""
        return get_class_reference(self.architecture)

    refer_to = staticmethod(get_reference)

    @property
    def auto_class(self) -> str | None:
        """Name of the Auto class that loads the weights with their head; `None` if only the class itself does."""
        return next((auto for auto, name in self.entry.auto_classes.items() if name == self.architecture), None)

    @property
    def task(self) -> Task:
        """The task that the weights answer; that of the scores where the class has none of its own."""
        try:
            return find_task(self.architecture)
        except ValueError:
            return get_task(self.evaluation["task"])

    @property
    def pipeline_tag(self) -> str | None:
        """`pipeline_tag` on the Hub, for a model that transformers' pipeline of this name accepts."""
        fits = self.task.name in self.method.tasks and self.entry.image_processors
        return self.task.entry.hub_tag if fits else None

    @property
    def task_type(self) -> str:
        """Name of the task for the `model-index`."""
        return self.pipeline_tag or (*self.task.entry.tags, self.task.name)[0]

    @property
    def title(self) -> str:
        """Heading of the card, on one line; by default made of model and dataset."""
        name = f"{self.config['model_type']}-{self.evaluation['dataset']['name']}"
        return " ".join((self.card.card_title or name.replace("_", "-")).split())

    @property
    def model_id(self) -> str:
        """What a reader passes to `from_pretrained`: the repository, or the name of the folder before it has one."""
        return self.card.card_repo_id or re.sub(r"[^\w./ -]+", "-", self.title)  # examples quote it

    @property
    def has_code(self) -> bool:
        """Whether the folder can be loaded where decahub is not installed."""
        return "auto_map" in self.config

    @property
    def dataset(self) -> DatasetEntry | None:
        """The dataset in the catalog; `None` for a user's own data."""
        return DATASETS.get(self.evaluation["dataset"]["name"])

    @property
    def license(self) -> str:
        """Identifier of the license of the weights."""
        return choose_license(self.card.card_license, self.evaluation["dataset"]["name"])

    @property
    def checkpoint(self) -> str:
        """How the weights were chosen, from the recipe unless a person wrote it."""
        if self.card.card_checkpoint is not None:
            return self.card.card_checkpoint
        metric, decay = self.recipe.get("metric_for_best_model"), self.recipe.get("ema_decay")
        weights = "The weights" if decay is None else f"The exponential moving average (decay {decay}) of the weights"
        if metric is not None:
            split = self.recipe.get("monitor_split") or self.recipe.get("eval_split")
            where = f" on the {split} split" if split else ""
            return f"{weights} with the best `{metric}` of the evaluations during training{where}."
        return f"{weights} after the last step; no checkpoint was chosen by its score."

    @property
    def training(self) -> dict[str, Any] | None:
        """The last line of the log, where it tells time and hardware."""
        summary = self.train_log[-1] if self.train_log else {}
        if TRAINING_MINUTES not in summary:
            return None
        numbers = [summary[name] for name in (TRAINING_MINUTES, "step", "epoch") if name in summary]
        versions = summary.get("versions")
        if not (
            all(is_number(value) for value in numbers)
            and isinstance(summary.get("hardware"), str)
            and isinstance(versions, dict)
            and all(isinstance(value, str) for value in versions.values())
        ):
            raise ValueError(
                f"The last line of {TRAIN_LOG} must hold {TRAINING_MINUTES} and step as numbers, hardware as a text "
                f"and versions as texts by name; got {summary!r:.200}."
            )
        return summary

    def usage(self, remote: bool, trust: str) -> str:
        """Lines of Python that use the model; see [`~decahub.tasks.Task.usage`]."""
        if self.task.name in self.method.tasks:
            return self.task.usage(self, remote, trust)
        return Task.usage(self.task, self, remote, trust)


def find_method(config: Mapping[str, Any]) -> tuple[Method, ModelEntry]:
    """The method and model entry that a `config.json` belongs to."""
    entries = {entry.model_type: (method, entry) for method in METHODS.values() for entry in method.models}
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in entries:
        raise ValueError(f"`model_type` in {CONFIG} must be one of {', '.join(entries)}; got {model_type!r:.200}.")
    method, entry = entries[model_type]
    architectures, known = config.get("architectures"), dict.fromkeys(entry.auto_classes.values())
    if not isinstance(architectures, list) or len(architectures) != 1 or architectures[0] not in [*known]:
        raise ValueError(
            f"`architectures` in {CONFIG} must be a list with one of {', '.join(known)}; got {architectures!r:.200}."
        )
    return method, entry


def check_config(config: Mapping[str, Any]) -> None:
    """Refuses a `config.json` of another model than decahub's, or one that leads out of its folder."""
    find_method(config)
    num_features, base = config.get("num_features", 0), config.get("adapter_base") or {}
    if not isinstance(num_features, int):  # a card's example holds it
        raise ValueError(f"`num_features` in {CONFIG} must be a whole number; got {num_features!r:.200}.")
    if not isinstance(base, dict) or any(not isinstance(text, str) or redact(text) != text for text in base.values()):
        raise ValueError(f"`adapter_base` in {CONFIG} must hold names and no paths of a machine; got {base!r:.200}.")


# Reports


def build_report(content: Mapping[str, Any], where: str) -> Report:
    """A report from its JSON object; `where` names the file in messages."""
    kinds = {"title": str, "columns": list, "rows": list, "verdict": (str, type(None)), "command": (str, type(None))}
    wrong = [name for name, kind in kinds.items() if not isinstance(content.get(name), kind)]  # type: ignore[arg-type]
    wrong += [name for name in content if name not in kinds]
    if wrong or not all(isinstance(row, list) for row in content["rows"]):
        names = ", ".join(wrong or ["rows"])
        raise ValueError(
            f"{where} must hold title, verdict and command as texts, columns as a list and rows as lists; {names} "
            "is not so."
        )
    try:
        return Report(**content)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def build_split_report(content: Mapping[str, Any]) -> Report:
    """`splits.json`, results of the same recipe on all splits of the data, as a report."""
    check_keys(content, SPLIT_KEYS, SPLITS)
    rows = content["rows"]
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"`rows` in {SPLITS} must be a list of objects, one for each split; got {rows!r:.200}.")
    for number, row in enumerate(rows):
        if any(key not in row for key in SPLIT_ROW_KEYS) or list(row) != list(rows[0]):
            raise ValueError(
                f"`rows` in {SPLITS} must hold {' and '.join(SPLIT_ROW_KEYS)} and the same keys in each; got "
                f"{', '.join(row)} in row {number}."
            )
    values = [row["value"] for row in rows]
    if not all(map(is_number, [*values, content["mean"], content["spread"]])):
        raise ValueError(f"`value`, `mean` and `spread` in {SPLITS} must be numbers; got {values!r:.200}.")
    mean, spread = statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0
    for name, computed in (("mean", mean), ("spread", spread)):
        if not math.isclose(content[name], computed, rel_tol=0, abs_tol=ROUNDING):
            raise ValueError(f"`{name}` in {SPLITS} must be that of its rows, {computed:.6f}; got {content[name]}.")
    verdict = (
        f"The recipe on every split of the data: {content['metric']} {content['mean']:.4g} ± {content['spread']:.4g} "
        f"(mean and sample deviation over {len(rows)} rows). The weights in this folder belong to one of them."
    )
    table = [list(row.values()) for row in rows]
    return Report("Results over all splits", list(rows[0]), table, verdict, str(content["command"]))
