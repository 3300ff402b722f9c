"""Crops: where they are, what happens to small images, and what every kind of image becomes."""

import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassFieldValidationError
from PIL import Image

from decahub import PmtIqaImageProcessor, PmtIqaImageProcessorPil
from decahub.models.pmt_iqa.crops import choose_crops
from decahub.models.pmt_iqa.modeling_pmt_iqa import PmtIqaImageQualityOutput


SIZE = 32
PLAIN = {"do_normalize": False}
by_backend = pytest.mark.parametrize("processor_class", [PmtIqaImageProcessor, PmtIqaImageProcessorPil])


def draw(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.RandomState(seed).randint(0, 256, (height, width, channels), dtype=np.uint8)


def build(processor_class=PmtIqaImageProcessor, **options):
    return processor_class(crop_size={"height": SIZE, "width": SIZE}, **options)


# Places


@pytest.mark.parametrize("num_crops", [4, 9, 25])
def test_grid_reaches_all_borders(num_crops):
    places = choose_crops(101, 75, SIZE, num_crops, "grid")

    assert len(places) == num_crops
    assert {(0, 0), (0, 43), (69, 0), (69, 43)} <= set(places)
    assert places == sorted(places)


def test_grid_rounds_to_the_nearest_pixel():
    places = choose_crops(SIZE + 8, SIZE + 7, SIZE, 16, "grid")  # steps of 2.67 and 2.33 pixels

    assert sorted({top for top, _ in places}) == [0, 3, 5, 8]
    assert sorted({left for _, left in places}) == [0, 2, 5, 7]


def test_grid_of_another_number_is_cut_row_by_row():
    full = choose_crops(101, 75, SIZE, 9, "grid")

    assert choose_crops(101, 75, SIZE, 7, "grid") == full[:7]


def test_one_crop_is_the_center():
    assert choose_crops(101, 75, SIZE, 1, "grid") == choose_crops(101, 75, SIZE, 9, "center") == [(34, 22)]


def test_five_are_corners_and_center():
    places = choose_crops(60, 50, SIZE, 9, "five")

    assert places == [(0, 0), (0, 18), (28, 0), (28, 18), (14, 9)]


def test_image_of_the_size_of_a_crop_has_one_on_a_grid_and_all_at_random():
    assert choose_crops(SIZE, SIZE, SIZE, 9, "grid") == [(0, 0)]
    assert choose_crops(SIZE, SIZE, SIZE, 3, "random", seed=1) == [(0, 0)] * 3


def test_random_crops_depend_on_the_seed_alone():
    np.random.seed(5)
    first = choose_crops(101, 75, SIZE, 6, "random", seed=3)
    np.random.seed(6)

    assert choose_crops(101, 75, SIZE, 6, "random", seed=3) == first
    assert choose_crops(101, 75, SIZE, 6, "random", seed=4) != first


def test_random_crops_cover_the_whole_range():
    places = choose_crops(34, 33, SIZE, 200, "random", seed=0)

    assert {top for top, _ in places} == {0, 1, 2}
    assert {left for _, left in places} == {0, 1}


# Pixels


@by_backend
def test_crops_are_the_pixels_of_their_boxes(processor_class):
    image = draw(50, 70)

    inputs = build(processor_class, **PLAIN)(image, return_tensors="pt")

    assert inputs.pixel_values.shape == (1, 9, 3, SIZE, SIZE)
    for crop, (top, left, bottom, right) in zip(inputs.pixel_values[0], inputs.crop_boxes[0].tolist(), strict=True):
        expected = torch.from_numpy(image[top:bottom, left:right]).permute(2, 0, 1) / 255
        torch.testing.assert_close(crop, expected, atol=1e-6, rtol=0)


@by_backend
def test_images_of_a_batch_do_not_change_each_other(processor_class):
    images, processor = [draw(50, 70), draw(32, 32, seed=1), draw(90, 40, seed=2)], build(processor_class)

    batch = processor(images, return_tensors="pt")

    for index, image in enumerate(images):
        single = processor(image, return_tensors="pt")
        mask = batch.crop_mask[index]
        assert torch.equal(batch.pixel_values[index][mask], single.pixel_values[0])
        assert torch.equal(batch.crop_boxes[index][mask], single.crop_boxes[0])
    assert batch.crop_mask.sum(1).tolist() == [9, 1, 9]


@by_backend
def test_dense_fills_up_with_the_last_pixels(processor_class):
    image = draw(50, 70)

    pixel_values = build(processor_class, crop_strategy="dense", **PLAIN)(image, return_tensors="pt").pixel_values

    assert pixel_values.shape == (1, 3, 64, 96)
    torch.testing.assert_close(pixel_values[0, :, 60, 80], torch.from_numpy(image[-1, -1]) / 255)


@by_backend
def test_small_image_is_scaled_up(processor_class):
    inputs = build(processor_class)(draw(16, 24), return_tensors="pt")

    assert inputs.crop_boxes[0].max(0).values.tolist()[2:] == [16, 24]
    assert inputs.pixel_values.isfinite().all()


@by_backend
def test_small_image_is_padded(processor_class):
    image = draw(16, 40)

    inputs = build(processor_class, small_image="pad", num_crops=1, **PLAIN)(image, return_tensors="pt")

    left = inputs.crop_boxes[0, 0, 1]
    torch.testing.assert_close(inputs.pixel_values[0, 0, :, 31, 0], torch.from_numpy(image[-1, left]) / 255)


@by_backend
def test_small_image_is_refused(processor_class):
    with pytest.raises(ValueError, match=r"at least 32 x 32 pixels.* got 16 x 24"):
        build(processor_class, small_image="error")(draw(16, 24), return_tensors="pt")


@pytest.mark.parametrize("processor_class", [PmtIqaImageProcessor, PmtIqaImageProcessorPil])
@pytest.mark.parametrize("size", [(1, 1), (3, 5)])
def test_tiny_images_are_defined(processor_class, size):
    assert build(processor_class)(Image.fromarray(draw(*size)), return_tensors="pt").pixel_values.isfinite().all()


@by_backend
@pytest.mark.parametrize("size", [(0, 5), (5, 0)])
def test_image_without_pixels_is_refused(processor_class, size):
    with pytest.raises(ValueError, match="`images` must have at least one pixel"):
        build(processor_class)(np.zeros((*size, 3), np.uint8), return_tensors="pt")


def test_thin_image_is_refused_instead_of_filling_the_memory():
    with pytest.raises(ValueError, match="must not be as thin as 1 x 60000"):
        build()(Image.fromarray(draw(1, 60_000)), return_tensors="pt")


def test_large_image_is_cut_before_it_becomes_floats():
    image = np.zeros((4000, 5000, 3), dtype=np.uint8)

    assert build()(image, return_tensors="pt").pixel_values.shape == (1, 9, 3, SIZE, SIZE)


@by_backend
def test_modes_become_rgb(processor_class):
    image, processor = Image.fromarray(draw(40, 40)), build(processor_class, num_crops=1, **PLAIN)

    deep = Image.fromarray(draw(40, 40)[..., 0].astype(np.uint16) * 257)
    for converted in (deep, *(image.convert(mode) for mode in ("L", "LA", "P", "RGBA", "CMYK", "1"))):
        assert processor(converted, return_tensors="pt").pixel_values.shape == (1, 1, 3, SIZE, SIZE), converted.mode
    clear = Image.fromarray(np.zeros((40, 40, 4), dtype=np.uint8))
    assert processor(clear, return_tensors="pt").pixel_values.min() == 1  # white behind what is transparent


def test_16_bits_are_scaled():
    image, processor = draw(40, 40), build(num_crops=1)

    deep = processor(image.astype(np.uint16) * 257, return_tensors="pt").pixel_values

    assert torch.equal(deep, processor(image, return_tensors="pt").pixel_values)


def test_truncated_file_is_named(tmp_path):
    path = tmp_path / "broken.png"
    Image.fromarray(draw(60, 60)).save(path)
    path.write_bytes(path.read_bytes()[:2000])

    with pytest.raises(ValueError, match="broken.png"):
        build()(str(path), return_tensors="pt")


def test_file_is_turned_upright(tmp_path):
    image, exif = Image.fromarray(draw(40, 60)), Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.png", exif=exif)

    boxes = build(num_crops=4)(str(tmp_path / "turned.png"), return_tensors="pt").crop_boxes

    assert boxes[0, -1].tolist() == [28, 8, 60, 40]


@pytest.mark.parametrize(("mode", "shape"), [("keep_aspect", (48, 64)), ("official", (64, 48))])
def test_resize_modes(mode, shape):
    """As for KonIQ: images of 1024 x 768 become 512 x 384, or with the authors' slip 384 x 512."""
    options = {"do_resize": True, "size": {"height": 48, "width": 64}, "resize_mode": mode, "crop_strategy": "dense"}

    pixel_values = build(**options, dense_multiple=1)(draw(96, 128), return_tensors="pt").pixel_values

    assert pixel_values.shape[-2:] == shape


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop_strategy": "tiles"}, "`crop_strategy` must be one of grid, random, .*; got 'tiles'"),
        ({"small_image": "stretch"}, "`small_image` must be one of resize, pad, error; got 'stretch'"),
        ({"resize_mode": "fit"}, "`resize_mode` must be one of"),
        ({"num_crops": 0}, "`num_crops` must be a whole number of at least 1; got 0"),
        ({"crop_size": {"height": 32, "width": 40}}, "`crop_size` must hold an equal `height` and `width`"),
        ({"num_crop": 3}, "Did you mean `num_crops`"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_refuses_options(options, message):
    with pytest.raises(ValueError, match=message):
        PmtIqaImageProcessor(**options)


def test_refuses_an_option_of_a_call():
    with pytest.raises(StrictDataclassFieldValidationError, match="got tiles"):  # of transformers
        build()(draw(40, 40), crop_strategy="tiles")


def test_post_process_ignores_padding():
    outputs = PmtIqaImageQualityOutput(
        score=torch.tensor([2.0, 5.0]),
        crop_scores=torch.tensor([[1.0, 3.0], [5.0, 0.0]]),
        level_probs=torch.tensor([[0.2, 0.8], [0.7, 0.3]]),
    )

    first, second = build().post_process_image_quality(outputs, torch.tensor([[True, True], [True, False]]))

    assert (first["score"], first["score_std"], first["level"], first["num_crops"]) == (2.0, 1.0, 1, 2)
    assert (second["score_std"], second["level"], second["crop_scores"]) == (0.0, 0, [5.0])
