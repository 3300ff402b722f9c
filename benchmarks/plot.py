"""Draws time against the size of the work: `python -m benchmarks.plot`.

Reads benchmarks/results/*.json and writes docs/results/benchmarks.png, with a panel for each kind of work that was
measured at three sizes or more.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


PROJECT = Path(__file__).resolve().parents[1]
CURVES = PROJECT / "docs" / "results" / "benchmarks.png"
MIN_SIZES, COLUMNS = 3, 3

Row = Mapping[str, Any]


def find_curves(rows: Iterable[Row]) -> dict[tuple[str, str], list[Row]]:
    """Rows by method and work, ascending by size; of work with enough sizes."""
    curves: dict[tuple[str, str], list[Row]] = {}
    for row in sorted((row for row in rows if row["size"] is not None), key=lambda row: row["size"]):
        curves.setdefault((row["method"], row["case"]), []).append(row)
    return {key: own for key, own in curves.items() if len({row["size"] for row in own}) >= MIN_SIZES}


def draw_curves(curves: Mapping[tuple[str, str], list[Row]], path: Path) -> None:
    """Writes one image of all curves, both axes logarithmic."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    num_lines = -(-len(curves) // COLUMNS)
    figure = Figure(figsize=(4.2 * COLUMNS, 3.2 * num_lines), layout="constrained")
    FigureCanvasAgg(figure)
    for place, ((method, case), rows) in enumerate(curves.items()):
        axes = figure.add_subplot(num_lines, COLUMNS, place + 1)
        for peer in dict.fromkeys(row["peer"] for row in rows):
            own = [row for row in rows if row["peer"] == peer]
            sizes = [row["size"] for row in own]
            axes.plot(sizes, [1000 * row["ours_seconds"] for row in own], "o-", label="decahub")
            axes.plot(sizes, [1000 * row["reference_seconds"] for row in own], "s--", label=peer)
        axes.set(title=f"{method}: {case}", xlabel=rows[0]["unit"], ylabel="ms", xscale="log", yscale="log")
        axes.title.set_fontsize(9)
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
