"""CMT's processor: sensors and frames, the ways to give a calibration, labels, boxes of outputs, what is refused."""

import json
import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from decahub import CmtConfig, CmtImageProcessor, CmtProcessor
from decahub.models.cmt.boxes.coder import encode_boxes
from decahub.models.cmt.boxes.geometry import compute_corners, transform_boxes
from tests.tiny.cmt import tiny_config
from tests.tiny.cmt_frames import project_points
from tests.unit.cmt.frames import CLASSES, build_frame, build_pose, build_processor, choose, rotate_z


ATOL_FLOAT64 = 1e-6  # pixels and meters up to 1,000, after an inverse
ATOL_FLOAT32 = 1e-4  # meters up to 60
CAMERA = ("images", "intrinsics", "lidar2cam")


# --- Sensors and frames


def test_prepares_both_sensors():
    frame = build_frame()

    inputs = build_processor()(**choose(frame, *CAMERA, "points", "cameras", "boxes", "class_labels"))

    assert inputs["pixel_values"].shape == (1, 3, 3, 32, 64)
    assert inputs["lidar2img"].dtype == torch.float64
    assert inputs["num_voxels"].tolist() == [len(inputs["voxels"])]
    np.testing.assert_array_equal(inputs["labels"][0]["boxes"].numpy(), frame["boxes"].astype(np.float32))
    assert inputs["labels"][0]["class_labels"].tolist() == [0, 2]
    assert set(build_processor().model_input_names) == inputs.keys() - {"labels"}


@pytest.mark.parametrize(
    ("modality", "given", "expected"),
    [
        ("fusion", CAMERA, {"pixel_values", "lidar2img"}),
        ("camera", CAMERA, {"pixel_values", "lidar2img"}),
        ("fusion", ("points",), {"voxels", "num_points_per_voxel", "voxel_coords", "num_voxels"}),
        ("lidar", ("points",), {"voxels", "num_points_per_voxel", "voxel_coords", "num_voxels"}),
    ],
    ids=["no-points", "camera-model", "no-images", "lidar-model"],
)
def test_a_sensor_may_be_absent(modality, given, expected):
    processor = build_processor(modality=modality)

    inputs = processor(**choose(build_frame(), *given), return_tensors="pt")

    assert inputs.keys() == expected
    assert modality == "fusion" or set(processor.model_input_names) == expected


def test_any_subset_of_cameras_is_allowed():
    frame = build_frame()
    subset = {name: [frame[name][index] for index in (2, 0)] for name in (*CAMERA, "cameras")}

    inputs, complete = build_processor()(**subset), build_processor()(**choose(frame, *CAMERA))

    for name in ("pixel_values", "lidar2img"):
        assert torch.equal(inputs[name], complete[name][:, [2, 0]])


def test_frames_of_a_batch_are_those_prepared_alone():
    frames = [build_frame(seed) for seed in (0, 1)]
    frames[1]["boxes"], frames[1]["class_labels"] = np.zeros((0, 9)), np.zeros(0, dtype=int)
    names = (*CAMERA, "points", "cameras", "boxes", "class_labels")
    processor = build_processor()

    batch = processor(**{name: [frame[name] for frame in frames] for name in names}, return_tensors="pt")

    for index, frame in enumerate(frames):
        alone = processor(**choose(frame, *names), return_tensors="pt")
        is_own = batch["voxel_coords"][:, 0] == index
        assert torch.equal(batch["pixel_values"][index], alone["pixel_values"][0])
        assert torch.equal(batch["lidar2img"][index], alone["lidar2img"][0])
        assert torch.equal(batch["voxels"][is_own], alone["voxels"])
        assert batch["num_voxels"][index] == alone["num_voxels"][0]
        assert len(batch["labels"][index]["boxes"]) == len(frame["boxes"])


