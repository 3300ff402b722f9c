"""Sparse 3D convolution in plain PyTorch: exact, differentiable, on any device."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from transformers import initialization as init

from .rulebook import (
    Block,
    Rulebook,
    Triple,
    build_strided_rulebook,
    build_submanifold_rulebook,
    linear_keys,
    output_shape,
)


@contextmanager
def use_one_thread(device: torch.device) -> Iterator[None]:
    """Runs what is inside on one thread, if it runs on a CPU.

    An encoder of sparse convolutions has thousands of short operations. Threads that wait for one another after each
    of them gain little on an idle machine; on a busy one they make it ten times as slow.
    """
    num_threads = torch.get_num_threads()
    if device.type != "cpu" or num_threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


class Sites:
    """Active sites of a sparse tensor, and the rulebooks of the convolutions that were applied to them.

    Args:
        coords (`torch.LongTensor` of shape `(num_sites, 4)`): Sample, z, y, x of each site, in lexicographic order.
        spatial_shape (`tuple[int, int, int]`): Size of the grid, (z, y, x).
    """

    def __init__(self, coords: torch.Tensor, spatial_shape: Triple):
        self.coords = coords
        self.spatial_shape = spatial_shape
        self._submanifold: dict[Triple, Rulebook] = {}
        self._strided: dict[tuple[Triple, Triple, Triple], tuple[Rulebook, Sites]] = {}

    def submanifold_rulebook(self, kernel_size: Triple) -> Rulebook:
        """Rulebook of a convolution that keeps the sites; built once."""
        if kernel_size not in self._submanifold:
            self._submanifold[kernel_size] = build_submanifold_rulebook(self.coords, self.spatial_shape, kernel_size)
        return self._submanifold[kernel_size]

    def strided_rulebook(self, kernel_size: Triple, stride: Triple, padding: Triple) -> tuple[Rulebook, "Sites"]:
        """Rulebook of any other convolution and the sites of its output; built once."""
        geometry = (kernel_size, stride, padding)
        if geometry not in self._strided:
            rulebook, coords = build_strided_rulebook(self.coords, self.spatial_shape, *geometry)
            self._strided[geometry] = rulebook, Sites(coords, output_shape(self.spatial_shape, *geometry))
        return self._strided[geometry]


class SparseFeatures(Protocol):
    """What layers need of a sparse tensor: features, and a convolution of them."""

    @property
    def features(self) -> torch.Tensor:
        """Features of the sites, `(num_sites, channels)`."""
        ...

    @property
    def coords(self) -> torch.Tensor:
        """Sample, z, y, x of each site, `(num_sites, 4)`."""
        ...

    @property
    def spatial_shape(self) -> Triple:
        """Size of the grid, (z, y, x)."""
        ...

    def replace_features(self, features: torch.Tensor) -> "SparseFeatures":
        """Other features at the same sites."""
        ...

    def convolve(self, layer: "SparseConv3d") -> "SparseFeatures":
        """Applies the convolution of a layer."""
        ...


class SparseTensor:
    """Features at active sites; everywhere else is zero.

    Args:
        features (`torch.FloatTensor` of shape `(num_sites, channels)`): Features, in the order of the sites.
        sites (`Sites`): Where they are.
    """

    def __init__(self, features: torch.Tensor, sites: Sites):
        self.features = features
        self.sites = sites

    @classmethod
    def from_voxels(cls, features: torch.Tensor, coords: torch.Tensor, spatial_shape: Triple) -> "SparseTensor":
        """A sparse tensor of voxels in any order.

        Args:
            features (`torch.FloatTensor` of shape `(num_voxels, channels)`): Features.
            coords (`torch.LongTensor` of shape `(num_voxels, 4)`): Sample, z, y, x of each voxel, all different.
            spatial_shape (`tuple[int, int, int]`): Size of the grid, (z, y, x).
        """
        order = linear_keys(coords, spatial_shape).argsort()
        return cls(features.index_select(0, order), Sites(coords.index_select(0, order), spatial_shape))

    @property
    def coords(self) -> torch.Tensor:
        """Sample, z, y, x of each site, `(num_sites, 4)`."""
        return self.sites.coords

    @property
    def spatial_shape(self) -> Triple:
        """Size of the grid, (z, y, x)."""
        return self.sites.spatial_shape

    def replace_features(self, features: torch.Tensor) -> "SparseTensor":
        """Other features at the same sites; rulebooks are shared."""
        return SparseTensor(features, self.sites)

    def convolve(self, layer: "SparseConv3d") -> "SparseTensor":
        """Applies the convolution of a layer."""
        if layer.submanifold:
            rulebook, sites = self.sites.submanifold_rulebook(layer.kernel_size), self.sites
        else:
            rulebook, sites = self.sites.strided_rulebook(layer.kernel_size, layer.stride, layer.padding)
        return SparseTensor(SparseConvolution.apply(self.features, layer.weight, rulebook), sites)


class SparseConvolution(torch.autograd.Function):
    r"""Convolution over the pairs of a rulebook.

    $$y_o = \sum_{k} \sum_{(i, o) \in R_k} W_k x_i$$

    Each offset $k$ is one gather and one matrix product; the products of an output row are then summed in a fixed
    order, so that results do not vary from run to run. Gathered rows are computed anew in the backward pass: they
    would take several times the memory of the features.
    """

    @staticmethod
    def forward(ctx: Any, features: torch.Tensor, weight: torch.Tensor, rulebook: Rulebook) -> torch.Tensor:
        """Output features.

        Args:
            ctx: What the backward pass needs.
            features (`torch.FloatTensor` of shape `(num_inputs, in_channels)`): Input features.
            weight (`torch.FloatTensor` of shape `(out_channels, depth, height, width, in_channels)`): Kernel.
            rulebook (`Rulebook`): Pairs.

        Returns:
            `torch.FloatTensor` of shape `(num_outputs, out_channels)`.
        """
        ctx.save_for_backward(features, weight)
        ctx.rulebook = rulebook
        kernels = weight.flatten(1, 3)  # (out_channels, num_offsets, in_channels)
        outputs = features.new_zeros(rulebook.num_outputs, len(kernels))
        for block in rulebook.blocks_of_outputs(len(kernels)):
            products = features.new_empty(len(block.order), len(kernels))
            for offset, pairs, place in block.pieces:
                rows = features.index_select(0, rulebook.inputs[pairs])
                torch.mm(rows, kernels[:, offset].t(), out=products[place])
            outputs[block.rows] = _sum_segments(products, block)
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None]:
        """Gradients of the features and of the weight."""
        with use_one_thread(gradient.device):
            needs_features, needs_weight, _ = ctx.needs_input_grad
            features, weight = ctx.saved_tensors
            return *_differentiate(gradient, features, weight, ctx.rulebook, needs_features, needs_weight), None


def _differentiate(
    gradient: torch.Tensor,
    features: torch.Tensor,
    weight: torch.Tensor,
    rulebook: Rulebook,
    needs_features: bool,
    needs_weight: bool,
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Gradients of features and weight from that of the output."""
    kernels = weight.flatten(1, 3)
    feature_gradient = torch.zeros_like(features) if needs_features else None
    weight_gradient = torch.zeros_like(kernels) if needs_weight else None
    for block in rulebook.blocks_of_inputs(features.shape[1]):
        products = features.new_empty(len(block.order), features.shape[1]) if needs_features else None
        for offset, pairs, place in block.pieces:
            rows = gradient.index_select(0, rulebook.outputs[pairs])
            if products is not None:
                torch.mm(rows, kernels[:, offset], out=products[place])
            if weight_gradient is not None:
                weight_gradient[:, offset] += rows.t() @ features.index_select(0, rulebook.inputs[pairs])
        if feature_gradient is not None and products is not None:
            feature_gradient[block.rows] = _sum_segments(products, block)
    return feature_gradient, None if weight_gradient is None else weight_gradient.view_as(weight)


