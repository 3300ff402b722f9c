"""The yardsticks of RAW-GNN's benchmark compute the same as what they measure."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from benchmarks.raw_gnn import STRATEGIES, build_edge_index
from benchmarks.reference_raw_gnn import ReferenceRawGnn
from conversion.convert_raw_gnn import revert_state_dict
from decahub import RawGnnConfig, RawGnnForNodeClassification
from decahub.models.raw_gnn.walks.sampling import WalkGraph, first_step_probabilities, transition_probabilities


FLOAT32_ATOL = 1e-5  # two summation orders, as for the golden numbers
NUM_WALKS = 100_000
MAX_TOTAL_VARIATION = 0.02  # of that number of walks over at most 49 pairs of steps


def test_reference_equals_the_model():
    torch.manual_seed(0)
    config = RawGnnConfig(num_features=6, hidden_size=5, num_attention_heads=3, num_labels=4)
    model, reference = RawGnnForNodeClassification(config).eval(), ReferenceRawGnn(config)
    reference.load_state_dict(revert_state_dict(model.state_dict(), config))
    node_features, edge_index = torch.randn(11, 6), build_edge_index(11, 20)
    paths = model.raw_gnn.sample_paths(edge_index, 11)

    with torch.inference_mode():
        log_probs = functional.log_softmax(model(node_features, paths=paths).logits, dim=1)
        expected = reference(node_features, paths)

    torch.testing.assert_close(log_probs, expected, atol=FLOAT32_ATOL, rtol=0)


@pytest.mark.parametrize("parameters", STRATEGIES.values(), ids=STRATEGIES)
def test_reference_walks_follow_the_law(parameters):
    pytest.importorskip("numba", reason="numba is not installed")
    from benchmarks.reference_walks import draw_walks, seed_walks

    num_nodes, start = 7, 1
    graph = WalkGraph.from_edge_index(build_edge_index(num_nodes, 8), num_nodes)
    first = first_step_probabilities(graph, start)
    then = [transition_probabilities(graph, start, node, **parameters) for node in range(num_nodes)]
    seed_walks(0)

    arrays = graph.row_pointers.numpy(), graph.neighbors.numpy(), np.full(NUM_WALKS, start)
    walks = torch.from_numpy(draw_walks(*arrays, 2, *parameters.values()))

    shares = (walks[:, 1] * num_nodes + walks[:, 2]).bincount(minlength=num_nodes**2) / NUM_WALKS
    assert (shares - (first[:, None] * torch.stack(then)).flatten()).abs().sum() / 2 < MAX_TOTAL_VARIATION
