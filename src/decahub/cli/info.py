"""`decahub info`: what a method or a model folder is."""

import argparse
import json
import math
from pathlib import Path

from decahub.registry import METHODS, Method

from .table import format_table


HELP = "describe a method, or a model folder: classes, parameters, labels, scores"
EXAMPLES = """  decahub info emo
  decahub info model_cards/emo-1m-cifar10"""
SHOWN_LABELS = 12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("subject", metavar="METHOD|FOLDER", help="a name of `decahub list`, or a model folder")


def run(arguments: argparse.Namespace) -> int:
    if arguments.subject in METHODS:
        print(describe_method(METHODS[arguments.subject]))
    elif Path(arguments.subject).is_dir():
        print(describe_folder(Path(arguments.subject)))
    else:
        names = ", ".join(METHODS)
        raise ValueError(f"`METHOD|FOLDER` must be one of {names} or a model folder; got {arguments.subject!r}.")
    return 0


def describe_method(method: Method) -> str:
    """Paper, installation and classes of a method."""
    lines = [
        f"{method.name}: {method.title}",
        "",
        method.summary,
        "",
        f"paper    {method.paper_url}",
        *describe_citation(method),
        f"tasks    {', '.join(method.tasks)}",
    ]
    if not method.is_ready:
        return "\n".join([*lines, "state    to come"])
    lines.append(f'install  pip install "decahub[{method.extra}]"')
    for entry in method.models:
        classes = [("AutoConfig", entry.config), *entry.auto_classes.items()]
        lines += ["", f"model type {entry.model_type!r}", format_table(("Auto class", "class"), classes)]
    return "\n".join(lines)


def describe_citation(method: Method) -> list[str]:
    """Lines that say who published the paper, and where."""
    if method.citation is None:
        return []
    authors = method.citation.authors.replace(" and others", " et al.").replace(" and ", ", ")
    return [f"authors  {authors}", f"venue    {method.citation.venue or f'arXiv, {method.citation.year}'}"]


def describe_folder(folder: Path) -> str:
    """What a model folder holds, from its JSON files and the header of its weights."""
    from decahub.hub.folder import EVALUATION, read_json

    config = read_json(folder / "config.json")
    rows = [
        ("model type", config.get("model_type")),
        ("class", ", ".join(config.get("architectures") or [])),
        ("parameters", f"{count_parameters(folder):,}"),
        ("labels", describe_labels(config.get("id2label") or {})),
    ]
    text = "\n".join(f"{name:<12}{value}" for name, value in rows)
    if not (folder / EVALUATION).exists():
        return text
    evaluation = read_json(folder / EVALUATION)
    dataset = evaluation["dataset"]
    scores = [(row["metric"], f"{row['value']:.4f}", row["n"]) for row in evaluation["figures"]]
    return f"{text}\n\n{dataset['title']}, {dataset['split']} split\n{format_table(('metric', 'value', 'n'), scores)}"


def count_parameters(folder: Path) -> int:
    """Number of values in the safetensors files, buffers included; reads their headers only."""
    total = 0
    for path in folder.glob("*.safetensors"):
        with open(path, "rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        total += sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
    return total


def describe_labels(id2label: dict[str, str]) -> str:
    names = list(id2label.values())
    more = f", and {len(names) - SHOWN_LABELS} more" if len(names) > SHOWN_LABELS else ""
    return f"{len(names)}: {', '.join(names[:SHOWN_LABELS])}{more}"
