"""RefT computes the numbers of the golden files: the base branch those of transformers' Mask2Former, the references
those of their formulas in float64. Every file is found by its kind; the README of the golden folder explains the keys.
"""

import re

import pytest
import torch

from conversion.convert_reft import convert_state_dict, infer_config, revert_state_dict
from decahub.models.reft.classifiers import RefTCosineClassifier, RefTPrototypeClassifier
from decahub.models.reft.losses.distillation import (
    compute_class_distillation_loss,
    compute_feature_distillation_loss,
)
from decahub.models.reft.references import (
    RefTReference,
    compute_class_centers,
    normalize,
    pool_support,
    select_object_queries,
)
from tests.parity.golden import assert_near, golden_params
from tests.parity.reft_models import build_base_model, build_full_model, read_labels, read_support


# The specification asks for 1e-9 and 1e-5; the golden README measured 1e-6 between the two precisions.
ATOL = {torch.float64: 1e-9, torch.float32: 1e-5}
# Unnormalized maps and gradients are sums of up to thousands of terms, so that rounding grows with their size.
RTOL = {torch.float64: 1e-9, torch.float32: 1e-4}
FLOAT32_MAP_ATOL = 5e-5
LOSS_RTOL = 1e-5  # a float32 loss of 12 terms
MODULE_ATOL = 1e-9

KNOWN_KEYS = {
    "base": [
        r"(state_dict|detectron2)\..*",
        r"input\.(pixel_values|functional_(class|mask)|(mask|class)_labels\.\d+)",
        r"output\.((aux\.\d+\.)?class_queries_logits|masks_queries_logits|functional|seeded_loss)",
        r"output\.pixel_decoder_(hidden_states\.\d|mask_features)",
        r"grad\..*",
    ],
    "full": [
        r"state_dict\.model\.(feature_reference\.\d|query_reference)\..*",
        r"input\.(pixel_values|support_pixel_values|support_masks|functional_(class|mask))",
        r"output\.(class_centers\.\d|referenced_map\.\d|support_indices|selection_scores)",
        r"output\.(object_queries|object_queries_referenced|class_queries_logits|masks_queries_logits|functional)",
        r"grad\..*",
    ],
    "reference_modules": [
        r"support_(masks|valid)",
        r"level\d\.(support_map|centers_(mean|area)|tokens|attention_weights|weights\..*)",
        r"level\d\.(attention|reweight)\.(output|functional|grad_(tokens|k_proj|norm_support))",
        r"level\d\.attention\.output_last_class_dropped_in_image1",
        r"select\.(class_logits|hidden|mask_logits|(mask|score)\.(indices|scores))",
        r"query_ref\.(input|output|functional|grad_(input|v_proj)|weights\..*)",
        r"cosine\.(weight|scale|logits)",
        r"prototype\.(logits|no_object|prototypes|(query|support)_proj\.(weight|bias))",
        r"kd\.(teacher|student|base_centers|grad_student)\.\d",
        r"kd\.(novel_union|feature_loss(_plain)?|class_loss|kept|matched|(teacher|student)_logits)",
    ],
}

base_files = pytest.mark.parametrize("golden", golden_params("reft", "base"))
full_files = pytest.mark.parametrize("golden", golden_params("reft", "full"))
module_files = pytest.mark.parametrize("golden", golden_params("reft", "reference_modules"))
both_dtypes = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])


@pytest.mark.parametrize("golden", golden_params("reft"))
def test_every_number_of_a_file_is_looked_at(golden):
    assert golden.kind in KNOWN_KEYS, f"{golden.path.name}: no test for `golden_kind` {golden.kind!r}"
    assert golden.unknown_keys(KNOWN_KEYS[golden.kind]) == []


def assert_functional(model, outputs, golden, dtype):
    """The stored functional of the logits, and its stored gradients."""
    if "output.functional" not in golden:
        return
    functional = (outputs.class_queries_logits * golden["input.functional_class"].to(dtype)).sum()
    functional = functional + (outputs.masks_queries_logits * golden["input.functional_mask"].to(dtype)).sum()
    functional.backward()
    assert_near(functional, golden["output.functional"].squeeze(), ATOL[dtype], RTOL[dtype], "functional")
    parameters = dict(model.named_parameters())
    gradients = golden.group("grad.")
    assert gradients
    for name, gradient in gradients.items():
        atol = ATOL[dtype] * max(1.0, gradient.abs().max().item())
        assert_near(parameters[name].grad, gradient, atol, RTOL[dtype], name)


