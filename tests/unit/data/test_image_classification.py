"""Transforms of image classification: geometry, normalization, channels, agreement with the image processor."""

import random
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ViTImageProcessor

from decahub.data import InMemoryDataset, SeededTransform, load_dataset
from decahub.data import image_classification as family
from decahub.data.image_files import check_images, read_image


HEIGHT, WIDTH = 12, 16
MEAN, STD = [0.2, 0.4, 0.5], [0.3, 0.25, 0.5]
ATOL_NORMALIZED = 1e-6  # one fused multiply-add against divide, subtract, divide


def build_processor(**overrides):
    settings = {"size": {"height": HEIGHT, "width": WIDTH}, "image_mean": MEAN, "image_std": STD, "resample": 2}
    return ViTImageProcessor(**(settings | overrides))


def make_image(size=(WIDTH, HEIGHT), mode="RGB"):
    pixels = np.random.default_rng(5).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def normalize(pixels):
    mean, std = torch.tensor(MEAN).reshape(3, 1, 1), torch.tensor(STD).reshape(3, 1, 1)
    return (pixels / 255 - mean) / std


def test_without_randomness_training_equals_the_processor():
    row = {"image": make_image(), "label": 3}
    processor = build_processor()
    train = family.build_train_transform(processor, "crop_flip", flip_prob=0.0, crop_padding=0)

    example, expected = train(row), family.build_eval_transform(processor)(row)

    torch.testing.assert_close(example["pixel_values"], expected["pixel_values"], rtol=0, atol=ATOL_NORMALIZED)
    assert example["labels"] == expected["labels"] == 3


def test_crop_flip_gives_a_window_of_the_padded_image_mirrored_or_not():
    image = make_image()
    padded = np.pad(np.array(image), ((2, 2), (2, 2), (0, 0)), mode="reflect")
    windows = set()
    for top in range(5):
        for left in range(5):
            window = padded[top : top + HEIGHT, left : left + WIDTH].transpose(2, 0, 1)
            windows |= {window.tobytes(), window[:, :, ::-1].tobytes()}
    crop_flip = family.CropFlip((HEIGHT, WIDTH), padding=2, flip_prob=0.5)

    random.seed(0)
    seen = {crop_flip(family.image_to_tensor(image)).numpy().tobytes() for _ in range(800)}

    assert seen == windows  # all 50 are reached, and nothing else


@pytest.mark.parametrize("flip_prob", [0.0, 1.0])
def test_flip_prob_is_obeyed(flip_prob):
    pixels = family.image_to_tensor(make_image())
    crop_flip = family.CropFlip((HEIGHT, WIDTH), padding=0, flip_prob=flip_prob)

    expected = pixels.flip(-1) if flip_prob else pixels
    assert all(torch.equal(crop_flip(pixels), expected) for _ in range(20))


def test_crop_flip_resizes_images_of_another_size():
    train = family.build_train_transform(build_processor(), "crop_flip")

    assert train({"image": make_image((40, 30)), "label": 0})["pixel_values"].shape == (3, HEIGHT, WIDTH)


@pytest.mark.parametrize("augmentation", family.AUGMENTATIONS)
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P"])
def test_every_mode_gives_the_processors_shape(augmentation, mode):
    train = family.build_train_transform(build_processor(), augmentation)

    example = train({"image": make_image((19, 23), mode), "label": 1})

    assert (example["pixel_values"].shape, example["pixel_values"].dtype) == ((3, HEIGHT, WIDTH), torch.float32)


def test_single_channel_processor_gives_gray_images():
    processor = build_processor(image_mean=[0.3], image_std=[0.5])
    train = family.build_train_transform(processor, "crop_flip", flip_prob=0.0, crop_padding=0)
    image = make_image(mode="L")

    pixel_values = train({"image": image, "label": 0})["pixel_values"]

    expected = (torch.from_numpy(np.array(image))[None] / 255 - 0.3) / 0.5
    torch.testing.assert_close(pixel_values, expected, rtol=0, atol=ATOL_NORMALIZED)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_decoding_once_changes_nothing(mode):
    rows = [{"image": make_image(mode=mode), "label": 2}]
    train = family.build_train_transform(build_processor(), "random_resized_crop")

    decoded = SeededTransform(InMemoryDataset(rows, family.decode_row), train, seed=1)[0]

    torch.testing.assert_close(decoded, SeededTransform(rows, train, seed=1)[0], rtol=0, atol=0)


def test_seeded_item_does_not_depend_on_global_state():
    train = family.build_train_transform(build_processor(), "random_resized_crop", erasing_prob=1.0)
    dataset = SeededTransform([{"image": make_image((30, 40)), "label": 2}], train, seed=1)
    first = dataset[0]["pixel_values"]

    torch.rand(3), random.random()

    assert torch.equal(dataset[0]["pixel_values"], first)
    dataset.set_epoch(1)
    assert not torch.equal(dataset[0]["pixel_values"], first)


