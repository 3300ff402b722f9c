"""Denoising queries: slots and noise by loops, who sees whom, and how many groups fit."""

import pytest
import torch

from decahub.models.cmt.boxes.denoising import build_denoising_queries, count_denoising_groups


RANGE = [-10.0, -20.0, -5.0, 30.0, 20.0, 3.0]
NUM_QUERIES, MAX_GROUPS = 9, 3
COUNTS = (3, 0, 2)


def build_batch(counts=COUNTS):
    generator = torch.Generator().manual_seed(0)
    boxes, classes = [], []
    for count in counts:
        center = torch.rand(count, 3, generator=generator) * 5
        size = 1 + torch.rand(count, 3, generator=generator)
        boxes.append(torch.cat([center, size, torch.randn(count, 3, generator=generator)], dim=1))
        classes.append(torch.randint(4, (count,), generator=generator))
    return boxes, classes


def build(counts=COUNTS, **options):
    boxes, classes = build_batch(counts)
    options = {"num_queries": NUM_QUERIES, "max_groups": MAX_GROUPS, "point_cloud_range": RANGE, **options}
    return build_denoising_queries(boxes, classes, **options)


@pytest.mark.parametrize(
    ("counts", "groups"),
    [((3, 2), 3), ((4, 1), 2), ((9,), 1), ((0, 0), 0), ((), 0)],
    ids=["all", "fewer", "one", "no_boxes", "no_samples"],
)
def test_groups_shrink_with_the_number_of_boxes(counts, groups):
    assert count_denoising_groups(counts, NUM_QUERIES, MAX_GROUPS) == groups


@pytest.mark.parametrize("scale", [1.0, 0.4])
def test_copies_equal_a_slow_loop(scale):
    boxes, classes = build_batch()
    generator = torch.Generator().manual_seed(1)
    noise = torch.rand(MAX_GROUPS * sum(COUNTS), 3, generator=generator)

    queries = build(noise=noise, noise_scale=scale, threshold=0.9)

    assert queries.reference_points.shape == (3, MAX_GROUPS * 3, 3)
    low, high = torch.tensor(RANGE[:3]), torch.tensor(RANGE[3:])
    copy, filled = 0, set()
    for group in range(MAX_GROUPS):
        for sample, own in enumerate(boxes):
            for index, box in enumerate(own):
                slot = group * 3 + index
                offset = 2 * noise[copy] - 1
                center = (box[:3] + scale * offset * box[3:6] / 2 - low) / (high - low)
                torch.testing.assert_close(queries.reference_points[sample, slot], center.clamp(0, 1))
                assert (queries.sample[copy], queries.slot[copy]) == (sample, slot)
                assert queries.is_background[copy] == (offset.norm() > 0.9)
                assert queries.class_labels[copy] == classes[sample][index]
                assert torch.equal(queries.boxes[copy], box)
                filled.add((sample, slot))
                copy += 1
    empty = [(b, s) for b in range(3) for s in range(MAX_GROUPS * 3) if (b, s) not in filled]
    assert all((queries.reference_points[b, s] == 0).all() for b, s in empty)


def test_noise_leaves_no_center_outside_the_range():
    boxes, classes = build_batch((4,))
    boxes[0][:, :3] = torch.tensor(RANGE[3:])

    queries = build_denoising_queries(
        boxes, classes, num_queries=40, max_groups=10, point_cloud_range=RANGE, noise_scale=5.0
    )

    assert queries.reference_points.min() >= 0
    assert queries.reference_points.max() == 1


def test_who_sees_whom():
    mask = build().attention_mask

    num_slots = MAX_GROUPS * 3
    for row in range(num_slots + NUM_QUERIES):
        for column in range(num_slots + NUM_QUERIES):
            is_copy, sees_copy = row < num_slots, column < num_slots
            blocked = sees_copy and (not is_copy or row // 3 != column // 3)
            assert mask[row, column] == blocked


def test_noise_is_drawn_from_the_generator_of_torch():
    torch.manual_seed(5)
    drawn = build()
    torch.manual_seed(5)
    noise = torch.rand(MAX_GROUPS * sum(COUNTS), 3)

    assert torch.equal(drawn.reference_points, build(noise=noise).reference_points)


@pytest.mark.parametrize(
    ("counts", "groups"), [((0, 0), MAX_GROUPS), (COUNTS, 0), ((10,), MAX_GROUPS)], ids=["no_boxes", "off", "crowded"]
)
def test_no_copies(counts, groups):
    assert build(counts, max_groups=groups) is None


def test_refuses_noise_of_another_shape():
    with pytest.raises(ValueError, match=r"`denoising_noise` must have shape \(15, 3\).*got \(14, 3\)"):
        build(noise=torch.rand(14, 3))
