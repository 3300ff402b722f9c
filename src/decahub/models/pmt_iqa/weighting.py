"""How much the two tasks count: `loss = w_reg * loss_reg + w_cls * loss_cls`, with weights that change by the epoch.

Progressive learning goes from the easy task, the level, to the hard one, the score:
`w_reg(t) = t / (E - 1)` and `w_cls(t) = 1 - w_reg(t)` for the epochs `t = 0 ... E - 1`.
"""

import logging
import math
from typing import Any

from transformers import TrainerCallback


logger = logging.getLogger(__name__)
TASK_SCHEDULES = ("progressive", "constant", "score_only")
EPOCHS_PER_DECAY = 6  # of the authors' learning rate


def progressive_weights(epoch: int, num_epochs: int) -> tuple[float, float]:
    """Weights of score and level in an epoch: `(0, 1)` in the first, `(1, 0)` in the last.

    Args:
        epoch (`int`): Number of the epoch, from 0.
        num_epochs (`int`): Epochs of the run. With one epoch, which the formula does not define, only the score
            counts.
    """
    if not 0 <= epoch < num_epochs:
        raise ValueError(f"`epoch` must be in [0, {num_epochs}); got {epoch}.")
    if num_epochs == 1:
        logger.warning("Progressive weights need at least 2 epochs; with 1, only the score is learned.")
        return 1.0, 0.0
    w_reg = epoch / (num_epochs - 1)
    return w_reg, 1 - w_reg


def compute_task_weights(config: Any, epoch: int, num_epochs: int) -> tuple[float, float]:
    """Weights `(w_reg, w_cls)` of an epoch under `config.task_schedule`."""
    if config.task_schedule == "progressive":
        return progressive_weights(epoch, num_epochs)
    return (1.0, 0.0) if config.task_schedule == "score_only" else (float(config.w_reg), float(config.w_cls))


def official_learning_rate(epoch: int, learning_rate: float) -> float:
    """The authors' rate in an epoch: a tenth after the first 7 epochs, and after every 6 from then on."""
    return learning_rate / 10 ** (max(0, epoch - 1) // EPOCHS_PER_DECAY)


class ProgressiveTaskCallback(TrainerCallback):
    """Sets the task weights of the model at the start of each epoch of `transformers.Trainer`, also after a resume."""

    def on_epoch_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        num_epochs = math.ceil(args.num_train_epochs) if args.max_steps <= 0 else math.ceil(state.num_train_epochs)
        epoch = min(int(state.epoch or 0), num_epochs - 1)
        model = getattr(model, "module", model)
        model.task_weights = compute_task_weights(model.config, epoch, num_epochs)


__all__ = [
    "TASK_SCHEDULES",
    "ProgressiveTaskCallback",
    "compute_task_weights",
    "official_learning_rate",
    "progressive_weights",
]
