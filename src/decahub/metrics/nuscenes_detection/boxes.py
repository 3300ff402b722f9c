"""Boxes of the metric as rows of numbers, in one frame and with what filters need to know of them."""

import numpy as np


NUSCENES_CLASSES = (
    "car",
    "truck",
    "construction_vehicle",
    "bus",
    "trailer",
    "barrier",
    "motorcycle",
    "bicycle",
    "pedestrian",
    "traffic_cone",
)
NUSCENES_ATTRIBUTES = (
    "vehicle.moving",
    "vehicle.parked",
    "vehicle.stopped",
    "pedestrian.moving",
    "pedestrian.standing",
    "pedestrian.sitting_lying_down",
    "cycle.with_rider",
    "cycle.without_rider",
)
NO_ATTRIBUTE = -1
UNKNOWN_NUM_POINTS = -1
COLUMNS = ("x", "y", "z", "l", "w", "h", "yaw", "vx", "vy", "label", "attribute", "ego_distance", "in_rack", "weight")
"""`weight` is the score of a prediction and the number of points of a reference."""
X, Y, Z, L, W, H, YAW, VX, VY, LABEL, ATTRIBUTE, EGO_DISTANCE, IN_RACK, WEIGHT = range(len(COLUMNS))
NUM_BOX_VALUES = (7, 9)
PREDICTION_KEYS = ("boxes", "scores", "labels", "attributes")
REFERENCE_KEYS = ("boxes", "labels", "attributes", "num_points", "bike_racks", "lidar2ego", "ego2global")


def read_prediction(prediction, reference, index):
    """Rows `(num_boxes, len(COLUMNS))` of a predicted frame, in the frame that its reference asks for."""
    _check_keys("predictions", prediction, index, PREDICTION_KEYS, 3)
    return _read("predictions", prediction, reference, index, "scores")


def read_reference(reference, index):
    """Rows `(num_boxes, len(COLUMNS))` of an annotated frame."""
    _check_keys("references", reference, index, REFERENCE_KEYS, 2)
    return _read("references", reference, reference, index, "num_points")


def _check_keys(name, frame, index, known, num_required):
    if not hasattr(frame, "keys"):
        raise TypeError(f"`{name}` must hold a dict for each frame; got {type(frame).__name__} for frame {index}.")
    unknown = sorted(set(frame.keys()) - set(known))
    missing = [key for key in known[:num_required] if frame.get(key) is None]
    if unknown or missing:
        problem = f"has no `{missing[0]}`" if missing else f"has `{unknown[0]}`"
        raise ValueError(
            f"`{name}` must be dicts with {', '.join(known[:num_required])} and perhaps "
            f"{', '.join(known[num_required:])}; frame {index} {problem}."
        )


def _read(name, frame, reference, index, weight_key):
    boxes = _read_boxes(name, frame["boxes"], index)
    num_boxes = len(boxes)
    columns = {
        LABEL: _read_column(name, frame, "labels", num_boxes, index),
        ATTRIBUTE: _read_attributes(name, frame, num_boxes, index),
        WEIGHT: np.full(num_boxes, float(UNKNOWN_NUM_POINTS)),
    }
    if frame.get(weight_key) is not None:
        columns[WEIGHT] = _read_column(name, frame, weight_key, num_boxes, index)
    racks = reference.get("bike_racks")
    columns[IN_RACK] = find_inside(boxes, _read_boxes("bike_racks", racks if racks is not None else [], index))
    boxes, columns[EGO_DISTANCE] = move_boxes(boxes, reference, index)
    rows = np.empty((num_boxes, len(COLUMNS)))
    rows[:, : boxes.shape[1]] = boxes
    for column, values in columns.items():
        rows[:, column] = values
    return rows


def _read_boxes(name, boxes, index):
    """Boxes as float64 of nine columns; velocities that are not given are NaN."""
    boxes = np.asarray(boxes, dtype=np.float64)
    if not boxes.size:
        boxes = boxes.reshape(0, NUM_BOX_VALUES[-1])
    if boxes.ndim != 2 or boxes.shape[1] not in NUM_BOX_VALUES:
        raise ValueError(
            f"boxes of `{name}` must be (num_boxes, 9): x, y, z, l, w, h, yaw, vx, vy; or (num_boxes, 7) without "
            f"velocity; got {boxes.shape} in frame {index}."
        )
    if not np.isfinite(boxes[:, :VX]).all():
        raise ValueError(f"boxes of `{name}` must be finite; got NaN or infinity in frame {index}.")
    if (boxes[:, L : H + 1] <= 0).any():
        raise ValueError(
            f"boxes of `{name}` must have sizes above 0; got {boxes[:, L : H + 1].min()} in frame {index}."
        )
    velocity = np.full((len(boxes), NUM_BOX_VALUES[-1] - boxes.shape[1]), np.nan)
    return np.concatenate([boxes, velocity], axis=1)


