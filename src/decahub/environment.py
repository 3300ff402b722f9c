"""What a run ran on, in words for cards and evaluation files, and what must not leave this machine."""

import os
import platform
import re
import shlex
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PureWindowsPath
from typing import Any


PACKAGES = ("decahub", "torch", "torchvision", "transformers", "accelerate", "datasets", "evaluate")
MASK = "***"
SECRET_WORDS = r"(?:token|secret|password|passwd|api[_-]?key|access[_-]?key|private[_-]?key|credentials)"
# Names of the special tokens of tokenizers are no secrets.
SECRET_KEY = re.compile(
    rf"(?:^|.*[_-])(?<!bos_)(?<!eos_)(?<!pad_)(?<!unk_)(?<!cls_)(?<!sep_)(?<!mask_){SECRET_WORDS}$", re.IGNORECASE
)
SECRET_SHAPES = re.compile(
    r"\bhf_[A-Za-z0-9]{16,}|\bsk-[\w-]{16,}|\bgh[opsu]_[A-Za-z0-9]{16,}|\bgithub_pat_\w{16,}|\bglpat-[\w-]{16,}"
    r"|\bxox[abprs]-[\w-]{10,}|\bAKIA[0-9A-Z]{16}\b|\bAIza[\w-]{30,}|\beyJ[\w-]{8,2000}\.[\w-]{8,2000}\.[\w-]*"
    r"|\bnpm_[A-Za-z0-9]{16,}|\bpypi-[\w-]{16,}|\br8_[A-Za-z0-9]{16,}|-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----"
    r"|(?<=://)[^/\s@'\"]{1,300}(?=@)"  # user and password of an address
)
# A long word of letters and digits after the name of a secret.
NAMED_SECRET = re.compile(
    rf"({SECRET_WORDS}['\"]?\s*[:=]\s*['\"]?|\bBearer\s+)"
    r"(?=[^\s\d]{0,99}\d)(?=[^\sA-Za-z]{0,99}[A-Za-z])[\w+/.~-]{12,}+(?!\()",  # no call in code
    re.IGNORECASE,
)
ROOT = r"(?:file:/+|~[\w.-]*[/\\]|(?:[\w.-]+[/\\])*\.\.[/\\]|[A-Za-z]:[\\/](?!/)|\\\\(?=\w)|/(?!/))"
PATH = re.compile(rf"(?<![\w./\\~<-]){ROOT}[^\s'\"<>|,;()\[\]{{}}]*")
WHOLE_PATH = re.compile(rf"{ROOT}[^\n]*")


def describe_hardware() -> str:
    """Processor or accelerator and the number of threads, such as "Intel Xeon (x86_64), 2 threads"."""
    import torch  # only here: cards are made without it

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
    """The command line of this process, as a reader would type it: no path of this machine and no secret."""
    program = Path(sys.argv[0])
    words: list[str] = []
    for word in sys.argv[1:]:
        follows_secret = bool(words) and words[-1].startswith("--") and is_secret_name(words[-1][2:])
        words.append(MASK if follows_secret else _redact_word(word))
    if program.suffix == ".py":
        return shlex.join(["python", _redact_word(str(program)), *words])
    return shlex.join([program.name, *words])


def _redact_word(word: str) -> str:
    """A word of a command line; a path inside the working folder is relative to it."""
    option, equals, value = word.partition("=") if word.startswith("--") and "=" in word else ("", "", word)
    if is_secret_name(option[2:]):
        return option + equals + MASK
    if Path(value).is_absolute() and Path(value).is_relative_to(Path.cwd()) and ".." not in Path(value).parts:
        return option + equals + str(Path(value).relative_to(Path.cwd()))
    return option + equals + redact(value)


def redact(value: Any, key: str = "") -> Any:
    """A value of a recipe, configuration or record without what belongs to this machine and its user.

    Paths that are absolute, lead upwards or to a home directory become their last part, at every depth; what looks
    like an access token or password becomes `***`.
    """
    if isinstance(value, Mapping):
        return {redact(name): redact(item, str(name)) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [redact(item, key) for item in value]
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str):
        return value
    if is_secret_name(key):
        return MASK if value else value
    return PATH.sub(lambda match: shorten_path(match[0]), shorten_path(mask_secrets(value)))


def shorten_path(text: str) -> str:
    """The last part of a text that is a path of this machine; any other text as it is."""
    if not WHOLE_PATH.fullmatch(text):
        return text
    return PureWindowsPath(text.rstrip("/\\")).name or text  # reads both kinds of slashes


def mask_secrets(text: str) -> str:
    """A text with `***` in place of what looks like an access token or password."""
    return NAMED_SECRET.sub(rf"\g<1>{MASK}", SECRET_SHAPES.sub(MASK, text))


def is_secret_name(name: str) -> bool:
    """Whether a value of this name is a secret, such as that of `hf_token`."""
    return SECRET_KEY.match(name) is not None


def _get_processor_name() -> str:
    processors = Path("/proc/cpuinfo")
    if processors.exists():
        match = re.search(r"^model name\s*:\s*(.+)$", processors.read_text(encoding="utf-8"), re.MULTILINE)
        if match:
            return match.group(1).strip()
    return platform.processor() or "processor"
