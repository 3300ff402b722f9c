"""A checkpoint that would run code, or is damaged, is refused with one sentence; nothing is executed or written."""

import argparse
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from conversion.checkpoint import ConversionError, read_checkpoint
from conversion.convert_emo import main


class Hostile:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch '{self.mark}'",)


def write_zip(content, path: Path) -> None:
    torch.save(content, path)


def write_legacy(content, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def write_plain(content, path: Path) -> None:
    path.write_bytes(pickle.dumps(content))


WRITERS = {"zip": write_zip, "legacy": write_legacy, "plain": write_plain}


@pytest.fixture
def mark(tmp_path) -> Path:
    return tmp_path / "was_executed"


@pytest.mark.parametrize("writer", WRITERS.values(), ids=WRITERS)
def test_hostile_pickle_would_have_run(writer, mark, tmp_path):
    # Without this, the tests below could pass for want of danger.
    writer(Hostile(mark), tmp_path / "net.pth")

    if writer is write_plain:
        pickle.loads((tmp_path / "net.pth").read_bytes())
    else:
        torch.load(tmp_path / "net.pth", weights_only=False)

    assert mark.exists()


@pytest.mark.parametrize("writer", WRITERS.values(), ids=WRITERS)
@pytest.mark.parametrize(
    "wrap",
    [
        lambda hostile: hostile,
        lambda hostile: {"net": {"stage0.0.convs.0.0.weight": torch.zeros(24, 3, 3, 3)}, "optimizer": hostile},
        lambda hostile: {"stage0.0.convs.0.0.weight": [hostile]},
    ],
    ids=["bare", "beside-weights", "as-a-weight"],
)
def test_converter_refuses_a_hostile_pickle(writer, wrap, mark, tmp_path):
    checkpoint, folder = tmp_path / "net.pth", tmp_path / "emo"
    writer(wrap(Hostile(mark)), checkpoint)

    with pytest.raises(SystemExit, match=r"'net\.pth' was refused and nothing in it was executed") as refusal:
        main(["--checkpoint", str(checkpoint), "--output_dir", str(folder)])

    assert "weights_only" not in str(refusal.value)  # torch's own advice is to load it without protection
    assert not mark.exists()
    assert not folder.exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("keep", [0.0, 0.5, 0.98], ids=["empty", "half", "last-bytes-lost"])
def test_converter_refuses_a_truncated_file(suffix, keep, tmp_path):
    checkpoint = tmp_path / f"net{suffix}"
    tensors = {"stage0.0.convs.0.0.weight": torch.zeros(24, 3, 3, 3)}
    (save_file if suffix == ".safetensors" else torch.save)(tensors, checkpoint)
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content[: int(keep * len(content))])

    with pytest.raises(SystemExit, match="must be an undamaged file"):
        main(["--checkpoint", str(checkpoint), "--output_dir", str(tmp_path / "emo")])

    assert not (tmp_path / "emo").exists()


def test_converter_refuses_a_file_that_is_no_checkpoint(tmp_path):
    (tmp_path / "net.pth").write_text("<!DOCTYPE html> Not Found")

    with pytest.raises(SystemExit, match="must be an undamaged file"):
        main(["--checkpoint", str(tmp_path / "net.pth"), "--output_dir", str(tmp_path / "emo")])


def test_converter_names_a_file_that_is_absent(tmp_path):
    with pytest.raises(SystemExit, match=r"must be a file; there is none at '.*absent\.pth'"):
        main(["--checkpoint", str(tmp_path / "absent.pth"), "--output_dir", str(tmp_path / "emo")])


def test_command_line_of_a_training_run_is_harmless(tmp_path):
    torch.save({"net": {"a": torch.ones(2)}, "args": argparse.Namespace(epochs=300)}, tmp_path / "net.pth")

    assert read_checkpoint(tmp_path / "net.pth")["args"].epochs == 300


def test_other_classes_are_refused_unless_a_converter_names_them(tmp_path):
    torch.save({"where": Path("net")}, tmp_path / "net.pth")

    with pytest.raises(ConversionError, match="was refused"):
        read_checkpoint(tmp_path / "net.pth")
