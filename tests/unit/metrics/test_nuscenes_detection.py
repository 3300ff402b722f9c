"""The metric "nuscenes_detection" against a loop over boxes that is written from its definition."""

import json
import math

import numpy as np
import pytest
import torch

from decahub.metrics import load_metric


ATOL_FLOAT64 = 1e-9  # the same sums in another order
CLASSES = ("car", "barrier", "pedestrian", "traffic_cone")
ERRORS = ("translation_error", "scale_error", "orientation_error", "velocity_error", "attribute_error")
UNDEFINED = {"barrier": ERRORS[3:], "traffic_cone": ERRORS[2:]}


def build_boxes(generator, num_boxes):
    centers = generator.uniform(-12, 12, (num_boxes, 3))
    sizes = generator.uniform(0.5, 4, (num_boxes, 3))
    return np.concatenate([centers, sizes, generator.uniform(-4, 4, (num_boxes, 3))], axis=1)


def build_frames(seed=0, sizes=((9, 17), (0, 5), (6, 0), (14, 21)), num_labels=4):
    """Frames with boxes that are found nearly, found twice, missed and made up."""
    generator = np.random.default_rng(seed)
    predictions, references = [], []
    for num_references, num_predictions in sizes:
        boxes, labels = build_boxes(generator, num_references), generator.integers(0, num_labels, num_references)
        if num_references:
            boxes[0, 7:] = np.nan  # a velocity that is unknown
        guesses, guess_labels = (
            build_boxes(generator, num_predictions),
            generator.integers(0, num_labels, num_predictions),
        )
        num_near = min(num_references, num_predictions)
        guesses[:num_near, :7] = boxes[:num_near, :7] + generator.normal(0, 0.6, (num_near, 7))
        guesses[:, 3:6] = np.abs(guesses[:, 3:6]) + 0.1
        guess_labels[:num_near] = labels[:num_near]
        references.append(
            {"boxes": boxes, "labels": labels, "attributes": generator.integers(-1, 2, num_references).tolist()}
        )
        predictions.append(
            {
                "boxes": guesses,
                "labels": guess_labels,
                "scores": generator.random(num_predictions).round(1),  # with ties
                "attributes": generator.integers(-1, 2, num_predictions).tolist(),
            }
        )
    return predictions, references


def slow_iou(box, other):
    shared = math.prod(min(a, b) for a, b in zip(box[3:6], other[3:6], strict=True))
    return shared / (math.prod(box[3:6]) + math.prod(other[3:6]) - shared)


def slow_turn(box, other, period):
    turn = abs(box[6] - other[6]) % period
    return min(turn, period - turn)


def slow_class_scores(predictions, references, label, name, threshold):
    """Average precision and errors of one class by a loop over predictions."""
    num_references = sum(int((frame["labels"] == label).sum()) for frame in references)
    ranked = [
        (score, frame, index)
        for frame, guess in enumerate(predictions)
        for index, score in enumerate(guess["scores"])
        if guess["labels"][index] == label
    ]
    hits, scores, found, taken = [], [], [], set()
    for score, frame, index in sorted(ranked, reverse=True):
        box = predictions[frame]["boxes"][index]
        nearest, best = None, math.inf
        for place, other in enumerate(references[frame]["boxes"]):
            distance = math.hypot(box[0] - other[0], box[1] - other[1])
            if references[frame]["labels"][place] == label and (frame, place) not in taken and distance < best:
                nearest, best = place, distance
        hits.append(best < threshold)
        scores.append(score)
        if best < threshold:
            taken.add((frame, nearest))
            other = references[frame]["boxes"][nearest]
            attribute = references[frame]["attributes"][nearest]
            wrong = float(predictions[frame]["attributes"][index] != attribute)
            found.append(
                (
                    best,
                    1 - slow_iou(box, other),
                    slow_turn(box, other, math.pi if name == "barrier" else 2 * math.pi),
                    math.hypot(box[7] - other[7], box[8] - other[8]),
                    math.nan if attribute == -1 else wrong,
                )
            )
    if not found:
        return 0.0, [1.0] * len(ERRORS)
    hits = np.cumsum(hits)
    precision, recall = hits / np.arange(1, len(hits) + 1), hits / num_references
    grid = np.linspace(0, 1, 101)
    curve = np.interp(grid, recall, precision, right=0)
    levels = np.interp(grid, recall, scores, right=0)
    ap = np.mean([max(0.0, value - 0.1) for value in curve[11:]]) / 0.9
    last = max((place for place in range(101) if levels[place] > 0), default=0)
    if last < 11:
        return ap, [1.0] * len(ERRORS)
    match_scores = [score for score, hit in zip(scores, np.diff(hits, prepend=0), strict=True) if hit]
    errors = []
    for values in zip(*found, strict=True):
        if all(math.isnan(value) for value in values):
            errors.append(1.0)
            continue
        means = []
        for stop in range(1, len(values) + 1):
            known = [value for value in values[:stop] if not math.isnan(value)]
            means.append(sum(known) / len(known) if known else 0.0)
        curve = [np.interp(level, match_scores[::-1], means[::-1]) for level in levels[11 : last + 1]]
        errors.append(np.mean(curve))
    return ap, errors


