"""The model card of a folder, rendered from nothing but the facts in its files.

A person writes the texts of [`CardArguments`] into the recipe; every score comes from `evaluation.json`, and what the
method is from the tables of decahub. Whatever comes from a file is escaped.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from decahub.environment import redact
from decahub.tasks import Report

from .card_facts import CARD_PREFIX, FolderFacts
from .files import CARD, EVALUATION, TRAINING_MINUTES, format_yaml, parse_yaml


TEMPLATE = Path(__file__).with_name("model_card.md.jinja")
REQUIRED_METADATA = ("license", "library_name", "tags", "model-index")
FRONT_MATTER = re.compile(r"---\n(.*?)\n---\n", re.DOTALL)
# Heading, quote, list, table, fence, rule: what begins a block of Markdown.
BLOCK_START = re.compile(r"^(#|>|=|\||`{3}|~{3}|[-+*](?=\s|$)|([-*_] ?){3,}$|\d+(?=[.)]))")


def render_card(facts: FolderFacts) -> ModelCard:
    """The model card that facts give; the same facts give the same card.

    Raises:
        ValueError: If a value is unusable; the message says which.
    """
    # Not `ModelCard.from_template`, whose templates print nothing where a name is misspelled.
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "cell": format_cell,
        "code": format_code_block,
        "line": escape_line,
        "minutes": format_minutes,
        "redact": redact,
        "table": format_report_table,
        "text": escape_text,
        "url": quote,
        "versions": join_versions,
    }
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    text = template.render(
        facts=facts,
        metadata=build_metadata(facts).to_yaml(),
        measurement=describe_measurement(facts),
        training=describe_training(facts.training, facts.evaluation),
        recipe=format_recipe(facts.recipe),
        warning=facts.task.describe_warning(facts.config),
    )
    check_card(text)
    return ModelCard(text)


def build_metadata(facts: FolderFacts) -> ModelCardData:
    """The front matter of a card."""
    dataset, measured, scores = facts.dataset, facts.evaluation["dataset"], facts.evaluation["figures"]
    paper = [f"arxiv:{facts.method.arxiv}"] if facts.method.arxiv else []
    terms = dataset if facts.license == "other" else None
    return ModelCardData(
        license=facts.license,
        license_name=f"{terms.name}-terms" if terms is not None else None,
        license_link=terms.homepage if terms is not None else None,
        library_name="transformers",
        pipeline_tag=facts.pipeline_tag,
        tags=[
            facts.method.name,
            *facts.task.entry.tags,
            *(["backdoor"] if facts.task.describe_warning(facts.config) else []),
            *paper,
            *(["custom_code"] if facts.has_code else []),
        ],
        datasets=[dataset.hub_id] if dataset is not None and dataset.hub_id else None,
        metrics=[scores[0]["metric"]],  # the headline; the model-index has all
        base_model=redact(facts.card.card_base_model),
        model_name=facts.title,
        eval_results=[
            EvalResult(
                task_type=facts.task_type,
                dataset_type=measured["name"],
                dataset_name=measured["title"],
                dataset_split=measured["split"],
                metric_type=row["metric"],
                metric_value=row["value"],
            )
            for row in scores
        ],
    )


def describe_measurement(facts: FolderFacts) -> str:
    """What the task says of how the scores were measured."""
    try:
        return facts.task.describe_measurement(facts.evaluation["dataset"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"`dataset` in {EVALUATION} must hold what {facts.task.name} measures with; {error!r}."
        ) from error


def describe_training(summary: dict[str, Any] | None, evaluation: dict[str, Any]) -> str:
    """Length, hardware and versions of a run in one sentence; empty for weights that were not trained here."""
    if summary is None:
        return ""
    length = ""
    if "step" in summary and "epoch" in summary:
        length = f" for {summary['step']:,} steps ({summary['epoch']:.4g} epochs)"
    minutes = format_minutes(summary[TRAINING_MINUTES])
    origin = {name: evaluation.get(name) for name in ("hardware", "versions")}
    where = f"on {summary['hardware']} with {join_versions(summary['versions'])}"
    if origin == {name: summary[name] for name in origin}:
        where = "on the same machine with the same versions as above"
    return f"Trained{length}, {minutes} {where}."


# Texts of files in Markdown


def escape_text(text: str) -> str:
    """A text as paragraphs of Markdown: no HTML, link, heading or list comes of it; `code` and *stress* may."""
    paragraphs = (escape_line(paragraph) for paragraph in re.split(r"\n\s*\n", text.strip()))
    return "\n\n".join(filter(None, paragraphs))


def escape_line(value: Any) -> str:
    """A value of a file on one line of Markdown, such as a cell or a heading."""
    line = " ".join(redact(str(value)).split())
    line = re.sub(r"[\[\]]", r"\\\g<0>", line.replace("&#", "&amp;#").replace("<", "&lt;"))
    return BLOCK_START.sub(r"\\\1" if not line[:1].isdigit() else r"\1\\", line)


def format_code_block(text: str, language: str = "") -> str:
    """A text as a block of code, fenced so that it cannot end the block."""
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall("`{3,}", text))])
    return f"{fence}{language}\n{text}\n{fence}"


def format_cell(value: Any) -> str:
    """A value in a table: four digits for a fraction, commas between the items of a list."""
    if isinstance(value, list):
        return ", ".join(map(format_cell, value))
    return format_score(value) if isinstance(value, float) else escape_line(value).replace("|", "\\|")


def format_report_table(report: Report) -> str:
    """The table of a report, the names of the columns first."""
    rows: list[Sequence[Any]] = [report.columns, *report.rows]
    lines = [f"| {' | '.join(map(format_cell, row))} |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(report.columns), *lines[1:]])


def format_score(value: float) -> str:
    """A score with four significant digits, more than any of the test sets can tell apart."""
    return f"{value:.4g}"


def format_minutes(minutes: float) -> str:
    """A duration to the minute, below ten minutes to the tenth of one."""
    if round(minutes, 1) == 0:
        return "a few seconds"
    return f"{minutes:.1f} minutes" if minutes < 10 else f"{minutes:.0f} minutes"


def join_versions(versions: dict[str, str]) -> str:
    """Versions of packages as a list in a sentence."""
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def format_recipe(recipe: dict[str, Any]) -> str:
    """A recipe as YAML, without what is unset or has no effect and without the texts that the card shows elsewhere."""
    unset: tuple[Any, ...] = (None, [], {})
    idle = ["num_train_epochs"] if recipe.get("max_steps") is not None else []
    idle += ["decode_head"] if recipe.get("task") == "image-classification" else []
    arguments = {
        key: value
        for key, value in recipe.items()
        if value not in unset and key not in idle and not key.startswith(CARD_PREFIX)
    }
    return format_yaml(redact(arguments), width=100).strip()


def check_card(text: str) -> dict[str, Any]:
    """Refuses a card that the Hub would refuse or not understand, without asking a server.

    Raises:
        ValueError: If the front matter is absent, no YAML, or lacks something.
    """
    block = FRONT_MATTER.match(text)
    if block is None:
        raise ValueError(f"{CARD} must begin with YAML between two lines of '---'; got {text[:40]!r}.")
    metadata = parse_yaml(block[1], f"The front matter of {CARD}")
    missing = [key for key in REQUIRED_METADATA if not metadata.get(key)]
    if missing:
        required = ", ".join(REQUIRED_METADATA)
        raise ValueError(f"The front matter of {CARD} must hold {required}; {missing[0]} is missing.")
    if metadata["license"] == "other" and not metadata.get("license_name"):
        raise ValueError(f"`license_name` in {CARD} must be given for the license 'other'; got none. Name the terms.")
    if not isinstance(metadata["tags"], list) or not all(isinstance(tag, str) for tag in metadata["tags"]):
        raise ValueError(f"`tags` in {CARD} must be texts; got {metadata['tags']!r:.200}.")
    try:
        ModelCardData(**metadata)  # refuses a model-index that cannot be parsed
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"`model-index` in {CARD} must be as the Hub reads it; {error!r:.200}.") from error
    return metadata
