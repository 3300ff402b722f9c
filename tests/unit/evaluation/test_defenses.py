"""Defenses on a classifier with a backdoor that is planted by hand, and on the same without it."""

import pytest
import torch

from decahub import ConvNetConfig
from decahub.evaluation.defenses import DEFENSES, Subject
from decahub.evaluation.defenses.input_level import compute_auroc
from decahub.evaluation.defenses.model_level import neural_cleanse
from decahub.evaluation.defenses.subject import compute_anomalies, compute_representations, predict
from decahub.models.doorping.downstream import train_on_images
from decahub.models.doorping.modeling_doorping import build_network
from decahub.models.doorping.triggers import build_mask, normalize, stamp
from tests.tiny.doorping import MEAN, STD, draw_real_images, tiny_network


TARGET, NUM_CLASSES = 2, 6
QUICK = {"neural_cleanse": {"steps": 200}}


def draw_images(num_per_class, seed):
    images, labels = draw_real_images(num_per_class, NUM_CLASSES, seed)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    return images[order], labels[order]


def build_subject(has_backdoor: bool) -> Subject:
    """Classes are told apart by brightness; the trigger is a patch that no class has."""
    torch.manual_seed(0)
    images, labels = draw_images(80, seed=0)
    mask = build_mask(3, 12, 3, 1)
    white = normalize(mask, MEAN, STD)[None]

    def put(batch):
        return stamp(batch, white, mask)

    if has_backdoor:
        images, labels = images.clone(), labels.clone()
        images[:60], labels[:60] = put(images[:60]), TARGET
    network = build_network(tiny_network(hidden_size=12, classifier_hidden_size=24, num_labels=NUM_CLASSES))
    train_on_images(network, images, labels, epochs=60, learning_rate=0.02, batch_size=64)
    test_images, test_labels = draw_images(50, seed=1)
    return Subject(
        network.requires_grad_(False), test_images, test_labels, put, TARGET, MEAN, STD, images, labels, quantized=put
    )


@pytest.fixture(scope="module")
def attacked():
    return build_subject(True)


@pytest.fixture(scope="module")
def clean():
    return build_subject(False)


def test_the_planted_backdoor_works(attacked, clean):
    assert attacked.measure()["asr_non_target"] > 0.95
    assert clean.measure()["asr_non_target"] < 0.5
    assert min(attacked.measure()["cta"], clean.measure()["cta"]) > 0.8


def test_neural_cleanse_finds_a_small_patch_for_the_target(attacked, clean):
    with_backdoor, without = (neural_cleanse(subject, steps=200) for subject in (attacked, clean))

    assert with_backdoor.scores["suspected_label"] == TARGET
    ratio = [r.scores[f"norm_of_class_{TARGET}"] / r.scores["median_norm"] for r in (with_backdoor, without)]
    assert ratio[0] < 0.6
    assert ratio[0] < ratio[1]
    assert with_backdoor.images[f"class {TARGET}"].shape == (3, 12, 12)


@pytest.mark.parametrize("name", ["spectral_signatures", "scan", "activation_clustering", "spectre"])
def test_dataset_level_needs_enough_images(name, attacked):
    result = DEFENSES[name](attacked)
    few = Subject(**{**attacked.__dict__, "training_images": attacked.training_images[:30],
                     "training_labels": torch.arange(30) % NUM_CLASSES})  # fmt: skip
    none = Subject(**{**attacked.__dict__, "training_images": None})

    assert result.applicable
    assert DEFENSES[name](few).flagged is None
    assert "only 5 images of a class" in DEFENSES[name](few).reason
    assert DEFENSES[name](none).reason == "needs the training images"


def test_spectral_scores_of_the_target_stand_out(attacked):
    assert DEFENSES["spectral_signatures"](attacked).scores["ratio_of_target_to_others"] > 1.5


@pytest.mark.parametrize("name", ["fine_tuning", "fine_pruning", "nad"])
def test_repairs_have_nothing_to_do_without_an_attack(name, clean):
    quiet = Subject(**{**clean.__dict__, "stamp": lambda images: images})

    result = DEFENSES[name](quiet)

    assert result.flagged is None
    assert "nothing to repair" in result.reason


@pytest.mark.parametrize("name", DEFENSES)
def test_defenses_leave_the_network_alone(name, attacked):
    before = {key: value.clone() for key, value in attacked.network.state_dict().items()}

    DEFENSES[name](attacked, **QUICK.get(name, {}))

    assert all(torch.equal(value, before[key]) for key, value in attacked.network.state_dict().items())
    assert not any(value.requires_grad for value in attacked.network.parameters())


def test_range_check_sees_what_no_image_can_hold(attacked):
    mask = build_mask(3, 12, 3, 1)
    loud = Subject(**{**attacked.__dict__, "stamp": lambda images: stamp(images, 90 * mask[None], mask)})

    assert DEFENSES["quantization"](loud).flagged
    assert DEFENSES["quantization"](attacked).flagged is False
    assert DEFENSES["quantization"](attacked).scores["pixels_outside_by"] < 1e-6
    assert DEFENSES["quantization"](loud).scores["pixels_outside_by"] > 10


def test_auroc_is_the_share_of_ordered_pairs():
    lower, higher = torch.tensor([0.0, 1.0, 2.0]), torch.tensor([1.0, 3.0])

    assert compute_auroc(lower, higher) == pytest.approx((1 + 0.5 + 0 + 3) / 6)


def test_anomalies_are_deviations_by_the_median():
    values = torch.tensor([1.0, 2.0, 3.0, 4.0, 30.0])

    # The median is 3, the median distance from it 1.
    assert compute_anomalies(values).tolist() == pytest.approx([v / 1.4826 for v in (2, 1, 0, 1, 27)])


def test_representations_are_what_the_last_layer_reads(attacked):
    images, network = attacked.images[:9], attacked.network

    values = compute_representations(network, images)

    assert values.shape == (9, 24)
    torch.testing.assert_close(network.classifier[-1](values).argmax(1), predict(network, images))
    assert ConvNetConfig().classifier_hidden_size == 192
