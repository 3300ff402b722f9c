"""Parameter groups and frozen parts, by the kinds of modules."""

import pytest
import torch
from torch import nn

from decahub.models.reft.optimization import (
    build_parameter_groups,
    freeze_for_setting,
    reset_class_rows,
    training_step,
)
from tests.tiny.reft import NUM_LABELS, SWIN, tiny_labels, tiny_model, tiny_pixels


NORMS = (nn.LayerNorm, nn.GroupNorm, nn.BatchNorm2d)


@pytest.mark.parametrize("fields", [{"freeze_batch_norm": False}, {"backbone_config": SWIN}], ids=["resnet", "swin"])
@pytest.mark.parametrize("classifier", ["linear", "cosine"])
def test_norms_embeddings_and_tables_are_free_of_decay(fields, classifier):
    model = tiny_model(**fields, classifier=classifier)

    groups = build_parameter_groups(model, 1e-4, weight_decay=0.05)

    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        is_norm = isinstance(model.get_submodule(name.rpartition(".")[0]), NORMS)
        is_table = name.endswith(
            ("embed.weight", "embedder.weight", "queries_features.weight", "level_embed", "table")
        )
        is_free = is_norm or is_table or name.endswith("logit_scale")
        assert decay[id(parameter)] == (0 if is_free else 0.05), name


def test_backbone_learns_slower():
    model = tiny_model()

    groups = build_parameter_groups(model, 1e-3, backbone_factor=0.1)

    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            expected = 1e-4 if name.startswith("model.pixel_level_module.encoder.") else 1e-3
            assert rates[id(parameter)] == pytest.approx(expected)


@pytest.mark.parametrize("setting", ["fsis", "gfsis"])
def test_few_shot_training_freezes_the_backbone(setting):
    model = tiny_model(freeze_batch_norm=False)

    freeze_for_setting(model, setting)

    for name, parameter in model.named_parameters():
        assert parameter.requires_grad != name.startswith("model.pixel_level_module.encoder.")


def test_incremental_training_keeps_projections_references_and_head():
    model = tiny_model()

    freeze_for_setting(model, "ifsis")

    trained = {name.split(".weight")[0].split(".bias")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert all("input_projections" in n or "_reference." in n or n == "class_predictor" for n in trained)
    assert {"class_predictor", "model.query_reference.q_proj"} <= trained
    assert not any(name.startswith("model.transformer_module") for name in trained)


def test_refuses_an_unknown_setting():
    with pytest.raises(ValueError, match="`setting` must be one of base, fsis, gfsis, ifsis; got 'few'"):
        freeze_for_setting(tiny_model(), "few")


def test_projections_have_a_rate_of_their_own():
    model = tiny_model()

    groups = build_parameter_groups(model, 1e-2, backbone_factor=0.5, projection_factor=0.25)

    rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    factors = {"model.pixel_level_module.encoder": 0.5, "model.pixel_level_module.decoder.input_projections": 0.25}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            factor = next((factor for part, factor in factors.items() if name.startswith(part)), 1)
            assert rates[id(parameter)] == pytest.approx(1e-2 * factor), name


def test_rows_of_new_classes_begin_anew():
    model = tiny_model()
    weight, bias = (tensor.clone() for tensor in (model.class_predictor.weight, model.class_predictor.bias))

    reset_class_rows(model, [1, 3])

    kept = [0, 2, 4, NUM_LABELS]
    assert torch.equal(model.class_predictor.weight[kept], weight[kept])
    assert torch.equal(model.class_predictor.bias[kept], bias[kept])
    assert not torch.isclose(model.class_predictor.weight[[1, 3]], weight[[1, 3]]).any()
    expected = bias[[0, 2, 4]].mean().expand(2)
    torch.testing.assert_close(model.class_predictor.bias[[1, 3]].detach(), expected)


@pytest.mark.parametrize("classifier", ["cosine", "prototype"])
def test_refuses_to_reset_rows_of_another_head(classifier):
    with pytest.raises(ValueError, match="must have a linear classifier; got RefT"):
        reset_class_rows(tiny_model(classifier=classifier), [1])


def test_a_step_logs_each_term_summed_over_the_layers():
    model = tiny_model()
    batch = {"pixel_values": tiny_pixels(), **tiny_labels()}
    torch.manual_seed(0)
    loss_dict = model(**batch).loss_dict
    torch.manual_seed(0)

    terms = training_step(model, batch)

    assert sorted(terms) == ["loss", "loss_cross_entropy", "loss_dice", "loss_mask"]
    assert terms["loss"].requires_grad
    assert terms["loss"].item() == pytest.approx(sum(value.item() for value in loss_dict.values()), rel=1e-6)
    dice = [value.item() for name, value in loss_dict.items() if "dice" in name]
    assert len(dice) == 4
    assert terms["loss_dice"].item() == pytest.approx(sum(dice), rel=1e-6)
