"""The image processor of EMO on PIL, which gives the authors' pixels to the last bit of the resize."""

from transformers.image_processing_backends import PilBackend

from .image_processing_emo import EmoImageProcessing, EmoImageProcessorKwargs


class EmoImageProcessorPil(EmoImageProcessing, PilBackend):
    """Image processor of EMO on PIL; see [`EmoImageProcessing.preprocess`]."""

    valid_kwargs = EmoImageProcessorKwargs


__all__ = ["EmoImageProcessorPil"]
