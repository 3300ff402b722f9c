"""`decahub evaluate`: measure a model folder."""

import argparse
from pathlib import Path

from .table import format_scores


HELP = "measure the scores of a model folder on its dataset, or on another one"
EXAMPLES = """  decahub evaluate model_cards/emo-1m-cifar10 --data-dir ~/data
  decahub evaluate model_cards/emo-1m-cifar10 --limit 500
  decahub evaluate model_cards/raw-gnn-texas --split validation/0"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="model folder")
    parser.add_argument(
        "--dataset", help="name in decahub's catalog, or a folder; by default the set that the folder was measured on"
    )
    parser.add_argument(
        "--split",
        help="split to measure, of graphs such as test/3; by default the one that the folder was measured on, or test",
    )
    parser.add_argument("--task", help="task to measure; by default that of the folder or of the dataset")
    parser.add_argument("--data-dir", type=Path, help="directory of the datasets; by default $DECAHUB_DATA_DIR")
    parser.add_argument("--limit", type=int, help="measure on a sample of LIMIT rows, or nodes")


def run(arguments: argparse.Namespace) -> int:
    from decahub.evaluation import evaluate_folder

    from .quiet import silence_libraries

    silence_libraries()
    evaluation = evaluate_folder(
        arguments.folder,
        data_dir=arguments.data_dir,
        limit=arguments.limit,
        dataset=arguments.dataset,
        split=arguments.split,
        task=arguments.task,
    )
    print(format_scores(evaluation))
    return 0