@pytest.mark.parametrize("seed", range(4))
def test_equals_a_loop_over_boxes(seed):
    predictions, references = build_frames(seed)

    scores = load_metric("nuscenes_detection").compute(
        predictions=predictions, references=references, label_names=CLASSES
    )

    all_aps, all_errors = [], {error: [] for error in ERRORS}
    for label, name in enumerate(CLASSES):
        aps = []
        for threshold in (0.5, 1, 2, 4):
            ap, errors = slow_class_scores(predictions, references, label, name, threshold)
            aps.append(ap)
            assert scores["by_class"][name][f"ap_{threshold:g}"] == pytest.approx(ap, abs=ATOL_FLOAT64)
            if threshold != 2:
                continue
            for error, value in zip(ERRORS, errors, strict=True):
                if error in UNDEFINED.get(name, ()):
                    assert error not in scores["by_class"][name]
                else:
                    assert scores["by_class"][name][error] == pytest.approx(value, abs=ATOL_FLOAT64), (name, error)
                    all_errors[error].append(value)
        all_aps.append(np.mean(aps))
    means = [np.mean(values) for values in all_errors.values()]
    nds = (5 * np.mean(all_aps) + sum(max(0, 1 - value) for value in means)) / 10
    assert scores["mean_ap"] == pytest.approx(np.mean(all_aps), abs=ATOL_FLOAT64)
    assert [scores[error] for error in ERRORS] == pytest.approx(means, abs=ATOL_FLOAT64)
    assert scores["nds"] == pytest.approx(nds, abs=ATOL_FLOAT64)
    assert next(iter(scores)) == "nds"
    assert json.loads(json.dumps(scores)) == scores


def test_batches_and_frames_add_up():
    predictions, references = build_frames()
    metric = load_metric("nuscenes_detection")
    metric.add_batch(predictions=predictions[:3], references=references[:3])
    metric.add(prediction=predictions[3], reference=references[3])

    scores = metric.compute(label_names=CLASSES)

    expected = metric.measure(predictions=predictions, references=references, label_names=CLASSES)
    assert scores == expected


def test_takes_tensors():
    predictions, references = build_frames()
    tensors = [
        {name: torch.as_tensor(value) if name != "attributes" else value for name, value in frame.items()}
        for frame in predictions
    ]
    metric = load_metric("nuscenes_detection")

    scores = metric.measure(predictions=tensors, references=references, label_names=CLASSES)

    expected = metric.measure(predictions=predictions, references=references, label_names=CLASSES)
    assert scores == expected


def build_perfect(**reference):
    """One frame: a near car, a far car, a bicycle, each found as it is."""
    boxes = [[5, 1, 0, 4, 2, 1.5, 0.3, 1, 0], [0, 45, 0, 4.5, 2, 1.5, 2, 0, 3], [10, -3, 0.2, 1.7, 0.6, 1.3, -2, 0, 0]]
    frame = {"boxes": boxes, "labels": [0, 0, 1]}
    return [{**frame, "scores": [0.9, 0.6, 0.7]}], [{**frame, **reference}]


def measure_perfect(predictions, references, **options):
    metric = load_metric("nuscenes_detection")
    return metric.measure(predictions=predictions, references=references, label_names=["car", "bicycle"], **options)


def count(scores):
    return {name: values["num_references"] for name, values in scores["by_class"].items()}


def test_perfect_boxes_have_full_score():
    assert measure_perfect(*build_perfect())["nds"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        ("nuscenes", {"car": 2, "bicycle": 1}),
        ({"car": 45.0}, {"car": 1, "bicycle": 1}),
        ({"car": 45.5, "bicycle": 10.0}, {"car": 2}),
    ],
    ids=["nuscenes", "far car", "far bicycle"],
)
def test_boxes_out_of_range_do_not_count(ranges, expected):
    assert count(measure_perfect(*build_perfect(), class_ranges=ranges)) == expected


def test_range_is_a_distance_from_the_ego_frame():
    lidar2ego = np.eye(4)
    lidar2ego[:3, 3] = [0, 10, 1]  # the far car is 55 m from the vehicle

    scores = measure_perfect(*build_perfect(lidar2ego=lidar2ego), class_ranges="nuscenes")

    assert count(scores) == {"car": 1, "bicycle": 1}


