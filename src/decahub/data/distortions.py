"""Twenty distortions of five strengths, each a pure function of image, strength and a seeded generator.

Images are float64 RGB in [0, 1], `(height, width, 3)`; [`distort`] rounds to bytes at the end.
"""

import io
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage


NUM_LEVELS = 5
PATCH_SIZE, BLOCK_SIZE = 16, 24
LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
TO_YCBCR = np.array([LUMA, [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
MEDIAN_SIZES = (3, 3, 5, 5, 5)


def to_bytes(pixels: np.ndarray) -> np.ndarray:
    """Bytes of an image in [0, 1]."""
    return np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)


def _recode(pixels: np.ndarray, image_format: str, **options: Any) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(to_bytes(pixels)).save(file, image_format, **options)
    return np.asarray(Image.open(file).convert("RGB")) / 255


def _convolve(pixels: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    return ndimage.convolve(pixels, (kernel / kernel.sum())[..., None], mode="reflect")


def blur_gaussian(pixels, sigma, generator, index):
    """Gaussian blur."""
    return ndimage.gaussian_filter(pixels, (sigma, sigma, 0), mode="reflect")


def blur_lens(pixels, radius, generator, index):
    """Disk of a radius, its rim weighted by how much of a pixel it covers."""
    reach = int(np.ceil(radius + 0.5))
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    return _convolve(pixels, np.clip(radius + 0.5 - np.hypot(rows, columns), 0, 1))


def blur_motion(pixels, length, generator, index):
    """Line of a length, turned by 45 degrees from one reference image to the next."""
    angle = np.pi / 4 * (index % 4)
    reach = int(np.ceil(length / 2)) + 1
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1))
    places = np.linspace(-length / 2, length / 2, 8 * length + 1)
    for row, column in zip(reach - places * np.sin(angle), reach + places * np.cos(angle), strict=True):
        top, left = int(np.floor(row)), int(np.floor(column))
        down, right = row - top, column - left
        kernel[top : top + 2, left : left + 2] += np.outer([1 - down, down], [1 - right, right])
    return _convolve(pixels, kernel)


def compress_jpeg(pixels, quality, generator, index):
    """JPEG with subsampled chroma."""
    return _recode(pixels, "JPEG", quality=quality, subsampling="4:2:0")


def compress_jpeg_2000(pixels, rate, generator, index):
    """JPEG 2000 at a compression rate."""
    return _recode(
        pixels, "JPEG2000", quality_mode="rates", quality_layers=[rate], irreversible=True
    )  # fmt: skip


def add_white_noise(pixels, std, generator, index):
    """Gaussian noise in each channel."""
    return pixels + std * generator.standard_normal(pixels.shape)


def add_chroma_noise(pixels, std, generator, index):
    """Gaussian noise in both chroma channels, and a quarter of it in luma."""
    noise = generator.standard_normal(pixels.shape) * std * np.array([0.25, 1, 1])
    return pixels + noise @ np.linalg.inv(TO_YCBCR).T


def add_impulses(pixels, share, generator, index):
    """A share of the values becomes black or white."""
    drawn = generator.random_sample(pixels.shape)
    return np.where(drawn < share / 2, 0, np.where(drawn < share, 1, pixels))


def multiply_noise(pixels, std, generator, index):
    """Noise in proportion to the pixels (speckle)."""
    return pixels * (1 + std * generator.standard_normal(pixels.shape))


def denoise(pixels, strength, generator, index):
    """White noise and a median filter over it; `strength` is (deviation of the noise, size of the filter)."""
    std, size = strength
    noisy = np.clip(add_white_noise(pixels, std, generator, index), 0, 1)
    return ndimage.median_filter(noisy, (size, size, 1), mode="reflect")


def change_contrast(pixels, gain, generator, index):
    """Contrast about the mean of the image."""
    return pixels.mean() + gain * (pixels - pixels.mean())


def change_gamma(pixels, gamma, generator, index):
    """Brighter below 1, darker above."""
    return pixels**gamma


def desaturate(pixels, factor, generator, index):
    """Colors closer to gray."""
    gray = (pixels @ LUMA)[..., None]
    return gray + factor * (pixels - gray)


def quantize_colors(pixels, colors, generator, index):
    """Few colors, by median cut, without dithering."""
    image = Image.fromarray(to_bytes(pixels))
    few = image.quantize(colors, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    return np.asarray(few.convert("RGB")) / 255


def pixelate(pixels, factor, generator, index):
    """Smaller by averaging, larger again by repetition."""
    image = Image.fromarray(to_bytes(pixels))
    size = (max(1, round(image.width / factor)), max(1, round(image.height / factor)))
    small = image.resize(size, Image.Resampling.BOX)
    return np.asarray(small.resize(image.size, Image.Resampling.NEAREST)) / 255


def jitter(pixels, std, generator, index):
    """Each pixel from a random place nearby."""
    height, width = pixels.shape[:2]
    shifts = np.rint(std * generator.standard_normal((2, height, width))).astype(int)
    rows, columns = np.indices((height, width)) + shifts
    return pixels[np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)]


def displace_patches(pixels, count, generator, index):
    """Patches from places nearby."""
    result, limits = pixels.copy(), np.array(pixels.shape[:2]) - PATCH_SIZE
    for _ in range(count):
        to = np.array([generator.randint(limit + 1) for limit in limits])
        start = np.clip(to + generator.randint(-PATCH_SIZE, PATCH_SIZE + 1, 2), 0, limits)
        patch = pixels[start[0] : start[0] + PATCH_SIZE, start[1] : start[1] + PATCH_SIZE]
        result[to[0] : to[0] + PATCH_SIZE, to[1] : to[1] + PATCH_SIZE] = patch
    return result


def sharpen(pixels, amount, generator, index):
    """More of what a blur takes away."""
    return pixels + amount * (pixels - ndimage.gaussian_filter(pixels, (1, 1, 0), mode="reflect"))


def cover_blocks(pixels, count, generator, index):
    """Blocks of random colors."""
    result = pixels.copy()
    for _ in range(count):
        top, left = (generator.randint(side - BLOCK_SIZE + 1) for side in pixels.shape[:2])
        result[top : top + BLOCK_SIZE, left : left + BLOCK_SIZE] = generator.random_sample(3)
    return result


Distortion = Callable[..., np.ndarray]
_NOISE = (0.02, 0.04, 0.07, 0.11, 0.18)
DISTORTIONS: dict[str, tuple[Distortion, Sequence[Any]]] = {
    "gaussian_blur": (blur_gaussian, (0.6, 1.0, 1.7, 2.8, 4.5)),
    "lens_blur": (blur_lens, (1, 2, 3.5, 5.5, 8)),
    "motion_blur": (blur_motion, (3, 6, 10, 16, 24)),
    "jpeg": (compress_jpeg, (55, 30, 17, 9, 4)),
    "jpeg_2000": (compress_jpeg_2000, (12, 30, 60, 120, 240)),
    "white_noise": (add_white_noise, _NOISE),
    "chroma_noise": (add_chroma_noise, (0.03, 0.06, 0.10, 0.15, 0.22)),
    "impulse_noise": (add_impulses, (0.003, 0.01, 0.03, 0.07, 0.15)),
    "multiplicative_noise": (multiply_noise, (0.06, 0.12, 0.20, 0.32, 0.50)),
    "denoised": (denoise, tuple(zip(_NOISE, MEDIAN_SIZES, strict=True))),
    "contrast_loss": (change_contrast, (0.85, 0.65, 0.45, 0.30, 0.18)),
    "brighten": (change_gamma, (0.85, 0.68, 0.52, 0.38, 0.27)),
    "darken": (change_gamma, (1.25, 1.6, 2.1, 2.9, 4.0)),
    "desaturate": (desaturate, (0.7, 0.45, 0.25, 0.1, 0.0)),
    "color_quantization": (quantize_colors, (64, 32, 16, 8, 4)),
    # Never exactly 2: HaarPSI averages pairs of pixels first, and would see no difference.
    "pixelate": (pixelate, (1.5, 2.5, 3.5, 5, 8)),
    "jitter": (jitter, (0.5, 1.0, 1.7, 2.7, 4.5)),
    "displaced_patches": (displace_patches, (10, 25, 60, 120, 240)),
    "over_sharpen": (sharpen, (1, 2, 3.5, 6, 10)),
    "color_blocks": (cover_blocks, (2, 5, 10, 18, 30)),
}
"""Name to function and its parameter for the levels 1 to 5."""


def distort(image: Image.Image | np.ndarray, name: str, level: int, reference: str, index: int = 0) -> Image.Image:
    """An image with one distortion, the same on every machine that has the same codecs.

    Args:
        image (`PIL.Image.Image` or `numpy.ndarray`): RGB bytes, at least 24 x 24 pixels.
        name (`str`): Key of `DISTORTIONS`.
        level (`int`): Strength, 1 (hardly seen) to 5.
        reference (`str`): Name of the image; with name and level it seeds the generator.
        index (`int`): Number of the image among the references, which turns motion blur.

    Raises:
        ValueError: If there is no such distortion or level, or the image is too small.
    """
    if name not in DISTORTIONS:
        raise ValueError(f"`name` must be one of {', '.join(DISTORTIONS)}; got {name!r}.")
    if not 1 <= level <= NUM_LEVELS:
        raise ValueError(f"`level` must be in [1, {NUM_LEVELS}]; got {level}.")
    pixels = np.asarray(image) / 255
    if pixels.ndim != 3 or pixels.shape[2] != 3 or min(pixels.shape[:2]) < BLOCK_SIZE:
        raise ValueError(f"`image` must be RGB, at least {BLOCK_SIZE} pixels a side; got shape {pixels.shape}.")
    function, strengths = DISTORTIONS[name]
    number = list(DISTORTIONS).index(name) + 1
    generator = np.random.RandomState(zlib.crc32(f"{reference}|{number}|{level}".encode()))
    return Image.fromarray(to_bytes(function(pixels, strengths[level - 1], generator, index)))


__all__ = ["DISTORTIONS", "NUM_LEVELS", "distort"]
