"""`decahub list`: the methods, or the datasets."""

import argparse

from decahub.data.catalog import DATASETS
from decahub.registry import METHODS

from .table import format_table


HELP = "list the methods, what each is for, and whether it is ready; or the datasets known by name"
EXAMPLES = """  decahub list
  decahub list --ready
  decahub list --datasets"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--ready", action="store_true", help="leave out methods that are planned")
    choice.add_argument("--datasets", action="store_true", help="list the datasets instead")


def run(arguments: argparse.Namespace) -> int:
    if arguments.datasets:
        entries = [(entry.name, entry.title, entry.family, entry.license) for entry in DATASETS.values()]
        print(format_table(("dataset", "title", "family", "license"), entries))
        return 0
    methods = [method for method in METHODS.values() if method.is_ready or not arguments.ready]
    rows = [
        (method.name, "ready" if method.is_ready else "planned", method.paper_url, ", ".join(method.tasks))
        for method in methods
    ]
    print(format_table(("method", "state", "paper", "tasks"), rows))
    return 0