def test_range_does_not_depend_on_where_the_vehicle_is():
    ego2global = np.eye(4)
    ego2global[:3, 3] = [400, 1100, 0]

    scores = measure_perfect(*build_perfect(lidar2ego=np.eye(4), ego2global=ego2global), class_ranges="nuscenes")

    assert count(scores) == {"car": 2, "bicycle": 1}


def test_scores_do_not_depend_on_the_frame_of_a_level_vehicle():
    predictions, references = build_frames()
    cos, sin = math.cos(0.7), math.sin(0.7)
    turn = np.array([[cos, -sin, 0, 30], [sin, cos, 0, -4], [0, 0, 1, 2], [0, 0, 0, 1]])
    moved = [{**frame, "lidar2ego": turn, "ego2global": turn @ turn} for frame in references]
    metric = load_metric("nuscenes_detection")

    scores = metric.measure(predictions=predictions, references=moved, label_names=CLASSES)

    expected = metric.measure(predictions=predictions, references=references, label_names=CLASSES)
    assert [scores[name] for name in ("nds", "mean_ap", *ERRORS)] == pytest.approx(
        [expected[name] for name in ("nds", "mean_ap", *ERRORS)]
    )


def test_slope_shortens_distances_in_the_plane():
    pitch = math.acos(0.5)  # a car 3.9 m ahead of its annotation along the slope is 1.95 m away in the plane
    cos, sin = math.cos(pitch), math.sin(pitch)
    slope = np.array([[cos, 0, sin, 0], [0, 1, 0, 0], [-sin, 0, cos, 0], [0, 0, 0, 1]])
    boxes = [[5.0, 0, 0, 4, 2, 1.5, 0, 0, 0]]
    reference = {"boxes": boxes, "labels": [0], "lidar2ego": slope}
    prediction = {"boxes": [[8.9, *boxes[0][1:]]], "labels": [0], "scores": [0.5]}

    scores = load_metric("nuscenes_detection").measure(
        predictions=[prediction], references=[reference], label_names=["car"]
    )

    assert scores["translation_error"] == pytest.approx(1.95)


def test_boxes_without_points_do_not_count():
    scores = measure_perfect(*build_perfect(num_points=[3, 0, 1]), min_points=1)

    assert count(scores) == {"car": 1, "bicycle": 1}


def test_boxes_of_unknown_points_count():
    assert count(measure_perfect(*build_perfect(), min_points=1)) == {"car": 2, "bicycle": 1}


@pytest.mark.parametrize(
    ("yaw", "height", "is_inside"),
    [(0.9, 0, True), (0.9 + math.pi / 2, 0, False), (-0.9, 0, False), (0.9, 3, False)],
    ids=["along", "across", "mirrored", "above"],
)
def test_bicycles_in_racks_do_not_count(yaw, height, is_inside):
    # The bicycle is at (10, -3, 0.2), 1.5 m from the center of a rack of 4 m in the direction of 0.9 rad.
    rack = [10 + 1.5 * math.cos(0.9), -3 + 1.5 * math.sin(0.9), height, 4, 0.8, 2, yaw]
    around_car = [5, 1, 0, 9, 9, 9, 0]

    scores = measure_perfect(*build_perfect(bike_racks=[rack]))
    with_car = measure_perfect(*build_perfect(bike_racks=[rack, around_car]))

    assert count(scores) == count(with_car) == {"car": 2} | ({} if is_inside else {"bicycle": 1})


def test_absent_class_is_the_worst_in_the_means_unless_it_is_skipped():
    predictions, references = build_frames(num_labels=2)
    metric = load_metric("nuscenes_detection")

    scores = metric.measure(predictions=predictions, references=references, label_names=CLASSES)
    skipped = metric.measure(
        predictions=predictions, references=references, label_names=CLASSES, skip_absent_classes=True
    )

    assert set(scores["by_class"]) == {"car", "barrier"}
    aps = [values["ap"] for values in scores["by_class"].values()]
    assert skipped["mean_ap"] == pytest.approx(sum(aps) / 2)
    assert scores["mean_ap"] == pytest.approx(sum(aps) / 4)
    velocity = scores["by_class"]["car"]["velocity_error"]  # a barrier has none, a cone neither
    assert skipped["velocity_error"] == pytest.approx(velocity)
    assert scores["velocity_error"] == pytest.approx((velocity + 1) / 2)


def test_errors_that_nothing_defines_are_left_out():
    predictions, references = build_perfect()
    for frame in (*predictions, *references):
        frame["boxes"] = np.array(frame["boxes"])[:, :7]
    predictions[0]["boxes"][:, 0] += 0.25

    scores = measure_perfect(predictions, references)

    assert "velocity_error" not in scores
    assert "attribute_error" not in scores
    assert scores["nds"] == pytest.approx((5 * scores["mean_ap"] + 2 + 0.75) / 8)


