"""CMT's image processor: geometry of images and projections, kinds of images, what is refused."""

import numpy as np
import pytest
import torch
from PIL import Image

from decahub import CmtConfig, CmtImageProcessor
from decahub.models.cmt.camera.resize import resize_bilinear
from decahub.models.cmt.camera.resize_crop import (
    CmtImageTransform,
    compute_evaluation_transform,
    sample_image_transforms,
)
from tests.tiny.cmt_frames import project_points


MEAN, STD = torch.tensor([103.53, 116.28, 123.675]), torch.tensor([57.375, 57.12, 58.395])  # BGR, of bytes
ATOL_FLOAT32 = 1e-5  # rounding of (pixel - mean) / std at values up to 3
ATOL_FLOAT64 = 1e-9  # pixels up to 1,000
FIXED_POINT_ATOL = 1.05  # half a gray level of rounding, two quarters that are cut off, weights of 11 bits
SIZE = {"height": 30, "width": 50}


@pytest.fixture
def images() -> list[Image.Image]:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 45, 80, 3), dtype=np.uint8)
    return [Image.fromarray(image) for image in pixels]


@pytest.fixture
def lidar2img() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 4, 4, dtype=torch.float64, generator=generator)


def denormalize(pixel_values: torch.Tensor) -> torch.Tensor:
    """Bytes in RGB, height and width first."""
    pixels = pixel_values.flip(-3) * STD.flip(0)[:, None, None] + MEAN.flip(0)[:, None, None]
    return pixels.movedim(-3, -1)


def test_default_is_the_authors_evaluation_transform_of_cmt_r50():
    processor = CmtImageProcessor()

    assert (processor.size.height, processor.size.width, processor.size_divisor) == (320, 800, 32)
    assert (processor.image_channel_order, processor.exact_intrinsics) == ("bgr", False)
    torch.testing.assert_close(torch.tensor(processor.image_mean) * 255, MEAN)
    torch.testing.assert_close(torch.tensor(processor.image_std) * 255, STD)


def test_normalizes_in_bgr_and_pads_bottom_and_right_with_zeros(images):
    pixel_values = CmtImageProcessor(do_resize=False)(images)["pixel_values"]

    assert pixel_values.shape == (1, 2, 3, 64, 96)
    pixels = torch.from_numpy(np.stack(images)).float()
    torch.testing.assert_close(denormalize(pixel_values[0, :, :, :45, :80]), pixels, atol=1e-3, rtol=0)
    assert not pixel_values[..., 45:, :].any()
    assert not pixel_values[..., 80:].any()


def test_rgb_weights_keep_the_order(images):
    processor = CmtImageProcessor(do_resize=False, image_channel_order="rgb", do_normalize=False, do_rescale=False)

    pixel_values = processor(images)["pixel_values"]

    expected = torch.from_numpy(np.stack(images)).movedim(-1, 1)
    assert torch.equal(pixel_values[0, ..., :45, :80].to(torch.uint8), expected)


def test_crops_the_bottom_and_the_middle(images):
    processor = CmtImageProcessor(size={"height": 25, "width": 80}, size_divisor=1)  # resize factor 1
    narrow = CmtImageProcessor(size={"height": 45, "width": 50}, size_divisor=1)

    bottom, middle = processor(images)["pixel_values"], narrow(images)["pixel_values"]

    pixels = torch.from_numpy(np.stack(images)).float()
    torch.testing.assert_close(denormalize(bottom[0]), pixels[:, 20:], atol=1e-3, rtol=0)
    torch.testing.assert_close(denormalize(middle[0]), pixels[:, :, 15:65], atol=1e-3, rtol=0)


