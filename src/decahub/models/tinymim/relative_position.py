"""Where in its table the relative position bias of two tokens stands.

A table has one row for every offset between two patches of a grid, row offset first, then rows for pairs with a prefix
token: for each such token, the last one first, "token to all", "all to token" and "token to itself". In pairs of two
prefix tokens the first one (CLS) decides.
"""

import torch


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


__all__ = ["build_relative_position_index", "num_relative_positions"]
