"""Flattening: the code that a model needs, as one flat folder of uniquely named files.

Rooms import each other's files relatively, from sub-folders and from `decahub/models/shared/`. transformers copies one
flat folder and knows only `from .file import name`. So the files that the classes of a model reach are copied under
flat names, and their import statements are rewritten; everything else in them stays byte for byte.
"""

import ast
import re
from collections.abc import Iterable, Iterator
from importlib.resources import files
from pathlib import Path

from decahub.registry import PUBLIC_NAMES


MODELS = "decahub.models"
SHARED = "shared"
# Contract files at the top of a room keep their names, whatever the room is called.
CONTRACT_FILE = re.compile(r"(configuration|modeling|feature_extraction|(\w+_)?processing)_\w+")
# How transformers looks for the files that a file needs, in docstrings as well.
RELATIVE_IMPORT_SCAN = re.compile(rb"^\s*(from)\s+\.\S+\s+import", re.MULTILINE)

Module = tuple[str, ...]


def flatten_modules(modules: Iterable[str], root: Path | None = None) -> dict[str, bytes]:
    """The files that modules of rooms need, with themselves, under their flat names: file name to content."""
    root = Path(str(files(MODELS))) if root is None else root
    waiting = [_split_path(module) for module in modules]
    sources: dict[str, Module] = {}
    contents: dict[str, bytes] = {}
    while waiting:
        module = waiting.pop()
        name = f"{_join_flat(module)}.py"
        if sources.setdefault(name, module) != module:
            both = ", ".join(sorted(f"{'/'.join(path)}.py" for path in (sources[name], module)))
            raise ValueError(f"Flat names of files must be unique; got {name} for {both}. Rename one of them.")
        if name not in contents:
            contents[name], targets = _rewrite_imports(module, root)
            waiting.extend(targets)
    return dict(sorted(contents.items()))


def get_reference(path: str) -> str:
    """A class or function of a room, by its path, as remote code names it: `midi_codec_drum_lm.DrumCodec`."""
    module, _, name = path.rpartition(".")
    return f"{_join_flat(_split_path(module))}.{name}"


def get_class_reference(class_name: str) -> str:
    """A public class of a room as `auto_map` names it: `<flat file>.<class>`."""
    return get_reference(f"{PUBLIC_NAMES[class_name]}.{class_name}")


def _split_path(module: str) -> Module:
    if not module.startswith(f"{MODELS}."):
        raise ValueError(f"Published code must be in {MODELS}; got {module!r}.")
    return tuple(module.removeprefix(f"{MODELS}.").split("."))


def _join_flat(module: Module) -> str:
    room, *inner = module
    name = "_".join(inner)
    if room == SHARED:
        return f"{SHARED}_{name}"
    is_contract = len(inner) == 1 and CONTRACT_FILE.fullmatch(name)
    return name if is_contract or name.endswith(f"_{room}") else f"{name}_{room}"


def _rewrite_imports(module: Module, root: Path) -> tuple[bytes, list[Module]]:
    """Content of a module with flat imports, and the modules that it imports."""
    path = root.joinpath(*module).with_suffix(".py")
    content = path.read_bytes()
    line_starts = [0, *(match.end() for match in re.finditer(rb"\n", content))]
    imports = list(_find_relative_imports(ast.parse(content, filename=str(path)), path))
    scanned = {content.count(b"\n", 0, match.start(1)) + 1 for match in RELATIVE_IMPORT_SCAN.finditer(content)}
    targets = [_resolve(node, module, root, path) for node in imports]
    if unlike := scanned.symmetric_difference(node.lineno for node in imports):
        raise ValueError(
            f"{path}:{min(unlike)}: a line that begins with a relative import must be an import statement, and a "
            "relative import must begin its line: transformers looks for them line by line, in texts as well."
        )
    for node, target in sorted(zip(imports, targets, strict=True), key=lambda item: -item[0].lineno):
        start = line_starts[node.lineno - 1] + node.col_offset
        end = line_starts[node.names[0].lineno - 1] + node.names[0].col_offset
        flat = f"from .{_join_flat(target)} import".encode()
        head = re.sub(rb"\Afrom\b.*?\bimport\b", flat, content[start:end], flags=re.DOTALL)
        content = content[:start] + head + content[end:]
    return content, targets


def _find_relative_imports(tree: ast.Module, path: Path) -> Iterator[ast.ImportFrom]:
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.level:
            yield node
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        if any(name.split(".")[0] == "decahub" for name in names):
            raise ValueError(
                f"{path}: a room must not import decahub absolutely; got {', '.join(names)!r}. Use a relative import "
                "of the room or of `..shared`."
            )


def _resolve(node: ast.ImportFrom, module: Module, root: Path, path: Path) -> Module:
    """The module that a relative import names."""
    where, written = f"{path}:{node.lineno}", f"{'.' * node.level}{node.module or ''}"
    names = ", ".join(alias.name for alias in node.names)
    if node.module is None:
        raise ValueError(f"{where}: a room must import names from a file; got `from {written} import {names}`.")
    target = (*module[: len(module) - node.level], *node.module.split("."))
    if node.level > len(module) or target[0] not in (module[0], SHARED):
        raise ValueError(f"{where}: a room must import only itself and `{SHARED}`; got `from {written} import`.")
    if root.joinpath(*target).is_dir():
        raise ValueError(
            f"{where}: a room must import names from a file; got `from {written} import {names}`, a folder. "
            f"Name the file in it, such as `from {written}.<file> import`."
        )
    return target
