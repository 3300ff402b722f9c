"""CMT's sparse 3D encoder against spconv, or where that is not installed against a plain sparse convolution.

The point cloud is made up: a spinning LiDAR with 32 beams between walls. It has about as many voxels as a key frame of
nuScenes. spconv has no backward pass on a CPU, so a training step is compared with the plain one.
"""

from collections.abc import Callable
from pathlib import Path

from .timing import Case, Sampler, timed


NUM_BEAMS, NUM_AZIMUTHS = 32, 720
BEAM_ANGLES = (-30.67, 10.67)  # degrees
SENSOR_HEIGHT = 1.84  # meters
VOXEL_0075 = {"voxel_size": [0.075, 0.075, 0.2], "sparse_shape": [41, 1440, 1440]}


def build_points():
    """Points of one turn: on the ground, or on walls of random distance."""
    import torch

    generator = torch.Generator().manual_seed(0)
    elevation = torch.deg2rad(torch.linspace(*BEAM_ANGLES, NUM_BEAMS))[:, None]
    azimuth = torch.linspace(0, 2 * torch.pi, NUM_AZIMUTHS + 1)[None, :-1]
    walls = 5 + 45 * torch.rand(NUM_AZIMUTHS // 4, generator=generator).repeat_interleave(4)
    ground = torch.where(elevation < 0, SENSOR_HEIGHT / torch.tan(-elevation).clamp(min=1e-3), torch.inf)
    distance = torch.minimum(walls, ground) + 0.05 * torch.randn(NUM_BEAMS, NUM_AZIMUTHS, generator=generator)
    position = [distance * azimuth.cos(), distance * azimuth.sin(), distance * elevation.tan()]
    intensity = 255 * torch.rand(distance.shape, generator=generator)
    return torch.stack([*position, intensity], dim=-1).flatten(0, 1)


def build_voxels():
    """Mean points of voxels, and their coordinates."""
    from decahub import CmtPointCloudFeatureExtractor
    from decahub.models.cmt.lidar.voxelizer import average_voxels

    inputs = CmtPointCloudFeatureExtractor(**VOXEL_0075)(build_points(), return_tensors="pt")
    return average_voxels(inputs["voxels"], inputs["num_points_per_voxel"]), inputs["voxel_coords"]


def build_encoder(sparse_backend: str):
    import torch

    from decahub.models.cmt.configuration_cmt import CmtLidarConfig
    from decahub.models.cmt.lidar.sparse_encoder import CmtSparseEncoder

    torch.manual_seed(0)
    return CmtSparseEncoder(CmtLidarConfig(**VOXEL_0075, sparse_backend=sparse_backend))


def run_reference(encoder, features, coords):
    """The map of an encoder, by plain sparse convolutions in place of its own."""
    from decahub.models.cmt.lidar.rulebook import linear_keys
    from decahub.models.cmt.lidar.sparse_encoder import scatter_to_bev

    from .reference_cmt import ReferenceSparseTensor

    order = linear_keys(coords, encoder.spatial_shape).argsort()
    sparse = ReferenceSparseTensor(features[order], coords[order], encoder.spatial_shape)
    for layer in (encoder.stem, *encoder.stages, encoder.output_layer):
        sparse = layer(sparse)
    return scatter_to_bev(sparse.features, sparse.coords, sparse.spatial_shape, 1)


def build_forward(folder: Path) -> tuple[Sampler, Sampler]:
    import torch

    from decahub.models.cmt.lidar.spconv_backend import is_spconv_available

    encoder, (features, coords) = build_encoder("torch").eval(), build_voxels()
    peer = build_encoder("spconv").eval() if is_spconv_available() else None

    def run_ours() -> None:
        with torch.inference_mode():
            encoder(features, coords, 1)

    def run_peer() -> None:
        with torch.inference_mode():
            run_reference(encoder, features, coords) if peer is None else peer(features, coords, 1)

    return timed(run_ours), timed(run_peer)


def build_step(folder: Path) -> tuple[Sampler, Sampler]:
    encoder, (features, coords) = build_encoder("torch"), build_voxels()

    def build(run: Callable) -> Sampler:
        def step() -> None:
            encoder.zero_grad()
            run(features, coords).square().mean().backward()

        return timed(step)

    return build(lambda *voxels: encoder(*voxels, 1)), build(lambda *voxels: run_reference(encoder, *voxels))


CASES = [
    Case("inference sparse encoder, one frame, voxels of 0.075 m", build_forward),
    Case("training step sparse encoder, one frame, voxels of 0.075 m", build_step),
]
