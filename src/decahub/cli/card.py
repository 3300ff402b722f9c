"""`decahub card`: render the model card anew."""

import argparse
from pathlib import Path


HELP = "render README.md of a model folder from the files in it, and refresh SHA256SUMS"
EXAMPLES = """  decahub card runs/emo/model
  decahub card runs/emo/model --print"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="model folder; edit the card_* texts in its recipe.yaml")
    parser.add_argument("--print", action="store_true", dest="only_print", help="print the card and write nothing")


def run(arguments: argparse.Namespace) -> int:
    from decahub.hub.model_folder import ModelFolder

    folder = ModelFolder(arguments.folder)
    if arguments.only_print:
        print(folder.render_card())
        return 0
    folder.write_card()
    folder.write_checksums()
    print(f"Wrote {arguments.folder / 'README.md'}")
    return 0
