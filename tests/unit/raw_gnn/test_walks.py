"""The random walks of RAW-GNN: their law against exact probabilities, and that nothing else decides a walk."""

import pytest
import torch
from scipy.stats import chisquare

from decahub.models.raw_gnn.walks import sampling
from decahub.models.raw_gnn.walks import steps as walk_steps
from decahub.models.raw_gnn.walks import table as walk_table
from decahub.models.raw_gnn.walks.sampling import (
    LAWS,
    WalkGraph,
    extract_paths,
    first_step_probabilities,
    sample_paths,
    sample_walks,
    transition_probabilities,
)


FLOAT64_ATOL = 1e-12
TABLE_ATOL = 1e-9  # entries near 10,000, summed in another order
# 200,000 walks over at most 121 pairs of steps differ from their law by about 0.01 in total variation; the other law,
# or p and q exchanged, by more than 0.1.
NUM_WALKS = 200_000
MAX_TOTAL_VARIATION = 0.02
MIN_P_VALUE = 1e-4  # of one fixed seed for each case, so this never fails by chance

DFS, BFS = {"p": 10.0, "q": 0.1}, {"p": 0.1, "q": 10.0}
EXTREMES = [{"p": p, "q": q} for p in (1e-6, 1e6) for q in (1e-6, 1e6)]
NUM_EXTREME_WALKS = 40_000


def build_graph(pairs, num_nodes: int, **options) -> WalkGraph:
    return WalkGraph.from_edge_index(torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).T, num_nodes, **options)


# A triangle, a square, a leaf, and a node of their own.
SPARSE_EDGES = [(0, 1), (0, 2), (1, 2), (2, 3), (3, 4), (4, 5), (5, 2), (5, 6)]
# Two cliques that share three nodes: rows are long enough for rejection.
DENSE_EDGES = [(a, b) for a in range(14) for b in range(a) if a < 11 or b > 7]
GRAPHS = {
    "sparse": (build_graph(SPARSE_EDGES, 8), 2),
    "sparse without self-loops": (build_graph(SPARSE_EDGES, 8, add_self_loops=False), 2),
    "some self-loops": (build_graph([*SPARSE_EDGES, (2, 2), (5, 5)], 8, add_self_loops=False), 2),
    "directed": (build_graph([*SPARSE_EDGES, (2, 0), (6, 2)], 8, undirected=False), 2),
    "dead ends": (build_graph(SPARSE_EDGES, 8, undirected=False, add_self_loops=False), 0),
    "dense": (build_graph(DENSE_EDGES, 14), 0),
    "dense without self-loops": (build_graph(DENSE_EDGES, 14, add_self_loops=False), 8),
}
by_graph = pytest.mark.parametrize(("graph", "start"), GRAPHS.values(), ids=GRAPHS)
by_law = pytest.mark.parametrize("law", LAWS)


@pytest.fixture(params=["table", "no table"])
def way(request, monkeypatch) -> str:
    """How second-order steps are drawn: from a table, or by rejection and enumeration."""
    if request.param == "no table":
        monkeypatch.setattr(walk_table, "MAX_ENTRIES", 0)
    return request.param


@pytest.fixture
def no_table(monkeypatch):
    monkeypatch.setattr(walk_table, "MAX_ENTRIES", 0)


def build_mixed_graph() -> WalkGraph:
    """A hub of 700 leaves, a clique of 60, and random edges: all ways of drawing a step are used."""
    generator = torch.Generator().manual_seed(0)
    star = torch.stack([torch.zeros(700, dtype=torch.long), torch.arange(1, 701)])
    clique = torch.combinations(torch.arange(700, 760)).T
    return WalkGraph.from_edge_index(
        torch.cat([star, clique, torch.randint(900, (2, 1500), generator=generator)], dim=1), 900
    )


def weigh_slowly(graph: WalkGraph, previous: int, current: int, p: float, q: float, law: str) -> list[float]:
    """The law of a step written out, candidate after candidate."""
    neighbors = [set(graph.neighbors_of(node).tolist()) for node in range(graph.num_nodes)]
    weights = [0.0] * graph.num_nodes
    for candidate in neighbors[current]:
        accepts = [1 / q]
        if candidate in neighbors[previous]:
            accepts.append(1.0)
        if candidate == previous:
            accepts.append(1 / p)
        weights[candidate] = accepts[-1] if law == "node2vec" else max(accepts)
    total = sum(weights)
    return [weight / total for weight in weights]


