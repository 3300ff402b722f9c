"""What is said of hardware, versions and command line, and what is kept out of it."""

from pathlib import Path

import pytest
import torch

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
    ],
    ids=["script", "console", "options"],
)
def test_command_holds_no_path_of_the_machine(words, expected, monkeypatch):
    monkeypatch.setattr("sys.argv", [word.format(cwd=Path.cwd()) for word in words])

    assert describe_command() == expected
