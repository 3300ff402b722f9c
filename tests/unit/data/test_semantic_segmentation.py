"""Joint transforms of image and annotation: both move together, and what is not labeled stays so."""

import random

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import SegformerImageProcessor

from decahub.data import IGNORE_INDEX, InMemoryDataset, SeededTransform, load_dataset
from decahub.data import semantic_segmentation as family


HEIGHT, WIDTH = 20, 28
PLAIN = {"ratio_range": (1.0, 1.0), "flip_prob": 0.0, "distort_colors": False}


def build_processor(**overrides):
    settings = {
        "size": {"height": HEIGHT, "width": WIDTH},
        "image_mean": [0.0, 0.0, 0.0],
        "image_std": [1 / 255] * 3,  # pixel values are the bytes themselves
    }
    return SegformerImageProcessor(**(settings | overrides))


def make_row():
    """An image whose red channel is its own annotation, so that a misplaced pixel shows."""
    annotation = np.random.default_rng(3).integers(0, 11, (HEIGHT, WIDTH), dtype=np.uint8)
    image = np.stack([annotation, annotation + 50, annotation + 100], axis=-1)
    return {"image": Image.fromarray(image), "annotation": Image.fromarray(annotation)}


def as_ids(pixel_values):
    return pixel_values[0].round().long()


@pytest.mark.parametrize("flip_prob", [0.0, 1.0], ids=["plain", "flipped"])
def test_image_and_annotation_move_together(flip_prob):
    transform = family.build_train_transform(build_processor(), (9, 13), **(PLAIN | {"flip_prob": flip_prob}))

    for seed in range(20):
        example = SeededTransform([make_row()], transform, seed=seed)[0]

        assert example["labels"].shape == (9, 13)
        assert torch.equal(as_ids(example["pixel_values"]), example["labels"])


def test_crops_reach_every_corner():
    crop = family.RandomCropPair((HEIGHT - 1, WIDTH - 1), max_class_share=1.0)
    row = family.decode_row(make_row())

    random.seed(0)
    seen = {crop(row["image"], row["annotation"])[1].numpy().tobytes() for _ in range(50)}

    assert len(seen) == 4


def test_border_of_a_small_image_is_ignored():
    transform = family.build_train_transform(build_processor(), (HEIGHT + 3, WIDTH + 5), **PLAIN)

    example = transform(make_row())

    assert (example["labels"][HEIGHT:] == IGNORE_INDEX).all()
    assert (example["labels"][:, WIDTH:] == IGNORE_INDEX).all()
    assert (example["labels"][:HEIGHT, :WIDTH] < 11).all()
    assert (example["pixel_values"][:, HEIGHT:] == 0).all()  # the mean color after normalization


def test_random_ratio_scales_both():
    transform = family.RandomResizedPair(None, (0.5, 2.0))
    row = family.decode_row(make_row())

    random.seed(0)
    sizes = {transform(row["image"], row["annotation"])[1].shape for _ in range(200)}

    heights = {size[0] for size in sizes}
    assert min(heights) <= HEIGHT * 0.6
    assert max(heights) >= HEIGHT * 1.9
    assert all(abs(width - height * WIDTH / HEIGHT) <= 1 for height, width in sizes)  # rounded separately


def test_shortest_edge_is_the_size_at_ratio_one():
    transform = family.RandomResizedPair(10, (1.0, 1.0))
    row = family.decode_row(make_row())

    pixels, labels = transform(row["image"], row["annotation"])

    assert (pixels.shape, labels.shape) == ((3, 10, 14), (10, 14))


def test_resizing_makes_no_new_class():
    annotation = torch.tensor([[0, 10], [IGNORE_INDEX, 3]], dtype=torch.uint8).repeat(8, 8)
    transform = family.RandomResizedPair(None, (0.5, 2.0))

    for _ in range(20):
        labels = transform(torch.zeros(3, 16, 16, dtype=torch.uint8), annotation)[1]
        assert set(labels.unique().tolist()) <= {0, 3, 10, IGNORE_INDEX}


def test_crop_avoids_one_class_where_it_can():
    annotation = torch.zeros(10, 40, dtype=torch.uint8)
    annotation[:, 35:] = 1  # crops of width 10 have both classes only near the right end
    pixels = torch.zeros(3, 10, 40, dtype=torch.uint8)

    def share_of_mixed(max_class_share):
        crop = family.RandomCropPair((10, 10), max_class_share)
        random.seed(0)
        return np.mean([len(crop(pixels, annotation)[1].unique()) > 1 for _ in range(300)])

    assert share_of_mixed(0.75) > 2 * share_of_mixed(1.01)


def test_crop_counts_labeled_pixels_only():
    labels = torch.full((3, 4), IGNORE_INDEX, dtype=torch.uint8)
    labels[0] = torch.tensor([0, 0, 0, 1])

    assert not family.RandomCropPair((4, 4), 0.75)._is_mixed(labels)  # 3 of 4 labeled pixels
    assert family.RandomCropPair((4, 4), 0.8)._is_mixed(labels)