# --- The law


@by_law
@by_graph
def test_transition_probabilities_are_the_formula(graph, start, law):
    for previous in range(graph.num_nodes):
        for current in graph.neighbors_of(previous).tolist():
            if graph.degrees[current] == 0:
                continue
            expected = torch.tensor(weigh_slowly(graph, previous, current, 3.0, 0.25, law), dtype=torch.float64)

            probabilities = transition_probabilities(graph, previous, current, 3.0, 0.25, law)

            torch.testing.assert_close(probabilities, expected, atol=FLOAT64_ATOL, rtol=0)


def test_no_walk_comes_along_a_missing_edge():
    graph, _ = GRAPHS["sparse"]

    assert transition_probabilities(graph, 0, 6, 1.0, 1.0).sum() == 0


@by_law
@pytest.mark.parametrize("parameters", [DFS, BFS, *EXTREMES], ids=str)
@by_graph
def test_walks_follow_their_law(graph, start, parameters, law, way):
    num_nodes = graph.num_nodes
    first = first_step_probabilities(graph, start)
    expected = torch.stack(
        [
            first[node] * transition_probabilities(graph, start, node, **parameters, law=law)
            for node in range(num_nodes)
        ]
    ).flatten()

    num_walks = NUM_EXTREME_WALKS if parameters in EXTREMES else NUM_WALKS
    walks = sample_walks(graph, torch.full((num_walks,), start), length=2, **parameters, law=law, seed=1)

    counts = (walks[:, 1] * num_nodes + walks[:, 2]).bincount(minlength=num_nodes**2).double()
    assert counts[expected == 0].sum() == 0
    if num_walks == NUM_WALKS:
        assert (counts / num_walks - expected).abs().sum() / 2 < MAX_TOTAL_VARIATION
    common = expected * num_walks >= 5  # where the test's approximation holds
    if common.sum() > 1:
        wanted = expected[common] / expected[common].sum() * counts[common].sum()
        assert chisquare(counts[common].numpy(), wanted.numpy()).pvalue > MIN_P_VALUE


@by_law
def test_later_steps_follow_the_law_of_the_two_nodes_before(law, way):
    graph, start = GRAPHS["sparse"]
    walks = sample_walks(graph, torch.full((NUM_WALKS,), start), length=6, **BFS, law=law, seed=2)

    came = walks[(walks[:, 4] == 2) & (walks[:, 5] == 5)]
    shares = came[:, 6].bincount(minlength=graph.num_nodes) / len(came)

    expected = transition_probabilities(graph, 2, 5, **BFS, law=law)
    assert len(came) > 1000
    assert (shares - expected).abs().sum() / 2 < 0.05  # fewer walks than above


@pytest.mark.parametrize("parameters", [DFS, BFS], ids=["dfs", "bfs"])
def test_rejection_and_enumeration_draw_from_the_same_law(parameters, monkeypatch, no_table):
    graph, start = GRAPHS["dense"]
    starts = torch.full((NUM_WALKS,), start)
    shares = []

    for neighbors_per_attempt in (1, graph.num_nodes + 1):
        monkeypatch.setattr(walk_steps, "NEIGHBORS_PER_ATTEMPT", neighbors_per_attempt)
        walks = sample_walks(graph, starts, length=2, **parameters, seed=3)
        shares.append((walks[:, 1] * 14 + walks[:, 2]).bincount(minlength=14**2) / NUM_WALKS)

    assert not torch.equal(shares[0], shares[1])
    assert (shares[0] - shares[1]).abs().sum() / 2 < MAX_TOTAL_VARIATION


# --- Nothing else decides a walk


@by_law
@pytest.mark.parametrize("parameters", [DFS, BFS], ids=["dfs", "bfs"])
def test_a_walk_does_not_depend_on_its_batch(parameters, law, way):
    graph = build_mixed_graph()
    nodes = torch.arange(graph.num_nodes).repeat(3)
    numbers = torch.arange(3).repeat_interleave(graph.num_nodes)
    options = {"length": 5, **parameters, "law": law, "seed": 7, "strategy": 1}
    walks = sample_walks(graph, nodes, **options, walk_numbers=numbers)
    order = torch.randperm(nodes.numel(), generator=torch.Generator().manual_seed(0))

    shuffled = sample_walks(graph, nodes[order], **options, walk_numbers=numbers[order])
    pieces = [
        sample_walks(graph, part, **options, walk_numbers=number)
        for part, number in zip(nodes.split(301), numbers.split(301), strict=True)
    ]
    single = sample_walks(graph, torch.tensor([0]), **options, walk_numbers=torch.tensor([2]))

    assert torch.equal(shuffled, walks[order])
    assert torch.equal(torch.cat(pieces), walks)
    assert torch.equal(single[0], walks[2 * graph.num_nodes])