def test_training_limits_voxels_as_in_training():
    processor = build_processor()
    processor.feature_extractor.max_training_voxels = 5

    counts = [processor(points=build_frame()["points"], training=training)["num_voxels"] for training in (False, True)]

    assert counts[0] > 5
    assert counts[1] == 5


def test_options_of_images_reach_the_image_processor():
    frame = choose(build_frame(), *CAMERA)

    assert build_processor()(**frame, size={"height": 64, "width": 96})["pixel_values"].shape[-2:] == (64, 96)


def test_flat_options_join_those_of_images():
    frame = choose(build_frame(), *CAMERA, "points")

    inputs = build_processor()(**frame, images_kwargs={"size_divisor": 48}, return_tensors="np")

    assert inputs["pixel_values"].shape[-2:] == (48, 96)
    assert {type(value) for value in inputs.values()} == {np.ndarray}


# --- Calibration


def test_all_ways_of_a_calibration_give_the_same_projection():
    frame, processor = build_frame(), build_processor()
    still = {**frame, "camera_ego2global": np.tile(frame["ego2global"], (3, 1, 1))}

    ways = [
        choose(frame, "lidar2img"),
        choose(frame, "intrinsics", "lidar2cam"),
        choose(frame, "intrinsics", "cam2ego", "lidar2ego"),
        choose(still, "intrinsics", "cam2ego", "lidar2ego", "ego2global", "camera_ego2global"),
    ]
    projections = [processor(frame["images"], **way)["lidar2img"] for way in ways]

    for projection in projections[1:]:
        torch.testing.assert_close(projection, projections[0], atol=ATOL_FLOAT64, rtol=0)


def test_chain_follows_the_motion_of_the_vehicle():
    frame = build_frame()
    chain = choose(frame, "intrinsics", "cam2ego", "lidar2ego", "ego2global", "camera_ego2global")
    point = np.array([3.0, -7.0, 0.4, 1.0])

    lidar2img = build_processor()(frame["images"], **chain, do_resize=False)["lidar2img"][0].numpy()

    world = frame["ego2global"] @ frame["lidar2ego"] @ point
    for camera in range(3):
        in_camera = np.linalg.solve(frame["camera_ego2global"][camera] @ frame["cam2ego"][camera], world)
        expected = frame["intrinsics"][camera] @ in_camera[:3]
        np.testing.assert_allclose((lidar2img[camera] @ point)[:3], expected, atol=ATOL_FLOAT64)


def test_corner_of_a_box_keeps_its_pixel_when_the_scene_moves():
    frame, processor = build_frame(), build_processor()
    motion = build_pose(rotate_z(0.4), [1.0, -2.0, 0.3])
    boxes = torch.from_numpy(np.nan_to_num(frame["boxes"]))

    before = processor(frame["images"], **choose(frame, "lidar2img"))["lidar2img"][0]
    after = processor(frame["images"], lidar2img=frame["lidar2img"] @ np.linalg.inv(motion))["lidar2img"][0]

    corners = compute_corners(boxes).flatten(0, 1)
    moved = compute_corners(transform_boxes(boxes, torch.from_numpy(motion))).flatten(0, 1)
    (pixels, depths), (same_pixels, same_depths) = project_points(corners, before), project_points(moved, after)
    torch.testing.assert_close(same_depths, depths, atol=ATOL_FLOAT64, rtol=0)
    is_seen = depths > 1
    assert is_seen.any()
    torch.testing.assert_close(same_pixels[is_seen], pixels[is_seen], atol=ATOL_FLOAT64, rtol=0)


def change(frame: dict, name: str, index, value) -> dict:
    changed = np.array(frame[name], dtype=np.float64)
    changed[index] = value
    return {**frame, name: changed}


