"""CMT's sparse 3D encoder beside a plain sparse convolution and, where that is installed, beside spconv.

Decoder and heads are compared with explicit attention weights, and cameras that are left out with black images.

The point cloud is made up: a spinning LiDAR with 32 beams between walls. It has about as many voxels as a key frame of
nuScenes. spconv has no backward pass on a CPU, so a training step is compared with the plain one.
"""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from .timing import Case, Sampler, timed


NUM_CAMERAS = 6
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


def run_reference(encoder, features, coords, batch_size: int):
    """The map of an encoder, by plain sparse convolutions in place of its own."""
    from decahub.models.cmt.lidar.rulebook import linear_keys
    from decahub.models.cmt.lidar.sparse_encoder import scatter_to_bev

    from .reference_cmt import ReferenceSparseTensor

    order = linear_keys(coords, encoder.spatial_shape).argsort()
    sparse = ReferenceSparseTensor(features[order], coords[order], encoder.spatial_shape)
    for layer in (encoder.stem, *encoder.stages, encoder.output_layer):
        sparse = layer(sparse)
    return scatter_to_bev(sparse.features, sparse.coords, sparse.spatial_shape, batch_size)


def build_forward(folder: Path, with_spconv: bool = False) -> tuple[Sampler, Sampler]:
    import torch

    encoder, (features, coords) = build_encoder("torch").eval(), build_voxels()
    peer = build_encoder("spconv").eval() if with_spconv else partial(run_reference, encoder)

    def run_ours() -> None:
        with torch.inference_mode():
            encoder(features, coords, 1)

    def run_peer() -> None:
        with torch.inference_mode():
            peer(features, coords, 1)

    return timed(run_ours), timed(run_peer)


def build_step(folder: Path) -> tuple[Sampler, Sampler]:
    encoder, (features, coords) = build_encoder("torch"), build_voxels()

    def build(run: Callable) -> Sampler:
        def step() -> None:
            encoder.zero_grad()
            run(features, coords, 1).square().mean().backward()

        return timed(step)

    return build(encoder), build(partial(run_reference, encoder))


def build_head(folder: Path) -> tuple[Sampler, Sampler]:
    """Decoder and heads at the size of CMT-R50, 22,384 tokens and 900 queries, with 2 of its 6 layers."""
    import torch

    from decahub import CmtConfig, CmtForObjectDetection3D

    torch.manual_seed(0)
    model = CmtForObjectDetection3D(CmtConfig.from_variant("r50", num_hidden_layers=2)).eval()
    bev_features, image_features = torch.randn(1, 256, 128, 128), torch.randn(1, NUM_CAMERAS, 256, 20, 50)
    projections = build_projections(800)

    def build(attention: str) -> Sampler:
        def run() -> None:
            model.set_attn_implementation(attention)
            with torch.inference_mode():
                model.detect(model.model.decode(bev_features, image_features, projections, (320, 800)))

        return timed(run)

    return build("sdpa"), build("eager")


def build_missing_cameras(folder: Path) -> tuple[Sampler, Sampler]:
    """A frame of CMT-R50 with small images and without its cameras."""
    import torch

    from decahub import CmtConfig, CmtForObjectDetection3D, CmtPointCloudFeatureExtractor

    torch.manual_seed(0)
    model = CmtForObjectDetection3D(CmtConfig.from_variant("r50", num_hidden_layers=2)).eval()
    inputs = CmtPointCloudFeatureExtractor()(build_points(), return_tensors="pt")
    images = {"pixel_values": torch.randn(1, NUM_CAMERAS, 3, 160, 400), "lidar2img": build_projections(400)}
    mask = torch.tensor([[False, True]])

    def build(mode: str) -> Sampler:
        def run() -> None:
            model.config.missing_modality = mode
            with torch.inference_mode():
                model(**inputs, **images, modality_mask=mask)

        return timed(run)

    return build("drop"), build("zero")


def build_projections(width: int):
    """Cameras around the origin, `(1, num_cameras, 4, 4)`."""
    import torch

    angle = torch.arange(NUM_CAMERAS, dtype=torch.float64) * (2 * torch.pi / NUM_CAMERAS)
    cosine, sine, zero = angle.cos(), angle.sin(), torch.zeros(NUM_CAMERAS, dtype=torch.float64)
    pose = torch.eye(4, dtype=torch.float64).repeat(NUM_CAMERAS, 1, 1)
    rows = [(sine, -cosine, zero), (zero, zero, zero - 1), (cosine, sine, zero)]  # right, down, forward
    pose[:, :3, :3] = torch.stack([torch.stack(row, dim=-1) for row in rows], dim=1)
    focal_length = 0.8 * width
    intrinsics = torch.diag(torch.tensor([focal_length, focal_length, 1, 1], dtype=torch.float64))
    intrinsics[:2, 2] = torch.tensor([width / 2, width / 5])
    return (intrinsics @ pose)[None]


ENCODER = "sparse encoder, one frame, voxels of 0.075 m"
PLAIN = "torch: plain sparse convolution"
CASES = [
    Case(f"inference {ENCODER}", PLAIN, build_forward),
    *(
        Case(f"inference {ENCODER}", "spconv: on the CPU", partial(build_forward, with_spconv=True))
        for _ in range(find_spec("spconv") is not None)
    ),
    Case(f"training step {ENCODER}", PLAIN, build_step),
    Case("inference decoder and heads, 2 layers", "torch: explicit attention weights", build_head, (22_384, "tokens")),
    Case("inference without cameras, left out", "torch: black images", build_missing_cameras),
]
