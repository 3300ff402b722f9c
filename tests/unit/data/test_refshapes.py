"""refshapes: outlines, visible masks, classes of the splits, repeatable draws."""

import json

import numpy as np
import pytest
from PIL import Image, ImageDraw

from decahub.data import DATASETS, refshapes
from decahub.data.coco_masks import decode_masks
from decahub.data.refshapes import BASE_IDS, CLASSES, NOVEL_IDS, SIZE


PHOTOS = [Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 140, 3), dtype=np.uint8))]


def draw(num_images, labels=tuple(range(12)), photos=PHOTOS, seed=1):
    return list(refshapes.draw_scenes(num_images, labels, photos, seed))


def test_classes_are_those_of_the_catalog():
    entry = DATASETS["refshapes"]

    assert entry.label_names == CLASSES
    assert [CLASSES.index(name) for name in entry.novel_labels] == list(NOVEL_IDS) == [3, 5, 8, 10]
    assert BASE_IDS == (0, 1, 2, 4, 6, 7, 9, 11)
    assert {label % 4 for label in NOVEL_IDS} <= {label % 4 for label in BASE_IDS}, "no texture is new"


@pytest.mark.parametrize(
    ("name", "area"),
    [
        ("disc", 24 * np.sin(2 * np.pi / 48)),
        ("square", 2.0),
        ("triangle", 3 * np.sqrt(3) / 4),
        ("pentagon", 2.5 * np.sin(2 * np.pi / 5)),
        ("star", 5 * 0.45 * np.sin(np.pi / 5)),
        ("plus", 2 * 2 * 0.72 - 0.72**2),  # two bars that cross
        ("l_shape", 2 * np.sqrt(2) * 0.45 - 0.45**2),
    ],
)
def test_areas_of_outlines(name, area):
    assert refshapes.FULL_AREAS[name] == pytest.approx(area, rel=1e-9)


@pytest.mark.parametrize(
    ("name", "area"),
    [
        ("ring", np.pi * (1 - 0.55**2)),
        ("crescent", np.pi - (2 * np.arccos(0.25) - 0.25 * np.sqrt(4 - 0.25))),  # without the lens of two discs
    ],
)
def test_areas_of_outlines_with_a_hole(name, area):
    assert refshapes.FULL_AREAS[name] == pytest.approx(area, rel=0.03)  # polygons, counted in pixels


def test_outlines_fit_into_the_unit_circle():
    for outline, _ in refshapes.OUTLINES.values():
        radii = np.linalg.norm(outline, axis=1)
        assert 0.95 < radii.max() < 1.3


def test_masks_are_what_is_visible():
    for _, labels, masks in draw(40):
        assert 1 <= len(labels) <= 4 or not labels
        assert (np.sum(masks, axis=0) <= 1).all(), "no pixel belongs to two instances"
        assert all(mask.sum() >= refshapes.MIN_VISIBLE_AREA for mask in masks)


def test_a_mask_is_the_outline_where_nothing_hides_it():
    """A slow drawing of the same polygon, pixel by pixel."""
    shape = refshapes.draw_shape(1, np.random.Generator(np.random.PCG64(4)))
    generator = np.random.Generator(np.random.PCG64(4))
    radius, turn = generator.uniform(12, 30), generator.uniform(0, 2 * np.pi)
    aspect, center = generator.uniform(0.8, 1.25), generator.uniform(0, SIZE, size=2)
    corners = []
    for angle in np.pi / 4 + np.pi / 2 * np.arange(4):
        x, y = radius * np.sqrt(aspect) * np.cos(angle), radius / np.sqrt(aspect) * np.sin(angle)
        corners.append(
            (center[0] + x * np.cos(turn) - y * np.sin(turn), center[1] + x * np.sin(turn) + y * np.cos(turn))
        )
    canvas = Image.new("1", (8 * SIZE, 8 * SIZE))
    ImageDraw.Draw(canvas).polygon([(8 * x - 0.5, 8 * y - 0.5) for x, y in corners], fill=1)
    expected = np.asarray(canvas).reshape(SIZE, 8, SIZE, 8).mean((1, 3)) > 0.5

    assert expected.sum() > 200
    assert (shape.mask != expected).sum() <= 0.03 * expected.sum()
    assert shape.full_area == pytest.approx(2 * radius**2)


