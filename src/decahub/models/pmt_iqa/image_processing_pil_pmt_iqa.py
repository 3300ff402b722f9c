"""The image processor of PMT-IQA on PIL; it differs from the other one only where an image is resized."""

from transformers.image_processing_backends import PilBackend

from .image_processing_pmt_iqa import PmtIqaImageProcessing, PmtIqaImageProcessorKwargs


class PmtIqaImageProcessorPil(PmtIqaImageProcessing, PilBackend):
    """Image processor of PMT-IQA on PIL."""


__all__ = ["PmtIqaImageProcessorKwargs", "PmtIqaImageProcessorPil"]
