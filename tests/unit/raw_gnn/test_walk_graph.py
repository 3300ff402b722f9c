"""The graph of RAW-GNN's walks: which edges it has, whatever was given, and how long it is remembered."""

import pytest
import torch

from decahub.models.raw_gnn.walks.graph import WalkGraph, prepare_walk_graph
from decahub.models.shared.prepared_graphs import MAX_GRAPHS


# 0 -> 1 twice, 1 -> 2 both ways, 3 -> 3, and a node 4 that no edge names; not sorted.
MESSY_EDGES = torch.tensor([[2, 0, 1, 0, 3], [1, 1, 2, 1, 3]])
NUM_NODES = 5


def list_neighbors(graph: WalkGraph) -> list[list[int]]:
    return [graph.neighbors_of(node).tolist() for node in range(graph.num_nodes)]


@pytest.mark.parametrize(
    ("undirected", "add_self_loops", "neighbors"),
    [
        (True, True, [[0, 1], [0, 1, 2], [1, 2], [3], [4]]),
        (True, False, [[1], [0, 2], [1], [3], []]),
        (False, True, [[0, 1], [1, 2], [1, 2], [3], [4]]),
        (False, False, [[1], [2], [1], [3], []]),
    ],
)
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64], ids=str)
def test_edges_are_sorted_and_distinct(undirected, add_self_loops, neighbors, dtype):
    edge_index = MESSY_EDGES.to(dtype)

    graph = WalkGraph.from_edge_index(edge_index, NUM_NODES, undirected=undirected, add_self_loops=add_self_loops)

    assert list_neighbors(graph) == neighbors
    assert graph.degrees.tolist() == [len(row) for row in neighbors]
    assert graph.row_pointers.dtype == graph.neighbors.dtype == torch.int64
    assert torch.equal(edge_index, MESSY_EDGES.to(dtype))


def test_each_node_has_exactly_one_self_loop():
    graph = WalkGraph.from_edge_index(torch.tensor([[0, 0, 1], [0, 0, 0]]), 3)

    assert list_neighbors(graph) == [[0, 1], [0, 1], [2]]
    assert graph.has_self_loop.all()


@pytest.mark.parametrize("add_self_loops", [True, False])
def test_a_graph_without_edges(add_self_loops):
    graph = WalkGraph.from_edge_index(torch.empty(2, 0, dtype=torch.long), 3, add_self_loops=add_self_loops)

    assert list_neighbors(graph) == ([[0], [1], [2]] if add_self_loops else [[], [], []])
    assert graph.has_self_loop.tolist() == [add_self_loops] * 3


@pytest.mark.parametrize("num_edges", [0, 1, 400])
def test_edges_are_found_as_in_a_dense_matrix(num_edges):
    num_nodes = 30
    edge_index = torch.randint(num_nodes, (2, num_edges), generator=torch.Generator().manual_seed(0))
    dense = torch.zeros(num_nodes, num_nodes, dtype=torch.bool)
    dense[edge_index[0], edge_index[1]] = True
    graph = WalkGraph.from_edge_index(edge_index, num_nodes, undirected=False, add_self_loops=False)
    rows, columns = torch.cartesian_prod(torch.arange(num_nodes), torch.arange(num_nodes)).T

    queries, places = graph.find_edges(rows, columns)

    assert torch.equal(graph.has_edges(rows, columns), dense.flatten())
    assert torch.equal(queries, dense.flatten().nonzero().squeeze(1))
    assert torch.equal(graph.neighbors[places], columns[queries])
    assert torch.equal(graph.has_self_loop, dense.diagonal())