BAD_CALIBRATIONS = {
    "scaled": (
        lambda frame: change(frame, "lidar2cam", (1, slice(3), slice(3)), 2 * np.eye(3)),
        "that of camera left differs from one by 3 ",
    ),
    "mirrored": (
        lambda frame: change(frame, "lidar2cam", (2, slice(3), slice(3)), np.diag([1, 1, -1])),
        "that of camera back mirrors",
    ),
    "transposed": (
        lambda frame: {**frame, "lidar2cam": frame["lidar2cam"].transpose(0, 2, 1)},
        r"must have the last row \(0, 0, 0, 1\); that of camera front",
    ),
    "infinite": (
        lambda frame: change(frame, "lidar2cam", (0, 0, 0), np.nan),
        "`lidar2cam` must be finite; that of camera front",
    ),
    "flat": (
        lambda frame: change(frame, "intrinsics", (1, 0, 0), 0),
        "`intrinsics` must be invertible; that of camera left is singular",
    ),
    "too-few": (
        lambda frame: {**frame, "lidar2cam": frame["lidar2cam"][:2]},
        r"`lidar2cam` must have the shape \(3, 4, 4\); got \(2, 4, 4\)",
    ),
    "ragged": (
        lambda frame: {**frame, "intrinsics": [[1, 2], [3]]},
        r"`intrinsics` must hold numbers in the shape \(3, 3, 3\)",
    ),
    "absent": (
        lambda frame: {**frame, "lidar2cam": None},
        "The calibration of the cameras must be .*; got `intrinsics`",
    ),
    "none": (lambda frame: choose(frame, "images"), "The calibration of the cameras must be .*; got none"),
    "twice": (
        lambda frame: {**frame, "lidar2img": build_frame()["lidar2img"]},
        "got `intrinsics` and `lidar2cam` and `lidar2img`",
    ),
    "duplicate": (
        lambda frame: {**frame, "cameras": ["front", "left", "front"]},
        "name each camera once; got 'front' 2 times",
    ),
    "unnamed": (
        lambda frame: {**frame, "cameras": ["front", "left"]},
        "must name 3 cameras, one for each image; got 2: front, left",
    ),
    "missing": (lambda frame: {**frame, "images": [*frame["images"][:2], None]}, "image 2 is missing"),
    "one-name": (lambda frame: {**frame, "cameras": "abc"}, "`cameras` must be a list of names .*; got 'abc'"),
    "no-name": (lambda frame: {**frame, "cameras": ["front", None, "back"]}, "`cameras` must be a list of names"),
    "transposed-intrinsics": (
        lambda frame: {**frame, "intrinsics": frame["intrinsics"].transpose(0, 2, 1)},
        r"`intrinsics` must have the last row \(0, 0, 1\); that of camera front has \(40, 22, 1\). Is it transposed",
    ),
    "transposed-projections": (
        lambda frame: {
            **choose(frame, "images"),
            "lidar2img": build_frame()["lidar2img"].transpose(0, 2, 1),
        },
        r"`lidar2img` must have the last row \(0, 0, 0, 1\); that of camera 0",
    ),
}


@pytest.mark.parametrize("case", BAD_CALIBRATIONS)
def test_refuses_calibration(case):
    spoil, message = BAD_CALIBRATIONS[case]
    frame = spoil(choose(build_frame(), *CAMERA, "cameras"))

    with pytest.raises(ValueError, match=message):
        build_processor()(**frame)


@pytest.mark.parametrize("name", ["cam2ego", "lidar2ego", "ego2global", "camera_ego2global"])
def test_refuses_poses_of_a_chain_that_are_no_rotation(name):
    frame = build_frame()
    frame[name] = 1.01 * frame[name]
    frame[name][..., 3, 3] = 1
    chain = choose(frame, "images", "intrinsics", "cam2ego", "lidar2ego", "ego2global", "camera_ego2global")

    with pytest.raises(ValueError, match=f"`{name}` must hold rotations; that of (the vehicle|camera 0) differs"):
        build_processor()(**chain)


