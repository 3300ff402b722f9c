"""Names for the files that `decahub predict` writes: one for each input, none overwritten."""

import os
from collections.abc import Iterable
from pathlib import Path


class OutputFiles:
    """Chooses and writes output files."""

    def __init__(self, folder: Path | None = None, overwrite: bool = False, inputs: Iterable[Path] = ()):
        self.folder = folder
        self.overwrite = overwrite
        self.inputs = {path.resolve() for path in inputs}
        self._sources: dict[Path, Path] = {}

    def choose(self, source: Path, ending: str) -> Path:
        """The file for what is made of `source`: its name without suffix, then `ending`.

        Inputs of one name in different folders get the name of their folder in front.
        """
        parts = source.resolve().parts[1:-1]
        for depth in range(len(parts) + 1):
            stem = "_".join([*parts[len(parts) - depth :], source.stem])
            target = (self.folder or source.parent) / f"{stem}{ending}"
            if self._sources.setdefault(target, source.resolve()) == source.resolve():
                break
        return self.check(target)

    def check(self, target: Path, option: str = "--output-dir") -> Path:
        """The file, if it may be written; `option` says where it goes.

        Raises:
            FileExistsError: If it is one of the inputs, or exists and is not to be replaced.
        """
        if target.resolve() in self.inputs:
            raise FileExistsError(f"`{target}` is one of the inputs. Choose another `{option}`.")
        if target.exists() and not self.overwrite:
            raise FileExistsError(
                f"`{target}` exists already. Choose another `{option}`, or replace it with `--overwrite`."
            )
        return target

    def write(self, target: Path, data: bytes) -> Path:
        """Write a file that appears whole."""
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.partial")
        partial.write_bytes(data)
        os.replace(partial, target)
        return target
