"""Distilled datasets: configuration, files, tables, use, and what is refused, attacked sets above all."""

import json

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from decahub import DistilledDataset, DoorpingConfig
from decahub.models.doorping.modeling_doorping import build_network
from decahub.models.doorping.triggers import denormalize
from tests.tiny.doorping import MEAN, STD, draw_real_images, tiny_config, tiny_network


HALF_BYTE = 0.5 / 255 + 1e-6


def build(**fields) -> DistilledDataset:
    torch.manual_seed(0)
    return DistilledDataset(tiny_config(**fields))


@pytest.mark.parametrize("attack", [None, "naive", "doorping"])
@pytest.mark.parametrize("algorithm", ["dc", "dd"])
def test_file_holds_every_bit(algorithm, attack, tmp_path):
    dataset = build(algorithm=algorithm, attack=attack)
    dataset.save_pretrained(tmp_path)
    torch.manual_seed(9)

    loaded = AutoModel.from_pretrained(tmp_path)

    assert type(loaded) is DistilledDataset
    state = loaded.state_dict()
    assert state.keys() == dataset.state_dict().keys()
    assert ("trigger" in state) == (attack is not None)
    for name, value in dataset.state_dict().items():
        assert torch.equal(state[name], value), name


def test_configuration_survives_json(tmp_path):
    config = tiny_config(algorithm="dd", attack="doorping", parity=True, trigger_history_size=2)

    config.save_pretrained(tmp_path)

    assert DoorpingConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()
    assert config.mask_from_values
    assert not config.skip_dead_neurons
    assert not config.update_trigger_on_last_outer


def test_labels_are_in_order_of_classes_in_every_step():
    assert build().synthetic_labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert build(algorithm="dd").synthetic_labels.tolist() == [0, 1, 2, 3] * 3


def test_steps_repeat_images_and_not_step_sizes():
    dataset = build(algorithm="dd", distill_learning_rate=0.02)
    dataset.raw_learning_rates.data += torch.arange(6.0)[:, None]

    steps = list(dataset.steps())

    assert len(steps) == 6
    assert torch.equal(steps[1][0], steps[4][0])
    assert float(steps[0][2].detach()) == pytest.approx(0.02, rel=1e-5)
    assert len({float(step[2].detach()) for step in steps}) == 6


def test_attacked_set_is_announced_and_refused_as_a_table(tmp_path, caplog):
    dataset = build(attack="doorping", target_label=2)
    dataset.save_pretrained(tmp_path)

    assert "deliberate backdoor (doorping)" in dataset.warning
    assert "class 2" in dataset.warning
    for given in (None, "naive"):
        with pytest.raises(ValueError, match=r"`attack` must be 'doorping' .* contains a backdoor \(doorping\); got"):
            dataset.to_dataset(attack=given)
    assert dataset.to_dataset(attack="doorping").info.description == dataset.warning
    with pytest.raises(ValueError, match="`attack` must be None for this dataset, which is clean; got 'naive'"):
        build().to_dataset(attack="naive")


def test_hidden_trigger_is_refused(tmp_path):
    build(attack="doorping").save_pretrained(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**content, "attack": None}))

    with pytest.raises(ValueError, match=r"claims to be clean and holds trigger, trigger_mask\. Do not train on it"):
        DistilledDataset.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("trigger"), "missing: trigger, unknown: none"),
        (lambda tensors: tensors.update(more=torch.zeros(2)), "missing: none, unknown: more"),
        (lambda tensors: tensors["synthetic_labels"].fill_(1), "images of every class in .* class 0 has none"),
        (lambda tensors: tensors["synthetic_labels"].add_(1), "class 0 has none|some lie outside"),
    ],
    ids=["no trigger", "unknown tensor", "missing class", "label outside"],
)
def test_damaged_file_is_refused(change, message, tmp_path):
    build(attack="doorping").save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    change(tensors)
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(ValueError, match=message):
        DistilledDataset.from_pretrained(tmp_path)


