"""TinyMIM's image processors: the authors' transform, in both backends. What they share with EMO's is tested there."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor

from decahub import TinyMimConfig, TinyMimImageProcessor, TinyMimImageProcessorPil


ATOL_FLOAT32 = 1e-6  # one rounding of (pixel / 255 - mean) / std
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


@pytest.fixture
def image() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


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
