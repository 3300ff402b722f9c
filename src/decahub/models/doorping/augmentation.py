"""Differentiable augmentation (DSA, arXiv 2102.08259), with the draws of its authors.

Siamese augmentation draws with a given seed, and applies the draw of the first image to all; the n-th draw of a call
is seeded by `seed + n`. Without a seed every image has its own draw from torch's global generator.
"""

import math
from collections.abc import Callable

import torch
from torch.nn import functional


FLIP_PROB = 0.5
SCALE_RATIO = 1.2
ROTATION_DEGREES = 15.0
CROP_RATIO = 0.125
CUTOUT_RATIO = 0.5
BRIGHTNESS, SATURATION, CONTRAST = 1.0, 2.0, 0.5


class SeededDraws:
    """Random numbers of one call: with a seed, the same for every image and batch."""

    def __init__(self, seed: int | None):
        self.seed = seed

    def _next_generator(self) -> torch.Generator | None:
        if self.seed is None:
            return None
        generator = torch.Generator().manual_seed(self.seed)
        self.seed += 1
        return generator

    def _share(self, values: torch.Tensor) -> torch.Tensor:
        return values if self.seed is None else values[:1].expand_as(values)

    def uniform(self, number: int) -> torch.Tensor:
        """One number in [0, 1) for each image."""
        return self._share(torch.rand(number, generator=self._next_generator()))

    def integers(self, low: int, high: int, number: int) -> torch.Tensor:
        """One integer in [low, high) for each image."""
        return self._share(torch.randint(low, high, (number,), generator=self._next_generator()))

    def choose(self, number: int) -> int:
        """One of `number` families."""
        return int(torch.randint(0, number, (1,), generator=self._next_generator()))


def _column(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return values.to(like.device, like.dtype).view(-1, 1, 1, 1)


def change_color(images: torch.Tensor, draws: SeededDraws) -> torch.Tensor:
    """Brightness, saturation and contrast, one after the other."""
    images = images + (_column(draws.uniform(len(images)), images) - 0.5) * BRIGHTNESS
    gray = images.mean(dim=1, keepdim=True)
    images = (images - gray) * (_column(draws.uniform(len(images)), images) * SATURATION) + gray
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return (images - mean) * (_column(draws.uniform(len(images)), images) + CONTRAST) + mean


def shift(images: torch.Tensor, draws: SeededDraws) -> torch.Tensor:
    """Move images by up to an eighth of their size; zeros come in."""
    num_images, _, height, width = images.shape
    limits = [int(side * CROP_RATIO + 0.5) for side in (height, width)]
    offsets = [draws.integers(-limit, limit + 1, num_images).tolist() for limit in limits]
    padded = functional.pad(images, [limits[1], limits[1], limits[0], limits[0]])
    moved = [
        padded[index, :, limits[0] + down : limits[0] + down + height, limits[1] + right : limits[1] + right + width]
        for index, (down, right) in enumerate(zip(*offsets, strict=True))
    ]
    return torch.stack(moved)


def cut_out(images: torch.Tensor, draws: SeededDraws) -> torch.Tensor:
    """Set a square of half the size to zero; part of it may lie outside."""
    num_images, _, *sides = images.shape
    keep = torch.ones(num_images, 1, *sides, dtype=images.dtype, device=images.device)
    lengths = [int(side * CUTOUT_RATIO + 0.5) for side in sides]
    centers = [
        draws.integers(0, side + (1 - length % 2), num_images).tolist()
        for side, length in zip(sides, lengths, strict=True)
    ]
    for index, center in enumerate(zip(*centers, strict=True)):
        # Rows and columns outside fall on the border, which is zero then too.
        rows, columns = (
            torch.arange(start - length // 2, start - length // 2 + length).clamp(0, side - 1)
            for start, length, side in zip(center, lengths, sides, strict=True)
        )
        keep[index, 0, rows[:, None], columns] = 0
    return images * keep


def flip(images: torch.Tensor, draws: SeededDraws) -> torch.Tensor:
    """Mirror half of the images."""
    return torch.where(_column(draws.uniform(len(images)), images) < FLIP_PROB, images.flip(3), images)


def scale(images: torch.Tensor, draws: SeededDraws) -> torch.Tensor:
    """Stretch height and width by factors of their own."""
    low = 1 / SCALE_RATIO
    horizontal, vertical = (draws.uniform(len(images)) * (SCALE_RATIO - low) + low for _ in range(2))
    zeros = torch.zeros_like(horizontal)
    return _transform(images, [[horizontal, zeros, zeros], [zeros, vertical, zeros]])


def rotate(images: torch.Tensor, draws: SeededDraws) -> torch.Tensor:
    """Rotate by up to 15 degrees."""
    angle = (draws.uniform(len(images)) - 0.5) * 2 * ROTATION_DEGREES / 180 * math.pi
    zeros = torch.zeros_like(angle)
    return _transform(images, [[angle.cos(), -angle.sin(), zeros], [angle.sin(), angle.cos(), zeros]])


def _transform(images: torch.Tensor, matrix: list[list[torch.Tensor]]) -> torch.Tensor:
    rows = torch.stack([torch.stack(row, dim=-1) for row in matrix], dim=1).to(images.device, images.dtype)
    grid = functional.affine_grid(rows, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)


FAMILIES: dict[str, Callable[[torch.Tensor, SeededDraws], torch.Tensor]] = {
    "color": change_color,
    "crop": shift,
    "cutout": cut_out,
    "flip": flip,
    "scale": scale,
    "rotate": rotate,
}


def check_families(names: str) -> list[str]:
    """Families of an augmentation.

    Raises:
        ValueError: If one does not exist.
    """
    families = names.split("_")
    for family in families:
        if family not in FAMILIES:
            raise ValueError(f"`augmentation` must join families of {', '.join(FAMILIES)} by '_'; got {names!r}.")
    return families


def augment(images: torch.Tensor, names: str, seed: int | None = None) -> torch.Tensor:
    """Images after one family of augmentations, chosen at random; differentiable.

    Args:
        images (`torch.FloatTensor` of shape `(batch_size, num_channels, height, width)`): Normalized.
        names (`str`): Families joined by `_`.
        seed (`int`, *optional*): Of a siamese augmentation.
    """
    families, draws = check_families(names), SeededDraws(seed)
    return FAMILIES[families[draws.choose(len(families))]](images, draws)


__all__ = ["FAMILIES", "augment", "check_families"]
