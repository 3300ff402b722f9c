"""Measures speed: `python -m benchmarks [METHOD ...] [--json FILE]`. Without a method, all that have benchmarks."""

import argparse
import importlib
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from decahub.registry import METHODS

from .timing import Case, Row, measure, write_rows


PACKAGE = "package"  # cases that belong to no method; they run with any

EPILOG = """A ratio is the time of the reference divided by ours, each the median of interleaved repetitions: above 1,
decahub is faster. The brackets hold the quartiles of the single ratios. MB is how far one repetition raises the peak
of memory, in 10**6 bytes. Let nothing else run meanwhile."""


def find_methods() -> list[str]:
    """Methods that have a module here."""
    return [name for name in METHODS if Path(__file__).with_name(f"{name}.py").is_file()]


def find_cases(methods: Iterable[str], text: str = "") -> list[tuple[str, Case]]:
    """Methods and cases whose titles or peers hold `text`."""
    modules = [(name, importlib.import_module(f"{__package__}.{name}")) for name in [*methods, PACKAGE]]
    cases = [(name, case) for name, module in modules for case in module.CASES]
    return [(name, case) for name, case in cases if text in f"{case.title} {case.peer}"]


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__, epilog=EPILOG)
    parser.add_argument("methods", metavar="METHOD", nargs="*", help=f"of {', '.join(find_methods())}; default all")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the rows there")
    parser.add_argument("--list", action="store_true", help="name the cases and measure nothing")
    parser.add_argument("--filter", metavar="TEXT", default="", help="only cases whose name or peer holds TEXT")
    parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch (default %(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=5, help="for all cases of a method together (default %(default)s)"
    )
    parser.add_argument("--quick", action="store_true", help="as few repetitions as possible, to see that all works")
    return parser


def read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = build_parser()
    options = parser.parse_args(arguments)
    for name in options.methods:
        if name not in find_methods():
            parser.error(f"METHOD must be one of {', '.join(find_methods())}; got {name!r}.")
    if options.json is not None and not options.json.absolute().parent.is_dir():
        parser.error(f"--json must name a file in a folder that exists; got '{options.json}'.")
    if options.threads < 1:
        parser.error(f"--threads must be at least 1; got {options.threads}.")
    if not find_cases(options.methods or find_methods(), options.filter):
        parser.error(
            f"--filter must occur in the name or the peer of a case; got {options.filter!r}. Use --list to see them."
        )
    return options


def format_row(case: Case, row: Row) -> str:
    low, high = row.ratio_spread
    sizes = row.ours_megabytes, row.reference_megabytes
    memory = "".join(" " * 8 if size is None else f"{size:8.0f}" for size in sizes)
    return (
        f"{row.method:13} {case.title:50} {row.peer:44} {row.ours_seconds * 1000:8.1f} "
        f"{row.reference_seconds * 1000:8.1f} {row.ratio:6.2f} [{low:.2f}, {high:.2f}] {row.repetitions:3}{memory}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    options = read_options(arguments)
    cases = find_cases(options.methods or find_methods(), options.filter)
    if options.list:
        print("\n".join(f"{method:13} {case.title:50} {case.peer}" for method, case in cases))
        return 0

    import torch

    torch.set_num_threads(options.threads)
    command = " ".join(["python -m benchmarks", *(sys.argv[1:] if arguments is None else arguments)])
    print(
        f"{'method':13} {'work':50} {'beside':44} {'ours ms':>8} {'ref. ms':>8} {'ratio':>6} {'quartiles':12} {'n':>3}"
        f" {'ours MB':>7} {'ref. MB':>7}"
    )
    rows: list[Row] = []
    for method, case in cases:
        num_cases = sum(name == method for name, _ in cases)
        seconds = 0.0 if options.quick else options.seconds / num_cases
        rows.append(measure(case, method, options.threads, seconds))
        print(format_row(case, rows[-1]), flush=True)
        if options.json is not None:
            write_rows(options.json, rows, command)
    return 0


if __name__ == "__main__":
    sys.exit(main())
