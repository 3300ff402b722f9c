"""Fills the generated parts of the documentation: marked blocks of README.md, docs/results.md, docs/benchmarks.md.

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
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decahub.evaluation import read_comparison
from decahub.evaluation.record import check_is_list, check_keys, read_json
from decahub.hub import FolderFacts, ModelFolder
from decahub.hub.files import EVALUATION, TRAIN_LOG, TRAINING_MINUTES, write_text
from decahub.hub.model_card import format_minutes, join_versions
from decahub.registry import METHODS, Method


PROJECT = Path(__file__).resolve().parent.parent
README, RESULTS, BENCHMARKS = "README.md", "docs/results.md", "docs/benchmarks.md"
CURVES = "docs/results/benchmarks.png"  # drawn by `python -m benchmarks.plot`
PACKAGE = "package"  # rows of no method, which each run of the benchmarks measures
NOT_MEASURED = "Nothing has been measured yet."
# The model of a method whose first score README.md shows; by default the first by name.
HEADLINE_MODELS = (
    "doorping-fashion-mnist-dd",
    "drum-lm-smollm2-groove",
    "emo-1m-cifar10",
    "raw-gnn-cora",
    "reliant-sgc-bail",
    "tinymim-student-patch4-cifar10-5k",
)
MAX_SCORES = 3  # of a model in docs/results.md; its card has all
MAX_LISTED_SEEDS = 5
SIGNIFICANT_DIGITS = 3  # of a score whose error is not known
# Shares of rows, whose error by the choice of rows follows from their number.
SHARE_OF_ROWS = re.compile(r"(top_\d+_)?accuracy")
PERCENT = " (%)"

ORIGIN_KEYS = ("command", "hardware", "versions")
SPEED_KEYS = (
    *("method", "case", "peer", "size", "unit", "ours_seconds", "reference_seconds", "ours_megabytes"),
    *("reference_megabytes", "ratio", "ratio_spread", "repetitions", "threads"),
)

ABOUT_RESULTS = """\
This page is generated from run outputs by `make docs`; do not edit. Scores are rounded to their spread. The spread
of several runs is their standard deviation. A score of one run is rounded to its standard error by the choice of test
rows if it is a share of them, and to three significant digits otherwise."""
ABOUT_SCALE = "Scores and verdicts come from small datasets and short runs on a CPU, not from the papers' full scale."
ABOUT_CLAIMS = """\
Each claim was tested at a scale that fits a small machine. Runs of two models are paired by seed, and by split where
there are several; the mean of the paired differences has a 95 % interval by Student's t over the pairs. With fewer
than 3 pairs a comparison is undecided. Otherwise it holds if the whole interval lies on the claimed side, does not
hold if the whole interval lies on the other side, and is undecided in between. A claim holds if all its comparisons
hold, and does not hold if one of them does not. Intervals are not corrected for the number of comparisons, and pairs
that share a split or a seed count as independent. A difference is that of scores, or for *nearer* that of distances.
The summary shows the comparison with the most pairs among those that have the verdict of the claim."""
ABOUT_DETAILS = (
    "The column *paper* shows what its source reports for its own data and training, not for those used here."
)
ABOUT_MODELS = "One run each; the cards have all scores and the recipes. Which weights of a run were taken:"
ABOUT_SPEED = """\
This page is generated from `benchmarks/results` by `make docs`; do not edit. A ratio is the time of a peer divided by
that of decahub, measured in turns in one process: above 1, decahub is faster. It is one of medians; in brackets stand
the quartiles of single repetitions. Memory is how far one repetition raises the peak of resident memory. A peer is
named by its package, whose version stands below; `torch` is the work written by hand."""
ABOUT_BEST_PEERS = "Each kind of work at its largest size, beside the peer that is fastest there."

Record = Mapping[str, Any]
Columns = Mapping[str, Callable[[Any], str]]


@dataclass(frozen=True)
class Sources:
    """All that the documents are made of.

    Args:
        methods (`Sequence[Method]`): the table of methods.
        models (`Mapping[str, FolderFacts]`): published weights by the name of their folder.
        comparisons (`Mapping[str, Mapping]`): one claim each, with its rows, by the name of its file.
        speed (`Sequence[Mapping]`): one case each.
    """

    methods: Sequence[Method]
    models: Mapping[str, FolderFacts]
    comparisons: Mapping[str, Record]
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
        comparisons={path.stem: read_comparison(path) for path in _find(project, "docs/results/*.json")},
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


def read_speed(path: Path) -> list[Record]:
    """Rows of a benchmark."""
    rows = read_json(path)
    check_is_list(rows, str(path))
    for index, row in enumerate(rows):
        where = f"row {index} of {path}"
        check_keys(row, (*SPEED_KEYS, *ORIGIN_KEYS), where)
        ratio = row["reference_seconds"] / row["ours_seconds"]
        if not math.isclose(row["ratio"], ratio, rel_tol=1e-6):
            raise ValueError(f"`ratio` in {where} must be {ratio!r}, reference by ours; got {row['ratio']!r}.")
    return rows


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


def format_difference(value: float | None, interval: Sequence[float] | None) -> str:
    """A difference with its sign, to two digits of half its interval."""
    if value is None:
        return ""
    if interval is None or interval[0] == interval[1]:
        return f"{value:+.{SIGNIFICANT_DIGITS}g}"
    return f"{'+' if value > 0 else ''}{round_to(value, (interval[1] - interval[0]) / 20)}"


def format_interval(interval: Sequence[float] | None) -> str:
    """The ends of an interval; empty for fewer pairs than one needs."""
    return " to ".join(format_difference(end, interval) for end in interval or ())


def format_ratio(row: Record) -> str:
    """Ratio of medians and the quartiles of single repetitions, to half their distance."""
    low, high = row["ratio_spread"]
    error = (high - low) / 2
    return f"{format_score(row['ratio'], error)} ({format_score(low, error)} to {format_score(high, error)})"


def format_work(row: Record) -> str:
    """What was measured, with its size."""
    return row["case"] if row["size"] is None else f"{row['case']}, {row['size']:,} {row['unit']}"


def format_memory(row: Record) -> str:
    """Ours and the peer's, in MB."""
    sizes = row["ours_megabytes"], row["reference_megabytes"]
    return "" if None in sizes or row["method"] == PACKAGE else " / ".join(f"{size:,.0f}" for size in sizes)


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


