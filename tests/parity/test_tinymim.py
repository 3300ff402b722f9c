"""TinyMIM computes the authors' numbers from the authors' weights: every golden file, by its kind.

What each key means, and how the files were made, is in the README of the golden folder.
"""

import pytest
import torch

from conversion.convert_tinymim import convert_state_dict
from conversion.layouts_tinymim import CLASSIFICATION, PRETRAINING, build_name_map, build_official_shapes
from decahub import TinyMimConfig, TinyMimForImageClassification, TinyMimForPreTraining
from decahub.models.tinymim.optimization import (
    build_layer_decay_parameter_groups,
    build_pretraining_parameter_groups,
    compute_learning_rate,
)
from decahub.models.tinymim.position_embeddings import build_position_embeddings
from tests.parity.golden import assert_near, golden_params
from tests.parity.tinymim_models import (
    FLOAT32,
    PRECISIONS,
    TEACHERS,
    WAYS,
    assert_norm_near,
    build_backbone,
    build_classifier,
    build_classifier_config,
    build_student,
    name_officially,
    to_fields,
)


POSITION_ATOL = 2**-23  # one unit in the last place of sines and cosines near 1
RATE_RTOL = 1e-12  # float64 arithmetic in another order

KNOWN_KEYS = {
    "pretraining": [
        r"(teacher|student)\..+",
        r"(teacher_)?pixel_values",
        r"(teacher|student)_(qk|vv)",
        r"(qk_|vv_)?loss",
        r"grad\..+",
        r"traj_(losses|lr)",
        r"traj_final\..+",
    ],
    "classifier": [
        r"(ckpt|extra|grad)\..+",
        r"pixel_values",
        r"soft_labels",
        r"pooled",
        r"logits",
        r"loss",
        r"pos_embed_resized",
    ],
    "position_embedding": [r"pos_\d+_\d+"],
    "segmentation_backbone": [r"backbone\..+", r"pixel_values", r"feature_\d+"],
}

in_all_precisions = pytest.mark.parametrize("precision", PRECISIONS, ids=str)
in_all_ways = pytest.mark.parametrize("way", WAYS)


@pytest.mark.parametrize("golden", golden_params("tinymim"))
def test_every_number_of_a_file_is_looked_at(golden):
    assert golden.kind in KNOWN_KEYS, f"{golden.path.name}: no test for `golden_kind` {golden.kind!r}"
    assert golden.unknown_keys(KNOWN_KEYS[golden.kind]) == []


# --- Pre-training


def run_student(model: TinyMimForPreTraining, golden, **options):
    dtype = model.dtype
    views = {name: golden[name].to(dtype) for name in ("pixel_values", "teacher_pixel_values")}
    return model(**views, **options)


def assert_relations_near(output, golden, atol: float) -> None:
    for index, pair in enumerate(("qk", "vv")):
        assert_near(output.relations[index], golden[f"student_{pair}"], atol, what=f"student_{pair}")
        assert_near(output.teacher_relations[index], golden[f"teacher_{pair}"], atol, what=f"teacher_{pair}")
        assert_near(output.relation_losses[index], golden[f"{pair}_loss"].squeeze(), atol, what=f"{pair}_loss")
    assert_near(output.loss, golden["loss"].squeeze(), atol, what="loss")


@in_all_ways
@in_all_precisions
@pytest.mark.parametrize("golden", golden_params("tinymim", "pretraining"))
def test_relations_and_losses(golden, precision, way):
    model = build_student(golden, precision, way)

    output = run_student(model, golden, output_relations=True)

    assert_relations_near(output, golden, precision.atol)


@pytest.mark.parametrize("wrap", [False, True], ids=["model", "adapter"])
@pytest.mark.parametrize("teacher", TEACHERS)
@pytest.mark.parametrize("golden", golden_params("tinymim", "pretraining"))
def test_teachers_of_every_class_give_the_same_relations(golden, teacher, wrap):
    model = build_student(golden, teacher=teacher, wrap=wrap)

    output = run_student(model, golden, output_relations=True)
    again = run_student(model, golden, output_relations=True)

    assert_relations_near(output, golden, FLOAT32.atol)
    for first, second in zip(output.teacher_relations, again.teacher_relations, strict=True):
        assert torch.equal(first, second)  # no random order of patches


@pytest.mark.parametrize("golden", golden_params("tinymim", "pretraining"))
def test_stored_relations_take_the_place_of_a_teacher(golden):
    model = build_student(golden)
    model.teacher = None

    targets = torch.stack([golden["teacher_qk"], golden["teacher_vv"]], dim=1)
    output = model(pixel_values=golden["pixel_values"], teacher_relations=targets)

    assert_near(output.loss, golden["loss"].squeeze(), FLOAT32.atol, what="loss")


@in_all_ways
@in_all_precisions
@pytest.mark.parametrize("golden", golden_params("tinymim", "pretraining"))
def test_gradients_of_pretraining(golden, precision, way):
    model = build_student(golden, precision, way)

    run_student(model, golden).loss.backward()

    parameters = name_officially(model, PRETRAINING)
    for name, gradient in golden.group("grad.").items():
        assert_norm_near(parameters[name].grad, gradient, precision.gradient_rtol, f"gradient of {name}")
    without = {name for name, parameter in parameters.items() if parameter.requires_grad and parameter.grad is None}
    assert without == set(golden.json("no_grad"))


