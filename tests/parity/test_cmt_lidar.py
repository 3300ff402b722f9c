"""CMT's LiDAR branch computes the reference's numbers: sparse encoder, 2D network, voxels."""

import ast
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from conversion.layouts_cmt import find_sparse_layout, to_spconv2
from conversion.layouts_cmt_lidar import (
    BEV_BACKBONE_KEY_MAP,
    BEV_NECK_KEY_MAP,
    build_sparse_encoder_key_map,
)
from conversion.name_map import NameMap
from decahub.models.cmt.configuration_cmt import CmtLidarConfig
from decahub.models.cmt.lidar.bev_network import CmtBevBackbone, CmtBevNeck
from decahub.models.cmt.lidar.sparse_encoder import CmtSparseEncoder
from decahub.models.cmt.lidar.voxelizer import average_voxels, compute_grid_shape, voxelize_hard
from tests.parity.golden import assert_near, golden_params


# The reference is float64, stored as float32; golden README: values go up to 50 and gradients to thousands.
ATOL, RTOL = 1e-5, 1e-5
FLOAT32_ATOL, FLOAT64_ATOL = 1e-4, 1e-6  # of the sparse encoder; golden README
BATCH_STATISTICS_ATOL = 1e-4  # dividing by the standard deviation of few sites magnifies rounding
GRADIENT_RTOL = 1e-4  # of the largest value of the tensor
MEAN_ATOL = 1e-5
SUM_RTOL = 1e-7  # means are float32

DTYPES = (torch.float32, torch.float64)
ENCODER = "pts_middle_encoder."

KNOWN_KEYS = {
    "sparse_encoder": [
        r"input\.voxel_(features|coords_bzyx)",
        r"eval\.(bev|stage\d+\.(coords_bzyx|features))",
        r"train_batchstats\.bev",
        r"grad\.(input\.voxel_features|loss_weights_bev|pts_middle_encoder\..+)",
        r"state_dict\.pts_middle_encoder\..+",
    ],
    "second_fpn": [r"input\.bev", r"output\.(backbone\d+|neck)", r"state_dict\.pts_(backbone|neck)\..+"],
    "voxelizer": [
        r"points|voxels|coords_zyx|num_points|mean",
        r"v\d+\.(coords_zyx|num_points|mean_first500|mean_sum64)",
    ],
}

encoders = pytest.mark.parametrize("golden", golden_params("cmt", "sparse_encoder"))
bev_networks = pytest.mark.parametrize("golden", golden_params("cmt", "second_fpn"))
by_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


@pytest.mark.parametrize("golden", [param for kind in KNOWN_KEYS for param in golden_params("cmt", kind)])
def test_every_number_of_a_file_is_looked_at(golden):
    assert golden.unknown_keys(KNOWN_KEYS[golden.kind]) == []


def read_metadata(golden, key: str):
    return ast.literal_eval(golden.metadata[key])


def read_numbers(golden, key: str) -> list[float]:
    """Numbers as a Python list or separated by commas."""
    return list(ast.literal_eval(f"[{golden.metadata[key].strip('[]()')}]"))


# --- Sparse encoder


def config_of_encoder(golden) -> CmtLidarConfig:
    channels = read_metadata(golden, "channels")
    # The authors give a padding for each block; only that of the convolution at the end of a stage counts.
    paddings = [stage[-1] for stage in read_metadata(golden, "paddings")[:-1]]
    config = CmtLidarConfig(
        sparse_shape=[int(size) for size in read_numbers(golden, "sparse_shape_zyx")],
        num_point_features=golden["input.voxel_features"].shape[1],
        hidden_sizes=[stage[0] for stage in channels],
        depths=[len(stage) - 1 for stage in channels[:-1]] + [len(channels[-1])],
        paddings=[[padding] * 3 if isinstance(padding, int) else list(padding) for padding in paddings],
        output_size=int(golden.metadata["out"]),
        batch_norm_eps=float(golden.metadata["bn_eps"]),
    )
    assert config.hidden_sizes[0] == int(golden.metadata["base"])
    return config


def encoder_names(config: CmtLidarConfig) -> NameMap:
    return NameMap(build_sparse_encoder_key_map(len(config.hidden_sizes), list(config.depths)))


def build_encoder(golden, dtype: torch.dtype = torch.float32) -> CmtSparseEncoder:
    config = config_of_encoder(golden)
    names, official = encoder_names(config), golden.group(f"state_dict.{ENCODER}")
    encoder = CmtSparseEncoder(config)
    encoder.load_state_dict({names.convert(name): tensor for name, tensor in official.items()})
    return encoder.eval().to(dtype)


