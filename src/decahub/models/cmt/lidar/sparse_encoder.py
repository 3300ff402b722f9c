"""Sparse 3D encoder of CMT: voxels to a map on the bird's-eye view."""

from collections.abc import Sequence

import torch
from torch import nn

from ...shared.checks import can_look_at
from ..configuration_cmt import OUTPUT_KERNEL_SIZE, OUTPUT_STRIDE, CmtLidarConfig
from .rulebook import Triple, linear_keys
from .sparse_conv import SiteBatchNorm, SparseConv3d, SparseFeatures, SparseTensor, use_one_thread
from .spconv_backend import SpconvTensor, uses_spconv


class CmtSparseConvLayer(nn.Module):
    """Sparse convolution, batch norm over active sites, and usually ReLU.

    Args:
        config ([`CmtLidarConfig`]): Configuration, for the batch norm.
        in_channels (`int`): Channels of the input.
        out_channels (`int`): Channels of the output.
        kernel_size (`tuple[int, int, int]`): Size of the kernel, (z, y, x).
        stride (`tuple[int, int, int]`): Stride.
        padding (`tuple[int, int, int]`): Padding.
        submanifold (`bool`): Whether the sites stay.
        has_activation (`bool`): Whether ReLU follows.
    """

    def __init__(
        self,
        config: CmtLidarConfig,
        in_channels: int,
        out_channels: int,
        kernel_size: Triple = (3, 3, 3),
        stride: Triple = (1, 1, 1),
        padding: Triple = (0, 0, 0),
        submanifold: bool = False,
        has_activation: bool = True,
    ):
        super().__init__()
        self.has_activation = has_activation
        self.convolution = SparseConv3d(in_channels, out_channels, kernel_size, stride, padding, submanifold)
        self.normalization = SiteBatchNorm(
            out_channels, eps=config.batch_norm_eps, momentum=config.batch_norm_momentum
        )

    def forward(self, sparse: SparseFeatures) -> SparseFeatures:
        sparse = self.convolution(sparse)
        features = self.normalization(sparse.features)
        return sparse.replace_features(features.relu() if self.has_activation else features)


class CmtSparseBlock(nn.Module):
    """Residual block of two submanifold convolutions: `relu(x + norm(conv(relu(norm(conv(x))))))`."""

    def __init__(self, config: CmtLidarConfig, channels: int):
        super().__init__()
        self.layers = nn.ModuleList(
            CmtSparseConvLayer(config, channels, channels, submanifold=True, has_activation=has_activation)
            for has_activation in (True, False)
        )

    def forward(self, sparse: SparseFeatures) -> SparseFeatures:
        inner = sparse
        for layer in self.layers:
            inner = layer(inner)
        return inner.replace_features((inner.features + sparse.features).relu())


class CmtSparseStage(nn.Module):
    """Residual blocks, then in every stage but the last a convolution of stride 2 to the width of the next stage."""

    def __init__(self, config: CmtLidarConfig, index: int):
        super().__init__()
        channels = config.hidden_sizes[index]
        self.blocks = nn.ModuleList(CmtSparseBlock(config, channels) for _ in range(config.depths[index]))
        self.downsample = None
        if index + 1 < len(config.hidden_sizes):
            self.downsample = CmtSparseConvLayer(
                config,
                channels,
                config.hidden_sizes[index + 1],
                stride=(2, 2, 2),
                padding=_to_triple(config.paddings[index]),
            )

    def forward(self, sparse: SparseFeatures) -> SparseFeatures:
        for block in self.blocks:
            sparse = block(sparse)
        return sparse if self.downsample is None else self.downsample(sparse)


