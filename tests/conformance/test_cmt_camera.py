"""transformers' own suites over the camera branch of CMT: backbone and image processor."""

import unittest

import torch

from decahub import CmtImageProcessor, CmtPointCloudFeatureExtractor, CmtProcessor, CmtVovNetBackbone
from tests.tiny.cmt_vovnet import tiny_vovnet_config

from .harness import BackboneConformance, ImageProcessorConformance, ModelConformance, OurSkip, ProcessorConformance


BATCH_SIZE, HEIGHT, WIDTH = 3, 32, 48
NO_AUDIO = "It takes any feature extractor for one of sounds; this one takes points."
UNCALIBRATED = "It gives images without a calibration, which no model could use."
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


class CmtProcessorTest(ProcessorConformance, unittest.TestCase):
    processor_class = CmtProcessor
    parts = {
        "image_processor": lambda: CmtImageProcessor(size={"height": 32, "width": 64}),
        "feature_extractor": lambda: CmtPointCloudFeatureExtractor(voxel_size=[1.5, 2.0, 0.2], sparse_shape=None),
    }
    skips = {
        "test_subprocessor_defaults_3_audio": OurSkip(
            NO_AUDIO, "tests/unit/cmt/test_processing.py::test_frames_of_a_batch_are_those_prepared_alone"
        ),
        "test_processor_with_multiple_inputs": OurSkip(
            NO_AUDIO, "tests/unit/cmt/test_processing.py::test_prepares_both_sensors"
        ),
        "test_model_input_names": OurSkip(
            UNCALIBRATED, "tests/unit/cmt/test_processing.py::test_prepares_both_sensors"
        ),
        "test_flat_kwarg_applied_when_modality_dict_lacks_it": OurSkip(
            UNCALIBRATED, "tests/unit/cmt/test_processing.py::test_flat_options_join_those_of_images"
        ),
        "test_args_overlap_kwargs": OurSkip(
            "It saves an option that does not exist, which is refused at loading.",
            "tests/unit/cmt/test_processing.py::test_part_given_at_loading_wins",
        ),
    }
