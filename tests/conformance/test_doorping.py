"""transformers' own suites over the networks of the distillers: models, configurations, image processors."""

import unittest

import torch

from decahub import (
    AlexNetConfig,
    AlexNetForImageClassification,
    ConvNetConfig,
    ConvNetForImageClassification,
    DoorpingImageProcessor,
    DoorpingImageProcessorPil,
    TransferNetConfig,
    TransferNetForImageClassification,
)

from .harness import ImageProcessorConformance, ModelConformance, OurSkip


BATCH_SIZE, IMAGE_SIZE, NUM_BLOCKS = 3, 24, 2
SKIPS = {
    "test_model_get_set_embeddings": OurSkip(
        "It wants an nn.Embedding; images enter through a convolution.",
        "tests/unit/doorping/test_networks.py::test_input_embeddings_are_the_first_convolution",
    ),
    "test_can_load_ignoring_mismatched_shapes": OurSkip(
        "It looks for the classifier in the first nn.Sequential, which holds the features.",
        "tests/unit/doorping/test_networks.py::test_loads_with_another_number_of_classes",
    ),
}
IS_LARGE = {
    "test_model_is_small": OurSkip(
        "The authors' network has one size.",
        "tests/unit/doorping/test_networks.py::test_number_of_parameters",
    ),
}


class ConvNetModelTest(ModelConformance, unittest.TestCase):
    models = {"image-classification": ConvNetForImageClassification}
    has_attentions = False
    dimensions = {
        "batch_size": BATCH_SIZE,
        "num_hidden_layers": NUM_BLOCKS,
        "expected_num_hidden_layers": NUM_BLOCKS,
        "seq_length": IMAGE_SIZE // 2,  # rows, and columns, of the first block's map
        "hidden_size": IMAGE_SIZE // 2,
    }
    common_properties = ["num_channels", "hidden_size", "num_hidden_layers"]
    skips = SKIPS

    def build_config(self):
        return ConvNetConfig(
            image_size=IMAGE_SIZE,
            hidden_size=8,
            num_hidden_layers=NUM_BLOCKS,
            norm_type="instance",
            classifier_hidden_size=10,
            num_labels=7,
        )

    def build_inputs(self):
        return {"pixel_values": torch.randn(BATCH_SIZE, 3, IMAGE_SIZE, IMAGE_SIZE)}


class AlexNetModelTest(ModelConformance, unittest.TestCase):
    models = {"image-classification": AlexNetForImageClassification}
    has_attentions = False
    dimensions = {
        "batch_size": BATCH_SIZE,
        "num_hidden_layers": 2,
        "expected_num_hidden_layers": 2,
        "seq_length": 16,
        "hidden_size": 16,
    }
    common_properties = ["num_channels", "image_size"]
    skips = SKIPS | IS_LARGE

    def build_config(self):
        return AlexNetConfig(num_labels=7)

    def build_inputs(self):
        return {"pixel_values": torch.randn(BATCH_SIZE, 3, 32, 32)}


class DoorpingImageProcessorTest(ImageProcessorConformance, unittest.TestCase):
    processor_classes = {"torchvision": DoorpingImageProcessor, "pil": DoorpingImageProcessorPil}
    processor_arguments = {"size": {"height": 18, "width": 20}}


class TransferNetModelTest(ModelConformance, unittest.TestCase):
    models = {"image-classification": TransferNetForImageClassification}
    has_attentions = False
    dimensions = {
        "batch_size": BATCH_SIZE,
        "num_hidden_layers": NUM_BLOCKS,
        "expected_num_hidden_layers": 5,
        "seq_length": 16,
        "hidden_size": 16,
    }
    common_properties = ["num_channels", "image_size"]
    skips = SKIPS | IS_LARGE

    def build_config(self):
        return TransferNetConfig(architecture="vgg11", num_labels=7)

    def build_inputs(self):
        return {"pixel_values": torch.randn(BATCH_SIZE, 3, 32, 32)}
