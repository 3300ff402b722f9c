"""transformers' own suites over RELIANT: a student with a proxy, one that spreads labels, the feature extractor."""

import unittest

import torch

from decahub import ReliantConfig, ReliantFeatureExtractor, ReliantForNodeClassification, ReliantModel

from .harness import FeatureExtractorConformance, ModelConformance, OurSkip


NUM_NODES, NUM_FEATURES, NUM_LABELS = 7, 6, 3
HIDDEN_SIZE = 16
OURS = "tests/unit/reliant/test_modeling.py"


class ReliantConformance(ModelConformance):
    models = {"base": ReliantModel, "node-classification": ReliantForNodeClassification}
    has_attentions = False
    fields: dict = {}
    skips = {
        "test_model_get_set_embeddings": OurSkip(
            "It wants an nn.Embedding; features enter through the first layer.",
            f"{OURS}::test_input_embeddings_are_the_first_layer",
        ),
        "test_batching_equivalence": OurSkip(
            "It slices the first rows off every input; graphs are batched by disjoint union.",
            f"{OURS}::test_disjoint_union_equals_its_parts",
        ),
    }

    def build_config(self):
        sizes = {"num_features": NUM_FEATURES, "hidden_size": HIDDEN_SIZE, "num_labels": NUM_LABELS}
        return ReliantConfig(**sizes, **self.fields)

    def build_inputs(self):
        generator = torch.Generator().manual_seed(0)
        return {
            "node_features": torch.randn(NUM_NODES, NUM_FEATURES, generator=generator),
            "edge_index": torch.randint(NUM_NODES, (2, 12), generator=generator),
        }

    def build_labels(self, task, inputs):
        return {} if task == "base" else {"labels": torch.arange(NUM_NODES) % NUM_LABELS}


class ReliantModelTest(ReliantConformance, unittest.TestCase):
    dimensions = {
        "batch_size": NUM_NODES,
        "seq_length": NUM_NODES,
        "hidden_size": HIDDEN_SIZE,
        "num_hidden_layers": 2,
        "expected_num_hidden_layers": 2,  # hidden states are what layers put out
    }


class ReliantLabelPropagationTest(ReliantConformance, unittest.TestCase):
    dimensions = {**ReliantModelTest.dimensions, "num_hidden_layers": 1, "expected_num_hidden_layers": 1}
    fields = {
        "architecture": "plp",
        "framework": "cpf",
        "num_hidden_layers": 1,
        "num_propagation_steps": 3,
        "num_nodes": NUM_NODES,
        "penalty_nodes": "unlabeled",
    }


class ReliantFeatureExtractorTest(FeatureExtractorConformance, unittest.TestCase):
    feature_extraction_class = ReliantFeatureExtractor
    feat_extract_dict = {
        "num_features": NUM_FEATURES,
        "normalize_features": "standardize",
        "feature_means": [0.5] * NUM_FEATURES,
        "feature_scales": [2.0] * NUM_FEATURES,
        "sensitive_column": 1,
        "sensitive_values": [[0], [1, 2]],
    }
