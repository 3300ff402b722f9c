"""Parameter groups and the learning rate of TinyMIM's recipes."""

import pytest
import torch

from decahub import TinyMimForImageClassification, TinyMimForSemanticSegmentation
from decahub.models.tinymim.optimization import (
    build_layer_decay_parameter_groups,
    build_pretraining_parameter_groups,
    compute_learning_rate,
    distillation_step,
)
from tests.tiny.tinymim import tiny_config, tiny_pixels, tiny_student


def find_group(model, groups, name):
    parameter = dict(model.named_parameters())[name]
    return next(group for group in groups if any(item is parameter for item in group["params"]))


def test_every_parameter_is_in_one_group():
    model = TinyMimForImageClassification(tiny_config())

    groups = build_layer_decay_parameter_groups(model, 1e-3, 0.05, 0.5)

    ids = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(ids) == sorted(id(parameter) for parameter in model.parameters())


@pytest.mark.parametrize("wrap", ["compile", "data parallel", "adapter"])
def test_wrappers_do_not_change_learning_rates(wrap):
    model = TinyMimForImageClassification(tiny_config())
    plain = {id(item): group["lr"] for group in build_layer_decay_parameter_groups(model, 1e-3, 0.05, 0.5)
             for item in group["params"]}  # fmt: skip
    if wrap == "compile":
        wrapped = torch.compile(model)
    elif wrap == "data parallel":
        wrapped = torch.nn.DataParallel(model)
    else:
        peft = pytest.importorskip("peft", reason="adapters need `pip install peft`")
        wrapped = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["qkv"]))
        wrapped.requires_grad_(True)

    groups = build_layer_decay_parameter_groups(wrapped, 1e-3, 0.05, 0.5)

    rates = {id(item): group["lr"] for group in groups for item in group["params"]}
    assert {key: rates[key] for key in plain} == plain
    assert {group["lr"] for group in groups} == set(plain.values())


@pytest.mark.parametrize(
    ("name", "depth", "decays"),
    [
        ("tinymim.embeddings.cls_token", 0, False),
        ("tinymim.embeddings.position_embeddings", 0, False),
        ("tinymim.embeddings.patch_embeddings.weight", 0, True),
        ("tinymim.layers.0.mlp.fc1.weight", 1, True),
        ("tinymim.layers.2.mlp.fc1.bias", 3, False),
        ("fc_norm.weight", 4, False),
        ("classifier.weight", 4, True),
    ],
)
def test_learning_rate_falls_with_depth(name, depth, decays):
    model = TinyMimForImageClassification(tiny_config())

    group = find_group(model, build_layer_decay_parameter_groups(model, 1e-3, 0.05, 0.5), name)

    assert group["lr"] == pytest.approx(1e-3 * 0.5 ** (4 - depth))
    assert group["weight_decay"] == (0.05 if decays else 0.0)


def test_segmentation_heads_are_last_and_embeddings_can_decay():
    model = TinyMimForSemanticSegmentation(tiny_config(decode_hidden_size=12, auxiliary_hidden_size=6))

    groups = build_layer_decay_parameter_groups(model, 1e-3, 0.05, 0.5, decay_embeddings=True)

    assert find_group(model, groups, "pyramid.fine.0.weight")["lr_scale"] == 1
    assert find_group(model, groups, "tinymim.embeddings.cls_token")["weight_decay"] == 0.05


def test_pretraining_decays_the_class_token_and_leaves_positions_out():
    student = tiny_student()

    groups = build_pretraining_parameter_groups(student, 0.05)

    assert find_group(student, groups, "tinymim.embeddings.cls_token")["weight_decay"] == 0.05
    assert find_group(student, groups, "tinymim.layers.0.layernorm_before.weight")["weight_decay"] == 0.0
    positions = student.tinymim.embeddings.position_embeddings
    assert all(item is not positions for group in groups for item in group["params"])


def test_layer_decay_out_of_range_is_refused():
    with pytest.raises(ValueError, match="`layer_decay` must lie in"):
        build_layer_decay_parameter_groups(TinyMimForImageClassification(tiny_config()), 1e-3, 0.05, 1.5)


def test_learning_rate_starts_at_zero_and_ends_at_the_floor():
    options = {"num_epochs": 20, "num_warmup_epochs": 2, "learning_rate": 0.1, "min_learning_rate": 0.01}

    assert compute_learning_rate(0, **options) == 0
    assert compute_learning_rate(1, **options) == pytest.approx(0.05)
    assert compute_learning_rate(2, **options) == pytest.approx(0.1)
    assert compute_learning_rate(11, **options) == pytest.approx(0.055)
    assert compute_learning_rate(20, **options) == pytest.approx(0.01)


def test_distillation_returns_the_terms_of_its_loss():
    pixels = tiny_pixels()
    student = tiny_student(student_input="masked", reconstruction_weight=0.5)

    terms = distillation_step(student, {"pixel_values": pixels, "labels": None})

    assert set(terms) == {"loss", "relation_loss_0", "relation_loss_1", "reconstruction_loss"}
    expected = terms["relation_loss_0"] + terms["relation_loss_1"] + 0.5 * terms["reconstruction_loss"]
    assert terms["loss"].item() == pytest.approx(expected.item(), rel=1e-6)
