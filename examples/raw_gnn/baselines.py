"""The networks that RAW-GNN is compared with, made of torch-geometric's building blocks.

Each is a `PreTrainedModel` with the arguments of our node classifiers, so that the same loop trains all of them.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch_geometric.nn import GAT, GCN, MLP, GraphSAGE
from torch_geometric.nn.conv.gcn_conv import gcn_norm
from torch_geometric.utils import remove_self_loops, to_torch_csr_tensor, to_undirected
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import ModelOutput

from decahub.models.shared.losses import compute_node_loss


NETWORKS = {"GCN": GCN, "GAT": GAT, "GraphSAGE": GraphSAGE, "MLP": MLP}
NAMES = (*NETWORKS, "H2GCN")


@dataclass
class BaselineOutput(ModelOutput):
    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None


class BaselineConfig(PreTrainedConfig):
    model_type = "graph_baseline"

    network: str = "GCN"
    num_features: int = 16
    hidden_size: int = 64
    dropout: float = 0.5


class H2GCN(nn.Module):
    """Two rounds over neighbors at one and at two hops, all rounds side by side (arXiv 2006.11468, section 3.2)."""

    def __init__(self, num_features: int, hidden_size: int, num_labels: int, dropout: float):
        super().__init__()
        self.embedding = nn.Linear(num_features, hidden_size, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(7 * hidden_size, num_labels)  # 1 + 2 + 4 hidden sizes from rounds 0, 1, 2
        self.hops: tuple[torch.Tensor, torch.Tensor] | None = None

    def forward(self, node_features: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
        if self.hops is None:  # one graph for each network
            self.hops = find_hops(edge_index, node_features.shape[0])
        rounds = [torch.relu(self.embedding(node_features))]
        for _ in range(2):
            rounds.append(torch.cat([hop @ rounds[-1] for hop in self.hops], dim=1))
        return self.classifier(self.dropout(torch.cat(rounds, dim=1)))


def find_hops(edge_index: torch.Tensor, num_nodes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalized adjacency of nodes at distance one and at distance two, without self-loops."""
    edges = remove_self_loops(to_undirected(edge_index, num_nodes=num_nodes))[0]
    near = to_torch_csr_tensor(edges, size=(num_nodes, num_nodes))
    reach = (near @ near).to_sparse_coo().coalesce().indices()
    keys, near_keys = (pair[0] * num_nodes + pair[1] for pair in (reach, edges))
    two = reach[:, ~torch.isin(keys, near_keys) & (reach[0] != reach[1])]
    return tuple(
        to_torch_csr_tensor(*gcn_norm(hop, None, num_nodes, add_self_loops=False), size=(num_nodes, num_nodes))
        for hop in (edges, two)
    )


class Baseline(PreTrainedModel):
    config_class = BaselineConfig
    main_input_name = "node_features"

    def __init__(self, config: BaselineConfig):
        super().__init__(config)
        sizes = (config.num_features, config.hidden_size)
        if config.network == "H2GCN":
            self.network = H2GCN(*sizes, config.num_labels, config.dropout)
        else:
            options = {"heads": 8} if config.network == "GAT" else {}
            self.network = (
                NETWORKS[config.network](
                    *sizes, num_layers=2, out_channels=config.num_labels, dropout=config.dropout, **options
                )
                if config.network != "MLP"
                else MLP([*sizes, config.num_labels], dropout=config.dropout, norm=None)
            )
        self.feature_dropout = nn.Dropout(config.dropout)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Layers keep the start that torch-geometric gave them."""

    def forward(self, node_features, edge_index, labels=None, train_mask=None) -> BaselineOutput:
        node_features = self.feature_dropout(node_features)
        if self.config.network == "MLP":
            logits = self.network(node_features)
        else:
            logits = self.network(node_features, edge_index)
        loss = None if labels is None else compute_node_loss(logits, labels, train_mask)
        return BaselineOutput(loss=loss, logits=logits)