@pytest.mark.parametrize("parameters", [DFS, BFS], ids=["dfs", "bfs"])
def test_a_walk_does_not_depend_on_the_number_of_threads(parameters, way):
    num_threads = torch.get_num_threads()
    walks = []

    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            graph = build_mixed_graph()
            starts = torch.arange(graph.num_nodes).repeat(40)  # enough that torch splits its loops
            walks.append(sample_walks(graph, starts, length=4, **parameters, seed=7))
    finally:
        torch.set_num_threads(num_threads)

    assert torch.equal(*walks)


def test_a_walk_does_not_depend_on_how_much_is_enumerated_at_once(monkeypatch, no_table):
    graph = build_mixed_graph()
    starts = torch.arange(graph.num_nodes)
    walks = sample_walks(graph, starts, length=4, **DFS, seed=7)

    monkeypatch.setattr(walk_steps, "MAX_CANDIDATES", 50)

    assert torch.equal(sample_walks(graph, starts, length=4, **DFS, seed=7), walks)


def test_a_walk_does_not_depend_on_torchs_generator():
    graph, _ = GRAPHS["sparse"]
    starts = torch.arange(8).repeat(9)
    torch.manual_seed(0)
    walks = sample_walks(graph, starts, length=4, **DFS, seed=7)
    state = torch.get_rng_state()

    torch.manual_seed(1)

    assert torch.equal(sample_walks(graph, starts, length=4, **DFS, seed=7), walks)
    torch.manual_seed(0)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("change", [{"seed": 8}, {"seed": 7 + 2**32}, {"seed": -7}, {"strategy": 1}], ids=str)
def test_other_seeds_and_strategies_give_other_walks(change):
    graph, _ = GRAPHS["dense"]
    options = {"length": 3, **DFS, "seed": 7, "strategy": 0}
    starts = torch.zeros(1000, dtype=torch.long)

    walks, others = sample_walks(graph, starts, **options), sample_walks(graph, starts, **{**options, **change})

    # Two independent first steps agree in one of the 11 nodes around the start.
    assert (walks[:, 1] == others[:, 1]).double().mean() < 0.15


def test_walks_of_a_node_are_numbered_by_default():
    graph, _ = GRAPHS["sparse"]
    options = {"length": 4, **DFS, "seed": 7}

    walks = sample_walks(graph, torch.tensor([5, 2, 5, 5]), **options)

    numbered = sample_walks(graph, torch.tensor([5, 5, 5, 2]), **options, walk_numbers=torch.tensor([2, 0, 1, 0]))
    assert torch.equal(walks, numbered[[1, 3, 2, 0]])


# --- Tables


@by_law
@pytest.mark.parametrize("name", [name for name, (graph, _) in GRAPHS.items() if not graph.has_dead_ends])
def test_a_table_holds_the_transition_probabilities(name, law):
    graph, _ = GRAPHS[name]
    weights = walk_steps.StepWeights.of(3.0, 0.25, law)

    table = walk_table.StepTable.of(graph, weights)

    entries = iter(table.cumulative.tolist())
    for edge, (previous, current) in enumerate(
        zip(graph.edge_sources.tolist(), graph.neighbors.tolist(), strict=True)
    ):
        expected = transition_probabilities(graph, previous, current, 3.0, 0.25, law)
        neighbors = graph.neighbors_of(current)
        cumulative = torch.tensor([next(entries) for _ in neighbors], dtype=torch.float64) - edge
        torch.testing.assert_close(cumulative, expected[neighbors].cumsum(0), atol=FLOAT64_ATOL, rtol=0)
    assert next(entries, None) is None


def test_a_table_does_not_depend_on_how_much_is_accumulated_at_once(monkeypatch):
    graph = build_mixed_graph()
    weights = walk_steps.StepWeights.of(3.0, 0.25, "node2vec")
    table = walk_table.StepTable.of(graph, weights)

    monkeypatch.setattr(walk_table, "MAX_CANDIDATES", 1000)
    again = walk_table.StepTable.of(graph, weights)

    assert torch.equal(again.bounds, table.bounds)
    torch.testing.assert_close(again.cumulative, table.cumulative, atol=TABLE_ATOL, rtol=0)