@pytest.mark.parametrize(
    ("edge_index", "num_nodes", "error", "message"),
    [
        (torch.tensor([[0, 1, 7], [1, 2, 0]]), 5, ValueError, r"`edge_index`.*\[0, 5\); got 7 at column 2"),
        (torch.tensor([[0, 1], [1, -1]]), 5, ValueError, r"`edge_index`.*got -1 at column 1"),
        (torch.tensor([[0, 1], [1, 2], [2, 0]]), 5, ValueError, r"`edge_index`.*shape \(2, num_edges\); got \(3, 2\)"),
        (torch.tensor([0, 1]), 5, ValueError, r"`edge_index`.*got \(2,\)"),
        (torch.tensor([[0.0], [1.0]]), 5, TypeError, "`edge_index`.*int64 tensor; got torch.float32"),
        ([[0], [1]], 5, TypeError, "`edge_index`.*got list"),
        (torch.empty(2, 0, dtype=torch.long), 0, ValueError, "`num_nodes` must be at least 1; got 0"),
    ],
    ids=["too large", "negative", "transposed", "one row", "float", "list", "no node"],
)
@pytest.mark.parametrize("build", [WalkGraph.from_edge_index, prepare_walk_graph], ids=["build", "prepare"])
def test_refuses_what_is_no_edge_list(build, edge_index, num_nodes, error, message):
    with pytest.raises(error, match=message):
        build(edge_index, num_nodes)


def test_a_prepared_graph_is_remembered_by_edges_and_options():
    edge_index = MESSY_EDGES.clone()

    graph = prepare_walk_graph(edge_index, NUM_NODES)

    assert prepare_walk_graph(edge_index.clone(), NUM_NODES) is graph
    assert prepare_walk_graph(edge_index, NUM_NODES + 1).num_nodes == NUM_NODES + 1
    assert not prepare_walk_graph(edge_index, NUM_NODES, add_self_loops=False).has_self_loop.all()
    assert prepare_walk_graph(edge_index, NUM_NODES) is graph
    assert prepare_walk_graph(edge_index.int(), NUM_NODES) is not graph


def test_a_changed_tensor_is_prepared_anew():
    edge_index = MESSY_EDGES.clone()
    before = prepare_walk_graph(edge_index, NUM_NODES)

    edge_index[0, 0] = 4
    after = prepare_walk_graph(edge_index, NUM_NODES)

    assert list_neighbors(before)[4] == [4]
    assert list_neighbors(after)[4] == [1, 4]


def test_few_graphs_are_remembered_and_the_last_ones():
    first = prepare_walk_graph(MESSY_EDGES, NUM_NODES)
    for number in range(MAX_GRAPHS - 1):
        prepare_walk_graph(MESSY_EDGES, NUM_NODES + 1 + number)

    assert prepare_walk_graph(MESSY_EDGES, NUM_NODES) is first
    for number in range(MAX_GRAPHS):
        prepare_walk_graph(MESSY_EDGES, NUM_NODES + 1 + number)
    assert prepare_walk_graph(MESSY_EDGES, NUM_NODES) is not first


def test_tensors_of_inference_mode_share_a_graph():
    with torch.inference_mode():
        graph = prepare_walk_graph(MESSY_EDGES.clone(), NUM_NODES)
        again = prepare_walk_graph(MESSY_EDGES.clone(), NUM_NODES)

    assert again is graph
    assert list_neighbors(graph)[1] == [0, 1, 2]
    assert not graph.neighbors.is_inference()


def test_turning_edges_around_changes_directed_graphs_only():
    symmetric = WalkGraph.from_edge_index(MESSY_EDGES, NUM_NODES)
    directed = WalkGraph.from_edge_index(
        torch.tensor([[0, 0, 2], [1, 2, 1]]), 3, undirected=False, add_self_loops=False
    )

    assert symmetric.reversed is symmetric
    assert [directed.reversed.neighbors_of(node).tolist() for node in range(3)] == [[], [0, 2], [0]]
    assert directed.count_steps_to(torch.tensor([1]), 3).tolist() == [1, 0, 1]
    assert directed.count_steps_to(torch.tensor([0]), 3).tolist() == [0, 4, 4]
