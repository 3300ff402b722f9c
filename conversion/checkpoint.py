"""What every converter shares: reading a foreign file safely, comparing tensors bit by bit, writing a model folder."""

import argparse
import hashlib
import json
import os
import pickle
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import load_file


PARITY_REPORT = "parity_report.json"
MAX_NAMES_SHOWN = 8
# Training scripts often store their command line. A namespace holds attributes and runs nothing.
HARMLESS_CLASSES = (argparse.Namespace,)


class ConversionError(ValueError):
    """A checkpoint that cannot be converted; the message says which tensors are wrong and what to do."""


def read_checkpoint(path: str | os.PathLike, harmless_classes: Iterable[type] = ()) -> Any:
    """Content of a checkpoint of any PyTorch format or of a safetensors file, on the CPU.

    Only tensors and plain containers are ever built. A file whose pickle names any other class or function is refused
    as a whole, and nothing that it holds is executed.

    Args:
        path (`str` or `os.PathLike`): the file.
        harmless_classes (`Iterable[type]`): further classes that this kind of checkpoint is known to hold.

    Raises:
        FileNotFoundError: If there is no such file.
        ConversionError: If the file is damaged or holds more than tensors and plain containers.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"`checkpoint` must be a file; there is none at {str(path)!r}.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals([*HARMLESS_CLASSES, *harmless_classes]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a hostile or damaged file can fail in any way; none of them may pass
        # torch's own text advises to load the file without protection.
        unpickling = isinstance(error, pickle.UnpicklingError)
        reason = "it holds more" if unpickling else (str(error).strip() or "no reason given").splitlines()[0]
        raise ConversionError(
            f"`checkpoint` must be an undamaged file of tensors and plain containers; {path.name!r} was refused and "
            f"nothing in it was executed ({type(error).__name__}: {reason}). Download it again, or ask its authors "
            "for a plain state dict."
        ) from error


def sha256_of(path: str | os.PathLike) -> str:
    """Hexadecimal SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_is_state_dict(value: Any) -> dict[str, torch.Tensor]:
    """`value` as a dictionary from names to dense tensors.

    Raises:
        ConversionError: If it is anything else, or mixes floating types.
    """
    if not isinstance(value, Mapping) or not value:
        raise ConversionError(
            f"`checkpoint` must hold a state dict; got {type(value).__name__} instead of names and tensors."
        )
    for name, tensor in value.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor) or tensor.layout != torch.strided:
            raise ConversionError(
                f"`checkpoint` must map names to dense tensors; got {type(tensor).__name__} under {name!r}. Is it a "
                "training checkpoint of another project?"
            )
    dtypes = {str(tensor.dtype) for tensor in value.values() if tensor.is_floating_point()}
    if len(dtypes) > 1:
        raise ConversionError(
            f"`checkpoint` must have one floating type; got {sorted(dtypes)}. Cast it to one of them first."
        )
    return {name: tensor.detach() for name, tensor in value.items()}


