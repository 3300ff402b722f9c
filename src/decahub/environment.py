"""What a run ran on, in words for cards and evaluation files."""

import platform
import re
import shlex
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch


PACKAGES = ("decahub", "torch", "torchvision", "transformers", "accelerate", "datasets", "evaluate")


def describe_hardware() -> str:
    """Processor or accelerator and the number of threads, such as "Intel Xeon (x86_64), 2 threads"."""
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is not None:
        return f"{torch.accelerator.device_count()} x {accelerator.type}"
    threads = torch.get_num_threads()
    return f"{_get_processor_name()} ({platform.machine()}), {threads} thread{'s' if threads > 1 else ''}"


def describe_versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that a result may depend on."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def describe_command() -> str:
    """The command line of this process, as a reader would type it: paths inside the working folder are relative."""
    program = Path(sys.argv[0])
    words = [_shorten(word) for word in sys.argv[1:]]
    if program.suffix == ".py":
        return shlex.join(["python", _shorten(str(program)), *words])
    return shlex.join([program.name, *words])


def _shorten(word: str) -> str:
    """A path without what is particular to this machine: relative inside the working folder, else its last part."""
    option, equals, value = word.rpartition("=")
    path = Path(value)
    if not path.is_absolute():
        return word
    return option + equals + (str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else path.name)


def _get_processor_name() -> str:
    processors = Path("/proc/cpuinfo")
    if processors.exists():
        match = re.search(r"^model name\s*:\s*(.+)$", processors.read_text(encoding="utf-8"), re.MULTILINE)
        if match:
            return match.group(1).strip()
    return platform.processor() or "processor"


__all__ = ["describe_command", "describe_hardware", "describe_versions"]
