"""Running the scripts of `examples/` as a user does."""

import contextlib
import io
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

from transformers.utils import logging

from decahub.cli.main import main


PROJECT = Path(__file__).resolve().parents[2]
EXAMPLES = PROJECT / "examples"


LAUNCHERS = {
    "python": ((), 1),
    "accelerate": ((sys.executable, "-m", "accelerate.commands.launch", "--cpu"), 1),
    "torchrun": ((sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"), 2),
}  # by name: the words before the script, and the number of processes that train


def run(script: Path, *words: str | Path, launcher: str = "python") -> str:
    """Runs a script and returns what it printed; a failing one fails the test.

    "python" means this process, which has the libraries in memory already; another launcher starts its own.
    """
    if launcher == "python":
        return _run_here(script, *words)
    finished = subprocess.run(
        [str(word) for word in (*LAUNCHERS[launcher][0], script, *words)],
        cwd=PROJECT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    return finished.stdout


def _run_here(script: Path, *words: str | Path) -> str:
    # Scripts of all methods have the same names, so what one imports from its folder is forgotten afterwards.
    arguments, path, verbosity = sys.argv, list(sys.path), logging.get_verbosity()
    output = io.StringIO()
    try:
        sys.argv = [str(script), *map(str, words)]
        sys.path.insert(0, str(script.parent))
        with contextlib.chdir(PROJECT), contextlib.redirect_stdout(output):
            runpy.run_path(str(script), run_name="__main__")
    finally:
        sys.argv, sys.path[:] = arguments, path
        logging.set_verbosity(verbosity)
        for name, module in list(sys.modules.items()):
            if Path(getattr(module, "__file__", None) or "").is_relative_to(EXAMPLES):
                del sys.modules[name]
    return output.getvalue()


def decahub(*words: str | Path) -> str:
    """What a command of `decahub` prints; a failing one fails the test."""
    verbosity = logging.get_verbosity()
    output = io.StringIO()
    try:
        with contextlib.chdir(PROJECT), contextlib.redirect_stdout(output):
            assert main([str(word) for word in words]) == 0
    finally:
        logging.set_verbosity(verbosity)
    return output.getvalue()


def evaluate(model: Path, dataset: Path, task: str, split: str = "test/1") -> str:
    """What `decahub evaluate` prints of a model on one's own data."""
    return decahub("evaluate", model, "--dataset", dataset, "--task", task, "--split", split)


def copy_stopped_run(run_folder: Path, target: Path, step: int) -> None:
    """Make a folder as a run leaves it that was stopped after `step`."""
    shutil.copytree(run_folder / f"checkpoint-{step}", target / f"checkpoint-{step}")