def format_methods(sources: Sources) -> str:
    """How many methods are ready, and a table of all: the first score of one model, the verdict on the main claim."""
    columns: Columns = {
        "method": lambda method: f"[{method.name}]({_get_method_link(method)})",
        "what it does": lambda method: method.summary,
        "score": lambda method: _format_headline(sources.models, method),
        "main claim": lambda method: (
            "planned" if not method.is_ready else sources.comparisons.get(method.name, {}).get("verdict", "")
        ),
        "results": lambda method: f"[claims]({RESULTS}#{method.name})" if method.name in sources.comparisons else "",
    }
    methods = sorted(sources.methods, key=lambda method: not method.is_ready)
    num_ready = sum(method.is_ready for method in methods)
    return f"{num_ready} of {len(methods)} methods are ready. {ABOUT_SCALE}\n\n{format_table(columns, methods)}"


def _get_method_link(method: Method) -> str:
    return f"src/decahub/models/{method.name}/README.md" if method.is_ready else method.paper_url


def _format_headline(models: Mapping[str, FolderFacts], method: Method) -> str:
    names = [name for name, facts in models.items() if facts.method.name == method.name]
    if not names:
        return "no weights yet" if method.is_ready else ""
    name = next((name for name in names if name in HEADLINE_MODELS), names[0])
    evaluation = models[name].evaluation
    score = evaluation["figures"][0]
    text = f"{score['metric'].replace('_', ' ')} {format_share(score)}"
    return f"[{text}](model_cards/{name}/README.md), {evaluation['dataset']['title']}"


def format_models(models: Mapping[str, FolderFacts]) -> str:
    """The table of published weights, with the first scores of each; the very first is the headline of its card."""
    rows = [
        (name, facts, score) for name, facts in models.items() for score in facts.evaluation["figures"][:MAX_SCORES]
    ]
    columns: Columns = {
        "model": lambda row: f"[{row[0]}](../model_cards/{row[0]}/README.md)",
        "data, split": lambda row: "{title}, {split}".format(**row[1].evaluation["dataset"]),
        "metric": lambda row: row[2]["metric"],
        "value": lambda row: format_share(row[2]),
        "n": lambda row: f"{row[2]['n']:,}",
        "seed": lambda row: _format_optional(row[1].recipe, "seed"),
        "training": lambda row: format_minutes(row[1].training[TRAINING_MINUTES]) if row[1].training else "",
    }
    return format_table(columns, rows)


