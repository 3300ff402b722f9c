"""The converter: layouts of DC and DD both ways, networks, triggers, refusals."""

import json
import pickle

import pytest
import torch

from conversion.checkpoint import ConversionError
from conversion.convert_doorping import (
    build_set,
    find_patch,
    infer_network,
    main,
    parse_set,
    revert_network,
    revert_set,
)
from decahub import AlexNetConfig, ConvNetConfig, DistilledDataset
from decahub.models.doorping.modeling_doorping import build_network
from decahub.models.doorping.triggers import build_mask, draw_bytes, normalize
from decahub.models.doorping.unrolling import copy_weights, flatten_weights


NUM_CLASSES = 10
GRAY = ([0.2861], [0.3530])


def draw_dc(num_channels=3):
    torch.manual_seed(0)
    images = torch.randn(2 * NUM_CLASSES, num_channels, 32, 32)
    labels = torch.arange(NUM_CLASSES).repeat_interleave(2)
    return {"data": [[images * 0, labels], [images, labels]], "accs_all_exps": {"ConvNet": [0.4]}}


def draw_dd(num_steps=3, epochs=2):
    torch.manual_seed(0)
    sets = [torch.randn(NUM_CLASSES, 1, 32, 32) for _ in range(num_steps)]
    rates = torch.rand(num_steps * epochs) * 0.1 + 0.01
    return [
        (sets[index % num_steps], torch.arange(NUM_CLASSES), rate.reshape(1).requires_grad_())
        for index, rate in enumerate(rates)
    ]


def draw_trigger():
    mask = build_mask(1, 32, 2, 1)
    return normalize(draw_bytes(mask, 255, torch.Generator().manual_seed(0)) / 255, *GRAY)


def test_dc_takes_the_last_experiment():
    parsed = parse_set(draw_dc())

    assert torch.equal(parsed.images, draw_dc()["data"][1][0])
    assert not parsed.is_dd


def test_snapshot_of_dc_has_labels_in_order():
    images = torch.randn(20, 3, 32, 32, requires_grad=True)

    parsed = parse_set(images)

    assert parsed.labels.tolist() == [label for label in range(10) for _ in range(2)]
    assert not parsed.images.requires_grad


@pytest.mark.parametrize(("num_steps", "epochs"), [(3, 2), (1, 4), (5, 1)])
def test_period_of_dd_is_found(num_steps, epochs):
    parsed = parse_set(draw_dd(num_steps, epochs))

    assert parsed.distill_steps == num_steps
    assert len(parsed.step_sizes) == num_steps * epochs
    assert len(parsed.images) == num_steps * NUM_CLASSES


@pytest.mark.parametrize("draw", [draw_dc, draw_dd])
def test_both_layouts_survive_the_way_back(draw):
    content = draw()
    model = build_set(parse_set(content), "cifar10" if draw is draw_dc else "fashion_mnist")

    again, first = parse_set(revert_set(model)), parse_set(content)

    assert torch.equal(again.images, first.images)
    assert torch.equal(again.labels, first.labels)
    if first.is_dd:
        torch.testing.assert_close(again.step_sizes, first.step_sizes, rtol=1e-6, atol=0)


@pytest.mark.parametrize("is_flat", [True, False])
@pytest.mark.parametrize("config", [ConvNetConfig, AlexNetConfig])
def test_network_survives_the_way_back(config, is_flat):
    fields = {"hidden_size": 6} if config is ConvNetConfig else {}
    network = build_network(config(num_channels=1, num_labels=NUM_CLASSES, **fields))
    state_dict = {"flat_w": flatten_weights(copy_weights(network))} if is_flat else network.state_dict()

    model = build_set(parse_set(draw_dd()), "fashion_mnist", state_dict)

    assert type(model.initial_weights) is type(network)
    assert torch.equal(revert_network(model)["flat_w"], flatten_weights(copy_weights(network)))


def test_statistics_are_those_of_the_distiller():
    assert build_set(parse_set(draw_dc()), "cifar10").config.image_std == [0.2023, 0.1994, 0.2010]


@pytest.mark.parametrize("has_batch_dimension", [True, False])
def test_command_writes_an_attacked_set(has_batch_dimension, tmp_path, capsys):
    trigger = draw_trigger()
    network = build_network(ConvNetConfig(num_channels=1, hidden_size=6, num_labels=NUM_CLASSES))
    files = {
        "results": draw_dd(),
        "net": network.state_dict(),
        "trigger": trigger[None].requires_grad_() if has_batch_dimension else trigger,
    }
    for name, content in files.items():
        torch.save(content, tmp_path / f"{name}.pth")

    words = [f"--{option}={tmp_path / name}.pth" for option, name in
             (("checkpoint", "results"), ("network", "net"), ("trigger", "trigger"))]  # fmt: skip
    main([*words, "--dataset=fashion_mnist", "--target_label=3", f"--output_dir={tmp_path / 'set'}"])

    loaded = DistilledDataset.from_pretrained(tmp_path / "set")
    assert (loaded.config.attack, loaded.config.target_label) == ("doorping", 3)
    assert torch.equal(loaded.trigger[0], trigger.detach())
    assert torch.equal(loaded.trigger_mask, build_mask(1, 32, 2, 1))
    assert loaded.config.id2label[3] == "Dress"
    assert json.loads((tmp_path / "set" / "parity_report.json").read_text())["attack"] == "doorping"
    assert "bit-equal both ways" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: parse_set({"images": 3}), "`data` lists images and labels"),
        (lambda: parse_set([(1, 2)]), "must list images, labels and step size of each step"),
        (lambda: parse_set(torch.zeros(7, 3, 32, 32)), "images of 10 classes; got 7 images"),
        (lambda: parse_set(torch.zeros(10, 3, 32, 30)), "must hold square images"),
        (lambda: parse_set(draw_dc(), "dm"), "`format` must be one of dc, dd, auto; got 'dm'"),
        (lambda: build_set(parse_set(draw_dc()), "imagenet"), "`dataset` must be one of fashion_mnist, .*'imagenet'"),
        (lambda: build_set(parse_set(draw_dc()), "fashion_mnist"), "images of 1 channels; got 3"),
        (lambda: build_set(parse_set(draw_dc()), "cifar10", {"flat_w": torch.zeros(5)}), "must be left out for DC"),
        (lambda: infer_network({"flat_w": torch.zeros(5)}, 1, 10), "ConvNet or AlexNet; got 5"),
        (lambda: infer_network({"a": torch.zeros(5)}, 1, 10), "it has other names"),
        (lambda: find_patch(torch.full((1, 32, 32), -0.2861 / 0.3530), *GRAY), "black everywhere"),
        (lambda: find_patch(torch.zeros(1, 32, 32), *GRAY), "square patch near the lower right corner"),
    ],
)  # fmt: skip
def test_refuses(call, message):
    with pytest.raises(ConversionError, match=message):
        call()


class Hostile:
    def __reduce__(self):
        return (print, ("executed",))


def test_refuses_a_hostile_file(tmp_path, capsys):
    (tmp_path / "set.pt").write_bytes(pickle.dumps(Hostile()))

    with pytest.raises(SystemExit, match="nothing in it was executed"):
        main(["--checkpoint", str(tmp_path / "set.pt"), "--dataset=cifar10", f"--output_dir={tmp_path / 'out'}"])

    assert "executed\n" not in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
