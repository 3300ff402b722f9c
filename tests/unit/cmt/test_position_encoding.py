"""Positions: the authors' sinusoid by its formula, and rays as the inverse of projections."""

import math

import pytest
import torch

from decahub.models.cmt.head.position_encoding import (
    build_pixel_grid,
    compute_depths,
    encode_bev_grid,
    encode_coordinate,
    encode_ground_points,
    encode_rays,
    inverse_sigmoid,
    invert_projections,
    project_points,
)
from tests.tiny.cmt import IMAGE_SIZE, build_lidar2img


RANGE = [-20.0, -30.0, -5.0, 40.0, 50.0, 3.0]
EXACT = torch.zeros((), dtype=torch.float64)


def test_sinusoid_by_its_formula():
    num_channels, position = 5, 0.3

    encoded = encode_coordinate(torch.tensor(position, dtype=torch.float64), num_channels)

    for channel in range(num_channels):
        angle = 2 * math.pi * position / (1 + 2 * (channel // 2) / num_channels)
        assert encoded[channel].item() == pytest.approx(math.cos(angle) if channel % 2 else math.sin(angle))


def test_ground_points_put_y_first():
    point = torch.tensor([0.2, 0.7], dtype=torch.float64)

    encoded = encode_ground_points(point, 6)

    assert torch.equal(encoded, torch.cat([encode_coordinate(point[1], 6), encode_coordinate(point[0], 6)]))


def test_grid_holds_the_centers_of_its_cells():
    rows, columns = 3, 5

    encoded = encode_bev_grid(rows, columns, 4, EXACT)

    for row in range(rows):
        for column in range(columns):
            center = torch.tensor([(column + 0.5) / columns, (row + 0.5) / rows], dtype=torch.float64)
            torch.testing.assert_close(encoded[row * columns + column], encode_ground_points(center, 4))


def test_depths_begin_at_a_meter_and_stop_before_the_end():
    depths = compute_depths(4, 41.0, EXACT)

    assert depths.tolist() == [1, 11, 21, 31]


def test_pixels_are_upper_left_corners_row_by_row():
    grid = build_pixel_grid((2, 3), (64, 48), EXACT)[0, 0]

    assert grid.tolist() == [[0, 0, 1], [16, 0, 1], [32, 0, 1], [0, 32, 1], [16, 32, 1], [32, 32, 1]]


def test_points_on_a_ray_project_to_its_pixel():
    lidar2img = build_lidar2img(2, 3)
    pixels = build_pixel_grid((4, 6), IMAGE_SIZE, lidar2img)
    depths = compute_depths(8, RANGE[3], lidar2img)

    rays = encode_rays(pixels, invert_projections(lidar2img, torch.float64), depths, RANGE)

    low, high = torch.tensor(RANGE[:3]).double(), torch.tensor(RANGE[3:]).double()
    points = rays.unflatten(-1, (8, 3)) * (high - low) + low  # (batch, cameras, pixels, depths, 3)
    homogeneous = torch.cat([points, torch.ones_like(points[..., :1])], dim=-1)
    projected = torch.einsum("bvij,bvpdj->bvpdi", lidar2img, homogeneous)
    torch.testing.assert_close(projected[..., 2], depths.expand(2, 3, 24, 8), atol=1e-9, rtol=0)
    torch.testing.assert_close(
        projected[..., :2] / projected[..., 2:3], pixels[..., None, :2].expand(2, 3, 24, 8, 2), atol=1e-9, rtol=0
    )


def test_projection_of_points_by_hand():
    # Camera at the origin that looks along +x, focal length 10, center at (20, 30).
    lidar2img = torch.tensor([[20.0, -10, 0, 0], [30, 0, -10, 0], [1, 0, 0, 0], [0, 0, 0, 1]])[None, None]
    points = torch.tensor([[[5.0, 0, 0], [5, 10, 0], [5, 10.1, 0], [-5, 0, 0], [5, -10.1, 0], [5, 0, 15.1]]])

    image_points, visible = project_points(points, lidar2img, (60, 40))

    assert visible[0, 0].tolist() == [True, True, False, False, False, False]
    torch.testing.assert_close(image_points[0, 0, 0], torch.tensor([20.0, 30.0, 1.0]))
    torch.testing.assert_close(image_points[0, 0, 5], torch.tensor([20.0, -0.2, 1.0]), atol=1e-4, rtol=0)


def test_gradient_does_not_flow_through_the_divisor():
    lidar2img = torch.tensor([[20.0, -10, 0, 0], [30, 0, -10, 0], [1, 0, 0, 0], [0, 0, 0, 1]])[None, None]
    points = torch.tensor([[[5.0, 1.0, 0.0]]], requires_grad=True)

    image_points, _ = project_points(points, lidar2img, (60, 40))
    image_points[0, 0, 0, 2].backward()

    torch.testing.assert_close(points.grad[0, 0], torch.tensor([0.2, 0.0, 0.0]), atol=1e-6, rtol=1e-5)


def test_inverse_sigmoid_stays_finite_at_the_ends():
    values = torch.tensor([0.0, 0.25, 1.0], dtype=torch.float64)

    logits = inverse_sigmoid(values)

    expected = [math.log(1e-5 / (1 - 1e-5)), math.log(0.25 / 0.75), math.log((1 - 1e-5) / 1e-5)]
    torch.testing.assert_close(logits, torch.tensor(expected, dtype=torch.float64))


def test_refuses_a_projection_without_inverse():
    lidar2img = build_lidar2img(2, 3)
    lidar2img[1, 2, 0] = 0

    with pytest.raises(ValueError, match="that of camera 2 of sample 1 is singular"):
        invert_projections(lidar2img, torch.float32)
