"""Parameter groups and frozen parts, by the kinds of modules."""

import pytest
from torch import nn

from decahub.models.reft.optimization import build_parameter_groups, freeze_for_setting
from tests.tiny.reft import SWIN, tiny_model


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
