"""Sparse 3D convolution: a dense convolution with masks, finite differences, spconv, and its corner cases."""

import pytest
import torch
from torch.nn.functional import conv3d

from decahub.models.cmt.lidar import rulebook as rulebook_module
from decahub.models.cmt.lidar.sparse_conv import SiteBatchNorm, Sites, SparseConv3d, SparseConvolution, SparseTensor


SHAPE = (5, 6, 7)
BATCH_SIZE, IN_CHANNELS, OUT_CHANNELS = 3, 3, 4
FLOAT64_ATOL = 1e-12
SPCONV_ATOL = 1e-5  # float32, another order of sums

GEOMETRIES = {
    "submanifold": {"submanifold": True},
    "submanifold-long": {"submanifold": True, "kernel_size": (1, 3, 5)},
    "stride-2": {"stride": (2, 2, 2), "padding": (1, 1, 1)},
    "stride-2-flat": {"stride": (2, 2, 2), "padding": (0, 1, 1)},
    "along-z": {"kernel_size": (3, 1, 1), "stride": (2, 1, 1)},
    "uneven": {"kernel_size": (2, 3, 4), "stride": (1, 2, 3), "padding": (1, 0, 2)},
}
SITES = {"many": 0.3, "few": 0.02, "all": 1.0}
by_geometry = pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)


def build_sparse(share: float = 0.3, seed: int = 0, dtype: torch.dtype = torch.float64) -> SparseTensor:
    """A tensor whose last sample has no site."""
    generator = torch.Generator().manual_seed(seed)
    is_active = torch.rand(BATCH_SIZE, *SHAPE, generator=generator) < share
    is_active[-1] = False
    coords = is_active.nonzero()
    features = torch.randn(len(coords), IN_CHANNELS, generator=generator, dtype=dtype)
    return SparseTensor(features, Sites(coords, SHAPE))


def build_layer(geometry: dict, dtype: torch.dtype = torch.float64) -> SparseConv3d:
    torch.manual_seed(0)
    return SparseConv3d(IN_CHANNELS, OUT_CHANNELS, **geometry).to(dtype)


def to_dense(features: torch.Tensor, coords: torch.Tensor, shape) -> torch.Tensor:
    dense = features.new_zeros(BATCH_SIZE, *shape, features.shape[1])
    dense[tuple(coords.t())] = features
    return dense.permute(0, 4, 1, 2, 3)


