"""transformers' own suites over CMT: models of one sensor and of both, and their configuration."""

import unittest

from decahub import CmtForObjectDetection3D, CmtModel
from tests.tiny.cmt import tiny_config, tiny_inputs, tiny_labels

from .harness import ModelConformance, OurSkip


OURS = "tests/unit/cmt/test_modeling.py"
BATCH_SIZE, NUM_QUERIES, HIDDEN_SIZE, NUM_HEADS, DEPTH = 2, 20, 32, 4, 2
VOXELS_ARE_NOT_ROWS = OurSkip(
    "It takes the first rows of every input; voxels of all samples are in one tensor.",
    f"{OURS}::test_samples_do_not_depend_on_their_batch",
)
LAYERS_COME_FIRST = OurSkip(
    "It wants the batch to be the first axis of every output; here it is the layer.",
    f"{OURS}::test_samples_do_not_depend_on_their_batch",
)


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
    skips = {"test_batching_equivalence": LAYERS_COME_FIRST}

    def build_config(self):
        return tiny_config(self.modality, attention_dropout=0.0, hidden_dropout=0.0)

    def build_inputs(self):
        return tiny_inputs(self.build_config(), BATCH_SIZE)

    def build_labels(self, task, inputs):
        return {"labels": tiny_labels(self.build_config(), (3,) * BATCH_SIZE)}


class CmtFusionTest(CmtConformance, unittest.TestCase):
    """Cameras and LiDAR."""


class CmtCameraTest(CmtConformance, unittest.TestCase):
    """Cameras only."""

    modality = "camera"


class CmtLidarTest(CmtConformance, unittest.TestCase):
    """LiDAR only."""

    modality = "lidar"
