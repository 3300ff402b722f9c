"""`decahub info`: what a method or a model folder is."""

import argparse
import ast
import contextlib
from pathlib import Path

import decahub
from decahub.options import suggest
from decahub.recipes import list_recipes
from decahub.registry import METHODS, Method

from .table import format_cell, format_scores, format_table


HELP = "describe a method, or a model folder: classes, parameters, labels, scores"
EXAMPLES = """  decahub info emo
  decahub info runs/emo/model"""
SHOWN_LABELS = 12
MODEL_CARDS = Path("model_cards")  # in a checkout


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("subject", metavar="METHOD|FOLDER", help="a name of `decahub list`, or a model folder")


def run(arguments: argparse.Namespace) -> int:
    if arguments.subject in METHODS:
        print(describe_method(METHODS[arguments.subject]))
    elif Path(arguments.subject).is_dir():
        print(describe_folder(Path(arguments.subject)))
    else:
        known = [*METHODS, *map(str, sorted(MODEL_CARDS.glob("*")))]
        raise ValueError(
            f"{arguments.subject!r} is neither a method nor a model folder. {suggest(arguments.subject, known)}"
        )
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
        return "\n".join([*lines, "state    planned"])
    lines += [f'install  pip install "decahub[{method.extra}]"', *describe_examples(method)]
    for entry in method.models:
        classes = [("AutoConfig", entry.config), *entry.auto_classes.items()]
        lines += ["", f"model type {entry.model_type!r}", format_table(("Auto class", "class"), classes)]
    return "\n".join(lines)


def describe_examples(method: Method) -> list[str]:
    """Lines that say what there is to start from: recipes, variants, and in a checkout trained models."""
    recipes = [name for name in list_recipes() if name.startswith(f"{method.name}/")]
    models = [str(path) for path in sorted(MODEL_CARDS.glob(f"{method.name.replace('_', '-')}-*"))]
    tutorial = Path("docs/tutorials") / f"{method.name}.md"
    rows = {
        "recipes": ", ".join(recipes),
        "variants": ", ".join(list_variants(method)),
        "models": ", ".join(models),
        "tutorial": str(tutorial) if tutorial.is_file() else "",
        "example": f"decahub predict {models[0]} INPUT"
        if models
        else f"decahub train {recipes[0]}"
        if recipes
        else "",
    }
    return [f"{name:<8} {text}" for name, text in rows.items() if text]


def list_variants(method: Method) -> list[str]:
    """Names of the published variants, read off the file of the configuration, since its import takes long."""
    path = Path(decahub.__file__).parent / "models" / method.name / f"configuration_{method.name}.py"
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Dict):
            target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
            if isinstance(target, ast.Name) and target.id == "VARIANTS":
                return [ast.literal_eval(key) for key in node.value.keys if key is not None]
    return []


def describe_citation(method: Method) -> list[str]:
    """Lines that say who published the paper, and where."""
    if method.citation is None:
        return []
    authors = method.citation.authors.replace(" and others", " et al.").replace(" and ", ", ")
    return [f"authors  {authors}", f"venue    {method.citation.venue or f'arXiv, {method.citation.year}'}"]


def describe_folder(path: Path) -> str:
    """What a model folder holds, from its JSON files and the headers of its weights."""
    from decahub.hub.files import EVALUATION, RECIPE
    from decahub.hub.model_folder import ModelFolder

    folder = ModelFolder(path)
    architectures = folder.config.get("architectures")
    rows = [
        ("model type", folder.config.get("model_type")),
        ("class", ", ".join(map(str, architectures)) if isinstance(architectures, list) else architectures or ""),
        ("parameters", f"{sum(map(folder.count_values, folder.weights)):,}"),
        *[("beside them", f"{name}: {folder.count_values(name):,} values") for name in folder.side_files],
        *[("labels", describe_labels(labels)) for labels in [folder.config.get("id2label")] if labels],
    ]
    if {EVALUATION, RECIPE} <= {*folder.files}:
        with contextlib.suppress(ValueError):
            rows.append(("license", folder.facts.license))
    rows.append(("use", f"decahub predict {path} INPUT"))
    text = "\n".join(f"{name:<12}{format_cell(value)}" for name, value in rows)
    if EVALUATION not in folder.files:
        return text
    return f"{text}\n\n{format_scores(folder.evaluation)}"


def describe_labels(id2label: object) -> str:
    names = [str(name) for name in id2label.values()] if isinstance(id2label, dict) else []
    more = f", and {len(names) - SHOWN_LABELS} more" if len(names) > SHOWN_LABELS else ""
    return f"{len(names)}: {', '.join(names[:SHOWN_LABELS])}{more}"