def test_distortion_changes_the_image_and_not_the_annotation():
    transform = family.build_train_transform(build_processor(), (HEIGHT, WIDTH), **(PLAIN | {"distort_colors": True}))
    row = make_row()

    examples = [SeededTransform([row], transform, seed=seed)[0] for seed in range(10)]

    assert any(not torch.equal(as_ids(example["pixel_values"]), example["labels"]) for example in examples)
    assert all(
        torch.equal(example["labels"], torch.from_numpy(np.array(row["annotation"])).long()) for example in examples
    )


def test_reduced_labels():
    labels = torch.tensor([0, 1, 150, IGNORE_INDEX], dtype=torch.uint8)

    assert family.reduce_labels(labels).tolist() == [IGNORE_INDEX, 0, 149, IGNORE_INDEX]


@pytest.mark.parametrize("build", ["train", "eval"])
def test_processor_decides_on_reduced_labels(build):
    processor = build_processor(do_reduce_labels=True)
    transform = (
        family.build_eval_transform(processor)
        if build == "eval"
        else family.build_train_transform(processor, (HEIGHT, WIDTH), **PLAIN)
    )
    row = make_row()

    labels = transform(row)["labels"]

    raw = np.array(row["annotation"]).astype(int)
    assert labels.tolist() == np.where(raw == 0, IGNORE_INDEX, raw - 1).tolist()


def test_evaluation_keeps_annotations_at_their_own_size():
    processor = build_processor(size={"height": 8, "width": 8})

    example = family.build_eval_transform(processor)(make_row())

    assert (example["pixel_values"].shape, example["labels"].shape) == ((3, 8, 8), (HEIGHT, WIDTH))


def test_decoding_once_changes_nothing():
    transform = family.build_train_transform(build_processor(), (9, 13))
    rows = [make_row()]

    decoded = SeededTransform(InMemoryDataset(rows, family.decode_row), transform, seed=1)[0]

    torch.testing.assert_close(decoded, SeededTransform(rows, transform, seed=1)[0], rtol=0, atol=0)


def test_palette_annotation_is_read_as_indices():
    annotation = Image.fromarray(np.array([[0, 3], [7, 255]], dtype=np.uint8), mode="P")
    annotation.putpalette([200, 100, 50] * 256)

    assert family.annotation_to_tensor(annotation).tolist() == [[0, 3], [7, 255]]


def test_refuses_annotation_in_color():
    with pytest.raises(ValueError, match=r"`annotation` must be a PIL image with one channel.*got mode 'RGB'"):
        family.annotation_to_tensor(Image.new("RGB", (4, 3)))


def test_refuses_annotation_of_another_size():
    row = make_row() | {"annotation": Image.new("L", (WIDTH, HEIGHT - 1))}

    with pytest.raises(ValueError, match=r"`annotation` must have the size of its image, \(20, 28\); got \(19, 28\)"):
        family.build_train_transform(build_processor(), (9, 13))(row)


def test_refuses_a_processor_that_crops():
    processor = build_processor()
    processor.do_center_crop = True

    with pytest.raises(ValueError, match=r"`processor\.do_center_crop` must be False"):
        family.build_eval_transform(processor)


@pytest.mark.parametrize(
    ("crop_size", "overrides", "message"),
    [
        ((9,), {}, "`crop_size` must hold a positive height and width"),
        ((9, 0), {}, "`crop_size` must hold a positive height and width"),
        (9, {}, "`crop_size` must hold a positive height and width; got 9"),
        ((9, 13), {"ratio_range": (2.0, 0.5)}, "`ratio_range` must be two positive numbers in ascending order"),
        ((9, 13), {"ratio_range": 2.0}, "`ratio_range` must be two positive numbers in ascending order; got 2.0"),
        ((9, 13), {"flip_prob": 50}, r"`flip_prob` must be in \[0, 1\]; got 50"),
        ((9, 13), {"max_class_share": -1}, r"`max_class_share` must be in \(0, 1\]; got -1"),
        ((9, 13), {"shortest_edge": -5}, "`shortest_edge` must be at least 1; got -5"),
    ],
)
def test_refuses_bad_settings(crop_size, overrides, message):
    with pytest.raises(ValueError, match=message):
        family.build_train_transform(build_processor(), crop_size, **overrides)


def make_example(height, width):
    return {"pixel_values": torch.zeros(3, 4, 5), "labels": torch.zeros(height, width, dtype=torch.int64)}


def test_collate_stacks_equal_sizes():
    batch = family.collate([make_example(4, 5), make_example(4, 5)])

    assert (batch["pixel_values"].shape, batch["labels"].shape) == ((2, 3, 4, 5), (2, 4, 5))


def test_collate_keeps_annotations_of_unequal_size_apart():
    batch = family.collate([make_example(4, 5), make_example(6, 7)])

    assert [label.shape for label in batch["labels"]] == [(4, 5), (6, 7)]


