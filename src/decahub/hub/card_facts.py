"""What a model card is made of: texts that a person writes, and facts from a folder and from decahub's tables."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from huggingface_hub.utils import validate_repo_id

from decahub.data.catalog import DATASETS, DatasetEntry
from decahub.registry import METHODS, Method, ModelEntry
from decahub.tasks import Task, find_task, get_task

from .flattening import get_class_reference, get_reference
from .folder import CONFIG, TRAINING_MINUTES, read_evaluation, read_json, read_recipe, read_train_log
from .split_results import SplitResults, read_split_results


CARD_PREFIX = "card_"
REQUIRED_TEXTS = ("card_title", "card_summary", "card_intended_use", "card_limits")


@dataclass(kw_only=True)
class CardArguments:
    """Texts of the model card that a person writes: the part of a recipe that no program can fill in.

    A script's arguments derive from it, `class Arguments(CardArguments, LoopArguments)`, so that a missing text is
    refused before the run.

    Raises:
        ValueError: If a text is empty or the repository id is malformed.
    """

    MAY_CHANGE: ClassVar[tuple[str, ...]] = (  # when a run is resumed
        "card_title", "card_summary", "card_intended_use", "card_limits", "card_checkpoint", "card_repo_id",
        "card_base_model", "card_license",
    )  # fmt: skip

    card_title: str = field(metadata={"help": "Name of the model, as its repository is called: 'emo-1m-cifar10'."})
    card_summary: str = field(metadata={"help": "What the model is and does, in one or two sentences."})
    card_intended_use: str = field(metadata={"help": "What the model is meant for."})
    card_limits: str = field(metadata={"help": "What it is not good for, and where it is known to fail."})
    card_checkpoint: str | None = field(
        default=None,
        metadata={"help": "How the weights were chosen among those of the run; by default read off the recipe."},
    )
    card_repo_id: str | None = field(
        default=None, metadata={"help": "Repository on the Hub, '<owner>/<name>'; `decahub publish` fills it in."}
    )
    card_base_model: str | None = field(
        default=None, metadata={"help": "Repository of the weights that training started from."}
    )
    card_license: str | None = field(
        default=None,
        metadata={"help": "License of the weights; by default the one the catalog states for the dataset."},
    )

    def __post_init__(self):
        for name in REQUIRED_TEXTS:
            text = getattr(self, name)
            if not isinstance(text, str) or not text.strip():
                raise ValueError(f"`{name}` must be a text; got {text!r}. Write it into the recipe.")
        if self.card_repo_id is not None:
            validate_repo_id(self.card_repo_id)
        other_arguments = getattr(super(), "__post_init__", None)
        if other_arguments is not None:
            other_arguments()

    @classmethod
    def from_recipe(cls, recipe: dict[str, Any]) -> "CardArguments":
        """The `card_*` keys of a recipe.

        Raises:
            ValueError: If one is unknown, or a required one is missing.
        """
        given = {key: value for key, value in recipe.items() if key.startswith(CARD_PREFIX)}
        known = [item.name for item in dataclasses.fields(CardArguments)]
        unknown = [key for key in given if key not in known]
        missing = [name for name in REQUIRED_TEXTS if name not in given]
        if unknown:
            raise ValueError(f"`card_*` keys of a recipe must be among {', '.join(known)}; got {', '.join(unknown)}.")
        if missing:
            required = ", ".join(REQUIRED_TEXTS)
            raise ValueError(f"A recipe must hold {required}; {', '.join(missing)} is missing. Write it there.")
        return cls(**given)


@dataclass(frozen=True)
class FolderFacts:
    """All that a card says, gathered from one folder and decahub's tables."""

    config: dict[str, Any]
    recipe: dict[str, Any]
    card: CardArguments
    evaluation: dict[str, Any]
    train_log: list[dict[str, Any]]
    method: Method
    entry: ModelEntry
    images: list[str]
    split_results: SplitResults | None

    @classmethod
    def from_folder(cls, folder: Path) -> "FolderFacts":
        """Reads a folder.

        Raises:
            FileNotFoundError: If a file is missing.
            ValueError: If one is malformed, or of a model that decahub does not know.
        """
        config, recipe = read_json(folder / CONFIG), read_recipe(folder)
        method, entry = find_method(config)
        return cls(
            config=config,
            recipe=recipe,
            card=CardArguments.from_recipe(recipe),
            evaluation=read_evaluation(folder),
            train_log=read_train_log(folder),
            method=method,
            entry=entry,
            images=sorted(path.name for path in folder.glob("*.png")),
            split_results=read_split_results(folder),
        )

    @property
    def architecture(self) -> str:
        """Name of the class that the weights belong to."""
        return self.config["architectures"][0]

    @property
    def class_reference(self) -> str:
        """That class as remote code names it."""
        return get_class_reference(self.architecture)

    def refer_to(self, path: str) -> str:
        """A class of a room, given by where it is defined, as remote code names it."""
        return get_reference(path)

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
    def task_type(self) -> str:
        """Name of the task for the `model-index`."""
        return self.task.entry.hub_tag or (*self.task.entry.tags, self.task.name)[0]

    @property
    def model_id(self) -> str:
        """What a reader passes to `from_pretrained`: the repository, or the name of the folder before it has one."""
        return self.card.card_repo_id or self.card.card_title

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
        """Identifier of the license of the weights.

        Raises:
            ValueError: If neither the recipe nor the catalog gives one.
        """
        if self.card.card_license is not None:
            return self.card.card_license
        if self.dataset is None:
            name = self.evaluation["dataset"]["name"]
            raise ValueError(
                f"`card_license` must be given for a dataset that is not in the catalog; got none for {name!r}. "
                "Write the license of the weights into the recipe."
            )
        return self.dataset.license

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
        return self.train_log[-1] if self.train_log and TRAINING_MINUTES in self.train_log[-1] else None


def find_method(config: dict[str, Any]) -> tuple[Method, ModelEntry]:
    """The method and model entry that a `config.json` belongs to.

    Raises:
        ValueError: If decahub has no such `model_type`.
    """
    entries = {entry.model_type: (method, entry) for method in METHODS.values() for entry in method.models}
    model_type = config.get("model_type")
    if model_type not in entries:
        raise ValueError(f"`model_type` in config.json must be one of {', '.join(entries)}; got {model_type!r}.")
    return entries[model_type]
