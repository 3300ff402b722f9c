"""The image processor of TinyMIM on PIL, which gives the authors' pixels to the last bit of the resize."""

from transformers.image_processing_backends import PilBackend

from .image_processing_tinymim import TinyMimImageProcessing, TinyMimImageProcessorKwargs


class TinyMimImageProcessorPil(TinyMimImageProcessing, PilBackend):
    """Image processor of TinyMIM on PIL; see [`TinyMimImageProcessing.preprocess`]."""

    valid_kwargs = TinyMimImageProcessorKwargs


__all__ = ["TinyMimImageProcessorPil"]