@pytest.mark.parametrize("new_size", [(14, 41), (60, 33), (45, 80), (1, 1)])
def test_resize_is_bilinear_between_centers(images, new_size):
    image = torch.from_numpy(np.array(images[0])).movedim(-1, 0)

    resized = resize_bilinear(image, new_size)

    for row, column in [(0, 0), (new_size[0] // 2, new_size[1] // 3), (new_size[0] - 1, new_size[1] - 1)]:
        v = min(max((row + 0.5) * 45 / new_size[0] - 0.5, 0), 44)
        u = min(max((column + 0.5) * 80 / new_size[1] - 0.5, 0), 79)
        top, left = int(v), int(u)
        corners = image[:, [top, min(top + 1, 44)]][:, :, [left, min(left + 1, 79)]].double()
        weights = torch.tensor([1 - v + top, v - top])[:, None] * torch.tensor([1 - u + left, u - left])
        expected = (corners * weights).sum((1, 2))
        torch.testing.assert_close(resized[:, row, column].double(), expected, atol=FIXED_POINT_ATOL, rtol=0)


def test_floats_are_resized_too(images):
    image = torch.from_numpy(np.array(images[0])).movedim(-1, 0)

    resized = resize_bilinear(image / 255, (31, 50))

    assert (resized * 255 - resize_bilinear(image, (31, 50))).abs().max() < FIXED_POINT_ATOL


def test_halving_averages_four_pixels(images):
    processor = CmtImageProcessor(size={"height": 22, "width": 40}, size_divisor=1)

    pixel_values = processor([image.crop((0, 0, 80, 44)) for image in images])["pixel_values"]

    pixels = torch.from_numpy(np.stack(images)).float()[:, :44]
    expected = pixels.unflatten(1, (22, 2)).unflatten(3, (40, 2)).mean((2, 4))
    rounded = (expected + 0.5).floor()
    torch.testing.assert_close(denormalize(pixel_values[0]), rounded, atol=1e-3, rtol=0)


@pytest.mark.parametrize("image_size", [(900, 1600), (900, 1601), (1200, 1600), (33, 57)])
@pytest.mark.parametrize("crop_size", [(320, 800), (640, 1600), (50, 50)])
def test_evaluation_covers_the_crop(image_size, crop_size):
    transform = compute_evaluation_transform(image_size, crop_size)

    height, width = transform.compute_new_size(image_size)
    assert transform.resize == max(crop_size[0] / image_size[0], crop_size[1] / image_size[1])
    assert transform.top == height - crop_size[0]
    assert transform.left == max(0, width - crop_size[1]) // 2
    assert height >= crop_size[0] - 1  # sizes are cut to whole pixels
    assert width >= crop_size[1] - 1


def paint_dot(v: float, u: float, size=(90, 160)) -> np.ndarray:
    """A soft white dot, whose center can be found to a fraction of a pixel."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    dot = np.exp(-((rows - v) ** 2 + (columns - u) ** 2) / (2 * 4.0**2))
    return np.repeat((255 * dot).round().astype(np.uint8)[..., None], 3, axis=2)


def find_dot(pixels: torch.Tensor) -> tuple[float, float]:
    rows = torch.arange(pixels.shape[-2], dtype=torch.float64)
    columns = torch.arange(pixels.shape[-1], dtype=torch.float64)
    weights = pixels.double() / pixels.sum()
    return (weights.sum(1) @ rows).item(), (weights.sum(0) @ columns).item()


@pytest.mark.parametrize(
    "transform",
    [
        CmtImageTransform(0.7, left=5, top=12),
        CmtImageTransform(1.13, left=30, top=20, do_flip=True),
        CmtImageTransform(0.5, left=0, top=-10),
        CmtImageTransform(0.61, left=3, top=4, do_flip=True),
    ],
    ids=["smaller", "larger-flipped", "black-rows", "smaller-flipped"],
)
def test_exact_map_follows_the_pixels(transform):
    v, u = 52.0, 83.0
    image = torch.from_numpy(paint_dot(v, u)).movedim(-1, 0)

    moved = transform.apply(image, (64, 110))

    matrix = transform.build_matrix((90, 160), 110, is_exact=True)
    expected = matrix @ torch.tensor([u, v, 1.0], dtype=torch.float64)
    found_v, found_u = find_dot(moved[0])
    # Pixel centers lie half a pixel off the corners that a scale keeps in place: at most 0.5 * |1 - scale|.
    bound = 0.5 * abs(1 - transform.resize) + 0.05
    assert found_u == pytest.approx(expected[0].item(), abs=bound)
    assert found_v == pytest.approx(expected[1].item(), abs=bound)


def test_published_map_takes_the_drawn_factor_and_mirrors_about_half_the_width():
    matrix = CmtImageTransform(0.987, left=7, top=9, do_flip=True).build_matrix((90, 160), 150)

    expected = torch.tensor([[-0.987, 0, 150 + 7], [0, 0.987, -9], [0, 0, 1]], dtype=torch.float64)
    torch.testing.assert_close(matrix, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("is_exact", [False, True], ids=["published", "exact"])
def test_projections_follow_the_map_of_pixels(images, lidar2img, is_exact):
    transforms = [CmtImageTransform(0.9, 4, 6, do_flip=True), CmtImageTransform(1.1, 0, -3)]
    processor = CmtImageProcessor(size=SIZE, exact_intrinsics=is_exact)

    prepared = processor(images, lidar2img, transforms)["lidar2img"][0]

    points = torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    before, depths = project_points(points, lidar2img)
    after, same_depths = project_points(points, prepared)
    torch.testing.assert_close(same_depths, depths)
    for camera, transform in enumerate(transforms):
        matrix = transform.build_matrix((45, 80), 50, is_exact)
        homogeneous = torch.cat([before[camera], torch.ones(7, 1, dtype=torch.float64)], dim=1)
        torch.testing.assert_close(after[camera], (homogeneous @ matrix.T)[:, :2], atol=ATOL_FLOAT64, rtol=1e-9)


def test_cameras_of_different_size_get_projections_of_their_own(images, lidar2img):
    processor = CmtImageProcessor(size=SIZE)
    mixed = [images[0], images[1].resize((160, 90))]

    prepared = processor(mixed, lidar2img)

    alone = [processor([image], matrix[None]) for image, matrix in zip(mixed, lidar2img, strict=True)]
    for name in ("pixel_values", "lidar2img"):
        torch.testing.assert_close(prepared[name], torch.cat([one[name] for one in alone], dim=1), atol=0, rtol=0)
    # Twice the pixels per camera, half the factor.
    scale = torch.diag(torch.tensor([2.0, 2.0, 1, 1], dtype=torch.float64))
    same_scene = processor(mixed, torch.stack([lidar2img[0], scale @ lidar2img[0]]))["lidar2img"][0]
    torch.testing.assert_close(same_scene[1], same_scene[0])


@pytest.mark.parametrize("kind", ["pil", "numpy", "torch", "stack", "gray", "rgba", "path"])
def test_takes_images_of_any_kind(images, kind, tmp_path):
    processor = CmtImageProcessor(size=SIZE)
    pixels = np.stack(images)
    for index, image in enumerate(images):
        image.save(tmp_path / f"{index}.png")
    given = {
        "pil": images,
        "numpy": list(pixels),
        "torch": list(torch.from_numpy(pixels).movedim(-1, 1)),
        "stack": pixels,
        "gray": [image.convert("L") for image in images],
        "rgba": [image.convert("RGBA") for image in images],
        "path": [str(tmp_path / f"{index}.png") for index in range(2)],
    }[kind]

    pixel_values = processor(given)["pixel_values"]

    if kind == "gray":
        images = [image.convert("L").convert("RGB") for image in images]
    assert pixel_values.shape == (1, 2, 3, 32, 64)
    assert torch.equal(pixel_values, processor(images)["pixel_values"])


@pytest.mark.parametrize(("dtype", "atol"), [("float16", 3e-3), ("float32", ATOL_FLOAT32), ("float64", ATOL_FLOAT32)])
def test_floats_in_unit_range_are_not_scaled_again(images, dtype, atol):
    processor = CmtImageProcessor(do_resize=False)
    floats = [(np.array(image) / 255).astype(dtype) for image in images]

    pixel_values = processor(floats)["pixel_values"]

    assert pixel_values.dtype == torch.float32
    torch.testing.assert_close(pixel_values, processor(images)["pixel_values"], atol=atol, rtol=0)


def test_turned_file_is_read_upright(images, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to see it upright
    images[0].transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    processor = CmtImageProcessor(size=SIZE)

    assert torch.equal(
        processor([str(tmp_path / "turned.png")])["pixel_values"], processor([images[0]])["pixel_values"]
    )


def test_one_camera_and_frames_of_a_batch(images, lidar2img):
    processor = CmtImageProcessor(size=SIZE)

    single = processor(images[0], lidar2img[:1])
    batch = processor([images, images[::-1]], [lidar2img, lidar2img.flip(0)])

    assert single["pixel_values"].shape == (1, 1, 3, 32, 64)
    assert batch["pixel_values"].shape == (2, 2, 3, 32, 64)
    assert batch["lidar2img"].dtype == torch.float64
    assert torch.equal(batch["pixel_values"][1], batch["pixel_values"][0].flip(0))
    assert torch.equal(batch["lidar2img"][1, 1], batch["lidar2img"][0, 0])
    assert torch.equal(single["lidar2img"][0, 0], batch["lidar2img"][0, 0])


# --- Draws for training


def test_draw_is_shared_by_cameras_and_relative_to_evaluation():
    sizes = [(900, 1600), (450, 800)]

    drawn = sample_image_transforms(sizes, (320, 800), torch.Generator().manual_seed(3))

    assert drawn[1].resize == pytest.approx(2 * drawn[0].resize)
    assert drawn[0].do_flip == drawn[1].do_flip
    assert drawn[0].top == int(900 * drawn[0].resize) - 320


def test_draws_cover_their_ranges():
    generator = torch.Generator().manual_seed(0)

    drawn = [sample_image_transforms([(900, 1600)], (640, 1600), generator)[0] for _ in range(600)]

    factors = np.array([transform.resize for transform in drawn])
    assert 0.94 <= factors.min() < 0.95
    assert 1.24 < factors.max() <= 1.25
    assert np.mean([transform.do_flip for transform in drawn]) == pytest.approx(0.5, abs=0.07)
    spare = np.array([max(0, int(1600 * transform.resize) - 1600) for transform in drawn])
    left = np.array([transform.left for transform in drawn])
    assert (left[spare == 0] == 0).all()
    assert (left <= spare).all()
    assert np.mean(left[spare > 50] / spare[spare > 50]) == pytest.approx(0.5, abs=0.05)


def test_narrow_image_leaves_the_right_side_black(images):
    processor = CmtImageProcessor(size=SIZE, do_normalize=False, do_rescale=False, size_divisor=1)

    pixel_values = processor(images[:1], None, [CmtImageTransform(0.5, 0, -8)])["pixel_values"][0, 0]

    assert not pixel_values[:, :8].any()
    assert not pixel_values[:, :, 40:].any()
    assert pixel_values[:, 8:, :40].float().mean() > 100


# --- Refusals


def nan_image() -> np.ndarray:
    image = np.zeros((8, 9, 3), dtype=np.float32)
    image[2, 3] = np.nan
    return image


SINGULAR = np.tile(np.eye(4), (2, 1, 1))
SINGULAR[1, 0] = 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"images": []}, "at least one image for each frame; got an empty list"),
        ({"images": [[], []]}, "at least one image for each frame; got an empty list"),
        ({"images": "missing"}, "`images` must hold an image for each camera; image 1 is missing"),
        ({"images": "no frame"}, r"`images\[1\]` must hold the images of a frame; they are missing"),
        ({"images": "uneven"}, r"the same number of cameras for all frames of a batch; got \[2, 1\]"),
        ({"images": [nan_image()]}, "image 0 holds NaN or infinity"),
        ({"images": [np.zeros((3, 0, 9), dtype=np.uint8)]}, "`images` must have pixels; image 0 has the shape"),
        ({"images": [np.full((8, 9, 3), 2.0)]}, r"must hold floats in \[0, 1\], or bytes"),
        ({"lidar2img": np.eye(4)[None]}, r"`lidar2img` must have the shape \(2, 4, 4\); got \(1, 4, 4\)"),
        ({"lidar2img": np.full((2, 4, 4), np.inf)}, "that of camera 0 holds NaN or infinity"),
        ({"lidar2img": SINGULAR}, "`lidar2img` must be invertible; that of camera 1 is singular"),
        ({"image_transforms": [CmtImageTransform(1.0)]}, r"must hold 2 transforms, .* 1 frames; got \[1\]"),
        (
            {"image_transforms": [CmtImageTransform(1.0)] * 2, "do_resize": False},
            "not be given with `do_resize=False`",
        ),
        ({"images": "sizes", "do_resize": False}, "must have one size with `do_resize=False`"),
        ({"image_channel_order": "gbr"}, r"`image_channel_order` must be one of \('bgr', 'rgb'\); got 'gbr'"),
        ({"size_divisor": 0}, "`size_divisor` must be at least 1; got 0"),
        ({"do_center_crop": True}, "`do_center_crop` must not be given to CmtImageProcessor; got True"),
    ],
)
def test_refuses_at_a_call(images, given, message):
    special = {
        "missing": [images[0], None],
        "no frame": [images, None],
        "uneven": [images, images[:1]],
        "sizes": [images[0], images[1].resize((40, 30))],
    }
    if isinstance(given.get("images"), str):
        given = {**given, "images": special[given["images"]]}

    with pytest.raises(ValueError, match=message):
        CmtImageProcessor(size=SIZE)(**{"images": images, **given})


@pytest.mark.parametrize("image", [b"abc", 7, {"path": "a.png"}], ids=["bytes", "number", "dict"])
def test_refuses_what_is_no_image(image):
    with pytest.raises(TypeError, match="`images` must be PIL images, arrays, tensors or paths; got (bytes|int|dict)"):
        CmtImageProcessor(size=SIZE)([image])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": {"shortest_edge": 32}}, "`size` must have a height and a width"),
        ({"crop_size": {"height": 8, "width": 8}}, "`crop_size` must not be given to CmtImageProcessor"),
        ({"image_chanel_order": "rgb"}, "Did you mean `image_channel_order`?"),
    ],
)
def test_refuses_at_construction(options, message):
    with pytest.raises(ValueError, match=message):
        CmtImageProcessor(**options)


@pytest.mark.parametrize("resize", [0.0, -1.0, float("nan"), float("inf")])
def test_refuses_impossible_factors(resize):
    with pytest.raises(ValueError, match="`resize` must be a positive number"):
        CmtImageTransform(resize)


def test_black_pixel_of_the_configuration_is_that_of_the_processor():
    black = CmtImageProcessor(do_resize=False)([np.zeros((32, 32, 3), dtype=np.uint8)])["pixel_values"]

    expected = torch.tensor(CmtConfig().black_pixel)
    torch.testing.assert_close(black[0, 0, :, 0, 0], expected, atol=ATOL_FLOAT32, rtol=0)