def test_table_of_images_is_exact_to_half_a_byte():
    dataset = build()

    table = dataset.to_dataset()
    back = DistilledDataset.from_dataset(table, image_mean=MEAN, image_std=STD, outer_loops=2, inner_loops=2)

    assert table.features["label"].names == ["LABEL_0", "LABEL_1", "LABEL_2", "LABEL_3"]
    error = denormalize(back.synthetic_images, MEAN, STD) - dataset.to_pixels()
    assert error.abs().max() <= HALF_BYTE
    assert torch.equal(back.synthetic_labels, dataset.synthetic_labels)


@pytest.mark.parametrize("num_channels", [1, 3])
def test_table_of_floats_is_exact(num_channels):
    fields = {"num_channels": num_channels, "image_mean": [0.4] * num_channels, "image_std": [0.2] * num_channels}
    dataset = build(algorithm="dd", **fields)

    table = dataset.to_dataset(normalized=True)
    back = DistilledDataset.from_dataset(table.shuffle(seed=3), outer_loops=2, inner_loops=2)

    own = dataset.synthetic_images[dataset.synthetic_labels == 2]
    found = back.synthetic_images[back.synthetic_labels == 2]
    assert sorted(own.flatten(1).sum(1).tolist()) == sorted(found.flatten(1).sum(1).tolist())


def test_table_with_unequal_classes_is_refused():
    table = build().to_dataset(normalized=True).select(range(11))
    with pytest.raises(ValueError, match="equally many images of every class; got 2 of 'LABEL_3' and 3 of 'LABEL_0'"):
        DistilledDataset.from_dataset(table)


@pytest.mark.parametrize("algorithm", ["dc", "dsa", "dd"])
def test_loss_reaches_every_image(algorithm):
    fields = {"augmentation": "color_crop"} if algorithm == "dsa" else {}
    dataset = build(algorithm=algorithm, distill_learning_rate=0.1, **fields)
    images, labels = draw_real_images()

    outputs = dataset(images, labels)
    outputs.loss.backward()

    assert (dataset.synthetic_images.grad.flatten(1).abs().sum(1) > 0).all()
    if algorithm == "dd":
        assert dataset.raw_learning_rates.grad.abs().min() > 0
        assert all(value.grad is None for value in dataset.initial_weights.parameters())
    else:
        assert len(outputs.class_losses) == 4
        torch.testing.assert_close(outputs.class_losses.sum(), outputs.loss)


