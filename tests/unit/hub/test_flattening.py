"""Rooms with sub-folders and shared files become one flat folder that transformers' remote code can load."""

import importlib
import sys

import pytest
from transformers.dynamic_module_utils import get_relative_import_files

from decahub.hub.flattening import flatten_modules, get_class_reference, get_reference
from decahub.hub.publishing import add_processor_auto_map
from decahub.registry import METHODS, ModelEntry, find_modules


MODELING = '''"""A room. Umlauts before an import must not shift it: Größe."""

import math

from ..shared.losses import (
    compute_loss as loss,  # an alias
)
from .midi.codec import decode


def run() -> int:
    """Runs."""
    from .block import double

    return double(decode(loss(math.floor(1.5))))
'''
FILES = {
    "toy/modeling_toy.py": MODELING,
    "toy/block.py": "from .codec_toy import VALUE\n\n\ndef double(value):\n    return VALUE * value\n",
    "toy/codec_toy.py": "VALUE = 2\n",
    "toy/midi/codec.py": "from ...shared.checks import one\nfrom .notes import two\n\n\n"
    "def decode(value):\n    return value + one() + two()\n",
    "toy/midi/notes.py": "from ..block import double\n\n\ndef two():\n    return double(1)\n",
    "toy/unused.py": "from .missing import nothing\n",
    "shared/losses.py": "from .checks import one\n\n\ndef compute_loss(value):\n    return value + one()\n",
    "shared/checks.py": "def one():\n    return 1\n",
}
FLAT = {
    "block_toy.py",
    "codec_toy.py",
    "midi_codec_toy.py",
    "midi_notes_toy.py",
    "modeling_toy.py",
    "shared_checks.py",
    "shared_losses.py",
}


@pytest.fixture
def write_rooms(tmp_path):
    def write(**changes):
        root = tmp_path / "models"
        for name, text in (FILES | {name.replace("__", "/") + ".py": text for name, text in changes.items()}).items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text, encoding="utf-8")
        return root

    return write


def flatten(root):
    return flatten_modules(["decahub.models.toy.modeling_toy"], root)


def test_copies_what_is_reached_and_nothing_else(write_rooms):
    assert set(flatten(write_rooms())) == FLAT


def test_changes_import_statements_only(write_rooms):
    expected = (
        MODELING.replace("..shared.losses", ".shared_losses")
        .replace(".midi.codec", ".midi_codec_toy")
        .replace("from .block", "from .block_toy")
    )

    assert flatten(write_rooms())["modeling_toy.py"].decode() == expected


def test_flat_files_run_and_transformers_finds_them_all(write_rooms, tmp_path, monkeypatch):
    package = tmp_path / "flat_toy"
    package.mkdir()
    for name, content in flatten(write_rooms()).items():
        (package / name).write_bytes(content)
    monkeypatch.syspath_prepend(tmp_path)

    module = importlib.import_module("flat_toy.modeling_toy")
    found = get_relative_import_files(package / "modeling_toy.py")

    assert module.run() == 2 * (1 + 1 + 1 + 2)
    assert {name.rpartition("/")[2] for name in map(str, found)} == FLAT - {"modeling_toy.py"}
    for name in [name for name in sys.modules if name.startswith("flat_toy")]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("from . import codec_toy", "must import names from a file; got `from . import codec_toy`"),
        ("from .midi import codec", "got `from .midi import codec`, a folder"),
        ("from ..shared import losses", r"got `from \.\.shared import losses`, a folder"),
        ("from decahub.models.shared.losses import loss", "must not import decahub absolutely"),
        ("import decahub.registry", "must not import decahub absolutely"),
        ("from ..emo.block import x", "must import only itself and `shared`"),
        ("from ...registry import METHODS", "must import only itself and `shared`"),
        ('"""\n    from .codec_toy import VALUE\n"""', "must be an import statement"),
        ("if 1: from .codec_toy import VALUE", "must begin its line"),
    ],
    ids=["module", "package", "shared package", "absolute", "import", "other room", "upstairs", "docstring", "inline"],
)
def test_refuses_what_remote_code_cannot_have(write_rooms, line, message):
    with pytest.raises(ValueError, match=message):
        flatten(write_rooms(toy__block=f"{line}\n"))


def test_refuses_two_files_of_one_name(write_rooms):
    root = write_rooms(toy__block="from .midi_codec import decode\n", toy__midi_codec="decode = double = 1\n")

    with pytest.raises(ValueError, match=r"midi_codec_toy.py for toy/midi/codec.py, toy/midi_codec.py"):
        flatten(root)


@pytest.mark.parametrize(
    ("path", "reference"),
    [
        ("emo.modeling_emo.EmoModel", "modeling_emo.EmoModel"),
        ("doorping.image_processing_pil_convnet.Processor", "image_processing_pil_convnet.Processor"),
        ("drum_lm.midi.codec.DrumCodec", "midi_codec_drum_lm.DrumCodec"),
        ("drum_lm.codec_drum_lm.DrumCodec", "codec_drum_lm.DrumCodec"),
        ("shared.losses.check_labels", "shared_losses.check_labels"),
    ],
    ids=["contract", "other stem", "sub-folder", "has the suffix", "shared"],
)
def test_reference_names_the_flat_file(path, reference):
    assert get_reference(f"decahub.models.{path}") == reference


def test_reference_outside_of_the_rooms_is_refused():
    with pytest.raises(ValueError, match=r"must be in decahub.models; got 'decahub.registry'"):
        get_reference("decahub.registry.METHODS")


@pytest.mark.parametrize(
    ("method", "entry"),
    [(method, entry) for method in METHODS.values() for entry in method.models],
    ids=lambda value: getattr(value, "model_type", ""),
)
def test_every_room_flattens_with_all_its_public_classes(method, entry):
    modules = find_modules(method, entry)

    flat = flatten_modules(modules.values())

    assert {f"{get_class_reference(name).split('.')[0]}.py" for name in modules} <= set(flat)
    for name, content in flat.items():
        compile(content, name, "exec")


@pytest.mark.parametrize(
    ("backend", "expected"),
    [
        ("torchvision", "image_processing_emo.EmoImageProcessor"),
        ("pil", "image_processing_pil_emo.EmoImageProcessorPil"),
    ],
)
def test_processor_of_one_backend(backend, expected):
    processors = {"torchvision": "EmoImageProcessor", "pil": "EmoImageProcessorPil"}
    entry = ModelEntry("emo", "EmoConfig", {}, image_processors={backend: processors[backend]})

    content = add_processor_auto_map({"image_processor_type": processors[backend]}, entry)

    assert content["auto_map"] == {"AutoImageProcessor": expected}