@pytest.mark.parametrize(
    ("modality", "given", "message"),
    [
        ("fusion", {}, "`images` or `points` must be given; got neither"),
        ("lidar", CAMERA, "`images` must not be given to the processor of a model of `modality='lidar'`"),
        ("camera", ("points",), "`points` must not be given to the processor of a model of `modality='camera'`"),
        ("fusion", ("points", "lidar2cam"), "`lidar2cam` must be given together with `images`; there are none"),
        ("fusion", ("points", "boxes"), "`class_labels` must be given too"),
        ("fusion", ("points", "class_labels"), "`boxes` must be given too"),
    ],
)
def test_refuses_sensors(modality, given, message):
    with pytest.raises(ValueError, match=message):
        build_processor(modality=modality)(**choose(build_frame(), *given))


def test_refuses_batches_that_do_not_fit():
    frame, processor = build_frame(), build_processor()

    with pytest.raises(ValueError, match="got several for `images` and one for `points`"):
        processor([frame["images"]], frame["points"], lidar2img=[frame["lidar2img"]])
    with pytest.raises(ValueError, match="`points` must hold a cloud for each of 1 frames; got 2"):
        processor([frame["images"]], [frame["points"]] * 2, lidar2img=[frame["lidar2img"]])
    with pytest.raises(ValueError, match="`lidar2img` must hold an entry for each of 2 frames; got 1"):
        processor([frame["images"]] * 2, lidar2img=[frame["lidar2img"]])


def test_a_missing_cloud_of_a_batch_is_no_empty_cloud():
    cloud = build_frame()["points"]

    for clouds, frame in (([cloud, None], 1), ([None, cloud], 0)):
        with pytest.raises(ValueError, match=f"that of frame {frame} is missing. .* by `modality_mask`"):
            build_processor()(points=clouds)


@pytest.mark.parametrize("empty", [[], np.zeros((0, 5)), np.zeros(0)], ids=["list", "rows", "flat"])
def test_any_cloud_of_a_batch_may_be_empty(empty):
    cloud, processor = build_frame()["points"], build_processor()
    num_voxels = int(processor(points=cloud)["num_voxels"][0])

    for clouds, expected in (
        ([empty, cloud], [0, num_voxels]),
        ([cloud, empty], [num_voxels, 0]),
        ([empty] * 2, [0, 0]),
    ):
        assert processor(points=clouds)["num_voxels"].tolist() == expected


def test_refuses_unknown_options():
    with pytest.raises(ValueError, match="`lidar2camera` must be an option of CmtProcessor"):
        build_processor()(points=build_frame()["points"], lidar2camera=np.eye(4))


# --- Labels


def label(boxes, classes) -> dict:
    return build_processor()(points=build_frame()["points"], boxes=boxes, class_labels=classes)["labels"][0]


BOX = [1.0, 2, 0, 4, 2, 1.5, 0.3, 0, 0]


def spoil_box(column: int, value: float) -> list[list[float]]:
    return [BOX, [value if index == column else number for index, number in enumerate(BOX)]]


@pytest.mark.parametrize("boxes", [[], np.zeros((0, 9)), np.zeros(0)], ids=["list", "array", "flat"])
def test_a_frame_may_have_no_boxes(boxes):
    labels = label(boxes, [])

    assert labels["boxes"].shape == (0, 9)
    assert labels["class_labels"].dtype == torch.int64


def test_keeps_turns_beyond_pi_and_unknown_velocities():
    labels = label([[*BOX[:6], 7.5, np.nan, np.nan]], [1])

    assert labels["boxes"][0, 6] == 7.5
    assert labels["boxes"][0, 7:].isnan().all()


