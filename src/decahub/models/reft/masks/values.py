"""Checks of the values of masks."""

import torch

from ...shared.checks import can_look_at


def check_mask_values(masks: torch.Tensor, name: str) -> None:
    """Refuses masks whose values are no shares of a pixel."""
    if masks.dtype == torch.bool or not masks.numel() or not can_look_at(masks):
        return
    lowest, highest = float(masks.min()), float(masks.max())
    if not (lowest >= 0 and highest <= 1):
        raise ValueError(f"`{name}` must hold masks in [0, 1]; got values from {lowest:g} to {highest:g}.")


__all__ = ["check_mask_values"]
