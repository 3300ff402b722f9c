"""A Hub on loopback with two published models, and the client in processes of its own.

`huggingface_hub` reads its endpoint when it is imported, and a process that has imported decahub cannot show how it
is without: so everything that talks to the server runs in fresh processes.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors.torch import load_file

from tests.hub.builders import build_image, build_model_folder, build_segmentation_folder
from tests.hub.stand_in import HubStandIn


CLASSIFIER, SEGMENTER = "someone/emo-tiny", "someone/emo-tiny-segmenter"
LOADER = Path(__file__).with_name("load_published.py")
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def hub():
    with HubStandIn() as server:
        yield server


@pytest.fixture(scope="session")
def run_client(hub, tmp_path_factory) -> Callable[..., subprocess.CompletedProcess]:
    """Runs Python with the given words in a fresh process that takes the stand-in for the Hub."""

    def run(
        *words: str | os.PathLike, home: Path | None = None, endpoint: str | None = None
    ) -> subprocess.CompletedProcess:
        environment = {
            **os.environ,
            "HF_ENDPOINT": endpoint or hub.endpoint,
            "HF_HOME": str(home or tmp_path_factory.mktemp("home")),
            "HF_HUB_OFFLINE": "0",
            "HF_TOKEN": "hf_of_nobody",
            "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]),
        }
        command = [sys.executable, *map(str, words)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, cwd=REPOSITORY)

    return run


@pytest.fixture(scope="session")
def classifier_folder(tmp_path_factory) -> Path:
    """Folder of a classification model; read-only."""
    return build_model_folder(tmp_path_factory.mktemp("folders") / "emo-tiny")


@pytest.fixture(scope="session")
def segmenter_folder(tmp_path_factory) -> Path:
    """Folder of a segmentation model; read-only."""
    return build_segmentation_folder(tmp_path_factory.mktemp("folders") / "emo-tiny-segmenter")


@pytest.fixture(scope="session")
def published(hub, run_client, classifier_folder, segmenter_folder):
    """The stand-in, after `decahub publish` of both folders; `requests` are those of the first."""
    folders = {CLASSIFIER: classifier_folder, SEGMENTER: segmenter_folder}
    requests = []
    for repo_id, folder in folders.items():
        before = len(hub.requests)
        done = run_client("-m", "decahub.cli.main", "publish", folder, repo_id)
        assert done.returncode == 0, done.stderr
        requests.append(hub.requests[before:])
    return SimpleNamespace(repository=hub.repositories[CLASSIFIER], requests=requests[0])


@pytest.fixture(scope="session")
def image(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("images") / "noise.png"
    build_image(seed=3).save(path)
    return path


def load_in_fresh_process(run_client, image: Path, output_dir: Path, *flags: str) -> SimpleNamespace:
    """What `load_published.py` saw: facts, and tensors."""
    done = run_client(LOADER, CLASSIFIER, SEGMENTER, image, output_dir, *flags)
    assert done.returncode == 0, done.stderr
    facts = json.loads((output_dir / "facts.json").read_text())
    return SimpleNamespace(facts=facts, tensors=load_file(output_dir / "tensors.safetensors"))


@pytest.fixture(scope="session")
def loaded_without_decahub(published, run_client, image, tmp_path_factory) -> SimpleNamespace:
    output_dir = tmp_path_factory.mktemp("without")
    return load_in_fresh_process(run_client, image, output_dir, "--without-decahub")


@pytest.fixture(scope="session")
def loaded_with_decahub(published, run_client, image, tmp_path_factory) -> SimpleNamespace:
    return load_in_fresh_process(run_client, image, tmp_path_factory.mktemp("with"))
