"""CMT's LiDAR branch: published sizes, samples without voxels, inputs that are refused, the choice of a backend."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError

from decahub.models.cmt.configuration_cmt import CmtLidarConfig
from decahub.models.cmt.lidar import spconv_backend
from decahub.models.cmt.lidar.backbone import CmtLidarBackbone
from decahub.models.cmt.lidar.sparse_encoder import CmtSparseEncoder


TINY = {
    "sparse_shape": [17, 24, 40],
    "num_point_features": 5,
    "hidden_sizes": [4, 6, 8],
    "depths": [1, 2, 1],
    "paddings": [[1, 1, 1], [0, 1, 1]],
    "output_size": 7,
    "bev_hidden_sizes": [6, 9],
    "bev_depths": [1, 0],
    "bev_neck_sizes": [5, 3],
}
BATCH_SIZE = 3


def tiny_config(**overrides) -> CmtLidarConfig:
    return CmtLidarConfig(**{**TINY, **overrides})


def build(model_class=CmtLidarBackbone, **overrides):
    torch.manual_seed(0)
    return model_class(tiny_config(**overrides))


def build_voxels(num_voxels: int = 60, samples: int = BATCH_SIZE - 1, seed: int = 0):
    """Voxels of all samples but the last."""
    generator = torch.Generator().manual_seed(seed)
    shape = (samples, *TINY["sparse_shape"])
    cells = torch.randperm(torch.Size(shape).numel(), generator=generator)[:num_voxels]
    coords = torch.stack(torch.unravel_index(cells, shape), dim=1)
    return torch.randn(num_voxels, 5, generator=generator), coords


@pytest.mark.parametrize(
    ("part", "num_parameters"), [("encoder", 2_694_352), ("bev_backbone", 4_280_832), ("bev_neck", 295_936)]
)
def test_published_number_of_parameters(part, num_parameters):
    with torch.device("meta"):
        backbone = CmtLidarBackbone(CmtLidarConfig())

    assert sum(parameter.numel() for parameter in getattr(backbone, part).parameters()) == num_parameters


@pytest.mark.parametrize(
    ("sparse_shape", "encoder_shape"), [([41, 1440, 1440], (2, 180, 180)), ([41, 1024, 1024], (2, 128, 128))]
)
def test_published_shape_of_the_map(sparse_shape, encoder_shape):
    config = CmtLidarConfig(sparse_shape=sparse_shape)

    assert config.encoder_shape == encoder_shape
    assert config.bev_size == 256


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("num_voxels", [0, 1, 60])
def test_any_number_of_voxels(num_voxels, training):
    backbone = build().train(training)

    features = backbone(*build_voxels(num_voxels), BATCH_SIZE)
    features.sum().backward()

    assert features.shape == (BATCH_SIZE, 5 + 3, 6, 10)
    assert features.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in backbone.parameters())


def test_map_of_a_sample_without_voxels_is_zero():
    bev = build(CmtSparseEncoder)(*build_voxels(), BATCH_SIZE)

    assert bev[:-1].flatten(1).any(dim=1).all()
    assert not bev[-1].any()


@torch.no_grad()
def test_samples_do_not_mix():
    encoder = build(CmtSparseEncoder).eval()
    features, coords = build_voxels()

    together = encoder(features, coords, BATCH_SIZE)

    for sample in range(BATCH_SIZE - 1):
        chosen = coords[:, 0] == sample
        own = coords[chosen] * torch.tensor([0, 1, 1, 1])
        torch.testing.assert_close(encoder(features[chosen], own, 1)[0], together[sample])


@torch.no_grad()
def test_channels_of_the_map_are_heights_of_channels():
    config = tiny_config(sparse_shape=[25, 24, 40])
    torch.manual_seed(0)
    encoder = CmtSparseEncoder(config).eval()
    features, coords = build_voxels()

    last = encoder.encode(features, coords, BATCH_SIZE)[-1]
    bev = encoder(features, coords, BATCH_SIZE)

    depth = config.encoder_shape[0]
    assert depth > 1
    for (sample, z, y, x), values in zip(last.coords.tolist(), last.features, strict=True):
        assert torch.equal(bev[sample, z::depth, y, x], values)


@torch.no_grad()
def test_grid_that_the_strides_do_not_divide():
    backbone = build(sparse_shape=[17, 26, 38]).eval()
    features, coords = build_voxels()
    coords = torch.minimum(coords, torch.tensor([9, 16, 25, 37])).unique(dim=0)

    output = backbone(features[: len(coords)], coords, BATCH_SIZE)

    assert output.shape == (BATCH_SIZE, 5 + 3, 7, 10)


def test_half_precision_inputs_and_autocast():
    encoder = build(CmtSparseEncoder).eval()
    features, coords = build_voxels()

    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        bev = encoder(features.half(), coords.int(), BATCH_SIZE)

    assert bev.dtype == torch.float32
    with torch.no_grad():
        assert torch.equal(bev, encoder(features.half().float(), coords, BATCH_SIZE))


@pytest.mark.parametrize("bev_upsample_strides", [[1, 2], [0.5, 1]], ids=["enlarge", "reduce"])
@torch.no_grad()
def test_neck_brings_maps_to_one_size(bev_upsample_strides):
    backbone = build(bev_upsample_strides=bev_upsample_strides)

    output = backbone(*build_voxels(), BATCH_SIZE)

    scale = bev_upsample_strides[0]
    assert output.shape == (BATCH_SIZE, 8, int(6 * scale), int(10 * scale))


def test_reset_parameters_follows_the_authors_framework():
    backbone = build(bev_hidden_sizes=[64, 9], hidden_sizes=[32, 6, 8])
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.fill_(7.0)

    backbone.reset_parameters()

    weight = backbone.bev_backbone.blocks[0][1].convolution.weight
    assert weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.05)
    sparse_weight = backbone.encoder.stages[0].blocks[0].layers[0].convolution.weight
    bound = (32 * 27) ** -0.5
    assert 0.95 * bound < sparse_weight.abs().max().item() <= bound


@pytest.mark.parametrize("num_threads", [1, 2])
def test_number_of_threads_is_restored(num_threads):
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        build(CmtSparseEncoder)(*build_voxels(), BATCH_SIZE).sum().backward()
        after = torch.get_num_threads()
    finally:
        torch.set_num_threads(before)

    assert after == num_threads


# --- What is refused


def shift(column: int, value: int):
    def change(features, coords, batch_size):
        coords = coords.clone()
        coords[7, column] = value
        return features, coords, batch_size

    return change


BAD_INPUTS = {
    "sample": (shift(0, BATCH_SIZE), r"`voxel_coords` must lie below \(3, 17, 24, 40\).*row 7"),
    "x": (shift(3, 40), r"got \(\d, \d+, \d+, 40\) in row 7, and 1 such"),
    "negative": (shift(1, -1), "`voxel_coords` must lie below"),
    "batch size": (lambda features, coords, _: (features, coords, 1), r"`voxel_coords` must lie below \(1, "),
    "features": (lambda features, coords, size: (features[:, :4], coords, size), r"shape \(num_voxels, 5\)"),
    "number": (lambda features, coords, size: (features[:-1], coords, size), r"shape \(num_voxels, 5\)"),
    "twice": (
        lambda features, coords, size: (features, torch.cat([coords[:1], coords[:-1]]), size),
        "`voxel_coords` must be all different; 1 rows are repeated",
    ),
}


@pytest.mark.parametrize(("change", "message"), BAD_INPUTS.values(), ids=BAD_INPUTS)
def test_refuses_inputs(change, message):
    encoder = build(CmtSparseEncoder)

    with pytest.raises(ValueError, match=message):
        encoder(*change(*build_voxels(), BATCH_SIZE))


BAD_CONFIGS = {
    "depths": ({"depths": [1, 1]}, "`depths` must have 3 entries"),
    "paddings": ({"paddings": [[1, 1, 1]]}, "`paddings` must have 2 entries"),
    "padding": ({"paddings": [[1, 1, 1], [1, 1]]}, "`paddings` must hold triples"),
    "no stage": ({"hidden_sizes": []}, "`hidden_sizes` must have one entry at least"),
    "flat": ({"sparse_shape": [4, 24, 40]}, "`sparse_shape` must leave a voxel"),
    "axes": ({"sparse_shape": [17, 24]}, "`sparse_shape` must hold 3 positive"),
    "voxels": ({"voxel_size": [0.1, 0.0, 0.2]}, "`voxel_size` must hold 3 positive"),
    "strides": ({"bev_upsample_strides": [1, 4]}, "`bev_upsample_strides` must bring the maps"),
    "fraction": ({"bev_upsample_strides": [1.5, 3.0]}, "`bev_upsample_strides` must hold whole numbers"),
    "bev": ({"bev_strides": [1]}, "`bev_strides` must have 2 entries"),
    "huge": ({"sparse_shape": [17, 10**7, 40]}, "`sparse_shape` must be at most"),
}


@pytest.mark.parametrize(("fields", "message"), BAD_CONFIGS.values(), ids=BAD_CONFIGS)
def test_refuses_configurations(fields, message):
    with pytest.raises(StrictDataclassError, match=message):
        tiny_config(**fields)


def test_configuration_is_read_back(tmp_path):
    config = tiny_config(sparse_backend="torch")

    config.save_pretrained(tmp_path)

    assert CmtLidarConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()


# --- Backends


@pytest.fixture
def spconv_is_installed(monkeypatch):
    monkeypatch.setattr(spconv_backend, "is_spconv_available", lambda: True)


def test_spconv_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(spconv_backend, "is_spconv_available", lambda: False)

    with pytest.raises(ImportError, match="pip install spconv"):
        build(CmtSparseEncoder, sparse_backend="spconv")(*build_voxels(), BATCH_SIZE)


@pytest.mark.usefixtures("spconv_is_installed")
def test_spconv_does_not_train_on_a_cpu():
    with pytest.raises(ValueError, match=r"must run under `torch.no_grad\(\)` on a CPU"):
        build(CmtSparseEncoder, sparse_backend="spconv")(*build_voxels(), BATCH_SIZE)


@pytest.mark.usefixtures("spconv_is_installed")
def test_spconv_takes_no_double_precision():
    with torch.no_grad(), pytest.raises(ValueError, match=r"must be float32 or float16.*float64"):
        build(CmtSparseEncoder, sparse_backend="spconv").double()(*build_voxels(), BATCH_SIZE)


@pytest.mark.usefixtures("spconv_is_installed")
@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_torch_is_the_backend_on_a_cpu(backend):
    assert not spconv_backend.uses_spconv(backend, torch.zeros(3, 5))


@pytest.mark.parametrize("num_voxels", [0, 1, 60])
@torch.no_grad()
def test_spconv_gives_the_same_map(num_voxels):
    pytest.importorskip("spconv", reason="spconv is an optional peer: `pip install spconv`")
    inputs = (*build_voxels(num_voxels), BATCH_SIZE)
    encoder = build(CmtSparseEncoder).eval()
    expected = encoder(*inputs)

    encoder.config.sparse_backend = "spconv"

    torch.testing.assert_close(encoder(*inputs), expected)
