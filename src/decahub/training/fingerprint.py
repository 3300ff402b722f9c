"""What a run is: its recipe and its data, in a form that a checkpoint keeps and a later start is compared with."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Subset

from decahub.seeding import seeded_random_state


# Data are read in full as far as this goes, evenly divided among rows; values that are larger are read in part.
BYTES_IN_FULL = 1 << 26
MIN_BYTES_PER_VALUE = 256
# Rows that are looked at where reading one is expensive (an image is decoded, a file is opened).
NUM_EXPENSIVE_ROWS = 256
WEIGHTS = (".safetensors", ".gguf")


def fingerprint_recipe(arguments: Any) -> dict[str, Any]:
    """Arguments that identify a run, as JSON values.

    Left out are the fields that the classes of `arguments`, a dataclass, list in `MAY_CHANGE`. Teachers on the disk
    count with the content of their files.
    """
    may_change = {name for base in type(arguments).__mro__ for name in getattr(base, "MAY_CHANGE", ())}
    values = {item.name: getattr(arguments, item.name) for item in dataclasses.fields(arguments)}
    kept = {name: value for name, value in values.items() if name not in may_change}
    teachers = {name: value for name, value in kept.items() if name.startswith("teacher") and isinstance(value, str)}
    digests = {f"files of `{name}`": _digest_files(Path(value)) for name, value in teachers.items()}
    kept |= {name: digest for name, digest in digests.items() if digest is not None}
    return json.loads(json.dumps(kept, default=str))


def _digest_files(path: Path) -> str | None:
    """Hash of a file or of the weights in a folder; none if there are none."""
    files = sorted(file for ending in WEIGHTS for file in path.glob(f"*{ending}")) if path.is_dir() else [path]
    if not path.exists() or not files:
        return None
    digest = hashlib.blake2b(digest_size=16)
    for file in files:
        with file.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()


def find_differences(saved: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Values (saved, given) of each name in both that differ; what only one has is of another version of decahub."""
    return {name: (value, given[name]) for name, value in saved.items() if name in given and given[name] != value}


def fingerprint_data(dataset: Any) -> str:
    """Hash of the content and order of a dataset, equal in every process and wherever its files are.

    - Rows in memory (a sequence, a tensor, `InMemoryDataset`) are all read: up to 64 MiB in full, beyond that each
      large value by its shape and an evenly spaced sample.
    - The columns of a `datasets.Dataset` that hold one number or text a row are read in full, with the names of
      classes; the others (images, lists) in 256 evenly spaced rows. Files are read, not decoded.
    - Of another `torch.utils.data.Dataset`, tensors and lists of numbers among its attributes are read in full, and
      256 evenly spaced items. Items that differ between two readings count by their shapes.
    - `SeededTransform` counts as the dataset that it transforms; its transform belongs to the recipe.

    So a change outside of the sampled rows or elements of large values is not noticed.
    """
    content = _Content()
    with seeded_random_state("fingerprint"):
        content.add_dataset(dataset)
    return content.digest.hexdigest()


