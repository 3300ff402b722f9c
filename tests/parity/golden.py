"""Golden files: numbers that the authors' code computed, found and read without knowing their names.

`$DECAHUB_GOLDEN_DIR/<method>/` holds safetensors files; without the variable, `tests/fixtures/golden/<method>/`. A
file's metadata tells what to check by its `golden_kind`, and lists the cases. The folder's README explains each key.
"""

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache, cached_property
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from conversion.deterministic_fill import fill_input, fill_labels, fill_state_dict


GOLDEN_DIR_VARIABLE = "DECAHUB_GOLDEN_DIR"
FIXTURES = Path(__file__).parents[1] / "fixtures" / "golden"
# A float64 result that is stored as float32 is off by half a unit in the last place; the other half is ours.
FLOAT32_STORAGE_RTOL = 2.0**-23


class Golden:
    """One golden file. Its tensors are shared among tests: read-only."""

    def __init__(self, path: Path):
        self.path = path
        with safe_open(path, framework="pt") as file:
            self.metadata: dict[str, str] = file.metadata() or {}

    @property
    def kind(self) -> str:
        return self.metadata.get("golden_kind", "none at all")

    @property
    def salt(self) -> str:
        return self.metadata.get("salt", "")

    @cached_property
    def tensors(self) -> dict[str, torch.Tensor]:
        with safe_open(self.path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dictionary)

    def __getitem__(self, key: str) -> torch.Tensor:
        if key not in self.tensors:
            raise KeyError(f"{self.path.name} has no {key!r}.")
        return self.tensors[key]

    def __contains__(self, key: str) -> bool:
        return key in self.tensors

    def group(self, prefix: str) -> dict[str, torch.Tensor]:
        """The tensors under a prefix, without it."""
        return {key.removeprefix(prefix): value for key, value in self.tensors.items() if key.startswith(prefix)}

    def json(self, key: str):
        """A metadata entry that holds JSON."""
        return json.loads(self.metadata[key])

    def unknown_keys(self, patterns: Iterable[str]) -> list[str]:
        """Keys that match none of the regular expressions, that is, numbers that nobody would look at."""
        return [key for key in self.tensors if not any(re.fullmatch(pattern, key) for pattern in patterns)]

    def find_salt(self, is_right: Callable[[str], bool]) -> str:
        """The salt of inputs and labels: that of the weights or none, whichever reproduces what the file stores."""
        for salt in (self.salt, ""):
            if is_right(salt):
                return salt
        raise AssertionError(f"The inputs of {self.path.name} cannot be reproduced from its salt {self.salt!r}.")


@cache
def load_golden(path: Path) -> Golden:
    return Golden(path)


def golden_folder(method: str) -> Path:
    return Path(os.environ.get(GOLDEN_DIR_VARIABLE) or FIXTURES) / method


def find_golden_files(method: str) -> list[Path]:
    """Every golden file of a method.

    Raises:
        FileNotFoundError: If there is none; a parity test without numbers would pass unseen.
    """
    folder = golden_folder(method)
    files = sorted(folder.rglob("*.safetensors"))
    if not files:
        raise FileNotFoundError(f"{folder} must hold golden files; set {GOLDEN_DIR_VARIABLE} to the folder above it.")
    return files


def golden_params(method: str, kind: str | None = None, cases: Callable[[Golden], Iterable] | None = None) -> list:
    """Parameters for `pytest.mark.parametrize`: each file of a kind, or each case of each such file.

    Args:
        method (`str`): folder of the method.
        kind (`str`, *optional*): the `golden_kind` wanted; all files by default.
        cases (`Callable[[Golden], Iterable]`, *optional*): names the cases of a file; parameters are pairs then.
    """
    params = []
    for path in find_golden_files(method):
        golden, name = load_golden(path), path.relative_to(golden_folder(method)).with_suffix("").as_posix()
        if kind not in (None, golden.kind):
            continue
        if cases is None:
            params.append(pytest.param(golden, id=name))
        else:
            params += [pytest.param(golden, case, id=f"{name}-{case}") for case in cases(golden)]
    return params


def assert_near(
    actual: torch.Tensor, expected: torch.Tensor, atol: float, rtol: float = 0.0, what: str = "value"
) -> None:
    """Compares with a stored result in float64, allowing for its own rounding where it is stored as float32."""
    if expected.dtype == torch.float32 and actual.dtype == torch.float64:
        rtol = max(rtol, FLOAT32_STORAGE_RTOL)
    torch.testing.assert_close(
        actual.detach().double(),
        expected.double(),
        atol=atol,
        rtol=rtol,
        msg=lambda message: f"{what}: {message}",
    )


def compute_stats(tensor: torch.Tensor) -> torch.Tensor:
    """Mean, population standard deviation, mean and maximum of absolute values, and first, last and middle element."""
    flat = tensor.detach().double().flatten()
    picked = [flat[0], flat[-1], flat[flat.numel() // 2]]
    return torch.stack([flat.mean(), flat.std(correction=0), flat.abs().mean(), flat.abs().max(), *picked])


def is_filled(tensors: Mapping[str, torch.Tensor], salt: str, prefix: str = "") -> bool:
    """Whether a stored state dict is the deterministic fill of its names."""
    filled = fill_state_dict({prefix + name: tensor.shape for name, tensor in tensors.items()}, salt)
    return all(torch.equal(filled[prefix + name], tensor) for name, tensor in tensors.items())


__all__ = [
    "Golden",
    "assert_near",
    "compute_stats",
    "fill_input",
    "fill_labels",
    "fill_state_dict",
    "find_golden_files",
    "golden_params",
    "is_filled",
    "load_golden",
]