def test_attributes_have_names():
    predictions, references = build_perfect(attributes=["vehicle.parked", "vehicle.moving", ""])
    predictions[0]["attributes"] = ["vehicle.parked", "vehicle.parked", "cycle.with_rider"]

    by_class = measure_perfect(predictions, references)["by_class"]

    assert 0 < by_class["car"]["attribute_error"] < 1
    assert by_class["bicycle"]["attribute_error"] == 1  # none known


def test_frame_without_boxes_holds_false_alarms_only():
    predictions, references = build_perfect()
    alarm = {"boxes": [[1, 2, 0, 4, 2, 1.5, 0, 0, 0]], "labels": [0], "scores": [0.99]}

    scores = measure_perfect([*predictions, alarm], [*references, {"boxes": [], "labels": []}])

    # Precision is 1/2 at the recall 0.5 and 2/3 at 1, linear between, and 0 -> 1/2 below.
    grid = np.arange(11, 101) / 100
    curve = np.interp(grid, [0, 0.5, 1], [0, 1 / 2, 2 / 3])
    assert scores["by_class"]["car"]["ap"] == pytest.approx(np.clip(curve - 0.1, 0, None).mean() / 0.9)


BOX = [5.0, 1, 0, 4, 2, 1.5, 0.3, 1, 0]
GOOD = {"boxes": [BOX], "labels": [0]}


@pytest.mark.parametrize(
    ("prediction", "reference", "options", "message"),
    [
        ({}, {"boxes": [BOX[:6]]}, {}, r"boxes of `references` must be \(num_boxes, 9\).*got \(1, 6\) in frame 0"),
        ({"boxes": [[math.nan, *BOX[1:]]]}, {}, {}, "boxes of `predictions` must be finite"),
        ({"boxes": [[*BOX[:3], 0, *BOX[4:]]]}, {}, {}, "boxes of `predictions` must have sizes above 0; got 0.0"),
        ({"labels": [0, 1]}, {}, {}, r"`labels` of `predictions` must have one value for each of the 1 boxes"),
        ({"labels": [3]}, {}, {}, r"`labels` of `predictions` must be in \[0, 2\); got 3"),
        ({}, {"labels": [-1]}, {}, r"`labels` of `references` must be in \[0, 2\); got -1"),
        ({"scores": [math.inf]}, {}, {}, "`scores` of `predictions` must be finite"),
        ({"scores": None}, {}, {}, "frame 0 has no `scores`"),
        ({}, {"tokens": ["a"]}, {}, "frame 0 has `tokens`"),
        ({}, {"attributes": ["parked"]}, {}, "`attributes` of `references` must be of vehicle.moving.*got 'parked'"),
        (
            {},
            {"lidar2ego": np.eye(3)},
            {},
            r"`lidar2ego` must be a finite matrix of shape \(4, 4\); got shape \(3, 3\)",
        ),
        ({}, {"ego2global": np.eye(4)}, {}, "`lidar2ego` must be given with `ego2global`"),
        ({}, {"boxes": [], "labels": []}, {}, "`references` must hold boxes that count"),
        ({}, {}, {"class_ranges": {"bus": 3.0}}, "`class_ranges` must name classes of `label_names`; got 'bus'"),
        ({}, {}, {"class_ranges": 50}, "`class_ranges` must map names"),
        ({}, {}, {"min_points": -1}, "`min_points` must be a whole number, at least 0; got -1"),
        ({}, {}, {"error_threshold": 3.0}, "`error_threshold` must be one of"),
        ({}, {}, {"distance_thresholds": [0.0, 2.0]}, "`distance_thresholds` must be distances above 0"),
        ({}, {}, {"label_names": "car"}, "`label_names` must be a list of different names; got 'car'"),
    ],
)
def test_refuses(prediction, reference, options, message):
    options = {"label_names": ["car", "bicycle"], **options}

    with pytest.raises(ValueError, match=message):
        load_metric("nuscenes_detection").compute(
            predictions=[{**GOOD, "scores": [0.5], **prediction}], references=[{**GOOD, **reference}], **options
        )


def test_refuses_what_is_no_frame():
    with pytest.raises(TypeError, match="`references` must hold a dict for each frame; got list for frame 0"):
        load_metric("nuscenes_detection").measure(predictions=[{**GOOD, "scores": [1]}], references=[[BOX]])


def test_refuses_unequal_numbers_of_frames():
    with pytest.raises(ValueError, match="must hold as many frames; got 1 and 2"):
        load_metric("nuscenes_detection").measure(predictions=[{**GOOD, "scores": [1]}], references=[GOOD, GOOD])
