"""What all methods share: importing decahub, and how soon its command answers.

References: importing transformers, and the help of huggingface_hub's command.
"""

import sys
from pathlib import Path

from .timing import Case, Sampler, timed_command, timed_import


def build_import(folder: Path) -> tuple[Sampler, Sampler]:
    return timed_import("decahub"), timed_import("transformers")


def build_help(folder: Path) -> tuple[Sampler, Sampler]:
    return timed_command(find_script("decahub"), "--help"), timed_command(find_script("hf"), "--help")


def build_list(folder: Path) -> tuple[Sampler, Sampler]:
    return timed_command(find_script("decahub"), "list"), timed_command(find_script("hf"), "--help")


def find_script(name: str) -> str:
    """A command of the environment that runs this, whatever the path says."""
    return str(Path(sys.executable).with_name(name))


CASES = [
    Case("import decahub", "transformers: import", build_import),
    Case("decahub --help", "huggingface_hub: hf --help", build_help),
    Case("decahub list", "huggingface_hub: hf --help", build_list),
]