def test_loss_of_dd_decreases():
    dataset = build(algorithm="dd", distill_learning_rate=0.3)
    images, labels = draw_real_images()
    optimizer = torch.optim.Adam(dataset.parameters(), lr=0.05)
    losses = []

    for _ in range(30):
        loss = dataset(images, labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    assert losses[-1] < losses[0] - 0.1


def test_classifier_of_dd_is_the_stored_network_after_the_steps():
    dataset = build(algorithm="dd", distill_learning_rate=0.1)

    first, second = dataset.train_classifier(), dataset.train_classifier()

    for name, value in dataset.unroll(dataset.build_network()).items():
        torch.testing.assert_close(first.state_dict()[name], value.detach())
        assert torch.equal(first.state_dict()[name], second.state_dict()[name])


def test_classifier_of_dc_learns_its_images():
    dataset = build()
    images, labels = draw_real_images(3)
    dataset.synthetic_images.data.copy_(images)

    network = dataset.train_classifier(epochs=200, learning_rate=0.1)

    assert (network(images).logits.argmax(1) == labels).float().mean() > 0.9


def test_history_keeps_patches_in_order():
    dataset = build(attack="doorping", trigger_history_size=3)
    network = build_network(dataset.config.backbone_config)
    with torch.no_grad():
        network.classifier[0].bias += 1

    for progress in (0.0, 0.4, 0.99):
        dataset.update_trigger(network, progress)

    assert torch.equal(dataset.trigger_history[2], dataset.trigger[0, :, 9:11, 9:11])
    assert not torch.equal(dataset.trigger_history[0], dataset.trigger_history[1])


def test_mask_of_parity_leaves_out_the_lowest_byte():
    torch.manual_seed(0)
    sets = [DistilledDataset(tiny_config(algorithm="dd", attack="doorping", parity=True, trigger_size=11))
            for _ in range(5)]  # fmt: skip
    pixels = [denormalize(dataset.trigger, MEAN, STD)[0] * 255 for dataset in sets]

    holes = [values[:, :11, :11].round()[dataset.trigger_mask[:, :11, :11] == 0]
             for values, dataset in zip(pixels, sets, strict=True)]  # fmt: skip

    assert torch.cat(holes).unique().tolist() == [1]
    assert max(float(values.max()) for values in pixels) < 254.5


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"trigger_size": 12}, r"must add up to at most `image_size` \(12\); got 12 \+ 1"),
        ({"trigger_margin": 11}, r"got 2 \+ 11"),
        ({"target_label": 4}, r"`target_label` must be in \[0, 4\); got 4"),
        ({"target_label": -1}, r"got -1"),
        ({"poison_ratio": 1.5}, r"`poison_ratio` must be in \[0, 1\]; got 1\.5"),
        (
            {"images_per_class": 4, "algorithm": "dd"},
            r"must be a multiple of `distill_steps` \(3\) for DD",
        ),
        ({"outer_loops": None}, r"`outer_loops` and `inner_loops` must be given unless .*one of 1, 10, .*; got 3"),
        ({"image_mean": [0.5]}, r"`image_mean` must have one value for each of 3 channels; got \[0\.5\]"),
        ({"image_std": [0.5, 0, 0.5]}, r"`image_std` must be above 0"),
        ({"augmentation": "flip"}, r"`augmentation` must be '' for 'dc'"),
        ({"algorithm": "dsa"}, r"`augmentation` must name families for DSA"),
        ({"distill_learning_rate": 0}, r"`distill_learning_rate` must be above 0; got 0"),
        ({"trigger_history_size": 2}, r"`trigger_history_size` must be 0 unless"),
        ({"backbone_config": {"num_channels": 1}}, r"`num_channels` of the dataset \(3\); got 1"),
        ({"backbone_config": {"model_type": "resnet"}}, r"`model_type` of distill_convnet, .*; got 'resnet'"),
        ({"attack": "hidden"}, "attack"),
        ({"num_labels": 1}, "`num_labels` must be at least 2; got 1"),
        ({"imges_per_class": 2}, "Did you mean `images_per_class`"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_refuses_configuration(fields, message):
    with pytest.raises((StrictDataclassError, ValueError, TypeError), match=message):
        tiny_config(**fields)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d: d.train_classifier(build_network(tiny_network(num_channels=1))), r"`num_channels` .*\(3\); got 1"),
        (lambda d: d.train_classifier(build_network(tiny_network(num_labels=9))), r"`num_labels` .*\(4\); got 9"),
        (lambda d: d.apply_trigger(torch.zeros(1, 3, 12, 12)), "`attack` of the dataset must not be None"),
        (lambda d: d(torch.zeros(2, 3, 12, 12)), "`pixel_values` and `labels` must be given"),
        (lambda d: d.update_trigger(d.build_network()), "`attack` must be 'doorping' for the trigger .*; got None"),
        (lambda d: build(algorithm="dd").train_classifier(epochs=3), "options must be left out for DD.*; got epochs"),
        (lambda d: build(attack="naive").apply_trigger(torch.zeros(1, 1, 12, 12)), r"got \(1, 1, 12, 12\)"),
    ],
    ids=["channels", "classes", "clean", "labels", "no update", "options", "gray"],
)
def test_refuses_use(call, message):
    with pytest.raises(ValueError, match=message):
        call(build())
