"""What a benchmark reports: names, memory, ratios, and which rows make a curve."""

import json
import sys

import numpy as np
import pytest

from benchmarks.plot import draw_curves, find_curves
from benchmarks.timing import Case, measure, measure_memory, timed, write_rows


MEGABYTES = 60


def allocate():
    return np.ones(MEGABYTES * 10**6, dtype=np.uint8).sum()


@pytest.mark.parametrize(
    ("size", "title"),
    [(None, "inference"), ((2_800_000, "edges"), "inference, 2,800,000 edges")],
    ids=["plain", "sized"],
)
def test_title_has_the_size(size, title):
    assert Case("inference", "torch: by hand", lambda folder: None, size).title == title


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells the peak of memory")
def test_memory_is_what_one_repetition_adds_to_the_peak():
    assert measure_memory(timed(allocate)) == pytest.approx(MEGABYTES, rel=0.2)
    assert measure_memory(timed(lambda: None)) < 0.1 * MEGABYTES


def test_ratio_is_that_of_the_medians(tmp_path):
    ours, theirs = iter([9.0, 1.0, 2.0, 3.0, 1.0]), iter([9.0, 4.0, 4.0, 4.0, 1.0])
    case = Case("work", "torch: by hand", lambda folder: (lambda: next(ours), lambda: next(theirs)), (10, "edges"))

    row = measure(case, "emo", threads=1, seconds=0)

    assert (row.ratio, row.ours_seconds, row.reference_seconds, row.repetitions) == (2.0, 2.0, 4.0, 3)
    write_rows(tmp_path / "rows.json", [row], "python -m benchmarks")
    (written,) = json.loads((tmp_path / "rows.json").read_text())
    assert written["peer"] == "torch: by hand"
    assert "torch" in written["versions"]


def test_curves_have_three_sizes(tmp_path):
    shared = {"method": "emo", "peer": "torch: by hand", "ours_seconds": 0.1, "reference_seconds": 0.2}
    rows = [
        {**shared, "case": case, "size": size, "unit": unit}
        for case, sizes, unit in (("long", (30, 10, 20), "edges"), ("short", (1, 2), "files"), ("one", (None,), None))
        for size in sizes
    ]

    curves = find_curves(rows)
    draw_curves(curves, tmp_path / "curves.png")

    assert [[row["size"] for row in own] for own in curves] == [[10, 20, 30]]
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]
