"""What transformers' own suites cannot ask of TinyMIM as they are written: the tests in their place."""

import pytest
import torch

from decahub import (
    TinyMimBackbone,
    TinyMimConfig,
    TinyMimForImageClassification,
    TinyMimForPreTraining,
    TinyMimForSemanticSegmentation,
    TinyMimModel,
)


NUM_TOKENS, NUM_HEADS = 17, 3
ATOL = 1e-6  # float32, two orders of summation


def tiny_config(**fields) -> TinyMimConfig:
    sizes = {"image_size": 32, "patch_size": 8, "hidden_size": 24, "intermediate_size": 48}
    depth = {"num_hidden_layers": 3, "num_attention_heads": 2, "decode_hidden_size": 8, "auxiliary_hidden_size": 6}
    return TinyMimConfig(**{**sizes, **depth, **fields})


def build_batch(batch_size: int = 3) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(batch_size, 2, NUM_HEADS, NUM_TOKENS, NUM_TOKENS, generator=generator)
    pixel_values = torch.randn(batch_size, 3, 32, 32, generator=generator)
    return {"pixel_values": pixel_values, "teacher_relations": scores.softmax(-1)}


def build_student(**fields) -> TinyMimForPreTraining:
    torch.manual_seed(0)
    return TinyMimForPreTraining(tiny_config(teacher_num_attention_heads=NUM_HEADS, **fields))


@pytest.mark.parametrize(
    "model_class",
    [
        TinyMimModel,
        TinyMimBackbone,
        TinyMimForPreTraining,
        TinyMimForImageClassification,
        TinyMimForSemanticSegmentation,
    ],
)
def test_input_embeddings_are_the_patches(model_class):
    model = model_class(tiny_config())
    encoder = getattr(model, "tinymim", model)

    assert model.get_input_embeddings() is encoder.embeddings.patch_embeddings

    replacement = torch.nn.Conv2d(3, 24, kernel_size=8, stride=8)
    model.set_input_embeddings(replacement)

    assert encoder.embeddings.patch_embeddings is replacement


@pytest.mark.parametrize(
    ("model_class", "heads"),
    [
        (TinyMimForImageClassification, ["classifier"]),
        (TinyMimForSemanticSegmentation, ["decode_head.classifier", "auxiliary_head.classifier"]),
    ],
)
def test_head_of_another_size_starts_anew_on_request(model_class, heads, tmp_path):
    saved = model_class(tiny_config(num_labels=7))
    saved.save_pretrained(tmp_path)

    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        model_class.from_pretrained(tmp_path, num_labels=4)
    model, report = model_class.from_pretrained(
        tmp_path, num_labels=4, ignore_mismatched_sizes=True, output_loading_info=True
    )

    expected = {f"{head}.{kind}" for head in heads for kind in ("weight", "bias")}
    assert {name for name, *_ in report["mismatched_keys"]} == expected
    weights, before = model.state_dict(), saved.state_dict()
    for name, value in weights.items():
        assert value.isfinite().all(), name
        assert name in expected or torch.equal(value, before[name]), name


def test_loss_of_a_batch_is_the_mean_of_its_images():
    model, batch = build_student().eval(), build_batch()

    together = model(**batch).relation_losses
    alone = [
        model(**{name: value[index : index + 1] for name, value in batch.items()}).relation_losses
        for index in range(len(batch["pixel_values"]))
    ]

    torch.testing.assert_close(together, torch.stack(alone).mean(0), atol=ATOL, rtol=0)


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_gradient_checkpointing_changes_no_gradient_of_a_student(use_reentrant):
    plain, saving, batch = build_student().train(), build_student().train(), build_batch()
    saving.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    saving.enable_input_require_grads()  # with frozen embeddings nothing else would tell the first block to remember

    plain(**batch).loss.backward()
    saving(**batch).loss.backward()

    assert saving.is_gradient_checkpointing
    gradients = {name: parameter.grad for name, parameter in saving.named_parameters()}
    for name, parameter in plain.named_parameters():
        if parameter.grad is None:
            assert gradients[name] is None, name
        else:
            torch.testing.assert_close(gradients[name], parameter.grad, atol=ATOL, rtol=0, msg=name)


def test_what_follows_the_last_projections_gets_no_gradient():
    model = build_student()

    model(**build_batch()).loss.backward()

    after = ("attention.output", "layernorm_after", "mlp.fc1", "mlp.fc2")
    expected = {f"tinymim.layers.2.{part}.{kind}" for part in after for kind in ("weight", "bias")}
    expected |= {"tinymim.layernorm.weight", "tinymim.layernorm.bias"}
    assert expected == {
        name for name, parameter in model.named_parameters() if parameter.requires_grad and parameter.grad is None
    }
    assert model.tinymim.embeddings.position_embeddings.requires_grad is False
