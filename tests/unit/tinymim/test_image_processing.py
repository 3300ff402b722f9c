"""TinyMIM's image processors: what they do to images and maps, in both backends, and what they refuse."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor
from transformers.modeling_outputs import SemanticSegmenterOutput

from decahub import TinyMimConfig, TinyMimImageProcessor, TinyMimImageProcessorPil


ATOL_FLOAT32 = 1e-6  # one rounding of (pixel / 255 - mean) / std
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
MODES = {"gray": "L", "palette": "P", "gray with alpha": "LA", "alpha": "RGBA", "bits": "1"}


@pytest.fixture(params=[TinyMimImageProcessor, TinyMimImageProcessorPil], ids=["torchvision", "pil"])
def processor_class(request):
    return request.param


@pytest.fixture
def image() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def as_is(processor_class, **arguments):
    """A processor that changes neither size nor scale."""
    off = {"do_resize": False, "do_center_crop": False, "do_rescale": False, "do_normalize": False}
    return processor_class(**{**off, **arguments})


def test_default_is_the_authors_evaluation_transform(image):
    pixel_values = TinyMimImageProcessorPil()(image, return_tensors="pt").pixel_values

    resized = image.resize((int(256 * 53 / 37), 256), Image.Resampling.BICUBIC)
    left = round((resized.width - 224) / 2)
    pixels = np.array(resized)[16:240, left : left + 224]
    expected = (torch.from_numpy(pixels).permute(2, 0, 1) / 255 - MEAN[:, None, None]) / STD[:, None, None]
    torch.testing.assert_close(pixel_values, expected[None], atol=ATOL_FLOAT32, rtol=ATOL_FLOAT32)


def test_backends_agree_on_a_smooth_image():
    ramp = np.linspace(0, 255, 300 * 400).reshape(300, 400)
    image = Image.fromarray(np.stack([ramp, ramp[::-1], ramp[:, ::-1]], axis=-1).astype(np.uint8))

    results = [
        processor_class()(image, return_tensors="pt").pixel_values
        for processor_class in (TinyMimImageProcessor, TinyMimImageProcessorPil)
    ]

    one_gray_level = 1 / 255 / STD.min().item()
    torch.testing.assert_close(results[0], results[1], atol=1.01 * one_gray_level, rtol=0)


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_any_mode_of_image_becomes_rgb(processor_class, image, mode):
    converted = image.convert(mode)

    pixel_values = as_is(processor_class)(converted, return_tensors="pt").pixel_values

    expected = torch.from_numpy(np.array(converted.convert("RGB")))
    torch.testing.assert_close(pixel_values[0].permute(1, 2, 0).float(), expected.float())


def test_pil_numpy_and_torch_images_give_the_same(processor_class, image):
    processor = processor_class(size={"shortest_edge": 24}, crop_size={"height": 18, "width": 20})
    pixels = np.array(image)

    results = [
        processor(image, return_tensors="pt").pixel_values
        for image in (image, pixels, torch.from_numpy(pixels).permute(2, 0, 1))
    ]

    torch.testing.assert_close(results[1], results[0], atol=0, rtol=0)
    torch.testing.assert_close(results[2], results[0], atol=0, rtol=0)


# Segmentation maps


def test_maps_are_resized_to_the_nearest_class_and_cropped_like_their_images(processor_class):
    # Class c fills the pixels of gray level 20 * c, so that image and map can be compared after processing.
    classes = np.kron(np.arange(12, dtype=np.uint8).reshape(3, 4), np.ones((16, 16), dtype=np.uint8))
    image = Image.fromarray(np.repeat(20 * classes[..., None], 3, axis=-1))
    processor = as_is(
        processor_class,
        do_resize=True,
        size={"shortest_edge": 24},
        resample=Image.Resampling.NEAREST,
        do_center_crop=True,
        crop_size={"height": 20, "width": 26},
    )

    inputs = processor(image, segmentation_maps=Image.fromarray(classes), return_tensors="pt")

    assert inputs.labels.shape == (1, 20, 26)
    assert inputs.labels.dtype == torch.int64
    torch.testing.assert_close(20 * inputs.labels, inputs.pixel_values[:, 0].long())


def test_reduced_labels_shift_down_and_zero_becomes_ignored(processor_class, image):
    maps = np.zeros((37, 53), dtype=np.uint8)
    maps[0, :5] = [0, 1, 2, 150, 255]
    given = maps.copy()

    labels = as_is(processor_class)(image, segmentation_maps=maps, do_reduce_labels=True, return_tensors="pt").labels

    assert labels[0, 0, :6].tolist() == [255, 0, 1, 149, 255, 255]
    assert (maps == given).all()


def test_pixels_added_to_reach_the_crop_are_ignored(processor_class):
    image, classes = Image.new("RGB", (6, 4), "white"), np.full((4, 6), 3, dtype=np.uint8)
    processor = as_is(processor_class, do_center_crop=True, crop_size={"height": 8, "width": 10})

    labels = processor(image, segmentation_maps=classes, return_tensors="pt").labels

    assert (labels == 3).sum() == 4 * 6
    assert (labels == 255).sum() == 8 * 10 - 4 * 6


# Post-processing


def test_logits_are_resized_before_the_argmax(processor_class):
    # Between a strong class 0 and a strong class 1 lies, halfway, a class 2 that never wins at the coarse pixels.
    logits = torch.tensor([[[4.0, 0.0]], [[0.0, 4.0]], [[3.0, 3.0]]])[None]
    outputs = SemanticSegmenterOutput(logits=logits)
    processor = processor_class()

    coarse = processor.post_process_semantic_segmentation(outputs)
    fine = processor.post_process_semantic_segmentation(outputs, target_sizes=[(1, 8)])

    assert coarse[0].tolist() == [[0, 1]]
    assert fine[0].tolist() == [[0, 0, 0, 2, 2, 1, 1, 1]]


def test_every_map_has_the_size_of_its_image_and_scores_if_asked_for(processor_class):
    outputs = SemanticSegmenterOutput(logits=torch.randn(2, 4, 3, 2, generator=torch.Generator().manual_seed(0)))

    maps = processor_class().post_process_semantic_segmentation(
        outputs, target_sizes=torch.tensor([[5, 7], [9, 3]]), return_segmentation_scores=True
    )

    assert [tuple(output.segmentation.shape) for output in maps] == [(5, 7), (9, 3)]
    assert [tuple(output.segmentation_scores.shape) for output in maps] == [(4, 5, 7), (4, 9, 3)]


def test_refuses_another_number_of_target_sizes(processor_class):
    outputs = SemanticSegmenterOutput(logits=torch.zeros(2, 4, 3, 2))

    with pytest.raises(ValueError, match=r"`target_sizes` must hold one size per image \(2\); got 1"):
        processor_class().post_process_semantic_segmentation(outputs, target_sizes=[(5, 7)])


# Bad input


def test_refuses_an_empty_list(processor_class):
    with pytest.raises(ValueError, match=r"`images` must hold at least one image; got an empty list"):
        processor_class()([])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_refuses_pixels_that_are_not_finite(processor_class, value):
    good, bad = np.zeros((3, 40, 40), dtype=np.float32), np.zeros((3, 40, 40), dtype=np.float32)
    bad[1, 2, 3] = value

    with pytest.raises(ValueError, match=r"`images` must hold finite pixels; image 1 holds NaN or infinity"):
        processor_class(do_rescale=False)([good, bad])


def test_refuses_channels_that_have_no_mean(processor_class):
    with pytest.raises(ValueError, match=r"`images` must have 3 channels.*image 0 has 4"):
        processor_class(do_convert_rgb=False)(np.zeros((40, 40, 4), dtype=np.uint8), input_data_format="channels_last")


def test_refuses_another_number_of_maps_than_images(processor_class, image):
    maps = [np.zeros((37, 53), dtype=np.uint8)] * 2

    with pytest.raises(ValueError, match=r"`segmentation_maps` must hold one map per image \(1\); got 2"):
        processor_class()(image, segmentation_maps=maps)


# Loading


def test_auto_class_loads_either_backend(tmp_path):
    TinyMimConfig().save_pretrained(tmp_path)
    TinyMimImageProcessor(size={"shortest_edge": 24}).save_pretrained(tmp_path)

    loaded = {
        backend: AutoImageProcessor.from_pretrained(tmp_path, backend=backend) for backend in ("torchvision", "pil")
    }

    assert {backend: type(processor) for backend, processor in loaded.items()} == {
        "torchvision": TinyMimImageProcessor,
        "pil": TinyMimImageProcessorPil,
    }
    assert {processor.size["shortest_edge"] for processor in loaded.values()} == {24}
