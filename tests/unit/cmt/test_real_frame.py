"""One real frame of six cameras through the processor: what its README counts."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from decahub import CmtConfig, CmtForObjectDetection3D, CmtImageProcessor, CmtProcessor
from decahub.models.cmt.configuration_cmt import NUSCENES_CLASSES
from decahub.models.cmt.sensor_failures import CmtSensorDropout, estimate_rings
from tests.tiny.cmt import LIDAR, VOVNET
from tests.tiny.cmt_frames import project_points


FOLDER = Path(os.environ.get("DECAHUB_DATA_DIR") or "absent") / "nuscenes_sample"
IMAGE_SIZE = (900, 1600)
# Of the frame's README: boxes whose center is seen, and points, by camera.
SEEN_BOXES = {"FRONT": 46, "FRONT_RIGHT": 16, "FRONT_LEFT": 1, "BACK": 10, "BACK_LEFT": 2, "BACK_RIGHT": 4}
SEEN_POINTS = [3067, 3079, 3704, 4826, 4097, 3379]
NUM_VOXELS = 15373  # of 0.1 m
NUM_CLIPPED = 26  # of them beyond the sparse shape of CMT-R50; method specification, section 9
ATOL_PIXELS = 1e-6

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="needs nuscenes_sample in DECAHUB_DATA_DIR")


@pytest.fixture(scope="module")
def frame() -> dict:
    sample = json.loads((FOLDER / "sample.json").read_text())
    cameras = sample["cameras"]
    annotations = [row for row in sample["annotations"] if row["class"] is not None]
    points = np.load(FOLDER / "lidar_top.npy")
    rings = points[:, 4].astype(int)
    points[:, 4] = 0
    return {
        "images": [str(FOLDER / camera["file"]) for camera in cameras],
        "cameras": [camera["name"] for camera in cameras],
        "intrinsics": [camera["intrinsics"] for camera in cameras],
        "lidar2cam": [camera["lidar2cam"] for camera in cameras],
        "lidar2img": np.array([camera["lidar2img"] for camera in cameras]),
        "points": points,
        "rings": rings,
        "boxes": [[*row["box"], *(row["velocity"] or [np.nan, np.nan])] for row in annotations],
        "class_labels": [NUSCENES_CLASSES.index(row["class"]) for row in annotations],
        "lidar2ego": np.array(sample["lidar"]["lidar2ego"]),
        "ego2global": np.array(sample["ego2global"]),
    }


INPUTS = ("images", "cameras", "intrinsics", "lidar2cam", "points", "boxes", "class_labels")


@pytest.fixture(scope="module")
def inputs(frame):
    processor = CmtProcessor.from_config(CmtConfig.from_variant("r50"), CmtImageProcessor(do_resize=False))
    return processor(**{name: frame[name] for name in INPUTS}, return_tensors="pt")


def count_seen(points: torch.Tensor, lidar2img: torch.Tensor) -> list[int]:
    pixels, depths = project_points(points, lidar2img)
    height, width = IMAGE_SIZE
    u, v = pixels.unbind(-1)
    return ((depths > 0) & (u >= 0) & (u < width) & (v >= 0) & (v < height)).sum(1).tolist()


def test_projections_are_those_of_the_dataset(frame, inputs):
    torch.testing.assert_close(
        inputs["lidar2img"][0], torch.from_numpy(frame["lidar2img"]), atol=ATOL_PIXELS, rtol=1e-9
    )


def test_boxes_are_seen_by_the_cameras_of_the_table(frame, inputs):
    counts = count_seen(inputs["labels"][0]["boxes"][:, :3], inputs["lidar2img"][0])

    assert dict(zip([name.removeprefix("CAM_") for name in frame["cameras"]], counts, strict=True)) == SEEN_BOXES


def test_points_are_seen_by_the_cameras_of_the_table(frame, inputs):
    assert count_seen(torch.from_numpy(frame["points"][:, :3]), inputs["lidar2img"][0]) == SEEN_POINTS


def test_voxels_within_the_sparse_shape_are_kept(inputs):
    assert inputs["num_voxels"].tolist() == [NUM_VOXELS - NUM_CLIPPED]


def test_half_of_the_rings_is_half_of_the_beams(frame):
    left = CmtSensorDropout(num_beams=16)(frame)

    assert len(set(left["rings"])) == 16
    assert np.array_equal(left["points"], frame["points"][np.isin(frame["rings"], range(1, 32, 2))])


def test_elevation_tells_the_rings_of_far_points(frame):
    is_far = np.hypot(frame["points"][:, 0], frame["points"][:, 1]) > 5

    rings = estimate_rings(frame["points"], 32)

    assert (rings == frame["rings"])[is_far].mean() > 0.95


@torch.no_grad()
def test_frame_goes_through_a_model_and_back(frame):
    config = CmtConfig(
        hidden_size=32,
        num_queries=20,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=32,
        image_backbone_config=VOVNET,
        lidar_backbone_config={**LIDAR, "voxel_size": [0.9, 0.9, 0.2], "sparse_shape": [41, 112, 112]},
    )
    torch.manual_seed(0)
    model = CmtForObjectDetection3D(config).eval()
    processor = CmtProcessor.from_config(config, CmtImageProcessor(size={"height": 64, "width": 160}))

    inputs = processor(**{name: frame[name] for name in INPUTS[:-2]}, return_tensors="pt")
    detections = processor.post_process_object_detection_3d(model(**inputs))
    results = processor.to_nuscenes_results(detections, ["token"], frame["lidar2ego"], frame["ego2global"])

    assert 0 < len(detections[0]["boxes"]) <= 20 * 10
    assert len(results["results"]["token"]) <= len(detections[0]["boxes"])
    json.dumps(results)
