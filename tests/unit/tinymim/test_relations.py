"""Relations and their losses against loops over heads and tokens, and the tokens of masked or mirrored images."""

import math

import pytest
import torch

from decahub.models.tinymim.relations import (
    compute_divergence,
    compute_relation_loss,
    compute_relations,
    compute_scores,
    flip_relations,
    gather_relations,
    gather_tokens,
)


ATOL = 1e-6  # float32, other order of summation
BATCH, HEADS, TOKENS, HEAD_DIM = 2, 3, 5, 4


def build_states(seed: int) -> torch.Tensor:
    return torch.randn(BATCH, HEADS, TOKENS, HEAD_DIM, generator=torch.Generator().manual_seed(seed))


def test_scores_are_scaled_products():
    first, second = build_states(0), build_states(1)

    scores = compute_scores(first, second)

    expected = sum(first[1, 2, 3, d] * second[1, 2, 4, d] for d in range(HEAD_DIM)) / math.sqrt(HEAD_DIM)
    torch.testing.assert_close(scores[1, 2, 3, 4], expected, atol=ATOL, rtol=0)


def test_scores_are_float32_under_autocast():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = compute_scores(build_states(0).bfloat16(), build_states(1).bfloat16())

    assert scores.dtype == torch.float32


def test_divergence_is_the_mean_over_samples_heads_and_rows():
    student, teacher = build_states(0), build_states(1)
    scores, targets = compute_scores(student, student), compute_scores(teacher, teacher)

    loss = compute_divergence(scores, targets.log_softmax(-1))

    total = 0.0
    for row in range(BATCH * HEADS * TOKENS):
        p, q = (item.reshape(-1, TOKENS)[row].double().softmax(0) for item in (targets, scores))
        total += float((p * (p.log() - q.log())).sum())
    assert loss.item() == pytest.approx(total / (BATCH * HEADS * TOKENS), abs=ATOL)


def test_divergence_is_finite_where_a_probability_vanishes():
    scores = torch.zeros(1, 1, 2, 2)
    scores[..., 0] = -1e4

    loss = compute_divergence(scores, torch.zeros(1, 1, 2, 2).log_softmax(-1))

    assert torch.isfinite(loss)


@pytest.mark.parametrize("loss", ["kl", "mse", "smooth_l1"])
def test_given_relations_equal_scores(loss):
    student, teacher = (compute_scores(build_states(seed), build_states(seed)) for seed in (0, 1))

    by_scores = compute_relation_loss(student, teacher_scores=teacher, loss=loss)
    by_relations = compute_relation_loss(student, teacher_relations=teacher.softmax(-1), loss=loss)

    torch.testing.assert_close(by_scores, by_relations, atol=ATOL, rtol=0)


def test_scores_can_be_compared_without_softmax():
    student, teacher = (compute_scores(build_states(seed), build_states(seed)) for seed in (0, 1))

    loss = compute_relation_loss(student, teacher_scores=teacher, softmax=False, loss="mse")

    torch.testing.assert_close(loss, (student - teacher).square().mean())


def test_refuses_other_shapes_and_no_target():
    scores = torch.zeros(1, 2, 3, 3)
    with pytest.raises(ValueError, match=r"\(1, 2, 3, 3\).*\(1, 1, 3, 3\)"):
        compute_relation_loss(scores, teacher_scores=torch.zeros(1, 1, 3, 3))
    with pytest.raises(ValueError, match="got neither"):
        compute_relation_loss(scores)


def test_relations_of_kept_tokens_are_those_of_kept_states():
    states = {"q": build_states(0), "k": build_states(1)}
    kept = torch.tensor([[0, 2, 3], [0, 1, 4]])
    pairs = [["q", "k"]]

    (of_kept,) = compute_relations({name: gather_tokens(value, kept) for name, value in states.items()}, pairs)
    (of_all,) = compute_relations(states, pairs)

    torch.testing.assert_close(gather_relations(of_all[:, None], kept)[:, 0], of_kept, atol=ATOL, rtol=0)


def test_flip_exchanges_columns_of_patches():
    relations = torch.arange(49.0).reshape(7, 7)  # class token and 2 x 3 patches

    flipped = flip_relations(relations, grid=(2, 3))

    # Patch (0, 0) is token 1, patch (0, 2) token 3, patch (1, 1) token 5.
    assert flipped[1, 0] == relations[3, 0]
    assert flipped[5, 1] == relations[5, 3]
    assert flipped[0, 0] == relations[0, 0]
    torch.testing.assert_close(flip_relations(flipped, grid=(2, 3)), relations)
