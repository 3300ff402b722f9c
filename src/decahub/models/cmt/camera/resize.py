"""Bilinear resize of bytes in the fixed-point arithmetic of OpenCV, which the authors' images went through."""

import numpy as np
import torch
from torch.nn import functional


WEIGHT_BITS = 11


def resize_bilinear(image: torch.Tensor, new_size: tuple[int, int]) -> torch.Tensor:
    """The image at another size, bilinear between the centers of pixels, without a filter against aliasing.

    Bytes are what OpenCV gives, bit for bit: weights have 11 bits, and intermediate values lose their last four.
    torchvision rounds after each axis instead, which makes an image brighter by half a gray level when it is halved.

    Args:
        image (`torch.Tensor` of shape `(channels, height, width)`): Bytes, or floats.
        new_size (`tuple[int, int]`): Height and width.
    """
    if image.dtype != torch.uint8:
        return functional.interpolate(image[None], size=new_size, mode="bilinear", align_corners=False)[0]
    columns, column_weights = _find_neighbors(image.shape[2], new_size[1], image.device)
    rows, row_weights = _find_neighbors(image.shape[1], new_size[0], image.device)
    mixed = _mix(image, 2, columns, column_weights) >> 4
    upper, lower = (
        (mixed.index_select(1, chosen) * weights[:, None]) >> 16
        for chosen, weights in zip(rows, row_weights, strict=True)
    )
    return ((upper + lower + 2) >> 2).to(torch.uint8)


def _mix(image: torch.Tensor, axis: int, neighbors: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    first, second = (image.index_select(axis, chosen).int() for chosen in neighbors)
    return first.mul_(weights[0]).add_(second.mul_(weights[1]))


def _find_neighbors(size: int, new_size: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """For each new pixel along an axis the pixels on both sides and their weights, each of shape `(2, new_size)`."""
    positions = ((np.arange(new_size) + 0.5) * (size / new_size) - 0.5).astype(np.float32)
    first = np.floor(positions).astype(np.int64)
    fractions = positions - first.astype(np.float32)
    # Beyond the border both neighbors are the same pixel.
    neighbors = np.stack([first, first + 1]).clip(0, size - 1)
    weights = np.rint(np.stack([1 - fractions, fractions]) * (1 << WEIGHT_BITS)).astype(np.int32)
    return torch.from_numpy(neighbors).to(device), torch.from_numpy(weights).to(device)


__all__ = ["resize_bilinear"]
