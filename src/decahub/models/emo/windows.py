"""Cutting maps into attention windows and putting them together again (paper, section 3.2: EW-MHSA)."""

from dataclasses import dataclass

import torch
from torch.nn import functional


@dataclass(frozen=True)
class EmoWindows:
    """How a map is cut: `rows x columns` windows of `window_height x window_width` pixels for each image.

    A `"grid"` window takes every `rows`-th row and `columns`-th column, so each reaches over the whole map, as in the
    authors' code; a `"tile"` is contiguous. Maps are completed with zeros below and to the right.
    """

    batch_size: int
    height: int
    width: int
    window_height: int
    window_width: int
    mode: str

    @classmethod
    def of(cls, hidden_states: torch.Tensor, window_size: int, mode: str) -> "EmoWindows":
        """Windows of side `window_size` for a map; 0 or less gives one window that is the map."""
        batch_size, _, height, width = hidden_states.shape
        window_height, window_width = (height, width) if window_size <= 0 else (window_size, window_size)
        return cls(batch_size, height, width, window_height, window_width, mode)

    @property
    def rows(self) -> int:
        return -(-self.height // self.window_height)

    @property
    def columns(self) -> int:
        return -(-self.width // self.window_width)

    @property
    def padded_height(self) -> int:
        return self.rows * self.window_height

    @property
    def padded_width(self) -> int:
        return self.columns * self.window_width

    @property
    def has_padding(self) -> bool:
        return self.padded_height != self.height or self.padded_width != self.width

    def split(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Windows of a map.

        Args:
            hidden_states (`torch.Tensor` of shape `(batch_size, channels, height, width)`): the map.

        Returns:
            `torch.Tensor` of shape `(batch_size * rows * columns, channels, window_height, window_width)`.
        """
        batch_size, channels, rows, columns = self.batch_size, hidden_states.shape[1], self.rows, self.columns
        hidden_states = hidden_states.permute(0, 2, 3, 1)
        if self.has_padding:
            padding = (0, 0, 0, self.padded_width - self.width, 0, self.padded_height - self.height)
            hidden_states = functional.pad(hidden_states, padding)
        if self.mode == "grid":
            windows = hidden_states.reshape(batch_size, self.window_height, rows, self.window_width, columns, channels)
            windows = windows.permute(0, 2, 4, 1, 3, 5)
        else:
            windows = hidden_states.reshape(batch_size, rows, self.window_height, columns, self.window_width, channels)
            windows = windows.permute(0, 1, 3, 2, 4, 5)
        windows = windows.reshape(batch_size * rows * columns, self.window_height, self.window_width, channels)
        return windows.permute(0, 3, 1, 2)

    def merge(self, windows: torch.Tensor) -> torch.Tensor:
        """Inverse of `split`; the padding is cut off."""
        batch_size, channels = self.batch_size, windows.shape[1]
        windows = windows.permute(0, 2, 3, 1).reshape(
            batch_size, self.rows, self.columns, self.window_height, self.window_width, channels
        )
        order = (0, 3, 1, 4, 2, 5) if self.mode == "grid" else (0, 1, 3, 2, 4, 5)
        merged = windows.permute(*order).reshape(batch_size, self.padded_height, self.padded_width, channels)
        if self.has_padding:
            merged = merged[:, : self.height, : self.width]
        return merged.permute(0, 3, 1, 2)

    def build_padding_mask(self, like: torch.Tensor) -> torch.Tensor | None:
        """What to add to attention scores so that padding is not attended to.

        Args:
            like (`torch.Tensor`): gives type and device.

        Returns:
            `torch.Tensor` of shape `(batch_size * rows * columns, 1, 1, window_height * window_width)`, or None if
            there is no padding.
        """
        if not self.has_padding:
            return None
        is_real = self.split(like.new_ones(self.batch_size, 1, self.height, self.width)).flatten(1) > 0
        mask = like.new_zeros(is_real.shape).masked_fill(~is_real, torch.finfo(like.dtype).min)
        return mask[:, None, None, :]
