"""Interleaved timing of two ways to do one thing.

Machines slow down and speed up while they measure. So the two ways take turns, in alternating order, and what counts
is the ratio of their medians: a slow minute then slows both.
"""

import ctypes
import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path


Sampler = Callable[[], float]
"""Does the thing once and returns how many seconds it took."""

MINIMUM_REPETITIONS = 3
MAXIMUM_REPETITIONS = 50


@dataclass(frozen=True)
class Case:
    """Something to measure beside what a user would pick instead.

    Args:
        name (`str`): the work, its kind first, for example "inference emo-1m". Cases of one name are measured beside
            different peers, or at different sizes.
        peer (`str`): the reference, after the package that it is made of: "timm: edgenext_xx_small".
        build (`Callable[[Path], tuple[Sampler, Sampler]]`): prepares it, given an empty folder that lives as long
            as the measurement, and returns our sampler and the reference's.
        size (`tuple[int, str]`, *optional*): how much work, as a number and its unit: `(1_000_000, "edges")`.
    """

    name: str
    peer: str
    build: Callable[[Path], tuple[Sampler, Sampler]]
    size: tuple[int, str] | None = None

    @property
    def title(self) -> str:
        """Its name, with the size of the work."""
        return self.name if self.size is None else f"{self.name}, {self.size[0]:,} {self.size[1]}"


@dataclass(frozen=True)
class Row:
    """What was measured.

    Args:
        method (`str`): as in `decahub list`, or "package" for what all methods share.
        case (`str`): name of the case.
        peer (`str`): the reference.
        size (`int`, *optional*): of the work.
        unit (`str`, *optional*): of the size.
        ours_seconds (`float`): median of one repetition.
        reference_seconds (`float`): median of one repetition.
        ours_megabytes (`float`, *optional*): how far one repetition raises the peak of resident memory, in 10**6
            bytes; only Linux tells.
        reference_megabytes (`float`, *optional*): the same of the reference.
        ratio (`float`): `reference_seconds / ours_seconds`; above 1, ours is faster.
        ratio_spread (`tuple[float, float]`): first and third quartile of the ratios of single repetitions.
        repetitions (`int`): of each of the two.
        threads (`int`): that PyTorch may use.
    """

    method: str
    case: str
    peer: str
    size: int | None
    unit: str | None
    ours_seconds: float
    reference_seconds: float
    ours_megabytes: float | None
    reference_megabytes: float | None
    ratio: float
    ratio_spread: tuple[float, float]
    repetitions: int
    threads: int


def timed(function: Callable[[], object]) -> Sampler:
    """A sampler that runs `function` by the wall clock."""

    def sample() -> float:
        start = time.perf_counter()
        function()
        return time.perf_counter() - start

    return sample


def timed_import(module: str) -> Sampler:
    """A sampler that imports `module` in a fresh Python; the interpreter's own start does not count."""
    script = f"import time; start = time.perf_counter(); import {module}; print(time.perf_counter() - start)"

    def sample() -> float:
        done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
        return float(done.stdout.split()[-1])

    return sample


def timed_command(*command: str) -> Sampler:
    """A sampler that runs a command from its start to its end, as a user waits for it."""
    return timed(lambda: subprocess.run(command, check=True, capture_output=True))


def measure(case: Case, method: str, threads: int, seconds: float) -> Row:
    """Measures a case for about `seconds`, but never fewer than `MINIMUM_REPETITIONS` times."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        ours, reference = case.build(Path(folder))
        ours()  # warm-up: caches, code that is compiled on first use
        reference()
        ours_samples, reference_samples = interleave(ours, reference, seconds)
        megabytes = measure_memory(ours), measure_memory(reference)
    return summarize(case, method, ours_samples, reference_samples, megabytes, threads)


def measure_memory(sample: Sampler) -> float | None:
    """How far one repetition raises the peak of this process's resident memory, in 10**6 bytes."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return None

    def read(name: str) -> float:
        line = next(line for line in status.read_text().splitlines() if line.startswith(name))
        return int(line.split()[1]) * 1024 / 1e6

    gc.collect()
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)  # else what was freed before hides what is taken now
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak back
    before = read("VmRSS:")
    sample()
    return max(read("VmHWM:") - before, 0.0)


def interleave(ours: Sampler, reference: Sampler, seconds: float) -> tuple[list[float], list[float]]:
    """Samples of both, taken in turns; whoever was first is second in the next round."""
    turns: list[tuple[Sampler, list[float]]] = [(ours, []), (reference, [])]
    start = time.perf_counter()
    for repetition in range(MAXIMUM_REPETITIONS):
        if repetition >= MINIMUM_REPETITIONS and time.perf_counter() - start > seconds:
            break
        for sample, samples in turns if repetition % 2 == 0 else reversed(turns):
            samples.append(sample())
    return turns[0][1], turns[1][1]


def summarize(
    case: Case,
    method: str,
    ours_samples: Sequence[float],
    reference_samples: Sequence[float],
    megabytes: tuple[float | None, float | None],
    threads: int,
) -> Row:
    """The row of a case from its samples."""
    ratios = [reference / ours for ours, reference in zip(ours_samples, reference_samples, strict=True)]
    first_quartile, _, third_quartile = statistics.quantiles(ratios, n=4, method="inclusive")
    ours_seconds, reference_seconds = statistics.median(ours_samples), statistics.median(reference_samples)
    size, unit = case.size or (None, None)
    return Row(
        method=method,
        case=case.name,
        peer=case.peer,
        size=size,
        unit=unit,
        ours_seconds=ours_seconds,
        reference_seconds=reference_seconds,
        ours_megabytes=megabytes[0],
        reference_megabytes=megabytes[1],
        ratio=reference_seconds / ours_seconds,
        ratio_spread=(first_quartile, third_quartile),
        repetitions=len(ratios),
        threads=threads,
    )


def write_rows(path: Path, rows: Sequence[Row], command: str) -> None:
    """Writes a JSON list with one object per row; each also says where, with what and by which command."""
    packages = dict.fromkeys(row.peer.partition(":")[0] for row in rows)
    origin = {"command": command, "hardware": describe_hardware(), "versions": find_versions(packages)}
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps([{**asdict(row), **origin} for row in rows], indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def describe_hardware() -> str:
    """Processor and number of cores."""
    name = platform.processor() or platform.machine()
    cpu_info = Path("/proc/cpuinfo")
    if cpu_info.is_file():
        models = [line.split(":", 1)[1].strip() for line in cpu_info.open() if line.startswith("model name")]
        name = models[0] if models else name
    return f"{name}, {os.cpu_count()} cores"


def find_versions(packages: Iterable[str] = ()) -> dict[str, str]:
    """Versions of Python, of what is measured, and of these packages as far as installed."""
    installed = {distribution.name.lower() for distribution in metadata.distributions() if distribution.name}
    names = dict.fromkeys(("decahub", "torch", "transformers", *packages))
    return {
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in names if name.lower() in installed},
    }
