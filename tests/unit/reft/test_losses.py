"""Matching costs and losses by slow loops, and their agreement with transformers' Mask2Former."""

import pytest
import torch
from torch.nn import functional as F
from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation

from decahub.models.reft.losses.mask_loss import RefTLoss, compute_mask_losses, compute_matching_cost
from decahub.models.reft.losses.point_sampling import choose_uncertain_points, sample_maps
from tests.tiny.reft import tiny_config, tiny_labels, tiny_mask2former_fields, tiny_model, tiny_pixels


ATOL = 1e-6
SHARED_POINTS_RTOL = 0.03  # means over 40 draws of points, whose standard deviation is about 3 %


def test_matching_cost_by_a_loop():
    torch.manual_seed(0)
    logits, targets = torch.randn(4, 9), torch.rand(3, 9)
    probabilities, classes = torch.randn(4, 6).softmax(-1), torch.tensor([5, 0, 2])

    cost = compute_matching_cost(logits, probabilities, targets, classes, (2.0, 5.0, 3.0))

    for query in range(4):
        for target in range(3):
            entropy = F.binary_cross_entropy_with_logits(logits[query], targets[target])
            p, t = logits[query].sigmoid(), targets[target]
            dice = 1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1)
            expected = 5 * entropy + 3 * dice - 2 * probabilities[query, classes[target]]
            torch.testing.assert_close(cost[query, target], expected, atol=ATOL, rtol=0)


def test_mask_losses_by_a_loop():
    torch.manual_seed(0)
    logits, labels = torch.randn(3, 8), torch.rand(3, 8)

    entropy, dice = compute_mask_losses(logits, labels)

    for row in range(3):
        p, t = logits[row].sigmoid(), labels[row]
        expected = -(t * p.log() + (1 - t) * (1 - p).log()).mean()
        torch.testing.assert_close(entropy[row], expected, atol=ATOL, rtol=0)
        torch.testing.assert_close(dice[row], 1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1), atol=ATOL, rtol=0)


def test_points_are_x_and_y_of_pixel_centers():
    maps = torch.arange(12.0).view(1, 3, 4).repeat(2, 1, 1)
    points = torch.tensor([[0.5 / 4, 0.5 / 3], [3.5 / 4, 1.5 / 3], [1.5 / 4, 2.5 / 3]])

    expected = torch.tensor([[0.0, 7, 9]] * 2)
    torch.testing.assert_close(sample_maps(maps, points), expected, atol=ATOL, rtol=0)
    torch.testing.assert_close(sample_maps(maps, points.expand(2, -1, -1)), expected, atol=ATOL, rtol=0)


def test_uncertain_points_are_those_nearest_to_zero():
    chosen = choose_uncertain_points(torch.tensor([[3.0, -0.1, 0.5, -2.0]]), 2)

    assert sorted(chosen[0].tolist()) == [1, 2]


def test_parity_mode_is_transformers_under_its_seed():
    model = tiny_model(parity_mode="transformers", trained=False)
    reference = Mask2FormerForUniversalSegmentation(Mask2FormerConfig(**tiny_mask2former_fields(model.config))).eval()
    reference.load_state_dict(model.state_dict(), strict=False)
    labels = tiny_labels()

    torch.manual_seed(4)
    loss = model(tiny_pixels(), **labels).loss
    torch.manual_seed(4)
    expected = reference(tiny_pixels(), **labels).loss

    torch.testing.assert_close(loss, expected, atol=0, rtol=1e-5)


def test_shared_points_give_the_same_loss_on_average():
    model = tiny_model(train_num_points=200)
    in_order = tiny_model(train_num_points=200, parity_mode="transformers")
    in_order.load_state_dict(model.state_dict())
    labels = tiny_labels()

    def average(model):
        torch.manual_seed(0)
        with torch.no_grad():
            return torch.stack([model(tiny_pixels(), **labels).loss for _ in range(40)]).mean()

    torch.testing.assert_close(average(model), average(in_order), atol=0, rtol=SHARED_POINTS_RTOL)


def test_terms_have_the_names_of_transformers_and_sum_to_the_loss():
    model = tiny_model()

    outputs = model(tiny_pixels(), **tiny_labels())

    names = {"loss_mask", "loss_dice", "loss_cross_entropy"}
    assert outputs.loss_dict.keys() == names | {f"{name}_{index}" for name in names for index in range(3)}
    torch.testing.assert_close(outputs.loss, sum(outputs.loss_dict.values()))


def test_without_auxiliary_loss_only_the_last_prediction_counts():
    model = tiny_model(use_auxiliary_loss=False)

    outputs = model(tiny_pixels(), **tiny_labels())

    assert outputs.loss_dict.keys() == {"loss_mask", "loss_dice", "loss_cross_entropy"}
    outputs.loss.backward()


@pytest.mark.parametrize("parity_mode", [None, "transformers"])
@pytest.mark.parametrize("counts", [(0, 0), (3, 0)], ids=["no targets", "an image without targets"])
def test_images_without_targets_give_a_finite_loss(counts, parity_mode):
    model = tiny_model(parity_mode=parity_mode)

    outputs = model(tiny_pixels(), **tiny_labels(counts))
    outputs.loss.backward()

    assert torch.isfinite(outputs.loss)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    if counts == (0, 0):
        assert outputs.loss_dict["loss_mask"] == outputs.loss_dict["loss_dice"] == 0
        entropy = F.cross_entropy(outputs.class_queries_logits.flatten(0, 1), torch.full((14,), 5))
        torch.testing.assert_close(outputs.loss_dict["loss_cross_entropy"], 2 * entropy)


def test_more_targets_than_queries_match_a_subset():
    model = tiny_model()
    loss = RefTLoss(model.config)
    outputs = model(tiny_pixels(), **tiny_labels((9, 2)))

    assert torch.isfinite(outputs.loss)
    assert loss.count_masks([torch.zeros(9), torch.zeros(2)]) == 11


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_loss_works_in_other_types(dtype):
    model = tiny_model().to(dtype)

    loss = model(tiny_pixels().to(dtype), **tiny_labels()).loss

    assert torch.isfinite(loss)
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


def test_class_loss_weights_no_object_less():
    criterion = RefTLoss(tiny_config(no_object_weight=0.2))
    logits = torch.randn(1, 3, 6, generator=torch.Generator().manual_seed(0))

    loss = criterion.compute_class_loss(logits, [torch.tensor([4])], [(torch.tensor([1]), torch.tensor([0]))])

    log_p = logits[0].log_softmax(-1)
    expected = -(0.2 * log_p[0, 5] + log_p[1, 4] + 0.2 * log_p[2, 5]) / 1.4
    torch.testing.assert_close(loss, expected)
