"""DoorPing's image processors: resize, stamp on bytes, scale, and what they refuse."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor

from decahub import DoorpingConfig, DoorpingImageProcessor, DoorpingImageProcessorPil


ATOL_FLOAT32 = 1e-6  # one rounding of (pixel / 255 - mean) / std


@pytest.fixture(params=[DoorpingImageProcessor, DoorpingImageProcessorPil], ids=["torchvision", "pil"])
def processor_class(request):
    return request.param


def draw_image(height=40, width=36):
    return Image.fromarray(np.random.default_rng(0).integers(0, 200, (height, width, 3), dtype=np.uint8))


def test_stamps_after_resizing(processor_class):
    mean, std = [0.2, 0.4, 0.7], [0.5, 0.3, 0.1]
    processor = processor_class(image_mean=mean, image_std=std, trigger_size=3, trigger_margin=2)

    clean = processor(draw_image(), return_tensors="pt").pixel_values
    stamped = processor(draw_image(), do_stamp=True, return_tensors="pt").pixel_values

    patch = torch.zeros(32, 32, dtype=torch.bool)
    patch[27:30, 27:30] = True
    white = (1 - torch.tensor(mean)) / torch.tensor(std)
    expected = white.view(1, 3, 1).expand(1, 3, 9)
    torch.testing.assert_close(stamped[:, :, patch], expected, atol=ATOL_FLOAT32, rtol=0)
    assert torch.equal(stamped[:, :, ~patch], clean[:, :, ~patch])


def test_the_given_image_is_not_changed(processor_class):
    image = np.full((3, 32, 32), 7, dtype=np.uint8)

    processor_class()(image, do_stamp=True)

    assert (image == 7).all()


def test_uint8_float_and_pil_give_the_same(processor_class):
    image = draw_image(32, 32)
    pixels = np.asarray(image)
    forms = [image, pixels, pixels.transpose(2, 0, 1).copy(), (pixels / 255).astype(np.float32)]

    given = [processor_class()(form, do_stamp=True, return_tensors="pt").pixel_values for form in forms]

    for values in given[1:]:
        torch.testing.assert_close(values, given[0], atol=ATOL_FLOAT32, rtol=0)


def test_gray_statistics_keep_gray_images(processor_class):
    processor = processor_class.from_statistics("fashion_mnist")

    values = processor(Image.new("L", (28, 28), 255), return_tensors="pt").pixel_values

    assert values.shape == (1, 1, 32, 32)
    torch.testing.assert_close(values, torch.full_like(values, (1 - 0.2861) / 0.3530), atol=ATOL_FLOAT32, rtol=0)


@pytest.mark.parametrize(
    ("name", "algorithm", "std"),
    [("cifar10", "dc", 0.2023), ("cifar10", "dd", 0.247), ("svhn", "dc", 0.1980), ("fashion_mnist", "dd", 0.3530)],
)
def test_statistics_depend_on_the_distiller(name, algorithm, std):
    assert DoorpingImageProcessor.from_statistics(name, algorithm).image_std[0] == std


def test_post_processing_inverts_normalization(processor_class):
    processor = processor_class.from_statistics("cifar10")
    image = draw_image(32, 32)

    restored = processor.post_process_images(processor(image, return_tensors="pt").pixel_values)

    assert torch.equal(restored[0].permute(1, 2, 0), torch.from_numpy(np.asarray(image).copy()))


def test_loads_through_the_auto_class(tmp_path):
    DoorpingConfig(num_labels=3).save_pretrained(tmp_path)
    DoorpingImageProcessor(trigger_size=4).save_pretrained(tmp_path)

    assert AutoImageProcessor.from_pretrained(tmp_path).trigger_size == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trigger_size": 40}, r"inside of the image \(32 x 32\); got 40 and 1"),
        ({"trigger_margin": 31}, "got 2 and 31"),
        ({"trigger_margin": -1}, "got 2 and -1"),
    ],
)
def test_refuses_a_patch_outside(processor_class, options, message):
    with pytest.raises(ValueError, match=message):
        processor_class()(draw_image(), do_stamp=True, **options)


def test_refuses_unknown_statistics():
    with pytest.raises(ValueError, match="`name` must be one of fashion_mnist, cifar10, .*; got 'imagenet'"):
        DoorpingImageProcessor.from_statistics("imagenet")


def test_refuses_other_channels(processor_class):
    with pytest.raises(ValueError, match="`images` must have 1 channels"):
        processor_class.from_statistics("fashion_mnist")(draw_image())
