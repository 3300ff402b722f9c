"""The converter of RAW-GNN: names and values both ways, what it infers, what it refuses, and the folder it writes.

Parameter counts are those of the method's specification, section 2.6.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoFeatureExtractor

import decahub  # noqa: F401 (the Auto classes know our models then)
from conversion.checkpoint import ConversionError, find_changed_tensors, sha256_of
from conversion.convert_raw_gnn import (
    build_official_shapes,
    convert_state_dict,
    infer_config,
    main,
    revert_state_dict,
    select_state_dict,
)
from decahub import RawGnnConfig, RawGnnForNodeClassification


REPOSITORY = Path(__file__).parents[3]
SIZES = {"hidden_size": 5, "num_attention_heads": 3, "num_features": 7, "num_labels": 4}
OFFICIAL_NAMES = {
    *(f"layer{layer}.a" for layer in (1, 2)),
    *(
        f"layer{layer}.rnn.{kind}_{side}_l0"
        for layer in (1, 2)
        for kind in ("weight", "bias")
        for side in ("ih", "hh")
    ),
    "lin1.weight",
    "lin1.bias",
}
PARAMETERS = {  # of (num_features, num_labels)
    (1433, 7): 282_695,
    (3703, 6): 718_406,
    (500, 3): 103_043,
    (1703, 5): 334_277,
    (932, 5): 186_245,
    (2325, 5): 453_701,
    (2089, 5): 408_389,
}


@pytest.fixture
def official() -> dict[str, torch.Tensor]:
    """A state dict as the authors' code saves it."""
    generator = torch.Generator().manual_seed(0)
    shapes = build_official_shapes(RawGnnConfig(**SIZES))
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


@pytest.fixture
def checkpoint(official, tmp_path) -> Path:
    torch.save(official, tmp_path / "model.pt")
    return tmp_path / "model.pt"


@pytest.mark.parametrize(("sizes", "count"), PARAMETERS.items(), ids=str)
def test_the_number_of_parameters_is_the_published_one(sizes, count):
    with torch.device("meta"):
        model = RawGnnForNodeClassification(RawGnnConfig(num_features=sizes[0], num_labels=sizes[1]))

    assert sum(parameter.numel() for parameter in model.parameters()) == count


def test_names_are_the_authors(official):
    assert set(official) == OFFICIAL_NAMES


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_round_trip_through_a_model_is_bit_equal(official, dtype):
    official = {name: tensor.to(dtype) for name, tensor in official.items()}
    official["layer1.a"][0, 0] = -0.0
    config = RawGnnConfig(**SIZES)
    model = RawGnnForNodeClassification(config).to(dtype)

    model.load_state_dict(convert_state_dict(official, config))

    assert find_changed_tensors(official, revert_state_dict(model.state_dict(), config)) == []


def test_layers_keep_their_strategies(official):
    model = RawGnnForNodeClassification(RawGnnConfig(**SIZES))

    model.load_state_dict(convert_state_dict(official))

    assert [strategy["name"] for strategy in model.config.strategies] == ["dfs", "bfs"]
    for layer, aggregator in enumerate(model.raw_gnn.aggregators, start=1):
        assert torch.equal(aggregator.attention, official[f"layer{layer}.a"])
        assert torch.equal(aggregator.recurrent.weight_hh, official[f"layer{layer}.rnn.weight_hh_l0"])


def test_no_configuration_is_needed_either_way(official):
    assert find_changed_tensors(official, revert_state_dict(convert_state_dict(official))) == []


def test_conversion_shares_values_and_leaves_its_input_alone(official):
    names = list(official)

    converted = convert_state_dict(official)

    assert converted["classifier.weight"].data_ptr() == official["lin1.weight"].data_ptr()
    assert list(official) == names


def test_infers_sizes_and_takes_walks_from_the_variant(official):
    config = infer_config(official)
    of_paper = infer_config(official, "paper", walk_length=4, eval_walks=8)

    assert {name: getattr(config, name) for name in SIZES} == SIZES
    assert (config.walk_sampler, config.eval_walks, config.walk_length) == ("torch_cluster", "resample", 3)
    assert (of_paper.walk_sampler, of_paper.eval_walks, of_paper.walk_length) == ("node2vec", 8, 4)


def test_one_strategy_more_has_one_layer_more(official):
    strategies = [{"name": str(p), "p": p, "q": 1.0} for p in (1.0, 2.0, 3.0)]
    config = RawGnnConfig(**SIZES, strategies=strategies)
    model = RawGnnForNodeClassification(config)

    reverted = revert_state_dict(model.state_dict(), config)

    assert set(reverted) - set(official) == {name.replace("layer2", "layer3") for name in official if "layer2" in name}
    assert find_changed_tensors(model.state_dict(), convert_state_dict(reverted, config)) == []


# --- What is refused


