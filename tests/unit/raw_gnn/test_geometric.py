"""RAW-GNN where a model of torch-geometric is expected."""

import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.nn import GCN

from decahub.models.raw_gnn.geometric import RawGnn
from tests.tiny.raw_gnn import build_tiny_graph


def test_takes_the_place_of_a_gcn():
    tensors = build_tiny_graph()
    data = Data(x=tensors["node_features"], edge_index=tensors["edge_index"])
    sizes = {"in_channels": 5, "hidden_channels": 6, "out_channels": 3}

    logits = RawGnn(**sizes, dropout=0.5)(data.x, data.edge_index)

    assert logits.shape == GCN(**sizes, num_layers=2)(data.x, data.edge_index).shape
    assert logits.requires_grad


def test_fields_of_the_configuration_pass_through():
    model = RawGnn(5, 6, 3, heads=1, walk_length=2, eval_walks=4)

    assert model.model.config.walk_length == 2
    assert model.model.config.num_attention_heads == 1


@pytest.mark.parametrize("is_loaded", [False, True])
def test_parameters_can_be_drawn_anew(is_loaded, tmp_path):
    torch.manual_seed(0)
    model = RawGnn(5, 6, 3)
    if is_loaded:
        model.model.save_pretrained(tmp_path)
        model.model = type(model.model).from_pretrained(tmp_path)
    before = {name: value.clone() for name, value in model.named_parameters()}

    model.reset_parameters()

    assert not any(torch.equal(before[name], value) for name, value in model.named_parameters())
