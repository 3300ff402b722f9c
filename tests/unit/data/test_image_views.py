"""Two views of one image, mixed batches, balanced subsets."""

import datasets
import pytest
import torch
from torchvision.transforms.v2 import functional

from decahub import TinyMimImageProcessor
from decahub.data import SeededTransform, image_mixing, image_views, seeded_random_state


COLOR_ATOL = 1e-3  # on values up to 255: the same sums in another order
NORMALIZED_ATOL = 1e-5


@pytest.fixture
def processor():
    return TinyMimImageProcessor(size={"height": 16, "width": 16}, do_center_crop=False)


@pytest.fixture
def rows():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (6, 3, 16, 16), generator=generator, dtype=torch.uint8)
    return [{"image": image, "label": index % 3} for index, image in enumerate(images)]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (image_views.adjust_brightness, functional.adjust_brightness),
        (image_views.adjust_contrast, functional.adjust_contrast),
        (image_views.adjust_saturation, functional.adjust_saturation),
    ],
)
@pytest.mark.parametrize("factor", [0.6, 1.4])
def test_color_operations_are_torchvisions(ours, theirs, factor, rows):
    pixels = rows[0]["image"].float()
    expected = theirs(pixels / 255, factor) * 255

    flat = pixels.clone().reshape(3, -1)
    ours(flat, factor)

    torch.testing.assert_close(flat.clamp(0, 255).view_as(pixels), expected, atol=COLOR_ATOL, rtol=0)


@pytest.mark.parametrize("augmentation", ["crop_flip", "random_resized_crop"])
def test_views_share_geometry_and_differ_in_color(augmentation, processor, rows):
    plain, jittered = (
        SeededTransform(rows, image_views.build_pair_transform(processor, augmentation, color_jitter=strength))[0]
        for strength in (0.0, 0.4)
    )

    torch.testing.assert_close(plain["pixel_values"], plain["teacher_pixel_values"], atol=NORMALIZED_ATOL, rtol=0)
    assert torch.equal(jittered["teacher_pixel_values"], plain["teacher_pixel_values"])
    assert not torch.equal(jittered["pixel_values"], jittered["teacher_pixel_values"])


def test_jitter_leaves_its_input_alone_and_takes_gray(rows):
    gray = rows[0]["image"][:1]
    before = gray.clone()

    jittered = image_views.ColorJitter(0.4)(gray)

    assert torch.equal(gray, before)
    assert jittered.shape == gray.shape
    assert 0 <= jittered.min() <= jittered.max() <= 255


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"augmentation": "zoom"}, "`augmentation` must be one of crop_flip"),
        ({"color_jitter": -0.1}, "`color_jitter` must not be negative"),
        ({"flip_prob": 1.5}, "`flip_prob` must be in"),
        ({"area_range": (0.0, 1.0)}, "`area_range` must be two numbers"),
        ({"area_range": [0.5]}, r"`area_range` must be two numbers .*; got \[0.5\]"),
        ({"augmentation": "crop_flip", "crop_padding": 16}, "`crop_padding` must be in"),
        ({"augmentation": "crop_flip", "area_range": (0.2, 1.0)}, "`area_range` must come with `random_resized_crop`"),
        ({"crop_padding": 4}, "`crop_padding` must come with `crop_flip`; got it with 'random_resized_crop'"),
    ],
)
def test_bad_options_are_refused(options, message, processor):
    with pytest.raises(ValueError, match=message):
        image_views.build_pair_transform(processor, **options)


def test_mixing_draws_from_the_global_generators():
    examples = [{"pixel_values": torch.randn(3, 8, 8), "labels": index % 3} for index in range(4)]
    collate = image_mixing.build_collate(3, mixup_alpha=0.8, cutmix_alpha=1.0)
    with seeded_random_state(1):
        first = collate(examples)
    with seeded_random_state(1):
        again = collate(examples)
    with seeded_random_state(2):
        other = collate(examples)

    assert torch.equal(first["pixel_values"], again["pixel_values"])
    assert torch.equal(first["labels"], again["labels"])
    assert not torch.equal(first["pixel_values"], other["pixel_values"])
    assert first["labels"].shape == (4, 3)
    torch.testing.assert_close(first["labels"].sum(1), torch.ones(4))


def test_without_mixing_labels_are_ids():
    batch = image_mixing.build_collate(3)([{"pixel_values": torch.zeros(3, 4, 4), "labels": 2}])

    assert batch["labels"].tolist() == [2]


def test_mixing_refuses_negative_parameters():
    with pytest.raises(ValueError, match="`cutmix_alpha` must be a number of at least 0"):
        image_mixing.build_collate(3, cutmix_alpha=-1.0)


def test_balanced_subset_is_repeatable():
    table = datasets.Dataset.from_dict({"label": [0, 1, 2] * 10, "index": range(30)})

    chosen = image_mixing.select_balanced(table, 4, seed=1)

    assert sorted(chosen["label"][:]) == [0] * 4 + [1] * 4 + [2] * 4
    assert chosen["index"][:] == image_mixing.select_balanced(table, 4, seed=1)["index"][:]
    assert chosen["index"][:] != image_mixing.select_balanced(table, 4, seed=2)["index"][:]
    assert image_mixing.select_balanced(table, 10)["index"][:] == list(range(30))  # drawn without replacement


@pytest.mark.parametrize(("number", "message"), [(0, "at least 1"), (11, "at most 10")])
def test_balanced_subset_refuses_numbers(number, message):
    table = datasets.Dataset.from_dict({"label": [0, 1, 2] * 10})

    with pytest.raises(ValueError, match=f"`num_per_class` must be {message}"):
        image_mixing.select_balanced(table, number)
