"""What a small patch of an image changes in a convolutional network, without computing the rest of it again.

The trigger image is black but for a patch, and only the patch moves. In every map only a window around it changes; the
difference to the maps of the first image is carried from layer to layer:

    convolution:              difference of the output = convolution of the difference, without bias
    activation, norm, pool:   difference of the output = f(first + difference) - f(first)

That gives the numbers of a whole forward pass up to rounding. Norms over a whole map cannot be cut like this.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional


POINTWISE = (nn.ReLU, nn.Sigmoid, nn.LeakyReLU, nn.BatchNorm2d, nn.LocalResponseNorm)
POOLS = (nn.AvgPool2d, nn.MaxPool2d)
Window = tuple[int, int, int, int]  # first row, row behind the last one, and the same for columns


def is_local(features: nn.Module) -> bool:
    """Whether every layer of a network's features maps a window of an image to a window."""
    return isinstance(features, nn.Sequential) and all(
        isinstance(layer, (nn.Conv2d, *POINTWISE, *POOLS)) for layer in features
    )


@dataclass
class LocalLayer:
    """A layer with what it needs of the first image.

    Args:
        layer (`torch.nn.Module`): The layer.
        padding (`list[int]`): By which the window of its input is filled up (left, right, top, bottom) to what its
            output depends on; negative where it is more than that.
        first (`torch.FloatTensor`, *optional*): Input of the first image in that window.
        first_output (`torch.FloatTensor`, *optional*): Output of the first image.
    """

    layer: nn.Module
    padding: list[int]
    first: torch.Tensor | None = None
    first_output: torch.Tensor | None = None

    def __call__(self, difference: torch.Tensor) -> torch.Tensor:
        if any(self.padding):
            difference = functional.pad(difference, self.padding)
        if isinstance(self.layer, nn.Conv2d):
            return functional.conv2d(difference, self.layer.weight)
        return _apply(self.layer, self.first + difference) - self.first_output


def _apply(layer: nn.Module, window: torch.Tensor) -> torch.Tensor:
    """A layer on a window that holds its padding already."""
    if isinstance(layer, nn.MaxPool2d):
        return functional.max_pool2d(window, layer.kernel_size, layer.stride)
    if isinstance(layer, nn.AvgPool2d):
        return functional.avg_pool2d(window, layer.kernel_size, layer.stride)
    return layer(window)


class LocalDifferences:
    """Difference that a patch makes to the last map of a network's features.

    Args:
        features (`torch.nn.Sequential`): The layers, in evaluation mode; see [`is_local`].
        image (`torch.FloatTensor` of shape `(1, num_channels, height, width)`): The first image.
        window (`tuple[int, int, int, int]`): Where the patch may be.

    Attributes:
        window (`tuple[int, int, int, int]`): What changes in the last map.
        first_map (`torch.FloatTensor`): The last map of the first image.
    """

    def __init__(self, features: nn.Sequential, image: torch.Tensor, window: Window):
        self.layers: list[LocalLayer] = []
        maps = image
        for layer in features:
            output = layer(maps)
            kernel, stride, padding = (
                _get_side(getattr(layer, name, default))
                for name, default in (("kernel_size", 1), ("stride", 1), ("padding", 0))
            )
            if isinstance(layer, POINTWISE):
                kernel, stride, padding = 1, 1, 0
            sides = [
                _find_side(window[side : side + 2], output.shape[-2 + side // 2], kernel, stride, padding)
                for side in (0, 2)
            ]
            self.layers.append(_build_layer(layer, maps, output, window, sides, padding))
            window = (*sides[0].output, *sides[1].output)
            maps = output
        self.window, self.first_map = window, maps

    def __call__(self, difference: torch.Tensor) -> torch.Tensor:
        """Difference in `window` of the last map, of a difference in the window of the image."""
        for layer in self.layers:
            difference = layer(difference)
        return difference


@dataclass(frozen=True)
class _Side:
    """Rows, or columns, of the output that change, and of the input that they depend on."""

    output: tuple[int, int]
    input: tuple[int, int]


def _get_side(value: int | tuple[int, ...]) -> int:
    return value if isinstance(value, int) else value[0]


def _find_side(changed: tuple[int, ...], size: int, kernel: int, stride: int, padding: int) -> _Side:
    # Output `o` depends on inputs from `o * stride - padding` to `kernel - 1` behind it.
    first = max(0, -(-(changed[0] + padding - kernel + 1) // stride))
    stop = min(size, (changed[1] - 1 + padding) // stride + 1)
    return _Side((first, stop), (first * stride - padding, (stop - 1) * stride - padding + kernel))


def _build_layer(
    layer: nn.Module,
    maps: torch.Tensor,
    output: torch.Tensor,
    window: Window,
    sides: list[_Side],
    padding: int,
) -> LocalLayer:
    (top, bottom), (left, right) = (side.input for side in sides)
    fill = [window[2] - left, right - window[3], window[0] - top, bottom - window[1]]
    if isinstance(layer, nn.Conv2d):
        return LocalLayer(layer, fill)
    outside = float("-inf") if isinstance(layer, nn.MaxPool2d) else 0.0
    padded = functional.pad(maps, [padding] * 4, value=outside) if padding else maps
    first = padded[..., top + padding : bottom + padding, left + padding : right + padding]
    rows, columns = (slice(*side.output) for side in sides)
    return LocalLayer(layer, fill, first, output[..., rows, columns])


__all__ = ["LocalDifferences", "is_local"]