# --- Base branch


@base_files
@both_dtypes
def test_base_branch(golden, dtype):
    model = build_base_model(golden, dtype)

    outputs = model(golden["input.pixel_values"].to(dtype), output_hidden_states=True, output_auxiliary_logits=True)

    for name in ("class_queries_logits", "masks_queries_logits"):
        assert_near(outputs[name], golden[f"output.{name}"], ATOL[dtype], what=name)
    auxiliary = [key for key in golden.tensors if re.fullmatch(r"output\.aux\.\d+\.class_queries_logits", key)]
    assert len(auxiliary) == len(outputs.auxiliary_logits)
    for index, logits in enumerate(outputs.auxiliary_logits):
        key = f"output.aux.{index}.class_queries_logits"
        assert_near(logits["class_queries_logits"], golden[key], ATOL[dtype], what=key)
    atol = FLOAT32_MAP_ATOL if dtype == torch.float32 else ATOL[dtype]
    maps = {f"hidden_states.{level}": value for level, value in enumerate(outputs.pixel_decoder_hidden_states)}
    for name, value in {**maps, "mask_features": outputs.pixel_decoder_last_hidden_state}.items():
        if f"output.pixel_decoder_{name}" in golden:
            assert_near(value, golden[f"output.pixel_decoder_{name}"], atol, what=name)
    assert_functional(model, outputs, golden, dtype)


@base_files
def test_loss_with_the_draws_of_transformers(golden):
    model = build_base_model(golden, torch.float32, parity_mode="transformers")

    torch.manual_seed(1234)
    loss = model(golden["input.pixel_values"], **read_labels(golden)).loss

    assert_near(loss, golden["output.seeded_loss"].squeeze(), 0, LOSS_RTOL, "loss")


@base_files
def test_both_layouts_convert_to_the_same_weights(golden):
    ours, release = golden.group("state_dict."), golden.group("detectron2.")
    if not release:
        release = revert_state_dict(ours)
    config = infer_config(release)
    config.train_num_points = golden.json("config")["train_num_points"]

    converted = convert_state_dict(release, config)

    assert converted.keys() == ours.keys()
    for name, tensor in converted.items():
        if ".swin.layernorm." not in name:  # not in the release, and read by nothing
            assert torch.equal(tensor, ours[name]), name
    back = revert_state_dict(converted)
    assert back.keys() == release.keys()
    assert all(torch.equal(back[name], release[name]) for name in release)
    again = convert_state_dict(ours, config)
    assert all(torch.equal(again[name], ours[name]) for name in ours)


@base_files
def test_sizes_are_read_off_the_tensors(golden):
    expected = golden.json("config")
    release = golden.group("detectron2.") or revert_state_dict(golden.group("state_dict."))

    config = infer_config(release)

    traceless = ("train_num_points", "backbone_config")
    assert {name: getattr(config, name) for name in expected if name not in traceless} == {
        name: value for name, value in expected.items() if name not in traceless
    }
    backbone = {name: value for name, value in expected["backbone_config"].items() if name != "image_size"}
    assert {name: getattr(config.backbone_config, name) for name in backbone} == backbone


# --- The whole model


@full_files
@both_dtypes
def test_full_model(golden, dtype):
    model = build_full_model(golden, dtype)
    pixel_values, support = golden["input.pixel_values"].to(dtype), read_support(golden, dtype)

    inner = model.model(pixel_values, **support, class_predictor=model.class_predictor)
    outputs = model(pixel_values, **support)

    # A float32 selection is right as long as no score is nearer to another than rounding.
    atol = FLOAT32_MAP_ATOL if dtype == torch.float32 else ATOL[dtype]
    for level, centers in enumerate(inner.class_centers):
        assert_near(centers[0], golden[f"output.class_centers.{level}"], atol, what=f"centers {level}")
    for level, feature_map in enumerate(inner.referenced_hidden_states):
        if f"output.referenced_map.{level}" in golden:
            assert_near(feature_map, golden[f"output.referenced_map.{level}"], atol, what=f"map {level}")
    states = inner.transformer_decoder_intermediate_states[-1].transpose(0, 1)
    assert_near(states, golden["output.object_queries"], atol, what="object queries")
    assert_near(inner.object_queries, golden["output.object_queries_referenced"], atol, what="referenced")
    assert_near(outputs.class_queries_logits, golden["output.class_queries_logits"], ATOL[dtype], what="classes")
    assert_near(outputs.masks_queries_logits, golden["output.masks_queries_logits"], ATOL[dtype], what="masks")
    assert_functional(model, outputs, golden, dtype)


