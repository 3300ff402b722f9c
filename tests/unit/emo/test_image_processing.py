"""EMO's image processors: what they do to images and maps, in both backends, and what they refuse."""

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor
from transformers.modeling_outputs import SemanticSegmenterOutput

from decahub import EmoConfig, EmoImageProcessor, EmoImageProcessorPil
from decahub.models.shared import pixels


ATOL_FLOAT32 = 1e-6  # one rounding of (pixel / 255 - mean) / std
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
BACKENDS = [EmoImageProcessor, EmoImageProcessorPil]
MODES = {"gray": "L", "palette": "P", "gray with alpha": "LA", "alpha": "RGBA", "bits": "1"}


@pytest.fixture(params=BACKENDS, ids=["torchvision", "pil"])
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


def test_default_is_the_authors_evaluation_transform(processor_class):
    processor = processor_class()

    assert dict(processor.size) == {"shortest_edge": 256}
    assert dict(processor.crop_size) == {"height": 224, "width": 224}
    assert (processor.resample, processor.rescale_factor) == (Image.Resampling.BICUBIC, 1 / 255)
    assert (list(processor.image_mean), list(processor.image_std)) == (
        pytest.approx(MEAN.tolist()),
        pytest.approx(STD.tolist()),
    )


def test_normalizes_every_channel_with_its_own_mean(processor_class, image):
    processor = processor_class(do_resize=False, do_center_crop=False)

    pixel_values = processor(image, return_tensors="pt").pixel_values

    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255
    expected = (pixels - MEAN[:, None, None]) / STD[:, None, None]
    torch.testing.assert_close(pixel_values, expected[None], atol=ATOL_FLOAT32, rtol=ATOL_FLOAT32)


def test_pil_backend_resizes_as_pil_does(image):
    processor = as_is(EmoImageProcessorPil, do_resize=True, size={"shortest_edge": 24})

    pixel_values = processor(image, return_tensors="pt").pixel_values

    expected = np.array(image.resize((int(24 * 53 / 37), 24), Image.Resampling.BICUBIC))
    torch.testing.assert_close(pixel_values[0].permute(1, 2, 0), torch.from_numpy(expected).to(pixel_values.dtype))


def test_center_crop_takes_the_middle(processor_class, image):
    processor = as_is(processor_class, do_center_crop=True, crop_size={"height": 17, "width": 21})

    pixel_values = processor(image, return_tensors="pt").pixel_values

    expected = np.array(image)[10:27, 16:37]
    torch.testing.assert_close(pixel_values[0].permute(1, 2, 0).float(), torch.from_numpy(expected).float())


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_any_mode_of_image_becomes_rgb(processor_class, image, mode):
    processor = as_is(processor_class)
    converted = image.convert(mode)

    pixel_values = processor(converted, return_tensors="pt").pixel_values

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


def test_a_column_of_a_dataset_is_a_list_of_images(processor_class, image):
    column = datasets.Dataset.from_dict({"image": [image, image.rotate(90)]}).cast_column("image", datasets.Image())[
        "image"
    ]
    processor = processor_class()

    values = processor(column, return_tensors="pt")["pixel_values"]

    assert torch.equal(values, processor([image, image.rotate(90)], return_tensors="pt")["pixel_values"])


def test_images_of_unlike_sizes_become_one_batch_in_order(processor_class, image):
    processor = processor_class(size={"shortest_edge": 24}, crop_size={"height": 18, "width": 20})
    images = [image, image.resize((80, 41)), image.transpose(Image.Transpose.ROTATE_90), image]

    batch = processor(images, return_tensors="pt").pixel_values

    singles = [processor(single, return_tensors="pt").pixel_values[0] for single in images]
    torch.testing.assert_close(batch, torch.stack(singles), atol=ATOL_FLOAT32, rtol=0)


# Bit depth and range


def to_16_bit(pixels: np.ndarray) -> np.ndarray:
    return pixels.astype(np.uint16) * 257


DEEP = {
    "PNG of 16 bits": lambda gray: Image.fromarray(to_16_bit(gray)),
    "mode I": lambda gray: Image.fromarray(to_16_bit(gray).astype(np.int32)),
    "mode F": lambda gray: Image.fromarray((gray / 255).astype(np.float32)),
    "array": to_16_bit,
    "tensor": lambda gray: torch.from_numpy(to_16_bit(gray))[None],
    "big-endian": lambda gray: to_16_bit(gray).astype(">u2"),
    "wide integers": lambda gray: gray.astype(np.int64),
    "floats": lambda gray: gray / 255,
    "float tensor": lambda gray: torch.from_numpy(gray)[None] / 255,
}


