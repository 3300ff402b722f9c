"""`decahub evaluate`: measure a model folder."""

import argparse
from pathlib import Path

from .table import format_scores, format_table


HELP = "measure the scores of a model folder on its dataset, or on another one"
EXAMPLES = """  decahub evaluate model_cards/emo-1m-cifar10 --data-dir ~/data
  decahub evaluate model_cards/emo-1m-cifar10 --limit 500
  decahub evaluate model_cards/raw-gnn-texas --split validation/0
  decahub evaluate model_cards/cmt-small-driving-scenes --sensor-failures --beams 20 --limit 50"""
NUM_BEAMS = 32  # of the LiDAR of nuScenes


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
    parser.add_argument(
        "--sensor-failures",
        action="store_true",
        help="measure a 3D detector without LiDAR, without cameras, without each camera, with fewer beams, with a "
        "limited field of view, and out of calibration: a row each",
    )
    parser.add_argument(
        "--beams", type=int, help=f"for --sensor-failures: beams of the LiDAR in the data (default: {NUM_BEAMS})"
    )


def run(arguments: argparse.Namespace) -> int:
    from decahub.evaluation import evaluate_folder

    from .quiet import silence_libraries

    if arguments.beams is not None and not arguments.sensor_failures:
        raise ValueError("`--beams` must come with `--sensor-failures`; got it alone.")
    silence_libraries()
    if arguments.sensor_failures:
        return run_sensor_failures(arguments)
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


def run_sensor_failures(arguments: argparse.Namespace) -> int:
    from decahub.evaluation import evaluate_sensor_failures

    if arguments.task is not None:
        raise ValueError(f"`--task` must not come with `--sensor-failures`, which sets it; got {arguments.task!r}.")
    report = evaluate_sensor_failures(
        arguments.folder,
        data_dir=arguments.data_dir,
        limit=arguments.limit,
        dataset=arguments.dataset,
        split=arguments.split,
        num_sensor_beams=NUM_BEAMS if arguments.beams is None else arguments.beams,
    )
    print(f"{report.title}\n{format_table(report.columns, report.rows)}")
    return 0
