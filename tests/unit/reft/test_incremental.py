"""Distillation: the teacher stays outside, keeps what it knows, and its loss is that of the formulas."""

import itertools
import logging

import pytest
import torch

from decahub.models.reft.losses.distillation import compute_class_distillation_loss
from tests.tiny.reft import tiny_labels, tiny_model, tiny_pixels


BASE, NOVEL = [0, 1, 3], [2, 4]


def build_pair(**fields):
    """A teacher with fitted centers, and a student that is its copy."""
    teacher = tiny_model(base_label_ids=BASE, novel_label_ids=NOVEL, **fields)
    batch = {"pixel_values": tiny_pixels(), **tiny_labels()}
    batch["class_labels"] = [torch.tensor([0, 1, 3]), torch.tensor([3, 1])]
    teacher.fit_base_class_centers([batch])
    student = tiny_model(base_label_ids=BASE, novel_label_ids=NOVEL, **fields)
    student.load_state_dict(teacher.state_dict())
    return teacher, student


def list_novel_labels():
    return {**tiny_labels(), "class_labels": [torch.tensor([2, 4, 2]), torch.tensor([4, 2])]}


def test_base_centers_are_means_over_instances():
    teacher, _ = build_pair()
    projected = teacher.model(tiny_pixels()).projected_hidden_states
    masks = tiny_labels()["mask_labels"]

    for level, centers in enumerate(teacher.base_class_centers.get_levels()):
        feature_map = projected[level]
        pooled = []
        for image, index in ((0, 2), (1, 0)):  # the instances of class 3, the third base class
            mask = torch.nn.functional.adaptive_avg_pool2d(masks[image][index][None], feature_map.shape[-2:])[0]
            pooled.append((mask * feature_map[image]).sum((1, 2)) / mask.sum())
        torch.testing.assert_close(centers[2], sum(pooled) / 2, atol=1e-5, rtol=1e-4)


def test_a_copy_of_the_teacher_has_no_feature_loss():
    teacher, student = build_pair()
    student.attach_teacher(teacher)

    terms = student(tiny_pixels(), **list_novel_labels()).loss_dict

    assert terms["loss_kd_feature"] == 0
    assert abs(terms["loss_kd_class"].item()) < 1e-6


def test_a_changed_student_is_pulled_back():
    teacher, student = build_pair(kd_threshold=0.0)
    student.attach_teacher(teacher)
    torch.nn.init.normal_(student.model.pixel_level_module.decoder.input_projections[0][0].weight)
    torch.nn.init.normal_(student.class_predictor.weight)

    outputs = student(tiny_pixels(), **list_novel_labels())
    outputs.loss.backward()

    assert outputs.loss_dict["loss_kd_feature"] > 0
    assert outputs.loss_dict["loss_kd_class"] > 0
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_the_teacher_is_neither_saved_nor_trained(tmp_path):
    teacher, student = build_pair()
    names = set(student.state_dict())

    student.attach_teacher(teacher)

    assert set(student.state_dict()) == names
    assert sum(1 for _ in student.modules()) == sum(1 for _ in tiny_model(base_label_ids=BASE).modules())
    student.save_pretrained(tmp_path)


def test_base_centers_are_saved(tmp_path):
    teacher, _ = build_pair()
    teacher.save_pretrained(tmp_path)

    loaded = type(teacher).from_pretrained(tmp_path)

    for first, second in zip(
        loaded.base_class_centers.get_levels(), teacher.base_class_centers.get_levels(), strict=True
    ):
        assert torch.equal(first, second)
        assert first.any()


TEACHERS = {
    "fewer classes": ({"num_labels": 2}, "must know the 3 base classes, alone or by their ids; it has 2"),
    "other classes": (
        {"num_labels": 3, "base_label_ids": [0, 1, 2], "feature_size": 64},
        "`feature_size` .* 32; got 64",
    ),
    "queries": ({"num_queries": 9}, "`num_queries` of this model, 7; got 9"),
    "centers": ({"base_label_ids": [0, 1]}, "centers of the 3 base classes; got 2"),
}


@pytest.mark.parametrize(("fields", "message"), TEACHERS.values(), ids=TEACHERS.keys())
def test_refuses_a_teacher_of_another_form(fields, message):
    teacher = tiny_model(**{"base_label_ids": [0, 1], **fields})
    for level in teacher.base_class_centers.get_levels():
        level.fill_(1.0)

    with pytest.raises(ValueError, match=message):
        tiny_model(base_label_ids=BASE).attach_teacher(teacher)


def test_a_model_cannot_teach_itself():
    teacher, _ = build_pair()

    with pytest.raises(ValueError, match="`teacher` must be another model"):
        teacher.attach_teacher(teacher)
    assert any(parameter.requires_grad for parameter in teacher.parameters())


def test_centers_are_not_fitted_to_nothing(caplog):
    model = tiny_model(base_label_ids=BASE)
    empty = {"pixel_values": tiny_pixels(), "mask_labels": [torch.zeros(1, 64, 96)] * 2}
    shown = {"pixel_values": tiny_pixels(), "mask_labels": [torch.ones(1, 64, 96)] * 2}
    labels = {"class_labels": [torch.tensor([1])] * 2}

    with pytest.raises(ValueError, match="`batches` must show an instance of a base class"):
        model.fit_base_class_centers([empty | labels])
    with caplog.at_level(logging.WARNING):
        model.fit_base_class_centers([empty | labels, shown | labels])

    assert "No instance of the base classes [0, 3] was shown" in caplog.text
    expected = model.model(tiny_pixels()).projected_hidden_states[0].mean((0, 2, 3))
    torch.testing.assert_close(model.base_class_centers.get_levels()[0][1], expected, atol=1e-5, rtol=1e-4)


