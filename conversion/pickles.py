"""Model-zoo pickles of NumPy arrays, read without executing what is in them."""

import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from numpy._core import multiarray, numeric

from .checkpoint import ConversionError


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """How Python 3 writes bytes in the old protocols."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"an encoding that is not latin1: {encoding!r}")
    return text.encode("latin1")


ALLOWED: dict[tuple[str, str], Any] = {
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): OrderedDict,
    ("numpy", "dtype"): np.dtype,
    ("numpy", "ndarray"): np.ndarray,
    **{
        (f"numpy.{core}.multiarray", name): getattr(multiarray, name)
        for core in ("core", "_core")
        for name in ("_reconstruct", "scalar")
    },
    **{(f"numpy.{core}.numeric", "_frombuffer"): numeric._frombuffer for core in ("core", "_core")},
}
"""Everything that such a pickle may name."""


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return ALLOWED[module, name]


def read_array_pickle(path: str | os.PathLike) -> Any:
    """Content of a pickle of dictionaries, text, numbers and NumPy arrays.

    Args:
        path (`str` or `os.PathLike`): the file.

    Raises:
        FileNotFoundError: If there is no such file.
        ConversionError: If the file is damaged or names anything else; nothing of it is executed then.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"`checkpoint` must be a file; there is none at {str(path)!r}.")
    try:
        with open(path, "rb") as file:
            return _ArrayUnpickler(file, encoding="latin1").load()
    except Exception as error:  # a hostile or damaged file can fail in any way; none of them may pass
        raise ConversionError(
            f"`checkpoint` must be an undamaged pickle of NumPy arrays; {path.name!r} was refused and nothing in it "
            f"was executed ({type(error).__name__}: {error}). Download it again."
        ) from error


__all__ = ["read_array_pickle"]
