"""Drum models as repositories: complete ones and adapters, with decahub and in a process that cannot import it."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from decahub import DrumLmForCausalLM, DrumLmProcessor
from decahub.hub import verify
from decahub.hub.files import read_json
from decahub.hub.flattening import flatten_modules
from decahub.registry import METHODS, find_modules
from tests.hub.builders import (
    build_drum_adapter_folder,
    build_drum_base,
    build_drum_folder,
    build_groove,
    build_grooves,
)


LOADER = Path(__file__).with_name("load_published_drums.py")
LOCAL_CLASSES = {
    "AutoConfig": "DrumLmConfig",
    "AutoProcessor": "DrumLmProcessor",
    "AutoModelForCausalLM": "DrumLmForCausalLM",
}
BARS_OF_THE_CARD, PROMPT_BARS = 16, 2
STEPS_PER_BAR, TEMPO = 12, 94.0  # neither is what a file without them has
ROOM_FILES = set(flatten_modules(find_modules(METHODS["drum_lm"], METHODS["drum_lm"].models[0]).values()))


def build_complete(parent: Path) -> SimpleNamespace:
    return SimpleNamespace(folder=build_drum_folder(parent / "drum-lm-tiny"), base=None)


def build_adapter(parent: Path) -> SimpleNamespace:
    pytest.importorskip("peft")
    base = build_drum_base(parent / "base")
    folder = build_drum_adapter_folder(parent / "drum-lm-tiny-adapter", base)
    return SimpleNamespace(folder=folder, base=shutil.copytree(base, parent / "base_elsewhere"))


@pytest.fixture(scope="module", params=[build_complete, build_adapter], ids=["complete", "adapter"])
def model(request, tmp_path_factory):
    """Folder of a model, and where the base of its adapters is."""
    return request.param(tmp_path_factory.mktemp("folders"))


@pytest.fixture(autouse=True)
def beside_the_base(request, monkeypatch):
    """A folder of adapters knows the name of its base and no path to it."""
    if "model" in request.fixturenames:
        monkeypatch.chdir(request.getfixturevalue("model").folder.parent)


@pytest.fixture(scope="module")
def groove(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("grooves") / "groove.mid"
    path.write_bytes(build_groove(seed=3, steps_per_bar=STEPS_PER_BAR, tempo=TEMPO))
    return path


@pytest.fixture(scope="module")
def published(hub, run_client, model):
    """Id and newest content of the repository, path -> bytes."""
    repo_id = f"someone/{model.folder.name}"
    done = run_client("-m", "decahub.cli.main", "publish", model.folder, repo_id)
    assert done.returncode == 0, done.stderr
    repository = hub.repositories[repo_id]
    return SimpleNamespace(repo_id=repo_id, tree=repository.trees[repository.resolve("main")])


@pytest.fixture(scope="module")
def load(run_client, model, published, groove, tmp_path_factory):
    """Runs `load_published_drums.py` once for each set of flags, and returns what it wrote."""
    loaded = {}

    def run(*flags: str) -> SimpleNamespace:
        if flags not in loaded:
            output_dir = tmp_path_factory.mktemp("loaded")
            base = ["--base", model.base] if model.base else []
            done = run_client(LOADER, published.repo_id, groove, output_dir, *base, *flags)
            assert done.returncode == 0, done.stderr
            loaded[flags] = SimpleNamespace(
                facts=json.loads((output_dir / "facts.json").read_text()),
                tensors=load_file(output_dir / "tensors.safetensors"),
                midi=(output_dir / "continued.mid").read_bytes(),
            )
        return loaded[flags]

    return run


@pytest.fixture(params=[(), ("--without-decahub",)], ids=["with decahub", "without decahub"])
def loaded(request, load):
    return load(*request.param)


@pytest.fixture(scope="module")
def read_hits(model):
    """The hits of a MIDI file up to the end of its last bar, with room for more bars than were asked for."""
    processor = DrumLmProcessor.from_pretrained(model.folder)

    def read(midi: bytes) -> np.ndarray:
        hits = processor.read(midi, bars=2 * BARS_OF_THE_CARD).hits
        num_bars = np.flatnonzero(hits.any(1))[-1] // STEPS_PER_BAR + 1
        return hits[: num_bars * STEPS_PER_BAR]

    return read


# What is staged


def test_repository_holds_the_folder_and_the_room(model, published):
    folder_files = {path.name for path in model.folder.iterdir()}

    assert set(published.tree) == folder_files | ROOM_FILES | {".gitattributes"}
    assert ("chat_template.jinja" in published.tree) == bool(model.base)


def test_configurations_name_the_code(published):
    assert json.loads(published.tree["config.json"])["auto_map"] == {
        "AutoConfig": "configuration_drum_lm.DrumLmConfig",
        "AutoModelForCausalLM": "modeling_drum_lm.DrumLmForCausalLM",
    }
    assert json.loads(published.tree["processor_config.json"])["auto_map"] == {
        "AutoProcessor": "processing_drum_lm.DrumLmProcessor"
    }


def test_card_of_a_repository_shows_both_ways(published):
    text = published.tree["README.md"].decode()

    assert f'pipeline("drum-generation", model="{published.repo_id}", trust_remote_code=False)' in text
    assert '("grammar_constraint_drum_lm.DrumGrammarLogitsProcessor", "someone/' in text
    assert "custom_code" in text


# What loads


@pytest.mark.parametrize("auto_class", LOCAL_CLASSES)
def test_auto_class_finds_the_class(loaded, auto_class):
    assert loaded.facts[auto_class]["class"] == LOCAL_CLASSES[auto_class]


@pytest.mark.parametrize("auto_class", LOCAL_CLASSES)
def test_code_comes_from_the_repository_only_without_decahub(load, auto_class):
    assert load().facts[auto_class]["module"].startswith("decahub.models.drum_lm.")
    assert load("--without-decahub").facts[auto_class]["module"].startswith("transformers_modules.")


def test_same_bits_as_the_folder(model, loaded, groove):
    local = DrumLmForCausalLM.from_pretrained(model.folder)
    inputs = DrumLmProcessor.from_pretrained(model.folder)(str(groove), return_tensors="pt")

    with torch.inference_mode():
        logits = local(**inputs).logits

    assert torch.equal(loaded.tensors["input_ids"], inputs["input_ids"])
    assert torch.equal(loaded.tensors["logits"], logits)


def test_adapters_stand_on_the_base_that_is_given(model, loaded):
    assert loaded.facts["base"] == (str(model.base) if model.base else "")


def test_lines_of_the_card_continue_a_groove_to_the_bars_asked_for(loaded, groove, read_hits):
    given, steps = read_hits(groove.read_bytes()), PROMPT_BARS * STEPS_PER_BAR

    hits = read_hits(loaded.midi)

    assert len(hits) == BARS_OF_THE_CARD * STEPS_PER_BAR
    assert np.array_equal(hits[:steps], given[:steps])
    assert not np.array_equal(hits[steps : len(given)], given[steps:])


def test_lines_of_the_card_keep_meter_and_tempo(model, loaded):
    roll = DrumLmProcessor.from_pretrained(model.folder).read(loaded.midi)

    assert (roll.time_signature, roll.steps_per_bar) == ((3, 4), STEPS_PER_BAR)
    assert roll.tempo == pytest.approx(TEMPO, abs=0.01)  # MIDI counts microseconds


def test_both_ways_of_the_card_write_the_same_groove(load, read_hits):
    assert np.array_equal(read_hits(load().midi), read_hits(load("--without-decahub").midi))


# Verification


@pytest.mark.parametrize("limit", [None, 2])
def test_verify_measures_the_grooves_again(model, tmp_path, limit):
    report = verify(model.folder, build_grooves(tmp_path / "data"), limit)

    names = [check.name for check in report.checks][6:]
    assert report.exit_code == (3 if limit else 0), report
    assert names == ["bits_per_step", "bits_per_step_of_lines", *(["all examples"] if limit else [])]


def test_verify_notices_a_wrong_score(tmp_path):
    evaluation = read_json(build_drum_folder(tmp_path / "first") / "evaluation.json")
    evaluation["figures"][0]["value"] += 0.01
    folder = build_drum_folder(tmp_path / "second", evaluation=evaluation)

    assert verify(folder, build_grooves(tmp_path / "data")).exit_code == 1


def test_verify_without_the_data_says_so(model, monkeypatch):
    monkeypatch.delenv("DECAHUB_DATA_DIR", raising=False)

    assert verify(model.folder).exit_code == 3