def encoder_inputs(golden, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor, int]:
    features, coords = golden["input.voxel_features"], golden["input.voxel_coords_bzyx"]
    return features.to(dtype), coords.long(), int(golden.metadata["batch"])


@by_dtype
@encoders
@torch.no_grad()
def test_encoder_has_the_sites_and_features_of_each_stage(golden, dtype):
    stages = build_encoder(golden, dtype).encode(*encoder_inputs(golden, dtype))

    for index, stage in enumerate(stages, 1):
        assert torch.equal(stage.coords, golden[f"eval.stage{index}.coords_bzyx"].long())
        atol = FLOAT32_ATOL if dtype == torch.float32 else FLOAT64_ATOL
        assert_near(stage.features, golden[f"eval.stage{index}.features"], atol, RTOL, f"stage {index}")


@by_dtype
@encoders
@torch.no_grad()
def test_encoder_map(golden, dtype):
    bev = build_encoder(golden, dtype)(*encoder_inputs(golden, dtype))

    atol = FLOAT32_ATOL if dtype == torch.float32 else FLOAT64_ATOL
    assert_near(bev, golden["eval.bev"], atol, RTOL)
    assert torch.equal(bev == 0, golden["eval.bev"] == 0)


@encoders
@torch.no_grad()
def test_encoder_with_statistics_of_the_batch(golden):
    bev = build_encoder(golden).train()(*encoder_inputs(golden))

    assert_near(bev, golden["train_batchstats.bev"], BATCH_STATISTICS_ATOL, RTOL)


@by_dtype
@encoders
def test_encoder_gradients(golden, dtype):
    encoder = build_encoder(golden, dtype)
    names = encoder_names(encoder.config)
    features, coords, batch_size = encoder_inputs(golden, dtype)
    features = features.clone().requires_grad_()

    (encoder(features, coords, batch_size) * golden["grad.loss_weights_bev"].to(dtype)).sum().backward()

    gradients = {names.revert(name): parameter.grad for name, parameter in encoder.named_parameters()}
    for name, expected in golden.group(f"grad.{ENCODER}").items():
        assert_near(gradients[name], expected, GRADIENT_RTOL * expected.abs().max().item(), what=name)
    expected = golden["grad.input.voxel_features"]
    assert_near(features.grad, expected, GRADIENT_RTOL * expected.abs().max().item(), what="voxel features")


@encoders
@torch.no_grad()
def test_encoder_does_not_depend_on_the_order_of_voxels(golden):
    encoder = build_encoder(golden)
    features, coords, batch_size = encoder_inputs(golden)
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(0))

    assert torch.equal(encoder(features[order], coords[order], batch_size), encoder(features, coords, batch_size))


@encoders
@torch.no_grad()
def test_encoder_by_spconv(golden):
    pytest.importorskip("spconv", reason="spconv is an optional peer: `pip install spconv`")
    encoder = build_encoder(golden)
    encoder.config.sparse_backend = "spconv"

    bev = encoder(*encoder_inputs(golden))

    assert_near(bev, golden["eval.bev"], BATCH_STATISTICS_ATOL, RTOL)  # golden README: spconv is off by 3e-5


@encoders
def test_encoder_names_and_weights_round_trip(golden):
    config = config_of_encoder(golden)
    names, official = encoder_names(config), golden.group(f"state_dict.{ENCODER}")

    converted = {names.convert(name): tensor for name, tensor in official.items()}

    assert {names.revert(name) for name in converted} == official.keys()
    assert converted.keys() == CmtSparseEncoder(config).state_dict().keys()


@encoders
def test_layout_of_spconv_1_is_recognized(golden):
    official = {f"{ENCODER}{name}": tensor for name, tensor in golden.group(f"state_dict.{ENCODER}").items()}
    old = {name: x.permute(1, 2, 3, 4, 0) if x.ndim == 5 else x for name, x in official.items()}

    converted = to_spconv2(old, find_sparse_layout(old))

    assert find_sparse_layout(official) == "spconv2"
    assert all(torch.equal(converted[name], tensor) for name, tensor in official.items())


# --- 2D network


