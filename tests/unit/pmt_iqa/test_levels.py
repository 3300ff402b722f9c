"""Levels, task weights and the authors' optimizer."""

import pytest
import torch
from torch import nn
from transformers import TrainerControl, TrainerState, TrainingArguments

from decahub import PmtIqaForImageQualityAssessment, ProgressiveTaskCallback, QualityLevelBinner
from decahub.models.pmt_iqa.levels import LEVEL_PRESETS
from decahub.models.pmt_iqa.optimization import OfficialSchedule, build_official_optimizer, build_parameter_groups
from decahub.models.pmt_iqa.weighting import compute_task_weights, official_learning_rate, progressive_weights
from tests.tiny.pmt_iqa import CROP_SIZE, tiny_config


def to_levels(binner, values) -> list[int]:
    return binner(torch.tensor(values)).tolist()


@pytest.mark.parametrize(
    ("preset", "labels", "levels"),
    [
        ("live", [0.0, 9.99, 10.0, 99.0, 100.0, 111.0, -15.0], [0, 0, 1, 9, 9, 9, 1]),
        ("live_challenge", [4.9, 5.0, 15.0, 25.0, 94.0, 96.0], [0, 0, 2, 2, 9, 9]),
        ("csiq", [0.04, 0.05, 0.15, 0.25, 1.0], [0, 0, 2, 2, 10]),
        ("bid", [0.0, 0.49, 0.5, 4.99, 5.0], [0, 0, 1, 9, 9]),
        ("kadid10k", [1.0, 1.39, 1.41, 5.0], [0, 0, 1, 9]),
        ("biq2021", [0.0, 0.099, 0.31, 1.0], [0, 0, 3, 9]),
    ],
)
def test_presets(preset, labels, levels):
    assert to_levels(LEVEL_PRESETS[preset], labels) == levels


def test_overflow_is_clamped_or_refused():
    binner = QualityLevelBinner(0.0, 1.0, num_levels=4)

    assert to_levels(binner, [-0.2, 1.3]) == [0, 3]
    with pytest.raises(ValueError, match=r"levels in \[0, 4\); got 1.3"):
        binner.with_options(on_overflow="error")(torch.tensor([0.5, 1.3]))


@pytest.mark.parametrize(
    "options", [{"rule": "ceil"}, {"on_overflow": "wrap"}], ids=lambda options: next(iter(options))
)
def test_refuses_unknown_options(options):
    name, value = next(iter(options.items()))

    with pytest.raises(ValueError, match=f"`{name}` must be one of .*; got '{value}'"):
        QualityLevelBinner(0.0, 1.0, **options)


def test_weights_go_from_the_level_to_the_score():
    weights = [progressive_weights(epoch, 5) for epoch in range(5)]

    assert weights == [(0.0, 1.0), (0.25, 0.75), (0.5, 0.5), (0.75, 0.25), (1.0, 0.0)]


def test_one_epoch_learns_the_score(caplog):
    assert progressive_weights(0, 1) == (1.0, 0.0)
    assert "at least 2 epochs" in caplog.text


def test_refuses_an_epoch_beyond_the_last():
    with pytest.raises(ValueError, match=r"`epoch` must be in \[0, 3\); got 3"):
        progressive_weights(3, 3)


@pytest.mark.parametrize(
    ("schedule", "weights"), [("progressive", (0.5, 0.5)), ("constant", (0.3, 0.9)), ("score_only", (1.0, 0.0))]
)
def test_schedules(schedule, weights):
    config = tiny_config(task_schedule=schedule, w_reg=0.3, w_cls=0.9)

    assert compute_task_weights(config, 1, 3) == weights


@pytest.mark.parametrize(
    ("epoch", "weights"), [(0.0, (0.0, 1.0)), (1.0, (0.5, 0.5)), (1.75, (0.5, 0.5)), (2.0, (1.0, 0.0))]
)
def test_callback_sets_the_weights_of_the_epoch_also_after_a_resume(epoch, weights, tmp_path):
    model = PmtIqaForImageQualityAssessment(tiny_config())
    arguments = TrainingArguments(output_dir=tmp_path, num_train_epochs=3, report_to=[], use_cpu=True)

    ProgressiveTaskCallback().on_epoch_begin(arguments, TrainerState(epoch=epoch), TrainerControl(), model=model)

    assert model.task_weights == weights


def test_official_rate():
    rates = [official_learning_rate(epoch, 2.0) for epoch in range(14)]

    assert rates == [2.0] * 7 + [0.2] * 6 + [0.02]


def take_steps(module: nn.Module, optimizer, schedule, num_steps: int) -> None:
    for _ in range(num_steps):
        optimizer.zero_grad()
        module(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        schedule.step()


def test_official_schedule_forgets_moments_after_each_epoch():
    module = nn.Linear(2, 1)
    optimizer = build_official_optimizer(module, 1e-2, 0.0)
    schedule = OfficialSchedule(optimizer, steps_per_epoch=3)

    take_steps(module, optimizer, schedule, 2)
    inside = len(optimizer.state)
    take_steps(module, optimizer, schedule, 1)

    assert (inside, len(optimizer.state)) == (2, 0)
    take_steps(module, optimizer, schedule, 3 * 6)
    assert schedule.get_last_lr() == [pytest.approx(1e-3)]


def test_coupled_decay_shrinks_a_head_without_loss_and_adamw_does_not():
    """In the first epoch the score does not count; Adam with L2 decay moves its head by the rate nevertheless."""
    rate, moved = 1e-2, {}
    crops, labels = torch.randn(2, 3, CROP_SIZE, CROP_SIZE), torch.tensor([20.0, 70.0])
    for name in ("adam", "adamw"):
        torch.manual_seed(0)
        model = PmtIqaForImageQualityAssessment(tiny_config())
        before = model.score_head.weight.detach().clone()
        if name == "adam":
            optimizer = build_official_optimizer(model, rate, 5e-4)
        else:
            optimizer = torch.optim.AdamW(build_parameter_groups(model, rate, 5e-4))
        model.task_weights = progressive_weights(0, 5)
        model(crops, labels=labels).loss.backward()
        optimizer.step()
        moved[name] = (model.score_head.weight - before).abs().max().item()

    assert moved["adam"] == pytest.approx(rate, rel=0.01)
    assert moved["adamw"] <= rate * 5e-4


def test_parameter_groups_split_backbone_and_decay():
    model = PmtIqaForImageQualityAssessment(tiny_config())

    groups = build_parameter_groups(model, 1e-3, 0.05, backbone_factor=0.1)

    assert [(group["lr"], group["weight_decay"]) for group in groups] == [
        (pytest.approx(1e-4), 0.05), (pytest.approx(1e-4), 0.0), (1e-3, 0.05), (1e-3, 0.0)
    ]  # fmt: skip
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    assert all(parameter.ndim > 1 for group in groups[::2] for parameter in group["params"])
