"""Measuring a model while sensors fail: what reaches the model, and the table."""

import pytest
import torch

from decahub import CmtForObjectDetection3D
from decahub.cli.main import main
from decahub.data.driving_scenes import SceneSettings, build_dataset
from decahub.evaluation import (
    build_failure_report,
    build_sensor_failures,
    evaluate_model,
    evaluate_sensor_failures,
    measure_sensor_failures,
    write_evaluation,
)
from decahub.evaluation.sensor_failures import find_missing
from decahub.models.cmt.frame_files import write_frame
from decahub.models.cmt.sensor_failures import CmtSensorDropout
from decahub.tasks import Measurement
from tests.tiny.cmt import IMAGE_SIZE, tiny_config
from tests.tiny.cmt_frames import NUSCENES, build_model_folder, build_processor, tiny_frame


SETTINGS = SceneSettings(num_cameras=3, image_size=IMAGE_SIZE, num_azimuths=60, num_beams=8)
CAMERAS = ["CAM_FRONT", "CAM_BACK_RIGHT", "CAM_BACK_LEFT"]


@pytest.fixture(scope="module")
def rows():
    return build_dataset(sizes={"test": 3}, settings=SETTINGS)["test"]


def build_model(modality="fusion", **overrides):
    config = tiny_config(modality, tasks=[NUSCENES], **overrides)
    torch.manual_seed(0)
    return CmtForObjectDetection3D(config).eval(), build_processor(config)


def record_inputs(model):
    """Inputs of each forward pass."""
    calls = []
    model.register_forward_pre_hook(lambda module, args, kwargs: calls.append(kwargs), with_kwargs=True)
    return calls


def test_first_row_is_the_intact_model(rows):
    model, processor = build_model()
    failures = {"none": CmtSensorDropout(), "no LiDAR": CmtSensorDropout(is_lidar_missing=True)}

    measurements = measure_sensor_failures(model, processor, rows, failures, batch_size=2, show_progress=False)

    intact = evaluate_model(model, processor, rows, "object-detection-3d", batch_size=2, show_progress=False)
    assert measurements["none"].scores == intact.scores
    assert list(measurements) == list(failures)
    assert measurements["no LiDAR"].num_rows == 3


@pytest.mark.parametrize(
    ("failure", "mask", "absent"),
    [
        (CmtSensorDropout(is_lidar_missing=True), [True, False], "voxels"),
        (CmtSensorDropout(missing_cameras=tuple(CAMERAS)), [False, True], "pixel_values"),
    ],
    ids=["no LiDAR", "no cameras"],
)
def test_a_missing_sensor_is_masked_or_left_out_as_the_configuration_says(rows, failure, mask, absent):
    for missing_modality in ("zero", "drop"):
        model, processor = build_model(missing_modality=missing_modality)
        calls = record_inputs(model)

        measure_sensor_failures(model, processor, rows, {"failure": failure}, batch_size=2, show_progress=False)

        if missing_modality == "zero":
            assert calls[0]["modality_mask"].tolist() == [mask, mask]
            assert absent in calls[0]
        else:
            assert "modality_mask" not in calls[0]
            assert absent not in calls[0]


def test_a_missing_camera_is_left_out(rows):
    model, processor = build_model()
    calls = record_inputs(model)
    failure = CmtSensorDropout(missing_cameras=(CAMERAS[1],))

    measure_sensor_failures(model, processor, rows, {"failure": failure}, batch_size=3, show_progress=False)

    assert calls[0]["pixel_values"].shape[:2] == (3, 2)
    assert calls[0]["lidar2img"].dtype == torch.float64


def test_errors_of_calibration_differ_between_frames_and_not_between_batch_sizes(rows):
    seen = []
    for batch_size in (1, 3):
        model, processor = build_model()
        calls = record_inputs(model)
        failure = {"failure": CmtSensorDropout(rotation_error=5.0)}
        measure_sensor_failures(model, processor, rows, failure, batch_size=batch_size, show_progress=False)
        seen.append(torch.cat([call["lidar2img"] for call in calls]))

    assert torch.equal(*seen)
    assert not torch.allclose(seen[0][0], seen[0][1])