@pytest.mark.parametrize("convert", DEEP.values(), ids=DEEP)
def test_pixels_of_any_depth_give_the_same(processor_class, image, convert):
    processor = processor_class(do_resize=False, do_center_crop=False)
    gray = np.array(image.convert("L"))

    pixel_values = processor(convert(gray), return_tensors="pt").pixel_values

    expected = processor(Image.fromarray(gray), return_tensors="pt").pixel_values
    torch.testing.assert_close(pixel_values.float(), expected, atol=ATOL_FLOAT32, rtol=ATOL_FLOAT32)


def test_floats_and_bytes_mix_in_one_call(processor_class, image):
    processor = processor_class(do_resize=False, do_center_crop=False)
    pixels = np.array(image)

    pixel_values = processor([pixels / 255, pixels, pixels / 255], return_tensors="pt").pixel_values

    expected = processor([image] * 3, return_tensors="pt").pixel_values
    torch.testing.assert_close(pixel_values.float(), expected, atol=ATOL_FLOAT32, rtol=ATOL_FLOAT32)


def test_another_factor_takes_floats_as_they_are(processor_class, image):
    processor = as_is(processor_class, do_rescale=True, rescale_factor=1 / 1000)

    pixel_values = processor(np.array(image) * 3.0, return_tensors="pt").pixel_values

    expected = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] * 3.0 / 1000
    torch.testing.assert_close(pixel_values.float(), expected, atol=ATOL_FLOAT32, rtol=ATOL_FLOAT32)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.full((40, 41, 3), 200.0), r"`images\[1\]` must hold floats in \[0, 1\].*got float64 from 200 to 200"),
        (torch.full((3, 40, 41), -0.5), r"`images\[1\]` must hold floats in.*from -0.5 to -0.5.*`do_rescale=False`"),
        (np.full((40, 41, 3), 300), r"`images\[1\]` must hold bytes in \[0, 255\]; got int64 from 300 to 300"),
        (torch.full((3, 40, 41), -1), r"`images\[1\]` must hold bytes in \[0, 255\]; got int64 from -1 to -1"),
        (Image.fromarray(np.full((40, 41), 70000, np.int32)), r"mode 'I' must hold 16-bit pixels.*70000 to 70000"),
    ],
    ids=["floats", "float tensor", "integers", "integer tensor", "mode I"],
)
def test_refuses_pixels_out_of_range(processor_class, image, pixels, message):
    with pytest.raises(ValueError, match=message):
        processor_class()([image, pixels])


def test_reads_a_file_upright_and_scaled(processor_class, tmp_path):
    gray = np.kron(np.array([[0, 255], [100, 50], [200, 9]], dtype=np.uint8), np.ones((9, 9), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the upright image is wider than high
    Image.fromarray(to_16_bit(gray)).save(tmp_path / "deep.png", exif=exif)

    pixel_values = as_is(processor_class)(str(tmp_path / "deep.png"), return_tensors="pt").pixel_values

    expected = torch.from_numpy(np.rot90(gray, -1).copy())
    torch.testing.assert_close(pixel_values[0, 0].float(), expected.float())


# Segmentation maps


@pytest.mark.parametrize("as_tensor", [False, True], ids=["array", "tensor"])
def test_ids_of_more_than_a_byte_stay_whole(processor_class, as_tensor):
    ids = np.kron(np.array([[3, 299, 65535], [-100, 256, 255]]), np.ones((8, 8), dtype=np.int64))
    image = np.zeros((*ids.shape, 3), dtype=np.uint8)
    maps = torch.from_numpy(ids) if as_tensor else ids
    processor = as_is(processor_class, do_resize=True, size={"height": 4, "width": 6})

    labels = processor(image, segmentation_maps=maps, return_tensors="pt").labels

    assert labels[0].tolist() == ids[::4, ::4].tolist()


@pytest.mark.parametrize(
    "convert", [lambda ids: ids, Image.fromarray, torch.from_numpy], ids=["array", "PIL", "tensor"]
)
def test_16_bit_maps_hold_ids(processor_class, image, convert):
    ids = np.full((37, 53), 260, dtype=np.uint16)

    labels = as_is(processor_class)(image, segmentation_maps=convert(ids), return_tensors="pt").labels

    assert (labels == 260).all()


def test_palette_map_gives_its_indices(processor_class, image):
    ids = Image.fromarray(np.full((37, 53), 2, dtype=np.uint8))
    ids.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])

    labels = as_is(processor_class)(image, segmentation_maps=ids, return_tensors="pt").labels

    assert (labels == 2).all()


def test_refuses_a_map_of_colors(processor_class, image):
    with pytest.raises(ValueError, match=r"must hold class ids, one channel; map 0 has the mode 'RGB'.*Replace each"):
        processor_class()(image, segmentation_maps=image)


def test_refuses_a_map_of_shares(processor_class, image):
    with pytest.raises(ValueError, match="must hold class ids; map 0 holds floats that are not whole"):
        processor_class()(image, segmentation_maps=np.full((37, 53), 0.5))


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

    labels = as_is(processor_class)(image, segmentation_maps=maps, do_reduce_labels=True, return_tensors="pt").labels

    assert labels[0, 0, :6].tolist() == [255, 0, 1, 149, 255, 255]


