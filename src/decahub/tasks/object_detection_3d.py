"""3D object detection: NDS and mean average precision of nuScenes, and boxes in frames of cameras and LiDAR."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .measurement import Measurement, MeasurementContext, Scores
from .output_files import OutputFiles
from .task import Task


logger = logging.getLogger(__name__)

THRESHOLD = 0.3  # score from which on `decahub predict` shows boxes
MIN_POINTS = 1  # LiDAR or radar points of an annotated box that counts
NOT_FOR_MODEL = ("labels", "frames")
ERRORS = ("translation_error", "scale_error", "orientation_error", "velocity_error", "attribute_error")
POSES = ("lidar2ego", "ego2global")


class ObjectDetection3D(Task):
    """Boxes with class, size, heading and velocity; examples are frames."""

    columns = ("frame", "class", "score", "x", "y", "z", "length", "width", "height", "yaw", "vx", "vy", "drawing")
    input_kind = "a JSON table of a frame, or a folder with some"
    exact_inputs = ("lidar2img",)

    # Measuring

    def predict(self, model: Any, processor: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
        outputs = model(**{name: value for name, value in batch.items() if name not in NOT_FOR_MODEL})
        answers = processor.post_process_object_detection_3d(outputs)
        references = [read_reference(frame) for frame in batch["frames"]]
        predictions = []
        for answer, reference in zip(answers, references, strict=True):
            prediction = {name: values.float().cpu().numpy() for name, values in answer.items()}
            if "attributes" in reference:
                names = [model.config.id2label[label] for label in answer["labels"].tolist()]
                prediction["attributes"] = choose_attributes(names, prediction["boxes"])
            predictions.append(prediction)
        return {"predictions": predictions, "references": references}

    def measure(self, model: Any, processor: Any, rows: Any, context: MeasurementContext) -> Measurement:
        """As [`Task.measure`]; a warning names the classes that no measured frame has."""
        measurement = super().measure(model, processor, rows, context)
        self.warn_of_absent_classes(measurement, self.check_labels(model, context.label_names))
        return measurement

    def warn_of_absent_classes(self, measurement: Measurement, label_names: Sequence[str]) -> None:
        """Log the classes without a box that counts, in range and with a LiDAR or radar point."""
        absent = [name for name in label_names if f"ap_{name}" not in measurement.scores]
        if absent:
            logger.warning(
                f"The means leave out {', '.join(absent)}: no frame has such a box in range with a point on it."
            )

    def get_metric_options(self, label_names: Sequence[str]) -> dict[str, Any]:
        return {
            "label_names": list(label_names),
            "class_ranges": "nuscenes",
            "min_points": MIN_POINTS,
            "skip_absent_classes": True,
        }

    def summarize(self, result: Mapping[str, Any], label_names: Sequence[str]) -> Scores:
        scores = {name: result[name] for name in ("nds", "mean_ap", *ERRORS) if name in result}
        return scores | {f"ap_{name}": scores["ap"] for name, scores in result["by_class"].items()}

    # Cards

    def usage(self, facts: Any, remote: bool, trust: str) -> str:
        if remote:
            return REMOTE_USAGE.replace("MODEL", facts.model_id).replace("CLASS", facts.class_reference)
        return (
            "from transformers import pipeline\n\n"
            f'detect = pipeline("{self.name}", model="{facts.model_id}"{trust})\n'
            'for box in detect("frame.json", threshold=0.3):\n'
            '    print(box["label"], box["score"], box["box"], box["velocity"])'
        )

    def describe_measurement(self, dataset: Mapping[str, Any]) -> str:
        return (
            "Scores are those of nuScenes: boxes with a LiDAR or radar point, up to 30, 40 or 50 m by class. Classes "
            "that the split lacks are left out, and so are errors that it does not define."
        )

    # The command line

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument(
            "--threshold", type=float, default=THRESHOLD, help=f"lowest score of a box (default: {THRESHOLD})"
        )
        parser.add_argument("--top-k", type=int, help="most boxes of a frame; by default all above the threshold")
        parser.add_argument(
            "--frame", choices=("lidar", "ego"), default="lidar", help="axes of the boxes (default: lidar)"
        )
        parser.add_argument(
            "--without",
            nargs="+",
            default=(),
            metavar="SENSOR",
            help="sensors to leave out: lidar, cameras, or names of cameras such as CAM_BACK",
        )
        parser.add_argument("--annotations", action="store_true", help="draw the annotated boxes of a frame, too")

    def list_inputs(self, arguments: Any) -> list[Any]:
        """As [`Task.list_inputs`], with the JSON files in a folder, and in those below it, in place of the folder."""
        if not 0 <= arguments.threshold <= 1:
            raise ValueError(f"`--threshold` must be in [0, 1]; got {arguments.threshold}.")
        if arguments.top_k is not None and arguments.top_k < 1:
            raise ValueError(f"`--top-k` must be at least 1; got {arguments.top_k}.")
        inputs: list[str] = []
        for name in arguments.inputs:
            found = [name]
            if Path(name).is_dir():
                found = [str(path) for path in sorted(Path(name).rglob("*.json"))]
                if not found:
                    raise FileNotFoundError(f"`INPUT` must be {self.input_kind}; {name!r} holds none.")
            inputs += found
        arguments.inputs = inputs
        return super().list_inputs(arguments)

    def answer(self, predictor: Any, item: Any, arguments: Any, files: OutputFiles) -> list[Sequence[Any]]:
        target = files.choose(item, "_boxes.png")
        found = predictor(
            str(item),
            threshold=arguments.threshold,
            top_k=arguments.top_k,
            frame=arguments.frame,
            missing=list(arguments.without),
            draw=True,
            draw_annotations=arguments.annotations,
        )
        files.write(target, found["png"])
        rows: list[Sequence[Any]] = [
            (
                item.name,
                answer["label"],
                answer["score"],
                *answer["box"].values(),
                *answer["velocity"],
                target,
            )
            for answer in found["boxes"]
        ]
        return rows or [(item.name, "none", *[""] * (len(self.columns) - 3), target)]


def read_reference(frame: Mapping[str, Any]) -> dict[str, Any]:
    """The annotated boxes of a frame as the metric takes them, without what is not known of any of them."""
    reference = {"boxes": frame["boxes"], "labels": frame["labels"]}
    if any(count is not None for count in frame["num_points"] or ()):
        reference["num_points"] = [-1 if count is None else count for count in frame["num_points"]]
    if any(frame["attributes"] or ()):
        reference["attributes"] = [attribute or "" for attribute in frame["attributes"]]
    if frame["bike_racks"] is not None and len(frame["bike_racks"]):
        reference["bike_racks"] = frame["bike_racks"]
    poses = {name: frame[name] for name in POSES if frame[name] is not None}
    if "lidar2ego" in poses:
        reference |= poses
    return reference


def choose_attributes(names: Sequence[str], boxes: Any) -> list[str]:
    """The attribute of each box by its class and speed, as of results for the nuScenes benchmark."""
    from decahub.models.cmt.boxes.nuscenes_results import DEFAULT_ATTRIBUTES, choose_attribute

    velocities = ((float(box[7]), float(box[8])) for box in boxes)
    pairs = zip(names, velocities, strict=True)
    return [choose_attribute(name, velocity) if name in DEFAULT_ATTRIBUTES else "" for name, velocity in pairs]


REMOTE_USAGE = """\
from transformers import AutoProcessor
from transformers.dynamic_module_utils import get_class_from_dynamic_module

model_class = get_class_from_dynamic_module("CLASS", "MODEL")
model = model_class.from_pretrained("MODEL", trust_remote_code=True)
processor = AutoProcessor.from_pretrained("MODEL", trust_remote_code=True)
# images: one for each camera, with intrinsics (3, 3) and lidar2cam (4, 4) of each; points (n, 5) of the LiDAR.
inputs = processor(images=images, points=points, intrinsics=intrinsics, lidar2cam=lidar2cam, return_tensors="pt")
answer = processor.post_process_object_detection_3d(model(**inputs), threshold=0.3)[0]
print(answer["boxes"], answer["scores"], [model.config.id2label[label] for label in answer["labels"].tolist()])"""
