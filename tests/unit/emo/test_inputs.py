"""Bad input to EMO's models: each gets one sentence with the argument, what is allowed and what was given."""

import pytest
import torch

from decahub import EmoBackbone, EmoForImageClassification, EmoForSemanticSegmentation, EmoModel
from tests.tiny.emo import tiny_config


MODEL_CLASSES = [EmoModel, EmoBackbone, EmoForImageClassification, EmoForSemanticSegmentation]
IMAGES = torch.zeros(2, 3, 32, 48)


def with_value(value: float) -> torch.Tensor:
    pixel_values = IMAGES.clone()
    pixel_values[1, 2, 3, 4] = value
    return pixel_values


BAD_PIXELS = {
    "channels": (
        IMAGES[:, :2],
        ValueError,
        r"`pixel_values` must have shape .*3, height, width\); got \(2, 2, 32, 48\)",
    ),
    "no batch axis": (IMAGES[0], ValueError, r"`pixel_values` must have shape .* got \(3, 32, 48\)"),
    "empty batch": (IMAGES[:0], ValueError, r"`pixel_values` must hold at least one .* got shape \(0, 3, 32, 48\)"),
    "no rows": (IMAGES[:, :, :0], ValueError, r"`pixel_values` must hold at least one .* got shape \(2, 3, 0, 48\)"),
    "bytes": (IMAGES.to(torch.uint8), TypeError, r"`pixel_values` must be floating point; got torch.uint8"),
    "integers": (IMAGES.long(), TypeError, r"`pixel_values` must be floating point; got torch.int64"),
    "not a number": (with_value(float("nan")), ValueError, r"`pixel_values` must be finite; got NaN"),
    "infinity": (with_value(float("-inf")), ValueError, r"`pixel_values` must be finite; got NaN or infinity"),
    "nothing": (None, ValueError, r"`pixel_values` must be given"),
}


@pytest.mark.parametrize("model_class", MODEL_CLASSES)
def test_refuses_unknown_keywords_with_the_nearest(model_class):
    with pytest.raises(ValueError, match="`output_hiden_states` must be an input of.*mean `output_hidden_states`"):
        model_class(tiny_config()).eval()(IMAGES, output_hiden_states=True)


@pytest.mark.parametrize("model_class", MODEL_CLASSES)
@pytest.mark.parametrize(("pixel_values", "error", "message"), BAD_PIXELS.values(), ids=BAD_PIXELS)
def test_refuses_bad_pixels(model_class, pixel_values, error, message):
    model = model_class(tiny_config()).eval()

    with pytest.raises(error, match=message):
        model(pixel_values)


def test_large_half_precision_pixels_are_not_taken_for_infinite():
    model = EmoModel(tiny_config()).eval()

    outputs = model(torch.full((1, 3, 32, 48), 6e4, dtype=torch.float16))  # their sum overflows float16

    assert outputs.pooler_output.isfinite().all()


BAD_CLASS_LABELS = {
    "too large": (torch.tensor([0, 7]), r"`labels` must hold class ids in \[0, 7\).* got 7, and 1 such"),
    "negative": (torch.tensor([-1, -2]), r"`labels` must hold class ids in \[0, 7\).* got -1, and 2 such"),
    "too many": (torch.tensor([0, 1, 2]), r"`labels` must have shape \(2,\); got \(3,\)"),
    "floats of one axis": (torch.tensor([0.0, 1.0]), r"`labels` must have shape \(2, 7\); got \(2,\)"),
}


@pytest.mark.parametrize(("labels", "message"), BAD_CLASS_LABELS.values(), ids=BAD_CLASS_LABELS)
def test_classifier_refuses_bad_labels(labels, message):
    model = EmoForImageClassification(tiny_config()).eval()

    with pytest.raises(ValueError, match=message):
        model(IMAGES, labels=labels)


def test_multi_label_targets_of_another_shape_are_refused():
    model = EmoForImageClassification(tiny_config(problem_type="multi_label_classification")).eval()

    with pytest.raises(ValueError, match=r"`labels` must have shape \(2, 7\); got \(2, 6\)"):
        model(IMAGES, labels=torch.zeros(2, 6))


def test_regression_targets_may_lack_the_last_axis():
    model = EmoForImageClassification(tiny_config(num_labels=1, problem_type="regression")).eval()

    outputs = model(IMAGES, labels=torch.tensor([1.0, 3.0]))

    expected = (outputs.logits[:, 0] - torch.tensor([1.0, 3.0])).square().mean()
    torch.testing.assert_close(outputs.loss, expected)


BAD_PIXEL_LABELS = {
    "too large": (
        torch.full((2, 32, 48), 7),
        r"`labels` must hold class ids in \[0, 7\) or 255.* got 7, and 3072 such",
    ),
    "wrong ignore index": (torch.full((2, 32, 48), -100), r"or 255 \(ignored\); got -100"),
    "channel axis": (
        torch.zeros(2, 1, 32, 48).long(),
        r"`labels` must have shape \(2, height, width\); got \(2, 1, 32, 48\)",
    ),
    "other batch": (
        torch.zeros(3, 32, 48).long(),
        r"`labels` must have shape \(2, height, width\); got \(3, 32, 48\)",
    ),
    "floats": (torch.zeros(2, 32, 48), r"`labels` must hold integer class ids; got torch.float32"),
}


@pytest.mark.parametrize(("labels", "message"), BAD_PIXEL_LABELS.values(), ids=BAD_PIXEL_LABELS)
def test_segmenter_refuses_bad_labels(labels, message):
    model = EmoForSemanticSegmentation(tiny_config()).eval()

    with pytest.raises(ValueError, match=message):
        model(IMAGES, labels=labels)


def test_byte_labels_are_understood():
    model = EmoForSemanticSegmentation(tiny_config()).eval()
    labels = torch.randint(7, (2, 32, 48), generator=torch.Generator().manual_seed(0))
    labels[0, :5] = 255

    losses = [model(IMAGES, labels=labels.to(dtype)).loss for dtype in (torch.uint8, torch.int32, torch.int64)]

    assert losses[0] == losses[1] == losses[2]
    assert losses[0].isfinite()
