"""The converter: every tensor arrives and comes back bit for bit, and members compute what they did alone."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from conversion.checkpoint import ConversionError
from conversion.convert_mpd_subtyping import (
    build_official_shapes,
    convert_checkpoint,
    convert_state_dict,
    infer_config,
    revert_state_dict,
)
from decahub import MpdSubtypingModel
from tests.tiny.mpd_subtyping import NUM_FEATURES, build_tiny_config, build_tiny_features


CLUSTERS = {"base_num_clusters": 4, "num_fine_clusters": 4}


@pytest.fixture
def official():
    generator = torch.Generator().manual_seed(0)
    shapes = build_official_shapes(build_tiny_config())
    return {name: 0.4 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def test_sizes_are_read_off_the_tensors(official):
    config = infer_config(official)

    assert (config.num_features, config.hidden_sizes, config.latent_dims, config.num_runs) == (12, [7], [2, 3, 5], 2)


def test_every_tensor_comes_back_bit_for_bit(official):
    config = infer_config(official)

    back = revert_state_dict(convert_state_dict(official, config), config)

    assert back.keys() == official.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in official.items())


def test_converted_tensors_are_those_of_the_model(official):
    model = MpdSubtypingModel(infer_config(official))
    expected = {name: parameter.shape for name, parameter in model.named_parameters()}

    assert {name: tensor.shape for name, tensor in convert_state_dict(official).items()} == expected


@pytest.mark.parametrize("with_labels", [True, False])
def test_converts_a_file(official, tmp_path, with_labels):
    features = build_tiny_features()
    pd.DataFrame(features.numpy(), columns=[f"x{i}" for i in range(NUM_FEATURES)]).to_csv(
        tmp_path / "patients.csv", index=False
    )
    labels = {"run0.d2.base_labels": torch.arange(len(features)) % 4} if with_labels else {}
    save_file({**official, **labels}, tmp_path / "members.safetensors")

    report = convert_checkpoint(
        tmp_path / "members.safetensors", tmp_path / "model", tmp_path / "patients.csv", **CLUSTERS
    )

    assert report["round_trip"] == {"tensors": len(official), "bit_equal": len(official)}
    assert max(report["largest_difference"].values()) < 1e-5
    assert (report["ari_of_base_labels"] is None) != with_labels
    model = MpdSubtypingModel.from_pretrained(tmp_path / "model")
    assert model.is_fitted
    assert json.loads((tmp_path / "model" / "parity_report.json").read_text())["num_members"] == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("run1.d3.decoder.2.bias"), r"run1\.d3\.decoder\.2\.bias"),
        (lambda tensors: tensors.update({"run0.d2.encoder.4.weight": torch.ones(2, 2)}), r"run0\.d2\.encoder\.4"),
        (lambda tensors: tensors.update({"scaler.mean": torch.ones(2)}), "`scaler.mean` must be run<r>.d<d>"),
        (lambda tensors: tensors.update({"run0.d3.encoder.0.weight": torch.ones(7, 9)}), r"run0\.d3\.encoder\.0"),
        (
            lambda tensors: [tensors.pop(name) for name in list(tensors) if name.startswith("run1.d5")],
            "same sizes each",
        ),
    ],
    ids=["missing", "left over", "strange name", "shape", "sizes"],
)
def test_refuses(official, change, message):
    change(official)

    with pytest.raises(ConversionError, match=message):
        convert_state_dict(official)


def test_refuses_features_of_another_width(official, tmp_path):
    save_file(official, tmp_path / "members.safetensors")
    pd.DataFrame(np.ones((30, 4))).to_csv(tmp_path / "patients.csv", index=False)

    with pytest.raises(ConversionError, match="must have 12 columns, as the members have; got 4"):
        convert_checkpoint(tmp_path / "members.safetensors", tmp_path / "model", tmp_path / "patients.csv", **CLUSTERS)
