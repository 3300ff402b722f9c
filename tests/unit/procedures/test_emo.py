"""The procedure of EMO: batches of mixed images, and settings that do not go together."""

import pytest
import torch

from decahub import EmoConfig, EmoForImageClassification
from decahub.procedures import emo


def test_mixed_batches_have_probabilities():
    arguments = emo.Arguments(dataset="sklearn_digits", mixing={"cutmix_alpha": 1.0})
    examples = [{"pixel_values": torch.randn(3, 32, 32), "labels": torch.tensor(number % 3)} for number in range(6)]

    batch = emo.get_collate(arguments, ["ant", "bee", "cow"])(examples)

    assert batch["labels"].shape == (6, 3)
    torch.testing.assert_close(batch["labels"].sum(-1), torch.ones(6))


def test_other_batches_have_classes():
    examples = [{"pixel_values": torch.randn(3, 32, 32), "labels": torch.tensor(number % 3)} for number in range(6)]

    batch = emo.get_collate(emo.Arguments(dataset="sklearn_digits"), ["ant", "bee", "cow"])(examples)

    assert batch["labels"].tolist() == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mixing": {"alpha": 1}}, "`alpha` in `mixing` is not an option"),
        ({"mixing": {"cutmix_alpha": 1.0}, "task": "semantic-segmentation"}, "`mixing` must be left out for the task"),
        ({"mixing": {"mixup_alpha": -1.0}}, "`mixup_alpha` must be a number of at least 0; got -1.0"),
        ({"mixing": {"cutmix_alpha": float("inf")}}, "`cutmix_alpha` must be a number of at least 0; got inf"),
        ({"mixing": {"cutmix_alpha": None}}, "`cutmix_alpha` must be a number of at least 0; got None"),
        (
            {"mixing": {"cutmix_alpha": 1.0}, "per_device_train_batch_size": 1},
            "`per_device_train_batch_size` must be at least 2 with `mixing`; got 1",
        ),
    ],
    ids=["unknown", "task", "negative", "infinite", "none", "batch of one"],
)
def test_refuses(fields, message):
    with pytest.raises(ValueError, match=message):
        emo.Arguments(dataset="sklearn_digits", **fields)


@pytest.mark.parametrize(
    ("settings", "fields", "message"),
    [
        (
            {"label_smoothing": 0.1},
            {"mixing": {"cutmix_alpha": 1.0}},
            "`config.label_smoothing` must be 0 with `mixing`",
        ),
        (
            {"label_smoothing": 0.1},
            {"teacher": "x", "distillation": {"weight": 1.0}},
            "`config.label_smoothing` must be 0 with `distillation.weight=1`; got 0.1",
        ),
        (
            {"problem_type": "multi_label_classification"},
            {},
            "`config.problem_type` must be 'single_label_classification' .* got 'multi_label_classification'",
        ),
    ],
    ids=["mixing", "teacher alone", "problem type"],
)
@pytest.mark.parametrize("is_pretrained", [False, True])
def test_refuses_what_the_loss_would_not_read(settings, fields, message, is_pretrained, tmp_path):
    small = {"depths": [1, 1, 1, 1], **settings}
    if is_pretrained:
        EmoForImageClassification(EmoConfig.from_variant("1m", num_labels=3, **small)).save_pretrained(tmp_path)
        fields = {**fields, "pretrained": str(tmp_path)}
    else:
        fields = {**fields, "config": small}

    with pytest.raises(ValueError, match=message):
        emo.build_model(emo.Arguments(dataset="sklearn_digits", **fields), ["ant", "bee", "cow"])


def test_mixing_of_nothing_is_no_mixing():
    arguments = emo.Arguments(dataset="sklearn_digits", mixing={"mixup_alpha": 0.0}, config={"label_smoothing": 0.1})

    assert emo.build_model(arguments, ["ant", "bee", "cow"]).config.label_smoothing == 0.1