def distill_features_by_a_loop(student_map, teacher_map, centers, unions):
    """Sums over one level: weighted squared distances, and the weights' share without class enhancement."""
    total = covered = 0.0
    for image, union in enumerate(unions):
        free = 1 - torch.nn.functional.adaptive_avg_pool2d(union[None], student_map.shape[-2:])[0]
        for row, column in itertools.product(range(student_map.shape[2]), range(student_map.shape[3])):
            known = teacher_map[image, :, row, column]
            likeness = max(0, max(torch.cosine_similarity(known, center, dim=0).item() for center in centers))
            distance = (student_map[image, :, row, column] - known).square().sum().item()
            total += free[row, column].item() * (1 + likeness) * distance
            covered += free[row, column].item()
    return total / (covered * student_map.shape[1])


def test_distillation_by_a_loop():
    teacher, student = build_pair(kd_threshold=0.2, kd_feature_weight=1, kd_class_weight=1)
    torch.manual_seed(0)
    torch.nn.init.normal_(teacher.class_predictor.weight, std=0.3)
    torch.nn.init.normal_(student.model.pixel_level_module.decoder.input_projections[0][0].weight, std=0.1)
    memory = teacher.register_support({"LABEL_0": (torch.randn(2, 3, 64, 64), torch.ones(2, 64, 64))})
    pixels, masks = tiny_pixels(), tiny_labels()["mask_labels"]
    classes = [torch.tensor([2, 0, 4]), torch.tensor([1, 2])]
    student.attach_teacher(teacher, memory)
    matches = []
    student.criterion.register_forward_hook(lambda module, inputs, outputs: matches.extend(outputs[1]))

    with torch.no_grad():
        outputs = student(pixels, mask_labels=masks, class_labels=classes)
        known = teacher.model(pixels, support_memory=memory)
        wanted = teacher(pixels, support_memory=memory).class_queries_logits[..., [*BASE, -1]].softmax(-1)
        maps = student.model(pixels).projected_hidden_states

    unions = [masks[0][[0, 2]].amax(0), masks[1][1]]  # of the novel classes 2 and 4
    levels = [
        distill_features_by_a_loop(*level, unions)
        for level in zip(maps, known.projected_hidden_states, teacher.base_class_centers.get_levels(), strict=True)
    ]
    predicted = outputs.class_queries_logits[..., [*BASE, -1]].log_softmax(-1)
    divergences = []
    for image, (queries, targets) in enumerate(matches):
        on_novel = [int(q) for q, t in zip(queries, targets, strict=True) if int(classes[image][t]) in NOVEL]
        for query in set(range(predicted.shape[1])) - set(on_novel):
            teacher_row = wanted[image, query]
            if teacher_row[:-1].max() >= 0.2:
                divergences.append((teacher_row * (teacher_row.log() - predicted[image, query])).sum().item())
    assert 5 < len(divergences) < 11, "of 14 object queries 3 are matched to novel instances, and some are unsure"
    assert outputs.loss_dict["loss_kd_feature"].item() == pytest.approx(sum(levels) / 3, rel=1e-4)
    expected = sum(divergences) / len(divergences)
    assert outputs.loss_dict["loss_kd_class"].item() == pytest.approx(expected, rel=1e-3, abs=1e-6)


def test_each_loss_has_its_weight():
    terms = {}
    for feature_weight, class_weight in ((1, 1), (3, 5)):
        torch.manual_seed(0)
        weights = {"kd_feature_weight": feature_weight, "kd_class_weight": class_weight, "kd_threshold": 0.0}
        teacher, student = build_pair(**weights)
        student.attach_teacher(teacher)
        torch.manual_seed(1)
        torch.nn.init.normal_(student.model.pixel_level_module.decoder.input_projections[0][0].weight)
        terms[feature_weight] = student(tiny_pixels(), **list_novel_labels()).loss_dict

    torch.testing.assert_close(terms[3]["loss_kd_feature"], 3 * terms[1]["loss_kd_feature"])
    torch.testing.assert_close(terms[3]["loss_kd_class"], 5 * terms[1]["loss_kd_class"])


def test_no_confident_query_gives_no_class_loss():
    logits = torch.zeros(1, 3, 6)

    loss = compute_class_distillation_loss(logits, torch.zeros(1, 3, 4), torch.zeros(1, 3, dtype=torch.bool), 0.3)

    assert loss == 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "`base_label_ids` of the config must name"),
        ({"base_label_ids": BASE}, "`teacher` must have fitted base class centers"),
        ({"base_label_ids": BASE, "classifier": "prototype"}, "must be 'linear' or 'cosine' for distillation"),
    ],
)
def test_refuses(fields, message):
    with pytest.raises(ValueError, match=message):
        tiny_model(**fields).attach_teacher(tiny_model(**fields))
