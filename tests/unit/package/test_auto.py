"""Auto classes and pipelines for new tasks, with a toy room in the place of a method that has one.

The toy is put into the table in a process of its own, before transformers is loaded.
"""

from pathlib import Path

import pytest
from transformers import AutoConfig

import decahub
from decahub.registry import list_new_auto_classes


ROOMS = Path(__file__).with_name("rooms")

PUT_TOY_INTO_TABLE = """
import sys, tempfile
from importlib import import_module

import decahub.models, decahub.pipelines
from decahub.registry import METHODS, TASKS, Method, ModelEntry, TaskEntry

rooms, first = sys.argv[1:]
decahub.models.__path__.append(rooms)
decahub.pipelines.__path__.append(f"{rooms}/pipelines")
models = {"AutoModel": "ToyModel", "AutoModelForNodeClassification": "ToyForNodeClassification"}
entry = ModelEntry("toy", "ToyConfig", models, feature_extractor="ToyFeatureExtractor")
METHODS["toy"] = Method("toy", "A toy", "0000.00000", "Nothing.", ("toy-node-classification",), "toy", (entry,))
TASKS["toy-node-classification"] = TaskEntry(
    "toy-node-classification",
    "node-classification",
    "node_accuracy",
    "AutoModelForNodeClassification",
    "feature_extractor",
    "toy_node_classification",
    pipeline="ToyNodeClassificationPipeline",
)
import_module(first)
"""
USE_TOY = """
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, pipeline

import torch
import transformers
from decahub.models.toy.feature_extraction_toy import ToyFeatureExtractor
from decahub.models.toy.modeling_toy import ToyForNodeClassification, ToyModel

config = AutoConfig.for_model("toy", num_labels=4)
assert type(AutoModel.from_config(config)) is ToyModel
model = decahub.AutoModelForNodeClassification.from_config(config)
assert type(model) is ToyForNodeClassification

# By name, as code saved to the Hub and custom pipelines are found.
import transformers.processing_utils
assert sys.modules["transformers"].AutoModelForNodeClassification is decahub.AutoModelForNodeClassification
assert transformers.models.auto.AutoModelForNodeClassification is decahub.AutoModelForNodeClassification
ToyForNodeClassification.register_for_auto_class("AutoModelForNodeClassification")

with tempfile.TemporaryDirectory() as folder:
    model.save_pretrained(folder)
    ToyFeatureExtractor().save_pretrained(folder)
    assert type(AutoFeatureExtractor.from_pretrained(folder)) is ToyFeatureExtractor
    loaded = decahub.AutoModelForNodeClassification.from_pretrained(folder, trust_remote_code=False)
    classify = pipeline("toy-node-classification", model=folder, trust_remote_code=False)
assert loaded.classifier.weight.equal(model.classifier.weight)
features = [[0.5, -1.0, 2.0], [3.0, 0.0, 1.0]]
assert classify({"node_features": features}) == model(torch.tensor(features)).logits.argmax(-1).tolist()
"""


@pytest.mark.parametrize(
    "first",
    [
        "transformers.pipelines",
        "decahub.pipelines.toy_node_classification",  # imports transformers.pipelines before it is complete itself
        "decahub.models.toy.configuration_toy",  # uses AutoConfig before it is complete itself
    ],
)
def test_new_task_works_whatever_is_imported_first(run_python, first):
    run_python(PUT_TOY_INTO_TABLE + USE_TOY, ROOMS, first)


@pytest.mark.parametrize("name", list_new_auto_classes())
def test_new_auto_class_refuses_a_configuration_it_does_not_know(name):
    config = AutoConfig.for_model("emo")

    with pytest.raises(ValueError, match=f"Unrecognized configuration class .*EmoConfig.* {name}"):
        getattr(decahub, name).from_config(config)