def format_claims(claims: Sequence[Record]) -> str:
    """The summary: one row a claim."""
    columns: Columns = {
        "method": lambda claim: f"[{claim['method']}](#{claim['method']})",
        "claim": lambda claim: claim["claim"],
        "verdict": lambda claim: f"**{claim['verdict']}**",
        "difference (95 % interval)": _format_effect,
        "pairs": lambda claim: _format_optional(_choose_comparison(claim), "num_pairs"),
        "comparisons that hold": _format_share_of_comparisons,
    }
    return format_table(columns, claims)


def _choose_comparison(claim: Record) -> Record:
    """The comparison with the most pairs among those that have the verdict of the claim."""
    deciding = [part for part in claim["comparisons"] if part["verdict"] == claim["verdict"]]
    return max(deciding, key=lambda part: part["num_pairs"], default={})


def _format_effect(claim: Record) -> str:
    part = _choose_comparison(claim)
    if not part:
        return ""
    name, percent, _ = part["metric"].partition(PERCENT)
    unit = f"points of {name}" if percent else name
    interval = f" ({format_interval(part['interval'])})" if part["interval"] else ""
    difference = format_difference(part["difference"], part["interval"])
    return f"{difference}{interval} {unit}: {describe_comparison(part)}, {_format_data(part)}"


def _format_share_of_comparisons(claim: Record) -> str:
    parts = claim["comparisons"]
    return f"{sum(part['verdict'] == 'holds' for part in parts)} of {len(parts)}"


def _format_data(part: Record) -> str:
    return ", ".join(part[key] for key in ("dataset", "split") if part.get(key))


def describe_comparison(part: Record) -> str:
    """What is claimed, in words."""
    first, direction, margin = f"*{part['first']}*", part["direction"], f"{abs(part['margin']):.3g}"
    second = f"*{part['second']}*" if isinstance(part["second"], str) else f"{part['second']:g} (published)"
    if direction == "equal":
        return f"{first} within {margin} of {second}"
    if direction == "nearer":
        relation = f"nearer to *{part['reference']}* than"
    else:
        relation = "above" if (direction == "higher") == (part["margin"] >= 0) else "below"
    if part["margin"] < 0:
        return f"{first} at most {margin} {relation} {second}"
    return f"{first} {relation} {second}" + (f" by more than {margin}" if part["margin"] else "")


def format_comparisons(parts: Sequence[Record]) -> str:
    """The comparisons of one claim."""
    columns: Columns = {
        "claimed": describe_comparison,
        "data": _format_data,
        "metric": lambda part: part["metric"],
        "difference": lambda part: format_difference(part["difference"], part["interval"]),
        "95 % interval": lambda part: format_interval(part["interval"]),
        "pairs": lambda part: str(part["num_pairs"]),
        "verdict": lambda part: part["verdict"],
    }
    return format_table(columns, parts)


def _format_comparison_rows(rows: Sequence[Record]) -> str:
    columns: Columns = {
        "model": lambda row: row["model"],
        "data": lambda row: row["dataset"],
        "split": lambda row: _format_optional(row, "split"),
        "metric": lambda row: row["metric"],
        "mean ± deviation": lambda row: format_with_spread(row["value"], row["spread"]),
        "runs": lambda row: str(row["n"]),
        "seeds": lambda row: format_seeds(list(dict.fromkeys(row["seeds"]))),
        "splits": lambda row: str(len(set(row["splits"]))) if "splits" in row else "",
        "checkpoint": lambda row: _format_optional(row, "checkpoint"),
        "parameters": lambda row: _format_optional(row, "num_parameters"),
        "steps": lambda row: _format_optional(row, "steps"),
        "batch": lambda row: _format_optional(row, "batch_size"),
        "all runs": lambda row: "" if row["minutes"] is None else format_minutes(row["minutes"]),
        "paper": _format_paper,
    }
    return format_table(columns, rows)