@pytest.mark.parametrize("name", [name for name, (graph, _) in GRAPHS.items() if not graph.has_dead_ends])
def test_a_step_of_a_table_is_the_first_entry_above_the_draw(name):
    graph, _ = GRAPHS[name]
    table = walk_table.StepTable.of(graph, walk_steps.StepWeights.of(3.0, 0.25, "node2vec"))
    edges = torch.arange(graph.neighbors.numel()).repeat(20)
    uniform = torch.rand(edges.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    expected = torch.searchsorted(table.cumulative, edges + uniform, right=True)

    assert torch.equal(table.step(edges, uniform), expected + table.shifts[edges])


def test_a_step_of_a_table_stays_with_its_edge_at_either_end():
    graph, _ = GRAPHS["dense"]
    table = walk_table.StepTable.of(graph, walk_steps.StepWeights.of(10.0, 0.1, "node2vec"))
    edges = torch.arange(graph.neighbors.numel())

    for uniform in (0.0, 1 - 2.0**-53):
        following = table.step(edges, torch.full(edges.shape, uniform, dtype=torch.float64))
        assert torch.equal(graph.edge_sources[following], graph.neighbors)


def test_tables_are_few_and_remembered():
    graph = build_graph(SPARSE_EDGES, 8)
    weights = [walk_steps.StepWeights.of(p, 1.0, "node2vec") for p in range(2, 12)]

    tables = [walk_table.find_step_table(graph, each) for each in weights]

    assert walk_table.find_step_table(graph, weights[-1]) is tables[-1]
    assert len(graph.step_tables) == walk_table.MAX_TABLES


def test_a_graph_with_hubs_or_dead_ends_has_no_table():
    star = build_graph([(0, leaf) for leaf in range(1, 3000)], 3000)
    dead_ends, _ = GRAPHS["dead ends"]
    weights = walk_steps.StepWeights.of(10.0, 0.1, "node2vec")

    assert walk_table.find_step_table(star, weights) is None
    assert walk_table.find_step_table(dead_ends, weights) is None


# --- Odd graphs


@by_law
@pytest.mark.parametrize("parameters", [DFS, BFS, *EXTREMES], ids=str)
@by_graph
def test_walks_keep_to_edges(graph, start, parameters, law, way):
    walks = sample_walks(graph, torch.arange(graph.num_nodes).repeat(5), length=6, **parameters, law=law, seed=0)

    here, there = walks[:, :-1].flatten(), walks[:, 1:].flatten()
    stays = (here == there) & (graph.degrees[here] == 0)
    assert (graph.has_edges(here, there) | stays).all()


@pytest.mark.parametrize("add_self_loops", [True, False])
@pytest.mark.parametrize("num_nodes", [1, 3])
def test_without_edges_every_path_repeats_its_node(num_nodes, add_self_loops):
    graph = build_graph([], num_nodes, add_self_loops=add_self_loops)

    paths = sample_paths(graph, **DFS, long_walks_per_node=2, long_walk_length=4, walk_length=3, seed=0)

    assert torch.equal(paths, torch.arange(num_nodes).repeat(6)[:, None].expand(-1, 3))
    expected = torch.eye(num_nodes, dtype=torch.float64)[0]
    assert torch.equal(first_step_probabilities(graph, 0), expected)
    # Without a self-loop there is no edge to have come along.
    assert torch.equal(transition_probabilities(graph, 0, 0, 10.0, 0.1), expected * add_self_loops)


def test_no_walks_from_no_nodes():
    graph, _ = GRAPHS["sparse"]

    assert sample_walks(graph, torch.tensor([], dtype=torch.long), length=4, **DFS, seed=0).shape == (0, 5)


@by_law
@pytest.mark.parametrize("parameters", [DFS, BFS, *EXTREMES], ids=str)
def test_hubs_cost_what_their_small_neighbors_cost(parameters, law, monkeypatch):
    num_leaves = 20_000
    leaves = torch.arange(1, num_leaves + 1)
    graph = WalkGraph.from_edge_index(torch.stack([torch.zeros_like(leaves), leaves]), num_leaves + 1)
    sizes = []
    find_near_columns = walk_steps.find_near_columns

    def record_size(graph, pairs):
        sizes.append(int(torch.minimum(pairs.degree, graph.degrees[pairs.previous]).sum()))
        return find_near_columns(graph, pairs)

    monkeypatch.setattr(walk_steps, "find_near_columns", record_size)

    walks = sample_walks(graph, leaves.repeat(5), length=3, **parameters, law=law, seed=0)

    assert walks.max() <= num_leaves
    assert all(size < walk_steps.MAX_CANDIDATES + num_leaves + 1 for size in sizes)


# --- Paths


def test_paths_are_reversed_windows_in_order():
    walks = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])

    assert extract_paths(walks, 3).tolist() == [[3, 2, 1], [7, 6, 5], [4, 3, 2], [8, 7, 6]]
    assert extract_paths(walks, 1).tolist() == [[1], [5], [2], [6], [3], [7], [4], [8]]
    assert extract_paths(walks, 4).tolist() == [[4, 3, 2, 1], [8, 7, 6, 5]]