def _sum_segments(products: torch.Tensor, block: Block) -> torch.Tensor:
    """Sum of the products of each target row: `(num_pairs, channels)` to `(num_rows, channels)`."""
    if len(products) == 0:
        return products.new_zeros(len(block.starts) - 1, products.shape[1])
    return nn.functional.embedding_bag(block.order, products, block.starts, mode="sum", include_last_offset=True)


class SparseConv3d(nn.Module):
    """3D convolution of a sparse tensor, without bias.

    The weight has spconv 2's layout, (out_channels, depth, height, width, in_channels). Kernels are not flipped, as in
    [`torch.nn.Conv3d`].

    Args:
        in_channels (`int`): Channels of the input.
        out_channels (`int`): Channels of the output.
        kernel_size (`tuple[int, int, int]`): Size of the kernel, (z, y, x); odd if submanifold.
        stride (`tuple[int, int, int]`): Stride; 1 if submanifold.
        padding (`tuple[int, int, int]`): Zeros around the grid; of no effect if submanifold.
        submanifold (`bool`): Whether output sites are the input sites, instead of all that the kernel reaches.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Triple = (3, 3, 3),
        stride: Triple = (1, 1, 1),
        padding: Triple = (0, 0, 0),
        submanifold: bool = False,
    ):
        super().__init__()
        if submanifold and (stride != (1, 1, 1) or any(size % 2 == 0 for size in kernel_size)):
            raise ValueError(
                "`kernel_size` must be odd and `stride` must be 1 in a submanifold convolution; got "
                f"{kernel_size} and {stride}."
            )
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding
        self.submanifold = submanifold
        self.weight = nn.Parameter(torch.empty(out_channels, *kernel_size, in_channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The distribution of [`torch.nn.Conv3d`], which spconv uses too."""
        bound = 1 / math.sqrt(self.in_channels * math.prod(self.kernel_size))
        init.uniform_(self.weight, -bound, bound)

    def forward(self, sparse: SparseFeatures) -> SparseFeatures:
        return sparse.convolve(self)

    def extra_repr(self) -> str:
        """Sizes, as torch's convolutions show them."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding}, submanifold={self.submanifold}"
        )


class SiteBatchNorm(nn.BatchNorm1d):
    """Batch norm over active sites, `(num_sites, channels)`.

    Fewer than two sites have no variance: running statistics are used then, and stay as they are.
    """

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        if len(features) > 1:
            return super().forward(features)
        return nn.functional.batch_norm(
            features, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )
