"""`decahub list`: the methods."""

import argparse

from decahub.registry import METHODS

from .table import format_table


HELP = "list the methods, what each is for, and whether it is ready"
EXAMPLES = "  decahub list\n  decahub list --ready"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ready", action="store_true", help="leave out methods that are still to come")


def run(arguments: argparse.Namespace) -> int:
    methods = [method for method in METHODS.values() if method.is_ready or not arguments.ready]
    rows = [
        (method.name, "ready" if method.is_ready else "to come", method.arxiv or "-", ", ".join(method.tasks))
        for method in methods
    ]
    print(format_table(("method", "state", "arXiv", "tasks"), rows))
    return 0
