"""Probes on the features of a model without a head."""

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from decahub import TinyMimConfig, TinyMimImageProcessor, TinyMimModel
from decahub.evaluation import build_evaluation, evaluate_model
from decahub.tasks.image_feature_extraction import select_fit_rows


TASK = "image-feature-extraction"
NAMES = ["dark", "light"]


@pytest.fixture
def model():
    torch.manual_seed(0)
    sizes = {"image_size": 8, "patch_size": 4, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2}
    return TinyMimModel(TinyMimConfig(num_attention_heads=2, **sizes)).eval()


@pytest.fixture
def processor():
    return TinyMimImageProcessor(size={"height": 8, "width": 8}, do_center_crop=False)


def build_rows(count, seed):
    """Dark and light images, sorted by class."""
    generator = np.random.default_rng(seed)
    labels = [index * 2 // count for index in range(count)]
    images = [
        Image.fromarray(generator.integers(128 * label, 128 * label + 127, (8, 8, 3), dtype=np.uint8))
        for label in labels
    ]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)})
    return datasets.Dataset.from_dict({"image": images, "label": labels}, features=features)


def test_probes_read_what_features_show(model, processor):
    measurement = evaluate_model(
        model, processor, build_rows(20, 1), TASK, train_dataset=build_rows(40, 0), facts={"num_fit_rows": 30}
    )

    assert measurement.scores == {"linear_probe_accuracy": 1.0, "knn_accuracy": 1.0}
    evaluation = build_evaluation(measurement, task=TASK, dataset="own", split="test", minutes=0.1)
    assert evaluation["dataset"]["num_rows"] == 20
    assert evaluation["dataset"]["num_fit_rows"] == 30


def test_fit_rows_are_drawn_from_the_whole_split():
    chosen = select_fit_rows(build_rows(40, 0), 20)

    assert set(chosen["label"][:]) == {0, 1}
    assert chosen["label"][:] == select_fit_rows(build_rows(40, 0), 20)["label"][:]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "`train_dataset` must be the training rows"),
        ({"train_dataset": build_rows(4, 0), "facts": {"num_fit_rows": 1}}, "`num_fit_rows` must be at least 2"),
    ],
)
def test_bad_arguments_are_refused(options, message, model, processor):
    with pytest.raises(ValueError, match=message):
        evaluate_model(model, processor, build_rows(4, 1), TASK, **options)
