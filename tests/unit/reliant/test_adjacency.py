"""Sums over neighbors: sparse products against dense matrices, their gradients, and what is kept between calls."""

import pytest
import torch

from decahub.models.reliant import adjacency as adjacencies
from decahub.models.reliant.adjacency import EdgeListAdjacency, SparseAdjacency, prepare_adjacency
from decahub.models.shared import sparse_product
from tests.tiny.reliant import NUM_NODES, tiny_graph


ATOL = 1e-12  # float64, two orders of summation
ATOL_FLOAT32 = 2e-6  # float32, sums of values up to 10
KINDS = [SparseAdjacency, EdgeListAdjacency]
by_kind = pytest.mark.parametrize("kind", KINDS, ids=["sparse", "edge-list"])
by_bag = pytest.mark.parametrize("is_bag", [False, True], ids=["product", "bag"])
by_loops = pytest.mark.parametrize("add_self_loops", [True, False], ids=["loops", "as-given"])


def dense_matrix(add_self_loops: bool) -> torch.Tensor:
    """Number of edges from column to row."""
    matrix = torch.zeros(NUM_NODES, NUM_NODES, dtype=torch.float64)
    for source, target in tiny_graph()["edge_index"].t().tolist():
        matrix[target, source] += 1
    if add_self_loops:
        matrix += torch.diag((matrix.diagonal() == 0).double())
    return matrix


def hidden_states(channels: int = 4) -> torch.Tensor:
    return torch.randn(NUM_NODES, channels, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@by_kind
@by_loops
def test_propagate(kind, add_self_loops):
    matrix, states = dense_matrix(add_self_loops), hidden_states()
    degree = matrix.sum(1)
    root = torch.where(degree > 0, degree**-0.5, 0)

    actual = kind(tiny_graph()["edge_index"], NUM_NODES, add_self_loops).propagate(states)

    torch.testing.assert_close(actual, root[:, None] * (matrix @ (root[:, None] * states)), atol=ATOL, rtol=0)


@by_kind
@by_loops
def test_average_with_self(kind, add_self_loops):
    matrix, states = dense_matrix(add_self_loops), hidden_states()

    actual = kind(tiny_graph()["edge_index"], NUM_NODES, add_self_loops).average_with_self(states)

    expected = (matrix @ states + states) / (matrix.sum(1, keepdim=True) + 1)
    torch.testing.assert_close(actual, expected, atol=ATOL, rtol=0)


@by_kind
@by_loops
def test_softmax_sums_to_one_over_incoming_edges(kind, add_self_loops):
    adjacency = kind(tiny_graph()["edge_index"], NUM_NODES, add_self_loops)
    scores = 300 * hidden_states(1)[:, 0].index_select(0, adjacency.source)  # would overflow without the maximum

    weights = adjacency.softmax(scores)

    totals = torch.zeros(NUM_NODES, dtype=weights.dtype).index_add(0, adjacency.target, weights)
    has_edges = dense_matrix(add_self_loops).sum(1) > 0
    torch.testing.assert_close(totals, has_edges.double(), atol=ATOL, rtol=0)


@by_loops
def test_both_kinds_agree_on_values_and_gradients(add_self_loops):
    results = []
    for kind in KINDS:
        adjacency = kind(tiny_graph()["edge_index"], NUM_NODES, add_self_loops)
        first, second = (states.clone().requires_grad_() for states in (hidden_states(), hidden_states(3)))
        weights = adjacency.softmax(first.sum(1).index_select(0, adjacency.source))
        mixed = (
            adjacency.aggregate(weights, second) + adjacency.propagate(second) + adjacency.average_with_self(second)
        )
        edge_scores = adjacency.score_edges(first, first.square())
        mask = adjacency.edge_mask()
        edge_scores = edge_scores if mask is None else edge_scores * mask
        (mixed.square().sum() + edge_scores.sin().sum()).backward()
        results.append((mixed, first.grad, second.grad))

    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, atol=ATOL, rtol=0)


@by_bag
def test_gradients_of_both_kernels_are_those_of_differences(is_bag, monkeypatch):
    monkeypatch.setattr(sparse_product, "is_faster_as_bag", lambda dense: is_bag)
    adjacency = SparseAdjacency(tiny_graph()["edge_index"], NUM_NODES, add_self_loops=False)
    weights = torch.rand(len(adjacency.source), dtype=torch.float64, requires_grad=True)
    states = hidden_states().requires_grad_()

    assert torch.autograd.gradcheck(adjacency.aggregate, (weights, states))
    assert torch.autograd.gradcheck(adjacency.score_edges, (states, hidden_states().flip(0).requires_grad_()))
    assert torch.autograd.gradcheck(adjacency.propagate, (states,))
    assert torch.autograd.gradcheck(adjacency.average_with_self, (states,))
    assert torch.autograd.gradgradcheck(adjacency.propagate, (states,))


@pytest.mark.parametrize("channels", [1, 8, 9, 16, 20])
def test_channels_of_any_number_give_values_and_gradients_of_the_dense_product(channels):
    matrix, states = dense_matrix(True), hidden_states(channels).float().requires_grad_()
    root = matrix.sum(1) ** -0.5
    propagation = (root[:, None] * matrix * root).float()

    actual = SparseAdjacency(tiny_graph()["edge_index"], NUM_NODES, add_self_loops=True).propagate(states)
    actual.square().sum().backward()

    expected = propagation @ states.detach()
    torch.testing.assert_close(actual, expected, atol=ATOL_FLOAT32, rtol=0)
    torch.testing.assert_close(states.grad, 2 * propagation.t() @ expected, atol=ATOL_FLOAT32, rtol=0)


