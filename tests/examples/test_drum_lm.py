"""Each script of Drum LM runs from end to end on a few made-up grooves, and what it writes loads and composes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM, pipeline

from decahub.models.drum_lm.midi.codec import DrumCodec, DrumRoll
from tests.tiny.drum_lm import build_bpe_tokenizer
from tests.tiny.drum_lm_model import BACKBONE

from .scripts import EXAMPLES, copy_stopped_run, decahub, run


SCRIPTS = EXAMPLES / "drum_lm"
SMALL_MODEL = EXAMPLES.parent / "model_cards" / "drum-lm-small-groove"
STEPS = 16
TINY_MODEL = json.dumps(
    {
        "backbone_config": {
            "model_type": "llama",
            "vocab_size": 68,
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 0,
        }
    }
)


@pytest.fixture(scope="module")
def grooves(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("grooves")
    for split, count in (("train", 8), ("validation", 2), ("test", 2)):
        (folder / split).mkdir()
        for number in range(count):
            hits = np.random.default_rng(number).random((5 * STEPS, 6)) < 0.2
            hits[::STEPS, 3] = True
            data = DrumCodec().to_midi(DrumRoll(hits, STEPS, (4, 4), 100.0))
            (folder / split / f"{number}.mid").write_bytes(data)
    # As one groove of the real data: nothing to learn from, and no reason to stop.
    (folder / "train" / "silent.mid").write_bytes(DrumCodec().to_midi(np.zeros((5 * STEPS, 6))))
    return folder


@pytest.fixture(scope="module")
def language_model(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("language_model")
    tokenizer = build_bpe_tokenizer()
    LlamaForCausalLM(LlamaConfig(**{**BACKBONE, "vocab_size": len(tokenizer) + 3})).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


# One precision for all runs of a process, which Accelerate does not let change it.
TINY = [
    "--per_device_train_batch_size", "2",
    "--logging_steps", "1",
    "--mixed_precision", "no",
    "--card_license", "cc-by-4.0",
]  # fmt: skip


def test_a_small_model_is_trained_and_composes(grooves, tmp_path):
    decahub("train", "drum_lm/small", *TINY, "--dataset", grooves, "--config", TINY_MODEL, "--max_steps", "2",
            "--output_dir", tmp_path)  # fmt: skip

    compose = pipeline("drum-generation", model=str(tmp_path / "model"))
    (answer,) = compose((grooves / "test" / "0.mid").read_bytes(), bars=4, seed=0)
    assert answer["valid"]
    assert answer["bars"] == 4
    assert answer["midi"].startswith(b"MThd")
    assert answer["png"].startswith(b"\x89PNG")
    assert answer["wav"].startswith(b"RIFF")


def test_an_adapter_is_trained_and_saved_alone(language_model, grooves, tmp_path):
    pytest.importorskip("peft")

    run(SCRIPTS / "train.py", "drum_lm/adapter", *TINY, "--dataset", grooves, "--backbone", language_model,
        "--repo_id", "me/language-model", "--adapter", "{r: 2}", "--max_steps", "2",
        "--output_dir", tmp_path)  # fmt: skip

    assert all("lora_" in name for name in load_file(tmp_path / "model" / "model.safetensors"))
    compose = pipeline("drum-generation", model=str(tmp_path / "model"), base_model=str(language_model))
    assert compose(None, bars=2, seed=0, outputs=[])[0]["valid"]


def test_training_resumes_bit_exactly(grooves, tmp_path):
    def go(name: str) -> None:
        run(SCRIPTS / "train.py", "drum_lm/small", *TINY, "--dataset", grooves, "--config", TINY_MODEL,
            "--max_steps", "4", "--save_steps", "2", "--output_dir", tmp_path / name)  # fmt: skip

    go("whole")
    copy_stopped_run(tmp_path / "whole", tmp_path / "broken", step=2)
    go("broken")

    whole, broken = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "broken"))
    assert all(torch.equal(value, broken[name]) for name, value in whole.items())


def test_reproduce_compares_pretrained_and_random(language_model, grooves, tmp_path):
    shared = json.dumps(
        {
            "dataset": str(grooves),
            "tokenization": "text",
            "augmentation": {"bars": 4},
            "max_steps": 2,
            "eval_steps": 1,
            "logging_steps": 1,
            "per_device_train_batch_size": 2,
            "processor": {"bars": 5},
        }
    )
    words = ("drum_lm/reproduce", "--backbone", language_model, "--shared", shared, "--seeds", "[29, 30]",
             "--learning_rates", "[1e-4, 1e-3]", "--sweep_steps", "1", "--num_curve_grooves", "2",
             "--sampled_models", f"[{SMALL_MODEL}]",
             "--output_dir", tmp_path / "runs", "--results_dir", tmp_path / "results")  # fmt: skip

    run(SCRIPTS / "reproduce.py", *words)

    comparison = json.loads((tmp_path / "results" / "drum_lm.json").read_text())
    assert [part["num_pairs"] for part in comparison["comparisons"]] == [2] * 6
    assert {row["model"].split(":")[0] for row in comparison["rows"]} == {
        "pre-trained on text", "the same architecture, random weights", "counting",
    }  # fmt: skip
    structure = json.loads((tmp_path / "results" / "drum_lm_structure.json").read_text())
    models = {row["model"]: row["seeds"] for row in structure["rows"]}
    assert models["pre-trained on text"] == [29]
    assert models["human"] == []
    assert models["drum-lm-small-groove"] == [0]
    assert (tmp_path / "results" / "drum_lm_curves.png").read_bytes().startswith(b"\x89PNG")
    output = run(SCRIPTS / "reproduce.py", *words)
    assert output.count("bits per step") == 8, "finished runs are read, not repeated"
