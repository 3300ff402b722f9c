"""The files of a model folder: their names, and how each kind is read and written.

Nothing outside the folder is ever read or removed: a link that leaves it is refused, sizes are checked before content
is read, and YAML has no aliases, which could stand for more than memory holds.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml


CARD = "README.md"
CHECKSUMS = "SHA256SUMS"
CONFIG = "config.json"
EVALUATION = "evaluation.json"
RECIPE = "recipe.yaml"
SPLITS = "splits.json"
TRAIN_LOG = "train_log.jsonl"
TRAINING_MINUTES = "training_minutes"  # key of the last line of the log
WEIGHTS = re.compile(r"(model(-\d+-of-\d+)?|adapter_model)\.safetensors")
MAX_JSON_BYTES = 20_000_000
MAX_TEXT_BYTES = 1_000_000


# Names and places


def list_files(folder: Path) -> list[str]:
    """Names of the files that belong to a model folder, sorted: all but the checksums and hidden ones."""
    if not folder.is_dir():
        raise FileNotFoundError(f"`folder` must be a model folder; {str(folder)!r} is not a folder.")
    names = []
    for parent, folders, files in os.walk(folder):  # follows no links
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in (*folders, *files):
            path = Path(parent, name)
            if not name.startswith("."):
                check_link(folder, path)
                if path.is_file():
                    names.append(path.relative_to(folder).as_posix())
    return sorted(name for name in names if name != CHECKSUMS)


def check_link(folder: Path, path: Path) -> None:
    """Refuses a file that lies elsewhere. The files of a snapshot in the cache of the Hub are links to its blobs."""
    root, target = Path(os.path.realpath(folder)), Path(os.path.realpath(path))
    places = [root, root.parent.parent / "blobs"] if root.parent.name == "snapshots" else [root]
    if not any(target.is_relative_to(place) for place in places):
        name = path.relative_to(folder).as_posix()
        raise ValueError(
            f"A model folder must hold its files itself; {name} in {str(folder)!r} is a link that leaves the folder. "
            "Put a copy of the file in its place."
        )


def remove_files(folder: Path, names: Iterable[str]) -> None:
    """Removes regular files that lie in the folder; what is a link, or lies behind one, stays."""
    root = Path(os.path.realpath(folder))
    for name in names:
        path = root / name
        if path.is_file() and Path(os.path.realpath(path)) == path:
            path.unlink()


def hash_file(path: Path) -> str:
    """Sha256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# Writing


def write_text(path: Path, text: str) -> None:
    """Writes a text file under a temporary name and renames it."""
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_text(text, encoding="utf-8", newline="\n")
    os.replace(temporary, path)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON object as `save_pretrained` does, key order kept."""
    write_text(path, json.dumps(content, indent=2) + "\n")


class _PlainDumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def format_yaml(content: Mapping[str, Any], width: int) -> str:
    """A mapping as YAML without aliases, key order kept."""
    return yaml.dump(dict(content), Dumper=_PlainDumper, sort_keys=False, allow_unicode=True, width=width)


def write_yaml(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a YAML mapping."""
    write_text(path, format_yaml(content, width=120))


# Reading


def read_text(path: Path, max_bytes: int = MAX_TEXT_BYTES) -> str:
    """The text of a file of a model folder."""
    if not path.is_file():
        raise FileNotFoundError(f"A model folder must hold {path.name}; {str(path.parent)!r} has none.")
    check_link(path.parent, path)
    if path.stat().st_size > max_bytes:
        size = path.stat().st_size
        raise ValueError(f"{path.name} in {path.parent} must have at most {max_bytes:,} bytes; got {size:,}.")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name} in {path.parent} must be a text in UTF-8; {error}.") from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object."""
    return parse_json(read_text(path, MAX_JSON_BYTES), f"{path.name} in {path.parent}")


def parse_json(text: str, where: str) -> dict[str, Any]:
    """A JSON object in a text; `where` names it in messages."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:  # too many digits, too deep
        raise ValueError(f"{where} must be JSON; {error}.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{where} must hold a JSON object; got {type(content).__name__}.")
    return content


class _PlainLoader(yaml.SafeLoader):
    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError(f"aliases such as *{self.peek_event().anchor} are not read; write the value out")
        return super().compose_node(parent, index)


def parse_yaml(text: str, where: str) -> dict[str, Any]:
    """A YAML mapping without aliases in a text; `where` names it in messages."""
    try:
        content = yaml.load(text, Loader=_PlainLoader)
    except (yaml.YAMLError, ValueError, RecursionError, AttributeError, TypeError) as error:  # odd dates, keys, ...
        raise ValueError(f"{where} must be YAML; {error}.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{where} must hold a mapping; got {type(content).__name__}.")
    return content