def convolve_densely(layer: SparseConv3d, sparse: SparseTensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Dense output, and where it is active: the input's sites, or all that a kernel of ones reaches."""
    dense = to_dense(sparse.features, sparse.coords, sparse.spatial_shape)
    activity = to_dense(torch.ones_like(sparse.features[:, :1]), sparse.coords, sparse.spatial_shape)
    kernel = layer.weight.permute(0, 4, 1, 2, 3)
    if layer.submanifold:
        padding = tuple(size // 2 for size in layer.kernel_size)
        return conv3d(dense, kernel, padding=padding) * activity, activity[:, 0] > 0
    reached = conv3d(activity, torch.ones_like(kernel[:1, :1]), stride=layer.stride, padding=layer.padding)
    return conv3d(dense, kernel, stride=layer.stride, padding=layer.padding), reached[:, 0] > 0


@by_geometry
@pytest.mark.parametrize("share", SITES.values(), ids=SITES)
def test_equals_a_dense_convolution_with_a_mask(geometry, share):
    layer, sparse = build_layer(geometry), build_sparse(share)

    output = layer(sparse)

    expected, is_active = convolve_densely(layer, sparse)
    assert torch.equal(output.coords, is_active.nonzero())
    dense = to_dense(output.features, output.coords, output.spatial_shape)
    torch.testing.assert_close(dense, expected, atol=FLOAT64_ATOL, rtol=0)


@by_geometry
@pytest.mark.parametrize("block_size", [2**21, 64], ids=["one-block", "blocks"])
def test_gradients_equal_finite_differences(geometry, block_size, monkeypatch):
    monkeypatch.setitem(rulebook_module.BLOCK_SIZES, "cpu", block_size)
    layer, sparse = build_layer(geometry), build_sparse(0.06)
    sparse.features.requires_grad_()

    def convolve(features: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        if layer.submanifold:
            rulebook = sparse.sites.submanifold_rulebook(layer.kernel_size)
        else:
            rulebook, _ = sparse.sites.strided_rulebook(layer.kernel_size, layer.stride, layer.padding)
        return SparseConvolution.apply(features, weight, rulebook)

    assert torch.autograd.gradcheck(convolve, (sparse.features, layer.weight))


@by_geometry
def test_gradients_equal_those_of_the_dense_convolution(geometry):
    layer, sparse = build_layer(geometry), build_sparse()
    sparse.features.requires_grad_()
    output = layer(sparse)
    weights = torch.randn(output.features.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    gradients = torch.autograd.grad((output.features * weights).sum(), [sparse.features, layer.weight])

    dense, _ = convolve_densely(layer, sparse)
    loss = (dense * to_dense(weights, output.coords, output.spatial_shape)).sum()
    expected = torch.autograd.grad(loss, [sparse.features, layer.weight])
    for gradient, wanted in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, wanted, atol=FLOAT64_ATOL, rtol=1e-12)


@by_geometry
def test_blocks_change_nothing(geometry, monkeypatch):
    layer = build_layer(geometry)
    whole = layer(build_sparse()).features

    monkeypatch.setitem(rulebook_module.BLOCK_SIZES, "cpu", 128)

    torch.testing.assert_close(layer(build_sparse()).features, whole, atol=FLOAT64_ATOL, rtol=0)


@by_geometry
def test_no_site_gives_no_site(geometry):
    layer, empty = build_layer(geometry), build_sparse(0.0)
    empty.features.requires_grad_()

    output = layer(empty)
    output.features.sum().backward()

    assert output.features.shape == (0, OUT_CHANNELS)
    assert output.coords.shape == (0, 4)
    assert torch.equal(layer.weight.grad, torch.zeros_like(layer.weight))


@pytest.mark.parametrize("corner", [(0, 0, 0, 0), (0, 4, 5, 6), (1, 2, 0, 6)], ids=str)
@by_geometry
def test_one_site_at_the_border(geometry, corner):
    layer = build_layer(geometry)
    sparse = SparseTensor(torch.ones(1, IN_CHANNELS, dtype=torch.float64), Sites(torch.tensor([corner]), SHAPE))

    output = layer(sparse)

    expected, is_active = convolve_densely(layer, sparse)
    assert torch.equal(output.coords, is_active.nonzero())
    dense = to_dense(output.features, output.coords, output.spatial_shape)
    torch.testing.assert_close(dense, expected, atol=FLOAT64_ATOL, rtol=0)


@by_geometry
def test_repeats_bit_by_bit(geometry):
    layer = build_layer(geometry, torch.float32)

    first, second = (layer(build_sparse(dtype=torch.float32)).features for _ in range(2))

    assert torch.equal(first, second)


def test_layers_share_the_rulebook_of_their_sites(monkeypatch):
    built = []
    build = rulebook_module.build_submanifold_rulebook
    monkeypatch.setattr(
        "decahub.models.cmt.lidar.sparse_conv.build_submanifold_rulebook",
        lambda *arguments: built.append(arguments) or build(*arguments),
    )
    sparse = build_sparse()
    layers = [SparseConv3d(IN_CHANNELS, IN_CHANNELS, submanifold=True).double() for _ in range(3)]

    for layer in layers:
        sparse = layer(sparse)
    build_sparse(seed=1).convolve(layers[0])

    assert len(built) == 2  # one for each set of sites


def test_voxels_may_come_in_any_order():
    sparse, layer = build_sparse(), build_layer(GEOMETRIES["submanifold"])
    order = torch.randperm(len(sparse.coords), generator=torch.Generator().manual_seed(0))

    shuffled = SparseTensor.from_voxels(sparse.features[order], sparse.coords[order], SHAPE)

    assert torch.equal(shuffled.coords, sparse.coords)
    assert torch.equal(layer(shuffled).features, layer(sparse).features)


@pytest.mark.parametrize("wrong", [{"stride": (2, 1, 1)}, {"kernel_size": (3, 2, 3)}], ids=["stride", "kernel"])
def test_refuses_a_submanifold_convolution_that_moves_sites(wrong):
    with pytest.raises(ValueError, match=r"`kernel_size` must be odd and `stride` must be 1"):
        SparseConv3d(2, 2, submanifold=True, **wrong)


@by_geometry
@torch.no_grad()
def test_equals_spconv(geometry):
    pytest.importorskip("spconv", reason="spconv is an optional peer: `pip install spconv`")
    from decahub.models.cmt.lidar.spconv_backend import SpconvTensor

    layer, sparse = build_layer(geometry, torch.float32), build_sparse(dtype=torch.float32)

    output = layer(SpconvTensor.from_voxels(sparse.features, sparse.coords, SHAPE, BATCH_SIZE))

    expected = layer(sparse)
    assert output.spatial_shape == expected.spatial_shape
    dense = to_dense(output.features, output.coords, output.spatial_shape)
    wanted = to_dense(expected.features, expected.coords, expected.spatial_shape)
    torch.testing.assert_close(dense, wanted, atol=SPCONV_ATOL, rtol=0)


# --- Batch norm over sites


def test_batch_norm_uses_the_sites_of_the_batch():
    norm = SiteBatchNorm(2, eps=1e-12, momentum=0.5)
    features = torch.tensor([[1.0, 10.0], [3.0, 30.0]])

    normed = norm(features)

    torch.testing.assert_close(normed, torch.tensor([[-1.0, -1.0], [1.0, 1.0]]))
    torch.testing.assert_close(norm.running_mean, torch.tensor([1.0, 10.0]))


@pytest.mark.parametrize("num_sites", [0, 1])
def test_batch_norm_of_too_few_sites_uses_running_statistics(num_sites):
    norm = SiteBatchNorm(2, eps=0.0)
    norm.running_mean.copy_(torch.tensor([1.0, 2.0]))
    norm.running_var.copy_(torch.tensor([4.0, 9.0]))

    normed = norm(torch.full((num_sites, 2), 5.0))

    assert torch.equal(normed, torch.tensor([[2.0, 1.0]])[:num_sites])
    assert torch.equal(norm.running_mean, torch.tensor([1.0, 2.0]))
    assert norm.num_batches_tracked == 0
