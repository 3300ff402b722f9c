"""Hungarian matching against brute force, with empty sets and costs that are not finite."""

from itertools import permutations

import pytest
import torch

from decahub.models.shared import matching
from decahub.models.shared.matching import match_sets


def find_least_cost(cost):
    """The least total over all one-to-one pairings."""
    if cost.shape[0] < cost.shape[1]:
        cost = cost.T
    rows, columns = cost.shape
    return min(
        sum(cost[row, column].item() for column, row in enumerate(chosen))
        for chosen in permutations(range(rows), columns)
    )


@pytest.mark.parametrize("shape", [(3, 3), (6, 2), (2, 5), (1, 4)], ids=str)
def test_total_is_the_least_of_all_pairings(shape):
    generator = torch.Generator().manual_seed(sum(shape))
    costs = [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(4)]

    pairs = match_sets(costs)

    for cost, (predictions, targets) in zip(costs, pairs, strict=True):
        assert len(predictions) == len(set(targets.tolist())) == min(shape)
        assert predictions.tolist() == sorted(set(predictions.tolist()))
        assert cost[predictions, targets].sum().item() == pytest.approx(find_least_cost(cost), abs=1e-12)


@pytest.mark.parametrize("shape", [(4, 0), (0, 3), (0, 0)], ids=str)
def test_empty_sets_have_no_pairs(shape):
    (predictions, targets), (others, _) = match_sets([torch.zeros(shape), torch.zeros(2, 1)])

    assert predictions.dtype == targets.dtype == torch.int64
    assert (len(predictions), len(targets), len(others)) == (0, 0, 1)


def test_costs_with_gradients_in_half_precision_are_taken():
    cost = torch.tensor([[2.0, 1.0], [1.0, 3.0]], dtype=torch.bfloat16, requires_grad=True)

    ((predictions, targets),) = match_sets([cost])

    assert (predictions.tolist(), targets.tolist()) == ([0, 1], [1, 0])


def test_forbidden_pair_is_the_last_resort():
    cost = torch.tensor([[float("inf"), 5.0], [7.0, float("inf")], [float("inf"), 6.0]])

    ((predictions, targets),) = match_sets([cost])

    assert (predictions.tolist(), targets.tolist()) == ([0, 1], [1, 0])
    assert len(match_sets([torch.full((2, 2), float("inf"))])[0][0]) == 2


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_refuses_costs_without_order(value):
    cost = torch.zeros(3, 2)
    cost[2, 1] = value

    with pytest.raises(ValueError, match=f"got {value} for prediction 2 and target 1 of sample 1"):
        match_sets([torch.zeros(3, 2), cost])


def test_refuses_a_batch_in_place_of_matrices():
    with pytest.raises(ValueError, match=r"got shape \(4,\) for sample 0"):
        match_sets(torch.zeros(3, 4))


def test_names_the_missing_library(monkeypatch):
    monkeypatch.setattr(matching, "linear_sum_assignment", None)

    with pytest.raises(ImportError, match="pip install scipy"):
        match_sets([torch.zeros(1, 1)])
