"""Fills the generated parts of the documentation: marked blocks of README.md, and docs/results.md.

    python docs/generate_results.py            # write what has changed
    python docs/generate_results.py --check    # write nothing; exit with 1 if something would change

Scores come from JSON that runs wrote and from nowhere else:

    model_cards/*/             evaluation.json, recipe.yaml, train_log.jsonl of published weights
    docs/results/*.json        comparisons: what `examples/<method>/reproduce.py` writes
    benchmarks/results/*.json  speed: what `python -m benchmarks --json FILE` writes

What has no file has not been measured yet, and the text says so.
"""

import argparse
import json
import math
import re
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decahub.hub import FolderFacts, ModelFolder
from decahub.hub.files import EVALUATION, TRAIN_LOG, TRAINING_MINUTES, write_text
from decahub.hub.model_card import format_minutes, join_versions
from decahub.registry import METHODS, Method


PROJECT = Path(__file__).resolve().parent.parent
README, RESULTS = "README.md", "docs/results.md"
NOTHING = "Nothing has been measured yet."
MAX_SCORES = 3  # of a model in docs/results.md; its card has all
SIGNIFICANT_DIGITS = 3  # of a score whose error is not known
# Shares of rows, whose error by the choice of rows follows from their number.
SHARE_OF_ROWS = re.compile(r"(top_\d+_)?accuracy")
REL_TOL = 1e-6  # scores pass through JSON, perhaps rounded to float32

ORIGIN_KEYS = ("command", "hardware", "versions")
COMPARISON_KEYS = ("method", "claim", "verdict", "rows", *ORIGIN_KEYS)
ROW_KEYS = ("model", "dataset", "metric", "value", "spread", "n", "seeds", "runs", "paper", "paper_source", "minutes")
SPEED_KEYS = ("method", "case", "ours_seconds", "reference_seconds", "ratio", "ratio_spread", "repetitions", "threads")

ABOUT_RESULTS = """\
`make docs` writes this page from JSON that runs wrote; edits are lost. Scores are rounded to their spread. The spread
of several runs is their standard deviation. A score of one run is rounded to its standard error by the choice of test
rows if it is a share of them, and to three significant digits otherwise."""
ABOUT_MODELS = "One run each; the cards have all scores and the recipes. Which weights of a run were taken:"
ABOUT_CLAIMS = """\
Compared at a scale that fits a small machine. The column *paper* shows what its source reports for its own data and
training, which are not those of this table."""
ABOUT_SPEED = """\
Time of a reference divided by that of decahub, measured in turns in one process: above 1, decahub is faster. Ratio of
medians, in brackets the quartiles of single repetitions."""

Record = Mapping[str, Any]
Columns = Mapping[str, Callable[[Any], str]]


@dataclass(frozen=True)
class Sources:
    """All that the documents are made of.

    Args:
        methods (`Sequence[Method]`): the table of methods.
        models (`Mapping[str, FolderFacts]`): published weights by the name of their folder.
        comparisons (`Sequence[Mapping]`): one claim each, with its rows.
        speed (`Sequence[Mapping]`): one case each.
    """

    methods: Sequence[Method]
    models: Mapping[str, FolderFacts]
    comparisons: Sequence[Record]
    speed: Sequence[Record]


# Reading


def read_sources(project: Path) -> Sources:
    """Reads and checks every source below a folder.

    Raises:
        ValueError: If a file is damaged, incomplete or contradicts itself; the message names it.
    """
    return Sources(
        methods=list(METHODS.values()),
        models={path.parent.name: read_model(path.parent) for path in _find(project, f"model_cards/*/{EVALUATION}")},
        comparisons=[read_comparison(path) for path in _find(project, "docs/results/*.json")],
        speed=[row for path in _find(project, "benchmarks/results/*.json") for row in read_speed(path)],
    )


def _find(project: Path, pattern: str) -> list[Path]:
    return sorted(project.glob(pattern))


