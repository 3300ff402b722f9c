"""Rows that are transformed several at once are those of single calls, bit by bit."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from transformers import ViTImageProcessor

from decahub import DoorpingImageProcessor, EmoImageProcessor, EmoImageProcessorPil, TinyMimImageProcessor
from decahub.data import batches
from decahub.data.batches import BatchedRows, can_batch, group_rows
from decahub.data.image_classification import EvalTransform, collate


SIZES = [(30, 26), (26, 30), (30, 26), (61, 47), (30, 26), (16, 16), (61, 47)]  # width, height
OPTIONS = {
    "crop": {"size": {"shortest_edge": 24}, "crop_size": {"height": 20, "width": 22}},
    "stretch": {"size": {"height": 40, "width": 48}, "do_center_crop": False},
    "as given": {"do_resize": False, "do_center_crop": False},
    "pixels only": {"do_resize": False, "do_center_crop": False, "do_rescale": False, "do_normalize": False},
}


def draw_pixels(width: int, height: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def build_rows(kind: str) -> list[dict]:
    pixels = [draw_pixels(*size, seed) for seed, size in enumerate(SIZES)]
    if kind == "files":
        images = [Image.fromarray(image) for image in pixels]
    elif kind == "modes":
        modes = ["L", "RGBA", "P", "RGB", "1", "CMYK", "RGB"]
        images = [Image.fromarray(image).convert(mode) for image, mode in zip(pixels, modes, strict=True)]
    else:
        images = [torch.from_numpy(image).permute(2, 0, 1) for image in pixels]
    return [{"image": image, "label": label} for label, image in enumerate(images)]


@pytest.mark.parametrize("kind", ["files", "modes", "tensors"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("processor_class", [EmoImageProcessor, EmoImageProcessorPil, TinyMimImageProcessor])
def test_batches_hold_the_examples_of_single_rows(processor_class, options, kind):
    rows, transform = build_rows(kind), EvalTransform(processor_class(**options))

    examples = BatchedRows(rows, transform).__getitems__(range(len(rows)))

    assert [example["labels"] for example in examples] == list(range(len(rows)))
    for example, row in zip(examples, rows, strict=True):
        assert torch.equal(example["pixel_values"], transform(row)["pixel_values"])


def test_data_loader_asks_for_whole_batches():
    sizes = []

    class Counted(EvalTransform):
        def transform_rows(self, rows):
            sizes.append(len(rows))
            return super().transform_rows(rows)

    rows = build_rows("files")[:5]
    dataset = BatchedRows(rows, Counted(EmoImageProcessor(**OPTIONS["stretch"])))

    loaded = list(DataLoader(dataset, batch_size=3, collate_fn=collate))

    assert sizes == [3, 2]
    assert [batch["labels"].tolist() for batch in loaded] == [[0, 1, 2], [3, 4]]
    assert torch.equal(loaded[1]["pixel_values"][0], dataset[3]["pixel_values"])


def test_large_images_are_not_held_together(monkeypatch):
    monkeypatch.setattr(batches, "MAX_PIXELS", 3 * 30 * 26)

    groups = list(group_rows(build_rows("files")))

    assert [[row["label"] for row in group] for group in groups] == [[0, 1, 2], [3], [4, 5, 6]]


@pytest.mark.parametrize("processor_class", [DoorpingImageProcessor, ViTImageProcessor])
def test_other_processors_get_one_image_after_the_other(processor_class):
    assert not can_batch(processor_class())
