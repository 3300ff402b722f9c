"""The panel of the quickstart, with a small random model in place of the published one."""

import importlib
import json
import sys
from pathlib import Path

import pytest

from tests.tiny.cmt_frames import NUSCENES, build_model_folder


QUICKSTART = Path(__file__).parents[3] / "examples" / "quickstart"
MODULES = ("panels", "samples", "drawing", "fine_tuning", "page")
EVALUATION = {
    "task": "object-detection-3d",
    "dataset": {"name": "driving_scenes", "title": "Driving scenes (generated)", "split": "test", "num_rows": 200},
    "figures": [{"metric": "nds", "value": 0.625, "n": 200}],
}


@pytest.fixture
def quickstart(monkeypatch):
    """The modules of the example, which are imported by their bare names."""
    monkeypatch.syspath_prepend(str(QUICKSTART))
    yield lambda name: importlib.import_module(name)
    for name in MODULES:
        sys.modules.pop(name, None)


def test_panel_shows_what_the_code_found(quickstart, tmp_path, monkeypatch):
    panels = quickstart("panels")
    monkeypatch.setattr(panels, "CARDS", tmp_path / "cards")
    folder = build_model_folder(tmp_path / "cards" / "cmt-small-driving-scenes")
    (folder / "evaluation.json").write_text(json.dumps(EVALUATION))
    (tmp_path / "out").mkdir()

    panel = panels.show_cmt(tmp_path / "out")

    assert panels.PANELS["cmt"] is panels.show_cmt
    assert panel.scores[0].value == "62.5%"
    assert panel.printed.endswith("without the LiDAR\n")
    assert panel.output.startswith("<img")
    assert panel.input.startswith("<img")
    assert (tmp_path / "out" / "scene_boxes.png").is_file()


def test_objects_are_found_by_class_and_place(quickstart):
    count_found = quickstart("samples").count_found
    scene = {"labels": [0, 1, 0], "boxes": [[1, 2, 0], [9, 9, 0], [-7, 0, 0]]}
    boxes = [
        {"label": NUSCENES[0], "box": {"x": 1.5, "y": 3.0}},
        {"label": NUSCENES[0], "box": {"x": 9.0, "y": 9.0}},
        {"label": NUSCENES[0], "box": {"x": -7.0, "y": 2.5}},
    ]

    assert count_found(boxes, scene) == 1
