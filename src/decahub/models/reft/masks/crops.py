"""Square crops around support instances."""

import torch
from torch.nn import functional as F
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transforms


def crop_square(
    image: torch.Tensor, mask: torch.Tensor, box: list[int], context: float, size: int, fill: list[float]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The square around a box, enlarged and resized, and the mask inside it.

    Args:
        image (`torch.Tensor` of shape `(channels, height, width)`): pixels.
        mask (`torch.BoolTensor` of shape `(height, width)`): the instance.
        box (`list[int]`): its box `[x0, y0, x1, y1]`; one without area stands for the whole image.
        context (`float`): side of the square as a multiple of the longer side of the box.
        size (`int`): side of the result in pixels.
        fill (`list[float]`): color of what lies outside of the image.

    Returns:
        Floats of shape `(channels, size, size)`, and a mask of shape `(size, size)`.
    """
    height, width = mask.shape
    x0, y0, x1, y1 = box if box[2] > box[0] else (0, 0, width, height)
    side = max(round(context * max(x1 - x0, y1 - y0)), 1)
    left, top = round((x0 + x1 - side) / 2), round((y0 + y1 - side) / 2)
    visible = image[:, max(top, 0) : top + side, max(left, 0) : left + side].float()
    inside = mask[max(top, 0) : top + side, max(left, 0) : left + side]
    before = (max(-left, 0), max(-top, 0))
    after = (side - before[0] - visible.shape[2], side - before[1] - visible.shape[1])
    padding = (before[0], after[0], before[1], after[1])
    color = torch.tensor(fill, dtype=visible.dtype, device=visible.device)[:, None, None]
    crop = F.pad(visible - color, padding) + color
    crop = transforms.resize(crop, [size, size], InterpolationMode.BILINEAR, antialias=True)
    cut = F.pad(inside[None].float(), padding)
    resized = transforms.resize(cut, [size, size], InterpolationMode.NEAREST_EXACT)
    if cut.any() and not resized.any():  # an instance so thin that it lies between the pixels that are kept
        resized = F.adaptive_max_pool2d(cut, size)
    return crop, resized[0] > 0.5


__all__ = ["crop_square"]
