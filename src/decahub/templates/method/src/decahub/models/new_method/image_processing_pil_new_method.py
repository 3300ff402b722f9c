"""The image processor of NewMethod on PIL."""

from transformers.image_processing_backends import PilBackend

from .image_processing_new_method import NewMethodImageProcessing


class NewMethodImageProcessorPil(NewMethodImageProcessing, PilBackend):
    """Image processor of NewMethod on PIL."""


__all__ = ["NewMethodImageProcessorPil"]