def test_erasing_blanks_one_rectangle_with_the_mean_color():
    train = family.build_train_transform(
        build_processor(), "crop_flip", flip_prob=0.0, crop_padding=0, erasing_prob=1.0
    )
    white = Image.new("RGB", (WIDTH, HEIGHT), (255, 255, 255))  # no pixel of it has the mean color

    areas = []
    for seed in range(50):
        pixel_values = SeededTransform([{"image": white, "label": 0}], train, seed=seed)[0]["pixel_values"]
        erased = (pixel_values == 0).all(0)
        rows, columns = erased.any(1).sum(), erased.any(0).sum()
        assert int(erased.sum()) == int(rows * columns) > 0
        areas.append(int(rows * columns))

    assert max(areas) <= HEIGHT * WIDTH * 0.45  # a third, rounded to whole rows and columns
    assert len(set(areas)) > 10


def test_no_erasing_by_default():
    train = family.build_train_transform(build_processor(), "crop_flip")
    white = Image.new("RGB", (WIDTH, HEIGHT), (255, 255, 255))

    assert all((train({"image": white, "label": 0})["pixel_values"] != 0).all() for _ in range(20))


def test_full_area_crop_without_rand_augment_keeps_a_constant_image():
    train = family.build_train_transform(build_processor(), rand_augment_magnitude=None, area_range=(0.3, 1.0))
    image = Image.new("RGB", (30, 40), (200, 100, 50))

    pixel_values = train({"image": image, "label": 0})["pixel_values"]

    expected = normalize(torch.tensor([200, 100, 50]).reshape(3, 1, 1)).expand(3, HEIGHT, WIDTH)
    torch.testing.assert_close(pixel_values, expected, rtol=0, atol=ATOL_NORMALIZED)


def test_target_size_is_that_of_the_center_crop():
    processor = build_processor()
    processor.do_center_crop, processor.crop_size = True, {"height": 6, "width": 9}
    train = family.build_train_transform(processor, "crop_flip")

    assert train({"image": make_image(), "label": 0})["pixel_values"].shape == (3, 6, 9)


