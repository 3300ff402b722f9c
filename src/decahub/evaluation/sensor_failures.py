"""How a 3D detector does when sensors fail: one measurement for each failure, and one table of them.

[`evaluate_sensor_failures`] does it for a model folder, with the usual failures. Your own failures are
[`~decahub.models.cmt.sensor_failures.CmtSensorDropout`] by a name:

```python
failures = build_sensor_failures(["CAM_FRONT", "CAM_BACK"])
measurements = measure_sensor_failures(model, processor, dataset, failures)
report = build_failure_report(measurements)
```
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from decahub.data.frames import decode_row
from decahub.data.label_names import read_label_names
from decahub.environment import shorten_path
from decahub.models.cmt.sensor_failures import NUM_SENSOR_BEAMS, CmtSensorDropout
from decahub.tasks import Measurement, get_task
from decahub.tasks.measurement import Report
from decahub.tasks.task import evaluating, move_to_model

from .folder import check_limit, load_folder_data
from .record import EVALUATION_FILE, read_evaluation


TASK = "object-detection-3d"
INTACT = "none"
SHOWN = ("nds", "mean_ap")


def evaluate_sensor_failures(
    folder: str | os.PathLike,
    data_dir: str | os.PathLike | None = None,
    limit: int | None = None,
    *,
    dataset: str | os.PathLike | None = None,
    split: str | None = None,
    num_sensor_beams: int = NUM_SENSOR_BEAMS,
    batch_size: int = 4,
    show_progress: bool = True,
) -> Report:
    """Load a model folder and measure it under each failure of [`build_sensor_failures`].

    Args:
        folder (`str` or path): Holds the model, its processor and, unless `dataset` is given, `evaluation.json`.
        data_dir (`str` or path, *optional*): Directory of the datasets; by default `$DECAHUB_DATA_DIR`.
        limit (`int`, *optional*): Measure a sample of this many frames.
        dataset (`str` or path, *optional*): Name in the catalog or folder of your own frames; by default the dataset
            of `evaluation.json`.
        split (`str`, *optional*): As in [`evaluate_folder`].
        num_sensor_beams (`int`, *optional*, defaults to 32): Beams of the LiDAR that recorded the frames.
        batch_size (`int`, *optional*, defaults to 4): Frames per forward pass.
        show_progress (`bool`, *optional*, defaults to `True`): Whether to show a progress bar.

    Returns:
        [`~decahub.tasks.measurement.Report`]: a row for each failure, the intact sensors first.

    Raises:
        FileNotFoundError: If the folder has no `evaluation.json` and no `dataset` is given, or the data is absent.
        ValueError: If the model is not a 3D detector, the split does not exist, or `limit` is less than 1.
    """
    check_limit(limit)
    measured = read_evaluation(folder).get("task") if Path(folder, EVALUATION_FILE).is_file() else TASK
    if measured != TASK:
        raise ValueError(f"`folder` must hold a model for {TASK}; {str(folder)!r} holds one for {measured}.")
    data = load_folder_data(folder, data_dir, dataset=dataset, split=split, task=TASK)
    model, processor = data.task.load(folder)
    rows = data.task.sample_rows(data.rows, limit)
    failures = build_sensor_failures(rows[0]["cameras"], model.config.modality, num_sensor_beams)
    measurements = measure_sensor_failures(
        model, processor, rows, failures, batch_size=batch_size, show_progress=show_progress
    )
    return build_failure_report(measurements, f"{shorten_path(data.dataset)}, {data.split} split, n = {len(rows)}")


def build_sensor_failures(
    cameras: Sequence[str],
    modality: str = "fusion",
    num_sensor_beams: int = NUM_SENSOR_BEAMS,
    *,
    beam_shares: Sequence[int] = (2, 4, 8),
    fields_of_view: Sequence[float] = (180.0, 120.0),
    rotation_errors: Sequence[float] = (1.0, 3.0),
    translation_errors: Sequence[float] = (0.2,),
) -> dict[str, CmtSensorDropout]:
    """The failures of a table by their names; the first, "none", leaves all sensors intact.

    Args:
        cameras (`Sequence[str]`): Names of the cameras, of which each is missing once.
        modality (`str`, *optional*, defaults to `"fusion"`): Sensors of the model: `"fusion"`, `"camera"`, `"lidar"`.
        num_sensor_beams (`int`, *optional*, defaults to 32): Beams of the LiDAR.
        beam_shares (`Sequence[int]`): Every second, fourth, ... beam works.
        fields_of_view (`Sequence[float]`): Degrees that the LiDAR sees, ahead.
        rotation_errors (`Sequence[float]`): Degrees by which each camera is turned from its calibration.
        translation_errors (`Sequence[float]`): Meters by which it is shifted.
    """
    failures = {INTACT: CmtSensorDropout()}
    has_camera, has_lidar = modality != "lidar", modality != "camera"
    if has_camera and has_lidar:
        failures["no LiDAR"] = CmtSensorDropout(is_lidar_missing=True)
        failures["no cameras"] = CmtSensorDropout(missing_cameras=tuple(cameras))
    if has_camera and len(cameras) > 1:
        failures |= {f"no {name}": CmtSensorDropout(missing_cameras=(name,)) for name in cameras}
    if has_lidar:
        for share in beam_shares:
            num_beams = max(1, num_sensor_beams // share)
            failures[f"{num_beams} of {num_sensor_beams} beams"] = CmtSensorDropout(
                num_beams=num_beams, num_sensor_beams=num_sensor_beams
            )
        failures |= {f"LiDAR sees {angle:g}°": CmtSensorDropout(field_of_view=angle) for angle in fields_of_view}
    if has_camera:
        failures |= {
            f"cameras turned by {angle:g}°": CmtSensorDropout(rotation_error=angle) for angle in rotation_errors
        } | {
            f"cameras shifted by {meters:g} m": CmtSensorDropout(translation_error=meters)
            for meters in translation_errors
        }
    return failures


def measure_sensor_failures(
    model: PreTrainedModel,
    processor: Any,
    dataset: Any,
    failures: Mapping[str, CmtSensorDropout],
    *,
    batch_size: int = 4,
    show_progress: bool = True,
) -> dict[str, Measurement]:
    """Measure a model under each failure, on the same frames.

    A sensor that is missing altogether is shown to the model as its configuration says: as zeros, which it saw in
    training (`missing_modality="zero"`), or not at all (`"drop"`). A single camera that is missing is left out.

    Args:
        model (`PreTrainedModel`): On any device, in any precision; it gets its modes back.
        processor ([`CmtProcessor`]): Of the model.
        dataset (`datasets.Dataset`): One split of the family `object-detection-3d`.
        failures (`Mapping[str, CmtSensorDropout]`): What fails, by name ([`build_sensor_failures`]).
        batch_size (`int`, *optional*, defaults to 4): Frames per forward pass.
        show_progress (`bool`, *optional*, defaults to `True`): Whether to show a progress bar.

    Returns:
        `dict[str, Measurement]`: by the names of `failures`; scores as of [`evaluate_model`].

    Raises:
        ValueError: If there is no frame or no failure, or a failure names a camera that a frame does not have.
    """
    if not len(dataset) or not failures:
        raise ValueError(f"`dataset` and `failures` must not be empty; got {len(dataset)} frames, {len(failures)}.")
    task: Any = get_task(TASK)
    names = task.check_labels(model, read_label_names(dataset))
    transform = task.family.build_eval_transform(processor)
    metrics = {name: task.build_metric() for name in failures}
    starts = range(0, len(dataset), batch_size)
    with evaluating(model):
        for start in tqdm(starts, desc="Failing sensors", disable=not show_progress, leave=False):
            indices = range(start, min(start + batch_size, len(dataset)))
            frames = [decode_row(dataset[index]) for index in indices]
            for name, failure in failures.items():
                batch = build_failed_batch(frames, indices, failure, transform, task.family.collate, model.config)
                columns = task.predict(model, processor, move_to_model(batch, model, task.exact_inputs))
                metrics[name].add_batch(**columns)
    options = task.get_metric_options(names)
    measurements = {
        name: task.build_measurement(metric.compute(**options), names, len(dataset))
        for name, metric in metrics.items()
    }
    task.warn_of_absent_classes(next(iter(measurements.values())), names)
    return measurements


def build_failed_batch(
    frames: Sequence[Mapping[str, Any]],
    indices: Iterable[int],
    failure: CmtSensorDropout,
    transform: Any,
    collate: Any,
    config: Any,
) -> dict[str, Any]:
    """Inputs of a model for frames with failed sensors."""
    is_zeroed = config.modality == "fusion" and config.missing_modality == "zero"
    examples, works = [], []
    for frame, index in zip(frames, indices, strict=True):
        masked = find_missing(frame, failure) if is_zeroed else ()
        shown = replace(
            failure,
            missing_cameras=() if "cameras" in masked else failure.missing_cameras,
            is_lidar_missing=failure.is_lidar_missing and "lidar" not in masked,
        )
        examples.append(transform(shown(frame, index)))
        works.append(["cameras" not in masked, "lidar" not in masked])
    batch = collate(examples)
    sensors = torch.tensor(works) & batch.get("modality_mask", torch.tensor(True))
    return batch if sensors.all() else {**batch, "modality_mask": sensors}


def find_missing(frame: Mapping[str, Any], failure: CmtSensorDropout) -> tuple[str, ...]:
    """The kinds of sensors that a failure takes away altogether: "cameras", "lidar"."""
    missing = ("cameras",) if set(frame["cameras"]) and set(frame["cameras"]) <= set(failure.missing_cameras) else ()
    return (*missing, "lidar") if failure.is_lidar_missing else missing


def build_failure_report(measurements: Mapping[str, Measurement], title: str = "Sensor failures") -> Report:
    """One table: the headline scores under each failure, and the share of the first row's NDS that is left."""
    first = next(iter(measurements.values())).scores["nds"]
    rows = [
        (name, *(measurement.scores[score] for score in SHOWN), measurement.scores["nds"] / first if first else 0.0)
        for name, measurement in measurements.items()
    ]
    return Report(title, ("failure", *SHOWN, "share of nds"), rows)


__all__ = [
    "build_failure_report",
    "build_sensor_failures",
    "evaluate_sensor_failures",
    "find_missing",
    "measure_sensor_failures",
]
