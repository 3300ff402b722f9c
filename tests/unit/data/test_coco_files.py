"""COCO files and masks: layouts of folders, the order of classes, three forms of a mask, what is refused."""

import json
import shutil

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from decahub.data import load_dataset
from decahub.data.coco_files import read_coco_json
from decahub.data.coco_masks import compute_area, decode_masks, encode_mask, encode_segmentation
from tests.tiny.instances import HEIGHT, ORDERED, WIDTH, write_coco_folder


FAMILY = "few-shot-instance-segmentation"


@pytest.fixture
def folder(tmp_path):
    return write_coco_folder(tmp_path / "shapes")


def read(folder):
    return json.loads((folder / "train.json").read_text())


def write(folder, content):
    (folder / "train.json").write_text(json.dumps(content))


def get_names(rows):
    return rows.features["annotations"].feature["label"].names


# Masks


def draw_l():
    mask = np.zeros((5, 7), dtype=bool)
    mask[1:4, 2] = mask[3, 2:6] = True
    return mask


def count_runs(mask):
    """Run lengths down the columns, zeros first: the slow way."""
    runs, value = [0], False
    for pixel in mask.T.flatten():
        if pixel != value:
            runs.append(0)
            value = pixel
        runs[-1] += 1
    return [int(run) for run in runs]


@pytest.mark.parametrize("form", ["numbers", "text", "bytes"])
def test_run_lengths_are_read_in_each_form(form):
    mask = draw_l()
    counts = {
        "numbers": count_runs(mask),
        "text": coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"].decode(),
        "bytes": coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"],
    }[form]

    rle = encode_segmentation({"size": [5, 7], "counts": counts}, 5, 7)

    assert json.loads(json.dumps(rle)) == rle
    assert np.array_equal(decode_masks([rle], 5, 7)[0], mask)
    assert compute_area(rle) == mask.sum()


def test_polygons_are_a_union():
    first, second = [1, 1, 4, 1, 4, 3, 1, 3], [5, 0, 7, 0, 7, 2, 5, 2]
    expected = np.zeros((5, 8), dtype=bool)
    expected[1:3, 1:4] = expected[0:2, 5:7] = True

    rle = encode_segmentation([first, second], 5, 8)

    assert np.array_equal(decode_masks([rle], 5, 8)[0], expected)


def test_masks_come_back_in_their_order():
    masks = np.random.default_rng(0).random((3, 6, 4)) > 0.6

    decoded = decode_masks([encode_mask(mask) for mask in masks], 6, 4)

    assert np.array_equal(decoded, masks)
    assert decode_masks([], 6, 4).shape == (0, 6, 4)


@pytest.mark.parametrize(
    ("segmentation", "error", "message"),
    [
        ({"size": [5, 7], "counts": [30]}, ValueError, "cover 5 x 7 pixels; got 30"),
        ({"size": [5, 7], "counts": [40, -5]}, ValueError, "cover 5 x 7"),
        ({"size": [5, 7], "counts": "0000"}, ValueError, "cover 5 x 7 pixels; got b'0000'"),
        ({"size": [5, 7], "counts": "é"}, ValueError, "ascii"),
        ({"size": [7, 5], "counts": [35]}, ValueError, r"`size` \[5, 7\]; got \[7, 5\]"),
        ([[1, 1, 2, 2]], ValueError, "at least three finite points"),
        ([[1, 1, 2, float("nan"), 3, 3]], ValueError, "finite"),
        ("35", TypeError, "polygons or a COCO RLE; got '35'"),
        ([], TypeError, "polygons or a COCO RLE"),
    ],
)
def test_refuses_masks(segmentation, error, message):
    with pytest.raises(error, match=message):
        encode_segmentation(segmentation, 5, 7)


# Files


def test_reads_a_folder(folder):
    splits = load_dataset(folder, family=FAMILY)

    assert {split: len(rows) for split, rows in splits.items()} == {"train": 9, "test": 4}
    row = splits["train"][1]
    assert get_names(splits["train"]) == list(ORDERED), "classes follow the ids of the categories"
    assert row["image"].size == (WIDTH, HEIGHT)
    assert row["image_id"] == 1
    assert [annotation["label"] for annotation in row["annotations"]] == [0, 0]
    annotation = row["annotations"][0]
    mask = decode_masks([json.loads(annotation["segmentation"])], HEIGHT, WIDTH)[0]
    assert mask.sum() == annotation["area"] == 18 * 18
    assert (np.asarray(row["image"])[mask] == (40, 220, 40)).all(), "the mask lies on the instance"


@pytest.mark.parametrize("layout", ["annotations", "instances", "beside"])
def test_knows_layouts(folder, layout):
    for split in ("train", "test"):
        path = folder / f"{split}.json"
        if layout == "beside":
            path.rename(folder / split / "_annotations.coco.json")
        else:
            (folder / "annotations").mkdir(exist_ok=True)
            (folder / "images").mkdir(exist_ok=True)
            name = f"instances_{split}.json" if layout == "instances" else f"{split}.json"
            path.rename(folder / "annotations" / name)
            (folder / split).rename(folder / "images" / split)

    splits = load_dataset(folder, family=FAMILY)

    assert sorted(splits) == ["test", "train"]
    assert splits["train"][3]["image"].size == (WIDTH, HEIGHT)


def drop_image(folder):
    (folder / "train" / "4.png").unlink()


