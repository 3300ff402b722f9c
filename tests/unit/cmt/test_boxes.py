"""Boxes: geometry by hand, codes in both orders of slots, and which detections are kept."""

import math

import pytest
import torch

from decahub.models.cmt.boxes.coder import decode_boxes, encode_boxes, select_detections
from decahub.models.cmt.boxes.geometry import (
    compute_corners,
    move_to_bottom,
    rotate_xy,
    transform_boxes,
    wrap_yaw,
)


ATOL = 1e-5  # float32
LIMITS = [-15.0, -20.0, -12.0, 30.0, 40.0, 18.0]


def build_boxes(count: int = 5, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    center = 10 * torch.randn(count, 3, generator=generator)
    size = 0.5 + 4 * torch.rand(count, 3, generator=generator)
    return torch.cat([center, size, torch.randn(count, 3, generator=generator)], dim=1)


def build_pose(yaw: float, translation: list[float]) -> torch.Tensor:
    pose = torch.eye(4)
    pose[:2, :2] = torch.tensor([[math.cos(yaw), -math.sin(yaw)], [math.sin(yaw), math.cos(yaw)]])
    pose[:3, 3] = torch.tensor(translation)
    return pose


def test_wrapped_yaw_lies_within_half_a_turn_and_points_the_same_way():
    yaw = torch.tensor([-7.0, -math.pi, -0.5, 0.0, 3.0, math.pi, 9.0])

    wrapped = wrap_yaw(yaw)

    assert (wrapped >= -math.pi).all()
    assert (wrapped < math.pi).all()
    torch.testing.assert_close(wrapped.cos(), yaw.cos(), atol=ATOL, rtol=0)
    torch.testing.assert_close(wrapped.sin(), yaw.sin(), atol=ATOL, rtol=0)


def test_quarter_turn_is_counter_clockwise():
    turned = rotate_xy(torch.tensor([[1.0, 0.0, 7.0]]), math.pi / 2)

    torch.testing.assert_close(turned, torch.tensor([[0.0, 1.0, 7.0]]), atol=ATOL, rtol=0)


def test_corners_of_a_turned_box():
    # 4 m long and 2 m wide, heading along +y: its front left corner is at smaller x and larger y.
    box = torch.tensor([[10.0, 20.0, 1.0, 4.0, 2.0, 1.0, math.pi / 2]])

    corners = compute_corners(box)

    bottom = [[9, 22, 0.5], [9, 18, 0.5], [11, 18, 0.5], [11, 22, 0.5]]
    expected = torch.tensor([bottom + [[x, y, 1.5] for x, y, _ in bottom]])
    torch.testing.assert_close(corners, expected, atol=ATOL, rtol=0)


def test_corners_move_with_their_box():
    boxes, pose = build_boxes(), build_pose(2.0, [3.0, -4.0, 5.0])

    corners = compute_corners(transform_boxes(boxes, pose))

    expected = compute_corners(boxes) @ pose[:3, :3].T + pose[:3, 3]
    torch.testing.assert_close(corners, expected, atol=1e-4, rtol=0)  # centers up to 30 m


def test_velocity_turns_with_its_box():
    boxes, pose = build_boxes(), build_pose(0.7, [1.0, 2.0, 3.0])
    later = boxes.clone()
    later[:, :2] += boxes[:, 7:9]  # one second

    moved = transform_boxes(boxes, pose)

    torch.testing.assert_close(transform_boxes(later, pose)[:, :2], moved[:, :2] + moved[:, 7:9], atol=1e-4, rtol=0)


def test_transform_without_velocity():
    boxes, pose = build_boxes(), build_pose(0.7, [1.0, 2.0, 3.0])

    assert torch.equal(transform_boxes(boxes[:, :7], pose), transform_boxes(boxes, pose)[:, :7])


def test_bottom_is_half_a_height_lower_and_the_input_stays():
    boxes = build_boxes()
    before = boxes.clone()

    bottom = move_to_bottom(boxes)

    torch.testing.assert_close(bottom[:, 2], before[:, 2] - before[:, 5] / 2)
    assert torch.equal(boxes, before)


def test_official_slots_mix_sizes_and_height():
    code = encode_boxes(torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 0.5, 7.0, 8.0]]))

    expected = [1, 2, math.log(4), math.log(5), 3, math.log(6), math.sin(0.5), math.cos(0.5), 7, 8]
    torch.testing.assert_close(code, torch.tensor([expected]))


