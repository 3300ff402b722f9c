"""NewMethod's image processors: size, scale, and what they refuse."""

import numpy as np
import pytest
import torch
from PIL import Image

from decahub import NewMethodImageProcessor, NewMethodImageProcessorPil


ATOL_FLOAT32 = 1e-6  # one rounding of (pixel / 255 - mean) / std


@pytest.fixture(params=[NewMethodImageProcessor, NewMethodImageProcessorPil], ids=["torchvision", "pil"])
def processor_class(request):
    return request.param


def test_resizes_to_the_size_of_the_model(processor_class):
    image = Image.new("RGB", (53, 37))

    assert processor_class()(image, return_tensors="pt").pixel_values.shape == (1, 3, 32, 32)


def test_normalizes_every_channel_with_its_own_mean(processor_class):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    mean, std = np.array([0.2, 0.4, 0.7]), np.array([0.5, 0.3, 0.1])

    processor = processor_class(do_resize=False, image_mean=mean.tolist(), image_std=std.tolist())
    pixel_values = processor(Image.fromarray(pixels), return_tensors="pt").pixel_values[0]

    expected = torch.from_numpy(((pixels / 255 - mean) / std).transpose(2, 0, 1)).float()
    torch.testing.assert_close(pixel_values, expected, atol=ATOL_FLOAT32, rtol=ATOL_FLOAT32)


def test_refuses_pixels_that_are_not_finite(processor_class):
    image = np.full((3, 5, 7), np.nan, dtype=np.float32)

    with pytest.raises(ValueError, match="`images` must hold finite pixels; image 0"):
        processor_class(do_rescale=False)(image)
