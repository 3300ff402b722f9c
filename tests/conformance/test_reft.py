"""transformers' own suites over RefT: models, configuration, image processor, processor."""

import unittest

import torch

from decahub import RefTForFewShotInstanceSegmentation, RefTImageProcessor, RefTModel, RefTProcessor
from tests.tiny.reft import NUM_QUERIES, tiny_config, tiny_labels, tiny_support

from .harness import ImageProcessorConformance, ModelConformance, OurSkip, ProcessorConformance


BATCH_SIZE, SIZE = 2, 64


class RefTModelTest(ModelConformance, unittest.TestCase):
    models = {"base": RefTModel, "few-shot-instance-segmentation": RefTForFewShotInstanceSegmentation}
    dimensions = {
        "batch_size": BATCH_SIZE,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "seq_length": NUM_QUERIES,
    }
    common_properties = ["hidden_size", "num_hidden_layers", "num_attention_heads"]
    has_attentions = False
    skips = {
        "test_model_get_set_embeddings": OurSkip(
            "It wants an nn.Embedding; images enter through a backbone.",
            "tests/unit/reft/test_modeling.py::test_input_embeddings_are_the_pixel_level_module",
        ),
        "test_model_outputs_equivalence": OurSkip(
            "It compares two losses without seeding the points that they draw.",
            "tests/unit/reft/test_modeling.py::test_return_dict_false_is_a_tuple_with_the_loss_first",
        ),
        **dict.fromkeys(
            ("test_hidden_states_output", "test_retain_grad_hidden_states_attentions"),
            OurSkip(
                "It wants one tuple of hidden states; there is one for each part, as in Mask2Former.",
                "tests/unit/reft/test_modeling.py::test_shapes_of_outputs",
            ),
        ),
        **dict.fromkeys(
            (
                "test_training_gradient_checkpointing",
                "test_training_gradient_checkpointing_use_reentrant_false",
                "test_training_gradient_checkpointing_use_reentrant_true",
            ),
            OurSkip(
                "It replaces `forward` of a layer by a mock for one call; layers run for the support and for images.",
                "tests/unit/reft/test_modeling.py::test_activation_checkpointing_gives_the_same_gradients",
            ),
        ),
    }

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
    processor_arguments = {"size": {"height": 32, "width": 64}}
    skips = {
        "test_post_process_test_mixin_inheritance": OurSkip(
            "The method for whole classes is inherited from Mask2Former and reads object queries.",
            "tests/unit/reft/test_post_processing.py::test_parity_mode_is_transformers",
        ),
    }


class RefTProcessorTest(ProcessorConformance, unittest.TestCase):
    processor_class = RefTProcessor
    parts = {"image_processor": lambda: RefTImageProcessor(size={"shortest_edge": 32, "longest_edge": 64})}
    skips = {
        "test_args_overlap_kwargs": OurSkip(
            "It saves an attribute that is no option of the image processor, which refuses it.",
            "tests/unit/reft/test_processing.py::test_files_keep_the_processor",
        ),
    }
