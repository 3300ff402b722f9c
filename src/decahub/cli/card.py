"""`decahub card`: render the model card anew."""

import argparse
from pathlib import Path


HELP = "render README.md of a model folder from the files in it, and refresh SHA256SUMS"
EXAMPLES = """  decahub card model_cards/emo-1m-cifar10
  decahub card model_cards/emo-1m-cifar10 --print"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="model folder; edit the card_* texts in its recipe.yaml")
    parser.add_argument("--print", action="store_true", dest="only_print", help="print the card and write nothing")


def run(arguments: argparse.Namespace) -> int:
    from decahub.hub import refresh_model_card, render_model_card

    if arguments.only_print:
        print(render_model_card(arguments.folder))
        return 0
    refresh_model_card(arguments.folder)
    print(f"Wrote {arguments.folder / 'README.md'}")
    return 0
