"""The neck of the camera branch: a feature pyramid of two levels, "CPFPN" in the authors' code."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional
from transformers import initialization as init


class CmtImageNeck(nn.Module):
    r"""Adds the coarse map to the fine one.

    With lateral 1x1 convolutions $l_4, l_5$: $p_5 = l_5(c_5)$ and $p_4 = \mathrm{conv}_{3 \times 3}(l_4(c_4) +
    \mathrm{up}(p_5))$. There is no norm and no activation; the coarse level has no 3x3 convolution.

    Args:
        in_sizes (`Sequence[int]`): Channels of `c4` and `c5`.
        out_size (`int`): Channels of both outputs.
    """

    def __init__(self, in_sizes: Sequence[int], out_size: int):
        super().__init__()
        self.lateral_convolutions = nn.ModuleList(nn.Conv2d(in_size, out_size, 1) for in_size in in_sizes)
        self.output_convolution = nn.Conv2d(out_size, out_size, 3, padding=1)

    @torch.no_grad()
    def init_weights(self) -> None:
        """Xavier uniform weights, as the authors start; biases are 0."""
        for convolution in (*self.lateral_convolutions, self.output_convolution):
            init.xavier_uniform_(convolution.weight)
            init.zeros_(convolution.bias)

    def forward(self, feature_maps: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Levels of stride 16 and 32.

        Args:
            feature_maps (`Sequence[torch.FloatTensor]`): `c4` and `c5`, each of shape `(batch_size, channels, height,
                width)`; `c5` has about half the height and width of `c4`.

        Returns:
            Two tensors of the same heights and widths with `out_size` channels.
        """
        fine, coarse = (
            convolution(feature_map)
            for convolution, feature_map in zip(self.lateral_convolutions, feature_maps, strict=True)
        )
        fine = fine + functional.interpolate(coarse, size=fine.shape[-2:], mode="nearest")
        return self.output_convolution(fine), coarse


__all__ = ["CmtImageNeck"]
