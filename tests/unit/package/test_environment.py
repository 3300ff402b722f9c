"""What is said of hardware, versions and command line, and what is kept out of it."""

import time
from pathlib import Path

import pytest
import torch

from decahub.environment import redact
from decahub.training import describe_command, describe_hardware, describe_versions


def test_hardware_names_threads():
    if torch.accelerator.is_available():
        pytest.skip("the machine has an accelerator, which is named instead of threads")
    threads = torch.get_num_threads()

    assert describe_hardware().endswith(f", {threads} thread{'s' if threads > 1 else ''}")


def test_versions_are_those_installed():
    versions = describe_versions()

    assert versions["torch"] == torch.__version__.partition("+")[0]  # without the build
    assert next(iter(versions)) == "python"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["{cwd}/examples/emo/train.py", "a b.yaml"], "python examples/emo/train.py 'a b.yaml'"),
        (["/opt/bin/decahub", "verify", "/home/me/model"], "decahub verify model"),
        (
            ["train.py", "--output_dir={cwd}/runs", "--data_dir=/data/x"],
            "python train.py --output_dir=runs --data_dir=x",
        ),
        (
            ["train.py", "--config", "{{teacher: ~/x/y.npz, parts: [../z.npz]}}"],
            "python train.py --config '{teacher: y.npz, parts: [z.npz]}'",
        ),
        (["train.py", "--token", "x", "--pad_token", "<pad>"], "python train.py --token '***' --pad_token '<pad>'"),
        (["train.py", "--hub_token=abc", "hf_" + "a1" * 12], "python train.py '--hub_token=***' '***'"),
        (["train.py", "../../home/r.yaml"], "python train.py r.yaml"),
    ],
    ids=["script", "console", "options", "nested", "secret", "secret option", "upwards"],
)
def test_command_holds_no_path_of_the_machine(words, expected, monkeypatch):
    monkeypatch.setattr("sys.argv", [word.format(cwd=Path.cwd()) for word in words])

    assert describe_command() == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("/home/me/run", "run"),
        ("/home/John Smith/my run/", "my run"),
        ("~/data/x", "x"),
        ("../../a/b", "b"),
        ("a/../../b", "b"),
        (r"C:\Users\me\x.npz", "x.npz"),
        (r"\\server\share\x", "x"),
        ("file:///home/me/x", "x"),
        (Path("/home/me/run"), "run"),
        ("see /home/me/plan.txt now", "see plan.txt now"),
        ({"a": [{"b": ("/x/y", 3)}]}, {"a": [{"b": ["y", 3]}]}),
    ],
    ids=str,
)
def test_paths_are_reduced_to_their_last_part(given, expected):
    assert redact(given) == expected


@pytest.mark.parametrize(
    "text", ["runs/emo", "and/or", "1 / 2", "/", "~", "</s>", "https://a.org/b/c", "owner/name", "a:b", "24/7, ~5 %"]
)
def test_other_slashes_stay(text):
    assert redact(text) == text


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("a hf_" + "aB3" * 8 + ".", "a ***."),
        ("ghp_" + "a" * 36, "***"),
        ({"r8_" + "a1" * 18: "/home/me/x"}, {"***": "x"}),
        ("eyJhbGciOiJI.eyJzdWIiOiIx.c2lnbmF0", "***"),
        ("https://me:pass@a.org/b", "https://***@a.org/b"),
        ('{"api_key": "0123456789abcdef"}', '{"api_key": "***"}'),
        ("HF_TOKEN=0123456789abcdef x", "HF_TOKEN=*** x"),
        (
            {"wandb_api_key": "x", "password": "y", "hf_token": "z"},
            dict.fromkeys(["wandb_api_key", "password", "hf_token"], "***"),
        ),
    ],
)
def test_secrets_are_masked(given, expected):
    assert redact(given) == expected


@pytest.mark.parametrize(
    "value",
    [
        {"pad_token": "<pad>", "eos_token": "END"},
        {"num_tokens": 3, "token": None},
        "the separator token: EPERIOD",
        "0" * 64,
        "self.cls_token = nn2.Parameter(torch.zeros(1))",
    ],
)
def test_tokens_of_tokenizers_and_hashes_are_no_secrets(value):
    assert redact(value) == value


@pytest.mark.parametrize("text", ["token:" * 20_000, "eyJ-" * 30_000, "a/" * 50_000, "~" * 50_000, "://" * 30_000])
def test_odd_texts_take_no_time(text):
    started = time.process_time()

    redact(text)

    assert time.process_time() - started < 2
