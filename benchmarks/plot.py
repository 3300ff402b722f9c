"""Draws time against the size of the work: `python -m benchmarks.plot`.

Reads benchmarks/results/*.json and writes docs/results/benchmarks.png, with a panel for each kind of work that was
measured at three sizes or more.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any


PROJECT = Path(__file__).resolve().parents[1]
CURVES = PROJECT / "docs" / "results" / "benchmarks.png"
MIN_SIZES, COLUMNS = 3, 3

Row = Mapping[str, Any]


def find_curves(rows: Iterable[Row]) -> list[list[Row]]:
    """Rows of one work beside one peer, ascending by size; where there are enough sizes."""
    curves: dict[tuple[str, str, str], list[Row]] = {}
    for row in sorted((row for row in rows if row["size"] is not None), key=lambda row: row["size"]):
        curves.setdefault((row["method"], row["case"], row["peer"]), []).append(row)
    return [curves[key] for key in sorted(curves) if len(curves[key]) >= MIN_SIZES]


def draw_curves(curves: Sequence[list[Row]], path: Path) -> None:
    """Writes one image of all curves, both axes logarithmic."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    num_lines = -(-len(curves) // COLUMNS)
    figure = Figure(figsize=(4.2 * COLUMNS, 3.2 * num_lines), layout="constrained")
    FigureCanvasAgg(figure)
    for place, rows in enumerate(curves):
        axes = figure.add_subplot(num_lines, COLUMNS, place + 1)
        sizes = [row["size"] for row in rows]
        axes.plot(sizes, [1000 * row["ours_seconds"] for row in rows], "o-", label="decahub")
        axes.plot(sizes, [1000 * row["reference_seconds"] for row in rows], "s--", label=rows[0]["peer"])
        axes.set(xlabel=rows[0]["unit"], ylabel="ms", xscale="log", yscale="log")
        axes.set_title(f"{rows[0]['method']}: {rows[0]['case']}", fontsize=9)
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_minor_formatter(NullFormatter())
        axes.legend(fontsize=7)
        axes.grid(alpha=0.3)
    temporary = path.with_name(f".{path.name}")
    figure.savefig(temporary, format="png", dpi=100)
    temporary.replace(path)


def main() -> None:
    files = sorted((PROJECT / "benchmarks" / "results").glob("*.json"))
    curves = find_curves(row for file in files for row in json.loads(file.read_text(encoding="utf-8")))
    draw_curves(curves, CURVES)
    print(f"{len(curves)} curves in {CURVES.relative_to(PROJECT)}")


if __name__ == "__main__":
    main()
