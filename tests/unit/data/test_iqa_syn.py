"""The synthetic set: twenty distortions of five levels, repeatable, with scores of full-reference metrics."""

import zlib

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from decahub.data import iqa_syn
from decahub.data.distortions import DISTORTIONS, distort


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    """Smooth shapes and some texture, 96 x 80."""
    generator = np.random.RandomState(0)
    coarse = ndimage.zoom(generator.rand(6, 7, 3), (80 / 6, 96 / 7, 1), order=1)
    texture = ndimage.gaussian_filter(generator.rand(80, 96, 3), (1, 1, 0))
    return Image.fromarray(np.uint8(255 * np.clip(0.15 + 0.5 * coarse + 0.3 * texture, 0, 1)))


def error(first: Image.Image, second: Image.Image) -> float:
    return float(np.square(np.asarray(first, float) - np.asarray(second, float)).mean())


def test_there_are_twenty_of_five_levels():
    assert len(DISTORTIONS) == 20
    assert all(len(strengths) == 5 for _, strengths in DISTORTIONS.values())


@pytest.mark.parametrize("name", DISTORTIONS)
def test_distortion_is_repeatable_and_grows(photo, name):
    versions = [distort(photo, name, level, "photo") for level in (1, 3, 5)]

    assert all(version.size == photo.size and version.mode == "RGB" for version in versions)
    assert distort(photo, name, 3, "photo").tobytes() == versions[1].tobytes()
    errors = [error(photo, version) for version in versions]
    assert 0 < errors[0] < errors[2]


@pytest.mark.parametrize("name", ["white_noise", "impulse_noise", "jitter", "color_blocks"])
def test_noise_depends_on_the_reference(photo, name):
    assert distort(photo, name, 3, "a").tobytes() != distort(photo, name, 3, "b").tobytes()


def test_noise_is_seeded_by_name_number_and_level():
    gray = Image.new("RGB", (64, 48), (128, 128, 128))
    noise = np.random.RandomState(zlib.crc32(b"r|6|2")).standard_normal((48, 64, 3))
    expected = np.rint(np.clip(128 / 255 + 0.04 * noise, 0, 1) * 255)
    assert np.array_equal(np.asarray(distort(gray, "white_noise", 2, "r")), expected)


def test_blurs_keep_the_mean_and_a_point_spreads_evenly():
    point = np.zeros((41, 41, 3), dtype=np.uint8)
    point[20, 20] = 255

    spread = np.asarray(distort(point, "lens_blur", 2, "r"), float)[..., 0]  # radius 2

    assert np.array_equal(spread, spread.T)
    assert spread[20, 20] == spread[20, 21] == spread.max()
    assert spread[20, 24] == 0


@pytest.mark.parametrize(("index", "axis"), [(0, 1), (2, 0)])
def test_motion_turns_with_the_number_of_the_reference(index, axis):
    point = np.zeros((61, 61, 3), dtype=np.uint8)
    point[30, 30] = 255

    spread = np.asarray(distort(point, "motion_blur", 3, "r", index), float)[..., 0]  # 10 pixels

    extent = [np.ptp(np.flatnonzero(spread.any(1 - direction))) for direction in (0, 1)]
    assert extent[axis] >= 9
    assert extent[1 - axis] <= 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "blur"}, "`name` must be one of .*; got 'blur'"),
        ({"level": 6}, r"`level` must be in \[1, 5\]; got 6"),
        ({"image": Image.new("RGB", (20, 40))}, "at least 24 pixels a side"),
        ({"image": Image.new("L", (40, 40))}, "must be RGB"),
    ],
    ids=["name", "level", "small", "gray"],
)
def test_refuses(photo, options, message):
    with pytest.raises(ValueError, match=message):
        distort(**{"image": photo, "name": "jpeg", "level": 1, "reference": "r", **options})


def test_percentiles_are_linear_between_members():
    shares = iqa_syn.compute_percentiles(np.array([0.0, 1.0, 2.5, 3.0, 9.0]), np.array([3.0, 1.0, 2.0]))

    assert shares.tolist() == [0.0, 0.0, 0.75, 1.0, 1.0]


def test_kodak_images_are_split_by_number_and_others_by_place(tmp_path):
    kodak = [tmp_path / f"kodim{number:02d}.png" for number in range(1, 25)]
    others = [tmp_path / f"{letter}.png" for letter in "abcdefg"]

    assert [path.stem[-2:] for path in iqa_syn.split_paths(kodak)["test"]] == ["03", "07", "12", "16", "20"]
    assert [path.stem for path in iqa_syn.split_paths(others)["test"]] == ["a", "f"]


@pytest.mark.parametrize("numbers", [(1, 2), (3, 7)], ids=["of training", "of test"])
def test_few_kodak_images_are_split_by_place(tmp_path, numbers):
    paths = [tmp_path / f"kodim{number:02d}.png" for number in numbers]

    assert iqa_syn.split_paths(paths) == {"test": paths[:1], "train": paths[1:]}


def test_refuses_references_of_one_name(photo, tmp_path):
    photo.save(tmp_path / "lake.png")
    photo.save(tmp_path / "lake.bmp")

    with pytest.raises(ValueError, match=r"different names, without the suffix; got lake\.bmp and lake\.png"):
        iqa_syn.find_references(tmp_path)


def test_any_folder_becomes_a_dataset(photo, tmp_path, monkeypatch):
    pytest.importorskip("piq")
    few = {name: DISTORTIONS[name] for name in ("gaussian_blur", "white_noise")}
    monkeypatch.setattr(iqa_syn, "DISTORTIONS", few)
    for number in range(3):
        photo.rotate(90 * number, expand=True).save(tmp_path / f"photo:{number}.png")

    splits = iqa_syn.build_from_folder(tmp_path)

    train, test = splits["train"], splits["test"]
    assert set(train["reference"]) == {"photo:1", "photo:2"}
    assert set(test["reference"]) == {"photo:0"}
    assert len(train) == 2 * 2 * 5
    scores = np.array(train["score"][:]).reshape(4, 5)
    assert scores.min() >= 0
    assert scores.max() <= 100
    assert (np.diff(scores, axis=1) < 0).all()


def test_refuses_an_empty_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="must hold pristine images"):
        iqa_syn.build_from_folder(tmp_path)
