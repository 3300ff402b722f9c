"""Where in its table the relative position bias of two tokens stands.

A table has one row for every offset between two patches of a grid, row offset first, then rows for pairs with a prefix
token: for each such token, the last one first, "token to all", "all to token" and "token to itself". In pairs of two
prefix tokens the first one (CLS) decides.
"""

import torch
from torch.nn import functional


NUM_ROWS_PER_PREFIX_TOKEN = 3


def num_relative_positions(grid: tuple[int, int], num_prefix_tokens: int) -> int:
    """Number of rows of a relative position bias table.

    Args:
        grid (`tuple[int, int]`): rows and columns of patches.
        num_prefix_tokens (`int`): tokens before the patches: CLS and, in tiny-star, the distillation token.
    """
    height, width = grid
    return (2 * height - 1) * (2 * width - 1) + NUM_ROWS_PER_PREFIX_TOKEN * num_prefix_tokens


def build_relative_position_index(grid: tuple[int, int], num_prefix_tokens: int) -> torch.Tensor:
    """Row of the bias table for every pair of tokens.

    Args:
        grid (`tuple[int, int]`): rows and columns of patches.
        num_prefix_tokens (`int`): tokens before the patches: CLS and, in tiny-star, the distillation token.

    Returns:
        `torch.LongTensor` of shape `(num_tokens, num_tokens)`: query tokens are rows, key tokens are columns.
    """
    height, width = grid
    patches = torch.cartesian_prod(torch.arange(height), torch.arange(width))
    row_offset, column_offset = (patches[:, None] - patches[None]).unbind(-1)
    num_tokens = num_prefix_tokens + height * width
    index = torch.empty(num_tokens, num_tokens, dtype=torch.long)
    index[num_prefix_tokens:, num_prefix_tokens:] = (row_offset + height - 1) * (2 * width - 1) + (
        column_offset + width - 1
    )
    num_positions = num_relative_positions(grid, num_prefix_tokens)
    for token in reversed(range(num_prefix_tokens)):
        end = num_positions - NUM_ROWS_PER_PREFIX_TOKEN * token
        index[token] = end - 3
        index[:, token] = end - 2
        index[token, token] = end - 1
    return index


def resize_relative_position_bias(
    table: torch.Tensor, old_grid: tuple[int, int], grid: tuple[int, int]
) -> torch.Tensor:
    """A bias table for another grid: offsets by bicubic interpolation, rows for prefix tokens as they are.

    Args:
        table (`torch.Tensor` of shape `(num_relative_positions, num_heads)`): of `old_grid`.
        old_grid (`tuple[int, int]`): its rows and columns of patches.
        grid (`tuple[int, int]`): rows and columns that are wanted.
    """
    old_size, size = ([2 * length - 1 for length in lengths] for lengths in (old_grid, grid))
    num_offsets = old_size[0] * old_size[1]
    maps = table[:num_offsets].T.reshape(1, -1, *old_size)
    maps = functional.interpolate(maps, size=size, mode="bicubic", align_corners=True)
    return torch.cat([maps[0].flatten(1).T, table[num_offsets:]])


__all__ = ["build_relative_position_index", "num_relative_positions", "resize_relative_position_bias"]
