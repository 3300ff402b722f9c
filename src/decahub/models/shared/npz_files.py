"""Arrays of `.npz` files, whose sizes are looked at before memory is taken."""

import math
import os
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import numpy as np


def read_npz(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """All arrays of a file, without pickles.

    Args:
        path (`str` or `PathLike`): the file.

    Raises:
        ValueError: If it is damaged, holds pickled objects, or announces more than it holds or memory can take.
    """
    try:
        with ZipFile(path) as archive:
            check_memory(sum(_read_size(archive, name) for name in archive.namelist()), f"the arrays of `{path}`")
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except (BadZipFile, EOFError, TypeError, NotImplementedError) as error:
        raise _describe(path, error) from error
    except ValueError as error:
        if "must" in str(error):
            raise
        raise _describe(path, error) from error


def check_memory(size: int, what: str) -> None:
    """Refuses to take more bytes than the machine has; `what` is what would take them."""
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 2**36
    if size > available:
        raise ValueError(f"{what} must fit into memory, {available / 2**30:.0f} GiB; got {size / 2**30:.0f} GiB.")


def _read_size(archive: ZipFile, name: str) -> int:
    """Bytes of an array, from its header."""
    with archive.open(name) as file:
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(file)
        size, held = math.prod(shape) * dtype.itemsize, archive.getinfo(name).file_size - file.tell()
    if size > held and not dtype.hasobject:
        raise ValueError(
            f"`{Path(name).stem}` in `{archive.filename}` must hold the {size} bytes that its header announces; got "
            f"{held}."
        )
    return size


def _describe(path: str | os.PathLike, error: Exception) -> ValueError:
    return ValueError(f"`{path}` must be an intact .npz file without pickled objects; got: {error}.")


__all__ = ["check_memory", "read_npz"]
