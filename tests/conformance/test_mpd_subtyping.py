"""transformers' own test suites over the classes of MPD subtyping."""

import unittest

import torch

from decahub import MpdSubtypingFeatureExtractor, MpdSubtypingModel
from tests.tiny.mpd_subtyping import NUM_PATIENTS, build_tiny_config, build_tiny_features

from .harness import FeatureExtractorConformance, ModelConformance, OurSkip


HERE = "tests/conformance/test_mpd_subtyping.py"
ATOL_ALONE = 1e-6  # products of other shapes


class MpdSubtypingModelTest(ModelConformance, unittest.TestCase):
    models = {"base": MpdSubtypingModel}
    dimensions = {"batch_size": NUM_PATIENTS, "seq_length": NUM_PATIENTS, "hidden_size": 7, "num_hidden_layers": 1}
    has_attentions = False
    common_properties = []
    skips = {
        "test_hidden_states_output": OurSkip(
            "Members have embeddings, and no sequence of layers.", f"{HERE}::test_embeddings_keep_their_gradients"
        ),
        "test_retain_grad_hidden_states_attentions": OurSkip(
            "Members have embeddings, and no sequence of layers.", f"{HERE}::test_embeddings_keep_their_gradients"
        ),
        "test_model_get_set_embeddings": OurSkip(
            "It wants an nn.Embedding; features pass through a linear layer.",
            f"{HERE}::test_input_embeddings_are_the_first_layer",
        ),
        "test_batching_equivalence": OurSkip(
            "It slices the first axis of every output; here it is that of the members.",
            f"{HERE}::test_patients_do_not_depend_on_each_other",
        ),
    }

    def build_config(self):
        return build_tiny_config()

    def build_inputs(self):
        return {"features": build_tiny_features()}


class MpdSubtypingFeatureExtractorTest(FeatureExtractorConformance, unittest.TestCase):
    feature_extraction_class = MpdSubtypingFeatureExtractor
    feat_extract_dict = {"feature_names": ["roi_*"], "selection": "mean_or_spread", "min_features": 3}


def test_patients_do_not_depend_on_each_other():
    model = MpdSubtypingModel(build_tiny_config()).eval()
    features = build_tiny_features()
    model.fit_clusters(features)

    with torch.inference_mode():
        together, alone = model(features), [model(features[row : row + 1]) for row in range(5)]

    for row, output in enumerate(alone):
        torch.testing.assert_close(output.embeddings[:, 0], together.embeddings[:, row], atol=ATOL_ALONE, rtol=0)
        assert torch.equal(output.subtype_probabilities[0], together.subtype_probabilities[row])


def test_embeddings_keep_their_gradients():
    model = MpdSubtypingModel(build_tiny_config())

    output = model(build_tiny_features())
    output.embeddings.retain_grad()
    output.loss.backward()

    assert output.embeddings.grad.abs().sum() > 0


def test_input_embeddings_are_the_first_layer():
    model = MpdSubtypingModel(build_tiny_config())

    assert model.get_input_embeddings() is model.autoencoders.encoder_in