def test_paths_are_those_of_tiled_walks():
    graph, _ = GRAPHS["sparse"]
    options = {**BFS, "law": "torch_cluster", "seed": 5, "strategy": 3}

    paths = sample_paths(graph, **options, long_walks_per_node=2, long_walk_length=4, walk_length=3)

    walks = sample_walks(graph, torch.arange(8).repeat(2), length=4, **options)
    assert torch.equal(paths, extract_paths(walks, 3))
    assert torch.equal(paths[:16, -1], torch.arange(8).repeat(2))


@by_law
@pytest.mark.parametrize("parameters", [DFS, BFS], ids=["dfs", "bfs"])
@pytest.mark.parametrize("is_directed", [False, True], ids=["undirected", "directed"])
@pytest.mark.parametrize("sizes", [(4, 3), (4, 5), (5, 1), (2, 2)], ids=str)
def test_paths_of_targets_are_those_of_all_paths_that_end_in_them(parameters, law, is_directed, sizes, way):
    edge_index = torch.randint(300, (2, 500), generator=torch.Generator().manual_seed(1))
    graph = WalkGraph.from_edge_index(edge_index, 300, undirected=not is_directed, add_self_loops=not is_directed)
    options = {**parameters, "law": law, "strategy": 1, "seed": 5, "long_walks_per_node": 3}
    options |= dict(zip(("long_walk_length", "walk_length"), sizes, strict=True))
    targets = torch.tensor([250, 0, 3], dtype=torch.int32)

    paths = sample_paths(graph, **options, target_nodes=targets)

    everywhere = sample_paths(graph, **options)
    assert torch.equal(paths, everywhere[torch.isin(everywhere[:, -1], targets)])


def test_few_targets_do_not_walk_the_whole_graph(monkeypatch):
    num_nodes = 10_000
    ring = torch.arange(num_nodes)
    graph = WalkGraph.from_edge_index(torch.stack([ring, ring.roll(1)]), num_nodes)
    num_walkers = []

    def record(graph, current, draws):
        num_walkers.append(len(current))
        return walk_steps.step_uniformly(graph, current, draws)

    monkeypatch.setattr(sampling, "step_uniformly", record)
    sizes = {"long_walks_per_node": 2, "long_walk_length": 4, "walk_length": 3}
    sample_paths(graph, p=1.0, q=1.0, seed=0, **sizes, target_nodes=torch.tensor([5, 5000]))

    assert num_walkers[0] == 2 * 2 * 5  # two walks from each node within two steps of two targets
    assert max(num_walkers) == num_walkers[0]


def test_first_windows_of_targets_are_those_of_all_paths():
    graph = build_mixed_graph()
    options = {**BFS, "long_walks_per_node": 2, "long_walk_length": 4, "walk_length": 3, "seed": 5}
    targets = torch.tensor([750, 0, 3])
    everywhere = sample_paths(graph, **options)

    paths = sample_paths(graph, **options, target_nodes=targets.int(), num_walks=2)
    more = sample_paths(graph, **options, target_nodes=targets[1:], num_walks=4)

    assert torch.equal(paths, everywhere[: 2 * 900].view(2, 900, 3)[:, targets].flatten(0, 1))
    assert torch.equal(more.view(4, 2, 3)[:2], paths.view(2, 3, 3)[:, 1:])


