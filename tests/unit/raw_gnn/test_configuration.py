"""RawGnnConfig: defaults of the authors, round trip, what it refuses."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError

from decahub import RawGnnConfig, RawGnnForNodeClassification


# Features and classes of a graph to the number of parameters (method's specification, section 2.6).
PARAMETER_COUNTS = {
    "cora": (1433, 7, 282_695),
    "citeseer": (3703, 6, 718_406),
    "pubmed": (500, 3, 103_043),
    "texas": (1703, 5, 334_277),
    "actor": (932, 5, 186_245),
    "chameleon": (2325, 5, 453_701),
    "squirrel": (2089, 5, 408_389),
}
BAD_FIELDS = {
    "hidden size": ({"hidden_size": 0}, r"`hidden_size` must be at least 1; got 0"),
    "long path": ({"walk_length": 7}, r"`walk_length` must be at most `long_walk_length \+ 1` \(5\); got 7"),
    "sampler": ({"walk_sampler": "uniform"}, r"`walk_sampler` must be one of node2vec, torch_cluster; got 'uniform'"),
    "recurrence": ({"rnn_type": "rnn"}, r"`rnn_type` must be one of gru, lstm; got 'rnn'"),
    "no draws": ({"eval_walks": 0}, r"`eval_walks` must be one of fixed, resample or a number of draws; got 0"),
    "draws": ({"eval_walks": "often"}, r"`eval_walks` must be one of .* got 'often'"),
    "no strategy": ({"strategies": []}, r"`strategies` must hold at least one strategy; got none"),
    "key": ({"strategies": [{"name": "a", "p": 1}]}, r"`strategies` must have name, p and q each"),
    "p": (
        {"strategies": [{"name": "a", "p": 0, "q": 1}]},
        r"`p` of a strategy must be a number from 1e-12 to .* got 0",
    ),
    "q": ({"strategies": [{"name": "a", "p": 1, "q": -2.0}]}, r"`q` of a strategy must be a number from .* got -2"),
    "names": ({"strategies": [{"name": "a", "p": 1, "q": 1}] * 2}, r"`strategies` must have different names"),
    "dropout": ({"feature_dropout_prob": 1.0}, r"`feature_dropout_prob` must lie in \[0, 1\); got 1.0"),
    "wide": ({"hidden_size": 2**20}, r"`hidden_size` must be at most 65536"),
    "features": ({"num_features": 2**40}, r"`num_features` must be at most 1048576"),
    "walk": ({"long_walk_length": 10**9, "walk_length": 10**9}, r"`long_walk_length` must be at most 1000"),
    "walks": ({"long_walks_per_node": 10**9}, r"`long_walks_per_node` must be at most 1000"),
    "strategies": (
        {"strategies": [{"name": str(number), "p": 1, "q": 1} for number in range(101)]},
        r"`strategies` must hold at most 100 strategies; got 101",
    ),
    "type": ({"num_features": "many"}, r"num_features"),
}


@pytest.mark.parametrize(("num_features", "num_labels", "count"), PARAMETER_COUNTS.values(), ids=PARAMETER_COUNTS)
def test_has_the_papers_number_of_parameters(num_features, num_labels, count):
    with torch.device("meta"):
        model = RawGnnForNodeClassification(RawGnnConfig(num_features=num_features, num_labels=num_labels))

    assert sum(parameter.numel() for parameter in model.parameters()) == count


def test_round_trip(tmp_path):
    config = RawGnnConfig(strategies=[{"name": "even", "p": 1, "q": 0.5}], eval_walks=4, num_labels=6)

    config.save_pretrained(tmp_path)

    assert RawGnnConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()


@pytest.mark.parametrize(("fields", "message"), BAD_FIELDS.values(), ids=BAD_FIELDS)
def test_refuses(fields, message):
    with pytest.raises(StrictDataclassError, match=message):
        RawGnnConfig(**fields)


def test_variants_differ_in_their_walks():
    assert RawGnnConfig.from_variant("official").walk_sampler == "torch_cluster"
    assert RawGnnConfig.from_variant("paper", hidden_size=5).hidden_size == 5


def test_strategies_are_not_shared():
    RawGnnConfig().strategies[0]["p"] = 5.0

    assert RawGnnConfig().strategies[0]["p"] == 10.0
