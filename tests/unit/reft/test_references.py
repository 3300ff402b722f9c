"""The references and the classifiers by their formulas, written as loops."""

import math

import pytest
import torch

from decahub.models.reft.classifiers import RefTPrototypeClassifier
from decahub.models.reft.references import (
    RefTReference,
    compute_class_centers,
    pool_support,
    select_object_queries,
)


ATOL = 1e-12  # float64, one sum in two orders


def build_reference(reweights=False):
    torch.manual_seed(0)
    reference = RefTReference(12, 3, reweights).double()
    for parameter in reference.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return reference


@pytest.mark.parametrize("reweights", [False, True], ids=["attention", "reweight"])
def test_reference_is_its_formula(reweights):
    reference = build_reference(reweights)
    tokens, support = torch.randn(2, 5, 12).double(), torch.randn(2, 4, 12).double()

    output, weights = reference(tokens, support)

    normed, shown = reference.norm_query(tokens), reference.norm_support(support)
    q, k, v = reference.q_proj(normed), reference.k_proj(shown), reference.v_proj(shown)
    for sample in range(2):
        for token in range(5):
            update = torch.zeros(12).double()
            for head in range(3):
                part = slice(4 * head, 4 * head + 4)
                scores = [float(q[sample, token, part] @ k[sample, n, part]) / math.sqrt(4) for n in range(4)]
                total = 1 + sum(math.exp(score) for score in scores)
                for n, score in enumerate(scores):
                    value = v[sample, n, part].sigmoid() if reweights else v[sample, n, part]
                    update[part] += math.exp(score) / total * value
                    torch.testing.assert_close(
                        weights[sample, head, token, n].item(), math.exp(score) / total, atol=ATOL, rtol=0
                    )
            if reweights:
                update = update * normed[sample, token]
            expected = tokens[sample, token] + reference.out_proj(update)
            torch.testing.assert_close(output[sample, token], expected, atol=ATOL, rtol=0)


def test_a_masked_support_vector_is_as_if_it_were_not_there():
    reference = build_reference()
    tokens, support = torch.randn(2, 5, 12).double(), torch.randn(1, 4, 12).double()
    mask = torch.tensor([[True, False, True, True]])

    torch.testing.assert_close(
        reference(tokens, support, mask)[0], reference(tokens, support[:, [0, 2, 3]])[0], atol=ATOL, rtol=0
    )


def test_a_sample_without_support_is_left_as_it_is():
    reference = build_reference()
    tokens, support = torch.randn(2, 5, 12).double(), torch.randn(2, 4, 12).double()
    mask = torch.tensor([[True] * 4, [False] * 4])

    output, weights = reference(tokens, support, mask)

    assert torch.equal(output[1], tokens[1])
    assert not torch.equal(output[0], tokens[0])
    assert weights[1].eq(0).all()


def test_order_of_the_support_does_not_matter():
    reference = build_reference()
    tokens, support = torch.randn(2, 5, 12).double(), torch.randn(1, 4, 12).double()

    torch.testing.assert_close(
        reference(tokens, support)[0], reference(tokens, support[:, [2, 0, 3, 1]])[0], atol=ATOL, rtol=0
    )


def test_a_small_instance_does_not_vanish():
    feature_map = torch.arange(8.0).view(1, 1, 2, 4).double()
    mask = torch.zeros(1, 16, 32).double()
    mask[0, 9, 17] = 1  # one of 64 pixels under the pixel (1, 2) of the map

    sums, areas = pool_support(feature_map, mask)

    assert areas.item() == 1 / 64
    assert (sums / areas[:, None]).item() == 6


@pytest.mark.parametrize("shot_reduction", ["mean", "area"])
def test_centers_by_a_loop(shot_reduction):
    torch.manual_seed(0)
    feature_map, masks = torch.randn(6, 5, 3, 4).double(), torch.rand(6, 6, 8).double()
    valid = torch.tensor([[True, False], [True, True], [False, False]])
    sums, areas = pool_support(feature_map, masks)

    centers, _ = compute_class_centers(sums.view(3, 2, 5), areas.view(3, 2), valid, shot_reduction)

    for way in range(3):
        pooled, numerator, denominator = [], torch.zeros(5).double(), 1e-6
        for shot in range(2):
            if not valid[way, shot]:
                continue
            mask = masks[2 * way + shot].view(3, 2, 4, 2).mean((1, 3))
            total = (mask * feature_map[2 * way + shot]).sum((1, 2))
            pooled.append(total / (mask.sum() + 1e-6))
            numerator, denominator = numerator + total, denominator + mask.sum()
        expected = numerator / denominator if shot_reduction == "area" else sum(pooled) / max(len(pooled), 1)
        torch.testing.assert_close(centers[way], torch.zeros(5).double() + expected, atol=ATOL, rtol=0)


def test_equal_scores_prefer_the_lower_index():
    logits = torch.zeros(1, 4, 3, 5)
    logits[0, 2] = -4.0

    indices, _ = select_object_queries("mask", 2, logits, torch.ones(1, 6, 10))

    assert indices.tolist() == [[0, 1]]


def test_selection_finds_the_query_whose_mask_is_that_of_the_support():
    masks = torch.zeros(2, 12, 20)
    masks[0, :4, :8], masks[1, 6:, 10:] = 1, 1
    logits = torch.full((2, 3, 3, 5), -9.0)
    logits[0, 2, 0, :2], logits[1, 1, 1:, 3:] = 9.0, 9.0

    indices, _ = select_object_queries("mask", 1, logits, masks)

    assert indices[:, 0].tolist() == [2, 1]


def test_pooling_of_half_precision_is_exact_to_float32():
    masks = torch.ones(1, 64, 64)
    feature_map = torch.full((1, 1, 64, 64), 1.0, dtype=torch.bfloat16)

    sums, areas = pool_support(feature_map, masks)

    assert sums.item() == areas.item() == 4096  # bfloat16 would stop counting at 256


def test_a_class_without_support_is_never_predicted():
    classifier = RefTPrototypeClassifier(6, 20.0)
    for parameter in classifier.parameters():
        torch.nn.init.normal_(parameter)
    mask = torch.tensor([[True, False]])

    logits = classifier(torch.randn(2, 3, 6), torch.randn(1, 2, 6), mask)

    assert logits.softmax(-1)[..., 1].eq(0).all()
