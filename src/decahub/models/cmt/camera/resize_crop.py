"""Resizing, cropping and mirroring of camera images, and what each does to pixel coordinates.

Pixels go (u, v): u to the right, v down. A camera matrix multiplied from the left by the transform's matrix projects
to the pixels of the new image.
"""

from dataclasses import dataclass

import torch
from torchvision.transforms.v2 import functional as transforms

from .resize import resize_bilinear


RESIZE_RANGE = (0.94, 1.25)
FLIP_PROBABILITY = 0.5


@dataclass(frozen=True)
class CmtImageTransform:
    """What is done to the image of one camera: resize, then crop at an offset, then mirror.

    Args:
        resize (`float`): Factor of height and width; the new size is cut to whole pixels.
        left (`int`): First column of the crop in the resized image.
        top (`int`): First row of the crop; negative rows and columns are black.
        do_flip (`bool`): Whether left and right are swapped after the crop.
    """

    resize: float
    left: int = 0
    top: int = 0
    do_flip: bool = False

    def __post_init__(self):
        if not 0 < self.resize < float("inf"):
            raise ValueError(f"`resize` must be a positive number; got {self.resize!r}.")

    def compute_new_size(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Height and width after the resize, at least one pixel."""
        height, width = image_size
        return max(int(height * self.resize), 1), max(int(width * self.resize), 1)

    def build_matrix(self, image_size: tuple[int, int], crop_width: int, is_exact: bool = False) -> torch.Tensor:
        """Maps homogeneous pixels of the camera to those of the result.

        $u' = r u - x_0$ and $v' = r v - y_0$; a flip maps $u'$ to $W - u'$. The authors take the drawn factor $r$ for
        both axes and mirror about $W / 2$. The exact map has the factors of the whole-pixel size, and mirrors the
        centers of pixels, $W - 1 - u'$.

        Args:
            image_size (`tuple[int, int]`): Height and width of the camera's image.
            crop_width (`int`): Width $W$ of the crop.
            is_exact (`bool`): Whether to return the exact map instead of the authors'.

        Returns:
            `torch.DoubleTensor` of shape `(3, 3)`.
        """
        scale_v = scale_u = self.resize
        if is_exact:
            new_size = self.compute_new_size(image_size)
            scale_v, scale_u = (new / old for new, old in zip(new_size, image_size, strict=True))
        matrix = torch.tensor([[scale_u, 0, -self.left], [0, scale_v, -self.top], [0, 0, 1]], dtype=torch.float64)
        if self.do_flip:
            matrix[0] = -matrix[0]
            matrix[0, 2] += crop_width - 1 if is_exact else crop_width
        return matrix

    def apply(self, image: torch.Tensor, crop_size: tuple[int, int]) -> torch.Tensor:
        """The transformed image, black where it ends.

        Args:
            image (`torch.Tensor` of shape `(channels, height, width)`): Bytes, or floats.
            crop_size (`tuple[int, int]`): Height and width of the result.
        """
        new_size = self.compute_new_size(tuple(image.shape[-2:]))
        if new_size != tuple(image.shape[-2:]):
            image = resize_bilinear(image, new_size)
        image = transforms.crop(image, self.top, self.left, *crop_size)
        return transforms.horizontal_flip(image) if self.do_flip else image


def compute_evaluation_transform(image_size: tuple[int, int], crop_size: tuple[int, int]) -> CmtImageTransform:
    """The transform of evaluation: cover the crop, keep the bottom, center the columns.

    Args:
        image_size (`tuple[int, int]`): Height and width of the camera's image.
        crop_size (`tuple[int, int]`): Height and width of the result.
    """
    resize = max(crop_size[0] / image_size[0], crop_size[1] / image_size[1])
    return _place(CmtImageTransform(resize), image_size, crop_size, position=0.5)


def sample_image_transforms(
    image_sizes: list[tuple[int, int]],
    crop_size: tuple[int, int],
    generator: torch.Generator | None = None,
    resize_range: tuple[float, float] = RESIZE_RANGE,
    flip_probability: float = FLIP_PROBABILITY,
) -> list[CmtImageTransform]:
    """A random transform for training, the same draw for all cameras of a frame.

    The bottom is kept; columns are cropped at random. Where the resized image is narrower than the crop, the right
    side stays black.

    Args:
        image_sizes (`list[tuple[int, int]]`): Height and width of each camera's image.
        crop_size (`tuple[int, int]`): Height and width of the result.
        generator (`torch.Generator`, *optional*): Source of the draw.
        resize_range (`tuple[float, float]`): Least and greatest factor, times the one of evaluation. Published: 0.94
            to 1.25.
        flip_probability (`float`): Share of frames that are mirrored.
    """
    low, high = resize_range
    if not 0 < low <= high:
        raise ValueError(f"`resize_range` must be two positive factors, the least first; got {resize_range}.")
    draws = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
    factor, position, do_flip = low + (high - low) * draws[0], draws[1], draws[2] < flip_probability
    drawn = []
    for image_size in image_sizes:
        resize = factor * compute_evaluation_transform(image_size, crop_size).resize
        drawn.append(_place(CmtImageTransform(resize, do_flip=do_flip), image_size, crop_size, position))
    return drawn


def _place(
    transform: CmtImageTransform, image_size: tuple[int, int], crop_size: tuple[int, int], position: float
) -> CmtImageTransform:
    new_height, new_width = transform.compute_new_size(image_size)
    left = int(max(0, new_width - crop_size[1]) * position)
    return CmtImageTransform(transform.resize, left, new_height - crop_size[0], transform.do_flip)


__all__ = [
    "FLIP_PROBABILITY",
    "RESIZE_RANGE",
    "CmtImageTransform",
    "compute_evaluation_transform",
    "sample_image_transforms",
]
