"""Downloads that break off, and downloads that arrive: nothing incomplete is ever taken for a model."""

import hashlib

import pytest

from decahub.hub import verify
from tests.hub.conftest import CLASSIFIER


BREAK_AT = 50_000  # inside the weights, after several chunks
# Chunks of the client are 10 MB, larger than our files; what it has of an unfinished chunk is not kept.
DOWNLOAD = """
import sys
import huggingface_hub.file_download as file_download
from huggingface_hub import constants, hf_hub_download

constants.DOWNLOAD_CHUNK_SIZE = 4096
file_download.time.sleep = lambda seconds: None
print(hf_hub_download(sys.argv[1], "model.safetensors"))
"""
SNAPSHOT = "import sys, huggingface_hub as hub; hub.snapshot_download(sys.argv[1], local_dir=sys.argv[2])"


@pytest.fixture
def broken_hub(hub, published):
    """The stand-in, healed after the test."""
    hub.requests.clear()
    yield hub
    hub.heal()


@pytest.fixture(scope="module")
def weights(published):
    return published.repository.trees[published.repository.resolve("main")]["model.safetensors"]


def get_ranges(hub) -> list[str | None]:
    return [sent for method, path, sent in hub.requests if method == "GET" and path.endswith("model.safetensors")]


def test_download_goes_on_where_the_connection_broke(broken_hub, run_client, tmp_path, weights):
    broken_hub.break_off("model.safetensors", BREAK_AT, times=1)

    done = run_client("-c", DOWNLOAD, CLASSIFIER, home=tmp_path)

    assert done.returncode == 0, done.stderr
    with open(done.stdout.strip(), "rb") as file:
        assert file.read() == weights
    first, second = get_ranges(broken_hub)
    assert first is None
    assert 0 < int(second.removeprefix("bytes=").removesuffix("-")) <= BREAK_AT


def test_lost_connection_leaves_no_file_and_a_later_download_succeeds(broken_hub, run_client, tmp_path, weights):
    broken_hub.break_off("model.safetensors", BREAK_AT)
    lost = run_client("-c", DOWNLOAD, CLASSIFIER, home=tmp_path)
    left = list(tmp_path.rglob("model.safetensors"))
    broken_hub.heal()

    again = run_client("-c", DOWNLOAD, CLASSIFIER, home=tmp_path)

    assert lost.returncode != 0
    assert left == []
    with open(again.stdout.strip(), "rb") as file:
        assert hashlib.sha256(file.read()).hexdigest() == hashlib.sha256(weights).hexdigest()


@pytest.fixture(scope="module")
def download(published, run_client, tmp_path_factory):
    """A downloaded repository."""
    folder = tmp_path_factory.mktemp("download")
    done = run_client("-c", SNAPSHOT, CLASSIFIER, folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_a_download_verifies(download, monkeypatch):
    monkeypatch.delenv("DECAHUB_DATA_DIR", raising=False)  # its scores are made up

    report = verify(download)

    assert [(check.name, check.outcome) for check in report.checks] == [
        ("files", "passed"),
        ("configuration", "passed"),
        ("weights", "passed"),
        ("processor", "passed"),
        ("card scores", "passed"),
        ("card text", "passed"),
        ("figures", "not done"),
    ]


def test_a_tampered_download_is_refused(download, tmp_path):
    weights = download / "model.safetensors"
    original = weights.read_bytes()
    weights.write_bytes(original[:-2] + bytes([original[-2] ^ 1]) + original[-1:])

    report = verify(download)
    weights.write_bytes(original)

    assert report.exit_code == 1
    assert report.checks[0].outcome == "failed"
    assert "model.safetensors does not match the hash" in report.checks[0].detail
