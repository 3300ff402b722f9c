"""Four maps of one stride -> a pyramid at a quarter, a half, one and two patches, for decode heads (2301.01296, 4.3).

TinyMIM*-T, whose last map is wider than the others, brings all four to four times the width of a token.

| here | authors' files | plain | TinyMIM*-T |
| --- | --- | --- | --- |
| `finest.0`, `.1`, `.3` | `fpn1.0`, `.1`, `.3` | doubling, batch norm, doubling | the same |
| `fine.0` | `fpn2.0` | doubling | doubling |
| `coarse` | `fpn3` | nothing | 1x1 convolution |
| `coarsest` | `fpn4` | halving, the larger value | `coarsest.0`, `fpn4.0`: 3x3 convolution, stride 2 |
"""

import torch
from torch import nn

from .configuration_tinymim import TinyMimConfig


WIDTH_RATIO = 4  # of TinyMIM*-T's maps to its tokens


def build_doubling(in_channels: int, out_channels: int) -> nn.Module:
    """Twice the height and width."""
    return nn.ConvTranspose2d(in_channels, out_channels, kernel_size=2, stride=2)


class TinyMimFeaturePyramid(nn.Module):
    """Brings four maps of equal size to the strides that decode heads expect.

    Args:
        config ([`TinyMimConfig`]): `hidden_size` is the width of the first three maps; `pre_logits_dim`, if set, that
            of the last.

    Attributes:
        out_channels (`list[int]`): width of each map of the pyramid, finest first.
    """

    def __init__(self, config: TinyMimConfig):
        super().__init__()
        size = config.hidden_size
        has_wide_end = config.pre_logits_dim is not None
        out_size, middle_size = (WIDTH_RATIO * size, 2 * size) if has_wide_end else (size, size)
        self.out_channels = [out_size] * 4
        self.finest = nn.Sequential(
            build_doubling(size, middle_size),
            nn.BatchNorm2d(middle_size),
            nn.GELU(),
            build_doubling(middle_size, out_size),
        )
        self.fine = nn.Sequential(build_doubling(size, out_size))
        self.coarse: nn.Module = nn.Identity()
        self.coarsest: nn.Module = nn.MaxPool2d(kernel_size=2, stride=2)
        if has_wide_end:
            self.coarse = nn.Conv2d(size, out_size, kernel_size=1)
            self.coarsest = nn.Sequential(nn.Conv2d(config.output_size, out_size, kernel_size=3, stride=2, padding=1))

    def forward(self, feature_maps: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """The pyramid, finest map first.

        Args:
            feature_maps (`tuple` of four `torch.FloatTensor` of shape `(batch_size, hidden_size, rows, columns)`):
                outputs of blocks, shallow to deep; the last may have `pre_logits_dim` channels.

        Returns:
            `tuple` of four tensors with `out_channels` channels and 4, 2, 1 and 1/2 times the rows and columns.

        Raises:
            ValueError: If there are too few patches to halve.
        """
        rows, columns = feature_maps[-1].shape[2:]
        if rows < 2 or columns < 2:
            raise ValueError(
                f"`pixel_values` must give at least 2 x 2 patches for a feature pyramid; got {rows} x {columns}. "
                "Give larger images."
            )
        levels = (self.finest, self.fine, self.coarse, self.coarsest)
        return tuple(level(feature_map) for level, feature_map in zip(levels, feature_maps, strict=True))


__all__ = ["TinyMimFeaturePyramid"]
