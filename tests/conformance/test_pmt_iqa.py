"""transformers' own suites over PMT-IQA: models, configuration, image processors."""

import unittest

import torch

from decahub import PmtIqaForImageQualityAssessment, PmtIqaImageProcessor, PmtIqaImageProcessorPil, PmtIqaModel
from tests.tiny.pmt_iqa import CROP_SIZE, tiny_config

from .harness import ImageProcessorConformance, ModelConformance, OurSkip


BATCH_SIZE = 3


class PmtIqaModelTest(ModelConformance, unittest.TestCase):
    models = {"base": PmtIqaModel, "image-quality-assessment": PmtIqaForImageQualityAssessment}
    dimensions = {
        "batch_size": BATCH_SIZE,
        "num_hidden_layers": 2,
        "num_attention_heads": 1,
        "expected_num_hidden_layers": 4,  # the maps of the backbone
        "seq_length": CROP_SIZE // 4,  # rows and columns of the finest of them
        "hidden_size": CROP_SIZE // 4,
    }
    common_properties = ["crop_size", "num_levels", "num_hidden_layers"]
    has_attentions = False
    skips = {
        "test_model_get_set_embeddings": OurSkip(
            "It wants an nn.Embedding; images enter through a backbone.",
            "tests/unit/pmt_iqa/test_modeling.py::test_input_embeddings_are_the_backbone",
        ),
    }

    def build_config(self):
        return tiny_config()

    def build_inputs(self):
        return {"pixel_values": torch.randn(BATCH_SIZE, 3, CROP_SIZE, CROP_SIZE)}

    def build_labels(self, task, inputs):
        return {"labels": torch.tensor([12.5, 70.0, 99.0])} if task != "base" else {}


class PmtIqaImageProcessorTest(ImageProcessorConformance, unittest.TestCase):
    processor_classes = {"torchvision": PmtIqaImageProcessor, "pil": PmtIqaImageProcessorPil}
    processor_arguments = {"crop_size": {"height": 18, "width": 18}, "num_crops": 4, "crop_strategy": "random"}

    def setUp(self):
        super().setUp()
        # Crops of images of 20 to 40 pixels; random ones have one number for images of any size.
        tester = self.image_processor_tester
        tester.expected_output_image_shape = lambda images: (4, tester.num_channels, 18, 18)