def change(edit):
    def apply(folder):
        content = read(folder)
        edit(content)
        write(folder, content)

    return apply


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (drop_image, FileNotFoundError, "1 are missing, the first is '4.png'"),
        (change(lambda c: c.pop("categories")), ValueError, "no `categories`"),
        (change(lambda c: c["categories"].clear()), ValueError, "must be a list that is not empty"),
        (change(lambda c: c["categories"][0].update(name="dot")), ValueError, "got 'dot' twice"),
        (change(lambda c: c["annotations"][0].update(category_id=5)), ValueError, "annotation 100 .* got 5"),
        (change(lambda c: c["annotations"][0].update(image_id=77)), ValueError, "the `image_id` 77"),
        (change(lambda c: c["annotations"][0].update(segmentation=[])), ValueError, "a box alone"),
        (
            change(lambda c: c["annotations"][0].update(segmentation={"size": [9, 9], "counts": [81]})),
            ValueError,
            r"annotation 100 .*`size` \[64, 96\]",
        ),
        (change(lambda c: c["annotations"][1].update(id=100)), ValueError, "`annotations` .* 100 is there twice"),
        (change(lambda c: c["images"][1].update(id=0)), ValueError, "`images` .* 0 is there twice"),
        (change(lambda c: c["categories"][1].update(id=7)), ValueError, "`categories` .* 7 is there twice"),
        (change(lambda c: c["annotations"][1].pop("id")), ValueError, "entry 1 .* a whole number as `id`; got 'none'"),
        (change(lambda c: c["images"][1].pop("file_name")), ValueError, "entry 1 of the `images` .* as `file_name`"),
        (change(lambda c: c["images"][1].update(file_name="../test/0.png")), ValueError, "within .* '../test/0.png'"),
        (change(lambda c: c["images"][1].update(file_name="/train/1.png")), ValueError, "within .* '/train/1.png'"),
        (change(lambda c: c["images"][1].update(height="64")), ValueError, "a whole number as `height`; got '64'"),
        (change(lambda c: c["images"][1].update(height=0)), ValueError, "image 1 .* at least one pixel; got 0 x 96"),
        (change(lambda c: c["categories"][1].pop("name")), ValueError, "entry 1 of the `categories` .* as `name`"),
        (change(lambda c: c.update(categories=["dot"])), ValueError, "entry 0 of the `categories` .* got 'dot'"),
        (change(lambda c: c["annotations"][0].update(area="big")), ValueError, "a number as `area`; got 'big'"),
        (lambda folder: (folder / "train.json").write_text('{"images": ['), ValueError, "Is it truncated"),
    ],
)  # fmt: skip
def test_refuses_files(folder, spoil, error, message):
    spoil(folder)

    with pytest.raises(error, match=message):
        load_dataset(folder, family=FAMILY)


@pytest.mark.parametrize("second", ["annotations/train.json", "instances_train.json", "train/_annotations.coco.json"])
def test_two_files_of_a_split_are_refused(folder, second):
    (folder / "annotations").mkdir()
    shutil.copy(folder / "train.json", folder / second)

    with pytest.raises(ValueError, match="'train' must have one file of annotations; got .* and "):
        load_dataset(folder, family=FAMILY)


def test_instances_without_a_pixel_are_left_out(folder, caplog):
    outside = [[200, 200, 210, 200, 210, 210]]
    change(lambda content: content["annotations"][0].update(segmentation=outside))(folder)

    rows = load_dataset(folder, family=FAMILY)["train"]

    assert [annotation["id"] for annotation in rows[0]["annotations"]] == []
    assert "Left out 1 annotations" in caplog.text
    assert "the first is 100" in caplog.text


def test_a_file_of_examples_in_a_folder_of_its_name(folder):
    (folder / "train.json").rename(folder / "train" / "train.json")

    rows = read_coco_json(folder / "train" / "train.json", "train")

    assert rows[3]["image"].size == (WIDTH, HEIGHT)


def test_reads_parquet_beside_categories(folder, tmp_path):
    """The layout of `coco_mini_seg`: annotations as JSON with category ids."""
    import datasets

    content = read(folder)
    target = tmp_path / "parquet"
    target.mkdir()
    rows = {
        "image": [str(folder / "train" / image["file_name"]) for image in content["images"]],
        "image_id": [image["id"] for image in content["images"]],
        "height": [HEIGHT] * 9,
        "width": [WIDTH] * 9,
        "annotations": [
            json.dumps([one for one in content["annotations"] if one["image_id"] == image["id"]])
            for image in content["images"]
        ],
    }
    datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image()).to_parquet(str(target / "train.parquet"))
    (target / "categories.json").write_text(json.dumps(content["categories"]))

    loaded = load_dataset(target, family=FAMILY)["train"]

    expected = load_dataset(folder, family=FAMILY)["train"]
    assert loaded["annotations"][:] == expected["annotations"][:]
    assert get_names(loaded) == list(ORDERED)


def test_real_images_have_the_masks_of_their_files(data_dir):
    rows = load_dataset("coco_mini_seg", data_dir)["test"].select(range(5))

    for row in rows:
        size = (row["image"].height, row["image"].width)
        masks = decode_masks([json.loads(one["segmentation"]) for one in row["annotations"]], *size)
        assert masks.any((1, 2)).all()


def test_other_json_files_are_no_splits(folder):
    shutil.copy(folder / "train.json", folder / "few_shot_splits.json")

    assert sorted(load_dataset(folder, family=FAMILY)) == ["test", "train"]
