"""The image processor of EMO on PIL, which gives the authors' pixels to the last bit of the resize."""

from transformers.image_processing_backends import PilBackend

from ..shared.image_processing import ImageProcessing
from ..shared.image_processing import ImageProcessingKwargs as EmoImageProcessorKwargs


class EmoImageProcessorPil(ImageProcessing, PilBackend):
    """Image processor of EMO on PIL: the authors' evaluation transform for 224 pixels."""

    size = {"shortest_edge": 256}
    crop_size = {"height": 224, "width": 224}


__all__ = ["EmoImageProcessorPil", "EmoImageProcessorKwargs"]
