"""Everything the training loop reads, as one dataclass that recipes and command lines fill."""

import logging
import math
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from typing import ClassVar, Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from decahub.options import argument

from .best import TIES
from .schedules import SCHEDULES, build_scheduler, check_schedule


logger = logging.getLogger(__name__)


POSITIVE = (
    "num_train_epochs", "max_steps", "per_device_train_batch_size", "per_device_eval_batch_size",
    "gradient_accumulation_steps", "max_grad_norm", "save_steps", "save_every_minutes", "save_total_limit",
    "eval_steps", "eval_epochs", "logging_steps", "early_stopping_patience",
)  # fmt: skip
NOT_NEGATIVE = ("dataloader_num_workers", "warmup_steps", "learning_rate", "weight_decay")
RANGES: tuple[tuple[tuple[str, ...], Callable[[float], bool], str], ...] = (
    (POSITIVE, lambda value: value > 0, "be positive"),
    (NOT_NEGATIVE, lambda value: value >= 0, "not be negative"),
    (("warmup_ratio", "ema_decay"), lambda value: 0 <= value < 1, "be in [0, 1)"),
)


@dataclass
class LoopArguments:
    """Arguments of `decahub.training.train`; scripts derive their own arguments from it.

    A run is resumed with the same values only. The exceptions are the fields that a class lists in `MAY_CHANGE`, those
    of its base classes included: where files are, what is logged, how a model card reads.

    Raises:
        ValueError: If a value is out of range or two contradict each other.
    """

    MAY_CHANGE: ClassVar[tuple[str, ...]] = (
        "output_dir", "resume_from_checkpoint", "per_device_eval_batch_size", "dataloader_num_workers", "save_steps",
        "save_every_minutes", "save_total_limit", "logging_steps", "report_to",
        "data_dir",  # of scripts: the data themselves are compared
    )  # fmt: skip

    # Run
    output_dir: str = argument("output", "Folder of the run: checkpoints, log, and what the script adds.")
    seed: int = argument(0, "Seed of data order and of every draw in a step.")
    resume_from_checkpoint: str = argument(
        "auto", "'auto': newest intact checkpoint of `output_dir`, if any; 'none': start anew; else a checkpoint."
    )
    use_cpu: bool = argument(False, "Train on the CPU even where there is an accelerator.")

    # Length
    num_train_epochs: float = argument(1.0, "Passes over the dataset; may be a fraction.")
    max_steps: int | None = argument(None, "Optimizer steps; replaces `num_train_epochs` where given.")

    # Batches
    per_device_train_batch_size: int = argument(32, "Rows of one forward pass in one process.")
    per_device_eval_batch_size: int = argument(64, "Rows of one forward pass in evaluation (read by the script).")
    gradient_accumulation_steps: int = argument(1, "Forward passes of one optimizer step.")
    dataloader_num_workers: int = argument(0, "Processes that prepare batches; 0 prepares them in the loop.")
    dataloader_drop_last: bool = argument(
        True, "Leave out rows that do not fill an optimizer step; one is always made."
    )

    # Optimization
    learning_rate: float = argument(1e-3, "Base learning rate (read by the script that builds the optimizer).")
    weight_decay: float = argument(0.0, "Weight decay (read by the script that builds the optimizer).")
    lr_scheduler_type: str = argument("cosine", f"Learning-rate schedule: {', '.join(SCHEDULES)}.")
    warmup_steps: int | None = argument(None, "Steps of linear warm-up; replaces `warmup_ratio` where given.")
    warmup_ratio: float = argument(0.0, "Share of the optimizer steps that are linear warm-up.")
    lr_scheduler_options: dict = argument({}, "Further arguments of the schedule, such as min_factor or power.")
    max_grad_norm: float | None = argument(None, "Clip the gradient to this L2 norm.")
    mixed_precision: Literal["no", "bf16"] = argument("no", "Precision of forward passes.")
    ddp_find_unused_parameters: bool = argument(False, "Allow parameters without a part in a step, at some cost.")

    # Average of the weights
    ema_decay: float | None = argument(None, "Decay of the moving average of the weights; unset: no average.")
    ema_warmup: bool = argument(False, "Use min(decay, (1 + t) / (10 + t)) as decay, for short runs.")

    # Checkpoints
    save_steps: int | None = argument(None, "Optimizer steps between checkpoints; one is always written at the end.")
    save_every_minutes: float | None = argument(None, "Minutes between checkpoints.")
    save_total_limit: int | None = argument(2, "Number of newest checkpoints to keep; unset: all.")

    # Evaluation
    eval_steps: int | None = argument(None, "Optimizer steps between evaluations.")
    eval_epochs: int | None = argument(None, "Epochs between evaluations.")
    metric_for_best_model: str | None = argument(None, "Return the weights with the best value of this score.")
    greater_is_better: bool = argument(True, "Whether a larger value of `metric_for_best_model` is better.")
    best_model_ties: Literal["first", "last"] = argument("first", "Which of two equal evaluations is the best.")
    early_stopping_patience: int | None = argument(None, "End the run after this many evaluations without a new best.")

    # Logs
    logging_steps: int = argument(50, "Optimizer steps between lines of the log.")
    report_to: Literal["none", "tensorboard", "trackio"] = argument("none", "Tracker that also receives the log.")

    def __post_init__(self):
        self.check()

    def check(self) -> None:
        """Refuse values out of range; `train` calls it again, since a script may have changed some."""
        for names, is_allowed, rule in RANGES:
            for name in names:
                value = getattr(self, name)
                if value is not None and not (is_allowed(value) and math.isfinite(value)):
                    raise ValueError(f"`{name}` must {rule}; got {value!r}.")
        check_schedule(self.lr_scheduler_type, self.lr_scheduler_options)
        if self.ema_decay is None and self.ema_warmup:
            raise ValueError("`ema_warmup` must come with `ema_decay`; got none. Set it, or drop `ema_warmup`.")
        if self.metric_for_best_model is not None and self.eval_steps is None and self.eval_epochs is None:
            raise ValueError("`metric_for_best_model` must come with `eval_steps` or `eval_epochs`; got neither.")
        if self.metric_for_best_model is None:
            self.refuse_unused("greater_is_better", "best_model_ties", why="without `metric_for_best_model`")
        if self.early_stopping_patience is not None and self.metric_for_best_model is None:
            raise ValueError("`early_stopping_patience` must come with `metric_for_best_model`; got none.")
        if self.best_model_ties not in TIES:
            raise ValueError(f"`best_model_ties` must be one of {', '.join(TIES)}; got {self.best_model_ties!r}.")

    def refuse_unused(self, *names: str, why: str) -> None:
        """Refuse arguments that have been set and that nothing reads.

        Args:
            names (`str`): Of the arguments.
            why (`str`): When they must be left out, and what counts instead.
        """
        for item in fields(self):
            value = getattr(self, item.name)
            default = item.default if item.default_factory is MISSING else item.default_factory()
            if item.name in names and value != default:
                raise ValueError(f"`{item.name}` must be left out {why}; got {value!r}.")

    def compute_warmup_steps(self, num_training_steps: int) -> int:
        """Steps of warm-up in a schedule of `num_training_steps`."""
        if self.warmup_steps is not None:
            if self.warmup_steps > num_training_steps:
                logger.warning(
                    "The warm-up of %d steps does not end within the %d of the run; the rate stays below "
                    "`learning_rate`.",
                    self.warmup_steps,
                    num_training_steps,
                )
            return self.warmup_steps
        return math.ceil(self.warmup_ratio * num_training_steps)

    def build_scheduler(self, optimizer: Optimizer, num_training_steps: int) -> LRScheduler:
        """Schedule of these arguments, in the form that `Update(scheduler=...)` takes."""
        return build_scheduler(
            self.lr_scheduler_type,
            optimizer,
            num_training_steps=num_training_steps,
            num_warmup_steps=self.compute_warmup_steps(num_training_steps),
            **self.lr_scheduler_options,
        )
