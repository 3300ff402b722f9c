"""The harness on the kinds that EMO lacks: a model of graphs, a feature extractor, a processor of two parts."""

import unittest

import torch
from transformers import ViTImageProcessor

from .harness import FeatureExtractorConformance, ModelConformance, OurSkip, ProcessorConformance
from .toy_graph import (
    ToyGraphConfig,
    ToyGraphFeatureExtractor,
    ToyGraphForNodeClassification,
    ToyGraphModel,
    ToyGraphProcessor,
)


NUM_NODES = 7
ATOL_UNION = 1e-6  # the same sums in another order
HERE = "tests/conformance/test_toy_graph.py"


class ToyGraphModelTest(ModelConformance, unittest.TestCase):
    models = {"base": ToyGraphModel, "node-classification": ToyGraphForNodeClassification}
    dimensions = {"batch_size": NUM_NODES, "seq_length": NUM_NODES, "hidden_size": 8, "num_hidden_layers": 2}
    has_attentions = False
    skips = {
        "test_model_get_set_embeddings": OurSkip(
            "It wants an nn.Embedding; a graph has a projection.", f"{HERE}::test_input_embeddings_are_the_projection"
        ),
        "test_batching_equivalence": OurSkip(
            "It slices the first rows off every input; graphs are batched by disjoint union.",
            f"{HERE}::test_disjoint_union_equals_its_parts",
        ),
    }

    def build_config(self):
        return ToyGraphConfig(num_labels=3)

    def build_inputs(self):
        return {"node_features": torch.randn(NUM_NODES, 5), "edge_index": torch.randint(NUM_NODES, (2, 12))}

    def build_labels(self, task, inputs):
        return {} if task == "base" else {"labels": torch.arange(NUM_NODES) % 3}


class ToyGraphFeatureExtractorTest(FeatureExtractorConformance, unittest.TestCase):
    feature_extraction_class = ToyGraphFeatureExtractor
    feat_extract_dict = {"scale": 2.5}


class ToyGraphProcessorTest(ProcessorConformance, unittest.TestCase):
    processor_class = ToyGraphProcessor
    parts = {
        "image_processor": lambda: ViTImageProcessor(size={"height": 8, "width": 8}),
        "feature_extractor": lambda: ToyGraphFeatureExtractor(scale=2.5),
    }
    skips = {
        "test_subprocessor_defaults_3_audio": OurSkip(
            "It takes any feature extractor for one of audio.", f"{HERE}::test_processor_calls_both_parts"
        ),
        "test_processor_with_multiple_inputs": OurSkip(
            "It takes any feature extractor for one of audio.", f"{HERE}::test_processor_calls_both_parts"
        ),
        "test_model_input_names": OurSkip(
            "It takes any feature extractor for one of audio.", f"{HERE}::test_processor_calls_both_parts"
        ),
        "test_chat_template_save_loading": OurSkip(
            "It wants a tokenizer.", f"{HERE}::test_processor_calls_both_parts"
        ),
    }


def test_input_embeddings_are_the_projection():
    model = ToyGraphForNodeClassification(ToyGraphConfig())

    assert model.get_input_embeddings() is model.graph.projection


def test_disjoint_union_equals_its_parts():
    model = ToyGraphForNodeClassification(ToyGraphConfig()).eval()
    generator = torch.Generator().manual_seed(0)
    graphs = [
        (torch.randn(size, 5, generator=generator), torch.randint(size, (2, 9), generator=generator))
        for size in (4, 6)
    ]

    with torch.inference_mode():
        parts = [model(features, edges).logits for features, edges in graphs]
        union = model(
            torch.cat([features for features, _ in graphs]),
            torch.cat([graphs[0][1], graphs[1][1] + 4], dim=1),
        ).logits

    torch.testing.assert_close(union, torch.cat(parts), atol=ATOL_UNION, rtol=0)


def test_processor_calls_both_parts():
    parts = {name: build() for name, build in ToyGraphProcessorTest.parts.items()}
    processor = ToyGraphProcessor(**parts)
    image = torch.randint(0, 255, (3, 10, 14), dtype=torch.uint8)
    graph = {"node_features": [[1.0, 2.0], [3.0, 4.0]], "edges": [[0, 1]]}

    inputs = processor(images=image, graph=graph, return_tensors="pt")

    assert set(inputs) == set(processor.model_input_names) == {"pixel_values", "node_features", "edge_index"}
    expected = parts["image_processor"](image, return_tensors="pt").pixel_values
    torch.testing.assert_close(inputs["pixel_values"], expected, atol=0, rtol=0)
    torch.testing.assert_close(inputs["node_features"], 2.5 * torch.tensor(graph["node_features"]))
    assert inputs["edge_index"].tolist() == [[0], [1]]
