"""Scores of 3D detection on nuScenes: NDS, mean average precision and five errors of boxes that are found."""

import math

import datasets
import evaluate
import numpy as np

from .boxes import (
    ATTRIBUTE,
    COLUMNS,
    EGO_DISTANCE,
    IN_RACK,
    LABEL,
    NUSCENES_CLASSES,
    UNKNOWN_NUM_POINTS,
    VX,
    WEIGHT,
    read_prediction,
    read_reference,
)
from .matching import ERRORS, measure_class


_DESCRIPTION = """
The detection scores of nuScenes (arXiv 1903.11027, configuration `detection_cvpr_2019`), equal to nuscenes-devkit.

The predictions of a class choose in order of their scores, in each frame the nearest annotated box that is still
free, and match if the centers are nearer than a threshold in the ground plane.

- "mean_ap": precision at recalls above 0.1, less 0.1, at least 0 and as a share of 0.9; mean over recalls, over the
  thresholds 0.5, 1, 2 and 4 m, and over classes.
- "translation_error" (m, in the ground plane), "scale_error" (1 - IoU of boxes with the same center and yaw),
  "orientation_error" (rad), "velocity_error" (m/s) and "attribute_error" (share of wrong attributes): of the boxes
  that match at 2 m, mean over recalls from 0.1 on and over classes; 1 where the recall of a class stays below. Cones
  have no orientation, cones and barriers neither velocity nor attribute, and a barrier has no front.
- "nds": (5 mean_ap + sum of max(0, 1 - error)) / 10.

A class without annotated boxes has the average precision 0 and the errors 1 in these means, as in nuscenes-devkit;
with `skip_absent_classes` the means leave it out. An error is left out, and the divisor of "nds" is 1 less, where no
frame gives attributes or no box has a velocity.

Boxes are measured in the LiDAR frame, or in the frame that `lidar2ego` and `ego2global` of a reference lead to. With
both, this is nuScenes' own, and the scores are those of its server. Distances from the vehicle are from the origin of
the ego frame, or of the LiDAR frame without `lidar2ego`.
"""

_INPUTS = """
Args:
    predictions (list of dict): for each frame "boxes" (num_boxes, 9): center x, y, z, length, width, height, yaw (rad,
        counter-clockwise from +x), velocity vx, vy; "scores" and "labels" (num_boxes,), and perhaps "attributes",
        names or ids, with "" or -1 for none.
    references (list of dict): for each frame "boxes", "labels", and perhaps "attributes"; "num_points" (num_boxes,);
        "bike_racks" (num_racks, 7), in which motorcycles and bicycles do not count; "lidar2ego" and "ego2global",
        (4, 4). A velocity may be NaN: unknown.
    label_names (list of str, optional): classes in the order of their ids, by default the ten of nuScenes; only for
        `compute`, as all that follow.
    class_ranges (dict of str to float, or "nuscenes", optional): boxes that are farther from the vehicle, in meters,
        do not count; "nuscenes" has its ranges, from 30 to 50 m. By default, and for a class without one, all count.
    min_points (int, optional, defaults to 0): annotated boxes with fewer points do not count; nuScenes has 1. A frame
        without "num_points" keeps all.
    skip_absent_classes (bool, optional, defaults to False): leave classes without annotated boxes out of the means.
    distance_thresholds (list of float, optional): by default 0.5, 1, 2 and 4 m.
    error_threshold (float, optional, defaults to 2.0): threshold of the errors, one of the former.

Returns:
    dict: "nds", "mean_ap", the five errors (float), and "by_class": for each class with annotated boxes a dict of
    "ap", "ap_<threshold>", its errors, and "num_references".

Example:
    >>> metric = decahub.load_metric("nuscenes_detection")
    >>> frame = {"boxes": [[9.0, 4.0, 0.5, 4.6, 1.9, 1.7, 0.3, 2.0, 0.0]], "labels": [0]}
    >>> result = metric.compute(
    ...     predictions=[{**frame, "scores": [0.8]}], references=[frame], label_names=["car"]
    ... )
    >>> round(result["nds"], 3)
    1.0
"""

