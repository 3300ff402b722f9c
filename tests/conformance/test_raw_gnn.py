"""transformers' own test suites over the classes of RAW-GNN."""

import unittest

import torch

from decahub import RawGnnFeatureExtractor, RawGnnForNodeClassification, RawGnnModel
from tests.tiny.raw_gnn import NUM_NODES, build_tiny_config, build_tiny_graph

from .harness import FeatureExtractorConformance, ModelConformance, OurSkip


HERE = "tests/conformance/test_raw_gnn.py"
ATOL_UNION = 1e-6  # the same sums in another order


class RawGnnModelTest(ModelConformance, unittest.TestCase):
    models = {"base": RawGnnModel, "node-classification": RawGnnForNodeClassification}
    # One layer for each strategy, side by side: its output has the width of all heads.
    dimensions = {
        "batch_size": NUM_NODES,
        "seq_length": NUM_NODES,
        "hidden_size": 12,
        "num_hidden_layers": 2,
        "expected_num_hidden_layers": 2,
    }
    has_attentions = False
    skips = {
        "test_model_get_set_embeddings": OurSkip(
            "It wants an nn.Embedding; features pass through a projection.",
            f"{HERE}::test_input_embeddings_are_the_projection",
        ),
        "test_batching_equivalence": OurSkip(
            "It slices the first rows off every input; graphs are batched by disjoint union.",
            f"{HERE}::test_disjoint_union_equals_its_parts",
        ),
    }

    def build_config(self):
        return build_tiny_config()

    def build_inputs(self):
        return build_tiny_graph()

    def build_labels(self, task, inputs):
        return {} if task == "base" else {"labels": torch.arange(NUM_NODES) % 3}


class RawGnnFeatureExtractorTest(FeatureExtractorConformance, unittest.TestCase):
    feature_extraction_class = RawGnnFeatureExtractor
    feat_extract_dict = {"num_features": 5, "normalize_features": True}


def test_input_embeddings_are_the_projection():
    model = RawGnnForNodeClassification(build_tiny_config())

    assert model.get_input_embeddings() is model.raw_gnn.projections[0]


def test_disjoint_union_equals_its_parts():
    model = RawGnnForNodeClassification(build_tiny_config()).eval()
    graphs = [build_tiny_graph(size, seed=size) for size in (4, 6)]
    paths = [model.raw_gnn.sample_paths(graph["edge_index"], size) for graph, size in zip(graphs, (4, 6), strict=True)]

    with torch.inference_mode():
        parts = [model(graph["node_features"], paths=path).logits for graph, path in zip(graphs, paths, strict=True)]
        union = model(
            torch.cat([graph["node_features"] for graph in graphs]),
            paths=[torch.cat([first, second + 4]) for first, second in zip(*paths, strict=True)],
        ).logits

    torch.testing.assert_close(union, torch.cat(parts), atol=ATOL_UNION, rtol=0)