def test_colors_differ_in_brightness_and_not_by_class():
    generator = np.random.Generator(np.random.PCG64(0))
    values = np.array([refshapes.draw_colors(generator).max(1) / 255 for _ in range(200)])

    assert (np.abs(values[:, 0] - values[:, 1]) >= refshapes.MIN_CONTRAST - 1e-6).all()
    assert 0.3 < (values[:, 0] > values[:, 1]).mean() < 0.7


@pytest.mark.parametrize(
    ("kind", "share"),
    [(0, 0.0), (1, 0.5), (2, 0.5), (3, np.pi * 2.5**2 / 64)],
    ids=["plain", "stripes", "checker", "dots"],
)
def test_textures_have_their_share_of_the_second_color(kind, share):
    generator = np.random.Generator(np.random.PCG64(0))

    texture = refshapes.draw_texture(kind, 96, 80, generator)

    assert texture.shape == (80, 96)
    assert texture.mean() == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize("photos", [PHOTOS, []], ids=["photos", "noise"])
def test_backgrounds_are_dark_and_smooth(photos):
    generator = np.random.Generator(np.random.PCG64(0))

    for _ in range(10):
        background = refshapes.draw_background(photos, generator)
        assert background.shape == (SIZE, SIZE, 3)
        assert background.max() <= 0.8 * 255
        assert background.mean() < 130


def test_draws_are_repeatable():
    for (one, labels, masks), (other, other_labels, other_masks) in zip(draw(5), draw(5), strict=True):
        assert np.array_equal(one, other)
        assert labels == other_labels
        assert np.array_equal(masks, other_masks)
    assert not np.array_equal(draw(1)[0][0], draw(1, seed=2)[0][0])


def test_training_images_show_base_classes_only():
    rows = refshapes.build_split("train", PHOTOS, limit=30)
    labels = {one["label"] for row in rows["annotations"][:] for one in row}

    assert labels <= set(BASE_IDS)
    assert len(labels) == 8


def test_each_shot_image_has_one_instance():
    rows = refshapes.build_split("shots", PHOTOS, limit=2)

    assert [[one["label"] for one in row] for row in rows["annotations"][:]] == [[c] for c in range(12) for _ in "ab"]
    assert set(rows["shot_seed"][:]) == {0}


def test_rows_hold_images_and_masks():
    scenes = draw(3)

    rows = refshapes.build_rows(scenes, 3, first_id=10)

    ids = [one["id"] for row in rows["annotations"][:] for one in row]
    assert rows["image_id"][:] == [10, 11, 12]
    assert len(set(ids)) == len(ids)
    for row, (pixels, labels, masks) in zip(rows, scenes, strict=True):
        assert np.array_equal(np.asarray(row["image"]), pixels)
        assert [one["label"] for one in row["annotations"]] == labels
        decoded = decode_masks([json.loads(one["segmentation"]) for one in row["annotations"]], SIZE, SIZE)
        assert np.array_equal(decoded, masks)


def test_the_dataset_is_rendered_once(monkeypatch, tmp_path):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr(refshapes, "load_photos", lambda data_dir: PHOTOS)
    for name, value in (("NUM_TRAIN", 4), ("NUM_TEST", 3), ("SHOTS_PER_CLASS", 1), ("NUM_SHOT_SEEDS", 2)):
        monkeypatch.setattr(refshapes, name, value)
    first = refshapes.build_dataset()
    monkeypatch.setattr(refshapes, "build_split", lambda *arguments: pytest.fail("rendered again"))

    second = refshapes.build_dataset()

    assert {split: len(rows) for split, rows in first.items()} == {"train": 4, "test": 3, "shots": 24}
    assert second["test"]["annotations"][:] == first["test"]["annotations"][:]
    assert not list(tmp_path.rglob(".*")), "no partial file stays"


def test_noise_replaces_absent_photographs(monkeypatch, tmp_path, caplog):
    monkeypatch.delenv("DECAHUB_DATA_DIR", raising=False)

    assert refshapes.load_photos(tmp_path) == []
    assert "backgrounds of refshapes are noise" in caplog.text


def test_photographs_may_be_changed_and_passed_on(data_dir):
    from decahub.data import load_dataset

    photos = refshapes.load_photos(data_dir)

    licenses = load_dataset("coco_mini_seg", data_dir)["train"]["license"][:]
    assert len(photos) == sum(number in (4, 5, 7) for number in licenses) > 20
    assert all(photo.mode == "RGB" for photo in photos)
