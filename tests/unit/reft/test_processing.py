"""Images, annotations and support -> tensors."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from transformers import AutoImageProcessor, AutoProcessor, Mask2FormerImageProcessor

from decahub import RefTImageProcessor, RefTProcessor
from decahub.models.reft.masks.instances import compute_box, read_instance
from decahub.models.reft.masks.rle import decode_rle, encode_rle


HEIGHT, WIDTH = 50, 70
SIZES = {"size": {"shortest_edge": 64, "longest_edge": 128}, "support_size": 64}
PIXEL_ATOL = 1e-5


def build_image(height=HEIGHT, width=WIDTH, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def build_mask(top=10, left=20, height=20, width=25):
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[top : top + height, left : left + width] = True
    return mask


def draw_random_masks(count=20):
    random = np.random.default_rng(1)
    return [random.random((5 + index, 23 - index)) < random.random() for index in range(count)]


# --- COCO masks


@pytest.mark.parametrize("mask", draw_random_masks(), ids=str)
def test_rle_is_that_of_coco(mask):
    rle = encode_rle(mask)

    expected = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    assert rle == {"size": list(mask.shape), "counts": expected["counts"].decode()}
    assert np.array_equal(decode_rle(rle), mask)
    assert np.array_equal(decode_rle({**rle, "counts": rle["counts"].encode()}), mask)
    runs = np.diff(np.flatnonzero(np.diff(np.concatenate([[2], mask.T.ravel(), [2]]).astype(int))))
    counts = [0, *runs.tolist()] if mask.T.ravel()[0] else runs.tolist()
    assert np.array_equal(decode_rle({"size": list(mask.shape), "counts": counts}), mask)


@pytest.mark.parametrize(
    "rle",
    [
        {"size": [4, 5]},
        {"counts": "0d0"},
        {"size": [4, 5], "counts": "zzz"},
        {"size": [4, 5], "counts": "\x01"},
        {"size": [4, 5], "counts": [3, 4]},
        {"size": [4, 5], "counts": [-3, 23]},
        {"size": [40, 50], "counts": "0d0"},
        {"size": [10**9, 10**9], "counts": [10**18]},
        {"size": [0, 5], "counts": []},
        {"size": [4, 5], "counts": None},
    ],
    ids=str,
)
def test_damaged_rles_are_refused(rle):
    with pytest.raises(ValueError, match="An RLE must"):
        decode_rle(rle)


@pytest.mark.parametrize(
    "instance",
    [
        build_mask(),
        build_mask().astype(np.uint8) * 255,
        build_mask().astype(np.float32) * 0.9 + 0.05,
        torch.from_numpy(build_mask()),
        Image.fromarray(build_mask().astype(np.uint8) * 255),
        Image.fromarray(build_mask().astype(np.uint8) * 255).convert("RGB"),
        Image.fromarray(build_mask().astype(np.uint16) * 900),
        build_mask()[None],
        build_mask().astype(int).tolist(),
        encode_rle(build_mask()),
        [20, 10, 45, 30],
        np.array([20.0, 10.0, 45.0, 30.0]),
        [[20, 10, 45, 10, 45, 30, 20, 30]],
        [20, 10, 45, 10, 45, 30, 20, 30],
    ],
    ids=[
        "bool",
        "255",
        "probabilities",
        "tensor",
        "image",
        "RGB image",
        "deep image",
        "channel",
        "rows",
        "rle",
        "box",
        "box array",
        "polygons",
        "polygon",
    ],
)
def test_an_instance_in_every_form(instance):
    assert np.array_equal(read_instance(instance, HEIGHT, WIDTH), build_mask())


@pytest.mark.parametrize("as_path", [str, Path])
def test_files_hold_images_and_masks(tmp_path, as_path):
    paths = [as_path(tmp_path / name) for name in ("a.png", "a_mask.png")]
    Image.fromarray(build_image()).save(paths[0])
    Image.fromarray(build_mask()).save(paths[1])

    support = PROCESSOR.prepare_support({"cat": [tuple(paths)]})

    expected = PROCESSOR.prepare_support({"cat": [(build_image(), build_mask())]})
    assert all(torch.equal(support[name], expected[name]) for name in expected)


def test_a_photograph_and_its_mask_are_read_upright(tmp_path):
    exif = Image.Exif()
    exif[274] = 6  # to be turned by a quarter
    turned = [np.rot90(array).copy() for array in (build_image(), build_mask())]
    for name, array in zip(("a.png", "a_mask.png"), turned, strict=True):
        Image.fromarray(array).save(tmp_path / name, exif=exif)

    support = PROCESSOR.prepare_support({"cat": [(str(tmp_path / "a.png"), str(tmp_path / "a_mask.png"))]})

    expected = PROCESSOR.prepare_support({"cat": [(build_image(), build_mask())]})
    assert all(torch.equal(support[name], expected[name]) for name in expected)


def test_a_deep_image_file_keeps_its_contrast(tmp_path):
    gray = build_image()[..., 0]
    Image.fromarray(gray.astype(np.uint16) * 257).save(tmp_path / "deep.png")

    inputs = PROCESSOR(str(tmp_path / "deep.png"), return_tensors="pt")

    expected = PROCESSOR(Image.fromarray(gray), return_tensors="pt")
    torch.testing.assert_close(inputs["pixel_values"], expected["pixel_values"], atol=PIXEL_ATOL, rtol=0)


def test_a_map_of_several_instances_gives_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        mask = read_instance(Image.fromarray(np.uint8(build_mask() + 2 * build_mask(0, 0, 5, 5))), HEIGHT, WIDTH)

    assert np.array_equal(mask, build_mask(0, 0, 5, 5))
    assert "3 values; those above half of the largest count" in caplog.text


def test_polygons_are_drawn_as_by_coco():
    polygons = [[3.2, 4.1, 30.7, 2.2, 25.0, 40.3], [40, 5, 60, 9, 50, 30]]
    expected = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, HEIGHT, WIDTH)))

    assert np.array_equal(read_instance(polygons, HEIGHT, WIDTH), expected.astype(bool))


REFUSED_INSTANCES = {
    "nothing": (None, TypeError, "an instance must be a mask, a box"),
    "size": (np.ones((HEIGHT, WIDTH + 1)), ValueError, "the size of its image, 50 x 70; got 50 x 71"),
    "channels": (np.ones((3, HEIGHT, WIDTH)), ValueError, r"one channel, \(height, width\); got shape \(3, 50, 70\)"),
    "nan": (np.full((HEIGHT, WIDTH), np.nan), ValueError, "a mask must hold finite values"),
    "outside": ([20, 10, 71, 30], ValueError, "inside the image of 70 x 50"),
    "reversed": ([45, 10, 20, 30], ValueError, "with x0 < x1"),
    "two points": ([[1, 1, 2, 2]], ValueError, "at least three finite points"),
    "shares box": ([0.2, 0.1, 0.9, 1.0], ValueError, r"a box must be in pixels .* 70 x 50; got .* at most 1\.0"),
    "shares polygon": ([[0.2, 0.1, 0.9, 0.1, 0.9, 0.8]], ValueError, "a polygon must be in pixels"),
    "rows of another size": ([[0, 1] * 35] * 51, ValueError, "a polygon must be in pixels"),
    "no file": ("none.png", FileNotFoundError, "none.png"),
    "odd": ([[1, 1, 2, 2, 3, 3, 4]], ValueError, "at least three finite points"),
}


@pytest.mark.parametrize(("instance", "error", "message"), REFUSED_INSTANCES.values(), ids=REFUSED_INSTANCES.keys())
def test_instances_that_are_refused(instance, error, message):
    with pytest.raises(error, match=message):
        read_instance(instance, HEIGHT, WIDTH)


def test_box_is_tight_with_exclusive_ends():
    assert compute_box(build_mask(top=10, left=20, height=3, width=5)) == [20, 10, 25, 13]
    assert compute_box(np.zeros((4, 5), dtype=bool)) == [0, 0, 0, 0]


# --- Images and targets


def test_pixels_are_those_of_mask2former():
    images = [build_image(), build_image(60, 40, seed=1)]

    ours = RefTImageProcessor(**SIZES)(images, return_tensors="pt")
    theirs = Mask2FormerImageProcessor(size=SIZES["size"])(images, return_tensors="pt")

    torch.testing.assert_close(ours["pixel_values"], theirs["pixel_values"], atol=PIXEL_ATOL, rtol=0)
    assert torch.equal(ours["pixel_mask"], theirs["pixel_mask"])


def test_floats_and_bytes_give_the_same_pixels():
    processor, image = RefTImageProcessor(**SIZES), build_image()

    floats = processor((image / 255).astype(np.float32), return_tensors="pt")["pixel_values"]

    # Bytes are rounded again after they are resized.
    torch.testing.assert_close(floats, processor(image, return_tensors="pt")["pixel_values"], atol=0.02, rtol=0)


COLORS = build_image()
GRAY = COLORS[..., 0]
ALPHA = np.dstack([COLORS, np.where(build_mask(), 255, 0).astype(np.uint8)])
KINDS_OF_IMAGES = {
    "gray": (Image.fromarray(GRAY), np.dstack([GRAY] * 3)),
    "gray array": (GRAY, np.dstack([GRAY] * 3)),
    "gray with a channel": (GRAY[..., None], np.dstack([GRAY] * 3)),
    "gray floats": (torch.from_numpy(GRAY / 255)[None].float(), np.dstack([GRAY] * 3)),
    "transparent": (Image.fromarray(ALPHA), np.where(build_mask()[..., None], COLORS, 255).astype(np.uint8)),
    "transparent array": (ALPHA, np.where(build_mask()[..., None], COLORS, 255).astype(np.uint8)),
    "palette": (Image.fromarray(GRAY).convert("P"), np.dstack([GRAY] * 3)),
}


@pytest.mark.parametrize(("image", "colors"), KINDS_OF_IMAGES.values(), ids=KINDS_OF_IMAGES.keys())
def test_images_of_every_kind(image, colors):
    processor = RefTImageProcessor(size={"height": 64, "width": 64}, support_size=64)

    pixels = processor(image, return_tensors="pt")["pixel_values"]
    support = processor.preprocess_support([image], [build_mask()])["support_pixel_values"]

    expected = processor(colors, return_tensors="pt")["pixel_values"]
    # Floats are not rounded after they are resized.
    torch.testing.assert_close(pixels, expected, atol=0.02, rtol=0)
    expected = processor.preprocess_support([colors], [build_mask()])["support_pixel_values"]
    torch.testing.assert_close(support, expected, atol=0.02, rtol=0)


def test_annotations_become_padded_targets():
    processor = RefTImageProcessor(**SIZES)
    annotations = [
        [
            {"segmentation": build_mask(), "label_id": 3},
            {"segmentation": encode_rle(build_mask(0, 0, 9, 9)), "label_id": 1, "iscrowd": 0},
            {"segmentation": build_mask(), "label_id": 2, "iscrowd": 1},
        ],
        [],
    ]

    inputs = processor([build_image(), build_image(70, 50)], annotations=annotations, return_tensors="pt")

    size = tuple(inputs["pixel_values"].shape[-2:])
    assert [tuple(masks.shape) for masks in inputs["mask_labels"]] == [(2, *size), (0, *size)]
    assert [classes.tolist() for classes in inputs["class_labels"]] == [[3, 1], []]
    visible = inputs["pixel_mask"][0].bool()
    height, width = int(visible.any(1).sum()), int(visible.any(0).sum())
    mask = inputs["mask_labels"][0][0]
    assert not mask[~visible].any()
    share = mask.sum() / (height * width)
    assert share.item() == pytest.approx(build_mask().mean(), rel=0.1)


def test_segmentation_maps_have_no_instances_in_padding():
    processor = RefTImageProcessor(**SIZES, ignore_index=255)
    maps = [np.where(build_mask(), 1, 255).astype(np.int64), np.full((70, 50), 255)]

    inputs = processor([build_image(), build_image(70, 50)], segmentation_maps=maps, return_tensors="pt")

    assert set(inputs["mask_labels"][0].unique().tolist()) == {0, 1}


# --- Support


def test_crop_is_a_square_around_the_instance():
    processor = RefTImageProcessor(**SIZES, support_context=2.0, do_normalize=False)
    image = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    mask = build_mask(top=15, left=25, height=16, width=10)  # the square is 32 pixels wide, from (14, 7)
    image[mask] = 255

    support = processor.preprocess_support([image], masks=[mask])

    assert support["support_pixel_values"].shape == (1, 3, 64, 64)
    expected = torch.zeros(64, 64, dtype=torch.bool)
    expected[16:48, 22:42] = True
    assert torch.equal(support["support_masks"][0], expected)
    inner = expected.clone()
    inner[[16, 47], :], inner[:, [22, 41]] = False, False
    assert (support["support_pixel_values"][0, :, inner] == 1).all()
    assert support["support_valid"].tolist() == [True]


def test_a_thin_instance_does_not_vanish():
    image, mask = np.zeros((600, 900, 3), dtype=np.uint8), np.zeros((600, 900), dtype=bool)
    mask[301, 50:850] = True  # every 19th row is kept, and not this one

    support = RefTImageProcessor(**SIZES).preprocess_support([image], masks=[mask])

    rows, columns = support["support_masks"][0].nonzero().unbind(1)
    assert support["support_valid"].tolist() == [True]
    assert rows.unique().tolist() == [31]  # row 599 of 1200
    assert (int(columns.min()), int(columns.max())) == (10, 53)  # the square is 1200 pixels wide


def test_outside_of_the_image_is_the_mean_color():
    processor = RefTImageProcessor(**SIZES)

    support = processor.preprocess_support([build_image()], boxes=[[0, 0, 70, 50]])

    # The square of 105 pixels has 27 rows above the image.
    assert support["support_pixel_values"][0, :, :12].abs().max() < 0.05


@pytest.mark.parametrize("kind", ["masks", "boxes", "rle", "polygons"])
def test_every_form_gives_the_same_crop(kind):
    processor = RefTImageProcessor(**SIZES)
    forms = {
        "masks": build_mask(),
        "boxes": [20, 10, 45, 30],
        "rle": encode_rle(build_mask()),
        "polygons": [[20, 10, 45, 10, 45, 30, 20, 30]],
    }

    support = processor.preprocess_support([build_image()], **{kind: [forms[kind]]})

    expected = processor.preprocess_support([build_image()], masks=[build_mask()])
    assert all(torch.equal(support[name], expected[name]) for name in expected)


def test_processor_pads_shots_and_counts_classes():
    processor = RefTProcessor(RefTImageProcessor(**SIZES))
    image, mask = build_image(), build_mask()

    inputs = processor(image, support={"cat": [(image, mask)] * 3, "dog": [(image, mask)]}, return_tensors="pt")

    assert inputs["pixel_values"].shape[0] == 1
    assert inputs["support_pixel_values"].shape == (2, 3, 3, 64, 64)
    assert inputs["support_valid"].tolist() == [[True] * 3, [True, False, False]]
    assert inputs["support_class_ids"].tolist() == [0, 1]
    named = processor(support={"dog": [(image, mask)]}, label2id={"cat": 0, "dog": 7})
    assert named["support_class_ids"].tolist() == [7]


def test_equal_names_are_one_class():
    processor, shot = RefTProcessor(RefTImageProcessor(**SIZES)), (build_image(), build_mask())

    support = processor.prepare_support([("cat", [shot]), ("dog", [shot]), ("cat", [shot, shot])])

    assert support["support_valid"].sum(1).tolist() == [3, 1]


def test_files_keep_the_processor(tmp_path):
    processor = RefTProcessor(RefTImageProcessor(**SIZES, support_context=1.25))
    processor.save_pretrained(tmp_path)

    loaded = AutoProcessor.from_pretrained(tmp_path)

    assert type(loaded) is RefTProcessor
    assert loaded.image_processor.to_dict() == processor.image_processor.to_dict()
    assert type(AutoImageProcessor.from_pretrained(tmp_path)) is RefTImageProcessor


PROCESSOR = RefTProcessor(RefTImageProcessor(**SIZES))
SHOT = (build_image(), build_mask())
REFUSED = {
    "nothing": (lambda: PROCESSOR(), "`images` or `support` must be given"),
    "no images": (lambda: PROCESSOR([]), "`images` must hold at least one image"),
    "nan": (lambda: PROCESSOR(np.full((40, 40, 3), np.nan, dtype=np.float32)), "`images` must hold finite pixels"),
    "nan in a shot": (
        lambda: PROCESSOR(support={"cat": [(np.full((50, 70, 3), np.nan), build_mask())]}),
        "Support of 'cat': `images` must hold finite pixels",
    ),
    "channels": (
        lambda: PROCESSOR(np.zeros((50, 70, 2), np.uint8)),
        r"1, 3 or 4 channels; image 0 has shape \(50, 70, 2",
    ),
    "no class": (lambda: PROCESSOR(support={}), "`support` must hold at least one class"),
    "no shot": (lambda: PROCESSOR(support={"cat": []}), "'cat' has none"),
    "empty masks": (
        lambda: PROCESSOR(support={"cat": [SHOT], "dog": [(SHOT[0], SHOT[1] & False)]}),
        "all masks of 'dog' are empty",
    ),
    "unknown name": (lambda: PROCESSOR(support={"cat": [SHOT]}, label2id={"dog": 0}), "'cat' is missing"),
    "annotations alone": (lambda: PROCESSOR(support={"cat": [SHOT]}, annotations=[[]]), "must come with `images`"),
    "annotation count": (lambda: PROCESSOR(SHOT[0], annotations=[[], []]), r"for each image \(1\); got 2"),
    "annotation key": (
        lambda: PROCESSOR(SHOT[0], annotations=[[{"segmentation": SHOT[1], "label": 1}]]),
        "`annotations` of image 0: `label` must be a key of an annotation",
    ),
    "annotation without label": (
        lambda: PROCESSOR(SHOT[0], annotations=[[{"segmentation": SHOT[1]}]]),
        "`label_id` is missing",
    ),
    "two forms": (
        lambda: PROCESSOR.image_processor.preprocess_support([SHOT[0]], masks=[SHOT[1]], boxes=[[0, 0, 9, 9]]),
        "Exactly one of `masks`, `boxes`, `rle` and `polygons` must be given; got mask, box",
    ),
    "no polygon": (
        lambda: PROCESSOR.image_processor.preprocess_support([SHOT[0]], polygons=[[]]),
        "shot 0: polygons must be at least one list of points",
    ),
    "pair without a list": (lambda: PROCESSOR(support={"cat": SHOT}), "shot 0 of 'cat' is ndarray"),
    "three entries": (lambda: PROCESSOR(support={"cat": [(*SHOT, 1)]}), "shot 0 of 'cat' is 3 entries"),
    "std": (lambda: RefTImageProcessor(image_std=[0.2, 0.0, 0.2]), "`image_std` must be above 0"),
    "shot count": (
        lambda: PROCESSOR.image_processor.preprocess_support([SHOT[0]], masks=[SHOT[1]] * 2),
        r"as many as the instances \(2\); got 1",
    ),
    "support size": (lambda: RefTImageProcessor(support_size=48), "`support_size` must be a multiple of 32"),
    "context": (lambda: RefTImageProcessor(support_context=float("inf")), "`support_context` must be finite"),
    "context of a call": (
        lambda: PROCESSOR.image_processor.preprocess_support([SHOT[0]], [SHOT[1]], support_context=0.5),
        "`support_context` must be finite and at least 1",
    ),
    "typo": (lambda: RefTImageProcessor(suport_size=64), "Did you mean `support_size`"),
}


@pytest.mark.parametrize(("act", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refuses(act, message):
    with pytest.raises(ValueError, match=message):
        act()