def hash_plainly(*values):
    """SplitMix64 over the values one after the other, in Python's integers."""
    key, mask = 0, 2**64 - 1
    for value in values:
        key = (key + 0x9E3779B97F4A7C15 * (value + 1)) & mask
        for shift, multiplier in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
            key = ((key ^ (key >> shift)) * multiplier) & mask
    return key


def draw_plainly(key, number):
    """The uniform number of a draw, 53 bits of the finalizer of SplitMix64."""
    return hash_plainly((key * pow(0x9E3779B97F4A7C15, -1, 2**64) + number) % 2**64) >> 11


def test_draws_are_addressed_by_seed_strategy_start_and_number_in_this_order():
    num_nodes, seed, strategy = 50, 3, 2
    everything = torch.cartesian_prod(torch.arange(num_nodes), torch.arange(num_nodes)).T
    graph = WalkGraph.from_edge_index(everything, num_nodes)  # neighbor number i is node i

    starts, numbers = torch.tensor([7, 7, 49]), torch.tensor([0, 5, 1])
    walks = sample_walks(graph, starts, length=1, p=1.0, q=1.0, seed=seed, strategy=strategy, walk_numbers=numbers)

    for (start, following), number in zip(walks.tolist(), numbers.tolist(), strict=True):
        uniform = draw_plainly(hash_plainly(seed, strategy, start, number), 0) / 2**53
        assert following == int(uniform * num_nodes)
        swapped = draw_plainly(hash_plainly(strategy, seed, start, number), 0) / 2**53
        assert following != int(swapped * num_nodes)


def test_a_path_of_one_node_is_its_target():
    graph, _ = GRAPHS["sparse"]

    paths = sample_paths(
        graph, **DFS, long_walks_per_node=3, long_walk_length=0, walk_length=1, seed=0, target_nodes=torch.tensor([4])
    )

    assert paths.tolist() == [[4], [4], [4]]


# --- Bad input


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"p": 0.0}, ValueError, "`p` must be in .*; got 0.0"),
        ({"p": -1.0}, ValueError, "`p` must be in .*; got -1.0"),
        ({"q": float("nan")}, ValueError, "`q` must be in .*; got nan"),
        ({"q": float("inf")}, ValueError, "`q` must be in .*; got inf"),
        ({"law": "uniform"}, ValueError, "`law` must be one of .*; got 'uniform'"),
        ({"length": -1}, ValueError, "`length` must be at least 0; got -1"),
        ({"start_nodes": torch.tensor([0, 8])}, ValueError, r"`start_nodes`.*\[0, 8\); got 8"),
        ({"start_nodes": torch.tensor([-1])}, ValueError, "`start_nodes`.*got -1"),
        ({"start_nodes": torch.tensor([[0]])}, ValueError, r"`start_nodes`.*one dimension; got shape \(1, 1\)"),
        ({"start_nodes": torch.tensor([0.0])}, TypeError, "`start_nodes`.*got torch.float32"),
        ({"walk_numbers": torch.tensor([0, 1])}, ValueError, r"`walk_numbers`.*\(1,\); got \(2,\)"),
        ({"seed": 0.5}, TypeError, "integer"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_refuses_what_is_no_walk(change, error, message):
    graph, _ = GRAPHS["sparse"]
    arguments = {"start_nodes": torch.tensor([0]), "length": 2, **DFS, "seed": 0}

    with pytest.raises(error, match=message):
        sample_walks(graph, **{**arguments, **change})


@pytest.mark.parametrize("walk_length", [0, 6])
def test_refuses_a_path_that_does_not_fit_into_a_walk(walk_length):
    graph, _ = GRAPHS["sparse"]

    with pytest.raises(ValueError, match=rf"`walk_length` must be .*\(5\); got {walk_length}"):
        sample_paths(graph, **DFS, long_walks_per_node=2, long_walk_length=4, walk_length=walk_length, seed=0)
    with pytest.raises(ValueError, match=rf"`path_length` must be in \[1, 5\].*got {walk_length}"):
        extract_paths(torch.zeros(2, 5, dtype=torch.long), walk_length)


@pytest.mark.parametrize(("previous", "current", "name"), [(8, 0, "previous"), (0, -1, "current")])
def test_refuses_probabilities_at_unknown_nodes(previous, current, name):
    graph, _ = GRAPHS["sparse"]

    with pytest.raises(ValueError, match=rf"`{name}` must hold node ids in \[0, 8\)"):
        transition_probabilities(graph, previous, current, 1.0, 1.0)
