"""A RELIANT small enough for a test, with no two sizes equal that could be mixed up, and a directed graph for it."""

import torch

from decahub import ReliantConfig


NUM_NODES, NUM_FEATURES, NUM_LABELS = 9, 5, 3

# What makes each variant small; widths differ from one another.
SIZES = {
    "gat-teacher": {"hidden_size": 12, "num_attention_heads": 3, "num_output_heads": 2},
    "gcnii-teacher": {"hidden_size": 7, "num_hidden_layers": 3},
}


def tiny_config(variant: str = "akd-sgc", **overrides) -> ReliantConfig:
    fields = {"num_features": NUM_FEATURES, "num_labels": NUM_LABELS, "hidden_size": 7, "undirected": False}
    return ReliantConfig.from_variant(variant, **{**fields, **SIZES.get(variant, {}), **overrides})


def tiny_graph(num_nodes: int = NUM_NODES, seed: int = 0) -> dict[str, torch.Tensor]:
    """Directed edges, one of them twice, one loop, and a node (the last) without edges."""
    generator = torch.Generator().manual_seed(seed)
    edges = torch.randint(num_nodes - 1, (2, 2 * num_nodes), generator=generator)
    edges = edges[:, edges[0] != edges[1]]
    edges = torch.cat([edges, edges[:, :1], torch.tensor([[2], [2]])], dim=1)
    return {"node_features": 2 + torch.randn(num_nodes, NUM_FEATURES, generator=generator), "edge_index": edges}


def tiny_batch(config: ReliantConfig, num_nodes: int = 24, seed: int = 0) -> dict[str, torch.Tensor]:
    """What training steps read; both groups and all labels occur in training and outside."""
    generator = torch.Generator().manual_seed(seed)
    nodes = torch.arange(num_nodes)
    return {
        **tiny_graph(num_nodes, seed),
        "labels": nodes % config.num_labels,
        "train_mask": nodes < num_nodes // 2,
        "sensitive": (nodes // 2) % 2,
        "teacher_logits": torch.randn(num_nodes, config.num_labels, generator=generator),
        "teacher_embedding": torch.randn(num_nodes, config.hidden_size, generator=generator),
    }
