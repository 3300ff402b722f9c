"""transformers' own suites over CMT: models of one sensor and of both, and their configuration."""

import unittest

from decahub import CmtForObjectDetection3D, CmtModel
from tests.tiny.cmt import tiny_config, tiny_inputs, tiny_labels

from .harness import ModelConformance, OurSkip


OURS = "tests/unit/cmt/test_modeling.py"
BATCH_SIZE, NUM_QUERIES, HIDDEN_SIZE, NUM_HEADS, DEPTH = 2, 20, 32, 4, 2
SDPA_TESTS = [name for name in dir(ModelConformance) if name.startswith("test_eager_matches_sdpa_inference")]


class CmtConformance(ModelConformance):
    models = {"base": CmtModel, "object-detection-3d": CmtForObjectDetection3D}
    modality = "fusion"
    dimensions = {
        "batch_size": BATCH_SIZE,
        "num_hidden_layers": DEPTH,
        "num_attention_heads": NUM_HEADS,
        "seq_length": NUM_QUERIES,
        "hidden_size": HIDDEN_SIZE,
    }
    common_properties = ["hidden_size", "num_hidden_layers", "num_attention_heads"]
    skips = {
        "test_batching_equivalence": OurSkip(
            "It wants the batch to be the first axis of outputs, and samples to be rows of inputs; layers come first "
            "here, and voxels of all samples are in one tensor.",
            f"{OURS}::test_samples_do_not_depend_on_their_batch",
        ),
        "test_retain_grad_hidden_states_attentions": OurSkip(
            "It wants a gradient of the first hidden state; the content of queries starts at a constant zero.",
            f"{OURS}::test_hidden_states_and_attentions_on_request",
        ),
        **dict.fromkeys(
            SDPA_TESTS,
            OurSkip(
                "It gives a model its main input only; images need projections, and voxels their places.",
                f"{OURS}::test_implementations_of_attention_agree",
            ),
        ),
    }

    def build_config(self):
        return tiny_config(self.modality, attention_dropout=0.0, hidden_dropout=0.0)

    def build_inputs(self):
        return tiny_inputs(self.build_config(), BATCH_SIZE)

    def build_labels(self, task, inputs):
        return {} if task == "base" else {"labels": tiny_labels(self.build_config(), (3,) * BATCH_SIZE)}


class CmtFusionTest(CmtConformance, unittest.TestCase):
    """Cameras and LiDAR."""


class CmtCameraTest(CmtConformance, unittest.TestCase):
    """Cameras only."""

    modality = "camera"


class CmtLidarTest(CmtConformance, unittest.TestCase):
    """LiDAR only."""

    modality = "lidar"
