"""Unknown names in configurations, processors and forward passes, and the keys of transformers that must pass."""

import json

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError

from decahub import (
    RawGnnConfig,
    RawGnnFeatureExtractor,
    RawGnnForNodeClassification,
    RawGnnModel,
    ReliantConfig,
    ReliantFeatureExtractor,
    ReliantForNodeClassification,
    ReliantModel,
)
from decahub.models.raw_gnn.geometric import RawGnn
from tests.tiny.raw_gnn import build_tiny_config, build_tiny_graph
from tests.tiny.reliant import tiny_config, tiny_graph


CONFIGS = [RawGnnConfig, ReliantConfig]
# Written by transformers of several versions, or set by its loading code.
KEYS_OF_TRANSFORMERS = {
    "architectures": ["Net"], "auto_map": {"AutoConfig": "x.Y"}, "custom_pipelines": {}, "dtype": None,
    "torch_dtype": "float32", "_name_or_path": "a/b", "id2label": {"0": "a", "1": "b"}, "label2id": {"a": 0, "b": 1},
    "transformers_version": "4.40", "_attn_implementation_autoset": True, "attn_implementation": "eager",
    "quantization_config": None, "tie_word_embeddings": True, "use_cache": True, "num_labels": 2, "num_beams": 1,
}  # fmt: skip


@pytest.mark.parametrize("config_class", CONFIGS)
@pytest.mark.parametrize(
    ("name", "hint"), [("hiden_size", "hidden_size"), ("num_label", "num_labels"), ("sensitive", None)]
)
def test_configs_refuse_unknown_fields(config_class, name, hint):
    message = f"`{name}` must be a field of {config_class.__name__}.*" + (f"Did you mean `{hint}`" if hint else "")

    with pytest.raises((ValueError, StrictDataclassError), match=message):
        config_class(**{name: 3})


def test_config_refuses_a_derived_value():
    with pytest.raises(ValueError, match="`num_hidden_layers` must be a field of RawGnnConfig"):
        RawGnnConfig(num_hidden_layers=3)


@pytest.mark.parametrize("config_class", CONFIGS)
def test_configs_load_files_of_transformers(config_class, tmp_path):
    config_class().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **KEYS_OF_TRANSFORMERS, "model_type": config_class.model_type}))

    assert config_class.from_pretrained(tmp_path).num_labels == 2


@pytest.mark.parametrize(
    ("extractor_class", "name", "hint"),
    [
        (RawGnnFeatureExtractor, "normalise_features", "normalize_features"),
        (ReliantFeatureExtractor, "sensitive_col", "sensitive_column"),
    ],
)
def test_extractors_refuse_unknown_arguments(extractor_class, name, hint, tmp_path):
    with pytest.raises(ValueError, match=f"`{name}` must be an argument of .* Did you mean `{hint}`"):
        extractor_class(**{name: 1})
    extractor_class(num_features=3, processor_class="X").save_pretrained(tmp_path)

    assert extractor_class.from_pretrained(tmp_path).num_features == 3


@pytest.mark.parametrize(
    ("model", "graph"),
    [
        (RawGnnModel(build_tiny_config()), build_tiny_graph()),
        (RawGnnForNodeClassification(build_tiny_config()), build_tiny_graph()),
        (ReliantModel(tiny_config()), tiny_graph()),
        (ReliantForNodeClassification(tiny_config()), tiny_graph()),
    ],
    ids=lambda value: type(value).__name__,
)
def test_models_refuse_unknown_inputs(model, graph):
    with pytest.raises(ValueError, match=f"`edge_indx` must be an input of {type(model).__name__}.*`edge_index`"):
        model(**graph, edge_indx=graph["edge_index"])
    extracted_only = {"sensitive": torch.zeros(9), "num_nodes_per_graph": torch.tensor([9])}

    outputs = model(**graph, **extracted_only, output_hidden_states=True, return_dict=False)

    assert isinstance(outputs, tuple)


def test_geometric_module_refuses_unknown_fields():
    with pytest.raises(ValueError, match="`num_layers` must be a field of RawGnnConfig"):
        RawGnn(5, 6, 3, num_layers=2)
