"""The pipeline "object-detection-3d": frames in every form, missing sensors, drawings, and clear errors."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import pipeline

from decahub import ObjectDetection3DPipeline
from decahub.models.cmt.boxes.geometry import find_forward_angle, transform_boxes
from decahub.models.cmt.drawing.sheet import draw_frame
from decahub.models.cmt.frame_files import write_frame
from decahub.pipelines.object_detection_3d import compute_projections
from tests.tiny.cmt_frames import NUSCENES, build_model_folder, tiny_frame


ATOL = 1e-5  # single and double precision of a pose
SENSOR_KEYS = ("images", "cameras", "intrinsics", "lidar2cam", "points")


@pytest.fixture(scope="module")
def detect(tmp_path_factory):
    return pipeline("object-detection-3d", model=str(build_model_folder(tmp_path_factory.mktemp("cmt"))))


@pytest.fixture(scope="module")
def frame():
    row = tiny_frame()
    return {name: row[name] for name in SENSOR_KEYS} | {"lidar2ego": row["lidar2ego"]}


def run_model(detect, frame, **options):
    """What the processor and the model give without a pipeline."""
    inputs = {name: frame[name] for name in SENSOR_KEYS if name in frame}
    with torch.no_grad():
        outputs = detect.model(**detect.processor(**inputs, return_tensors="pt"))
    return detect.processor.post_process_object_detection_3d(outputs, **options)[0]


def get_boxes(answers):
    return torch.tensor([[*answer["box"].values(), *answer["velocity"]] for answer in answers])


def test_answers_are_those_of_the_model(detect, frame):
    expected = run_model(detect, frame)

    answers = detect(frame)

    assert isinstance(detect, ObjectDetection3DPipeline)
    assert len(answers) == len(expected["scores"]) > 1
    assert [answer["label"] for answer in answers] == [NUSCENES[label] for label in expected["labels"].tolist()]
    assert [answer["score"] for answer in answers] == expected["scores"].tolist()
    torch.testing.assert_close(get_boxes(answers), expected["boxes"])
    assert list(answers[0]["box"]) == ["x", "y", "z", "length", "width", "height", "yaw"]
    assert json.loads(json.dumps(answers)) == answers


def test_threshold_and_top_k_keep_the_best(detect, frame):
    answers = detect(frame)
    threshold = answers[3]["score"]

    assert detect(frame, top_k=3) == answers[:3]
    assert detect(frame, threshold=threshold) == [answer for answer in answers if answer["score"] > threshold]
    assert detect(frame, threshold=1.0) == []


def test_boxes_in_the_frame_of_the_vehicle(detect, frame):
    in_lidar, in_ego = get_boxes(detect(frame)), get_boxes(detect(frame, frame="ego"))

    expected = transform_boxes(in_lidar.double(), torch.as_tensor(np.asarray(frame["lidar2ego"])))
    torch.testing.assert_close(in_ego.double(), expected, atol=ATOL, rtol=ATOL)


def test_a_list_is_answered_one_by_one(detect, frame):
    other = {name: tiny_frame(seed=1)[name] for name in SENSOR_KEYS}

    assert detect([frame, other], top_k=4) == [detect(frame, top_k=4), detect(other, top_k=4)]


def test_takes_rows_and_tables(detect, frame, tmp_path):
    row = tiny_frame()
    path = write_frame(tmp_path / "frame.json", row, NUSCENES)

    assert detect(row) == detect(frame)
    assert detect(path) == detect(str(path)) == detect(frame)


def test_takes_images_and_points_in_other_forms(detect, frame, tmp_path):
    paths = [tmp_path / f"{index}.png" for index in range(len(frame["images"]))]
    for path, image in zip(paths, frame["images"], strict=True):
        image.save(path)
    points = np.asarray(frame["points"], dtype=np.float32)
    np.save(tmp_path / "points.npy", points)
    points.tofile(tmp_path / "points.bin")
    expected = detect(frame)

    assert detect({**frame, "images": [str(path) for path in paths]}) == expected
    assert detect({**frame, "images": [np.array(image) for image in frame["images"]]}) == expected
    assert detect({**frame, "points": tmp_path / "points.npy"}) == expected
    assert detect({**frame, "points": str(tmp_path / "points.bin")}) == expected


def test_takes_projections_or_mountings_in_place_of_poses(detect, frame):
    plain = {name: value for name, value in frame.items() if name not in ("intrinsics", "lidar2cam")}
    lidar2ego = np.asarray(frame["lidar2ego"], dtype=np.float64)
    cam2ego = [lidar2ego @ np.linalg.inv(np.asarray(matrix)) for matrix in frame["lidar2cam"]]
    expected = get_boxes(detect(frame))

    projected = detect({**plain, "lidar2img": compute_projections(frame)})
    mounted = detect({**plain, "intrinsics": frame["intrinsics"], "cam2ego": cam2ego})

    torch.testing.assert_close(get_boxes(projected), expected, atol=ATOL, rtol=ATOL)
    torch.testing.assert_close(get_boxes(mounted), expected, atol=ATOL, rtol=ATOL)


def leave(frame, cameras=True, points=True):
    kept = {name: value for name, value in frame.items() if cameras or name in ("points", "lidar2ego")}
    return {name: value for name, value in kept.items() if points or name != "points"}


def test_sensors_may_be_missing(detect, frame):
    without_points, without_cameras = leave(frame, points=False), leave(frame, cameras=False)

    assert detect(frame, missing=["lidar"]) == detect(without_points) == detect({**frame, "points": None})
    assert detect({**frame, "images": None}) == detect({**frame, "images": [None] * 3}) == detect(without_cameras)
    assert detect(without_points) != detect(frame) != detect(without_cameras)


@pytest.mark.parametrize("missing_modality", ["zero", "drop"])
@pytest.mark.parametrize(("sensor", "mask"), [("lidar", [True, False]), ("cameras", [False, True])])
def test_a_missing_sensor_is_as_the_configuration_says(frame, tmp_path, missing_modality, sensor, mask):
    folder = build_model_folder(tmp_path, missing_modality=missing_modality)
    detect = pipeline("object-detection-3d", model=str(folder))
    inputs = {name: frame[name] for name in SENSOR_KEYS}
    with torch.no_grad():
        batch = detect.processor(**inputs, return_tensors="pt")
        outputs = detect.model(**batch, modality_mask=torch.tensor([mask]))
    expected = detect.processor.post_process_object_detection_3d(outputs)[0]

    answers = detect(frame, missing=[sensor])

    torch.testing.assert_close(get_boxes(answers), expected["boxes"])


def test_any_camera_may_be_missing(detect, frame):
    rest = {name: [frame[name][index] for index in (0, 2)] for name in SENSOR_KEYS[:-1]}
    failed = [frame["images"][0], None, frame["images"][2]]
    expected = detect({**frame, **rest})

    assert detect(frame, missing=[frame["cameras"][1]]) == expected
    assert detect({**frame, "images": failed}) == expected
    unnamed = {name: value for name, value in frame.items() if name != "cameras"}
    assert detect(unnamed, missing=["camera 1"]) == expected
    assert detect(frame, missing=list(frame["cameras"])) == detect(frame, missing=["cameras"])
    assert detect(frame, missing=["cameras"]) != expected


@pytest.mark.parametrize(("modality", "missing"), [("camera", "lidar"), ("lidar", "cameras")])
def test_a_model_of_one_sensor_leaves_the_other_aside(modality, missing, frame, tmp_path):
    detect = pipeline("object-detection-3d", model=str(build_model_folder(tmp_path, modality)))

    answers = detect(frame)

    assert answers == detect(frame, missing=[missing])
    assert answers == detect(leave(frame, cameras=modality == "camera", points=modality == "lidar"))
    with pytest.raises(ValueError, match="`inputs` must hold `images` or `points`, whichever the model takes; got"):
        detect(leave(frame, cameras=modality != "camera", points=modality != "lidar"))


def test_drawing_shows_the_boxes(detect, frame):
    answer = detect(frame, top_k=5, draw=True)

    found = run_model(detect, frame)
    sheet = draw_frame(
        found["boxes"][:5].double().numpy(),
        found["labels"][:5].tolist(),
        NUSCENES,
        found["scores"][:5].tolist(),
        images=frame["images"],
        lidar2img=compute_projections(frame),
        cameras=frame["cameras"],
        points=np.asarray(frame["points"]),
        forward_angle=find_forward_angle(frame["lidar2ego"]),
    )
    assert answer["boxes"] == detect(frame, top_k=5)
    assert np.array_equal(np.array(Image.open(io.BytesIO(answer["png"]))), np.array(sheet))


def test_drawing_is_in_the_frame_of_the_sensors(detect, frame):
    assert detect(frame, frame="ego", draw=True)["png"] == detect(frame, draw=True)["png"]


def test_drawing_does_not_depend_on_the_form_of_images(detect, frame, tmp_path):
    expected = detect(frame, draw=True, top_k=2)["png"]
    arrays = [np.array(image) for image in frame["images"]]
    tensors = [torch.from_numpy(array).permute(2, 0, 1) for array in arrays]

    for images in (arrays, tensors, [array.astype(np.float32) / 255 for array in arrays]):
        assert detect({**frame, "images": images}, draw=True, top_k=2)["png"] == expected


def test_drawing_shows_annotations_on_request(detect, frame):
    row = tiny_frame()

    assert detect(row, draw=True)["png"] == detect(frame, draw=True)["png"]
    assert detect(row, draw=True, draw_annotations=True)["png"] != detect(row, draw=True)["png"]
    with pytest.raises(ValueError, match="`boxes` must be in the input for `draw_annotations`"):
        detect(frame, draw=True, draw_annotations=True)


def test_model_in_another_precision_answers(detect, frame):
    double = pipeline("object-detection-3d", model=detect.model.double(), processor=detect.processor)
    try:
        answers = get_boxes(double(frame))
    finally:
        detect.model.float()

    torch.testing.assert_close(answers, get_boxes(detect(frame)), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("change", "options", "error", "message"),
    [
        ({}, {"threshold": 2}, ValueError, r"`threshold` must be in \[0, 1\]; got 2"),
        ({}, {"top_k": 0}, ValueError, "`top_k` must be a whole number of at least 1, or None; got 0"),
        ({}, {"frame": "global"}, ValueError, "`frame` must be one of lidar, ego; got 'global'"),
        ({}, {"missing": "lidar"}, TypeError, r"`missing` must be a list of sensors; got 'lidar'. Write `missing=\["),
        (
            {},
            {"missing": ["radar"]},
            ValueError,
            "`missing` must name sensors of the frame: lidar, .*'radar'",
        ),
        ({}, {"missing": ["lidar", "cameras"]}, ValueError, "`missing` must leave a sensor .*'cameras'"),
        ({"images": None, "points": None}, {}, ValueError, "whichever the model takes; got neither"),
        ({}, {"batch_size": 2}, ValueError, "`batch_size` must be 1 for frames, whose sensors may differ; got 2"),
        ({}, {"score": 0.5}, TypeError, "score"),
        ({"lidar2ego": None}, {"frame": "ego"}, ValueError, "`lidar2ego` must be in the input for `frame='ego'`"),
        ({"image": []}, {}, ValueError, "`inputs` must have keys of images, cameras, .*; got 'image'"),
        ({"intrinsics": [np.eye(3)]}, {}, ValueError, "`intrinsics` must have an entry for each of 3 images; got 1"),
    ],
)
def test_refuses(detect, frame, change, options, error, message):
    with pytest.raises(error, match=message):
        detect({**frame, **change}, **options)


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ([], ValueError, "`inputs` must hold at least one frame; got an empty list"),
        ("nowhere.json", FileNotFoundError, "'nowhere.json' does not exist"),
        (7, TypeError, "`inputs` must be a dict or the path of a JSON table; got int"),
    ],
)
def test_refuses_what_is_no_frame(detect, inputs, error, message):
    with pytest.raises(error, match=message):
        detect(inputs)