@pytest.mark.parametrize(
    ("boxes", "classes", "error", "message"),
    [
        ([BOX[:7]], [0], ValueError, r"x, y, z, l, w, h, yaw, vx, vy; got \(1, 7\) for frame 0. .* give NaN"),
        ([BOX], [0, 1], ValueError, r"`class_labels` must have shape \(1,\), a class for each box; got \(2,\)"),
        ([BOX], [3], ValueError, r"`class_labels` must lie in \[0, 3\), the classes of the model; got 3 for frame 0"),
        ([BOX], [-1], ValueError, r"`class_labels` must lie in \[0, 3\), .* got -1"),
        ([BOX], ["car"], TypeError, "`class_labels` must hold integers; got <U3"),
        ([BOX], [0.5], TypeError, "`class_labels` must hold integers; got float64"),
        ([BOX, BOX[:3]], [0, 1], ValueError, "`boxes` must be an array of numbers for each frame; frame 0: "),
        ([["a"] * 9], [0], ValueError, "`boxes` must be an array of numbers for each frame; frame 0: .*'a'"),
        ([BOX], [[0], [1, 2]], ValueError, "`class_labels` must be an array of numbers for each frame; frame 0: "),
        (spoil_box(0, np.nan), [0, 1], ValueError, "`boxes` must be finite.* for box 1 of frame 0"),
        (spoil_box(8, np.inf), [0, 1], ValueError, "`boxes` must be finite.* for box 1 of frame 0"),
        (spoil_box(4, -2.0), [0, 1], ValueError, r"sizes of at least 0; got \[4.0, -2.0, 1.5\] for box 1"),
    ],
)
def test_refuses_labels(boxes, classes, error, message):
    with pytest.raises(error, match=message):
        label(boxes, classes)


def test_takes_boxes_that_require_gradients():
    boxes = torch.tensor([BOX], dtype=torch.bfloat16, requires_grad=True)

    assert torch.equal(label(boxes, torch.tensor([1]))["boxes"], boxes.detach().float())


def test_warns_of_flat_boxes(caplog):
    root = logging.getLogger("decahub")
    with caplog.at_level(logging.WARNING), pytest.MonkeyPatch.context() as patch:
        patch.setattr(root, "propagate", True)
        patch.setattr(logging.getLogger("transformers"), "propagate", True)
        label(spoil_box(5, 0.0), [0, 1])

    assert "1 of 2 boxes of frame 0 have a size of zero" in caplog.text


# --- Outputs


