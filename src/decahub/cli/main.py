"""Entry point of `decahub`: reads the command line, runs one command, turns errors into one clear line.

Modules of commands import nothing heavy at their top, so that `decahub --help` answers at once.
"""

import argparse
import importlib
import linecache
import sys
import traceback
from collections.abc import Sequence


COMMANDS = (
    "list",
    "info",
    "train",
    "predict",
    "evaluate",
    "audit",
    "convert",
    "verify",
    "card",
    "publish",
    "new-method",
)
# Libraries that are not among the dependencies of the core, and the extra that brings each.
EXTRAS = {
    "accelerate": "train",
    "datasets": "train",
    "evaluate": "train",
    "gguf": "drum_lm",
    "onnx": "export",
    "peft": "drum_lm",
    "scipy": "all",
    "sklearn": "train",
    "torch_geometric": "raw_gnn",
}
NETWORK_LIBRARIES = ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3")
EXIT_ERROR = 2
EXIT_INTERRUPTED = 130

DESCRIPTION = "Ten published research methods as transformers models: inspect, train, predict, evaluate, publish."
EPILOG = """examples:
  decahub list
  decahub info emo
  decahub predict runs/emo/model *.jpg
  decahub verify runs/emo/model --data-dir ~/data

A model folder is what a training run saves as <output_dir>/model, or a download of a published repository; trained
ones are in model_cards/ of decahub's own repository. Each command has its own help: decahub predict --help"""


def build_parser(words: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The parser of all commands; `words` of the command line may give a command further options."""
    parser = argparse.ArgumentParser(
        "decahub", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    subparsers = parser.add_subparsers(dest="command", metavar="command", required=True)
    for name in COMMANDS:
        module = importlib.import_module(f"decahub.cli.{name.replace('-', '_')}")
        subparser = subparsers.add_parser(
            name,
            help=module.HELP,
            description=module.HELP[0].upper() + module.HELP[1:] + ".",
            epilog=f"examples:\n{module.EXAMPLES}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name == "predict":  # its options depend on the model
            module.add_arguments(subparser, words[1:] if words[:1] == [name] else ())
        else:
            module.add_arguments(subparser)
        subparser.add_argument("--debug", action="store_true", help="show the whole traceback of an error")
        subparser.set_defaults(run=module.run)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `decahub` with the given arguments, by default those of the process, and returns its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = build_parser(words).parse_args(words)
    try:
        return options.run(options)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except Exception as error:
        if options.debug or not is_user_error(error):
            raise
        print(f"decahub {options.command}: {describe(error)}", file=sys.stderr)
        return EXIT_ERROR


def is_user_error(error: Exception) -> bool:
    """Whether an error comes from what was given (files, arguments, a missing extra) and not from a bug of ours."""
    # Only now, because these imports cost more than most commands.
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    if isinstance(error, (ValueError, OSError, ImportError, StrictDataclassError, SafetensorError)):
        return True
    if type(error).__module__.partition(".")[0] in NETWORK_LIBRARIES:
        return True
    # Checks of ours raise these in a line of ours; what Python or torch itself raises there is a bug.
    if not isinstance(error, (TypeError, RuntimeError)) or error.__traceback__ is None:
        return False
    frame, number = list(traceback.walk_tb(error.__traceback__))[-1]
    line = linecache.getline(frame.f_code.co_filename, number)
    return frame.f_globals.get("__name__", "").startswith("decahub.") and line.lstrip().startswith("raise ")


def describe(error: Exception) -> str:
    """An error and its notes on one line; a missing library with the extra that brings it."""
    message = " ".join([str(error), *getattr(error, "__notes__", [])])
    extra = EXTRAS.get((error.name or "").partition(".")[0]) if isinstance(error, ImportError) else None
    if extra is not None and "pip install" not in message:
        message = f"{message}. Run `pip install 'decahub[{extra}]'`."
    return " ".join(message.split()) or type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
