"""GridMask: images are blacked out but for a grid of stripes, so that no small region decides alone.

Paper: "GridMask Data Augmentation", arXiv 2001.04086; CMT keeps the stripes and removes the squares between them.
"""

import torch


PROBABILITY = 0.7
KEPT_SHARE = 0.5


def sample_grid_mask(
    height: int, width: int, generator: torch.Generator | None = None, kept_share: float = KEPT_SHARE
) -> torch.Tensor:
    r"""A random grid of stripes.

    The period $d$ is uniform in $[2, H)$ and stripes are $\lfloor d r + 1/2 \rfloor$ pixels wide, of at least 1 and
    at most $d - 1$; rows and columns have phases of their own.

    Args:
        height (`int`): Height $H$ of the image, at least 3.
        width (`int`): Its width.
        generator (`torch.Generator`, *optional*): Source of the draw.
        kept_share (`float`): Share $r$ of a period that is kept.

    Returns:
        `torch.BoolTensor` of shape `(height, width)`; true where a horizontal or a vertical stripe keeps the pixel.
    """
    if height < 3:
        raise ValueError(f"`height` must be at least 3; got {height}.")
    period = int(torch.randint(2, height, (), generator=generator))
    stripe = min(max(int(period * kept_share + 0.5), 1), period - 1)
    row_phase, column_phase = torch.randint(period, (2,), generator=generator).tolist()
    rows = (torch.arange(height) + row_phase) % period < stripe
    columns = (torch.arange(width) + column_phase) % period < stripe
    return rows[:, None] | columns


def apply_grid_mask(
    pixel_values: torch.Tensor,
    generator: torch.Generator | None = None,
    probability: float = PROBABILITY,
    kept_share: float = KEPT_SHARE,
) -> torch.Tensor:
    """Normalized images behind one random grid for all of them, for training.

    Args:
        pixel_values (`torch.FloatTensor` of shape `(..., height, width)`): Normalized pixels of all cameras.
        generator (`torch.Generator`, *optional*): Source of the draws, on the CPU.
        probability (`float`): How often a grid is applied.
        kept_share (`float`): As in [`sample_grid_mask`].

    Returns:
        `torch.FloatTensor` of the same shape; masked pixels are 0, the mean color.
    """
    if not 0 <= probability <= 1:
        raise ValueError(f"`probability` must lie in [0, 1]; got {probability}.")
    if torch.rand((), generator=generator).item() >= probability:
        return pixel_values
    mask = sample_grid_mask(*pixel_values.shape[-2:], generator=generator, kept_share=kept_share)
    return pixel_values * mask.to(pixel_values)


__all__ = ["apply_grid_mask", "sample_grid_mask"]
