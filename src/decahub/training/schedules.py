"""Learning-rate schedules as pure functions from a step to a factor of the base rate."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from numbers import Real
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def _compute_warmup(step: int, num_warmup_steps: int, start_factor: float) -> float:
    return start_factor + (1 - start_factor) * step / num_warmup_steps


def compute_constant_factor(
    step: int, *, num_training_steps: int, num_warmup_steps: int = 0, warmup_start_factor: float = 0.0
) -> float:
    """1 after a linear warm-up from `warmup_start_factor`."""
    if step < num_warmup_steps:
        return _compute_warmup(step, num_warmup_steps, warmup_start_factor)
    return 1.0


def compute_cosine_factor(
    step: int,
    *,
    num_training_steps: int,
    num_warmup_steps: int = 0,
    warmup_start_factor: float = 0.0,
    min_factor: float = 0.0,
    phase_from_start: bool = False,
) -> float:
    """Linear warm-up, then half a cosine down to `min_factor`, which is reached at `num_training_steps`.

    `num_training_steps` includes the warm-up. With `phase_from_start` the cosine's phase is counted from step 0, not
    from the end of the warm-up: the rate then jumps down a little when the warm-up ends, as in EMO's recipe.
    """
    if step < num_warmup_steps:
        return _compute_warmup(step, num_warmup_steps, warmup_start_factor)
    offset = 0 if phase_from_start else num_warmup_steps
    phase = min(1.0, (step - offset) / max(1, num_training_steps - offset))
    return min_factor + (1 - min_factor) * (1 + math.cos(math.pi * phase)) / 2


def compute_polynomial_factor(
    step: int,
    *,
    num_training_steps: int,
    num_warmup_steps: int = 0,
    warmup_start_factor: float = 0.0,
    min_factor: float = 0.0,
    power: float = 0.9,
) -> float:
    """Linear warm-up, then `(1 - phase) ** power` down to `min_factor`; `power=1` is a straight line."""
    if step < num_warmup_steps:
        return _compute_warmup(step, num_warmup_steps, warmup_start_factor)
    phase = min(1.0, (step - num_warmup_steps) / max(1, num_training_steps - num_warmup_steps))
    return min_factor + (1 - min_factor) * (1 - phase) ** power


def compute_one_cycle_factor(
    step: int,
    *,
    num_training_steps: int,
    num_warmup_steps: int = 0,
    warmup_start_factor: float = 0.0,
    peak_factor: float = 8.0,
    peak_share: float = 0.4,
    min_factor: float = 1e-4,
) -> float:
    """Linear warm-up, then half a cosine from 1 up to `peak_factor`, and another one down to `min_factor`.

    The peak is reached after `peak_share` of the steps that follow the warm-up.
    """
    if step < num_warmup_steps:
        return _compute_warmup(step, num_warmup_steps, warmup_start_factor)
    start, goal, phase = _find_part_of_cycle(
        step - num_warmup_steps, num_training_steps - num_warmup_steps, peak_share
    )
    levels = (1.0, peak_factor, min_factor)
    return _interpolate(levels[start], levels[goal], phase)


def _find_part_of_cycle(step: int, num_steps: int, peak_share: float) -> tuple[int, int, float]:
    """In a cycle from level 0 to level 1 and on to level 2: last and next level, and how far the way is gone."""
    peak = peak_share * num_steps
    if step < peak:
        return 0, 1, step / peak
    return 1, 2, min(1.0, (step - peak) / max(1.0, num_steps - peak))


def _interpolate(start: float, goal: float, phase: float) -> float:
    return goal + (start - goal) * (1 + math.cos(math.pi * phase)) / 2


class OneCycle(LambdaLR):
    """The schedule `one_cycle`, with Adam's first beta falling where the rate rises and back, as far as it falls.

    Args:
        optimizer (`torch.optim.Optimizer`): Whose groups carry base rates, and `betas` if it has such.
        factor (`Callable`): From a step to a factor of the base rate.
        num_training_steps (`int`): Length of the schedule.
        num_warmup_steps (`int`): Steps before the cycle.
        peak_share (`float`): As for the rate.
        beta_factor (`float`): What the first beta is multiplied by at the peak.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        factor: Callable[[int], float],
        num_training_steps: int,
        num_warmup_steps: int,
        peak_share: float,
        beta_factor: float = 0.85 / 0.95,
    ):
        self.num_steps, self.num_warmup_steps = num_training_steps - num_warmup_steps, num_warmup_steps
        self.peak_share, self.beta_factor = peak_share, beta_factor
        self.base_betas = [group.get("betas") for group in optimizer.param_groups]
        super().__init__(optimizer, factor)

    def get_lr(self) -> list[float | torch.Tensor]:
        start, goal, phase = _find_part_of_cycle(
            max(0, self.last_epoch - self.num_warmup_steps), self.num_steps, self.peak_share
        )
        levels = (1.0, self.beta_factor, 1.0)
        factor = _interpolate(levels[start], levels[goal], phase)
        for group, betas in zip(self.optimizer.param_groups, self.base_betas, strict=True):
            if betas is not None:
                group["betas"] = (betas[0] * factor, betas[1])
        return super().get_lr()


