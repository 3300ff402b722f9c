"""Parameter groups of the recipe, and the start for training from random weights."""

import pytest
import torch

from decahub import CmtForObjectDetection3D
from decahub.models.cmt.head.focus import focus_attention
from decahub.models.cmt.head.position_encoding import encode_ground_points
from decahub.models.cmt.optimization import build_parameter_groups
from tests.tiny.cmt import tiny_config


@pytest.mark.parametrize(("modality", "num_groups"), [("fusion", 3), ("camera", 3), ("lidar", 1)])
def test_every_parameter_is_in_one_group_with_its_rate(modality, num_groups):
    model = CmtForObjectDetection3D(tiny_config(modality))

    groups = build_parameter_groups(model, 1e-4, 0.01)

    assert len(groups) == num_groups
    rates = {id(parameter): (group["lr"], group["weight_decay"]) for group in groups for parameter in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        expected = (1e-4, 0.01)
        if name.startswith("model.image_backbone."):
            expected = (1e-6, 0.05)
        elif name.startswith("model.image_neck."):
            expected = (1e-5, 0.01)
        assert rates[id(parameter)] == pytest.approx(expected), name


def test_frozen_parameters_are_in_no_group():
    model = CmtForObjectDetection3D(tiny_config())
    model.model.image_backbone.requires_grad_(False)

    groups = build_parameter_groups(model, 1e-4, 0.01)

    assert [group["lr"] for group in groups] == pytest.approx([1e-5, 1e-4])


def test_queries_attend_to_what_is_near():
    """Weights of attention between positions alone fall with the distance, which they do not before."""
    torch.manual_seed(0)
    model = CmtForObjectDetection3D(tiny_config("lidar", hidden_size=64)).model
    attention = model.decoder.layers[0].cross_attention
    steps = (torch.arange(24) + 0.5) / 24
    points = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), dim=-1).reshape(-1, 2)
    distances = torch.cdist(points, points)

    def measure_reach():
        positions = model.bev_position_embedding(encode_ground_points(points, 64))
        queries, keys = (
            projection(positions).unflatten(-1, (4, 16)).transpose(0, 1)
            for projection in (attention.q_proj, attention.k_proj)
        )
        weights = (queries @ keys.transpose(1, 2) / 4).softmax(-1)
        return (weights * distances).sum(-1).mean().item()

    before = measure_reach()
    focus_attention(model)
    after = measure_reach()

    assert before == pytest.approx(distances.mean().item(), abs=0.02)  # even over all tokens
    assert after < 0.75 * before
