"""Shots of a class as a user gives them -> normalized crops and their masks."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers.utils import logging

from ..configuration_reft import RefTConfig
from ..masks.values import check_mask_values


logger = logging.get_logger(__name__)

Shots = Sequence[tuple[Any, Any]] | tuple[torch.Tensor, torch.Tensor]
"""Pairs of an image and its instance, or normalized crops and their masks."""


def read_shots(name: str, shots: Shots, processor: Any, config: RefTConfig) -> tuple[torch.Tensor, torch.Tensor]:
    """Crops `(num_shots, 3, height, width)` and masks `(num_shots, height, width)` of the valid shots of a class.

    Args:
        name (`str`): class, for messages.
        shots (`Shots`): as [`RefTForFewShotInstanceSegmentation.register_support`] takes them.
        processor: image processor, or a processor that has one; by default that of the configuration.
        config ([`RefTConfig`]): of the model.

    Raises:
        ValueError: If shapes do not fit, or no shot is valid.
    """
    if len(shots) == 0:
        raise ValueError(f"`support` must hold at least one shot of each class; {name!r} has none.")
    if isinstance(shots, tuple) and len(shots) == 2 and all(isinstance(part, torch.Tensor) for part in shots):
        pixel_values, masks = shots
        if pixel_values.ndim != 4 or masks.shape != (len(pixel_values), *pixel_values.shape[-2:]):
            raise ValueError(
                f"`support` must hold crops (num_shots, 3, height, width) and masks (num_shots, height, width); "
                f"{name!r} has {tuple(pixel_values.shape)} and {tuple(masks.shape)}."
            )
    else:
        from ..image_processing_reft import RefTImageProcessor

        if processor is None:
            processor = RefTImageProcessor(support_size=config.support_size, support_context=config.support_context)
        processor = getattr(processor, "image_processor", processor)
        for option in ("support_size", "support_context"):
            own, configured = getattr(processor, option, None), getattr(config, option)
            if own != configured:
                logger.warning_once(
                    f"`{option}` of the processor is {own}, that of the configuration {configured}; the processor's "
                    "counts. Give both the same value: memories are compared by the configuration."
                )
        images, instances = split_pairs(name, shots)
        try:
            encoded = processor.preprocess_support(images, instances, return_tensors="pt")
        except (TypeError, ValueError) as error:
            raise type(error)(f"Support of {name!r}: {error}") from error
        pixel_values, masks = encoded["support_pixel_values"], encoded["support_masks"]
    check_mask_values(masks, "support")
    valid = (masks != 0).flatten(1).any(1)
    if not valid.any():
        raise ValueError(f"`support` must hold at least one shot with a mask for each class; {name!r} has none.")
    if not valid.all():
        logger.warning(f"{int((~valid).sum())} of {len(valid)} shots of {name!r} have an empty mask and are left out.")
    return pixel_values[valid], masks[valid].to(pixel_values.dtype)


def split_pairs(name: str, shots: Sequence[tuple[Any, Any]]) -> tuple[list[Any], list[Any]]:
    """Images and instances of the shots of a class.

    Raises:
        ValueError: If a shot is not a pair.
    """
    for place, shot in enumerate(shots):
        if not isinstance(shot, (tuple, list)) or len(shot) != 2:
            given = f"{len(shot)} entries" if isinstance(shot, (tuple, list)) else type(shot).__name__
            raise ValueError(
                f"`support` must hold a list of pairs (image, instance) for each class; shot {place} of {name!r} is "
                f"{given}."
            )
    return [image for image, _ in shots], [instance for _, instance in shots]


__all__ = ["Shots", "read_shots", "split_pairs"]