def build_outputs(seed: int = 0, batch_size: int = 2, num_queries: int = 6) -> SimpleNamespace:
    """Two layers of a model with the tasks of `CLASSES`; only the last is right."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, batch_size, num_queries, 3, generator=generator)
    boxes = torch.randn(2, batch_size, len(CLASSES) * num_queries, 10, generator=generator)
    return SimpleNamespace(logits=logits, pred_boxes=boxes)


def put_box(outputs, sample: int, query: int, task: int, box, label_id: int, score: float):
    outputs.logits[-1, sample, query] = -20.0
    outputs.logits[-1, sample, query, label_id] = float(np.log(score / (1 - score)))
    coded = encode_boxes(torch.tensor([box], dtype=torch.float32))[0]
    outputs.pred_boxes[-1, sample, task * outputs.logits.shape[2] + query] = coded


def test_boxes_are_read_from_the_last_layer_and_their_task():
    outputs = build_outputs()
    outputs.logits[-1] = -20
    put_box(outputs, 0, 4, 0, BOX, 1, 0.9)
    put_box(outputs, 0, 2, 1, [5.0, -6, 1, 0.8, 0.7, 1.8, -2, 1, 0.5], 2, 0.6)

    first, second = build_processor().post_process_object_detection_3d(outputs, threshold=0.5)

    assert first["labels"].tolist() == [1, 2]
    torch.testing.assert_close(first["scores"], torch.tensor([0.9, 0.6]))
    expected = torch.tensor([BOX, [5.0, -6, 1, 0.8, 0.7, 1.8, -2, 1, 0.5]])
    torch.testing.assert_close(first["boxes"], expected, atol=ATOL_FLOAT32, rtol=0)
    assert second["boxes"].shape == (0, 9)


def test_frame_and_height_are_chosen():
    outputs = build_outputs()
    processor, pose = build_processor(post_center_range=[-1e9] * 3 + [1e9] * 3), build_frame()["lidar2ego"]

    plain = processor.post_process_object_detection_3d(outputs)
    bottom = processor.post_process_object_detection_3d(outputs, bottom_center=True)
    ego = processor.post_process_object_detection_3d(outputs, frame="ego", lidar2ego=pose)
    each = processor.post_process_object_detection_3d(outputs, frame="ego", lidar2ego=[pose, np.eye(4)])

    boxes = plain[0]["boxes"]
    torch.testing.assert_close(bottom[0]["boxes"][:, 2], boxes[:, 2] - boxes[:, 5] / 2)
    expected = boxes[:, :3].double().numpy() @ pose[:3, :3].T + pose[:3, 3]
    np.testing.assert_allclose(ego[0]["boxes"][:, :3], expected, atol=ATOL_FLOAT32)
    speed = np.linalg.norm(boxes[:, 7:], axis=1)
    np.testing.assert_allclose(np.linalg.norm(ego[0]["boxes"][:, 7:], axis=1), speed, rtol=1e-5)
    turn = torch.remainder(ego[0]["boxes"][:, 6] - boxes[:, 6], 2 * torch.pi)
    torch.testing.assert_close(turn, torch.full_like(turn, 1.5 * np.pi + 0.01), atol=ATOL_FLOAT32, rtol=0)
    assert torch.equal(each[0]["boxes"], ego[0]["boxes"])
    torch.testing.assert_close(each[1]["boxes"][:, :3], plain[1]["boxes"][:, :3])


def test_number_of_boxes_is_limited():
    outputs = build_outputs()
    processor = build_processor(max_detections=5, post_center_range=[-1e9] * 3 + [1e9] * 3)

    counts = [
        len(processor.post_process_object_detection_3d(outputs, max_detections=number)[0]["boxes"])
        for number in (None, 3, 1000)
    ]

    assert counts == [5, 3, 6 * 3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"threshold": 30}, r"`threshold` must be in \[0, 1\], as scores are; got 30"),
        ({"threshold": float("nan")}, r"`threshold` must be in \[0, 1\], as scores are; got nan"),
        ({"max_detections": -3}, "`max_detections` must be at least 1, a whole number; got -3"),
        ({"max_detections": 2.5}, "`max_detections` must be at least 1, a whole number; got 2.5"),
        ({"frame": "world"}, r"`frame` must be one of \('lidar', 'ego'\); got 'world'"),
        ({"frame": "ego"}, "`lidar2ego` must be given for `frame='ego'` and only then"),
        ({"lidar2ego": np.eye(4)}, "`lidar2ego` must be given for `frame='ego'` and only then; got `frame='lidar'`"),
        ({"frame": "ego", "lidar2ego": 2 * np.eye(4)}, r"`lidar2ego` must have the last row"),
        ({"frame": "ego", "lidar2ego": [np.eye(4)]}, "`lidar2ego` must hold an entry for each of 2 frames; got 1"),
    ],
)
def test_refuses_to_post_process(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_processor().post_process_object_detection_3d(build_outputs(), **arguments)


def test_refuses_outputs_of_another_model():
    with pytest.raises(ValueError, match="must be those of a model with the classes of this processor"):
        build_processor(tasks=[["car", "truck"]]).post_process_object_detection_3d(build_outputs())


# --- Results of nuScenes


def build_detections(boxes, names, scores) -> list[dict[str, torch.Tensor]]:
    order = [name for task in CLASSES for name in task]
    return [
        {
            "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 9),
            "scores": torch.tensor(scores),
            "labels": torch.tensor([order.index(name) for name in names], dtype=torch.long),
        }
    ]


def to_results(detections, lidar2ego, ego2global=None):
    poses = (lidar2ego, np.eye(4) if ego2global is None else ego2global)
    return build_processor().to_nuscenes_results(detections, ["t"], *poses)


def rotate_by_quaternion(quaternion, vector) -> np.ndarray:
    """q v q* by Hamilton's product."""

    def multiply(a, b):
        return np.array([a[0] * b[0] - a[1:] @ b[1:], *(a[0] * b[1:] + b[0] * a[1:] + np.cross(a[1:], b[1:]))])

    quaternion = np.array(quaternion)
    conjugate = quaternion * [1, -1, -1, -1]
    return multiply(multiply(quaternion, np.array([0, *vector])), conjugate)[1:]


