"""Local-distortion branches: each turns one feature map of the backbone into features of the distortions in it.

A branch averages its map over windows of `pool_size` cells, narrows it by a 1x1 convolution, and projects what is left
to `out_channels` features: `proj(flatten(reduce(pool(map))))`. There is no activation and no norm. The authors reduce
before they pool; the two commute, since the convolution has no bias, and this way it sees 49 times fewer cells.
"""

import torch
from torch import nn
from torch.nn import functional


class PmtIqaProjection(nn.Linear):
    """A linear layer that starts with other weights than those of the heads."""


class PmtIqaBranch(nn.Module):
    """Features of one map.

    Args:
        in_channels (`int`): Channels of the map.
        reduced_channels (`int`, *optional*): Channels after the 1x1 convolution; without, there is none.
        pool_size (`int`): Side of the pooling windows, in cells.
        grid_size (`int`): Rows, and columns, of pooled cells of a crop.
        out_channels (`int`): Features of the branch.
    """

    def __init__(
        self, in_channels: int, reduced_channels: int | None, pool_size: int, grid_size: int, out_channels: int
    ):
        super().__init__()
        self.pool_size, self.grid_size = pool_size, grid_size
        self.pooled_shape = (in_channels, grid_size, grid_size)
        self.reduce: nn.Module = nn.Identity()
        if reduced_channels is not None:
            self.reduce = nn.Conv2d(in_channels, reduced_channels, kernel_size=1, bias=False)
        self.proj = PmtIqaProjection((reduced_channels or in_channels) * grid_size**2, out_channels)

    def pool(self, feature_map: torch.Tensor) -> torch.Tensor:
        """Means of the windows of crops.

        Args:
            feature_map (`torch.FloatTensor` of shape `(batch_size, in_channels, rows, columns)`): Cells beyond whole
                windows are left out.

        Returns:
            `torch.FloatTensor` of shape `(batch_size, in_channels, grid_size, grid_size)`.
        """
        pooled = functional.avg_pool2d(feature_map, self.pool_size)
        if tuple(pooled.shape[-2:]) != (self.grid_size, self.grid_size):
            raise ValueError(
                f"A feature map must have {self.grid_size} x {self.grid_size} windows of {self.pool_size} cells; got "
                f"{tuple(feature_map.shape[-2:])} cells. Cut crops with `PmtIqaImageProcessor`, and compare "
                "`feature_strides` of the config with the backbone."
            )
        return pooled

    def project(self, pooled: torch.Tensor) -> torch.Tensor:
        """Features, of shape `(batch_size, out_channels)`, from the means that `pool` gave."""
        return self.proj(self.reduce(pooled).flatten(1))

    def forward(self, feature_map: torch.Tensor) -> torch.Tensor:
        """Features of crops: `project(pool(feature_map))`."""
        return self.project(self.pool(feature_map))

    def forward_dense(self, feature_map: torch.Tensor, step: int) -> torch.Tensor:
        """Features of all windows of a crop's size in the map of a whole image, `step` cells apart.

        The projection of a window is a convolution of the map of all pooled cells, dilated by `pool_size`.

        Returns:
            `torch.FloatTensor` of shape `(batch_size, out_channels, window_rows, window_columns)`.
        """
        pooled = functional.avg_pool2d(self.reduce(feature_map), self.pool_size, stride=1)
        kernel = self.proj.weight.unflatten(1, (-1, self.grid_size, self.grid_size))
        return functional.conv2d(pooled, kernel, self.proj.bias, stride=step, dilation=self.pool_size)


__all__ = ["PmtIqaBranch", "PmtIqaProjection"]