def test_natural_slots_are_in_order():
    code = encode_boxes(torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 0.5, 7.0, 8.0]]), "natural")

    expected = [1, 2, 3, math.log(4), math.log(5), math.log(6), math.sin(0.5), math.cos(0.5), 7, 8]
    torch.testing.assert_close(code, torch.tensor([expected]))


@pytest.mark.parametrize("order", ["official", "natural"])
def test_decoding_inverts_encoding(order):
    boxes = build_boxes()

    decoded = decode_boxes(encode_boxes(boxes, order), order)

    boxes[:, 6] = wrap_yaw(boxes[:, 6])
    torch.testing.assert_close(decoded, boxes, atol=ATOL, rtol=1e-5)


def build_predictions(num_queries: int = 6, num_tasks: int = 1, num_labels: int = 3):
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(2, num_queries, num_labels, generator=generator)
    boxes = build_boxes(2 * num_tasks * num_queries)
    return logits, encode_boxes(boxes).unflatten(0, (2, -1))


def test_detections_equal_a_slow_loop():
    logits, coded = build_predictions(num_tasks=2)
    task_of_label = [0, 1, 1]

    detections = select_detections(
        logits, coded, task_sizes=[1, 2], max_detections=12, post_center_range=LIMITS, threshold=0.5
    )

    for sample, detection in enumerate(detections):
        rows = []
        for query in range(6):
            for label in range(3):
                box = decode_boxes(coded[sample, task_of_label[label] * 6 + query])
                rows.append((logits[sample, query, label].sigmoid().item(), label, query, box))
        rows = sorted(rows, key=lambda row: -row[0])[:12]
        low, high = torch.tensor(LIMITS[:3]), torch.tensor(LIMITS[3:])
        rows = [row for row in rows if row[0] > 0.5 and (row[3][:3] >= low).all() and (row[3][:3] <= high).all()]
        assert 0 < len(rows) < 12
        assert detection.labels.tolist() == [row[1] for row in rows]
        assert detection.queries.tolist() == [row[2] for row in rows]
        torch.testing.assert_close(detection.scores, torch.tensor([row[0] for row in rows]))
        torch.testing.assert_close(detection.boxes, torch.stack([row[3] for row in rows]))


def test_no_more_detections_than_pairs():
    logits, coded = build_predictions()

    detections = select_detections(logits, coded, task_sizes=[3], max_detections=300)

    assert [len(detection.scores) for detection in detections] == [18, 18]


def test_equal_scores_keep_the_order_of_queries():
    logits, coded = build_predictions()

    detection = select_detections(torch.zeros_like(logits), coded, task_sizes=[3], max_detections=5)[0]

    assert detection.queries.tolist() == [0, 0, 0, 1, 1]
    assert detection.labels.tolist() == [0, 1, 2, 0, 1]


def test_a_score_at_the_threshold_is_not_above_it_and_a_center_on_the_border_is_inside():
    logits, coded = build_predictions()
    boxes = decode_boxes(coded[0])
    low, high = boxes[:, :3].amin(0), boxes[:, :3].amax(0)
    options = {"task_sizes": [3], "post_center_range": [*low.tolist(), *high.tolist()]}

    at, below = (
        select_detections(torch.zeros_like(logits), coded, threshold=threshold, **options)[0]
        for threshold in (0.5, 0.4999)
    )

    assert len(at.boxes) == 0
    assert len(below.boxes) == 18


def test_scores_and_boxes_of_half_precision_have_full_precision():
    logits, coded = (tensor.bfloat16() for tensor in build_predictions())

    half = select_detections(logits, coded, task_sizes=[3])[1]
    full = select_detections(logits.float(), coded.float(), task_sizes=[3])[1]

    assert half.scores.dtype == half.boxes.dtype == torch.float32
    for name in ("scores", "boxes", "labels", "queries"):
        assert torch.equal(getattr(half, name), getattr(full, name)), name


def test_nothing_above_the_threshold_gives_empty_detections():
    logits, coded = build_predictions()

    detection = select_detections(logits - 100, coded, task_sizes=[3], threshold=0.5)[0]

    assert detection.boxes.shape == (0, 9)
    assert detection.labels.dtype == torch.long
