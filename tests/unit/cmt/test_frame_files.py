"""Frames as files: what is written is read back."""

import json

import numpy as np
import pytest
from PIL import Image

from decahub.models.cmt.frame_files import read_frame, read_sweeps, write_frame
from tests.tiny.cmt_frames import NUSCENES, tiny_frame


def test_a_written_frame_is_read_back(tmp_path):
    frame = tiny_frame()
    frame["boxes"][1, 7:] = np.nan

    read = read_frame(write_frame(tmp_path / "a" / "7.json", frame, NUSCENES))

    assert read["token"] == frame["token"]
    assert read["cameras"] == frame["cameras"]
    assert read["classes"] == [NUSCENES[label] for label in frame["labels"]]
    assert read["num_points"] == frame["num_points"]
    assert [attribute or "" for attribute in read["attributes"]] == list(frame["attributes"])
    for name in ("intrinsics", "lidar2cam", "boxes", "lidar2ego", "ego2global"):
        np.testing.assert_array_equal(np.asarray(read[name]), np.asarray(frame[name]))
    np.testing.assert_array_equal(read_sweeps(read["points"]), frame["points"])
    for path, image in zip(read["images"], frame["images"], strict=True):
        np.testing.assert_array_equal(np.array(Image.open(path)), np.array(image))
    assert not list(tmp_path.rglob("*.partial"))


def test_sensors_may_be_missing(tmp_path):
    frame = tiny_frame()
    points = {name: frame[name] for name in ("points", "boxes", "labels")}
    images = {name: frame[name] for name in ("images", "intrinsics", "lidar2cam")}

    without_cameras = read_frame(write_frame(tmp_path / "points.json", points, NUSCENES))
    without_lidar = read_frame(write_frame(tmp_path / "images.json", images, NUSCENES))

    assert without_cameras["images"] == []
    assert len(without_cameras["classes"]) == len(frame["labels"])
    assert without_lidar["points"] == []
    assert without_lidar["cameras"] == ["camera 0", "camera 1", "camera 2"]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"lidar": None, "cameras": []}, ValueError, "must be a table with `lidar` or `cameras`"),
        ({"lidar": {"file": "no.npy"}}, FileNotFoundError, "names no.npy for lidar"),
        (
            {"lidar": {}, "cameras": [{"name": "front"}]},
            ValueError,
            "`file` of front in .* must name a file; got None",
        ),
        ({"annotations": [{"class": "car", "box": [1, 2, 3]}]}, ValueError, "`box` in .* must hold x, y, z"),
    ],
)
def test_refuses(tmp_path, change, error, message):
    path = write_frame(tmp_path / "7.json", tiny_frame(), NUSCENES)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))

    with pytest.raises(error, match=message):
        read_frame(path)


def test_refuses_what_is_no_table(tmp_path):
    path = tmp_path / "7.json"
    path.write_text("[1")

    with pytest.raises(ValueError, match="must hold JSON"):
        read_frame(path)
