"""`decahub predict`: what a model answers, task by task."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .table import format_table


if TYPE_CHECKING:
    from decahub.tasks import Task


HELP = "classify or segment images, classify the nodes of graphs, continue drum grooves, ..."
EXAMPLES = """  decahub predict model_cards/emo-1m-sign-digits examples/assets/*.jpg
  decahub predict model_cards/emo-1m-cifar10 cat.jpg --top-k 3
  decahub predict model_cards/emo-1m-camvid-segformer street.png --output-dir masks
  decahub predict model_cards/raw-gnn-texas texas --nodes 0 7 12
  decahub predict model_cards/raw-gnn-texas my_graph.npz --top-k 2
  decahub predict model_cards/drum-lm-small-groove groove.mid --bars 16 --seed 29

`decahub predict MODEL --help` shows the options of that model's task."""
EXIT_SOME_FAILED = 1


def add_arguments(parser: argparse.ArgumentParser, words: Sequence[str] = ()) -> None:
    """Add the arguments of the command, and those of the task of the model that `words` begin with."""
    parser.add_argument("model", help="model folder, or id of a published model")
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="files; for graphs .npz files or names of datasets")
    parser.add_argument("--output-dir", type=Path, help="where new files go; by default beside each input")
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
    if words and not words[0].startswith("-"):
        try:
            task = find_task_of(words[0])
        except (OSError, ValueError, KeyError) as error:
            parser.set_defaults(reason=error)
        else:
            task.add_arguments(parser.add_argument_group(f"options of {task.name}"))
            parser.set_defaults(task=task)


def find_task_of(model: str) -> "Task":
    """The task of a model folder or Hub repository, by its `config.json`."""
    from decahub.hub.files import read_json
    from decahub.tasks import find_task

    if Path(model).is_dir():
        path = Path(model) / "config.json"
        if not path.is_file():
            raise FileNotFoundError(f"`model` must be a model folder; {model!r} has no config.json.")
    elif model.count("/") == 1 and not Path(model).exists():
        from huggingface_hub import hf_hub_download

        path = Path(hf_hub_download(model, "config.json"))
    else:
        raise FileNotFoundError(f"`model` must be a model folder or the id of a published model; got {model!r}.")
    architectures = read_json(path).get("architectures")
    if not isinstance(architectures, list) or not architectures or not isinstance(architectures[0], str):
        raise ValueError(f"`architectures` in {path} must name the class of the model; got {architectures!r}.")
    return find_task(architectures[0])


def run(arguments: argparse.Namespace) -> int:
    from decahub.tasks.output_files import OutputFiles

    from .quiet import silence_libraries

    if "task" not in arguments:
        raise arguments.reason
    silence_libraries()
    task, files = arguments.task, OutputFiles(arguments.output_dir, arguments.overwrite)
    inputs = task.list_inputs(arguments)
    predictor = task.build_predictor(arguments)
    rows, problems = [], []
    for item in inputs:
        try:
            rows.extend(task.answer(predictor, item, arguments, files))
        except (OSError, TypeError, ValueError) as error:
            problems.append(f"{item}: {' '.join(str(error).split())}")
    if len(problems) == len(inputs):
        raise ValueError("; ".join(problems))
    print(format_table(task.columns, rows))
    for problem in problems:
        print(f"decahub predict: {problem}", file=sys.stderr)
    return EXIT_SOME_FAILED if problems else 0
