"""transformers' own suites over EMO: models, configuration, backbone, image processors."""

import unittest

import torch

from decahub import (
    EmoBackbone,
    EmoConfig,
    EmoForImageClassification,
    EmoForSemanticSegmentation,
    EmoImageProcessor,
    EmoImageProcessorPil,
    EmoModel,
)

from .harness import (
    BackboneConformance,
    ImageProcessorConformance,
    ModelConformance,
    OurSkip,
    SegmentationPostProcessConformance,
)


BATCH_SIZE, HEIGHT, WIDTH = 3, 32, 48


class EmoInputs:
    def build_config(self):
        return EmoConfig(
            stem_hidden_size=10,
            depths=[1, 1, 2, 2],
            hidden_sizes=[8, 12, 16, 24],
            head_dims=[8, 12, 8, 8],
            window_sizes=[4, 4, 4, 4],
            decode_hidden_size=6,
            auxiliary_hidden_size=5,
            out_features=["stage1", "stage3", "stage4"],
            num_labels=7,
        )

    def build_inputs(self):
        return {"pixel_values": torch.randn(BATCH_SIZE, 3, HEIGHT, WIDTH)}


class EmoModelTest(EmoInputs, ModelConformance, unittest.TestCase):
    models = {
        "base": EmoModel,
        "backbone": EmoBackbone,
        "image-classification": EmoForImageClassification,
        "semantic-segmentation": EmoForSemanticSegmentation,
    }
    dimensions = {
        "batch_size": BATCH_SIZE,
        "num_hidden_layers": 2,  # attending blocks, each of which returns an attention map ...
        "num_attention_heads": 2,
        "expected_num_hidden_layers": 5,  # ... while hidden states are the maps of stem and stages
        "seq_length": 16,  # rows of the stem's map, and pixels of an attention window
        "hidden_size": WIDTH // 2,  # columns of the stem's map
    }
    common_properties = ["num_channels", "depths", "hidden_sizes", "num_hidden_layers"]
    skips = {
        "test_model_get_set_embeddings": OurSkip(
            "It wants an nn.Embedding; images enter through a convolution.",
            "tests/unit/emo/test_modeling.py::test_input_embeddings_are_the_stem",
        ),
    }


class EmoBackboneTest(EmoInputs, BackboneConformance, unittest.TestCase):
    backbone_class = EmoBackbone


class EmoImageProcessorTest(ImageProcessorConformance, SegmentationPostProcessConformance, unittest.TestCase):
    processor_classes = {"torchvision": EmoImageProcessor, "pil": EmoImageProcessorPil}
    processor_arguments = {"size": {"shortest_edge": 24}, "crop_size": {"height": 18, "width": 20}}
