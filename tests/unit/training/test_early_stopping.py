"""When a run ends because its evaluations get no better, and which of equal evaluations is kept."""

import json
import math

import pytest
import torch
from torch import nn

from decahub.training import LoopArguments, Update, train
from decahub.training.best import BestWeights
from tests.tiny.training import ToyRows, build_model, compute_loss


@pytest.fixture
def build_arguments(tmp_path):
    def build(**changes) -> LoopArguments:
        values = {
            "output_dir": str(tmp_path / "run"),
            "max_steps": 20,
            "per_device_train_batch_size": 8,
            "logging_steps": 3,
            "eval_steps": 1,
            "metric_for_best_model": "score",
        }
        return LoopArguments(**{**values, **changes})

    return build


def run(arguments: LoopArguments, scores: list[float]):
    """Train with evaluations that give `scores`; returns the result and the weights that each evaluation saw."""
    seen: list[torch.Tensor] = []

    def evaluate(model: nn.Module) -> dict[str, float]:
        seen.append(model.classifier.weight.detach().clone())
        return {"score": scores[len(seen) - 1]}

    model = build_model()
    update = Update(torch.optim.SGD(model.parameters(), lr=0.1), compute_loss)
    result = train(model, update, ToyRows(noise=0.0), arguments, evaluate=evaluate)
    return result, seen


def read_log(result) -> list[dict]:
    return [json.loads(line) for line in result.train_log.read_text().splitlines()]


@pytest.mark.parametrize(
    ("scores", "ties", "step", "best"),
    [
        ([1, 2, 1, 1, 1], "first", 5, 2),
        ([1, 2, 2, 1, 2, 2], "first", 5, 2),
        ([1, 2, 2, 1, 2, 1, 1, 1], "last", 8, 5),
        ([math.nan, 1, math.nan, math.nan, math.nan], "first", 5, 2),
        ([math.nan, math.nan, 1, 1, 1, 1], "first", 6, 3),
    ],
    ids=["worse", "equal", "last equal", "nan after", "nan before"],
)
def test_ends_after_evaluations_without_a_new_best(scores, ties, step, best, build_arguments):
    arguments = build_arguments(early_stopping_patience=3, best_model_ties=ties)

    result, seen = run(arguments, scores)

    assert (result.step, result.stopped_early) == (step, True)
    assert result.metrics["score"] == scores[best - 1]
    assert torch.equal(result.model.classifier.weight, seen[best - 1])
    assert result.checkpoint.name == f"checkpoint-{step}"
    assert result.checkpoint.is_dir()


def test_smaller_can_be_better(build_arguments):
    arguments = build_arguments(early_stopping_patience=2, greater_is_better=False)

    result, _ = run(arguments, [3, 1, 2, 2])

    assert (result.step, result.metrics["score"]) == (4, 1)


def test_patience_counts_evaluations_not_steps(build_arguments):
    result, seen = run(build_arguments(early_stopping_patience=2, eval_steps=4), [2, 1, 1])

    assert (result.step, len(seen)) == (12, 3)


def test_log_says_why_the_run_ended(build_arguments):
    result, _ = run(build_arguments(early_stopping_patience=2), [1, 2, 1, 2])
    log = read_log(result)

    assert log[-1] == {
        "step": 4,
        "epoch": pytest.approx(4 / 5),
        "stop_reason": "early stopping: 2 evaluations without a new best score",
    }
    assert [line["step"] for line in log if "loss" in line] == [3, 4]  # the step after the last line is not lost
    assert [line["step"] for line in log if "eval_score" in line] == [1, 2, 3, 4]


def test_run_that_keeps_getting_better_makes_all_steps(build_arguments):
    result, _ = run(build_arguments(early_stopping_patience=1, max_steps=6), [1, 2, 3, 4, 5, 6])

    assert (result.step, result.stopped_early, result.metrics["score"]) == (6, False, 6)
    assert [line for line in read_log(result) if "stop_reason" in line] == []


def test_stopped_run_started_again_does_nothing(build_arguments):
    arguments = build_arguments(early_stopping_patience=2)
    result, _ = run(arguments, [1, 2, 1, 1])
    log = result.train_log.read_text()

    again, seen = run(arguments, [])

    assert (again.step, again.stopped_early, again.metrics, seen) == (4, True, {"score": 2}, [])
    assert torch.equal(again.model.classifier.weight, result.model.classifier.weight)
    assert again.train_log.read_text() == log


def test_tied_and_transposed_weights_come_back(tmp_path):
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    model[0].bias = nn.Parameter(torch.arange(6.0).reshape(3, 2).t()[0])
    best, expected = BestWeights("score"), model[0].weight.detach().clone()
    best.keep(model)
    nn.init.zeros_(model[0].weight)

    best.path = tmp_path / "best.safetensors"
    best.write(best.path)
    best.load(model)

    assert torch.equal(model[1].weight, expected)
    assert model[0].bias.tolist() == [0, 2, 4]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"early_stopping_patience": 0}, "`early_stopping_patience` must be positive; got 0"),
        (
            {"early_stopping_patience": 3, "metric_for_best_model": None},
            "`early_stopping_patience` must come with `metric_for_best_model`",
        ),
        ({"best_model_ties": "both"}, "`best_model_ties` must be one of first, last; got 'both'"),
    ],
)
def test_refuses_arguments(changes, message, build_arguments):
    with pytest.raises(ValueError, match=message):
        build_arguments(**changes)
