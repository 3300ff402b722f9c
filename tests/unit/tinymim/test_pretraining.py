"""Pre-training of TinyMIM: every target learns, the teacher stays what it is, and bad input is refused."""

import copy

import pytest
import torch

from decahub import TinyMimForImageClassification, TinyMimForPreTraining, TinyMimModel, TinyMimTeacher
from decahub.models.tinymim.targets import compute_feature_loss
from tests.tiny.tinymim import (
    GRID,
    HEIGHT,
    NUM_TEACHER_HEADS,
    NUM_TOKENS,
    WIDTH,
    tiny_config,
    tiny_pixels,
    tiny_student,
    tiny_teacher,
)


ATOL = 1e-6  # float32, other order of summation
HALF_PRECISION_RTOL = 0.02  # of the loss, as the specification demands
NUM_STEPS = 20
FEATURE_SOURCES = ["block", "attention", "ffn", "q", "k", "v", "qkv"]

TARGETS = {
    "relations": {},
    "all pairs": {"relation_pairs": [["q", "q"], ["k", "k"], ["v", "v"]]},
    "scores": {"relation_softmax": False, "relation_loss": "mse"},
    "smooth scores": {"relation_softmax": False, "relation_loss": "smooth_l1"},
    "relations by mse": {"relation_loss": "mse"},
    "relation heads": {"head_alignment": "relation_heads", "num_relation_heads": 4},
    "extra block": {"head_alignment": "extra_block"},
    "patches alone": {"include_cls": False},
    "masked": {"student_input": "masked", "mask_ratio": 0.5},
    "reconstruction": {"student_input": "masked", "reconstruction_weight": 0.5},
    "drop path": {"drop_path_rate": 0.1, "drop_path_schedule": "constant"},
    "class token": {"distillation_target": "cls"},
    **{name: {"distillation_target": "features", "feature_source": name} for name in FEATURE_SOURCES},
    **{
        f"features by {name}": {"distillation_target": "features", "feature_loss": name}
        for name in ("l1", "mse", "cosine")
    },
    "features as they are": {"distillation_target": "features", "normalize_teacher": False},
}


@pytest.mark.parametrize("fields", TARGETS.values(), ids=TARGETS)
def test_every_target_is_learned(fields):
    student, pixels = tiny_student(**fields), tiny_pixels()
    optimizer = torch.optim.AdamW([item for item in student.parameters() if item.requires_grad], lr=3e-3)

    losses = []
    for _ in range(NUM_STEPS):
        torch.manual_seed(0)  # the same patches are hidden in each step
        loss = student(pixels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    assert losses[-1] < 0.9 * losses[0]


def test_relations_have_the_heads_of_the_teacher():
    outputs = tiny_student()(tiny_pixels(), output_relations=True)

    shape = (2, NUM_TEACHER_HEADS, NUM_TOKENS, NUM_TOKENS)
    assert [relation.shape for relation in outputs.relations] == [shape, shape]
    torch.testing.assert_close(outputs.teacher_relations[0].sum(-1), torch.ones(shape[:-1]))


def test_a_teacher_equal_to_the_student_gives_no_loss():
    model = TinyMimModel(tiny_config()).eval()
    student = TinyMimForPreTraining(tiny_config(teacher_layer=-1)).eval()
    student.tinymim.load_state_dict(model.state_dict())
    student.attach_teacher(model)

    assert student(tiny_pixels()).loss.item() == pytest.approx(0, abs=ATOL)


@pytest.mark.parametrize("fields", [{}, {"student_input": "masked"}, {"distillation_target": "features"}])
def test_given_targets_equal_those_of_a_teacher(fields):
    student, pixels = tiny_student(**fields).eval(), tiny_pixels()
    states = student.teacher.compute(pixels, GRID, ("q", "k", "v", "block"))
    pairs = [(states[first], states[second]) for first, second in (("q", "k"), ("v", "v"))]
    scores = [first @ second.transpose(-1, -2) * first.shape[-1] ** -0.5 for first, second in pairs]
    relations = torch.stack(scores, dim=1).softmax(-1)

    torch.manual_seed(0)
    asked = student(pixels).loss
    student.teacher = None
    torch.manual_seed(0)
    given = student(pixels, teacher_relations=relations, teacher_features=states["block"]).loss

    torch.testing.assert_close(given, asked, atol=ATOL, rtol=0)


def test_what_follows_the_last_projections_gets_no_gradient():
    student = tiny_student()

    student(tiny_pixels()).loss.backward()

    untrained = {name for name, item in student.named_parameters() if item.grad is None}
    last = "tinymim.layers.2."
    parts = ("attention.output", "layernorm_after", "mlp.fc1", "mlp.fc2")
    expected = {f"{last}{part}.{kind}" for part in parts for kind in ("weight", "bias")}
    expected |= {"tinymim.layernorm.weight", "tinymim.layernorm.bias", "tinymim.embeddings.position_embeddings"}
    assert untrained == expected


def test_the_teacher_is_neither_saved_nor_trained(tmp_path):
    student, pixels = tiny_student().eval(), tiny_pixels()
    teacher = student.teacher
    before = copy.deepcopy(teacher.model.state_dict())
    loss = student(pixels).loss

    student.train()
    student.save_pretrained(tmp_path)
    loaded = TinyMimForPreTraining.from_pretrained(tmp_path).eval()
    loaded.attach_teacher(teacher)

    assert not any("teacher" in name for name in student.state_dict())
    assert not teacher.source.training
    torch.testing.assert_close(teacher.model.state_dict(), before, rtol=0, atol=0)
    assert loaded(pixels).loss.item() == loss.item()


def test_a_student_becomes_a_teacher_with_the_heads_it_was_trained_with():
    first = tiny_student()
    second = TinyMimTeacher(first.eval(), layer=-1)

    assert second.num_attention_heads == NUM_TEACHER_HEADS
    student, pixels = tiny_student(second, num_hidden_layers=2), tiny_pixels()
    expected = first(pixels, output_relations=True).relations
    found = student(pixels, output_relations=True).teacher_relations
    torch.testing.assert_close(found, expected, atol=ATOL, rtol=0)


def test_a_classifier_takes_a_pretrained_student_and_tells_what_is_new(tmp_path):
    tiny_student().save_pretrained(tmp_path)

    model, info = TinyMimForImageClassification.from_pretrained(tmp_path, output_loading_info=True)

    assert set(info["missing_keys"]) == {"classifier.weight", "classifier.bias", "fc_norm.weight", "fc_norm.bias"}
    assert set(info["unexpected_keys"]) == {"tinymim.layernorm.weight", "tinymim.layernorm.bias"}
    assert model(tiny_pixels()).logits.shape == (2, 5)


def test_half_precision_gives_nearly_the_same_loss():
    student, pixels = tiny_student().eval(), tiny_pixels()
    loss = student(pixels).loss.item()

    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = student(pixels).loss
    student.bfloat16()

    assert under_autocast.dtype == torch.float32
    assert under_autocast.item() == pytest.approx(loss, rel=HALF_PRECISION_RTOL)
    assert student.teacher.model.dtype == torch.bfloat16
    assert student(pixels).loss.item() == pytest.approx(loss, rel=HALF_PRECISION_RTOL)


def test_a_teacher_can_keep_a_precision_of_its_own():
    student = tiny_student(tiny_teacher(dtype=torch.bfloat16))

    student.double()

    assert student.teacher.model.dtype == torch.bfloat16


def test_compiled_student_equals_the_model():
    student, pixels = tiny_student().eval(), tiny_pixels()

    compiled = torch.compile(student, backend="eager")

    torch.testing.assert_close(compiled(pixels).loss, student(pixels).loss, atol=ATOL, rtol=0)


def test_hidden_states_are_complete_when_asked_for():
    student = tiny_student().eval()

    outputs = student(tiny_pixels(), output_hidden_states=True)

    assert len(outputs.hidden_states) == 1 + student.config.num_hidden_layers


def test_refuses_unknown_keywords_with_the_nearest():
    with pytest.raises(
        ValueError, match="`teacher_pixel_value` must be an input.*Did you mean `teacher_pixel_values`"
    ):
        tiny_student()(tiny_pixels(), teacher_pixel_value=tiny_pixels())


def test_features_of_small_variance_are_whitened_with_a_small_epsilon():
    teacher = 1e-3 * torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(4))  # variance as small as epsilon
    config = tiny_config(distillation_target="features", feature_loss="mse")

    loss = compute_feature_loss(torch.zeros_like(teacher), teacher, config)

    variance = teacher.var(-1, correction=0)
    torch.testing.assert_close(loss, (variance / (variance + 1e-6)).mean())


