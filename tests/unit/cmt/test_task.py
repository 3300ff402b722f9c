"""The task "object-detection-3d": what reaches the metric, and which scores come out."""

import logging

import numpy as np
import pytest
import torch

from decahub import CmtForObjectDetection3D
from decahub.data.driving_scenes import SceneSettings, build_dataset
from decahub.evaluation import evaluate_model
from decahub.metrics import load_metric
from decahub.tasks import get_task
from decahub.tasks.object_detection_3d import choose_attributes, read_reference
from tests.tiny.cmt import IMAGE_SIZE, tiny_config
from tests.tiny.cmt_frames import NUSCENES, build_processor


SETTINGS = SceneSettings(num_cameras=3, image_size=IMAGE_SIZE, num_azimuths=60, num_beams=8)


@pytest.fixture(scope="module")
def rows():
    return build_dataset(sizes={"test": 5}, settings=SETTINGS)["test"]


class Oracle:
    """A model and a processor that answer with what is annotated, but for what `change` does to it."""

    def __init__(self, config, change=lambda answer: answer):
        self.processor, self.config, self.change = build_processor(config), config, change
        self.model = CmtForObjectDetection3D(config).eval()
        self.frames = []

    def post_process_object_detection_3d(self, outputs):
        answers = []
        for frame in self.frames:
            is_seen = torch.tensor(frame["num_points"]) > 0  # the others do not count
            boxes = torch.as_tensor(np.nan_to_num(frame["boxes"]))[is_seen]
            labels, scores = torch.as_tensor(frame["labels"])[is_seen], torch.linspace(0.9, 0.1, len(boxes))
            answers.append(self.change({"boxes": boxes, "scores": scores, "labels": labels}))
        return answers


def predict(oracle, rows, batch_size=5):
    task = get_task("object-detection-3d")
    metric = task.build_metric()
    examples = [task.family.build_eval_transform(oracle.processor)(row) for row in rows]
    for start in range(0, len(examples), batch_size):
        batch = task.family.collate(examples[start : start + batch_size])
        oracle.frames = batch["frames"]
        with torch.no_grad():
            metric.add_batch(**task.predict(oracle.model, oracle, batch))
    return task.summarize(metric.compute(**task.get_metric_options(NUSCENES)), NUSCENES)


def test_annotated_boxes_have_full_scores_and_the_attributes_of_their_speed(rows):
    scores = predict(Oracle(tiny_config(tasks=[NUSCENES])), rows)

    assert scores["mean_ap"] == pytest.approx(1)
    assert next(iter(scores)) == "nds"
    assert all(scores[f"{name}_error"] == pytest.approx(0, abs=1e-6) for name in ("translation", "scale", "velocity"))
    assert {name for name in scores if name.startswith("ap_")} <= {f"ap_{name}" for name in NUSCENES}


def test_scores_do_not_depend_on_the_batches(rows):
    oracle = Oracle(tiny_config(tasks=[NUSCENES]), lambda answer: {**answer, "boxes": answer["boxes"] + 0.3})

    assert predict(oracle, rows, batch_size=2) == pytest.approx(predict(oracle, rows, batch_size=5))


def test_measures_a_model(rows):
    config = tiny_config(tasks=[NUSCENES])
    torch.manual_seed(0)
    model, processor = CmtForObjectDetection3D(config), build_processor(config)

    measurement = evaluate_model(model, processor, rows, "object-detection-3d", batch_size=2, show_progress=False)
    sample = evaluate_model(model, processor, rows, "object-detection-3d", batch_size=2, limit=3, show_progress=False)

    assert next(iter(measurement.scores)) == "nds"
    assert 0 <= measurement.scores["nds"] <= 1
    assert measurement.num_rows == 5
    assert sample.num_rows == 3


def test_names_the_classes_that_are_absent(rows, caplog):
    config = tiny_config(tasks=[NUSCENES])
    torch.manual_seed(0)
    model, processor = CmtForObjectDetection3D(config), build_processor(config)
    single = rows.select([0])
    present = {NUSCENES[label] for label in single[0]["labels"]}

    with caplog.at_level(logging.WARNING, logger="decahub"):
        measurement = evaluate_model(model, processor, single, "object-detection-3d", show_progress=False)

    assert {f"ap_{name}" for name in present} >= {name for name in measurement.scores if name.startswith("ap_")}
    assert "no frame has such a box in range" in caplog.text


def test_reference_leaves_out_what_is_unknown():
    boxes = np.zeros((2, 9), dtype=np.float32)
    names = ("num_points", "attributes", "bike_racks", "lidar2ego", "ego2global")
    unknown = {**dict.fromkeys(names), "num_points": [None, None]}
    known = {
        "num_points": [3, None],
        "attributes": ["vehicle.moving", None],
        "bike_racks": np.ones((1, 9)),
        "lidar2ego": np.eye(4),
        "ego2global": np.eye(4),
    }

    assert set(read_reference({"boxes": boxes, "labels": [0, 1], **unknown})) == {"boxes", "labels"}
    reference = read_reference({"boxes": boxes, "labels": [0, 1], **known})
    assert reference["num_points"] == [3, -1]
    assert reference["attributes"] == ["vehicle.moving", ""]
    assert {"bike_racks", "lidar2ego", "ego2global"} <= set(reference)


def test_attributes_follow_class_and_speed():
    boxes = np.zeros((5, 9))
    boxes[[0, 3], 7] = 3.0

    names = ["car", "car", "pedestrian", "bicycle", "tram"]

    assert choose_attributes(names, boxes) == [
        "vehicle.moving", "vehicle.parked", "pedestrian.standing", "cycle.with_rider", "",
    ]  # fmt: skip


@pytest.mark.parametrize(("is_sample", "expected"), [(False, 2e-3), (True, None)])
def test_a_sample_cannot_tell_the_scores_of_all(is_sample, expected):
    assert get_task("object-detection-3d").tolerance("nds", 0.5, 100, is_sample) == expected


def test_ranges_are_those_of_nuscenes():
    options = get_task("object-detection-3d").get_metric_options(["car", "tram"])
    far = [[51.0, 0, 0, 4, 2, 1.5, 0, 0, 0]]
    near = [[49.0, 0, 0, 4, 2, 1.5, 0, 0, 0]]
    references = [{"boxes": far + near + far, "labels": [0, 0, 1]}]
    predictions = [{"boxes": near + far, "labels": [0, 1], "scores": [0.5, 0.5]}]

    result = load_metric("nuscenes_detection").measure(predictions=predictions, references=references, **options)

    assert {name: values["num_references"] for name, values in result["by_class"].items()} == {"car": 1, "tram": 1}