def test_collate_refuses_images_of_unequal_size():
    examples = [make_example(4, 5), make_example(4, 5) | {"pixel_values": torch.zeros(3, 6, 5)}]

    with pytest.raises(ValueError, match=r"must have one size; got \[\(4, 5\), \(6, 5\)\]"):
        family.collate(examples)


# Values of annotations, and folders of a user's own


def make_maps(*values):
    features = datasets.Features(image=datasets.Image(), annotation=datasets.Image())
    maps = [Image.fromarray(np.full((4, 6), value, dtype=np.uint8)) for value in values]
    return datasets.Dataset.from_dict({"image": maps, "annotation": maps}, features=features)


def test_classes_without_a_pixel_are_told():
    assert family.check_annotations(make_maps(0, 2, 255), ["sky", "road", "car"], "test") == ["road"]
    assert family.check_annotations(make_maps(0, 2, 255), ["road", "car"], "test", do_reduce_labels=True) == ["road"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((0, 1, 7), r"must hold ids in \[0, 2\) or 255 .*; got 7, and 1 such values"),
        ((0, 255), r"class 'object' has no pixel. Is 255 meant as a class\?.*mask // 255"),
    ],
    ids=["unknown id", "255 as a class"],
)
def test_refuses_values_that_are_not_classes(values, message):
    with pytest.raises(ValueError, match=message):
        family.check_annotations(make_maps(*values), ["background", "object"], "test")


@pytest.mark.parametrize(("value", "do_reduce_labels"), [(2, False), (3, True), (254, False)])
def test_an_unknown_class_among_the_training_maps_is_named(value, do_reduce_labels):
    rows = make_maps(0, 255, 1, value, 1)

    with pytest.raises(ValueError, match=rf"of training row 3 must hold ids in .*for 2 classes; got {value}"):
        family.check_training_annotations(rows, ["sky", "road"], do_reduce_labels)


def test_the_check_of_training_maps_ends_in_time_and_says_so(caplog):
    rows = make_maps(*range(5))

    assert family.check_training_annotations(rows, ["a"] * 5) == 5
    assert not caplog.messages
    assert family.check_training_annotations(rows, ["a"], max_seconds=-1.0) == 0
    assert "Checked 0 of 5 training annotations, chosen at random" in caplog.messages[0]


@pytest.fixture
def folder(tmp_path):
    for split in ("train", "test"):
        for kind, suffix in (("images", "jpg"), ("annotations", "png")):
            path = tmp_path / split / kind / f"street.{suffix}"
            path.parent.mkdir(parents=True)
            Image.fromarray(np.full((4, 6), 3, dtype=np.uint8)).save(path)
    return tmp_path


def test_a_folder_of_images_and_maps_is_a_dataset(folder):
    splits = load_dataset(folder, family="semantic-segmentation")

    assert set(splits) == {"train", "test"}
    assert np.unique(np.asarray(splits["test"][0]["annotation"])) == [3]


def test_other_files_among_the_images_are_left_alone(folder):
    for name in (".DS_Store", "Thumbs.db"):
        (folder / "train" / "images" / name).write_bytes(b"no image")

    assert len(load_dataset(folder, family="semantic-segmentation")["train"]) == 1


def test_refuses_images_in_folders_of_a_split(folder):
    nested = folder / "test" / "images" / "bonn" / "street.jpg"
    nested.parent.mkdir()
    (folder / "test" / "images" / "street.jpg").rename(nested)

    with pytest.raises(ValueError, match=r"must lie in \S+test/images itself; got 1 in folders below it.*bonn/street"):
        load_dataset(folder, family="semantic-segmentation")


def test_a_map_of_another_size_than_its_image_is_named(folder):
    Image.fromarray(np.full((5, 6), 0, dtype=np.uint8)).save(folder / "test" / "annotations" / "street.png")
    rows = load_dataset(folder, family="semantic-segmentation")["test"]

    with pytest.raises(ValueError, match=r"of its `image`, 6 x 4 pixels; got 6 x 5 in row 0 \(street\.png\)"):
        family.check_annotations(rows, ["road"], "test")


def test_an_image_without_a_map_is_named(folder):
    (folder / "test" / "annotations" / "street.png").unlink()

    with pytest.raises(FileNotFoundError, match=r"1 are missing, the first is .*street\.png"):
        load_dataset(folder, family="semantic-segmentation")


def test_parquet_with_the_content_of_the_files_can_be_moved(tmp_path, folder):
    features = datasets.Features(image=datasets.Image(), annotation=datasets.Image())
    files = {kind: next((folder / "train" / f"{kind}s").iterdir()) for kind in ("image", "annotation")}
    rows = {kind: [path.read_bytes()] for kind, path in files.items()}
    (folder / "scenes").mkdir()
    datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / "scenes" / "train.parquet")
    moved = (folder / "scenes").rename(tmp_path / "moved")
    for path in files.values():
        path.unlink()

    row = load_dataset(moved, family="semantic-segmentation")["train"][0]

    assert np.unique(np.asarray(row["annotation"])) == [3]
    assert row["image"].size == (6, 4)