_CITATION = """
@inproceedings{caesar2020nuscenes,
  title={nuScenes: A Multimodal Dataset for Autonomous Driving},
  author={Holger Caesar and Varun Bankiti and Alex H. Lang and Sourabh Vora and Venice Erin Liong and Qiang Xu and
    Anush Krishnan and Yu Pan and Giancarlo Baldan and Oscar Beijbom},
  booktitle={CVPR},
  year={2020}
}
"""

NUSCENES_RANGES = {
    "car": 50.0,
    "truck": 50.0,
    "bus": 50.0,
    "trailer": 50.0,
    "construction_vehicle": 50.0,
    "pedestrian": 40.0,
    "motorcycle": 40.0,
    "bicycle": 40.0,
    "barrier": 30.0,
    "traffic_cone": 30.0,
}
IN_RACKS = ("motorcycle", "bicycle")
UNDEFINED = {
    "traffic_cone": ("orientation_error", "velocity_error", "attribute_error"),
    "barrier": ("velocity_error", "attribute_error"),
}
SYMMETRIC = ("barrier",)
THRESHOLDS = (0.5, 1.0, 2.0, 4.0)
ERROR_THRESHOLD = 2.0
MEAN_AP_WEIGHT = 5


def _check_options(label_names, class_ranges, min_points, thresholds, error_threshold):
    if isinstance(label_names, str) or len(set(label_names)) != len(label_names) or not len(label_names):
        raise ValueError(f"`label_names` must be a list of different names; got {label_names!r}.")
    if isinstance(min_points, bool) or not isinstance(min_points, (int, np.integer)) or min_points < 0:
        raise ValueError(f"`min_points` must be a whole number, at least 0; got {min_points!r}.")
    if len(thresholds) == 0 or min(thresholds) <= 0:
        raise ValueError(f"`distance_thresholds` must be distances above 0 m; got {list(thresholds)}.")
    if error_threshold not in thresholds:
        raise ValueError(
            f"`error_threshold` must be one of `distance_thresholds`, {list(thresholds)}; got {error_threshold}."
        )
    if class_ranges == "nuscenes":
        return NUSCENES_RANGES
    if class_ranges is not None and not hasattr(class_ranges, "keys"):
        raise ValueError(
            f"`class_ranges` must map names of classes to meters, or be 'nuscenes'; got {class_ranges!r}."
        )
    unknown = sorted(set(class_ranges or ()) - set(label_names))
    if unknown:
        raise ValueError(f"`class_ranges` must name classes of `label_names`; got {unknown[0]!r}.")
    return class_ranges or {}


