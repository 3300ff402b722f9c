"""Schedules against their formulas at named steps, and the scheduler that is built of them."""

import math

import pytest
import torch

from decahub.training import SCHEDULES, LoopArguments, build_scheduler
from decahub.training.schedules import (
    compute_constant_factor,
    compute_cosine_factor,
    compute_multistep_factor,
    compute_polynomial_factor,
)


ATOL = 1e-12  # float64 arithmetic of a few operations


def build_optimizer(*rates: float) -> torch.optim.Optimizer:
    return torch.optim.SGD([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates])


@pytest.mark.parametrize("name", SCHEDULES)
def test_warmup_is_a_straight_line(name):
    factors = [SCHEDULES[name](step, num_training_steps=20, num_warmup_steps=4) for step in range(4)]

    assert factors == [0, 0.25, 0.5, 0.75]


def test_warmup_starts_at_its_factor():
    factors = [
        compute_constant_factor(step, num_training_steps=9, num_warmup_steps=2, warmup_start_factor=0.2)
        for step in range(4)
    ]

    assert factors == pytest.approx([0.2, 0.6, 1, 1], abs=ATOL)


@pytest.mark.parametrize(
    ("step", "expected"),
    [(4, 1), (8, (1 + math.cos(math.pi / 4)) / 2), (12, 0.5), (20, 0), (99, 0)],
    ids=["top", "quarter", "middle", "end", "beyond"],
)
def test_cosine_counts_from_the_end_of_warmup(step, expected):
    factor = compute_cosine_factor(step, num_training_steps=20, num_warmup_steps=4)

    assert factor == pytest.approx(expected, abs=ATOL)


@pytest.mark.parametrize(
    ("epoch", "rate"), [(16, 0.004800), (32, 0.005833), (64, 0.005351)], ids=["warmup", "just-after", "later"]
)
def test_cosine_from_start_gives_the_rates_of_the_emo_log(epoch, rate):
    peak, floor = 6e-3, 1e-6

    factor = SCHEDULES["cosine_from_start"](
        epoch, num_training_steps=300, num_warmup_steps=20, warmup_start_factor=floor / peak, min_factor=floor / peak
    )

    assert round(peak * factor, 6) == rate  # the authors' log of EMO-1M has six digits


def test_polynomial_is_the_power_of_what_is_left():
    factors = [compute_polynomial_factor(step, num_training_steps=10) for step in (0, 4, 10, 11)]

    assert factors == pytest.approx([1, 0.6**0.9, 0, 0], abs=ATOL)


def test_linear_reaches_its_floor():
    factors = [SCHEDULES["linear"](step, num_training_steps=10, min_factor=0.2) for step in (0, 5, 10)]

    assert factors == pytest.approx([1, 0.6, 0.2], abs=ATOL)


def test_scheduler_keeps_the_ratio_of_groups():
    optimizer = build_optimizer(0.1, 0.3)
    scheduler = build_scheduler("linear", optimizer, num_training_steps=4)

    optimizer.step()
    scheduler.step()

    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.075, 0.225], abs=ATOL)


def test_scheduler_goes_on_from_its_state():
    schedulers = [build_scheduler("cosine", build_optimizer(0.1), num_training_steps=9) for _ in range(2)]
    for _ in range(3):
        schedulers[0].optimizer.step()
        schedulers[0].step()

    schedulers[1].load_state_dict(schedulers[0].state_dict())
    for scheduler in schedulers:
        scheduler.optimizer.step()
        scheduler.step()

    assert schedulers[1].get_last_lr() == schedulers[0].get_last_lr()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [({}, 0), ({"warmup_ratio": 0.05}, 2), ({"warmup_ratio": 0.05, "warmup_steps": 7}, 7)],
    ids=["none", "ratio", "steps-win"],
)
def test_warmup_of_arguments(arguments, expected):
    assert LoopArguments(**arguments).compute_warmup_steps(31) == expected


def test_arguments_build_their_schedule():
    arguments = LoopArguments(
        lr_scheduler_type="polynomial", lr_scheduler_options={"power": 2, "min_factor": 0.1}, warmup_steps=0
    )
    optimizer = build_optimizer(1.0)

    scheduler = arguments.build_scheduler(optimizer, 2)
    optimizer.step()
    scheduler.step()

    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1 + 0.9 / 4, abs=ATOL)


