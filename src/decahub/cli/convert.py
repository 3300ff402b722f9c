"""`decahub convert`: turn a checkpoint of the authors into a model folder."""

import argparse
import importlib
import re
import sys
from pathlib import Path

import decahub.conversion


PREFIX = "convert_"
HELP = "convert a checkpoint of a method's authors into a model folder, with a parity report"
EXAMPLES = """  decahub convert emo --help
  decahub convert emo --checkpoint net.pth --output_dir emo-1m"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    known = list_converters()
    parser.add_argument("method", choices=known, metavar="METHOD", help=f"method, or kind of file: {', '.join(known)}")
    parser.add_argument(
        "words",
        nargs=argparse.REMAINDER,
        metavar="--key value",
        help="arguments of the converter; `decahub convert METHOD --help` shows them",
    )


def list_converters() -> list[str]:
    """What there is a module `convert_<name>` for."""
    files = (path for folder in decahub.conversion.__path__ for path in Path(folder).glob(f"{PREFIX}*.py"))
    return sorted(path.stem.removeprefix(PREFIX) for path in files)


def run(options: argparse.Namespace) -> int:
    sys.argv[0] = f"decahub convert {options.method}"  # what the converter's own --help shows
    converter = importlib.import_module(f"decahub.conversion.{PREFIX}{options.method}")
    converter.__doc__ = re.sub(r"python conversion/convert_(\w+)\.py", r"decahub convert \1", converter.__doc__ or "")
    converter.main(options.words)
    return 0