class CmtSparseEncoder(nn.Module):
    """Sparse 3D network over voxels (SECOND's middle encoder with residual blocks).

    A submanifold convolution, stages of residual blocks with a convolution of stride 2 between them, and a last
    convolution along z. All submanifold convolutions of a stage share one rulebook, built once for each input.

    Args:
        config ([`CmtLidarConfig`]): Configuration.
    """

    def __init__(self, config: CmtLidarConfig):
        super().__init__()
        self.config = config
        self.spatial_shape = _to_triple(config.sparse_shape)
        self.stem = CmtSparseConvLayer(config, config.num_point_features, config.hidden_sizes[0], submanifold=True)
        self.stages = nn.ModuleList(CmtSparseStage(config, index) for index in range(len(config.hidden_sizes)))
        self.output_layer = CmtSparseConvLayer(
            config, config.hidden_sizes[-1], config.output_size, OUTPUT_KERNEL_SIZE, OUTPUT_STRIDE
        )

    def forward(self, voxel_features: torch.Tensor, voxel_coords: torch.Tensor, batch_size: int) -> torch.Tensor:
        """Map on the bird's-eye view.

        Args:
            voxel_features (`torch.FloatTensor` of shape `(num_voxels, num_point_features)`): Mean of the points of
                each voxel; there may be no voxel.
            voxel_coords (`torch.LongTensor` of shape `(num_voxels, 4)`): Sample, z, y, x of each voxel, all different.
            batch_size (`int`): Number of samples, also of those without voxels.

        Returns:
            `torch.FloatTensor` of shape `(batch_size, output_size * depth, height, width)`: Zero where no voxel is
            near. Channel `c * depth + z` has channel `c` of height `z`.

        Raises:
            ImportError: If the configuration asks for spconv and it is not installed.
            ValueError: If inputs do not fit each other or the configuration, a voxel lies outside of the grid or
                occurs twice.
        """
        last = self.encode(voxel_features, voxel_coords, batch_size)[-1]
        return scatter_to_bev(last.features, last.coords, last.spatial_shape, batch_size)

    def encode(
        self, voxel_features: torch.Tensor, voxel_coords: torch.Tensor, batch_size: int
    ) -> list[SparseFeatures]:
        """Sparse tensors after each stage and after the last convolution; arguments as in `forward`."""
        self._check(voxel_features, voxel_coords, batch_size)
        # Sums over few sites need the precision; casting would also cost more than the products save.
        device = voxel_features.device
        with torch.autocast(device.type, enabled=False), use_one_thread(device):
            features, coords = voxel_features.to(self.stem.convolution.weight.dtype), voxel_coords.long()
            sparse: SparseFeatures
            if uses_spconv(self.config.sparse_backend, features):
                sparse = SpconvTensor.from_voxels(features, coords, self.spatial_shape, batch_size)
            else:
                sparse = SparseTensor.from_voxels(features, coords, self.spatial_shape)
            sparse = self.stem(sparse)
            outputs = []
            for stage in [*self.stages, self.output_layer]:
                sparse = stage(sparse)
                outputs.append(sparse)
        return outputs

    def _check(self, voxel_features: torch.Tensor, voxel_coords: torch.Tensor, batch_size: int) -> None:
        num_voxels, num_features = len(voxel_coords), self.config.num_point_features
        if voxel_features.shape != (num_voxels, num_features) or voxel_coords.shape != (num_voxels, 4):
            raise ValueError(
                f"`voxel_features` must have shape (num_voxels, {num_features}) and `voxel_coords` shape (num_voxels, "
                f"4); got {tuple(voxel_features.shape)} and {tuple(voxel_coords.shape)}."
            )
        if not can_look_at(voxel_coords):
            return
        limits = torch.tensor([batch_size, *self.spatial_shape])
        is_outside = ((voxel_coords < 0) | (voxel_coords >= limits)).any(dim=1)
        if is_outside.any():
            first = int(is_outside.nonzero()[0])
            raise ValueError(
                f"`voxel_coords` must lie below {tuple(limits.tolist())} (sample, z, y, x); got "
                f"{tuple(voxel_coords[first].tolist())} in row {first}, and {int(is_outside.sum())} such rows in all. "
                "Do `batch_size`, and the voxel size and sparse shape of the feature extractor, fit the model?"
            )
        num_different = len(linear_keys(voxel_coords.long(), self.spatial_shape).unique())
        if num_different < num_voxels:
            raise ValueError(f"`voxel_coords` must be all different; {num_voxels - num_different} rows are repeated.")


def scatter_to_bev(
    features: torch.Tensor, coords: torch.Tensor, spatial_shape: Triple, batch_size: int
) -> torch.Tensor:
    """Dense map of a sparse tensor whose heights become channels.

    Args:
        features (`torch.FloatTensor` of shape `(num_sites, channels)`): Features.
        coords (`torch.LongTensor` of shape `(num_sites, 4)`): Sample, z, y, x of each site.
        spatial_shape (`tuple[int, int, int]`): Size of the grid, (z, y, x).
        batch_size (`int`): Number of samples.

    Returns:
        `torch.FloatTensor` of shape `(batch_size, channels * depth, height, width)`, in memory with channels last.
    """
    depth, height, width = spatial_shape
    sample, z, y, x = coords.unbind(dim=1)
    dense = features.new_zeros(batch_size, height, width, features.shape[1], depth)
    dense[sample, y, x, :, z] = features
    return dense.flatten(3).permute(0, 3, 1, 2)


def _to_triple(values: Sequence[int]) -> Triple:
    first, second, third = values
    return first, second, third