def _read_column(name, frame, key, num_boxes, index):
    values = np.asarray(frame[key], dtype=np.float64)
    if values.shape != (num_boxes,) and (values.size or num_boxes):
        raise ValueError(
            f"`{key}` of `{name}` must have one value for each of the {num_boxes} boxes; got shape {values.shape} in "
            f"frame {index}."
        )
    if not np.isfinite(values).all():
        raise ValueError(f"`{key}` of `{name}` must be finite; got NaN or infinity in frame {index}.")
    if key == "labels" and (values != values.round()).any():
        raise TypeError(f"`labels` of `{name}` must be class ids (integers); got {values[0]} in frame {index}.")
    return values.reshape(num_boxes)


def _read_attributes(name, frame, num_boxes, index):
    """Ids of attributes, -1 for a box that has none; NaN where attributes are not given."""
    attributes = frame.get("attributes")
    if attributes is None:
        return np.full(num_boxes, np.nan)
    ids = []
    for attribute in attributes:
        if isinstance(attribute, str):
            if attribute and attribute not in NUSCENES_ATTRIBUTES:
                raise ValueError(
                    f"`attributes` of `{name}` must be of {', '.join(NUSCENES_ATTRIBUTES)}, '' for none, or ids; got "
                    f"{attribute!r} in frame {index}."
                )
            attribute = NUSCENES_ATTRIBUTES.index(attribute) if attribute else NO_ATTRIBUTE
        ids.append(int(attribute))
    return _read_column(name, {"attributes": ids}, "attributes", num_boxes, index)


def move_boxes(boxes, reference, index):
    """Boxes in the frame of the measurement, and their distances from the ego vehicle in its plane.

    This is the frame that the reference's transforms lead to: LiDAR, ego or global. Distances are from the origin of
    the ego frame, that of the LiDAR frame where `lidar2ego` is not given.
    """
    matrices = {key: reference.get(key) for key in ("lidar2ego", "ego2global")}
    if matrices["ego2global"] is not None and matrices["lidar2ego"] is None:
        raise ValueError(f"`lidar2ego` must be given with `ego2global`; it is missing in frame {index}.")
    origin = np.zeros(3)
    boxes = boxes.copy()
    for key, matrix in matrices.items():
        if matrix is None:
            continue
        matrix = np.asarray(matrix, dtype=np.float64)
        if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
            raise ValueError(f"`{key}` must be a finite matrix of shape (4, 4); got shape {matrix.shape}.")
        rotation, translation = matrix[:3, :3], matrix[:3, 3]
        heading = np.stack([np.cos(boxes[:, YAW]), np.sin(boxes[:, YAW])], axis=1) @ rotation[:2, :2].T
        boxes[:, : Z + 1] = boxes[:, : Z + 1] @ rotation.T + translation
        boxes[:, YAW] = np.arctan2(heading[:, 1], heading[:, 0])
        boxes[:, VX : VY + 1] = boxes[:, VX : VY + 1] @ rotation[:2, :2].T
        origin = origin if key == "lidar2ego" else translation
    return boxes, np.hypot(*(boxes[:, : Y + 1] - origin[:2]).T)


def find_inside(boxes, racks):
    """Which centers of boxes are inside any of the rotated boxes `racks`."""
    offsets = boxes[:, None, : Z + 1] - racks[None, :, : Z + 1]  # (num_boxes, num_racks, 3)
    cos, sin = np.cos(racks[:, YAW]), np.sin(racks[:, YAW])
    along = np.abs(offsets[..., X] * cos + offsets[..., Y] * sin)
    across = np.abs(offsets[..., Y] * cos - offsets[..., X] * sin)
    inside = (along <= racks[:, L] / 2) & (across <= racks[:, W] / 2)
    return (inside & (np.abs(offsets[..., Z]) <= racks[:, H] / 2)).any(axis=1)