def test_shortest_edge_gives_a_square():
    assert family.get_target_size(build_processor(size={"shortest_edge": 11})) == (11, 11)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"augmentation": "mixup"}, "`augmentation` must be one of crop_flip, random_resized_crop; got 'mixup'"),
        ({"flip_prob": 1.5}, r"`flip_prob` must be in \[0, 1\]; got 1.5"),
        ({"erasing_prob": -0.1}, r"`erasing_prob` must be in \[0, 1\]; got -0.1"),
        ({"rand_augment_magnitude": 11}, r"`rand_augment_magnitude` must be in \[0, 10\] or None; got 11"),
        (
            {"augmentation": "crop_flip", "crop_padding": HEIGHT},
            r"`crop_padding` must be in \[0, 12\), the image size; got 12",
        ),
        ({"rand_augment_magnitude": "strong"}, r"`rand_augment_magnitude` must be in \[0, 10\] or None; got strong"),
        ({"area_range": (0.5, 0.1)}, r"`area_range` must .*; got \(0.5, 0.1\)"),
        ({"area_range": [0.5]}, r"`area_range` must be two numbers .*; got \[0.5\]"),
        ({"area_range": 0.5}, "`area_range` must be two numbers .*; got 0.5"),
        (
            {"augmentation": "crop_flip", "area_range": (0.08, 1.0)},
            "`area_range` must come with `random_resized_crop`; got it with 'crop_flip'",
        ),
        (
            {"augmentation": "crop_flip", "rand_augment_magnitude": 9.0},
            "`rand_augment_magnitude` must come with `random_resized_crop`; got it with 'crop_flip'",
        ),
        ({"crop_padding": 4}, "`crop_padding` must come with `crop_flip`; got it with 'random_resized_crop'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_refuses_bad_settings(overrides, message):
    with pytest.raises(ValueError, match=message):
        family.build_train_transform(build_processor(), **overrides)


def test_refuses_processor_without_a_size():
    with pytest.raises(ValueError, match=r"`processor\.size` must hold `height` and `width`, or `shortest_edge`"):
        family.get_target_size(build_processor(size={"longest_edge": 11}))


def test_collate_stacks():
    examples = [{"pixel_values": torch.full((3, 4, 5), value), "labels": int(value)} for value in (1.0, 2.0)]

    batch = family.collate(examples)

    assert batch["pixel_values"].shape == (2, 3, 4, 5)
    assert (batch["labels"].tolist(), batch["labels"].dtype) == ([1, 2], torch.int64)


# Files


def write_folder(folder, with_labels=True):
    for split in ("train", "test"):
        (folder / split).mkdir(parents=True)
        lines = ["file_name,label"]
        for number, name in enumerate(("owl", "cat", "owl")):
            Image.new("RGB", (5, 4), (40 * number, 0, 0)).save(folder / split / f"{number}.png")
            lines.append(f"{number}.png,{name}")
        if with_labels:
            (folder / split / "metadata.csv").write_text("\n".join(lines))
    return folder


def test_a_folder_with_a_table_of_labels_is_a_dataset(tmp_path):
    splits = load_dataset(write_folder(tmp_path / "mine"), family="image-classification")

    assert splits["train"].features["label"].names == ["cat", "owl"]
    assert splits["test"]["label"][:] == [1, 0, 1]


def write_numbers(folder, numbers):
    lines = [f"{index}.png,{number}" for index, number in enumerate(numbers)]
    (folder / "train" / "metadata.csv").write_text("\n".join(["file_name,label", *lines]))


def test_numbers_in_a_table_are_classes_in_their_order(tmp_path):
    folder = write_folder(tmp_path / "mine")
    shutil.rmtree(folder / "test")
    write_numbers(folder, (10, 2, 2))

    rows = load_dataset(folder, family="image-classification")["train"]

    assert rows.features["label"].names == ["2", "10"]
    assert rows["label"][:] == [1, 0, 0]
    write_numbers(folder, (10, 2, -1))
    with pytest.raises(ValueError, match="must hold a class in each row; got -1. Drop unlabeled rows"):
        load_dataset(folder, family="image-classification")


def test_numbers_in_a_table_are_named_as_they_are_written(tmp_path):
    folder = write_folder(tmp_path / "mine")
    shutil.rmtree(folder / "test")
    write_numbers(folder, ("010", "02", "02"))

    rows = load_dataset(folder, family="image-classification")["train"]

    assert rows.features["label"].names == ["02", "010"]
    assert rows["label"][:] == [1, 0, 0]
    write_numbers(folder, ("1", "2", "01"))
    with pytest.raises(ValueError, match="must write each class in one way; got '01' and '1'"):
        load_dataset(folder, family="image-classification")


def test_images_that_the_table_does_not_list_are_counted(tmp_path, caplog):
    folder = write_folder(tmp_path / "mine")
    for name in ("new_b.png", "new_a.png"):
        Image.new("RGB", (5, 4)).save(folder / "train" / name)

    rows = load_dataset(folder, family="image-classification")["train"]

    assert len(rows) == 3
    assert caplog.messages == [
        "Left out 2 of 5 images in 'train', which its `metadata.csv` does not list; the first is new_a.png."
    ]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (
            "file_name;label",
            "`metadata.csv` in 'train' must separate its columns by commas; got ';' in 'file_name;label'",
        ),
        ('"label"\t"file_name"', r"must separate its columns by commas; got '\\t'"),
        ("name,label", "`metadata.csv` in 'train' must have a column `file_name`; got name, label"),
        ("", "must have a column `file_name`; got an empty line"),
        ("file_name,label", r"train/metadata\.csv must have 2 values in each line, as its header; got 1 in line 2"),
    ],
)
def test_a_table_that_cannot_be_read_is_named(tmp_path, header, message):
    folder = write_folder(tmp_path / "mine")
    (folder / "train" / "metadata.csv").write_text(header + "\n0.png;owl\n")

    with pytest.raises(ValueError, match=message):
        load_dataset(folder, family="image-classification")


def test_images_without_labels_are_a_dataset_where_none_are_needed(tmp_path):
    folder = write_folder(tmp_path / "mine", with_labels=False)

    splits = load_dataset(folder, family="image-classification", needs_labels=False)

    assert splits["train"].column_names == ["image"]
    with pytest.raises(ValueError, match="got None in row 0"):
        load_dataset(folder, family="image-classification")


def test_damaged_images_are_named_before_they_are_used(tmp_path):
    folder = write_folder(tmp_path / "mine")
    content = (folder / "test" / "1.png").read_bytes()
    (folder / "test" / "1.png").write_bytes(content[: len(content) // 2])
    splits = load_dataset(folder, family="image-classification")

    check_images(splits["train"], "image", "train")
    with pytest.raises(
        ValueError, match=r"`image` of test must hold intact images; 1 do not, the first is row 1 \(1\.png\)"
    ):
        check_images(splits["test"], "image", "test")


def test_images_are_read_upright(tmp_path):
    image = Image.new("RGB", (6, 4))
    exif = image.getexif()
    exif[0x0112] = 6  # rotated by a quarter
    image.save(tmp_path / "phone.jpg", exif=exif)

    assert read_image(tmp_path / "phone.jpg").size == (4, 6)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_image(tmp_path / "none.jpg")
