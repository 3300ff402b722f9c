"""transformers' own suites over TinyMIM: models, pre-training, configuration, backbones, image processors."""

import unittest

import torch

from decahub import (
    TinyMimBackbone,
    TinyMimConfig,
    TinyMimForImageClassification,
    TinyMimForPreTraining,
    TinyMimForSemanticSegmentation,
    TinyMimImageProcessor,
    TinyMimImageProcessorPil,
    TinyMimModel,
)

from .harness import (
    BackboneConformance,
    ImageProcessorConformance,
    ModelConformance,
    OurSkip,
    SegmentationPostProcessConformance,
)


OURS = "tests/unit/tinymim/test_suites.py"
BATCH_SIZE, IMAGE_SIZE, PATCH_SIZE = 3, 32, 8
NUM_TOKENS = 1 + (IMAGE_SIZE // PATCH_SIZE) ** 2
HIDDEN_SIZE, NUM_HEADS, TARGET_HEADS, DEPTH = 24, 2, 3, 2


class TinyMimInputs:
    fields: dict = {}

    def build_config(self):
        return TinyMimConfig(
            image_size=IMAGE_SIZE,
            patch_size=PATCH_SIZE,
            hidden_size=HIDDEN_SIZE,
            num_hidden_layers=DEPTH,
            num_attention_heads=NUM_HEADS,
            intermediate_size=48,
            decode_hidden_size=6,
            auxiliary_hidden_size=5,
            num_labels=7,
            **self.fields,
        )

    def build_inputs(self):
        return {"pixel_values": torch.randn(BATCH_SIZE, 3, IMAGE_SIZE, IMAGE_SIZE)}


class TinyMimConformance(TinyMimInputs, ModelConformance):
    dimensions = {
        "batch_size": BATCH_SIZE,
        "num_hidden_layers": DEPTH,
        "num_attention_heads": NUM_HEADS,
        "seq_length": NUM_TOKENS,
        "hidden_size": HIDDEN_SIZE,
    }
    common_properties = ["num_channels", "hidden_size", "num_hidden_layers", "num_attention_heads"]
    skips = {
        "test_model_get_set_embeddings": OurSkip(
            "It wants an nn.Embedding; images enter through a convolution.",
            f"{OURS}::test_input_embeddings_are_the_patches",
        ),
        "test_can_load_ignoring_mismatched_shapes": OurSkip(
            "It sets everything called `..._std` to a number; `teacher_image_std` is a list.",
            f"{OURS}::test_head_of_another_size_starts_anew_on_request",
        ),
    }


class TinyMimModelTest(TinyMimConformance, unittest.TestCase):
    models = {
        "base": TinyMimModel,
        "backbone": TinyMimBackbone,
        "image-classification": TinyMimForImageClassification,
        "semantic-segmentation": TinyMimForSemanticSegmentation,
    }


class TinyMimSegmentationFormTest(TinyMimConformance, unittest.TestCase):
    """With what the authors add for segmentation and in TinyMIM*-T."""

    models = TinyMimModelTest.models
    dimensions = {**TinyMimConformance.dimensions, "seq_length": NUM_TOKENS + 1}
    fields = {
        "use_relative_position_bias": True,
        "layer_scale_init_value": 1.0,
        "use_distillation_token": True,
        "pre_logits_dim": 40,
    }


class TinyMimPreTrainingTest(TinyMimConformance, unittest.TestCase):
    """With targets that are handed in, in place of a teacher."""

    models = {"base": TinyMimModel, "pretraining": TinyMimForPreTraining}
    fields = {"teacher_hidden_size": 30, "teacher_num_attention_heads": TARGET_HEADS}
    skips = {
        **TinyMimConformance.skips,
        "test_batching_equivalence": OurSkip(
            "It wants the outputs of a batch row by row; losses are means over the batch.",
            f"{OURS}::test_loss_of_a_batch_is_the_mean_of_its_images",
        ),
        **dict.fromkeys(
            (
                "test_training_gradient_checkpointing",
                "test_training_gradient_checkpointing_use_reentrant_false",
                "test_training_gradient_checkpointing_use_reentrant_true",
                "test_enable_input_require_grads_with_gradient_checkpointing",
            ),
            OurSkip(
                "It wants a gradient everywhere; what follows the projections of the last block has none.",
                f"{OURS}::test_gradient_checkpointing_changes_no_gradient_of_a_student",
            ),
        ),
    }

    def prepare_inputs(self, model_class, inputs):
        if not issubclass(model_class, TinyMimForPreTraining):
            return inputs
        shape = (len(inputs["pixel_values"]), 2, TARGET_HEADS, NUM_TOKENS, NUM_TOKENS)
        generator = torch.Generator().manual_seed(0)
        return {**inputs, "teacher_relations": torch.randn(shape, generator=generator).softmax(-1)}


class TinyMimBackboneTest(TinyMimInputs, BackboneConformance, unittest.TestCase):
    backbone_class = TinyMimBackbone


class TinyMimWideBackboneTest(TinyMimInputs, BackboneConformance, unittest.TestCase):
    """With the last map wider than the others."""

    backbone_class = TinyMimBackbone
    fields = {"use_distillation_token": True, "pre_logits_dim": 40}


class TinyMimImageProcessorTest(ImageProcessorConformance, SegmentationPostProcessConformance, unittest.TestCase):
    processor_classes = {"torchvision": TinyMimImageProcessor, "pil": TinyMimImageProcessorPil}
    processor_arguments = {"size": {"shortest_edge": 24}, "crop_size": {"height": 18, "width": 20}}