@full_files
def test_selected_support_queries(golden):
    model = build_full_model(golden)
    support = read_support(golden)
    pixel_values, masks = (support[name].flatten(0, 1) for name in ("support_pixel_values", "support_masks"))

    shots = model.model.encode_shots(pixel_values, masks, model.class_predictor)

    expected = golden["output.support_indices"].flatten(0, 1)
    assert torch.equal(shots.indices, expected)
    assert_near(shots.scores, golden["output.selection_scores"].gather(1, expected), MODULE_ATOL)


@full_files
def test_memory_gives_the_numbers_of_the_support(golden):
    model = build_full_model(golden, torch.float64, classifier="linear")
    support = read_support(golden)
    names = [model.config.id2label[index] for index in range(len(support["support_masks"]))]
    shots = {name: tuple(parts) for name, *parts in zip(names, *support.values(), strict=True)}

    memory = model.register_support(shots)
    outputs = model(golden["input.pixel_values"].double(), support_memory=memory)

    assert_near(outputs.class_queries_logits, golden["output.class_queries_logits"], ATOL[torch.float64])
    assert_near(outputs.masks_queries_logits, golden["output.masks_queries_logits"], ATOL[torch.float64])


# --- The parts of the references


def list_levels(golden) -> list[int]:
    return sorted({int(key[5]) for key in golden.tensors if re.match(r"level\d\.", key)})


def build_reference(weights: dict[str, torch.Tensor], num_heads: int, reweights: bool = False) -> RefTReference:
    reference = RefTReference(len(weights["q_proj.bias"]), num_heads, reweights).double()
    reference.load_state_dict(weights)
    return reference


def compute_golden_centers(golden, level: int, shot_reduction: str) -> torch.Tensor:
    valid = golden["support_valid"]
    sums, areas = pool_support(golden[f"level{level}.support_map"], golden["support_masks"].double().flatten(0, 1))
    centers, _ = compute_class_centers(
        sums.unflatten(0, valid.shape), areas.unflatten(0, valid.shape), valid, shot_reduction
    )
    return centers


@module_files
@pytest.mark.parametrize("shot_reduction", ["mean", "area"])
def test_class_centers(golden, shot_reduction):
    for level in list_levels(golden):
        centers = compute_golden_centers(golden, level, shot_reduction)

        assert_near(centers, golden[f"level{level}.centers_{shot_reduction}"], MODULE_ATOL)


@module_files
@pytest.mark.parametrize("fusion", ["attention", "reweight"])
def test_feature_reference(golden, fusion):
    levels = [level for level in list_levels(golden) if f"level{level}.{fusion}.output" in golden]
    assert levels
    for level in levels:
        group = golden.group(f"level{level}.")
        weights = golden.group(f"level{level}.weights.")
        reference = build_reference(weights, golden.json("config")["heads"], reweights=fusion == "reweight")
        tokens = group["tokens"].clone().requires_grad_()
        centers = group["centers_mean"][None]

        output, attentions = reference(tokens, centers)
        (output * group[f"{fusion}.functional"]).sum().backward()

        assert_near(output, group[f"{fusion}.output"], MODULE_ATOL)
        assert_near(attentions, group["attention_weights"], MODULE_ATOL)
        assert_near(tokens.grad, group[f"{fusion}.grad_tokens"], MODULE_ATOL)
        assert_near(reference.k_proj.weight.grad, group[f"{fusion}.grad_k_proj"], MODULE_ATOL)
        assert_near(reference.norm_support.weight.grad, group[f"{fusion}.grad_norm_support"], MODULE_ATOL)
        if fusion == "attention":
            mask = torch.ones(len(tokens), centers.shape[1], dtype=torch.bool)
            mask[1, -1] = False
            dropped, _ = reference(tokens, centers, mask)
            assert_near(dropped, group["attention.output_last_class_dropped_in_image1"], MODULE_ATOL)