def format_seeds(seeds: Sequence[int]) -> str:
    """Seeds with commas, a longer run of successive ones by its ends."""
    first, last = seeds[:1], seeds[-1:]
    if len(seeds) > MAX_LISTED_SEEDS and list(seeds) == list(range(first[0], last[0] + 1)):
        return f"{first[0]} to {last[0]}"
    return ", ".join(map(str, seeds))


def _format_paper(row: Record) -> str:
    return "" if row["paper"] is None else f"{row['paper']:g} ({row['paper_source']})"


def format_origin(record: Record) -> str:
    """How a score came about."""
    return f"`{record['command']}` on {record['hardware']}, {join_versions(record['versions'])}."


# Documents


def render_results(sources: Sources) -> str:
    """docs/results.md."""
    claims = list(sources.comparisons.values())
    parts = [
        "# Results",
        ABOUT_RESULTS,
        "## Claims of the papers",
        *([ABOUT_CLAIMS, format_claims(claims)] if claims else [NOT_MEASURED]),
        "## Claims in detail",
        *_render_details(claims),
        "## Published weights",
        *_render_models(sources.models),
        "## Speed",
        "[Speed and memory](benchmarks.md) has a page of its own." if sources.speed else NOT_MEASURED,
    ]
    return "\n\n".join(parts) + "\n"


def _render_details(claims: Sequence[Record]) -> list[str]:
    if not claims:
        return [NOT_MEASURED]
    parts = [ABOUT_DETAILS]
    for method in dict.fromkeys(claim["method"] for claim in claims):
        parts.append(f"### {method}")
        for claim in (claim for claim in claims if claim["method"] == method):
            parts += [
                f"#### {claim['claim']}",
                f"**{claim['verdict'].capitalize()}.**",
                *claim.get("notes", ()),
                *([format_comparisons(claim["comparisons"])] if claim["comparisons"] else []),
                _format_comparison_rows(claim["rows"]),
                format_origin(claim),
            ]
    return parts


def _render_models(models: Mapping[str, FolderFacts]) -> list[str]:
    if not models:
        return [NOT_MEASURED]
    return [
        ABOUT_MODELS,
        "\n".join(f"- {name}: {facts.checkpoint}" for name, facts in models.items()),
        format_models(models),
    ]


def render_benchmarks(rows: Sequence[Record], *, has_curves: bool) -> str:
    """docs/benchmarks.md."""
    parts = ["# Speed and memory", ABOUT_SPEED]
    if not rows:
        return "\n\n".join([*parts, NOT_MEASURED]) + "\n"
    rows = sorted(rows, key=lambda row: row["method"] == PACKAGE)  # each run measures the package
    latest = {(row["method"], format_work(row), row["peer"]): row for row in rows}
    best: dict[tuple[str, str], Record] = {}
    for row in latest.values():
        known = best.setdefault((row["method"], row["case"]), row)
        if ((row["size"] or 0), -row["ratio"]) > ((known["size"] or 0), -known["ratio"]):
            best[row["method"], row["case"]] = row
    columns: Columns = {
        "method": lambda row: row["method"],
        "work": format_work,
        "beside": lambda row: row["peer"],
        "times as fast": format_ratio,
        "ours (ms)": lambda row: format_score(1000 * row["ours_seconds"]),
        "memory, ours / theirs (MB)": format_memory,
        "repetitions": lambda row: str(row["repetitions"]),
        "threads": lambda row: str(row["threads"]),
    }
    short = {title: get for title, get in columns.items() if title not in ("repetitions", "threads")}
    curves = ["## Cost and size", f"![Time against the size of the work]({Path(CURVES).relative_to('docs')})"]
    parts += [
        "## Beside the best peer",
        ABOUT_BEST_PEERS,
        format_table(short, list(best.values())),
        *(curves if has_curves else ()),
        "## All measurements",
        format_table(columns, list(latest.values())),
        *dict.fromkeys(format_origin(row) for row in latest.values()),
    ]
    return "\n\n".join(parts) + "\n"


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
        readme: fill_blocks(readme.read_text(encoding="utf-8"), {"methods": format_methods(sources)}, README),
        project / RESULTS: render_results(sources),
        project / BENCHMARKS: render_benchmarks(sources.speed, has_curves=(project / CURVES).is_file()),
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
