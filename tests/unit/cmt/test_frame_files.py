"""Frames as files: what is written is read back."""

import json

import numpy as np
import pytest
from PIL import Image

from decahub.models.cmt.frame_files import read_frame, read_points, read_sweeps, write_frame
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


def rename(record, old, new):
    record[new] = record.pop(old)


def spoil(tmp_path, change):
    """The path of a written frame whose table was changed."""
    path = write_frame(tmp_path / "7.json", tiny_frame(), NUSCENES)
    table = json.loads(path.read_text())
    change(table)
    path.write_text(json.dumps(table))
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.update(annotatins=table.pop("annotations")), "Did you mean 'annotations'"),
        (lambda table: table["lidar"].update(sweep=[]), "`lidar` of .* has the unknown key 'sweep'. .* 'sweeps'"),
        (lambda table: rename(table["cameras"][1], "name", "names"), r"`cameras\[1\]` of .* 'names'. .* 'name'"),
        (lambda table: rename(table["annotations"][0], "velocity", "velocty"), "Did you mean 'velocity'"),
        (lambda table: table.update(cameras={"name": "front"}), "`cameras` of .* must be a list; got dict"),
        (lambda table: table.update(lidar=["a.npy"]), "`lidar` of .* must be a JSON object"),
        (lambda table: table.update(annotations=["car"]), r"`annotations\[0\]` of .* a JSON object; got 'car'"),
        (lambda table: table.update(ego2global=[[1, 0], [0, 1]]), "`ego2global` in .* must be 4 rows of 4 numbers"),
        (lambda table: table["lidar"].update(lidar2ego="front"), "`lidar2ego` in .* must be 4 rows of 4 numbers"),
        (lambda table: table["annotations"][0].update(box=[1, 2, 3, 4, 5, 6, 0, 1], velocity=[2]), "`box` in .* must"),
        (lambda table: table["annotations"][0].update(box=["a"] * 7), "`box` in .* must hold x, y, z"),
        (lambda table: table["annotations"][0].update(velocity=[float("inf"), 0]), "`box` in .* got .*inf"),
        (
            lambda table: table["lidar"].update(
                sweeps=[{"file": "7.npy", "sensor2key": np.eye(4).tolist(), "time_lag": None}]
            ),
            "`time_lag` of a sweep in .* must be its age in seconds, at least 0; got None",
        ),
        (
            lambda table: (table["cameras"][0].pop("lidar2cam"), table["cameras"][0].update(cam2ego=[[0] * 4] * 4)),
            "`cam2ego` of .* it is singular",
        ),
    ],
)  # fmt: skip
def test_refuses_a_table_of_another_form(tmp_path, change, message):
    path = spoil(tmp_path, change)

    with pytest.raises(ValueError, match=message):
        read_frame(path)


def test_keys_that_mean_something_else_are_left_aside(tmp_path):
    path = spoil(
        tmp_path, lambda table: (table.update(timestamp=1.5), table["cameras"][0].update(width=96, height=64))
    )

    assert read_frame(path)["cameras"] == tiny_frame()["cameras"]


def test_names_of_any_script(tmp_path):
    frame = {**tiny_frame(), "cameras": ["前", "gauche é", "зад"]}

    read = read_frame(write_frame(tmp_path / "снимки ñ" / "кадр 7.json", frame, NUSCENES))

    assert read["cameras"] == frame["cameras"]
    np.testing.assert_array_equal(read_sweeps(read["points"]), frame["points"])
    np.testing.assert_array_equal(np.array(Image.open(read["images"][1])), np.array(frame["images"][1]))


@pytest.mark.parametrize(
    ("name", "columns", "spoil_content", "message"),
    [
        ("a.bin", [], lambda content: content[:-3], "37 bytes are no multiple of 20. Is it cut off"),
        ("a.bin", ["x", "y", "z", "intensity"], lambda content: content, "40 bytes are no multiple of 16"),
        ("a.npy", [], lambda content: content[:-3], "a.npy must hold an array of numbers; .* Is it cut off"),
        ("a.npy", [], lambda content: b"", "a.npy must hold an array of numbers; .* Is it cut off"),
        ("a.pcd", [], lambda content: content, "a.pcd must be a file of points, .npy or .bin; got '.pcd'"),
    ],
    ids=["cut off", "columns", "cut off array", "empty", "kind"],
)
def test_refuses_files_of_points(tmp_path, name, columns, spoil_content, message):
    points, path = np.arange(10, dtype=np.float32).reshape(2, 5), tmp_path / name
    if path.suffix == ".npy":
        np.save(path, points)
    else:
        points.tofile(path)
    path.write_bytes(spoil_content(path.read_bytes()))

    with pytest.raises(ValueError, match=message):
        read_points(path, columns)


def test_refuses_an_array_that_holds_no_numbers(tmp_path):
    np.save(tmp_path / "a.npy", np.array([["1"] * 5]))

    with pytest.raises(ValueError, match="a.npy must hold real numbers"):
        read_points(tmp_path / "a.npy")


@pytest.mark.parametrize("content", [b"[1", b'{"cameras": "\xff"}', b""])
def test_refuses_what_is_no_table(tmp_path, content):
    path = tmp_path / "7.json"
    path.write_bytes(content)

    with pytest.raises(ValueError, match="must hold JSON"):
        read_frame(path)