def strip_prefix(state_dict: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The state dict without `prefix`, as often as all of its names begin with it."""
    names = list(state_dict)
    while names and all(name.startswith(prefix) for name in names):
        names = [name.removeprefix(prefix) for name in names]
    return dict(zip(names, state_dict.values(), strict=True))


def shapes_of(state_dict: Mapping[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state_dict.items()}


def check_tensors(state_dict: Mapping[str, torch.Tensor], expected: Mapping[str, tuple[int, ...]], architecture: str):
    """Compares names and shapes with those that an architecture has.

    Raises:
        ConversionError: If a tensor is missing, unexpected or of another shape; one message tells all errors.
    """
    missing = [name for name in expected if name not in state_dict]
    unexpected = [name for name in state_dict if name not in expected]
    misshapen = [
        f"{name} {list(tensor.shape)} instead of {list(expected[name])}"
        for name, tensor in state_dict.items()
        if name in expected and tuple(tensor.shape) != tuple(expected[name])
    ]
    problems = [
        f"{kind}: {_shorten(names)}"
        for kind, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen))
        if names
    ]
    if problems:
        raise ConversionError(
            f"The state dict must hold exactly the {len(expected)} tensors of {architecture}; {'; '.join(problems)}. "
            "Is the configuration that of the checkpoint?"
        )


def rename(state_dict: Mapping[str, torch.Tensor], translate: Callable[[str], str]) -> dict[str, torch.Tensor]:
    """The same tensors under translated names."""
    return {translate(name): tensor for name, tensor in state_dict.items()}


def find_changed_tensors(before: Mapping[str, torch.Tensor], after: Mapping[str, torch.Tensor]) -> list[str]:
    """Names of tensors that differ in presence, type, shape or any bit."""
    names = list(dict.fromkeys([*before, *after]))
    return [
        name for name in names if name not in before or name not in after or not _same_bits(before[name], after[name])
    ]


def write_model_folder(output_dir: str | os.PathLike, write: Callable[[Path], None]) -> Path:
    """Fills a folder under a temporary name and renames it, so that it exists complete or not at all.

    Args:
        output_dir (`str` or `os.PathLike`): the folder to make; it may exist if it is empty.
        write (`Callable[[Path], None]`): fills the folder that it is given.

    Raises:
        FileExistsError: If `output_dir` is a file or holds something.
    """
    output_dir = Path(output_dir).absolute()
    if output_dir.exists() and (not output_dir.is_dir() or any(output_dir.iterdir())):
        raise FileExistsError(
            f"`output_dir` must be new or empty; {str(output_dir)!r} is not. Remove it or choose another."
        )
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{output_dir.name}-", dir=output_dir.parent))
    try:
        write(temporary)
        temporary.chmod(0o755)  # mkdtemp makes it private
        os.replace(temporary, output_dir)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return output_dir


def write_parity_report(
    folder: Path,
    report: dict[str, Any],
    official: Mapping[str, torch.Tensor],
    revert: Callable[[Mapping[str, torch.Tensor]], dict[str, torch.Tensor]],
):
    """Reads the saved weights, takes them the way back, and writes the report if every bit of the file is there.

    Args:
        folder (`Path`): holds `model.safetensors`.
        report (`dict[str, Any]`): `round_trip.bit_equal` is filled in.
        official (`Mapping[str, torch.Tensor]`): what was read from the authors' file, without dropped tensors.
        revert (`Callable`): from our names and layout to the authors'.

    Raises:
        ConversionError: If a tensor did not survive the way there and back.
    """
    changed = find_changed_tensors(official, revert(load_file(folder / "model.safetensors")))
    if changed:
        raise ConversionError(f"Every tensor must survive the way there and back; {changed} did not.")
    report["round_trip"]["bit_equal"] = len(official)
    write_json(folder / PARITY_REPORT, report)


def run_converter(
    parser: argparse.ArgumentParser,
    convert: Callable[..., dict[str, Any]],
    format_report: Callable[[Mapping[str, Any]], str],
    arguments: Sequence[str] | None,
):
    """The command line of a converter: a refused file ends in one sentence; what is not given is left to `convert`."""
    options = {key: value for key, value in vars(parser.parse_args(arguments)).items() if value is not None}
    output_dir = options["output_dir"]
    try:
        report = convert(**options)
    except (ValueError, OSError, StrictDataclassError) as error:
        sys.exit(f"error: {error}")
    print(format_report(report))
    print(f"written         {output_dir}")


def write_json(path: Path, content: Mapping[str, Any]):
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _same_bits(first: torch.Tensor, second: torch.Tensor) -> bool:
    if first.dtype != second.dtype or first.shape != second.shape:
        return False
    # As bytes: NaN equals itself, and 0 differs from -0.
    first, second = (tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in (first, second))
    return torch.equal(first, second)


def _shorten(names: list[str]) -> str:
    shown = ", ".join(names[:MAX_NAMES_SHOWN])
    return shown if len(names) <= MAX_NAMES_SHOWN else f"{shown}, ... ({len(names)} in all)"


__all__ = [
    "PARITY_REPORT",
    "ConversionError",
    "check_is_state_dict",
    "check_tensors",
    "find_changed_tensors",
    "read_checkpoint",
    "rename",
    "run_converter",
    "sha256_of",
    "shapes_of",
    "strip_prefix",
    "write_json",
    "write_model_folder",
    "write_parity_report",
]
