"""Configurations of RELIANT: variants, round trips, and contradictions that are refused."""

import json

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig

from decahub import ReliantConfig, ReliantForNodeClassification
from decahub.models.reliant.configuration_reliant import VARIANTS
from tests.tiny.reliant import tiny_config


F, H, C = 18, 64, 2  # features of the bail graph, channels, classes
NUM_PARAMETERS = {
    # Layers of the authors' networks, by hand: weights and biases; a student reads two proxy columns more.
    "akd-sgc": ((F + 2) * H + H) + (H * H + H) + (H * C + C),
    "gcn-teacher": (F * H + H) + (H * H + H) + (H * C + C),
    "sage-teacher": (F * 128 + 128) + 2 * (128 * 128 + 128) + (128 * C + C),
    "gat-teacher": (F * H + 3 * H) + (H * C + 3 * C),  # two vectors of attention and a bias each
    "sgc-teacher": F * C,
    "cpf-plp": ((F + 2) * H + H) + (H * C + C) + (F + 2),
}


@pytest.mark.parametrize("variant", NUM_PARAMETERS)
def test_variant_has_the_parameters_of_the_authors_network(variant):
    with torch.device("meta"):
        model = ReliantForNodeClassification(ReliantConfig.from_variant(variant, num_features=F))

    assert sum(parameter.numel() for parameter in model.parameters()) == NUM_PARAMETERS[variant]


@pytest.mark.parametrize("variant", VARIANTS)
def test_round_trip_through_json(variant, tmp_path):
    config = tiny_config(variant)

    config.save_pretrained(tmp_path)

    assert ReliantConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()


def test_variants_are_not_changed_by_their_users():
    ReliantConfig.from_variant("akd-sgc").num_features = 99

    assert ReliantConfig.from_variant("akd-sgc").num_features == 16


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"architecture": "gin"}, "architecture"),
        ({"num_features": 5.0}, "num_features"),
        ({"hidden_size": 0}, "`hidden_size` must be at least 1; got 0"),
        ({"num_hidden_layers": -1}, "`num_hidden_layers` must be at least 0 with architecture 'sgc'; got -1"),
        ({"architecture": "appnp", "num_hidden_layers": 0}, "at least 1 with architecture 'appnp'; got 0"),
        ({"num_edge_samples": 0}, "`num_edge_samples` must be at least 1; got 0"),
        ({"architecture": "gat", "hidden_size": 10, "num_attention_heads": 4}, r"`hidden_size` .*multiple .*\(4\)"),
        ({"embedding_layer": 3}, r"`embedding_layer` must be -1 or lie in \[1, 2\]"),
        ({"hidden_dropout_prob": 1.0}, r"`hidden_dropout_prob` must lie in \[0, 1\); got 1.0"),
        ({"fairness_weight": -1.0}, "`fairness_weight` must be at least 0; got -1.0"),
        ({"temperature": 0}, "`temperature` must be above 0; got 0"),
        ({"framework": "cpf"}, "`architecture` must be 'plp' with framework 'cpf'; got 'sgc'"),
        ({"architecture": "plp"}, "`architecture` must not be 'plp' with framework 'akd'"),
        (
            {"architecture": "plp", "framework": "kd", "label_score_type": "nodes"},
            "`num_nodes` must be given with `label_score_type='nodes'`",
        ),
        ({"proxy_mode": "sensitive", "proxy_dim": 3}, "`proxy_dim` must be 2 with `proxy_mode='sensitive'`; got 3"),
        ({"proxy_position": "replace_last_two", "proxy_dim": 1}, "`proxy_dim` must be 2 with `proxy_position="),
        ({"proxy_position": "replace_last_two", "num_features": 2}, "`num_features` must be above 2 .*; got 2"),
        (
            {"fairness_metric": "eo", "penalty_nodes": "all"},
            "`penalty_nodes` must be 'train' .*; got 'all', which reads labels of .*`allow_label_leakage=True`",
        ),
        (
            {"fairness_metric": "eo", "proxy_penalty_nodes": "unlabeled"},
            "`proxy_penalty_nodes` must be 'train' .*; got 'unlabeled'",
        ),
        (
            {"architecture": "plp", "framework": "cpf"},
            "`penalty_nodes` must be 'unlabeled' or 'all' with architecture 'plp', .*; got 'train'",
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_refuses_contradictions(fields, message):
    with pytest.raises(StrictDataclassError, match=message):
        ReliantConfig(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"penalty_nodes": "all", "allow_label_leakage": True},
        {"penalty_nodes": "all", "fairness_weight": 0.0},
        {"proxy_penalty_nodes": "all", "proxy_mode": "none"},
    ],
    ids=["by-name", "no-penalty", "no-proxy-step"],
)
def test_leakage_is_refused_only_where_it_would_happen(fields):
    assert ReliantConfig(fairness_metric="eo", **fields).fairness_metric == "eo"


def test_assignments_are_checked_when_a_model_is_built():
    config = tiny_config()
    config.embedding_layer = 5

    with pytest.raises(StrictDataclassError, match="`embedding_layer` must be -1"):
        ReliantForNodeClassification(config)


@pytest.mark.parametrize("field", ["num_features", "hidden_size", "num_hidden_layers", "num_propagation_steps"])
def test_sizes_that_no_memory_holds_are_refused(field, tmp_path):
    ReliantConfig().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), field: 10**9}))

    with pytest.raises(StrictDataclassError, match=f"`{field}` must be at most"):
        AutoConfig.from_pretrained(tmp_path)
