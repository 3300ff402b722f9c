"""Where tokens and queries are: points in 3D for the tokens of both sensors (2301.01283, section 3.2).

A cell of the bird's-eye view has its place on the ground, a pixel has points along the ray of its camera. Anchors of
queries are encoded in both ways by the same layers, so a query finds its tokens in either sensor.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from .initialization import reset_as_torch


LOGIT_EPS = 1e-5
DEPTH_EPS = 1e-6
NEAREST_DEPTH = 1.0  # meters


class CmtPositionMlp(nn.Module):
    """Two linear layers that turn coordinates into a position embedding."""

    def __init__(self, input_size: int, intermediate_size: int, hidden_size: int):
        super().__init__()
        self.fc1 = nn.Linear(input_size, intermediate_size)
        self.fc2 = nn.Linear(intermediate_size, hidden_size)

    def reset_parameters(self) -> None:
        reset_as_torch(self.fc1)
        reset_as_torch(self.fc2)

    def forward(self, coordinates: torch.Tensor) -> torch.Tensor:
        # Under autocast too in the precision of the weights: in bfloat16 places are half a meter apart.
        with torch.autocast(coordinates.device.type, enabled=False):
            return self.fc2(self.fc1(coordinates.to(self.fc1.weight.dtype)).relu())


def inverse_sigmoid(values: torch.Tensor) -> torch.Tensor:
    """Logits of values in [0, 1], which are kept 1e-5 away from both ends."""
    values = values.clamp(LOGIT_EPS, 1 - LOGIT_EPS)
    return (values / (1 - values)).log()


def encode_coordinate(positions: torch.Tensor, num_channels: int) -> torch.Tensor:
    r"""Sines and cosines of one coordinate.

    $a_i = 2 \pi p / (1 + 2 \lfloor i/2 \rfloor / N)$ for channel $i$ of $N$; even channels hold $\sin a_i$ and odd
    ones $\cos a_i$. Unlike in most transformers the periods are not geometric: the authors pass a temperature and do
    not use it.

    Args:
        positions (`torch.Tensor` of shape `(...)`): in [0, 1].
        num_channels (`int`): $N$.

    Returns:
        `torch.Tensor` of shape `(..., num_channels)`.
    """
    channels = torch.arange(num_channels, device=positions.device)
    periods = 1 + 2 * (channels // 2).to(positions.dtype) / num_channels
    angles = 2 * math.pi * positions[..., None] / periods
    return torch.where(channels % 2 == 0, angles.sin(), angles.cos())


def encode_ground_points(points: torch.Tensor, num_channels: int) -> torch.Tensor:
    """Encodings of places on the ground.

    Args:
        points (`torch.Tensor` of shape `(..., 2)`): x and y in [0, 1].
        num_channels (`int`): channels of each coordinate.

    Returns:
        `torch.Tensor` of shape `(..., 2 * num_channels)`, y first.
    """
    encoded = encode_coordinate(points, num_channels)  # (..., 2, num_channels)
    return torch.cat([encoded[..., 1, :], encoded[..., 0, :]], dim=-1)


def encode_bev_grid(height: int, width: int, num_channels: int, like: torch.Tensor) -> torch.Tensor:
    """Encodings of the centers of all cells, row by row: y grows with the row and x with the column.

    Args:
        height (`int`): rows of the map.
        width (`int`): columns of the map.
        num_channels (`int`): channels of each coordinate.
        like (`torch.Tensor`): gives type and device.

    Returns:
        `torch.Tensor` of shape `(height * width, 2 * num_channels)`.
    """
    rows = (torch.arange(height, device=like.device, dtype=like.dtype) + 0.5) / height
    columns = (torch.arange(width, device=like.device, dtype=like.dtype) + 0.5) / width
    # Sines of height + width numbers are enough, so there is nothing worth keeping between calls.
    encoded_rows = encode_coordinate(rows, num_channels)[:, None].expand(-1, width, -1)
    encoded_columns = encode_coordinate(columns, num_channels)[None].expand(height, -1, -1)
    return torch.cat([encoded_rows, encoded_columns], dim=-1).flatten(0, 1)


def compute_depths(num_depth_bins: int, farthest: float, like: torch.Tensor) -> torch.Tensor:
    """Depths along a ray in meters, $d_k = 1 + k (x_1 - 1) / n$ with the largest $x$ of the range."""
    steps = torch.arange(num_depth_bins, device=like.device, dtype=like.dtype)
    return NEAREST_DEPTH + steps * ((farthest - NEAREST_DEPTH) / num_depth_bins)


def invert_projections(lidar2img: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Inverses of projections, computed in float64: entries differ by many orders of magnitude.

    Args:
        lidar2img (`torch.Tensor` of shape `(batch_size, num_cameras, 4, 4)`): homogeneous projections.
        dtype (`torch.dtype`): type of the result.

    Raises:
        ValueError: If a projection has no inverse.
    """
    inverse, failed = torch.linalg.inv_ex(lidar2img.double())
    if not torch.compiler.is_compiling() and failed.any():
        sample, camera = failed.nonzero()[0].tolist()
        raise ValueError(
            f"`lidar2img` must hold invertible matrices; that of camera {camera} of sample {sample} is singular. "
            "Check the intrinsics and the pose of this camera."
        )
    return inverse.to(dtype)


