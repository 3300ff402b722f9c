"""Positions of patches: the fixed table of sines and cosines, and its resize to another grid (MAE, 2111.06377)."""

import torch
from torch.nn import functional


MAX_PERIOD = 10_000.0


def build_position_embeddings(hidden_size: int, grid: tuple[int, int], num_prefix_tokens: int = 1) -> torch.Tensor:
    """Table of sines and cosines, columns before rows, with zeros for the tokens before the patches.

    The patch in row r and column c has `[sin(c w), cos(c w), sin(r w), cos(r w)]` with
    `w_j = 10000 ** (-4 j / hidden_size)`; computed in float64.

    Args:
        hidden_size (`int`): width of a token, a multiple of 4.
        grid (`tuple[int, int]`): rows and columns of patches.
        num_prefix_tokens (`int`): tokens before the patches.

    Returns:
        `torch.FloatTensor` of shape `(1, num_prefix_tokens + rows * columns, hidden_size)`.
    """
    quarter = hidden_size // 4
    # On the CPU whatever the default device: models are built on the meta device, where a table has no values.
    frequencies = MAX_PERIOD ** -(torch.arange(quarter, dtype=torch.float64, device="cpu") / quarter)
    rows, columns = (torch.arange(size, dtype=torch.float64, device="cpu") for size in grid)
    row_angles = rows.repeat_interleave(len(columns))[:, None] * frequencies
    column_angles = columns.repeat(len(rows))[:, None] * frequencies
    patches = torch.cat([column_angles.sin(), column_angles.cos(), row_angles.sin(), row_angles.cos()], dim=1)
    prefix = torch.zeros(num_prefix_tokens, hidden_size, dtype=torch.float64, device="cpu")
    return torch.cat([prefix, patches])[None].float()


def resize_position_embeddings(
    table: torch.Tensor,
    old_grid: tuple[int, int],
    grid: tuple[int, int],
    num_prefix_tokens: int = 1,
    always: bool = False,
) -> torch.Tensor:
    """A table for another grid: bicubic interpolation without antialias, as in the authors' code.

    Args:
        table (`torch.Tensor` of shape `(1, num_prefix_tokens + old_rows * old_columns, hidden_size)`): any table.
        old_grid (`tuple[int, int]`): its rows and columns of patches.
        grid (`tuple[int, int]`): rows and columns that are wanted.
        num_prefix_tokens (`int`): rows of the table that belong to no patch; they stay as they are.
        always (`bool`): whether to interpolate for the same grid as well, which changes nothing.

    Raises:
        ValueError: If `table` does not have the rows that `old_grid` says.
    """
    num_patches = table.shape[1] - num_prefix_tokens
    if num_patches != old_grid[0] * old_grid[1]:
        raise ValueError(
            f"`table` must have {num_prefix_tokens} + {old_grid[0]} * {old_grid[1]} rows; got {table.shape[1]}."
        )
    if not always and tuple(old_grid) == tuple(grid):
        return table
    maps = table[:, num_prefix_tokens:].reshape(1, *old_grid, -1).permute(0, 3, 1, 2)
    maps = functional.interpolate(maps, size=tuple(grid), mode="bicubic", align_corners=False)
    return torch.cat([table[:, :num_prefix_tokens], maps.flatten(2).transpose(1, 2)], dim=1)


__all__ = ["build_position_embeddings", "resize_position_embeddings"]
