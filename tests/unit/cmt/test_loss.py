"""Losses of CMT against slow loops, with two tasks, unequal layers, and boxes that only count in part."""

import itertools
import math

import pytest
import torch

from decahub.models.cmt.boxes.coder import encode_boxes
from decahub.models.cmt.boxes.denoising import build_denoising_queries
from decahub.models.cmt.boxes.loss import CmtLoss, compute_focal_loss, compute_matching_cost
from tests.tiny.cmt import tiny_config, tiny_labels


NUM_LAYERS, NUM_QUERIES, COUNTS = 2, 4, (3, 1)
TASKS = [["car"], ["truck", "pedestrian"]]
RTOL = 1e-9  # float64, sums in another order


def build_config(**fields):
    return tiny_config("lidar", tasks=TASKS, num_queries=NUM_QUERIES, denoising_groups=2, **fields)


def build_labels(config, counts=COUNTS):
    labels = [{**label, "boxes": label["boxes"].double()} for label in tiny_labels(config, counts)]
    labels[0]["class_labels"] = torch.tensor([2, 0, 1])
    return labels


def build_predictions(num_queries: int = NUM_QUERIES, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(NUM_LAYERS, 2, num_queries, 3, generator=generator, dtype=torch.float64)
    coded = 2 * torch.randn(NUM_LAYERS, 2, len(TASKS), num_queries, 10, generator=generator, dtype=torch.float64)
    return logits.requires_grad_(), coded.requires_grad_()


def focal(logit: float, target: int, alpha: float = 0.25, gamma: float = 2.0) -> float:
    p = 1 / (1 + math.exp(-logit))
    return -alpha * (1 - p) ** gamma * math.log(p) if target else -(1 - alpha) * p**gamma * math.log(1 - p)


def test_focal_loss_by_its_formula():
    logits = torch.tensor([-2.0, 0.5, 3.0], dtype=torch.float64)

    for target in (0, 1):
        loss = compute_focal_loss(logits, torch.full_like(logits, target), 0.25, 2.0)
        assert loss.tolist() == pytest.approx([focal(logit, target) for logit in logits.tolist()])


def pair_cost(logit: float, coded, code, weights) -> float:
    p = 1 / (1 + math.exp(-logit))
    class_cost = -0.25 * (1 - p) ** 2 * math.log(p + 1e-12) + 0.75 * p**2 * math.log(1 - p + 1e-12)
    box_cost = sum(weights[slot] * abs(coded[slot] - code[slot]).item() for slot in range(8))
    return 2 * class_cost + 0.25 * box_cost


def test_matching_cost_leaves_velocity_out():
    config = build_config()
    logits, coded = (tensor.detach() for tensor in build_predictions())
    boxes = build_labels(config)[0]["boxes"]
    codes, classes = encode_boxes(boxes), torch.tensor([1, 0, 1])

    cost = compute_matching_cost(logits[0, 0, :, 1:], coded[0, 0, 1], classes, codes, config)

    for query, index in itertools.product(range(NUM_QUERIES), range(3)):
        expected = pair_cost(
            logits[0, 0, query, 1 + classes[index]].item(), coded[0, 0, 1, query], codes[index], config.code_weights
        )
        assert cost[query, index].item() == pytest.approx(expected, rel=RTOL)


def match_slowly(costs: torch.Tensor) -> list[int]:
    """Query of each box, by trying all."""
    num_queries, num_boxes = costs.shape
    ways = itertools.permutations(range(num_queries), num_boxes)
    return list(min(ways, key=lambda way: sum(costs[query, box].item() for box, query in enumerate(way))))


def compute_slowly(config, logits, coded, labels) -> dict[str, float]:
    terms = {}
    for layer in range(NUM_LAYERS):
        class_sum = box_sum = 0.0
        for task, (first, size) in enumerate([(0, 1), (1, 2)]):
            class_loss = box_loss = positives = 0.0
            for sample, label in enumerate(labels):
                own = [i for i, c in enumerate(label["class_labels"].tolist()) if first <= c < first + size]
                codes = encode_boxes(label["boxes"])
                classes = label["class_labels"]
                costs = torch.tensor(
                    [
                        [
                            pair_cost(
                                logits[layer, sample, query, classes[i]].item(),
                                coded[layer, sample, task, query],
                                codes[i],
                                config.code_weights,
                            )
                            for i in own
                        ]
                        for query in range(NUM_QUERIES)
                    ]
                ).reshape(NUM_QUERIES, len(own))
                box_of_query = {query: own[box] for box, query in enumerate(match_slowly(costs))}
                positives += len(box_of_query)
                for query in range(NUM_QUERIES):
                    box = box_of_query.get(query)
                    for c in range(first, first + size):
                        target = box is not None and classes[box].item() == c
                        class_loss += focal(logits[layer, sample, query, c].item(), target)
                    if box is not None:
                        difference = (coded[layer, sample, task, query] - codes[box]).abs()
                        weighted = [
                            weight * value.item()
                            for weight, value in zip(config.code_weights, difference, strict=True)
                        ]
                        box_loss += sum(weighted)
            negatives = NUM_QUERIES * len(labels) - positives
            class_sum += 2 * class_loss / max(positives + 0.1 * negatives, 1)
            box_sum += 0.25 * box_loss / (positives + torch.finfo(torch.float32).eps)
        prefix = "" if layer == NUM_LAYERS - 1 else f"d{layer}."
        terms |= {f"{prefix}loss_cls": class_sum, f"{prefix}loss_bbox": box_sum}
    return terms


def test_matched_terms_equal_a_slow_loop():
    config = build_config()
    logits, coded = build_predictions()
    labels = build_labels(config)

    terms = CmtLoss(config)(logits, coded, labels)

    expected = compute_slowly(config, logits.detach(), coded.detach(), labels)
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value, rel=RTOL), name