def encode_rays(
    image_points: torch.Tensor, img2lidar: torch.Tensor, depths: torch.Tensor, point_cloud_range: Sequence[float]
) -> torch.Tensor:
    """Points along the rays of pixels, in the LiDAR frame and relative to the range, not clamped to it.

    Args:
        image_points (`torch.Tensor` of shape `(batch_size, num_cameras, num_points, 3)`): u and v in pixels, and the
            factor of the depth, which is 1 for a pixel.
        img2lidar (`torch.Tensor` of shape `(batch_size, num_cameras, 4, 4)`): inverse projections.
        depths (`torch.Tensor` of shape `(num_depth_bins,)`): meters.
        point_cloud_range (`Sequence[float]`): nearest and farthest corner, which become 0 and 1.

    Returns:
        `torch.Tensor` of shape `(batch_size, num_cameras, num_points, 3 * num_depth_bins)`, depth by depth.
    """
    # A product and a sum, since a matrix product would be rounded to half precision under autocast.
    directions = (img2lidar[:, :, None, :3, :3] * image_points[..., None, :]).sum(-1)
    origins = img2lidar[:, :, None, None, :3, 3]
    points = origins + depths[:, None] * directions[..., None, :]
    limits = points.new_tensor(point_cloud_range)
    return ((points - limits[:3]) / (limits[3:] - limits[:3])).flatten(-2)


def build_pixel_grid(feature_size: tuple[int, int], image_size: tuple[int, int], like: torch.Tensor) -> torch.Tensor:
    """Upper left corners of the cells of a feature map as pixels of its image, with a third coordinate of 1.

    Returns:
        `torch.Tensor` of shape `(1, 1, rows * columns, 3)`.
    """
    (rows, columns), (height, width) = feature_size, image_size
    v = torch.arange(rows, device=like.device, dtype=like.dtype) * (height / rows)
    u = torch.arange(columns, device=like.device, dtype=like.dtype) * (width / columns)
    grid = torch.stack([u[None].expand(rows, -1), v[:, None].expand(-1, columns)], dim=-1).flatten(0, 1)
    return torch.cat([grid, torch.ones_like(grid[:, :1])], dim=-1)[None, None]


def project_points(
    points: torch.Tensor, lidar2img: torch.Tensor, image_size: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Where each camera sees points.

    Args:
        points (`torch.Tensor` of shape `(batch_size, num_points, 3)`): meters, in the LiDAR frame.
        lidar2img (`torch.Tensor` of shape `(batch_size, num_cameras, 4, 4)`): projections, in the type of `points`.
        image_size (`tuple[int, int]`): height and width.

    Returns:
        Image points `(batch_size, num_cameras, num_points, 3)`, whose third coordinate is about 1 and carries the
        gradient of the depth, since that of the divisor is stopped; and whether a point is in front of the camera
        and within its image, `(batch_size, num_cameras, num_points)`.
    """
    projected = (lidar2img[:, :, None, :3, :3] * points[:, None, :, None, :]).sum(-1) + lidar2img[:, :, None, :3, 3]
    depth = projected[..., 2].detach()
    divisor = depth + torch.where(depth > 0, DEPTH_EPS, -DEPTH_EPS)
    image_points = projected / divisor[..., None]
    u, v = image_points[..., 0], image_points[..., 1]
    height, width = image_size
    visible = (u >= 0) & (u < width) & (v >= 0) & (v < height) & (depth > 0)
    return image_points, visible


@dataclass
class CameraProjections:
    """Projections of all cameras in both directions, in the precision of positions.

    Attributes:
        lidar2img (`torch.Tensor` of shape `(batch_size, num_cameras, 4, 4)`): points to pixels.
        img2lidar (`torch.Tensor` of shape `(batch_size, num_cameras, 4, 4)`): pixels with depth to points.
        image_size (`tuple[int, int]`): height and width of the images in pixels.
    """

    lidar2img: torch.Tensor
    img2lidar: torch.Tensor
    image_size: tuple[int, int]

    @classmethod
    def build(cls, lidar2img: torch.Tensor, image_size: tuple[int, int], like: torch.Tensor) -> "CameraProjections":
        """Projections in the type and on the device of `like`."""
        lidar2img = lidar2img.to(like.device)
        return cls(lidar2img.to(like.dtype), invert_projections(lidar2img, like.dtype), image_size)


__all__ = [
    "CameraProjections",
    "CmtPositionMlp",
    "build_pixel_grid",
    "compute_depths",
    "encode_bev_grid",
    "encode_coordinate",
    "encode_ground_points",
    "encode_rays",
    "inverse_sigmoid",
    "invert_projections",
    "project_points",
]