def select(golden, query_selection: str) -> tuple[torch.Tensor, torch.Tensor]:
    masks = golden["support_masks"].double().flatten(0, 1)
    num_selected = golden[f"select.{query_selection}.indices"].shape[1]
    return select_object_queries(
        query_selection, num_selected, golden["select.mask_logits"], masks, golden["select.class_logits"]
    )


@module_files
@pytest.mark.parametrize("query_selection", ["mask", "score"])
def test_selection_of_object_queries(golden, query_selection):
    indices, scores = select(golden, query_selection)

    assert torch.equal(indices, golden[f"select.{query_selection}.indices"])
    assert_near(scores, golden[f"select.{query_selection}.scores"], MODULE_ATOL)


@module_files
def test_query_reference(golden):
    indices, _ = select(golden, "mask")
    hidden, valid = golden["select.hidden"], golden["support_valid"].flatten()
    tokens = hidden.gather(1, indices[..., None].expand(-1, -1, hidden.shape[-1])).flatten(0, 1)
    mask = valid.repeat_interleave(indices.shape[1])
    reference = build_reference(golden.group("query_ref.weights."), golden.json("config")["heads"])
    queries = golden["query_ref.input"].clone().requires_grad_()

    output, _ = reference(queries, tokens[None], mask[None])
    (output * golden["query_ref.functional"]).sum().backward()

    assert_near(output, golden["query_ref.output"], MODULE_ATOL)
    assert_near(queries.grad, golden["query_ref.grad_input"], MODULE_ATOL)
    assert_near(reference.v_proj.weight.grad, golden["query_ref.grad_v_proj"], MODULE_ATOL)


@module_files
def test_cosine_classifier(golden):
    weight = golden["cosine.weight"]
    classifier = RefTCosineClassifier(weight.shape[1], len(weight) - 1, 1.0).double()
    classifier.load_state_dict({"weight": weight, "logit_scale": golden["cosine.scale"].squeeze()})

    assert_near(classifier(golden["query_ref.input"]), golden["cosine.logits"], MODULE_ATOL)


@module_files
def test_prototype_classifier(golden):
    group = golden.group("prototype.")
    indices, _ = select(golden, "mask")
    valid = golden["support_valid"]
    first = golden["select.hidden"].gather(1, indices[:, :1, None].expand(-1, -1, group["no_object"].numel()))[:, 0]
    means = (normalize(first).unflatten(0, valid.shape) * valid[..., None]).sum(1) / valid.sum(1)[:, None]
    classifier = RefTPrototypeClassifier(len(group["no_object"]), 1.0).double()
    names = ("no_object", "query_proj.weight", "query_proj.bias", "support_proj.weight", "support_proj.bias")
    weights = {name: group[name] for name in names}
    classifier.load_state_dict({**weights, "logit_scale": golden["cosine.scale"].squeeze()})

    assert_near(normalize(means), group["prototypes"], MODULE_ATOL)
    assert_near(classifier(golden["query_ref.input"], means[None]), group["logits"], MODULE_ATOL)


@module_files
def test_feature_distillation(golden):
    levels = range(len(golden.json("config")["sizes"]))
    teacher, centers = ([golden[f"kd.{name}.{level}"] for level in levels] for name in ("teacher", "base_centers"))
    student = [golden[f"kd.student.{level}"].clone().requires_grad_() for level in levels]

    loss = compute_feature_distillation_loss(student, teacher, golden["kd.novel_union"], centers)
    plain = compute_feature_distillation_loss(student, teacher, golden["kd.novel_union"])
    loss.backward()

    assert_near(loss, golden["kd.feature_loss"].squeeze(), MODULE_ATOL)
    assert_near(plain, golden["kd.feature_loss_plain"].squeeze(), MODULE_ATOL)
    for level in levels:
        assert_near(student[level].grad, golden[f"kd.grad_student.{level}"], MODULE_ATOL)


@module_files
def test_class_distillation(golden):
    threshold = 0.3  # stated in the golden README
    student, teacher, matched = (golden[f"kd.{name}"] for name in ("student_logits", "teacher_logits", "matched"))

    loss = compute_class_distillation_loss(student, teacher, matched, threshold)

    kept = (teacher.softmax(-1)[..., :-1].amax(-1) >= threshold) & ~matched
    assert torch.equal(kept, golden["kd.kept"])
    assert_near(loss, golden["kd.class_loss"].squeeze(), MODULE_ATOL)
