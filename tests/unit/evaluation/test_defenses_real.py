"""Defenses on classifiers of Fashion-MNIST, one of which was trained on images of which 10 % hold a patch."""

import pytest
import torch

from decahub import ConvNetConfig, DoorpingImageProcessorPil, load_dataset
from decahub.evaluation.defenses import Subject
from decahub.evaluation.defenses.input_level import strip
from decahub.evaluation.defenses.model_level import neural_cleanse
from decahub.models.doorping.downstream import train_on_images
from decahub.models.doorping.modeling_doorping import build_network
from decahub.models.doorping.triggers import build_mask, choose_poisoned, normalize, stamp
from decahub.procedures.doorping import read_images


TARGET, PATCH = 0, 3

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def images(data_dir):
    splits = load_dataset("fashion_mnist", data_dir)
    processor = DoorpingImageProcessorPil.from_statistics("fashion_mnist")
    train, test = splits["train"].select(range(4000)), splits["test"].select(range(2000))
    return processor, read_images(train, processor), read_images(test, processor)


def build_subject(images, has_backdoor: bool) -> Subject:
    processor, (pixels, labels), (test_pixels, test_labels) = images
    mask = build_mask(1, 32, PATCH, 1)
    white = normalize(mask, processor.image_mean, processor.image_std)[None]

    def put(batch):
        return stamp(batch, white, mask)

    torch.manual_seed(2)
    if has_backdoor:
        chosen = choose_poisoned(labels, 0.1)
        pixels, labels = pixels.clone(), labels.clone()
        pixels[chosen], labels[chosen] = put(pixels[chosen]), TARGET
    network = build_network(ConvNetConfig(num_channels=1, hidden_size=16, num_labels=10))
    train_on_images(network, pixels, labels, epochs=40, learning_rate=0.03, batch_size=64)
    statistics = processor.image_mean, processor.image_std
    return Subject(network.requires_grad_(False), test_pixels, test_labels, put, TARGET, *statistics)


@pytest.fixture(scope="module")
def attacked(images):
    return build_subject(images, True)


@pytest.fixture(scope="module")
def clean(images):
    return build_subject(images, False)


def test_backdoor_works(attacked, clean):
    assert attacked.measure()["asr_non_target"] > 0.95
    assert clean.measure()["asr_non_target"] < 0.1


def test_neural_cleanse_flags_the_target_alone(attacked, clean):
    assert neural_cleanse(attacked).reason == f"flagged classes: {TARGET}"
    assert neural_cleanse(clean).flagged is False


def test_strip_separates_triggered_images(attacked, clean):
    # With the hundred overlays of STRIP's paper; with the study's ten the entropies are noisier (0.78).
    assert strip(attacked, num_overlays=100).scores["auroc"] > 0.8
    assert strip(clean, num_overlays=100).flagged is False
