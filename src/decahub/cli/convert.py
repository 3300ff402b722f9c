"""`decahub convert`: turn a checkpoint of the authors into a model folder."""

import argparse
import importlib
import sys


CONVERTERS = ("emo", "tinymim", "raw_gnn", "reliant", "drum_lm", "drum_pairs", "dinov2_onnx")
HELP = "convert a checkpoint of a method's authors into a model folder, with a parity report"
EXAMPLES = """  decahub convert emo --help
  decahub convert emo --checkpoint net.pth --output_dir emo-1m"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("method", choices=CONVERTERS, help="method, or kind of file: %(choices)s", metavar="METHOD")
    parser.add_argument(
        "words",
        nargs=argparse.REMAINDER,
        metavar="--key value",
        help="arguments of the converter; `decahub convert METHOD --help` shows them",
    )


def run(options: argparse.Namespace) -> int:
    sys.argv[0] = f"decahub convert {options.method}"  # what the converter's own --help shows
    converter = importlib.import_module(f"decahub.conversion.convert_{options.method}")
    converter.main(options.words)
    return 0