def test_refuses_a_student_without_any_teacher():
    with pytest.raises(ValueError, match="Call `attach_teacher`"):
        TinyMimForPreTraining(tiny_config())(tiny_pixels())


def test_refuses_a_teacher_that_does_not_fit_the_config():
    student = TinyMimForPreTraining(tiny_config())

    with pytest.raises(ValueError, match="must have 2 attention heads.*got 6"):
        student.attach_teacher(tiny_teacher())
    with pytest.raises(ValueError, match="must be 24 wide.*got 36"):
        TinyMimForPreTraining(tiny_config(distillation_target="cls")).attach_teacher(tiny_teacher())


def test_refuses_a_relative_position_bias_in_pretraining():
    with pytest.raises(ValueError, match="`use_relative_position_bias`"):
        TinyMimForPreTraining(tiny_config(use_relative_position_bias=True))


BAD_PIXELS = {
    "integers": (torch.zeros(2, 3, HEIGHT, WIDTH, dtype=torch.uint8), TypeError, "floating point.*uint8"),
    "no batch": (torch.zeros(3, HEIGHT, WIDTH), ValueError, r"shape \(batch_size, 3, height, width\)"),
    "gray": (torch.zeros(2, 1, HEIGHT, WIDTH), ValueError, "`num_channels`"),
    "no multiple": (torch.zeros(2, 3, HEIGHT + 1, WIDTH), ValueError, "multiples of `patch_size` .8.; got 33 x 48"),
    "other grid": (torch.zeros(2, 3, WIDTH, HEIGHT), ValueError, "4 x 6 patches; got 6 x 4"),
    "not finite": (torch.full((2, 3, HEIGHT, WIDTH), float("nan")), ValueError, "finite"),
}


@pytest.mark.parametrize(("pixels", "error", "message"), BAD_PIXELS.values(), ids=BAD_PIXELS)
def test_refuses_bad_pixels(pixels, error, message):
    with pytest.raises(error, match=message):
        tiny_student()(pixels)


def test_refuses_relations_of_another_shape():
    student = tiny_student()
    relations = torch.zeros(2, 2, 3, NUM_TOKENS, NUM_TOKENS)

    with pytest.raises(ValueError, match=r"\(batch_size, 2, 6, num_tokens, num_tokens\).*\(2, 2, 3, 25, 25\)"):
        student(tiny_pixels(), teacher_relations=relations)
