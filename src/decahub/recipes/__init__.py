"""The recipes that ship with decahub, by name: `emo/cifar10` is the file `emo/cifar10.yaml` of this folder.

Imports no other library.
"""

from difflib import get_close_matches
from pathlib import Path


FOLDER = Path(__file__).parent
SUFFIXES = (".yaml", ".yml")


def list_recipes() -> list[str]:
    """Names of the recipes that train one model, sorted; those of `reproduce*.py` are left out."""
    return [name for name in _list_names() if "/reproduce" not in name]


def _list_names() -> list[str]:
    return sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.glob("*/*.yaml"))


def find_recipe(name: str) -> Path:
    """The file of a recipe: the path of a YAML file, or the name of a recipe that ships with decahub."""
    path = Path(name)
    if path.is_file():
        return path
    shipped = "/".join(path.with_suffix("").parts[-2:])  # also by an older path, such as examples/emo/cifar10.yaml
    if shipped in _list_names() and (name == shipped or path.suffix in SUFFIXES):
        return FOLDER / f"{shipped}.yaml"
    if path.suffix not in SUFFIXES:
        nearest = get_close_matches(name, _list_names(), n=1, cutoff=0.4)
        hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
        raise FileNotFoundError(
            f"The recipe must be a YAML file or one of `decahub train --list`; got {name!r}.{hint}"
        )
    raise FileNotFoundError(f"The recipe must be a YAML file; {name!r} does not exist (seen from {Path.cwd()}).")


__all__ = ["find_recipe", "list_recipes"]
