"""The image processor of TinyMIM on torchvision.

Its bicubic filter differs from the authors' by up to one gray level.
"""

from transformers.image_processing_backends import TorchvisionBackend

from ..shared.image_processing import ImageProcessing
from ..shared.image_processing import ImageProcessingKwargs as TinyMimImageProcessorKwargs


class TinyMimImageProcessor(ImageProcessing, TorchvisionBackend):
    """Image processor of TinyMIM on torchvision: the authors' evaluation transform for 224 pixels."""

    size = {"shortest_edge": 256}
    crop_size = {"height": 224, "width": 224}


__all__ = ["TinyMimImageProcessor", "TinyMimImageProcessorKwargs"]