def _stack(frames, name, label_names):
    """Rows of all frames, and the frame of each row."""
    rows = np.concatenate([np.asarray(frame, dtype=np.float64).reshape(-1, len(COLUMNS)) for frame in frames])
    labels = rows[:, LABEL]
    if len(rows) and (labels.min() < 0 or labels.max() >= len(label_names)):
        given = labels.min() if labels.min() < 0 else labels.max()
        raise ValueError(f"`labels` of `{name}` must be in [0, {len(label_names)}); got {int(given)}.")
    return rows, np.repeat(np.arange(len(frames)), [np.size(frame) // len(COLUMNS) for frame in frames])


def _keep(rows, label_names, ranges):
    """Which boxes are in the range of their class, and not in a rack for bicycles."""
    labels = rows[:, LABEL].astype(np.int64)
    limits = np.array([ranges.get(name, math.inf) for name in label_names])
    may_be_in_rack = np.isin(labels, [index for index, name in enumerate(label_names) if name in IN_RACKS])
    return (rows[:, EGO_DISTANCE] < limits[labels]) & ~(may_be_in_rack & (rows[:, IN_RACK] > 0))


def _mean_scores(by_class, names, measured):
    """NDS, mean average precision and the mean errors that are defined."""
    mean_ap = float(np.mean([by_class[name]["ap"] for name in names]))
    errors = {}
    for error in measured:
        values = [by_class[name][error] for name in names if error in by_class[name]]
        if values:
            errors[error] = float(np.mean(values))
    gains = [max(0.0, 1 - value) for value in errors.values()]
    nds = (MEAN_AP_WEIGHT * mean_ap + sum(gains)) / (MEAN_AP_WEIGHT + len(gains))
    return {"nds": nds, "mean_ap": mean_ap, **errors}


class NuscenesDetection(evaluate.Metric):
    """See the module's description."""

    def _info(self):
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            # What is stored for a frame: the rows of its boxes, one after the other.
            features=datasets.Features(
                predictions=datasets.Sequence(datasets.Value("float64")),
                references=datasets.Sequence(datasets.Value("float64")),
            ),
        )

    def add_batch(self, *, predictions=None, references=None):
        """Add predicted and annotated boxes of some frames."""
        predictions, references = self._read(predictions, references)
        super().add_batch(
            predictions=[rows.ravel() for rows in predictions], references=[rows.ravel() for rows in references]
        )

    def add(self, *, prediction=None, reference=None):
        """Add predicted and annotated boxes of one frame."""
        self.add_batch(predictions=[prediction], references=[reference])

    def _read(self, predictions, references):
        if len(predictions) != len(references):
            raise ValueError(
                "`predictions` and `references` must hold as many frames; "
                f"got {len(predictions)} and {len(references)}."
            )
        true_rows = [read_reference(reference, index) for index, reference in enumerate(references)]
        pairs = zip(predictions, references, strict=True)
        return [read_prediction(*pair, index) for index, pair in enumerate(pairs)], true_rows

    def measure(self, *, predictions, references, **options):
        """The scores of `compute` at once, nothing stored: for a measurement in every epoch of a training run."""
        return self._compute(*self._read(predictions, references), **options)

    def _compute(
        self,
        predictions,
        references,
        label_names=NUSCENES_CLASSES,
        class_ranges=None,
        min_points=0,
        skip_absent_classes=False,
        distance_thresholds=THRESHOLDS,
        error_threshold=ERROR_THRESHOLD,
    ):
        ranges = _check_options(label_names, class_ranges, min_points, distance_thresholds, error_threshold)
        boxes, frames = _stack(predictions, "predictions", label_names)
        true_boxes, true_frames = _stack(references, "references", label_names)
        is_counted, is_true = _keep(boxes, label_names, ranges), _keep(true_boxes, label_names, ranges)
        num_points = true_boxes[:, WEIGHT]
        is_true &= (num_points >= min_points) | (num_points == UNKNOWN_NUM_POINTS)
        boxes, frames = boxes[is_counted], frames[is_counted]
        true_boxes, true_frames = true_boxes[is_true], true_frames[is_true]
        if not len(true_boxes):
            raise ValueError(
                "`references` must hold boxes that count; got none. Look at `class_ranges`, `min_points`."
            )
        measured = list(ERRORS)
        for error, column in (("velocity_error", VX), ("attribute_error", ATTRIBUTE)):
            if np.isnan(true_boxes[:, column]).all():
                measured.remove(error)
        by_class = {}
        for label, name in enumerate(label_names):
            chosen, true = boxes[:, LABEL] == label, true_boxes[:, LABEL] == label
            precisions, errors = measure_class(
                boxes[chosen],
                frames[chosen],
                true_boxes[true],
                true_frames[true],
                np.asarray(distance_thresholds, dtype=np.float64),
                list(distance_thresholds).index(error_threshold),
                math.pi if name in SYMMETRIC else 2 * math.pi,
            )
            defined = [error for error in measured if error not in UNDEFINED.get(name, ())]
            by_class[name] = {
                "ap": float(precisions.mean()),
                **{f"ap_{meters:g}": float(ap) for meters, ap in zip(distance_thresholds, precisions, strict=True)},
                **{error: float(value) for error, value in zip(ERRORS, errors, strict=True) if error in defined},
                "num_references": int(true.sum()),
            }
        present = [name for name in label_names if by_class[name]["num_references"]]
        scores = _mean_scores(by_class, present if skip_absent_classes else label_names, measured)
        return scores | {"by_class": {name: by_class[name] for name in present}}
