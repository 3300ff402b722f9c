"""The converter of RELIANT: names, shapes and bits in both directions, and files that are refused."""

import json
import os

import pytest
import torch

from conversion.checkpoint import ConversionError, find_changed_tensors
from conversion.convert_reliant import (
    check_name_map,
    convert_discriminators,
    convert_state_dict,
    infer_config,
    main,
    revert_discriminators,
    revert_state_dict,
)
from conversion.deterministic_fill import fill_state_dict
from conversion.layouts_reliant import build_official_shapes
from decahub import ReliantForNodeClassification
from decahub.models.reliant.discriminators import ReliantDiscriminators
from tests.tiny.reliant import tiny_config


NUM_NODES, HIDDEN, LABELS = 6, 7, 3
# The authors' names and shapes, as section 8 of the specification gives them.
PLP = {
    "alpha": (NUM_NODES, 1),
    "plp_layer.lr_alpha": (NUM_NODES, 1),
    "plp_layer.attn_l": (1, 5),
    "plp_layer.mlp.linears.0.weight": (HIDDEN, 5),
    "plp_layer.mlp.linears.0.bias": (HIDDEN,),
    "plp_layer.mlp.linears.1.weight": (LABELS, HIDDEN),
    "plp_layer.mlp.linears.1.bias": (LABELS,),
}
PLP_OF_ONE_LAYER = {
    "alpha": (NUM_NODES, 1),
    "plp_layer.lr_alpha": (NUM_NODES, 1),
    "plp_layer.fc_emb": (NUM_NODES, 1),
    "plp_layer.mlp.linear.weight": (LABELS, 5),
    "plp_layer.mlp.linear.bias": (LABELS,),
}
SGC = {
    name: shape
    for layer, (out_size, in_size) in enumerate([(HIDDEN, 5 + 2), (HIDDEN, HIDDEN), (LABELS, HIDDEN)])
    for name, shape in ((f"layers.{layer}.fc.weight", (out_size, in_size)), (f"layers.{layer}.fc.bias", (out_size,)))
}
GCN = {
    name: shape
    for layer, (in_size, out_size) in enumerate([(5, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, LABELS)])
    for name, shape in ((f"layers.{layer}.weight", (in_size, out_size)), (f"layers.{layer}.bias", (out_size,)))
}
SAGE = {
    name: shape
    for layer, (out_size, in_size) in enumerate([(HIDDEN, 5), (HIDDEN, HIDDEN), (HIDDEN, HIDDEN), (LABELS, HIDDEN)])
    for name, shape in (
        (f"layers.{layer}.fc_neigh.weight", (out_size, in_size)),
        (f"layers.{layer}.bias", (out_size,)),
    )
}
NETWORKS = {"plp": PLP, "plp-of-one-layer": PLP_OF_ONE_LAYER, "sgc": SGC, "gcn": GCN, "sage": SAGE}
by_network = pytest.mark.parametrize(
    ("shapes", "has_proxy"),
    [(shapes, name.startswith(("plp", "sgc"))) for name, shapes in NETWORKS.items()],
    ids=NETWORKS,
)
DISCRIMINATORS = {
    "Dl.lin.weight": (LABELS, LABELS),
    "Dl.lin.bias": (LABELS,),
    "Dl.lin2.weight": (LABELS + 1, LABELS),
    "De.d": (HIDDEN,),
    "De.scale": (1,),
    "Dg.d": (HIDDEN,),
    "Dg.scale": (1,),
}


@by_network
def test_round_trip_is_bit_equal(shapes, has_proxy):
    official = fill_state_dict(shapes)
    config = infer_config(official, has_proxy)
    model = ReliantForNodeClassification(config)

    model.load_state_dict(convert_state_dict(official, config))

    official.pop("alpha", None)
    assert find_changed_tensors(official, revert_state_dict(model.state_dict(), config)) == []


@by_network
def test_infers_the_sizes(shapes, has_proxy):
    config = infer_config(fill_state_dict(shapes), has_proxy)

    assert (config.num_features, config.num_labels) == (5, LABELS)
    assert build_official_shapes(config) == {name: shape for name, shape in shapes.items() if name != "alpha"}
    assert check_name_map(config) == len([name for name in shapes if name != "alpha"])


def test_teacher_embeds_its_first_layer():
    config = infer_config(fill_state_dict(SAGE), has_proxy=False)

    assert (config.embedding_layer, config.embedding_before_activation, config.num_hidden_layers) == (1, True, 3)


def test_discriminators_round_trip_is_bit_equal():
    official, module = fill_state_dict(DISCRIMINATORS), ReliantDiscriminators(tiny_config())

    module.load_state_dict(convert_discriminators(official))

    assert find_changed_tensors(official, revert_discriminators(module.state_dict())) == []


