"""Converters from the authors' checkpoints to decahub folders: the folder `conversion/` of the repository.

A wheel has that folder in place of this file (`[tool.setuptools.package-dir]`); in a checkout it is found from here.
"""

from pathlib import Path


__path__ = [str(Path(__file__).resolve().parents[3] / "conversion")]
