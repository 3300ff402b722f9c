"""The model card of a folder, rendered from nothing but the files in it.

A person writes the texts of [`CardArguments`] into the recipe; every score comes from `evaluation.json`, and what the
method is from the tables of decahub.
"""

import os
import re
from pathlib import Path
from typing import Any

import jinja2
import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from .card_facts import CARD_PREFIX, FolderFacts
from .flattening import get_reference
from .folder import CARD, TRAINING_MINUTES, write_checksums, write_text
from .split_results import SplitResults


TEMPLATE = Path(__file__).with_name("model_card.md.jinja")
REQUIRED_METADATA = ("license", "library_name", "tags", "model-index")


def render_model_card(folder: str | os.PathLike) -> ModelCard:
    """The model card of a folder; the same files give the same card.

    Args:
        folder (`str` or `os.PathLike`): holds `config.json`, `recipe.yaml`, `evaluation.json` and, if there was
            training, `train_log.jsonl`.

    Returns:
        `huggingface_hub.ModelCard`: front matter with a `model-index`, and the text.

    Raises:
        FileNotFoundError: If one of the files is missing.
        ValueError: If a file or text is unusable; the message says which.
    """
    facts = FolderFacts.from_folder(Path(folder))
    # Not `ModelCard.from_template`, whose templates print nothing where a name is misspelled.
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["score"] = format_score
    environment.filters["reference"] = get_reference
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    text = template.render(
        facts=facts,
        metadata=build_metadata(facts).to_yaml(),
        scores=[{**row, "value": format_score(row["value"])} for row in facts.evaluation["figures"]],
        training=describe_training(facts.training),
        versions=join_versions(facts.evaluation["versions"]),
        minutes=format_minutes(facts.evaluation["minutes"]) if "minutes" in facts.evaluation else None,
        recipe=format_recipe(facts.recipe),
        split_table=None if facts.split_results is None else build_split_table(facts.split_results),
    )
    check_card(text)
    return ModelCard(text)


def write_model_card(folder: Path) -> None:
    """Renders the card of a folder into its `README.md`."""
    write_text(folder / CARD, str(render_model_card(folder)))


def refresh_model_card(folder: str | os.PathLike) -> None:
    """Renders the card of a folder anew and brings `SHA256SUMS` up to date, after a text in `recipe.yaml` was changed.

    Args:
        folder (`str` or `os.PathLike`): a folder of [`save_model_folder`].
    """
    write_model_card(Path(folder))
    write_checksums(Path(folder))


def build_metadata(facts: FolderFacts) -> ModelCardData:
    """The front matter of a card."""
    dataset, scores = facts.dataset, facts.evaluation["figures"]
    paper = [f"arxiv:{facts.method.arxiv}"] if facts.method.arxiv else []
    terms = dataset if facts.license == "other" else None
    return ModelCardData(
        license=facts.license,
        license_name=f"{terms.name}-terms" if terms is not None else None,
        license_link=terms.homepage if terms is not None else None,
        library_name="transformers",
        pipeline_tag=facts.task.entry.hub_tag,
        tags=[facts.method.name, *facts.task.entry.tags, *paper, *(["custom_code"] if facts.has_code else [])],
        datasets=[dataset.hub_id] if dataset is not None and dataset.hub_id else None,
        metrics=[scores[0]["metric"]],  # the headline; the model-index has all
        base_model=facts.card.card_base_model,
        model_name=facts.card.card_title,
        eval_results=[_build_eval_result(facts, row) for row in scores],
    )


def _build_eval_result(facts: FolderFacts, row: dict[str, Any]) -> EvalResult:
    dataset = facts.evaluation["dataset"]
    return EvalResult(
        task_type=facts.task_type,
        dataset_type=dataset["name"],
        dataset_name=dataset["title"],
        dataset_split=dataset["split"],
        metric_type=row["metric"],
        metric_value=row["value"],
    )


def describe_training(summary: dict[str, Any] | None) -> str:
    """Length, hardware and versions of a run in one sentence; empty for weights that were not trained here."""
    if summary is None:
        return ""
    length = ""
    if "step" in summary and "epoch" in summary:
        length = f" for {summary['step']:,} steps ({summary['epoch']:.4g} epochs)"
    minutes, versions = format_minutes(summary[TRAINING_MINUTES]), join_versions(summary["versions"])
    return f"Trained{length}, {minutes} on {summary['hardware']} with {versions}."


def format_score(value: float) -> str:
    """A score with four significant digits, more than any of the test sets can tell apart."""
    return f"{value:.4g}"


def format_minutes(minutes: float) -> str:
    """A duration to the minute, below ten minutes to the tenth of one."""
    return f"{minutes:.1f} minutes" if minutes < 10 else f"{minutes:.0f} minutes"


def build_split_table(results: SplitResults) -> list[list[str]]:
    """The rows of a folder's results over all splits as texts, the names of the columns first."""
    rows = [[format_cell(row[name]) for name in results.columns] for row in results.rows]
    return [list(results.columns), *rows]


def format_cell(value: Any) -> str:
    """A value of a table: four digits for a fraction, commas between the items of a list."""
    if isinstance(value, list):
        return ", ".join(map(format_cell, value))
    return format_score(value) if isinstance(value, float) else str(value)


def join_versions(versions: dict[str, str]) -> str:
    """Versions of packages as a list in a sentence."""
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def format_recipe(recipe: dict[str, Any]) -> str:
    """A recipe as YAML, without what is unset and without the texts that the card shows elsewhere."""
    unset: tuple[Any, ...] = (None, [], {})
    arguments = {key: value for key, value in recipe.items() if value not in unset and not key.startswith(CARD_PREFIX)}
    return yaml.safe_dump(arguments, sort_keys=False, allow_unicode=True, width=100).strip()


def check_card(text: str) -> None:
    """Refuses a card that the Hub would refuse or not understand, without asking a server.

    Raises:
        ValueError: If the front matter is absent, no YAML, or lacks something.
    """
    block = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    if block is None:
        raise ValueError(f"{CARD} must begin with YAML between two lines of '---'; got {text[:40]!r}.")
    try:
        metadata = yaml.safe_load(block[1])
    except yaml.YAMLError as error:
        raise ValueError(f"The front matter of {CARD} must be YAML; {error}.") from error
    if not isinstance(metadata, dict):
        raise ValueError(f"The front matter of {CARD} must be a mapping; got {type(metadata).__name__}.")
    missing = [key for key in REQUIRED_METADATA if not metadata.get(key)]
    if missing:
        required = ", ".join(REQUIRED_METADATA)
        raise ValueError(f"The front matter of {CARD} must hold {required}; {missing[0]} is missing.")
    if metadata["license"] == "other" and not metadata.get("license_name"):
        raise ValueError(f"`license_name` in {CARD} must be given for the license 'other'; got none. Name the terms.")
    if not all(isinstance(tag, str) for tag in metadata["tags"]):
        raise ValueError(f"`tags` in {CARD} must be texts; got {metadata['tags']!r}.")
    ModelCardData(**metadata)  # refuses a model-index that cannot be parsed