class _Content:
    """A hash that data are added to, piece by piece, each with its type and size."""

    def __init__(self) -> None:
        self.digest = hashlib.blake2b(digest_size=16)
        self.bytes_per_value = BYTES_IN_FULL

    def add_dataset(self, dataset: Any) -> None:
        self._mark("dataset", len(dataset))
        self._add_names(getattr(dataset, "features", None))
        self.bytes_per_value = max(MIN_BYTES_PER_VALUE, BYTES_IN_FULL // max(1, len(dataset)))
        if hasattr(dataset, "fingerprint_source"):
            self.add_dataset(dataset.fingerprint_source)
        elif isinstance(dataset, Subset):
            self.add(np.asarray(dataset.indices))
            self.add_dataset(dataset.dataset)
        elif hasattr(dataset, "column_names") and hasattr(dataset, "with_format"):
            self._add_table(dataset)
        elif isinstance(dataset, (torch.Tensor, np.ndarray)):
            self.bytes_per_value = BYTES_IN_FULL
            self.add(dataset)
        elif isinstance(dataset, (list, tuple)) or isinstance(getattr(dataset, "rows", None), list):
            for row in getattr(dataset, "rows", dataset):
                self.add(row)
        else:
            self._add_attributes(dataset)
            self._add_expensive_rows(dataset)

    def add(self, value: Any) -> None:
        """Add one value of a row."""
        if isinstance(value, torch.Tensor):
            self._add_tensor(value)
        elif isinstance(value, np.ndarray) and value.dtype != object:
            self._add_bytes(f"{value.dtype}{value.shape}", value.reshape(-1))
        elif isinstance(value, (bytes, bytearray)):
            self._add_bytes("bytes", np.frombuffer(value, np.uint8))
        elif isinstance(value, (str, os.PathLike)):
            path = Path(value)  # which tells where data are, not what
            self._mark("text", path.name if path.is_absolute() else value)
        elif isinstance(value, Mapping):
            self._mark("mapping", len(value))
            for name, item in value.items():
                self._mark("key", name)
                self.add(item)
        elif isinstance(value, (list, tuple, np.ndarray)):
            self._add_list(value)
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            self.add({item.name: getattr(value, item.name) for item in dataclasses.fields(value)})
        elif hasattr(value, "__array_interface__"):  # an image
            self.add(np.asarray(value))
        elif value is None or isinstance(value, (bool, int, float, complex, np.generic)):
            self._mark("number", value)
        else:
            self._mark("object", type(value).__qualname__)

    def _mark(self, kind: str, value: Any) -> None:
        self.digest.update(f"{kind}\0{value!s}\0".encode(errors="surrogatepass"))

    def _add_tensor(self, tensor: torch.Tensor) -> None:
        if tensor.layout != torch.strided:
            tensor = tensor.detach().to_sparse_coo().coalesce()
            self._mark("sparse", tuple(tensor.shape))
            self._add_tensor(tensor.indices())
            tensor = tensor.values()
        flat = tensor.detach().reshape(-1)
        flat = flat[:: self._find_stride(flat.numel() * flat.element_size())].cpu().contiguous()
        content = flat.view(torch.uint8).numpy() if flat.numel() else np.empty(0, np.uint8)
        self._mark("tensor", f"{tensor.dtype}{tuple(tensor.shape)}")
        self.digest.update(content.tobytes())

    def _add_bytes(self, kind: str, values: np.ndarray) -> None:
        self._mark(kind, len(values))
        self.digest.update(values[:: self._find_stride(values.nbytes)].tobytes())

    def _find_stride(self, num_bytes: int) -> int:
        return max(1, -(-num_bytes // self.bytes_per_value))

    def _add_list(self, values: Any) -> None:
        if values is not None and len(values) and all(type(value) in (bool, int, float) for value in values):
            try:
                self.add(np.asarray(values))
                return
            except (ValueError, OverflowError):
                pass  # integers of more than 64 bits
        self._mark("list", len(values))
        for value in values:
            self.add(value)

    def _add_names(self, features: Any) -> None:
        """Columns and the names of their classes, of the features of a `datasets.Dataset`."""
        if not isinstance(features, Mapping):
            return
        for name, feature in features.items():
            self._mark("column", name)
            feature = getattr(feature, "feature", feature)
            self.add(list(getattr(feature, "names", None) or []))

    def _add_table(self, table: Any) -> None:
        """A `datasets.Dataset`: columns of one number or text a row in full, the others in some rows."""
        from datasets import Array2D, Audio, ClassLabel, Image, Value

        # Arrays as lists of lists would take a hundred times as long to read.
        arrays = [name for name, feature in table.features.items() if isinstance(feature, Array2D)]
        table = table.with_format("numpy", columns=arrays, output_all_columns=True)
        for name, feature in table.features.items():
            if isinstance(feature, (Image, Audio)):
                table = table.cast_column(name, type(feature)(decode=False))
            if isinstance(feature, ClassLabel) or (isinstance(feature, Value) and "binary" not in feature.dtype):
                self.add(table[name][:])
        for index in _choose_rows(len(table)):
            self.add({name: _read_file(value) for name, value in table[index].items()})

    def _add_attributes(self, dataset: Any) -> None:
        for name, value in sorted(getattr(dataset, "__dict__", {}).items()):
            is_numbers = isinstance(value, (list, tuple)) and all(isinstance(v, (bool, int, float)) for v in value)
            if name == "classes" or is_numbers or isinstance(value, (torch.Tensor, np.ndarray)):
                self._mark("attribute", name)
                self.add(value)

    def _add_expensive_rows(self, dataset: Any) -> None:
        for index in _choose_rows(len(dataset)):
            readings = []
            for _ in range(2):
                reading = _Content()
                reading.bytes_per_value = self.bytes_per_value
                with seeded_random_state("fingerprint", index):
                    row = dataset[index]
                reading.add(row)
                readings.append(reading.digest.hexdigest())
            self._mark("row", readings[0] if readings[0] == readings[1] else _describe_shapes(row))


def _choose_rows(num_rows: int) -> Iterator[int]:
    """Evenly spaced rows, the first and the last among them."""
    number = min(num_rows, NUM_EXPENSIVE_ROWS)
    return (index * (num_rows - 1) // max(1, number - 1) for index in range(number))


def _read_file(value: Any) -> Any:
    """The bytes of an image or a sound that was not decoded, wherever they are kept."""
    if isinstance(value, Mapping) and set(value) == {"bytes", "path"}:
        if value["bytes"] is None and value["path"] is not None:
            return Path(value["path"]).read_bytes()
        return value["bytes"]
    return value


def _describe_shapes(row: Any) -> str:
    if isinstance(row, Mapping):
        return str({name: _describe_shapes(value) for name, value in row.items()})
    if isinstance(row, (list, tuple)):
        return str([_describe_shapes(value) for value in row])
    return f"{type(row).__name__}{tuple(getattr(row, 'shape', ()))}"
