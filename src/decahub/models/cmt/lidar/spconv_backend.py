"""The same sparse convolutions computed by spconv, an optional library: on a CPU it has no backward pass."""

import importlib
import importlib.util
from typing import Any

import torch

from .rulebook import Triple
from .sparse_conv import SparseConv3d


SPCONV_DTYPES = (torch.float32, torch.float16)


def is_spconv_available() -> bool:
    """Whether spconv is installed."""
    return importlib.util.find_spec("spconv") is not None


def uses_spconv(backend: str, features: torch.Tensor) -> bool:
    """Whether spconv computes the convolutions of these features.

    Args:
        backend (`str`): `"torch"`, `"spconv"`, or `"auto"`: spconv if it is installed and `features` are on a CUDA
            device.
        features (`torch.FloatTensor` of shape `(num_voxels, channels)`): Input of the first convolution.

    Raises:
        ImportError: If spconv is asked for and not installed.
        ValueError: If spconv is asked for and cannot compute these features, or a gradient of them.
    """
    if backend == "auto":
        is_suitable = features.is_cuda and features.dtype in SPCONV_DTYPES and len(features) > 0
        return is_suitable and is_spconv_available()
    if backend == "torch":
        return False
    if not is_spconv_available():
        raise ImportError(
            "`sparse_backend='spconv'` needs spconv: `pip install spconv`, or the build for your CUDA version such as "
            '`pip install spconv-cu120`. `sparse_backend="torch"` gives the same results without it.'
        )
    if features.dtype not in SPCONV_DTYPES:
        raise ValueError(
            f"`voxel_features` must be float32 or float16 with `sparse_backend='spconv'`; got {features.dtype}. Use "
            "`sparse_backend='torch'`."
        )
    if not features.is_cuda and torch.is_grad_enabled():
        raise ValueError(
            "`sparse_backend='spconv'` must run under `torch.no_grad()` on a CPU, where spconv has no backward pass; "
            "got enabled gradients. Train with `sparse_backend='torch'`."
        )
    return len(features) > 0  # spconv fails without sites


class SpconvTensor:
    """A sparse tensor of spconv with the interface of [`SparseTensor`]; its sites are in spconv's own order.

    Args:
        tensor (`spconv.pytorch.SparseConvTensor`): The tensor.
        level (`int`): Number of convolutions before it that changed the sites; names the rulebooks that are shared.
    """

    def __init__(self, tensor: Any, level: int = 0):
        self.tensor = tensor
        self.level = level

    @classmethod
    def from_voxels(
        cls, features: torch.Tensor, coords: torch.Tensor, spatial_shape: Triple, batch_size: int
    ) -> "SpconvTensor":
        """A sparse tensor of voxels; arguments as in [`SparseTensor.from_voxels`]."""
        spconv = _import_spconv()
        indices = coords.int().contiguous()
        return cls(spconv.SparseConvTensor(features.contiguous(), indices, list(spatial_shape), batch_size))

    @property
    def features(self) -> torch.Tensor:
        """Features of the sites, `(num_sites, channels)`."""
        return self.tensor.features

    @property
    def coords(self) -> torch.Tensor:
        """Sample, z, y, x of each site, `(num_sites, 4)`."""
        return self.tensor.indices.long()

    @property
    def spatial_shape(self) -> Triple:
        """Size of the grid, (z, y, x)."""
        depth, height, width = self.tensor.spatial_shape
        return depth, height, width

    def replace_features(self, features: torch.Tensor) -> "SpconvTensor":
        """Other features at the same sites; rulebooks are shared."""
        return SpconvTensor(self.tensor.replace_feature(features), self.level)

    def convolve(self, layer: SparseConv3d) -> "SpconvTensor":
        """Applies the convolution of a layer."""
        spconv = _import_spconv()
        arguments = {"kernel_size": layer.kernel_size, "stride": layer.stride, "bias": False}
        with torch.device("meta"):  # a layer without weights of its own
            if layer.submanifold:
                key = f"level{self.level}_{layer.kernel_size}"
                twin = spconv.SubMConv3d(layer.in_channels, layer.out_channels, indice_key=key, **arguments)
            else:
                arguments["padding"] = layer.padding
                twin = spconv.SparseConv3d(layer.in_channels, layer.out_channels, **arguments)
        twin.weight = layer.weight
        twin.train(layer.training)
        return SpconvTensor(twin(self.tensor), self.level + (not layer.submanifold))


def _import_spconv() -> Any:
    # By name: code that is published with a model must not require spconv because of an import statement.
    return importlib.import_module("spconv.pytorch")
