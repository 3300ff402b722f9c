"""The procedure of EMO: batches of mixed images, and settings that do not go together."""

import pytest
import torch

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
        (
            {"mixing": {"cutmix_alpha": 1.0}, "config": {"label_smoothing": 0.1}},
            "`config.label_smoothing` must be 0 with `mixing`, whose labels are soft already; got 0.1",
        ),
    ],
    ids=["unknown", "task", "smoothing"],
)
def test_refuses(fields, message):
    with pytest.raises(ValueError, match=message):
        emo.Arguments(dataset="sklearn_digits", **fields)
