"""Losses of classifiers: ids and probabilities as labels, what is ignored, and labels that are refused."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from torch.nn import functional

from decahub import (
    EmoConfig,
    EmoForImageClassification,
    RawGnnConfig,
    ReliantConfig,
    TinyMimConfig,
    TinyMimForImageClassification,
)
from decahub.models.shared.losses import compute_classification_loss, compute_node_loss, compute_segmentation_loss


NUM_LABELS = 5
LOGITS = torch.randn(3, NUM_LABELS, generator=torch.Generator().manual_seed(0)) + 1.0
PIXEL_LOGITS = torch.randn(2, NUM_LABELS, 4, 6, generator=torch.Generator().manual_seed(1)) + 1.0


def build_config(**fields) -> TinyMimConfig:
    return TinyMimConfig(**{"num_labels": NUM_LABELS, **fields})


def build_pixel_labels() -> torch.Tensor:
    return torch.randint(NUM_LABELS, (2, 9, 13), generator=torch.Generator().manual_seed(2))


# Images


def test_ids_give_the_mean_negative_log_probability():
    labels = torch.tensor([4, 0, 2])

    loss = compute_classification_loss(LOGITS, labels, build_config())

    expected = -LOGITS.log_softmax(1)[torch.arange(3), labels].mean()
    torch.testing.assert_close(loss, expected)


def test_label_smoothing_mixes_in_all_classes():
    labels = torch.tensor([4, 0, 2])

    loss = compute_classification_loss(LOGITS, labels, build_config(label_smoothing=0.2))

    log_probabilities = LOGITS.log_softmax(1)
    picked = log_probabilities[torch.arange(3), labels]
    torch.testing.assert_close(loss, -(0.8 * picked + 0.2 * log_probabilities.mean(1)).mean())


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_ignored_images_leave_the_mean_of_the_others(label_smoothing):
    config = build_config(label_smoothing=label_smoothing)

    loss = compute_classification_loss(LOGITS, torch.tensor([4, -100, 2]), config)

    expected = compute_classification_loss(LOGITS[[0, 2]], torch.tensor([4, 2]), config)
    torch.testing.assert_close(loss, expected)


def test_images_without_any_label_give_no_loss_and_no_nan():
    assert compute_classification_loss(LOGITS, torch.full((3,), -100), build_config()) == 0


@pytest.mark.parametrize("problem_type", [None, "single_label_classification"])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_probabilities_give_the_expected_negative_log_probability(problem_type, label_smoothing):
    labels = torch.tensor([[0.7, 0.3, 0, 0, 0], [0, 0, 1, 0, 0], [0.1, 0.2, 0.3, 0.4, 0]])
    config = build_config(problem_type=problem_type, label_smoothing=label_smoothing)

    loss = compute_classification_loss(LOGITS, labels, config)

    torch.testing.assert_close(loss, -(labels * LOGITS.log_softmax(1)).sum(1).mean())


@pytest.mark.parametrize(
    ("model_class", "config_class"),
    [(EmoForImageClassification, EmoConfig), (TinyMimForImageClassification, TinyMimConfig)],
    ids=["emo", "tinymim"],
)
def test_models_take_soft_labels_for_probabilities(model_class, config_class):
    torch.manual_seed(0)
    model = model_class(config_class(num_labels=NUM_LABELS)).eval()
    labels = torch.tensor([[0.7, 0.3, 0, 0, 0], [0.1, 0.2, 0.3, 0.4, 0]])

    outputs = model(torch.randn(2, 3, 224, 224), labels=labels)

    torch.testing.assert_close(outputs.loss, -(labels * outputs.logits.log_softmax(1)).sum(1).mean())


def test_probabilities_of_half_precision_are_accepted():
    labels = torch.rand(3, NUM_LABELS, generator=torch.Generator().manual_seed(3)).softmax(1).bfloat16()

    loss = compute_classification_loss(LOGITS, labels, build_config())

    torch.testing.assert_close(loss, -(labels.float() * LOGITS.log_softmax(1)).sum(1).mean())


def test_several_labels_per_image_are_binary_decisions():
    labels = torch.tensor([[1.0, 1, 0, 0, 0], [0, 0, 0, 0, 0], [1, 0, 1, 0, 1]])

    loss = compute_classification_loss(LOGITS, labels, build_config(problem_type="multi_label_classification"))

    probabilities = LOGITS.sigmoid()
    expected = -torch.where(labels == 1, probabilities, 1 - probabilities).log().mean()
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("problem_type", [None, "regression"])
def test_one_label_is_a_regression(problem_type):
    config = build_config(num_labels=1, problem_type=problem_type)

    loss = compute_classification_loss(LOGITS[:, :1], torch.tensor([1.0, 3.0, -2.0]), config)

    torch.testing.assert_close(loss, (LOGITS[:, 0] - torch.tensor([1.0, 3.0, -2.0])).square().mean())


BAD_LABELS = {
    "too large": (torch.tensor([0, 5, 6]), r"`labels` must hold class ids in \[0, 5\).* got 5, and 2 such"),
    "negative": (torch.tensor([0, -1, 2]), r"`labels` must hold class ids in \[0, 5\).* got -1, and 1 such"),
    "byte that equals the ignored id": (torch.tensor([0, 156, 2], dtype=torch.uint8), r"got 156, and 1 such"),
    "too many": (torch.tensor([0, 1, 2, 3]), r"`labels` must have shape \(3,\); got \(4,\)"),
    "ids of two axes": (torch.ones(3, 5).long(), r"`labels` must have shape \(3,\); got \(3, 5\)"),
    "floats of one axis": (torch.ones(3), r"`labels` must have shape \(3, 5\); got \(3,\)"),
    "several labels": (
        torch.tensor([[0, 0, 1.0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0]]),
        r"`labels` must hold probabilities.* got a sum of 2 for image 1. .*multi_label_classification",
    ),
    "negative probability": (torch.tensor([[2.0, -1, 0, 0, 0]] * 3), r"`labels` must hold probabilities"),
    "NaN": (torch.full((3, 5), float("nan")), r"`labels` must hold probabilities.* got a sum of nan for image 0"),
}


@pytest.mark.parametrize(("labels", "message"), BAD_LABELS.values(), ids=BAD_LABELS)
def test_refuses_bad_labels_of_images(labels, message):
    with pytest.raises(ValueError, match=message):
        compute_classification_loss(LOGITS, labels, build_config())


@pytest.mark.parametrize("problem_type", ["multi_label_classification", "regression"])
def test_refuses_targets_of_another_shape(problem_type):
    with pytest.raises(ValueError, match=r"`labels` must have shape \(3, 5\); got \(3, 4\)"):
        compute_classification_loss(LOGITS, torch.zeros(3, 4), build_config(problem_type=problem_type))


# Pixels


def test_pixel_loss_is_that_of_logits_resized_to_the_labels():
    labels = build_pixel_labels()

    loss = compute_segmentation_loss(PIXEL_LOGITS, labels, ignore_index=255)

    resized = functional.interpolate(PIXEL_LOGITS, size=(9, 13), mode="bilinear", align_corners=False)
    expected = -resized.log_softmax(1).gather(1, labels[:, None]).mean()
    torch.testing.assert_close(loss, expected)


def test_pixel_loss_is_the_mean_over_labeled_pixels():
    labels = build_pixel_labels()
    labels[0] = 7

    loss = compute_segmentation_loss(PIXEL_LOGITS, labels, ignore_index=7)

    torch.testing.assert_close(loss, compute_segmentation_loss(PIXEL_LOGITS[1:], labels[1:], ignore_index=7))


def test_pixel_loss_over_all_pixels_is_smaller_by_the_share_of_labeled_ones():
    labels = build_pixel_labels()
    labels[0] = 255

    loss = compute_segmentation_loss(PIXEL_LOGITS, labels, ignore_index=255, average_over_all=True)

    torch.testing.assert_close(loss, compute_segmentation_loss(PIXEL_LOGITS, labels, ignore_index=255) / 2)


@pytest.mark.parametrize("over_all", [False, True])
def test_pixels_without_any_label_give_no_loss_no_nan_and_no_gradient(over_all):
    logits = PIXEL_LOGITS.clone().requires_grad_()
    labels = torch.full((2, 9, 13), 255)

    loss = compute_segmentation_loss(logits, labels, ignore_index=255, average_over_all=over_all)
    loss.backward()

    assert loss == 0
    assert (logits.grad == 0).all()


def test_byte_labels_of_pixels_are_understood():
    labels = build_pixel_labels()
    labels[0, :2] = 255

    loss = compute_segmentation_loss(PIXEL_LOGITS, labels.byte(), ignore_index=255)

    assert loss == compute_segmentation_loss(PIXEL_LOGITS, labels, ignore_index=255)


BAD_PIXEL_LABELS = {
    "too large": (torch.full((2, 9, 13), 5), r"in \[0, 5\) or 255 \(ignored\); got 5, and 234 such"),
    "other ignored id": (torch.full((2, 9, 13), -100), r"or 255 \(ignored\); got -100"),
    "channel axis": (torch.zeros(2, 1, 9, 13).long(), r"must have shape \(2, height, width\); got \(2, 1, 9, 13\)"),
    "other batch": (torch.zeros(3, 9, 13).long(), r"must have shape \(2, height, width\); got \(3, 9, 13\)"),
    "floats": (torch.zeros(2, 9, 13), r"`labels` must hold integer class ids; got torch.float32"),
}


@pytest.mark.parametrize(("labels", "message"), BAD_PIXEL_LABELS.values(), ids=BAD_PIXEL_LABELS)
def test_refuses_bad_labels_of_pixels(labels, message):
    with pytest.raises(ValueError, match=message):
        compute_segmentation_loss(PIXEL_LOGITS, labels, ignore_index=255)


def test_class_weights_of_nodes():
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    labels, mask = torch.tensor([0, 0, 0, 1, -100, 2]), torch.tensor([True] * 5 + [False])
    each = torch.nn.functional.cross_entropy(logits, labels, reduction="none")

    balanced = compute_node_loss(logits, labels, mask, "balanced")
    weighted = compute_node_loss(logits, labels, mask, [1, 5.0, 2.0])

    torch.testing.assert_close(balanced, (each[:3].mean() + each[3]) / 2)
    torch.testing.assert_close(weighted, (each[:3].sum() + 5 * each[3]) / 8)


@pytest.mark.parametrize("config_class", [RawGnnConfig, ReliantConfig])
@pytest.mark.parametrize("weight", ["even", [1.0], [1.0, 0.0], [1.0, -2.0], [1.0, float("nan")]], ids=str)
def test_class_weights_of_configurations(config_class, weight):
    config_class(num_labels=2, class_weight=[1, 20.0])

    with pytest.raises(StrictDataclassError, match="`class_weight` must be 'balanced' or .* each of 2 classes"):
        config_class(num_labels=2, class_weight=weight)