def test_reduction_leaves_the_callers_map_alone(processor_class, image):
    maps = np.ones((37, 53), dtype=np.uint8)

    as_is(processor_class)(image, segmentation_maps=maps, do_reduce_labels=True)

    assert (maps == 1).all()


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


@pytest.mark.parametrize("sizes", [[(5, 7), (9, 3)], torch.tensor([[5, 7], [9, 3]])], ids=["tuples", "tensor"])
def test_every_map_has_the_size_of_its_image(processor_class, sizes):
    outputs = SemanticSegmenterOutput(logits=torch.randn(2, 4, 3, 2))

    maps = processor_class().post_process_semantic_segmentation(outputs, target_sizes=sizes)

    assert [tuple(segmentation.shape) for segmentation in maps] == [(5, 7), (9, 3)]
    assert maps[0].dtype == torch.int64


def test_refuses_another_number_of_target_sizes(processor_class):
    outputs = SemanticSegmenterOutput(logits=torch.randn(2, 4, 3, 2))

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


def test_refuses_what_is_no_image(processor_class):
    with pytest.raises((TypeError, ValueError), match="dict"):
        processor_class()({"image": 1})


def test_refuses_an_array_of_one_dimension_without_printing_it(processor_class):
    with pytest.raises(
        ValueError, match=r"`images` must be images, arrays of 3 dim.*got an array of shape \(40,\)\.$"
    ):
        processor_class()(np.zeros(40, dtype=np.uint8))


def test_refuses_unknown_options_with_the_nearest(processor_class):
    with pytest.raises(ValueError, match="`do_centre_crop` must be an option.*Did you mean `do_center_crop`"):
        processor_class(do_centre_crop=False)


def test_refuses_unknown_arguments(processor_class, image):
    with pytest.raises(TypeError, match="do_shear"):
        processor_class()(image, do_shear=True)


# Loading


def test_auto_class_loads_either_backend(tmp_path):
    EmoConfig().save_pretrained(tmp_path)
    EmoImageProcessor(size={"shortest_edge": 24}).save_pretrained(tmp_path)

    loaded = {
        backend: AutoImageProcessor.from_pretrained(tmp_path, backend=backend) for backend in ("torchvision", "pil")
    }

    assert {backend: type(processor) for backend, processor in loaded.items()} == {
        "torchvision": EmoImageProcessor,
        "pil": EmoImageProcessorPil,
    }
    assert {processor.size["shortest_edge"] for processor in loaded.values()} == {24}


def test_pil_backend_works_where_torchvision_is_absent(run_python):
    script = (
        "import sys; sys.modules['torchvision'] = None\n"
        "from decahub import EmoImageProcessorPil\n"
        "import numpy as np\n"
        "print(EmoImageProcessorPil()(np.zeros((300, 280, 3), dtype=np.uint8))['pixel_values'][0].shape)"
    )

    assert run_python(script).strip() == "(3, 224, 224)"


@pytest.mark.parametrize("name", ["image_mean", "image_std"])
def test_refuses_one_mean_for_three_channels(processor_class, image, name):
    with pytest.raises(ValueError, match=f"`images` must have 1 channels, as `{name}` has; image 0 has 3"):
        processor_class(**{name: [0.5]})(image)


def test_refuses_a_map_of_another_size(processor_class, image):
    with pytest.raises(ValueError, match=r"map 0 has \(37, 52\), its image \(37, 53\)"):
        processor_class()(image, segmentation_maps=np.zeros((37, 52), dtype=np.uint8))


@pytest.mark.parametrize("number", [-1, 65536, 2**32])
@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy], ids=["array", "tensor"])
def test_refuses_ids_out_of_range(processor_class, image, number, convert):
    with pytest.raises(ValueError, match=rf"class ids in \[0, 65535\].*map 0 holds {number}"):
        processor_class()(image, segmentation_maps=convert(np.full((37, 53), number)))


@pytest.mark.parametrize(("largest", "limit"), [(200, 255), (4000, 4095), (65000, None)])
def test_16_bits_that_hold_less_are_named(processor_class, monkeypatch, largest, limit):
    messages = []
    monkeypatch.setattr(pixels.logger, "warning_once", messages.append)

    as_is(processor_class)(np.full((3, 8, 8), largest, dtype=np.uint16))

    assert [f"`rescale_factor=1 / {limit}`" in message for message in messages] == ([True] if limit else [])


def test_reduction_keeps_pixels_without_a_class(processor_class):
    ids = np.array([[-100, 0, 1, 255]] * 2)
    image = np.zeros((2, 4, 3), dtype=np.uint8)

    labels = as_is(processor_class)(image, segmentation_maps=ids, do_reduce_labels=True, return_tensors="pt").labels

    assert labels.tolist() == [[[255, 255, 0, 255]] * 2]