def test_half_precision_is_summed_in_float32():
    adjacency = SparseAdjacency(tiny_graph()["edge_index"], NUM_NODES, add_self_loops=True)
    states = hidden_states(20).bfloat16()

    actual = adjacency.propagate(states)

    assert torch.equal(actual, adjacency.propagate(states.float()).bfloat16())


def test_graph_without_edges():
    adjacency = SparseAdjacency(torch.zeros(2, 0, dtype=torch.long), NUM_NODES, add_self_loops=False)
    states = hidden_states(20).float().requires_grad_()

    actual = adjacency.propagate(states)
    actual.sum().backward()

    assert torch.equal(actual, torch.zeros_like(states))
    assert torch.equal(states.grad, torch.zeros_like(states))
    torch.testing.assert_close(adjacency.average_with_self(states), states, atol=0, rtol=0)


def test_loops_are_added_once():
    edges = tiny_graph()["edge_index"]
    loops = torch.tensor([node for node in range(NUM_NODES) if node != 2])  # which has one

    added = SparseAdjacency(edges, NUM_NODES, add_self_loops=True)
    given = SparseAdjacency(torch.cat([edges, loops.repeat(2, 1)], 1), NUM_NODES, add_self_loops=True)

    assert torch.equal(added.source, given.source)
    assert torch.equal(added.target, given.target)


def test_symmetric_graph_shares_one_structure():
    edges = tiny_graph()["edge_index"]
    adjacency = SparseAdjacency(torch.cat([edges, edges.flip(0)], 1), NUM_NODES, add_self_loops=True)

    assert adjacency.transposed[1] is adjacency.columns


def test_prepares_a_tensor_once_and_again_after_a_change(monkeypatch):
    made = []

    class Counted(SparseAdjacency):
        def __init__(self, *arguments):
            made.append(arguments)
            super().__init__(*arguments)

    monkeypatch.setattr(adjacencies, "SparseAdjacency", Counted)
    edges = tiny_graph()["edge_index"].flip(1)  # a graph that no other test has prepared

    first = prepare_adjacency(edges, NUM_NODES, True)
    assert prepare_adjacency(edges, NUM_NODES, True) is first
    assert len(made) == 1
    edges[0, 0] = 7
    assert prepare_adjacency(edges, NUM_NODES, True) is not first
    assert len(made) == 2


ONE_WAY = torch.tensor([[0, 1, 1, 3, 4, 4, 5], [1, 0, 2, 3, 5, 5, 6]])
BOTH_WAYS = torch.tensor([[0, 1, 1, 2, 3, 4, 4, 5, 5, 5, 6], [1, 0, 2, 1, 3, 5, 5, 4, 4, 6, 5]])


@pytest.mark.parametrize("adjacency_class", [SparseAdjacency, EdgeListAdjacency])
@pytest.mark.parametrize("add_self_loops", [False, True])
def test_undirected_edges_may_be_listed_once(adjacency_class, add_self_loops):
    states = hidden_states()
    once = adjacency_class(ONE_WAY, NUM_NODES, add_self_loops, undirected=True)
    twice = SparseAdjacency(BOTH_WAYS, NUM_NODES, add_self_loops)

    torch.testing.assert_close(once.propagate(states), twice.propagate(states))
    torch.testing.assert_close(once.average_with_self(states), twice.average_with_self(states))


def test_edges_in_both_directions_stay_as_they_are():
    plain, undirected = (SparseAdjacency(BOTH_WAYS, NUM_NODES, True, value) for value in (False, True))

    assert torch.equal(plain.source, undirected.source)
    assert torch.equal(plain.target, undirected.target)


def test_edges_in_one_direction_are_told(monkeypatch):
    told = []
    monkeypatch.setattr(adjacencies.logger, "warning_once", told.append)

    SparseAdjacency(BOTH_WAYS, NUM_NODES, True, undirected=True)
    SparseAdjacency(ONE_WAY[:, 2:], NUM_NODES, True, undirected=False)
    assert told == []
    SparseAdjacency(ONE_WAY[:, 2:], NUM_NODES, True, undirected=True)
    assert "4 of 5 edges are listed in one direction only and are read in both" in told[0]


def test_equal_edges_share_a_graph():
    edges = tiny_graph()["edge_index"]

    assert prepare_adjacency(edges, NUM_NODES, True) is prepare_adjacency(edges.clone(), NUM_NODES, True)


def test_graph_of_an_evaluation_can_be_trained_on():
    edges, states = tiny_graph()["edge_index"], hidden_states()
    with torch.inference_mode():
        prepare_adjacency(edges, NUM_NODES, True).propagate(states)

    states = states.requires_grad_()
    prepare_adjacency(edges, NUM_NODES, True).propagate(states).sum().backward()

    assert states.grad.abs().sum() > 0


@pytest.mark.parametrize("node", [NUM_NODES, -1], ids=["too-large", "negative"])
def test_refuses_node_id_out_of_range(node):
    edges = tiny_graph()["edge_index"]
    edges[1, 3] = node

    with pytest.raises(ValueError, match=rf"node ids in \[0, 9\); got \[\d, {node}\] at column 3, and 1 such"):
        prepare_adjacency(edges, NUM_NODES, True)