@pytest.mark.parametrize(
    ("modality", "present", "absent"),
    [
        ("fusion", ["no LiDAR", "no cameras", "no CAM_FRONT", "16 of 32 beams", "cameras turned by 1°"], []),
        ("camera", ["no CAM_FRONT", "cameras shifted by 0.2 m"], ["no LiDAR", "no cameras", "16 of 32 beams"]),
        ("lidar", ["16 of 32 beams", "LiDAR sees 180°"], ["no LiDAR", "no CAM_FRONT", "cameras turned by 1°"]),
    ],
)
def test_failures_are_those_that_a_model_can_have(modality, present, absent):
    failures = build_sensor_failures(CAMERAS, modality)

    assert next(iter(failures)) == "none"
    assert set(present) <= set(failures)
    assert not set(absent) & set(failures)


@pytest.mark.parametrize("modality", ["camera", "lidar"])
def test_measures_models_of_one_sensor(rows, modality):
    model, processor = build_model(modality)

    measurements = measure_sensor_failures(
        model, processor, rows, build_sensor_failures(CAMERAS, modality), show_progress=False
    )

    assert all(0 <= measurement.scores["nds"] <= 1 for measurement in measurements.values())


def test_missing_kinds():
    frame = {"cameras": CAMERAS}

    assert find_missing(frame, CmtSensorDropout()) == ()
    assert find_missing(frame, CmtSensorDropout(missing_cameras=tuple(CAMERAS[:2]))) == ()
    everything = CmtSensorDropout(missing_cameras=tuple(CAMERAS), is_lidar_missing=True)
    assert find_missing(frame, everything) == ("cameras", "lidar")


def test_table_compares_with_the_first_row():
    measurements = {
        "none": Measurement({"nds": 0.8, "mean_ap": 0.7}, 9),
        "no LiDAR": Measurement({"nds": 0.2, "mean_ap": 0.1}, 9),
    }

    report = build_failure_report(measurements)

    assert report.rows == [("none", 0.8, 0.7, 1.0), ("no LiDAR", 0.2, 0.1, pytest.approx(0.25))]
    assert report.columns[0] == "failure"


def test_refuses_nothing_to_measure(rows):
    model, processor = build_model()

    with pytest.raises(ValueError, match="`dataset` and `failures` must not be empty; got 3 frames, 0"):
        measure_sensor_failures(model, processor, rows, {})
    with pytest.raises(ValueError, match="`missing_cameras` must name cameras of the frame, .*; got 'CAM_UP'"):
        measure_sensor_failures(
            model, processor, rows, {"a": CmtSensorDropout(missing_cameras=("CAM_UP",))}, show_progress=False
        )


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A model that was never measured, and frames of the user's own."""
    root = tmp_path_factory.mktemp("failures")
    for index in range(2):
        write_frame(root / "frames" / "test" / f"{index}.json", tiny_frame(index), NUSCENES)
    return build_model_folder(root / "model"), root / "frames"


def test_the_command_prints_the_table_of_a_folder(folders, capsys):
    model, frames = folders

    assert main(["evaluate", str(model), "--dataset", str(frames), "--sensor-failures", "--beams", "8"]) == 0

    title, header, _, *rows = capsys.readouterr().out.splitlines()
    assert title == "frames, test split, n = 2"
    assert header.split() == ["failure", "nds", "mean_ap", "share", "of", "nds"]
    report = evaluate_sensor_failures(model, dataset=frames, num_sensor_beams=8, show_progress=False)
    assert [row.split("  ")[0] for row in rows] == [name for name, *_ in report.rows]
    assert {"none", "no LiDAR", "no cameras", "no CAM_FRONT", "1 of 8 beams"} <= {name for name, *_ in report.rows}


def test_a_limit_takes_fewer_frames(folders):
    model, frames = folders

    report = evaluate_sensor_failures(model, limit=1, dataset=frames, num_sensor_beams=8, show_progress=False)

    assert report.title == "frames, test split, n = 1"


def test_refuses_a_model_of_another_task(tmp_path):
    write_evaluation(
        tmp_path, {"accuracy": 0.5}, task="image-classification", dataset="mine", split="test", num_rows=2
    )

    with pytest.raises(ValueError, match="must hold a model for object-detection-3d; .* for image-classification"):
        evaluate_sensor_failures(tmp_path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--beams", "8"), "`--beams` must come with `--sensor-failures`"),
        (("--sensor-failures", "--beams", "0"), "`num_sensor_beams` must be at least 1; got 0"),
        (("--sensor-failures", "--task", "image-classification"), "`--task` must not come with `--sensor-failures`"),
    ],
)
def test_the_command_refuses(folders, words, message, capsys):
    model, frames = folders

    assert main(["evaluate", str(model), "--dataset", str(frames), *words]) == 2

    assert message in capsys.readouterr().err
