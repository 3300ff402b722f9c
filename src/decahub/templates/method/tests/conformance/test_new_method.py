"""transformers' own suites over NewMethod: models, configuration, image processors."""

import unittest

import torch

from decahub import (
    NewMethodForImageClassification,
    NewMethodImageProcessor,
    NewMethodImageProcessorPil,
    NewMethodModel,
)
from tests.tiny.new_method import tiny_config

from .harness import ImageProcessorConformance, ModelConformance, OurSkip


BATCH_SIZE = 3


class NewMethodModelTest(ModelConformance, unittest.TestCase):
    models = {"base": NewMethodModel, "image-classification": NewMethodForImageClassification}
    dimensions = {
        "batch_size": BATCH_SIZE,
        "num_hidden_layers": 2,
        "num_attention_heads": 5,
        "seq_length": 9,
        "hidden_size": 20,
    }
    common_properties = ["num_channels", "hidden_size", "num_hidden_layers", "num_attention_heads"]
    skips = {
        "test_model_get_set_embeddings": OurSkip(
            "It wants an nn.Embedding; images enter through a convolution.",
            "tests/unit/new_method/test_modeling.py::test_input_embeddings_are_the_patches",
        ),
    }

    def build_config(self):
        return tiny_config()

    def build_inputs(self):
        return {"pixel_values": torch.randn(BATCH_SIZE, 3, 12, 12)}


class NewMethodImageProcessorTest(ImageProcessorConformance, unittest.TestCase):
    processor_classes = {"torchvision": NewMethodImageProcessor, "pil": NewMethodImageProcessorPil}
    processor_arguments = {"size": {"height": 18, "width": 20}}