def test_results_are_in_the_global_frame_with_tilted_sensors():
    frame = build_frame()
    tilt = np.array([[1, 0, 0], [0, np.cos(0.05), -np.sin(0.05)], [0, np.sin(0.05), np.cos(0.05)]])
    lidar2ego = frame["lidar2ego"] @ build_pose(tilt, [0, 0, 0])
    box = [3.0, 4.0, -0.5, 4.0, 2.0, 1.5, 0.6, 3.0, 1.0]

    results = to_results(build_detections([box], ["car"], [0.75]), lidar2ego, frame["ego2global"])

    (answer,) = results["results"]["t"]
    pose = frame["ego2global"] @ lidar2ego
    np.testing.assert_allclose(answer["translation"], pose[:3, :3] @ box[:3] + pose[:3, 3], atol=ATOL_FLOAT32)
    np.testing.assert_allclose(answer["size"], [2.0, 4.0, 1.5], atol=ATOL_FLOAT32)
    heading = pose[:3, :3] @ [np.cos(0.6), np.sin(0.6), 0]
    np.testing.assert_allclose(rotate_by_quaternion(answer["rotation"], [1, 0, 0]), heading, atol=ATOL_FLOAT32)
    np.testing.assert_allclose(
        rotate_by_quaternion(answer["rotation"], [0, 0, 1]), pose[:3, :3] @ [0, 0, 1], atol=ATOL_FLOAT32
    )
    np.testing.assert_allclose(answer["velocity"], (pose[:3, :3] @ [3.0, 1.0, 0])[:2], atol=ATOL_FLOAT32)
    assert (answer["sample_token"], answer["detection_name"]) == ("t", "car")
    assert answer["detection_score"] == pytest.approx(0.75)
    assert results["meta"] == {
        "use_camera": True, "use_lidar": True, "use_radar": False, "use_map": False, "use_external": False,
    }  # fmt: skip
    json.dumps(results)


def test_boxes_beyond_the_range_of_their_class_are_left_out():
    boxes = [[x, 0.0, 0, 1, 1, 1, 0, 0, 0] for x in (49.0, 51.0, 39.0, 41.0)]
    lidar2ego = build_pose(np.eye(3), [0.5, 0, 40.0])  # distances are those from the vehicle, in the plane

    results = to_results(build_detections(boxes, ["car", "car", "pedestrian", "pedestrian"], [0.5] * 4), lidar2ego)

    assert [round(answer["translation"][0], 3) for answer in results["results"]["t"]] == [49.5, 39.5]