def test_keeps_the_mean_of_the_proxy_and_known_labels():
    official, proxy = fill_state_dict(PLP), torch.rand(NUM_NODES, 2)
    known = torch.tensor([0, -100, 2, -100, -100, 1])

    converted = convert_state_dict(official, infer_config(official, has_proxy=True), proxy, known)

    assert torch.equal(converted["reliant.proxy_mean"], proxy.mean(0))
    assert torch.equal(converted["classifier.known_labels"], known)


def test_command_writes_a_folder_that_loads(tmp_path, capsys):
    official, proxy = fill_state_dict(PLP), torch.rand(NUM_NODES, 2)
    torch.save(official, tmp_path / "student.pth")
    torch.save(proxy, tmp_path / "proxy.pth")
    command = ["--checkpoint", str(tmp_path / "student.pth"), "--proxy", str(tmp_path / "proxy.pth")]

    main([*command, "--output_dir", str(tmp_path / "student"), "--num_propagation_steps", "4"])

    model = ReliantForNodeClassification.from_pretrained(tmp_path / "student")
    assert model.config.num_propagation_steps == 4
    assert torch.equal(model.reliant.proxy_mean, proxy.mean(0))
    report = json.loads((tmp_path / "student" / "parity_report.json").read_text())
    assert report["names"]["dropped"] == {"alpha": "never used by the authors' code"}
    assert report["round_trip"] == {"tensors": 6, "bit_equal": 6}
    assert report["deterministic_fill"] == {"tensors": 6, "bit_equal": 6}
    assert "6 of 7 matched, 1 dropped" in capsys.readouterr().out


def without(shapes: dict, name: str) -> dict:
    return {key: shape for key, shape in shapes.items() if key != name}


@pytest.mark.parametrize(
    ("official", "message"),
    [
        (without(SGC, "layers.1.fc.bias"), r"missing: layers\.1\.fc\.bias"),
        ({**GCN, "surplus.weight": (2, 2)}, r"unexpected: surplus\.weight"),
        ({**SAGE, "layers.1.bias": (9,)}, r"layers\.1\.bias \[9\] instead of \[7\]"),
        ({"conv.weight": (2, 2)}, r"must be one of \['plp', 'sage', 'sgc', 'gcn'\]"),
    ],
    ids=["missing", "surplus", "shape", "other-network"],
)
def test_command_refuses_incomplete_files(official, message, tmp_path):
    torch.save(fill_state_dict(official), tmp_path / "net.pth")

    with pytest.raises(SystemExit, match=f"error: .*{message}"):
        main(["--checkpoint", str(tmp_path / "net.pth"), "--output_dir", str(tmp_path / "out")])

    assert not (tmp_path / "out").exists()


def test_command_refuses_a_proxy_of_another_shape(tmp_path):
    torch.save(fill_state_dict(SGC), tmp_path / "net.pth")
    torch.save(torch.rand(NUM_NODES, 3), tmp_path / "proxy.pth")
    command = ["--checkpoint", str(tmp_path / "net.pth"), "--proxy", str(tmp_path / "proxy.pth")]

    with pytest.raises(SystemExit, match=r"`proxy` must be a tensor of shape \(num_nodes, 2\); got \(6, 3\)"):
        main([*command, "--output_dir", str(tmp_path / "out")])


class Hostile:
    """Makes a file when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch '{self.mark}'",)


@pytest.mark.parametrize("place", ["checkpoint", "proxy"])
def test_command_runs_nothing_that_a_file_brings(place, tmp_path):
    contents = {
        "checkpoint": fill_state_dict(SGC),
        "proxy": torch.rand(NUM_NODES, 2),
        place: Hostile(tmp_path / "mark"),
    }
    command = ["--output_dir", str(tmp_path / "out")]
    for name, content in contents.items():
        torch.save(content, tmp_path / f"{name}.pth")
        command += [f"--{name}", str(tmp_path / f"{name}.pth")]

    with pytest.raises(SystemExit, match="error: "):
        main(command)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.pth", "proxy.pth"]


def test_refuses_a_proxy_for_a_teacher():
    with pytest.raises(ConversionError, match="`proxy` must be left out for a gcn teacher"):
        infer_config(fill_state_dict(GCN), has_proxy=True)


def test_refuses_known_labels_without_a_place():
    official = fill_state_dict(SGC)

    with pytest.raises(ConversionError, match=r"have a place for `classifier\.known_labels`"):
        convert_state_dict(official, infer_config(official, True), known_labels=torch.zeros(NUM_NODES).long())