def read_model(folder: Path) -> FolderFacts:
    """What a model folder says about itself."""
    try:
        return ModelFolder(folder).facts
    except json.JSONDecodeError as error:  # all other files are named by the message
        raise ValueError(f"{folder / TRAIN_LOG} must hold one JSON object a line; {error}.") from error
    except (FileNotFoundError, ValueError) as error:
        raise ValueError(f"{folder} must be a complete model folder; {error}") from error


def read_comparison(path: Path) -> Record:
    """One claim, whose scores are checked against the runs they summarize."""
    comparison = _read_json(path)
    _check_keys(comparison, COMPARISON_KEYS, str(path))
    _check_is_list(comparison["rows"], f"`rows` of {path}")
    for index, row in enumerate(comparison["rows"]):
        where = f"row {index} of {path}"
        _check_keys(row, ROW_KEYS, where)
        _check_is_list(row["runs"], f"`runs` in {where}")
        check_summary(row, where)
    return comparison


def check_summary(row: Record, where: str) -> None:
    """Refuses a row whose `n`, `value` and `spread` are not count, mean and sample deviation of its `runs`."""
    runs = row["runs"]
    expected = {
        "n": len(runs),
        "value": statistics.mean(runs),
        "spread": statistics.stdev(runs) if len(runs) > 1 else None,
    }
    for name, value in expected.items():
        if not _is_close(row[name], value):
            raise ValueError(f"`{name}` in {where} must be {value!r}, as `runs` give it; got {row[name]!r}.")


def read_speed(path: Path) -> list[Record]:
    """Rows of a benchmark."""
    rows = _read_json(path)
    _check_is_list(rows, str(path))
    for index, row in enumerate(rows):
        where = f"row {index} of {path}"
        _check_keys(row, (*SPEED_KEYS, *ORIGIN_KEYS), where)
        ratio = row["reference_seconds"] / row["ours_seconds"]
        if not _is_close(row["ratio"], ratio):
            raise ValueError(f"`ratio` in {where} must be {ratio!r}, reference by ours; got {row['ratio']!r}.")
    return rows


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # broken JSON or broken UTF-8
        raise ValueError(f"{path} must be JSON; {error}. Is it truncated?") from error


def _check_is_list(value: Any, where: str) -> None:
    if not isinstance(value, list) or not value:
        raise ValueError(f"{where} must be a list that is not empty; got {value!r}.")


def _check_keys(record: Any, keys: Sequence[str], where: str) -> None:
    if not isinstance(record, dict):
        raise ValueError(f"{where} must be an object with {', '.join(keys)}; got {type(record).__name__}.")
    missing = [key for key in keys if key not in record]
    if missing:
        raise ValueError(f"{where} must hold {', '.join(keys)}; {', '.join(missing)} is missing.")


def _is_close(given: float | None, expected: float | None) -> bool:
    if given is None or expected is None:
        return given is expected
    return math.isclose(given, expected, rel_tol=REL_TOL, abs_tol=1e-9)


# Numbers as text


def round_to(value: float, error: float) -> str:
    """`value` to the place of the first digit of its `error`: 78.2914 with 0.38 is 78.3."""
    place = int(f"{error:.0e}".partition("e")[2])
    return f"{round(value, -place):.{max(0, -place)}f}"


def format_score(value: float, error: float | None = None) -> str:
    """A score that claims no more digits than its error leaves; three significant ones where that is not known."""
    if not error:
        place = int(f"{value:e}".partition("e")[2]) - SIGNIFICANT_DIGITS + 1
        error = 10.0**place
    return round_to(value, error)


def format_with_spread(value: float, spread: float | None) -> str:
    """Mean and deviation of several runs, or one run by itself."""
    if spread is None:
        return format_score(value)
    if spread == 0:
        return f"{format_score(value)} ± 0"
    return f"{round_to(value, spread)} ± {round_to(spread, spread)}"