def compute_multistep_factor(
    step: int,
    *,
    num_training_steps: int,
    num_warmup_steps: int = 0,
    warmup_start_factor: float = 0.0,
    milestones: Sequence[float] = (0.889, 0.963),
    gamma: float = 0.1,
) -> float:
    """Linear warm-up, then `gamma` to the number of `milestones` that are behind, in shares of `num_training_steps`.

    The milestones by default are Mask2Former's for COCO.
    """
    if step < num_warmup_steps:
        return _compute_warmup(step, num_warmup_steps, warmup_start_factor)
    return gamma ** sum(step >= milestone * num_training_steps for milestone in milestones)


SCHEDULES: dict[str, Callable[..., float]] = {
    "constant": compute_constant_factor,
    "linear": partial(compute_polynomial_factor, power=1.0),
    "cosine": compute_cosine_factor,
    "cosine_from_start": partial(compute_cosine_factor, phase_from_start=True),
    "polynomial": compute_polynomial_factor,
    "one_cycle": compute_one_cycle_factor,
    "multistep": compute_multistep_factor,
}
GIVEN_BY_THE_LOOP = ("step", "num_training_steps", "num_warmup_steps")


def build_scheduler(
    name: str, optimizer: Optimizer, *, num_training_steps: int, num_warmup_steps: int = 0, **options: Any
) -> LambdaLR:
    """Scheduler that multiplies each parameter group's own rate by the schedule's factor; see also [`OneCycle`].

    Args:
        name (`str`): a key of `SCHEDULES`.
        optimizer (`torch.optim.Optimizer`): whose groups carry the base rates.
        num_training_steps (`int`): length of the schedule, warm-up included.
        num_warmup_steps (`int`): length of its warm-up.
        options (`float`): further arguments of the schedule's function, such as `min_factor` or `power`.

    Raises:
        ValueError: If the name or an option is not known.
    """
    check_schedule(name, options)
    factor = partial(
        SCHEDULES[name], num_training_steps=num_training_steps, num_warmup_steps=num_warmup_steps, **options
    )
    if name == "one_cycle":
        default = inspect.signature(compute_one_cycle_factor).parameters["peak_share"].default
        return OneCycle(optimizer, factor, num_training_steps, num_warmup_steps, options.get("peak_share", default))
    return LambdaLR(optimizer, factor)


def check_schedule(name: str, options: Mapping[str, Any]) -> None:
    """Refuse a schedule that does not exist, and options that it does not take or that are out of range."""
    if name not in SCHEDULES:
        raise ValueError(f"`lr_scheduler_type` must be one of {', '.join(SCHEDULES)}; got {name!r}.")
    allowed = [option for option in inspect.signature(SCHEDULES[name]).parameters if option not in GIVEN_BY_THE_LOOP]
    for option in options:
        if option not in allowed:
            raise ValueError(f"`lr_scheduler_options` of {name!r} must be of {', '.join(allowed)}; got {option!r}.")
    for option, value in options.items():
        if option == "milestones":
            _check_milestones(value)
        elif option == "phase_from_start":
            if not isinstance(value, bool):
                raise ValueError(f"`phase_from_start` of `lr_scheduler_options` must be true or false; got {value!r}.")
        elif not _is_number(value) or value < 0:
            raise ValueError(f"`{option}` of `lr_scheduler_options` must be a number of at least 0; got {value!r}.")


def _check_milestones(value: Any) -> None:
    is_list = isinstance(value, Sequence) and not isinstance(value, str)
    if not is_list or not all(_is_number(one) and 0 < one < 1 for one in value) or sorted(value) != list(value):
        raise ValueError(
            f"`milestones` of `lr_scheduler_options` must be ascending shares of the run, in (0, 1); got {value!r}. "
            "Divide steps by the steps of the run."
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
