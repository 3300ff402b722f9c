"""`decahub train`: train a method from a recipe."""

import argparse
import re
from typing import Any

from decahub.recipes import find_recipe, list_recipes

from .table import format_table


HELP = "train a method from a recipe, by its name or from your own YAML file"
EXAMPLES = """  decahub train --list
  decahub train emo/cifar10 --help
  decahub train emo/cifar10 --output_dir runs/emo --max_steps 100
  decahub train my_recipe.yaml        (with the line `method: emo`)

on several processes or accelerators:
  accelerate launch -m decahub.cli.main train emo/cifar10
  torchrun --nproc_per_node 2 -m decahub.cli.main train emo/cifar10"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--list", action="store_true", help="list the recipes that ship with decahub")
    parser.add_argument("recipe", nargs="?", help="name of a recipe, or path of a YAML file")
    parser.add_argument(
        "words",
        nargs=argparse.REMAINDER,
        metavar="--key value",
        help="arguments that replace those of the recipe; `decahub train RECIPE --help` shows them",
    )


def run(options: argparse.Namespace) -> int:
    if options.list:
        print(format_table(("recipe", "what it trains"), [(name, describe(name)) for name in list_recipes()]))
        return 0
    if options.recipe is None:
        raise ValueError("a recipe must be given, such as emo/cifar10; `decahub train --list` shows all.")
    check_license(options.recipe, options.words)
    return train(options.recipe, options.words)


def check_license(recipe: str, words: list[str]) -> None:
    """Refuse your own data without a license at once: the imports of a training run take seconds."""
    import yaml

    from decahub.hub.card_facts import choose_license

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--dataset", nargs="?")
    parser.add_argument("--card_license", "--card-license", nargs="?")
    given, further = parser.parse_known_args(words)
    if given.dataset is None or given.card_license is not None or {"-h", "--help"} & {*further}:
        return
    values = yaml.safe_load(find_recipe(recipe).read_text(encoding="utf-8"))
    choose_license(values.get("card_license") if isinstance(values, dict) else None, given.dataset)


def describe(recipe: str) -> str:
    """The first words of the comment that the file of a recipe begins with."""
    comment = find_recipe(recipe).read_text(encoding="utf-8").partition("\n")[0]
    return re.split(r"[:.;](?:\s|$)", comment.lstrip("# "))[0]


def train(recipe: str, words: list[str]) -> int:
    import dataclasses
    import importlib

    from decahub.hub import CardArguments, save_run
    from decahub.procedures import PROCEDURES
    from decahub.training import find_method, flushed_denormals, load_recipe

    method = find_method(recipe, PROCEDURES)
    procedure = importlib.import_module(f"decahub.procedures.{method}")
    arguments_class = dataclasses.make_dataclass("Arguments", [], bases=(CardArguments, procedure.Arguments))
    arguments: Any = load_recipe(arguments_class, [recipe, *words], program="decahub train")
    with flushed_denormals():
        outcome = procedure.run(arguments)
    if not outcome.result.is_main_process:
        return 0
    facts = {name: getattr(outcome, name) for name in ("task", "dataset", "split", "minutes", "images", "reports")}
    folder = save_run(arguments, outcome.result, outcome.processor, outcome.measurement, **facts)
    if outcome.measurement is not None:
        print({name: round(value, 4) for name, value in outcome.measurement.scores.items()})
    print(f"Saved to {folder}")
    if missing := arguments.missing_texts:
        print(f"To publish it, add {', '.join(missing)} to its recipe.yaml and run `decahub card {folder}`.")
    return 0