@in_all_precisions
@pytest.mark.parametrize("golden", golden_params("tinymim", "pretraining"))
def test_three_training_steps(golden, precision):
    model = build_student(golden, precision)
    settings = golden.json("traj")
    groups = build_pretraining_parameter_groups(model, settings["weight_decay"])
    optimizer = torch.optim.AdamW(groups, lr=settings["lr"], betas=tuple(settings["betas"]))

    for step, epoch in enumerate(settings["epochs_at_steps"]):
        rate = compute_learning_rate(
            epoch,
            num_epochs=settings["epochs"],
            num_warmup_epochs=settings["warmup_epochs"],
            learning_rate=settings["lr"],
            min_learning_rate=settings["min_lr"],
        )
        assert_near(torch.tensor(rate, dtype=torch.float64), golden["traj_lr"][step], 0.0, RATE_RTOL, "learning rate")
        for group in optimizer.param_groups:
            group["lr"] = rate
        output = run_student(model, golden)
        assert_near(output.relation_losses, golden["traj_losses"][step], precision.atol, what=f"losses of step {step}")
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()

    parameters = name_officially(model, PRETRAINING)
    for name, value in golden.group("traj_final.").items():
        assert_norm_near(parameters[name], value, precision.trajectory_rtol, f"{name} after the last step")


# --- Fine-tuning


@in_all_ways
@in_all_precisions
@pytest.mark.parametrize("golden", golden_params("tinymim", "classifier"))
def test_classifier(golden, precision, way):
    model = build_classifier(golden, precision, way)
    pooled = []
    model.classifier.register_forward_pre_hook(lambda module, inputs: pooled.append(inputs[0]))

    output = model(golden["pixel_values"].to(precision.dtype), labels=golden["soft_labels"].to(precision.dtype))
    output.loss.backward()

    table = model.tinymim.embeddings.position_embeddings
    assert_near(table, golden["pos_embed_resized"], precision.atol, what="pos_embed_resized")
    assert_near(pooled[0], golden["pooled"], precision.atol, what="pooled")
    assert_near(output.logits, golden["logits"], precision.atol, what="logits")
    assert_near(output.loss, golden["loss"].squeeze(), precision.atol, what="loss")
    parameters = name_officially(model, CLASSIFICATION)
    for name, gradient in golden.group("grad.").items():
        assert_norm_near(parameters[name].grad, gradient, precision.gradient_rtol, f"gradient of {name}")


@pytest.mark.parametrize("golden", golden_params("tinymim", "classifier"))
def test_parameter_groups_of_layer_decay(golden):
    model = build_classifier(golden)
    expected = golden.json("param_groups")
    weight_decay = max(decay for _, decay in expected.values())

    layer_decay = float(golden.metadata["layer_decay"])
    groups = build_layer_decay_parameter_groups(model, 1.0, weight_decay, layer_decay)

    parameters = name_officially(model, CLASSIFICATION)
    names = {id(parameter): name for name, parameter in parameters.items()}
    actual = {
        names[id(parameter)]: (group["lr_scale"], group["lr"], group["weight_decay"])
        for group in groups
        for parameter in group["params"]
    }
    assert actual.keys() == expected.keys()
    for name, (scale, decay) in expected.items():
        assert actual[name] == pytest.approx((scale, scale, decay), rel=RATE_RTOL), name


@pytest.mark.parametrize("golden", golden_params("tinymim", "classifier"))
def test_loading_a_pretraining_folder_reports_what_the_authors_do(golden, tmp_path):
    network = golden.json("config")
    fields = to_fields(network) | {"image_size": network["checkpoint_image_size"]}
    pretrained = TinyMimForPreTraining(TinyMimConfig(**fields))
    pretrained.load_state_dict(convert_state_dict(golden.group("ckpt."), pretrained.config))
    pretrained.save_pretrained(tmp_path)
    config = build_classifier_config(golden)
    config.image_size = network["checkpoint_image_size"]

    _, report = TinyMimForImageClassification.from_pretrained(tmp_path, config=config, output_loading_info=True)

    revert = build_name_map(CLASSIFICATION).revert
    assert sorted(map(revert, report["missing_keys"])) == golden.json("missing")
    assert sorted(map(revert, report["unexpected_keys"])) == golden.json("unexpected")
    assert not report["mismatched_keys"]


@pytest.mark.parametrize("golden", golden_params("tinymim", "classifier"))
def test_names_of_a_pretraining_file_and_a_classifier_differ_as_reported(golden):
    names = set(golden.group("ckpt."))
    wanted = set(build_official_shapes(build_classifier_config(golden), CLASSIFICATION))

    assert sorted(wanted - names) == golden.json("missing")
    assert sorted(names - wanted) == golden.json("unexpected")


# --- Position tables and segmentation


def name_tables(golden) -> list[str]:
    return list(golden.tensors)


@pytest.mark.parametrize(("golden", "name"), golden_params("tinymim", "position_embedding", name_tables))
def test_position_tables(golden, name):
    hidden_size, side = (int(part) for part in name.split("_")[1:])

    table = build_position_embeddings(hidden_size, (side, side))

    assert_near(table.squeeze(0), golden[name].reshape(table.shape[1:]), POSITION_ATOL, what=name)
    assert table[:, 0].eq(0).all()


@in_all_ways
@in_all_precisions
@pytest.mark.parametrize("golden", golden_params("tinymim", "segmentation_backbone"))
def test_segmentation_features(golden, precision, way):
    model = build_backbone(golden, precision, way)

    with torch.no_grad():
        maps = model(golden["pixel_values"].to(precision.dtype)).feature_maps

    expected = golden.group("feature_")
    assert len(maps) == len(expected)
    for index, feature_map in enumerate(maps):
        assert_near(feature_map, expected[str(index)], precision.atol, what=f"feature_{index}")
