"""Losses of RELIANT against slow loops, and groups and labels that do not fit."""

import math

import pytest
import torch
from transformers.testing_utils import CaptureLogger

from decahub.models.reliant import loss as losses
from decahub.models.reliant.loss import (
    check_sensitive,
    check_teacher_logits,
    compute_fairness_penalty,
    compute_label_propagation_loss,
    compute_logits_distance,
    compute_softened_loss,
    compute_surrogate,
    select_nodes,
)


ATOL = 1e-6  # float32 against Python's floats
NUM_NODES, NUM_LABELS = 11, 3


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(NUM_NODES, NUM_LABELS, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def teacher_logits() -> torch.Tensor:
    return 2 * torch.randn(NUM_NODES, NUM_LABELS, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def train_mask() -> torch.Tensor:
    return torch.arange(NUM_NODES) < 4


SENSITIVE = torch.tensor([0, 1, 1, 0, 0, 1, 1, 1, 0, 1, 0])
LABELS = torch.tensor([1, 1, 0, 1, 2, 1, -100, 1, 0, 0, 1])


@pytest.fixture(autouse=True)
def forget_warnings():
    losses.logger.warning_once.cache_clear()


def authors_polynomial(p: float) -> float:
    x = 2 * p - 1
    return (
        1 / 2
        + x / 2
        - (5 * x**3 - 3 * x) / 16
        + (63 * x**5 - 70 * x**3 + 15 * x) / 128
        - 5 * (429 * x**7 - 693 * x**5 + 315 * x**3 - 35 * x) / 2048
        + 7 * (12155 * x**9 - 25740 * x**7 + 18018 * x**5 - 4620 * x**3 + 315 * x) / 32768
    )


def test_surrogate_is_the_authors_polynomial():
    probabilities = torch.linspace(0, 1, 23, dtype=torch.float64)

    expected = torch.tensor([authors_polynomial(p) for p in probabilities.tolist()], dtype=torch.float64)

    torch.testing.assert_close(compute_surrogate(probabilities), expected, atol=1e-14, rtol=0)


def test_normalized_surrogate_is_the_best_polynomial_for_a_step():
    # A least-squares polynomial leaves a rest without a share of any Legendre polynomial up to its degree.
    nodes, weights = (torch.from_numpy(part) for part in legendre_quadrature())
    rest = compute_surrogate((nodes + 1) / 2, "legendre9_normalized") - (nodes > 0).double()

    for degree in range(10):
        assert (weights * rest * nodes**degree).sum().item() == pytest.approx(0, abs=1e-4)  # of the jump: 2,000 points


def legendre_quadrature():
    import numpy as np

    return np.polynomial.legendre.leggauss(2000)


def test_identity_surrogate_is_the_probability():
    probabilities = torch.rand(7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    torch.testing.assert_close(compute_surrogate(probabilities, "identity"), probabilities, atol=1e-15, rtol=0)


def test_surrogate_is_computed_in_float32():
    probabilities = torch.tensor([0.0, 0.25, 1.0], dtype=torch.bfloat16)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        surrogate = compute_surrogate(probabilities)

    assert surrogate.dtype == torch.float32
    assert surrogate[1].item() == pytest.approx(authors_polynomial(0.25), abs=ATOL)


@pytest.mark.parametrize("metric", ["sp", "eo"])
def test_penalty_against_a_loop(logits, metric):
    labels = LABELS if metric == "eo" else None
    selected = torch.arange(NUM_NODES) != 5
    probabilities, expected = logits.softmax(-1).tolist(), 0.0
    for column in range(NUM_LABELS):
        rates = []
        for group in (0, 1):
            chosen = [
                authors_polynomial(probabilities[node][column])
                for node in range(NUM_NODES)
                if selected[node] and SENSITIVE[node] == group and (labels is None or labels[node] == 1)
            ]
            rates.append(sum(chosen) / len(chosen))
        expected += (rates[0] - rates[1]) ** 2

    penalty = compute_fairness_penalty(logits, SENSITIVE, selected, labels)

    assert penalty.item() == pytest.approx(expected, abs=ATOL)


def test_penalty_does_not_depend_on_the_names_of_groups(logits):
    selected = torch.ones(NUM_NODES, dtype=torch.bool)

    swapped = compute_fairness_penalty(logits, 1 - SENSITIVE, selected)

    torch.testing.assert_close(swapped, compute_fairness_penalty(logits, SENSITIVE, selected))


@pytest.mark.parametrize(
    ("sensitive", "labels", "message"),
    [
        (torch.zeros(NUM_NODES, dtype=torch.long), None, "no node among those that count."),
        (SENSITIVE, torch.where(SENSITIVE == 0, 0, 1), "no node among those that count with label 1."),
    ],
    ids=["group", "positive-label"],
)
def test_absent_group_costs_nothing_and_warns_once(logits, sensitive, labels, message):
    logits, selected = logits.requires_grad_(), torch.ones(NUM_NODES, dtype=torch.bool)

    with CaptureLogger(losses.logger) as captured:
        penalties = [compute_fairness_penalty(logits, sensitive, selected, labels) for _ in range(2)]
    penalties[0].backward()

    assert [penalty.item() for penalty in penalties] == [0, 0]
    assert not logits.grad.any()
    assert captured.out.count("The fairness penalty is 0") == 1
    assert message in captured.out


@pytest.mark.parametrize(
    ("sensitive", "message"),
    [
        (None, "`sensitive` must be given: .*`sensitive_column`"),
        (
            torch.tensor([0, 1, 2, 2]),
            "`sensitive` must be 0 or 1; got 2, and 2 such values in all.*`sensitive_values`",
        ),
        (torch.tensor([0, 1, -1, 0]), "got -1, and 1 such values"),
        (torch.tensor([0, 1]), r"`sensitive` must have shape \(4,\); got \(2,\)"),
    ],
    ids=["missing", "three-groups", "unknown", "shape"],
)
def test_refuses_groups_that_are_not_two(sensitive, message):
    with pytest.raises(ValueError, match=message):
        check_sensitive(sensitive, 4)


@pytest.mark.parametrize(
    ("teacher", "message"),
    [(None, "got None. Add what `TeacherKnowledge.to_batch` returns"), (torch.zeros(5, 2), r"got \(5, 2\)")],
    ids=["missing", "shape"],
)
def test_refuses_a_teacher_that_does_not_fit(logits, teacher, message):
    with pytest.raises(ValueError, match=rf"`teacher_logits` must have shape \({NUM_NODES}, 3\).*{message}"):
        check_teacher_logits(teacher, logits)


@pytest.mark.parametrize(("nodes", "count"), [("train", 4), ("unlabeled", 7), ("all", 11)])
def test_selects_nodes_by_name(train_mask, nodes, count):
    assert select_nodes(train_mask, nodes).sum() == count


@pytest.mark.parametrize("kd_loss", ["euclidean", "bce", "kl"])
def test_label_propagation_loss_against_a_loop(logits, teacher_logits, train_mask, kd_loss):
    student, teacher = logits.softmax(-1).tolist(), teacher_logits.softmax(-1).tolist()
    pairs = [(p, q) for node in range(4, NUM_NODES) for p, q in zip(student[node], teacher[node], strict=True)]
    expected = {
        "euclidean": math.sqrt(sum((p - q) ** 2 for p, q in pairs)),
        "bce": -sum(q * math.log(p) + (1 - q) * math.log(1 - p) for p, q in pairs) / len(pairs),
        "kl": sum(q * math.log(q / p) for p, q in pairs) / (NUM_NODES - 4),
    }[kd_loss]

    loss = compute_label_propagation_loss(logits, teacher_logits, train_mask, kd_loss)

    assert loss.item() == pytest.approx(expected, abs=ATOL)


def test_softened_loss_against_a_loop(logits, teacher_logits):
    student, teacher = (logits / 3).softmax(-1).tolist(), (teacher_logits / 3).softmax(-1).tolist()
    total = sum(q * math.log(q / p) for rows in zip(student, teacher, strict=True) for p, q in zip(*rows, strict=True))

    loss = compute_softened_loss(logits, teacher_logits, temperature=3)

    assert loss.item() == pytest.approx(9 * total / NUM_NODES, abs=ATOL)


@pytest.mark.parametrize("l1_target", ["log_probs", "logits", "both_log_probs"])
def test_distance_of_logits_against_a_loop(logits, teacher_logits, l1_target):
    student = logits.log_softmax(-1) if l1_target == "both_log_probs" else logits
    teacher = teacher_logits if l1_target == "logits" else teacher_logits.log_softmax(-1)
    expected = sum(abs(p - q) for p, q in zip(student.flatten().tolist(), teacher.flatten().tolist(), strict=True))

    distance = compute_logits_distance(logits, teacher_logits, l1_target)

    assert distance.item() == pytest.approx(expected / NUM_NODES, abs=1e-5)
