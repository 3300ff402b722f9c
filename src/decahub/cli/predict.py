"""`decahub predict`: what a model answers, task by task."""

import argparse
import csv
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decahub.registry import METHODS

from .table import format_table


if TYPE_CHECKING:
    from decahub.tasks import Task


HELP = (
    "classify, segment or rank images, classify nodes of graphs, continue drum grooves, find boxes in driving scenes, "
    "give patients of a table a subtype"
)
EXAMPLES = """  decahub predict model_cards/emo-1m-sign-digits examples/assets/*.jpg
  decahub predict model_cards/emo-1m-cifar10 cat.jpg --top-k 3 --output answers.csv
  decahub predict model_cards/emo-1m-camvid-segformer street.png --output-dir masks
  decahub predict model_cards/pmt-iqa-lite0-synthetic photos/ --output-dir ranking
  decahub predict model_cards/raw-gnn-texas texas --data-dir ~/data --nodes 0 7 12
  decahub predict runs/my-graph/model my_graph --top-k 2
  decahub predict model_cards/drum-lm-small-groove groove.mid --bars 16 --seed 29
  decahub predict runs/my-table/model new_patients.csv --output-dir answers
  decahub predict model_cards/cmt-small-driving-scenes frames/sample.json --threshold 0.4

`decahub predict MODEL --help` shows the options of that model's task."""
EXIT_SOME_FAILED = 1
MODEL_CARDS = Path("model_cards")
ENDINGS = (".csv", ".json")


def add_arguments(parser: argparse.ArgumentParser, words: Sequence[str] = ()) -> None:
    """Add the arguments of the command, and those of the task of the model that `words` begin with."""
    parser.add_argument("model", help="model folder, or id of a published model")
    parser.add_argument(
        "inputs", nargs="+", metavar="INPUT", help="files or folders; for graphs also names of datasets"
    )
    parser.add_argument("--output", type=Path, help="also write the rows of the table to this .csv or .json file")
    parser.add_argument("--output-dir", type=Path, help="where new files go; by default beside each input")
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
    model = next((word for word in words if Path(word, "config.json").is_file()), next(iter(words), "-"))
    parser.set_defaults(reason=ValueError("The model must come first: `decahub predict MODEL INPUT ...`."))
    if {"-h", "--help"} & {model}:
        parser.epilog = f"{parser.epilog}\n\noptions by task:\n{describe_options()}"
    elif not model.startswith("-"):
        try:
            task = find_task_of(model)
        except (OSError, ValueError, KeyError) as error:
            parser.set_defaults(reason=error)
        else:
            task.add_arguments(parser.add_argument_group(f"options of {task.name}"))
            parser.set_defaults(task=task)


def describe_options() -> str:
    """The options that each task adds, one line a task."""
    from decahub.tasks import get_task

    options = {}
    for name in dict.fromkeys(name for method in METHODS.values() if method.is_ready for name in method.tasks):
        probe = argparse.ArgumentParser(add_help=False)
        get_task(name).add_arguments(probe)
        options[name] = ", ".join(action.option_strings[0] for action in probe._actions)
    return "\n".join(f"  {name}: {names}" for name, names in options.items() if names)


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
        hint = f" Did you mean `{MODEL_CARDS / model}`?" if (MODEL_CARDS / model).is_dir() else ""
        raise FileNotFoundError(f"`model` must be a model folder or the id of a published model; got {model!r}.{hint}")
    architectures = read_json(path).get("architectures")
    if not isinstance(architectures, list) or not architectures or not isinstance(architectures[0], str):
        raise ValueError(f"`architectures` in {path} must name the class of the model; got {architectures!r}.")
    return find_task(architectures[0])


def run(arguments: argparse.Namespace) -> int:
    from decahub.tasks.output_files import OutputFiles

    from .quiet import silence_libraries

    if "task" not in arguments:
        raise arguments.reason
    task = arguments.task
    inputs = drop_repeated(task.list_inputs(arguments))
    files = OutputFiles(arguments.output_dir, arguments.overwrite, map(Path, inputs))
    task.check_outputs(arguments, files)
    if arguments.output is not None:
        check_output(arguments.output, arguments.overwrite, inputs)
    if arguments.output_dir is not None and arguments.output_dir.exists() and not arguments.output_dir.is_dir():
        raise NotADirectoryError(f"`--output-dir` must be a folder; got the file {str(arguments.output_dir)!r}.")
    silence_libraries()
    predictor = task.build_predictor(arguments)
    rows, problems = [], []
    for item in inputs:
        try:
            rows.extend(task.answer(predictor, item, arguments, files))
        except (OSError, TypeError, ValueError) as error:
            problems.append(f"{item}: {' '.join(str(error).split())}")
    if len(problems) == len(inputs):
        raise ValueError("; ".join(problems))
    rows = task.finish(rows, predictor, arguments, files)
    print(format_table(task.columns, rows))
    if arguments.output is not None:
        files.write(arguments.output, encode_rows(task.columns, rows, arguments.output.suffix))
    for problem in problems:
        print(f"decahub predict: {problem}", file=sys.stderr)
    return EXIT_SOME_FAILED if problems else 0


def drop_repeated(inputs: Sequence[Any]) -> list[Any]:
    """Inputs without those that are given again: a folder may hold a file that is named as well, in another way."""
    kept: dict[Any, Any] = {}
    for item in inputs:
        path = Path(item)
        kept.setdefault(path.resolve() if path.exists() else item, item)
    return list(kept.values())


def check_output(path: Path, overwrite: bool, inputs: Sequence[Any]) -> None:
    """Refuse a file that `--output` cannot write, before a model is loaded."""
    if path.suffix not in ENDINGS:
        raise ValueError(f"`--output` must end in {' or '.join(ENDINGS)}; got {str(path)!r}.")
    if path.resolve() in {Path(item).resolve() for item in inputs}:
        raise ValueError(f"`--output` must not be one of the inputs; got {str(path)!r}.")
    if path.is_dir() or (path.exists() and not overwrite):
        raise FileExistsError(f"`{path}` exists already. Choose another `--output`, or replace it with `--overwrite`.")


def encode_rows(columns: Sequence[str], rows: Sequence[Sequence[Any]], ending: str) -> bytes:
    """The printed table as CSV, or as a JSON list with one object a row; numbers keep all their digits."""
    if ending == ".json":
        records = [dict(zip(columns, row, strict=True)) for row in rows]
        return f"{json.dumps(records, indent=1, ensure_ascii=False, default=str)}\n".encode()
    text = io.StringIO(newline="")
    csv.writer(text).writerows([columns, *rows])
    return text.getvalue().encode()