def test_best_500_boxes_stay_in_order():
    scores = torch.rand(600, generator=torch.Generator().manual_seed(0)).tolist()

    results = to_results(build_detections([BOX] * 600, ["car"] * 600, scores), np.eye(4))

    kept = [answer["detection_score"] for answer in results["results"]["t"]]
    np.testing.assert_allclose(kept, sorted(scores, reverse=True)[:500], rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "slow", "fast"),
    [
        ("car", "vehicle.parked", "vehicle.moving"),
        ("construction_vehicle", "vehicle.parked", "vehicle.moving"),
        ("truck", "vehicle.parked", "vehicle.moving"),
        ("trailer", "vehicle.parked", "vehicle.moving"),
        ("bus", "vehicle.stopped", "vehicle.moving"),
        ("pedestrian", "pedestrian.standing", "pedestrian.moving"),
        ("bicycle", "cycle.without_rider", "cycle.with_rider"),
        ("motorcycle", "cycle.without_rider", "cycle.with_rider"),
        ("barrier", "", ""),
        ("traffic_cone", "", ""),
    ],
)
def test_attributes_follow_class_and_speed(name, slow, fast):
    processor = build_processor(tasks=[[name]])
    boxes = torch.tensor([[*BOX[:7], 0.1, 0.17], [*BOX[:7], 0.12, 0.17]])  # 0.197 and 0.208 m/s
    detections = [{"boxes": boxes, "scores": torch.tensor([0.9, 0.8]), "labels": torch.zeros(2, dtype=torch.long)}]

    results = processor.to_nuscenes_results(detections, ["t"], np.eye(4), np.eye(4))

    assert [answer["attribute_name"] for answer in results["results"]["t"]] == [slow, fast]


def test_sample_without_boxes_has_an_empty_list():
    assert to_results(build_detections([], [], []), np.eye(4))["results"] == {"t": []}


def test_refuses_results_of_other_classes_and_repeated_tokens():
    detections = build_detections([BOX], ["car"], [0.5])

    with pytest.raises(ValueError, match="got 'cow'"):
        build_processor(tasks=[["cow"]]).to_nuscenes_results(detections, ["t"], np.eye(4), np.eye(4))
    with pytest.raises(ValueError, match="a different token for each of 2 samples"):
        build_processor().to_nuscenes_results(detections * 2, ["t", "t"], np.eye(4), np.eye(4))


# --- Settings


def test_processor_of_a_configuration_has_its_settings(tmp_path):
    config = tiny_config(box_slot_order="natural", max_detections=7)

    processor = CmtProcessor.from_config(config)
    processor.save_pretrained(tmp_path)
    loaded = CmtProcessor.from_pretrained(tmp_path)

    assert processor.class_names == [config.id2label[index] for index in range(config.num_labels)]
    assert processor.feature_extractor.voxel_size == list(config.lidar_backbone_config.voxel_size)
    assert (loaded.box_slot_order, loaded.max_detections) == ("natural", 7)
    assert loaded.to_dict() == processor.to_dict()


def test_part_given_at_loading_wins(tmp_path):
    build_processor().save_pretrained(tmp_path)

    loaded = CmtProcessor.from_pretrained(tmp_path, image_processor=CmtImageProcessor(size_divisor=8))

    assert loaded.image_processor.size_divisor == 8


def test_classes_without_tasks_are_those_of_the_labels():
    config = CmtConfig(tasks=None, id2label={0: "cat", 1: "dog"}, label2id={"cat": 0, "dog": 1})

    assert CmtProcessor.from_config(config).tasks == [["cat", "dog"]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"modality": "radar"}, "`modality` must be 'fusion', 'camera' or 'lidar'; got 'radar'"),
        ({"box_slot_order": "usual"}, r"`box_slot_order` must be one of \('official', 'natural'\); got 'usual'"),
        ({"max_detections": 0}, "`max_detections` must be at least 1, a whole number; got 0"),
        ({"max_detections": 2.5}, "`max_detections` must be at least 1, a whole number; got 2.5"),
        ({"post_center_range": [60, 60, 9, -60, -60, -9]}, "`post_center_range` must hold x, y, z of the nearest"),
        ({"post_center_range": [-60, -60, 60, 60]}, "`post_center_range` must hold .* 6 finite numbers"),
        ({"tasks": [["car"], ["car", "bus"]]}, "`tasks` must name each class once; got 'car' twice"),
        ({"tasks": [["car"], []]}, "`tasks` must hold at least one class each"),
    ],
)
def test_refuses_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        build_processor(**settings)
