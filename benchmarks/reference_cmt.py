"""Sparse convolution as one would first write it: each layer searches its pairs, and products are scattered."""

import itertools

import torch

from decahub.models.cmt.lidar.rulebook import Triple, linear_keys, output_shape
from decahub.models.cmt.lidar.sparse_conv import SparseConv3d


class ReferenceSparseTensor:
    """Takes the place of a [`SparseTensor`] in the layers of the encoder.

    Args:
        features (`torch.FloatTensor` of shape `(num_sites, channels)`): Features.
        coords (`torch.LongTensor` of shape `(num_sites, 4)`): Sample, z, y, x of each site, in lexicographic order.
        spatial_shape (`tuple[int, int, int]`): Size of the grid, (z, y, x).
    """

    def __init__(self, features: torch.Tensor, coords: torch.Tensor, spatial_shape: Triple):
        self.features = features
        self.coords = coords
        self.spatial_shape = spatial_shape

    def replace_features(self, features: torch.Tensor) -> "ReferenceSparseTensor":
        return ReferenceSparseTensor(features, self.coords, self.spatial_shape)

    def convolve(self, layer: SparseConv3d) -> "ReferenceSparseTensor":
        stride, padding, shape = layer.stride, layer.padding, self.spatial_shape
        if layer.submanifold:
            padding = tuple(size // 2 for size in layer.kernel_size)
        else:
            shape = output_shape(shape, layer.kernel_size, stride, padding)
        limits, steps = torch.tensor(shape), torch.tensor(stride)
        reached = []
        for offset in itertools.product(*(range(size) for size in layer.kernel_size)):
            shifted = self.coords[:, 1:] + torch.tensor(padding) - torch.tensor(offset)
            cells = shifted.div(steps, rounding_mode="floor")
            is_reached = ((cells * steps == shifted) & (cells >= 0) & (cells < limits)).all(dim=1)
            targets = torch.cat([self.coords[is_reached, :1], cells[is_reached]], dim=1)
            reached.append((is_reached.nonzero().squeeze(1), targets, linear_keys(targets, shape)))
        coords = self.coords if layer.submanifold else torch.cat([targets for _, targets, _ in reached]).unique(dim=0)
        keys = linear_keys(coords, shape)
        kernels = layer.weight.flatten(1, 3).unbind(dim=1)
        output = self.features.new_zeros(len(coords), layer.out_channels)
        for (rows, _, wanted), kernel in zip(reached, kernels, strict=True):
            found = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
            is_active = keys[found] == wanted
            output = output.index_add(0, found[is_active], self.features[rows[is_active]] @ kernel.t())
        return ReferenceSparseTensor(output, coords, shape)
