"""What all tests share. This file runs before torch and the libraries that read the variables below are imported."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest


REPOSITORY = Path(__file__).parents[1]
HF_HOME = Path(tempfile.mkdtemp(prefix="decahub-tests-"))  # of this process alone: no test sees what another cached

os.environ.update(
    {
        "HF_HOME": str(HF_HOME),
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
        "TOKENIZERS_PARALLELISM": "false",
        # One thread: sums come out in one order, and workers do not fight for cores.
        "MKL_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }
)
# The caches of a user's own settings would win over HF_HOME.
for name in ("HF_DATASETS_CACHE", "HF_HUB_CACHE", "HF_MODULES_CACHE", "HF_TOKEN", "HF_ENDPOINT"):
    os.environ.pop(name, None)


def pytest_unconfigure() -> None:
    shutil.rmtree(HF_HOME, ignore_errors=True)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of the real datasets."""
    folder = os.environ.get("DECAHUB_DATA_DIR")
    if not folder:
        pytest.skip("needs real data: set DECAHUB_DATA_DIR to the folder that holds the datasets")
    if not Path(folder).is_dir():
        pytest.fail(f"DECAHUB_DATA_DIR must name a folder; got {folder!r}")
    return Path(folder)


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """Folder of the golden files, one subfolder for each method."""
    return Path(os.environ.get("DECAHUB_GOLDEN_DIR") or REPOSITORY / "tests" / "fixtures" / "golden")


@pytest.fixture(scope="session")
def run_python() -> Callable[..., str]:
    """Runs a script in a fresh process and returns what it printed; a failing script fails the test and is shown."""

    def run(script: str, *arguments: str | os.PathLike) -> str:
        command = [sys.executable, "-c", script, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=REPOSITORY)
        if done.returncode:
            pytest.fail(f"the script ended with {done.returncode}:\n{done.stdout}\n{done.stderr}", pytrace=False)
        return done.stdout

    return run
