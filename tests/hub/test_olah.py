"""A published model downloaded through a server that is not ours: olah, as a mirror of a git repository.

olah wants its own environment: `python -m venv olah && olah/bin/pip install olah`, `DECAHUB_OLAH=olah/bin/olah-cli`.
As a mirror it answers 401 for files that a repository does not have, where the Hub says 404; loading by id asks for
such files, so the whole repository is downloaded and loaded from its folder.
"""

import os
import socket
import subprocess
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from decahub import EmoForImageClassification, EmoImageProcessor
from decahub.hub import stage_repository
from tests.hub.conftest import CLASSIFIER


OLAH = os.environ.get("DECAHUB_OLAH")
SECONDS_TO_START = 90
LOAD = """
import sys
sys.modules["decahub"] = None
import torch
from huggingface_hub import snapshot_download
from PIL import Image
from safetensors.torch import save_file
from transformers import AutoImageProcessor, AutoModelForImageClassification

repo, image, target = sys.argv[1:]
folder = snapshot_download(repo)
model = AutoModelForImageClassification.from_pretrained(folder, trust_remote_code=True)
inputs = AutoImageProcessor.from_pretrained(folder, trust_remote_code=True)(Image.open(image), return_tensors="pt")
with torch.inference_mode():
    save_file({"logits": model(**inputs).logits}, target)
"""
CONFIG = """
[basic]
host = "127.0.0.1"
port = {port}
repos-path = "{folder}/repos"
mirrors-path = ["{folder}/mirrors"]

[accessibility]
offline = true
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(OLAH is None, reason="needs olah: set DECAHUB_OLAH to its olah-cli (see the docstring)"),
]


def commit(repository: Path) -> None:
    identity = ["-c", "user.name=someone", "-c", "user.email=someone@localhost"]
    for words in (["init", "-q", "-b", "main"], ["add", "--all"], [*identity, "commit", "-q", "-m", "Upload"]):
        subprocess.run(["git", *words], cwd=repository, check=True)


def find_free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for(port: int, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    pytest.fail(f"olah did not start within {SECONDS_TO_START} seconds; exit code {process.poll()}")


@pytest.fixture(scope="module")
def olah(classifier_folder, tmp_path_factory):
    """Endpoint of an olah server that mirrors the published repository."""
    folder, port = tmp_path_factory.mktemp("olah"), find_free_port()
    repository = folder / "mirrors" / "models" / CLASSIFIER
    repository.mkdir(parents=True)
    stage_repository(classifier_folder, CLASSIFIER, repository)
    commit(repository)
    (folder / "olah.toml").write_text(CONFIG.format(port=port, folder=folder))
    with open(folder / "log.txt", "w") as log:
        command = [OLAH, "--config", folder / "olah.toml", "--log-path", folder / "logs"]
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        wait_for(port, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=30)


def test_loads_with_the_same_bits_through_another_server(olah, run_client, classifier_folder, image, tmp_path):
    done = run_client("-c", LOAD, CLASSIFIER, image, tmp_path / "logits.safetensors", endpoint=olah)

    assert done.returncode == 0, done.stderr
    inputs = EmoImageProcessor.from_pretrained(classifier_folder)(Image.open(image), return_tensors="pt")
    with torch.inference_mode():
        expected = EmoForImageClassification.from_pretrained(classifier_folder)(**inputs).logits
    assert torch.equal(load_file(tmp_path / "logits.safetensors")["logits"], expected)