def config_of_bev_network(golden) -> CmtLidarConfig:
    weights = golden.group("state_dict.")
    # A map of one height: the input's channels are those of the encoder.
    num_blocks = len(read_metadata(golden, "layer_nums"))
    upsample_strides = list(read_metadata(golden, "upsample_strides"))
    neck = [weights[f"pts_neck.deblocks.{level}.0.weight"] for level in range(num_blocks)]
    return CmtLidarConfig(
        sparse_shape=[3, *golden["input.bev"].shape[2:]],
        hidden_sizes=[4],
        depths=[0],
        paddings=[],
        output_size=golden["input.bev"].shape[1],
        bev_hidden_sizes=[weights[f"pts_backbone.blocks.{block}.0.weight"].shape[0] for block in range(num_blocks)],
        bev_depths=list(read_metadata(golden, "layer_nums")),
        bev_strides=list(read_metadata(golden, "layer_strides")),
        # A transposed convolution has its output channels second.
        bev_neck_sizes=[w.shape[int(scale > 1)] for w, scale in zip(neck, upsample_strides, strict=True)],
        bev_upsample_strides=upsample_strides,
        batch_norm_eps=float(golden.metadata["bn_eps"]),
    )


@bev_networks
@torch.no_grad()
def test_bev_network(golden):
    config = config_of_bev_network(golden)
    backbone, neck = CmtBevBackbone(config).eval(), CmtBevNeck(config).eval()
    for module, prefix, rows in (
        (backbone, "pts_backbone.", BEV_BACKBONE_KEY_MAP),
        (neck, "pts_neck.", BEV_NECK_KEY_MAP),
    ):
        names = NameMap(rows)
        official = golden.group(f"state_dict.{prefix}")
        module.load_state_dict({names.convert(name): tensor for name, tensor in official.items()})
        assert {names.revert(name) for name in module.state_dict()} == official.keys()

    maps = backbone(golden["input.bev"])

    for index, feature_map in enumerate(maps):
        assert_near(feature_map, golden[f"output.backbone{index}"], ATOL, RTOL, f"block {index}")
    assert_near(neck(maps), golden["output.neck"], ATOL, RTOL, "neck")


# --- Voxels


def average(voxels) -> torch.Tensor:
    return average_voxels(torch.from_numpy(voxels.points), torch.from_numpy(voxels.num_points))


def case_names(golden) -> list[str]:
    return sorted({key.split(".")[0] for key in golden.tensors if "." in key})


@pytest.mark.parametrize("golden", golden_params("cmt", "voxelizer"))
def test_voxels(golden):
    if "points" not in golden:
        pytest.skip("It has a real frame, see test_voxels_of_the_real_frame.")
    grid = (read_numbers(golden, "voxel_size"), read_numbers(golden, "range"))
    limits = (int(golden.metadata["max_points"]), int(golden.metadata["max_voxels"]))

    voxels = voxelize_hard(golden["points"].numpy(), *grid, compute_grid_shape(*grid), *limits)

    assert np.array_equal(voxels.coords, golden["coords_zyx"].numpy())
    assert np.array_equal(voxels.num_points, golden["num_points"].numpy())
    assert np.array_equal(voxels.points, golden["voxels"].numpy())
    assert_near(average(voxels), golden["mean"], MEAN_ATOL, RTOL)


@pytest.mark.parametrize(("golden", "case"), golden_params("cmt", "voxelizer", case_names))
def test_voxels_of_the_real_frame(golden, case):
    folder = os.environ.get("DECAHUB_DATA_DIR")
    if folder is None:
        pytest.skip("DECAHUB_DATA_DIR must name the folder that holds nuscenes_sample.")
    path = Path(folder) / golden.metadata["source"].split(" ")[0].removeprefix("shared/data/")
    points = np.load(path, allow_pickle=False)
    points[:, 4] = 0
    size = int(case.removeprefix("v0")) / 10 ** len(case.removeprefix("v0"))
    grid = ((size, size, 0.2), read_numbers(golden, "range"))
    limits = (int(golden.metadata["max_points"]), int(golden.metadata["max_voxels"]))

    voxels = voxelize_hard(points, *grid, compute_grid_shape(*grid), *limits)

    assert np.array_equal(voxels.coords, golden[f"{case}.coords_zyx"].numpy())
    assert np.array_equal(voxels.num_points, golden[f"{case}.num_points"].numpy())
    means = average(voxels)
    first = golden[f"{case}.mean_first500"]
    assert_near(means[: len(first)], first, MEAN_ATOL, RTOL)
    assert_near(means.double().sum(dim=0), golden[f"{case}.mean_sum64"], MEAN_ATOL, SUM_RTOL)