def format_share(score: Record) -> str:
    """A score of one evaluation, to the standard error by the choice of rows where it is a share of them."""
    value, n = score["value"], score["n"]
    if not SHARE_OF_ROWS.fullmatch(score["metric"]):
        return format_score(value)
    share = min(max(value, 1 / (n + 1)), n / (n + 1))  # a share of 0 or 1 has an error, too
    return format_score(value, math.sqrt(share * (1 - share) / n))


def format_ratio(row: Record) -> str:
    """Ratio of medians and the quartiles of single repetitions, to half their distance."""
    low, high = row["ratio_spread"]
    error = (high - low) / 2
    return f"{format_score(row['ratio'], error)} ({format_score(low, error)} to {format_score(high, error)})"


def _format_optional(record: Record, key: str) -> str:
    value = record.get(key)
    return "" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


# Tables


def format_table(columns: Columns, rows: Sequence[Any]) -> str:
    """A Markdown table without the columns that are empty in every row."""
    cells = {title: [get(row).replace("|", "\\|") for row in rows] for title, get in columns.items()}
    cells = {title: column for title, column in cells.items() if any(column)}
    lines = [list(cells), ["---"] * len(cells), *zip(*cells.values(), strict=True)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def format_methods(methods: Iterable[Method]) -> str:
    """The table of methods."""
    columns: Columns = {
        "method": lambda method: (
            f"[{method.name}](src/decahub/models/{method.name}/README.md)" if method.is_ready else method.name
        ),
        "what it does": lambda method: method.summary,
        "paper": lambda method: f"[{method.arxiv or method.doi}]({method.paper_url})",
        "state": lambda method: "ready" if method.is_ready else "to come",
    }
    return format_table(columns, list(methods))


def format_models(models: Mapping[str, FolderFacts], link_prefix: str, max_scores: int) -> str:
    """The table of published weights, with the first scores of each; the very first is the headline of its card."""
    rows = [
        (name, facts, score) for name, facts in models.items() for score in facts.evaluation["figures"][:max_scores]
    ]
    columns: Columns = {
        "model": lambda row: f"[{row[0]}]({link_prefix}model_cards/{row[0]}/README.md)",
        "data, split": lambda row: "{title}, {split}".format(**row[1].evaluation["dataset"]),
        "metric": lambda row: row[2]["metric"],
        "value": lambda row: format_share(row[2]),
        "n": lambda row: f"{row[2]['n']:,}",
        "seed": lambda row: _format_optional(row[1].recipe, "seed"),
        "training": lambda row: format_minutes(row[1].training[TRAINING_MINUTES]) if row[1].training else "",
    }
    return format_table(columns, rows) if rows else ""


def _format_comparison_rows(rows: Sequence[Record]) -> str:
    columns: Columns = {
        "model": lambda row: row["model"],
        "data": lambda row: row["dataset"],
        "split": lambda row: _format_optional(row, "split"),
        "metric": lambda row: row["metric"],
        "mean ± deviation": lambda row: format_with_spread(row["value"], row["spread"]),
        "runs": lambda row: str(row["n"]),
        "seeds": lambda row: ", ".join(map(str, row["seeds"])),
        "checkpoint": lambda row: _format_optional(row, "checkpoint"),
        "parameters": lambda row: _format_optional(row, "num_parameters"),
        "steps": lambda row: _format_optional(row, "steps"),
        "batch": lambda row: _format_optional(row, "batch_size"),
        "all runs": lambda row: format_minutes(row["minutes"]),
        "paper": _format_paper,
    }
    return format_table(columns, rows)


def _format_paper(row: Record) -> str:
    return "" if row["paper"] is None else f"{row['paper']:g} ({row['paper_source']})"


def format_origin(record: Record) -> str:
    """How a score came about."""
    return f"`{record['command']}` on {record['hardware']}, {join_versions(record['versions'])}."


def format_claims(comparisons: Sequence[Record]) -> str:
    """One line for each claim, whether it holds or not."""
    return "\n".join(f"- {record['method']}: {record['claim']}: **{record['verdict']}**." for record in comparisons)


# Documents


def render_readme_blocks(sources: Sources) -> dict[str, str]:
    """The content of each marked block of README.md."""
    results = (format_models(sources.models, "", max_scores=1), format_claims(sources.comparisons))
    return {
        "methods": format_methods(sources.methods),
        "results": "\n\n".join(part for part in results if part) or NOTHING,
    }


def render_results(sources: Sources) -> str:
    """docs/results.md."""
    parts = [
        "# Results",
        ABOUT_RESULTS,
        "## Published weights",
        *_render_models(sources.models),
        "## Claims of the papers",
        *_render_comparisons(sources.comparisons),
        "## Speed",
        *_render_speed(sources.speed),
    ]
    return "\n\n".join(parts) + "\n"


def _render_models(models: Mapping[str, FolderFacts]) -> list[str]:
    if not models:
        return [NOTHING]
    return [
        ABOUT_MODELS,
        "\n".join(f"- {name}: {facts.checkpoint}" for name, facts in models.items()),
        format_models(models, "../", MAX_SCORES),
    ]


def _render_comparisons(comparisons: Sequence[Record]) -> list[str]:
    if not comparisons:
        return [NOTHING]
    parts = [ABOUT_CLAIMS]
    for record in comparisons:
        parts += [
            f"### {record['method']}: {record['claim']}",
            f"**{record['verdict'][:1].upper()}{record['verdict'][1:]}.**",
            _format_comparison_rows(record["rows"]),
            format_origin(record),
        ]
    return parts


def _render_speed(rows: Sequence[Record]) -> list[str]:
    if not rows:
        return [NOTHING]
    columns: Columns = {
        "method": lambda row: row["method"],
        "case": lambda row: row["case"],
        "ratio": format_ratio,
        "repetitions": lambda row: str(row["repetitions"]),
        "threads": lambda row: str(row["threads"]),
    }
    return [
        ABOUT_SPEED,
        format_table(columns, rows),
        *dict.fromkeys(format_origin(row) for row in rows),
    ]


def fill_blocks(text: str, blocks: Mapping[str, str], where: str) -> str:
    """Replaces what stands between `<!-- generated: NAME -->` and `<!-- /generated -->`.

    Raises:
        ValueError: If the names of the blocks in `text` are not exactly those of `blocks`.
    """
    pattern = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- /generated -->)", re.DOTALL)
    found = [match[2] for match in pattern.finditer(text)]
    if sorted(found) != sorted(blocks):
        raise ValueError(f"{where} must have one generated block for each of {', '.join(blocks)}; got {found}.")
    return pattern.sub(lambda match: f"{match[1]}\n{blocks[match[2]]}\n\n{match[3]}", text)


def generate(project: Path) -> dict[Path, str]:
    """What each generated file below a folder should hold."""
    sources = read_sources(project)
    readme = project / README
    return {
        readme: fill_blocks(readme.read_text(encoding="utf-8"), render_readme_blocks(sources), README),
        project / RESULTS: render_results(sources),
    }


def find_outdated(documents: Mapping[Path, str]) -> list[Path]:
    """Files that do not hold what they should."""
    return [path for path, text in documents.items() if not path.exists() or path.read_text(encoding="utf-8") != text]


def main(arguments: Sequence[str] | None = None, project: Path = PROJECT) -> int:
    """Writes what is outdated, or with `--check` names it and returns 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if something would change")
    options = parser.parse_args(arguments)
    try:
        documents = generate(project)
    except ValueError as error:
        parser.exit(2, f"error: {error}\n")
    outdated = find_outdated(documents)
    for path in outdated:
        if not options.check:
            write_text(path, documents[path])
        state = "is outdated; run `make docs`" if options.check else "written"
        sys.stdout.write(f"{path.relative_to(project)} {state}\n")
    return int(options.check and bool(outdated))


if __name__ == "__main__":
    sys.exit(main())