@pytest.mark.parametrize("threshold", [0.75, 0.9], ids=["norm of 1", "norm of 1.5"])
def test_denoising_terms_equal_a_slow_loop(threshold):
    config = build_config(denoising_coefficient=0.7, denoising_threshold=threshold)
    logits, coded = build_predictions()
    labels = build_labels(config)
    noise = torch.rand(4, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    denoising = build_denoising_queries(
        [label["boxes"] for label in labels],
        [label["class_labels"] for label in labels],
        num_queries=NUM_QUERIES,
        max_groups=2,
        point_cloud_range=config.point_cloud_range,
        threshold=threshold,
        noise=noise,
    )
    copies, copied = build_predictions(denoising.num_slots, seed=5)

    terms = CmtLoss(config)(logits, coded, labels, denoising, copies, copied)

    codes = encode_boxes(denoising.boxes)
    assert 0 < denoising.is_background.sum() < 4
    for layer, prefix in enumerate(("d0.", "")):
        class_loss = box_loss = 0.0
        for copy in range(4):
            sample, slot = denoising.sample[copy], denoising.slot[copy]
            label = denoising.class_labels[copy].item()
            for c in range(3):
                is_target = c == label and not denoising.is_background[copy]
                class_loss += focal(copies[layer, sample, slot, c].item(), is_target)
            task = 0 if label == 0 else 1
            difference = (copied[layer, sample, task, slot] - codes[copy]).abs()
            box_loss += (difference * torch.tensor(config.code_weights)).sum().item()
        norm = max(4 * 3.14159 / 6 * threshold**3, 1)
        assert terms[f"{prefix}dn_loss_cls"].item() == pytest.approx(0.7 * 2 * class_loss / norm, rel=1e-6)
        assert terms[f"{prefix}dn_loss_bbox"].item() == pytest.approx(0.7 * 0.25 * box_loss / 4, rel=1e-6)


def test_without_boxes_all_is_background():
    config = build_config()
    logits, coded = build_predictions()
    labels = [{"boxes": torch.zeros(0, 9).double(), "class_labels": torch.zeros(0).long()}] * 2

    terms = CmtLoss(config)(logits, coded, labels)
    torch.stack(list(terms.values())).sum().backward()

    assert terms["loss_bbox"] == 0
    # Eight queries at a tenth do not reach the least norm of 1.
    expected = 2 * sum(focal(logit, 0) for logit in logits[-1].flatten().tolist())
    assert terms["loss_cls"].item() == pytest.approx(expected, rel=RTOL)
    assert (coded.grad == 0).all()
    assert (logits.grad != 0).all()


@pytest.mark.parametrize(("column", "value"), [(4, 0.0), (8, float("nan"))], ids=["flat", "unknown_velocity"])
def test_box_that_is_not_finite_counts_by_its_class_only(column, value):
    config = build_config()
    logits, coded = build_predictions()
    nothing = {"boxes": torch.zeros(0, 9).double(), "class_labels": torch.zeros(0).long()}
    labels = [build_labels(config, (1, 0))[0], nothing]
    labels[0]["class_labels"] = torch.tensor([0])
    labels[0]["boxes"][0, column] = value

    terms = CmtLoss(config)(logits, coded, labels)
    torch.stack(list(terms.values())).sum().backward()

    assert terms["loss_bbox"] == 0
    assert coded.grad.isfinite().all()
    assert logits.grad.isfinite().all()
    assert (CmtLoss(config).assign(logits[..., :1], coded[:, :, 0], labels, 0) > 0).sum() == NUM_LAYERS


def test_boxes_of_a_task_are_sorted_by_class_and_position():
    config = tiny_config("lidar")
    labels = tiny_labels(config, (4,))[0]
    labels["class_labels"] = torch.tensor([2, 0, 2, 0])

    boxes, classes = CmtLoss(config).select_task(labels, 0)

    assert classes.tolist() == [0, 0, 2, 2]
    assert torch.equal(boxes, labels["boxes"][[1, 3, 0, 2]])


@pytest.mark.parametrize("name", ["logits", "pred_boxes"])
def test_refuses_predictions_that_are_not_finite(name):
    config = build_config()
    logits, coded = build_predictions()
    broken = logits if name == "logits" else coded
    with torch.no_grad():
        broken[0, 1, 1] = float("nan")

    with pytest.raises(ValueError, match=f"`{name}` must be finite in training; got"):
        CmtLoss(config)(logits, coded, build_labels(config))
