"""transformers' own suites over RefT: models, configuration, image processor, processor."""

import unittest

import torch

from decahub import RefTForFewShotInstanceSegmentation, RefTImageProcessor, RefTModel, RefTProcessor
from tests.tiny.reft import NUM_QUERIES, tiny_config, tiny_labels, tiny_support

from .harness import ImageProcessorConformance, ModelConformance, ProcessorConformance


BATCH_SIZE, SIZE = 2, 64


class RefTModelTest(ModelConformance, unittest.TestCase):
    models = {"base": RefTModel, "few-shot-instance-segmentation": RefTForFewShotInstanceSegmentation}
    dimensions = {
        "batch_size": BATCH_SIZE,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "seq_length": NUM_QUERIES,
    }
    common_properties = ["hidden_size", "num_hidden_layers", "num_attention_heads"]
    has_attentions = False

    def build_config(self):
        return tiny_config()

    def build_inputs(self):
        return {"pixel_values": torch.randn(BATCH_SIZE, 3, SIZE, SIZE), **tiny_support(2, 1, batch_size=BATCH_SIZE)}

    def build_labels(self, task, inputs):
        if task == "base":
            return {}
        labels = tiny_labels((2, 1))
        return {**labels, "mask_labels": [masks[:, :SIZE, :SIZE] for masks in labels["mask_labels"]]}


class RefTImageProcessorTest(ImageProcessorConformance, unittest.TestCase):
    processor_classes = {"torchvision": RefTImageProcessor}
    processor_arguments = {"size": {"shortest_edge": 32, "longest_edge": 64}}


class RefTProcessorTest(ProcessorConformance, unittest.TestCase):
    processor_class = RefTProcessor
    parts = {"image_processor": lambda: RefTImageProcessor(size={"shortest_edge": 32, "longest_edge": 64})}
