"""`decahub predict` on frames: the table, its file, the drawing, and sensors that are left out."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers import pipeline

from decahub.cli.main import main
from decahub.models.cmt.frame_files import write_frame
from tests.tiny.cmt_frames import NUSCENES, build_model_folder, tiny_frame


def run(*words) -> int:
    return main([str(word) for word in words])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return build_model_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture
def table(tmp_path):
    return write_frame(tmp_path / "frames" / "frame.json", tiny_frame(), NUSCENES)


def test_prints_boxes_and_writes_the_drawing(model, table, capsys):
    assert run("predict", model, table, "--threshold", 0, "--top-k", 3) == 0

    header, _, *rows = capsys.readouterr().out.splitlines()
    assert header.split()[:4] == ["frame", "class", "score", "x"]
    assert len(rows) == 3
    assert all(row.startswith("frame.json") and row.endswith("frame_boxes.png") for row in rows)
    assert Image.open(table.with_name("frame_boxes.png")).height > 700


def test_the_table_holds_all_of_a_box(model, table, tmp_path):
    assert run("predict", model, table, "--threshold", 0, "--output", tmp_path / "boxes.json", "--overwrite") == 0

    rows = json.loads((tmp_path / "boxes.json").read_text())
    answers = pipeline("object-detection-3d", model=str(model))(str(table))
    assert len(rows) == len(answers)
    for row, answer in zip(rows, answers, strict=True):
        assert (row["class"], row["score"]) == (answer["label"], answer["score"])
        assert {name: row[name] for name in answer["box"]} == answer["box"]
        assert [row["vx"], row["vy"]] == answer["velocity"]


def test_says_that_there_is_no_box(model, table, capsys):
    assert run("predict", model, table, "--threshold", 1) == 0

    assert "none" in capsys.readouterr().out
    assert table.with_name("frame_boxes.png").is_file()


def test_a_folder_stands_for_its_frames(model, table, tmp_path, capsys):
    write_frame(table.parent / "more" / "other.json", tiny_frame(seed=1), NUSCENES)

    assert run("predict", model, table.parent, "--output-dir", tmp_path / "out", "--threshold", 0, "--top-k", 1) == 0

    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["frame_boxes.png", "other_boxes.png"]


def test_sensors_are_left_out(model, table, tmp_path):
    options = ("--threshold", 0, "--output-dir", tmp_path, "--overwrite")

    def scores(*words):
        assert run("predict", model, table, *options, "--output", tmp_path / "boxes.json", *words) == 0
        return [row["score"] for row in json.loads((tmp_path / "boxes.json").read_text())]

    everything = scores()
    assert len({tuple(everything), tuple(scores("--without", "lidar")), tuple(scores("--without", "CAM_FRONT"))}) == 3


def test_boxes_in_the_frame_of_the_vehicle(model, table, tmp_path):
    rows = {}
    for frame in ("lidar", "ego"):
        options = ("--output-dir", tmp_path / frame, "--output", tmp_path / f"{frame}.json")
        assert run("predict", model, table, "--threshold", 0, "--frame", frame, *options) == 0
        rows[frame] = json.loads((tmp_path / f"{frame}.json").read_text())

    lidar2ego = np.asarray(tiny_frame()["lidar2ego"])
    for box, moved in zip(rows["lidar"], rows["ego"], strict=True):
        expected = lidar2ego @ [box["x"], box["y"], box["z"], 1]
        assert [moved["x"], moved["y"], moved["z"]] == pytest.approx(expected[:3], abs=1e-4)


SAMPLE = Path(os.environ.get("DECAHUB_DATA_DIR") or "none") / "nuscenes_sample" / "sample.json"


@pytest.mark.skipif(not SAMPLE.is_file(), reason="DECAHUB_DATA_DIR has no nuscenes_sample/sample.json")
def test_answers_a_real_frame(model, tmp_path, capsys):
    options = ("--threshold", 0, "--top-k", 4, "--annotations", "--output-dir", tmp_path)

    assert run("predict", model, SAMPLE, *options) == 0

    assert len(capsys.readouterr().out.splitlines()) == 2 + 4
    sheet = Image.open(tmp_path / "sample_boxes.png")
    assert sheet.width > sheet.height * 3  # three images and the view from above in a row


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--threshold", 1.5), r"`--threshold` must be in \[0, 1\]; got 1.5"),
        (("--top-k", 0), "`--top-k` must be at least 1; got 0"),
        (("--without", "radar"), "must name sensors of the frame: lidar, cameras, CAM_FRONT"),
    ],
)
def test_refuses(model, table, words, message, capsys):
    assert run("predict", model, table, *words) == 2

    assert re.search(message, capsys.readouterr().err)


def test_refuses_a_folder_without_frames(model, tmp_path, capsys):
    assert run("predict", model, tmp_path) == 2

    assert "`INPUT` must be a JSON table of a frame, or a folder with some" in capsys.readouterr().err


def test_names_a_file_that_is_no_frame(model, table, capsys):
    broken = table.with_name("broken.json")
    broken.write_text("{}")

    assert run("predict", model, table, broken) == 1

    assert "broken.json must be a table with `lidar` or `cameras`" in capsys.readouterr().err
