"""The smallest RAW-GNN whose widths all differ, and a small graph."""

import torch

from decahub.models.raw_gnn.configuration_raw_gnn import RawGnnConfig


NUM_NODES = 9


def build_tiny_config(**overrides):
    fields = {"num_features": 5, "hidden_size": 6, "num_attention_heads": 2, "num_labels": 3, "walk_seed": 7}
    return RawGnnConfig(**{**fields, **overrides})


def build_tiny_graph(num_nodes=NUM_NODES, num_features=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        "node_features": 0.3 + 1.7 * torch.randn(num_nodes, num_features, generator=generator),
        "edge_index": torch.randint(num_nodes, (2, 2 * num_nodes + 3), generator=generator),
    }