def test_refuses_unknown_schedule():
    with pytest.raises(ValueError, match=r"`lr_scheduler_type` must be one of constant, linear.*got 'sine'"):
        build_scheduler("sine", build_optimizer(0.1), num_training_steps=3)


def test_refuses_option_of_another_schedule():
    with pytest.raises(ValueError, match=r"`lr_scheduler_options` of 'cosine' must be of .*min_factor.*got 'power'"):
        LoopArguments(lr_scheduler_type="cosine", lr_scheduler_options={"power": 0.9})


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("multistep", {"milestones": [30000, 40000]}, r"`milestones` .* ascending shares .* got \[30000, 40000\]"),
        ("multistep", {"milestones": [0.9, 0.5]}, "ascending"),
        ("multistep", {"milestones": 0.5}, "ascending"),
        ("polynomial", {"power": -1}, "`power` of `lr_scheduler_options` must be a number of at least 0; got -1"),
        ("cosine", {"min_factor": "a"}, "`min_factor` .* number of at least 0; got 'a'"),
        ("cosine", {"min_factor": float("nan")}, "got nan"),
        ("cosine", {"phase_from_start": 1}, "`phase_from_start` .* true or false; got 1"),
    ],
)
def test_refuses_values_of_options(name, options, message):
    with pytest.raises(ValueError, match=message):
        LoopArguments(lr_scheduler_type=name, lr_scheduler_options=options)


def test_warns_of_a_warm_up_that_does_not_end(caplog):
    assert LoopArguments(warmup_steps=10).compute_warmup_steps(10) == 10
    assert not caplog.records
    assert LoopArguments(warmup_steps=1000).compute_warmup_steps(10) == 1000
    assert "warm-up of 1000 steps does not end within the 10" in caplog.text


def test_one_cycle_rises_to_its_peak_and_falls():
    factors = [
        SCHEDULES["one_cycle"](step, num_training_steps=20, peak_factor=6.0, peak_share=0.4, min_factor=0.01)
        for step in (0, 4, 8, 14, 20, 25)
    ]

    assert factors == pytest.approx([1, 3.5, 6, 3.005, 0.01, 0.01], abs=ATOL)  # half-way of a cosine is its mean


def test_one_cycle_mirrors_the_first_beta():
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([{"params": [parameter], "lr": 0.1}], betas=(0.9, 0.99))
    scheduler = build_scheduler("one_cycle", optimizer, num_training_steps=10, peak_factor=8.0)
    betas, rates = [], []
    for _ in range(11):
        betas.append(optimizer.param_groups[0]["betas"])
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()

    assert [betas[step][0] for step in (0, 4, 7, 10)] == pytest.approx(
        [0.9, 0.9 * 0.8947, 0.9 * 0.94735, 0.9], abs=1e-4
    )
    assert {second for _, second in betas} == {0.99}
    assert rates[4] == pytest.approx(0.8)


def test_one_cycle_continues_from_its_state():
    def build():
        optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
        return optimizer, build_scheduler("one_cycle", optimizer, num_training_steps=10)

    (optimizer, scheduler), (other, resumed) = build(), build()
    for _ in range(6):
        optimizer.step()
        scheduler.step()
    other.load_state_dict(optimizer.state_dict())
    resumed.load_state_dict(scheduler.state_dict())
    for pair in ((optimizer, scheduler), (other, resumed)):
        pair[0].step()
        pair[1].step()

    first, second = optimizer.param_groups[0], other.param_groups[0]
    assert (first["lr"], first["betas"]) == (second["lr"], second["betas"])


def test_multistep_falls_at_its_milestones():
    factors = [
        compute_multistep_factor(step, num_training_steps=10, num_warmup_steps=1, milestones=(0.5, 0.8), gamma=0.2)
        for step in (0, 1, 4, 5, 7, 8, 10)
    ]

    assert factors == pytest.approx([0, 1, 1, 0.2, 0.2, 0.04, 0.04])
