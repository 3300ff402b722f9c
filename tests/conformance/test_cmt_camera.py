"""transformers' own suites over the camera branch of CMT: backbone and image processor."""

import unittest

import torch

from decahub import CmtImageProcessor, CmtVovNetBackbone
from tests.tiny.cmt_vovnet import tiny_vovnet_config

from .harness import BackboneConformance, ImageProcessorConformance, ModelConformance, OurSkip


BATCH_SIZE, HEIGHT, WIDTH = 3, 32, 48
ONE_FRAME = "It counts images along the first axis; the images of a list are the cameras of one frame."
FRAME_SHAPES = "tests/unit/cmt/test_image_processing.py::test_takes_images_of_any_kind"


class CmtVovNetInputs:
    def build_config(self):
        return tiny_vovnet_config(out_features=["stage1", "stage3", "stage4"])

    def build_inputs(self):
        return {"pixel_values": torch.randn(BATCH_SIZE, 3, HEIGHT, WIDTH)}


class CmtVovNetModelTest(CmtVovNetInputs, ModelConformance, unittest.TestCase):
    models = {"backbone": CmtVovNetBackbone}
    dimensions = {
        "batch_size": BATCH_SIZE,
        "num_hidden_layers": 2,  # blocks of a stage
        "expected_num_hidden_layers": 5,  # the maps of stem and stages
        "seq_length": HEIGHT // 4,  # rows of the stem's map
        "hidden_size": WIDTH // 4,  # columns of the stem's map
    }
    common_properties = ["num_channels", "depths", "hidden_sizes"]
    has_attentions = False
    skips = {
        "test_model_get_set_embeddings": OurSkip(
            "It wants an nn.Embedding; images enter through a convolution.",
            "tests/unit/cmt/test_vovnet.py::test_input_embeddings_are_the_stem",
        ),
        "test_retain_grad_hidden_states_attentions": OurSkip(
            "It wants a tensor as first output; a backbone returns a tuple of maps.",
            "tests/parity/test_cmt_camera.py::test_gradients",
        ),
    }


class CmtVovNetBackboneTest(CmtVovNetInputs, BackboneConformance, unittest.TestCase):
    backbone_class = CmtVovNetBackbone
    has_attentions = False


class CmtImageProcessorTest(ImageProcessorConformance, unittest.TestCase):
    processor_classes = {"torchvision": CmtImageProcessor}
    processor_arguments = {"size": {"height": 32, "width": 64}}
    skips = {
        name: OurSkip(ONE_FRAME, FRAME_SHAPES)
        for name in ("test_call_pil", "test_call_numpy", "test_call_pytorch", "test_call_numpy_4_channels")
    }
