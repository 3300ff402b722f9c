"""The image processor of DoorPing on PIL, whose resizing is the authors'."""

from transformers.image_processing_backends import PilBackend

from .image_processing_doorping import DoorpingImageProcessing, DoorpingImageProcessorKwargs


class DoorpingImageProcessorPil(DoorpingImageProcessing, PilBackend):
    """Image processor of DoorPing on PIL."""


__all__ = ["DoorpingImageProcessorKwargs", "DoorpingImageProcessorPil"]
