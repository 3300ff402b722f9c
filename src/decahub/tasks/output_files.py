"""Names for the files that `decahub predict` writes: one for each input, none overwritten."""

import os
from pathlib import Path


class OutputFiles:
    """Chooses and writes output files."""

    def __init__(self, folder: Path | None = None, overwrite: bool = False):
        self.folder = folder
        self.overwrite = overwrite
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
        if target.exists() and not self.overwrite:
            raise FileExistsError(
                f"`{target}` exists already. Choose another `--output-dir`, or replace it with `--overwrite`."
            )
        return target

    def write(self, target: Path, data: bytes) -> Path:
        """Write a file that appears whole."""
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.partial")
        partial.write_bytes(data)
        os.replace(partial, target)
        return target