def without(name: str):
    return lambda official: official.pop(name)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without("layer1.a"), r"must hold a matrix 'layer1\.a'; got none"),
        (without("layer1.rnn.weight_ih_l0"), r"must hold a matrix 'layer1\.rnn\.weight_ih_l0'; got none"),
        (without("lin1.weight"), r"must hold a matrix 'lin1\.weight'; got none"),
        (without("layer2.rnn.bias_hh_l0"), r"missing: layer2\.rnn\.bias_hh_l0"),
        (lambda official: official.update({"layer3.a": torch.ones(5, 3)}), r"unexpected: layer3\.a"),
        (lambda official: official.update({"layer1.a": torch.ones(5)}), r"'layer1\.a'; got shape \[5\]"),
        (
            lambda official: official.update({"layer2.a": torch.ones(3, 5)}),
            r"of another shape: layer2\.a \[3, 5\] instead of \[5, 3\]",
        ),
    ],
)
def test_refuses_what_is_no_complete_state_dict(official, damage, message):
    damage(official)

    with pytest.raises(ConversionError, match=message):
        convert_state_dict(official)


def test_refuses_a_state_dict_of_another_class(official):
    ours = convert_state_dict(official)
    ours["raw_gnn.aggregators.0.recurrent.extra"] = torch.ones(1)

    with pytest.raises(ConversionError, match=r"unexpected: raw_gnn\.aggregators\.0\.recurrent\.extra"):
        revert_state_dict(ours)


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [
        ([1, 2], "must hold a dictionary; got list"),
        ({"state_dict": [1]}, "must hold a state dict; got list"),
        ({"epoch": 3}, "must map names to dense tensors; got int under 'epoch'"),
        ({}, "must hold a state dict; got dict"),
    ],
)
def test_refuses_what_holds_no_state_dict(checkpoint, message):
    with pytest.raises(ConversionError, match=message):
        select_state_dict(checkpoint)


# --- The command


@pytest.mark.parametrize("wrap", [None, "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_finds_the_state_dict(official, wrap, prefix, tmp_path):
    named = {prefix + name: tensor for name, tensor in official.items()}
    content = named if wrap is None else {wrap: named, "epoch": 12}

    place, state_dict = select_state_dict(content)

    assert place == (wrap or "the file itself")
    assert find_changed_tensors(official, state_dict) == []


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_writes_a_folder_that_loads(official, suffix, tmp_path):
    checkpoint, folder = tmp_path / f"model{suffix}", tmp_path / "raw-gnn"
    (save_file if suffix == ".safetensors" else torch.save)(official, checkpoint)

    main(["--checkpoint", str(checkpoint), "--output_dir", str(folder), "--walk_length", "2"])

    model = RawGnnForNodeClassification.from_pretrained(folder)
    report = json.loads((folder / "parity_report.json").read_text())
    assert find_changed_tensors(official, revert_state_dict(model.state_dict())) == []
    assert AutoFeatureExtractor.from_pretrained(folder).num_features == SIZES["num_features"]
    assert (model.config.walk_length, model.config.walk_sampler) == (2, "torch_cluster")
    assert report["source"]["sha256"] == sha256_of(checkpoint)
    assert report["round_trip"] == {"tensors": 12, "bit_equal": 12}
    assert report["not_in_the_tensors"]["walk_length"] == 2


def test_runs_as_a_script(checkpoint, tmp_path):
    script, folder = REPOSITORY / "conversion" / "convert_raw_gnn.py", tmp_path / "raw-gnn"
    options = ["--variant", "paper", "--strategies", "far:4:0.5", "near:0.5:4"]

    done = subprocess.run(
        [sys.executable, script, "--checkpoint", checkpoint, "--output_dir", folder, *options],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )

    assert done.returncode == 0, done.stderr
    assert "12 of 12 tensors bit-equal" in done.stdout
    config = RawGnnConfig.from_pretrained(folder)
    assert config.strategies[0] == {"name": "far", "p": 4.0, "q": 0.5}
    assert config.walk_sampler == "node2vec"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--walk_length", "9"], "`walk_length` must be at most"),
        (["--strategies", "one:1:1"], "unexpected: .*layer2"),
        (["--strategies", "one:0:1", "two:1:1"], "`p` of a strategy must be"),
    ],
)
def test_refuses_options_and_writes_nothing(checkpoint, tmp_path, options, message):
    folder = tmp_path / "raw-gnn"

    with pytest.raises(SystemExit, match=message):
        main(["--checkpoint", str(checkpoint), "--output_dir", str(folder), *options])

    assert not folder.exists()


def test_refuses_a_strategy_in_another_form(checkpoint, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--checkpoint", str(checkpoint), "--output_dir", str(tmp_path / "out"), "--strategies", "dfs"])

    assert "must be name:p:q, such as dfs:10:0.1; got 'dfs'" in capsys.readouterr().err
