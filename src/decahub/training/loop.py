"""The one training loop: any number of (optimizer, step) pairs, exact resume, average of the weights, logs.

What a step computes depends on (seed, step, rank) and on the state that a checkpoint holds, on nothing else. So a run
that was killed at any moment and started again ends with the same bits as one that was not.
"""

import importlib.util
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import (
    DistributedDataParallelKwargs,
    GradientAccumulationPlugin,
    broadcast_object_list,
    send_to_device,
)
from filelock import FileLock, Timeout
from torch import nn
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from decahub.models.shared.modes import evaluation_mode

from .arguments import LoopArguments
from .batches import EpochBatches, iterate_batches
from .best import OLD_BEST_FILE, BestWeights, get_best_name
from .checkpoint import CheckpointError, CheckpointFolder, Progress, find_problem, read_progress
from .denormals import flushed_denormals
from .ema import ExponentialMovingAverage
from .fingerprint import find_differences, fingerprint_data, fingerprint_recipe
from .train_log import EVALUATED, TermWindow, TrainLog, compute_means
from .update_runner import UpdateRunner
from .updates import Update


logger = logging.getLogger(__name__)

Evaluate = Callable[[PreTrainedModel], dict[str, float]]

LOCK_FILE = ".run.lock"
MODEL_FILES = ("SHA256SUMS", "config.json")
LOCK_SECONDS = 6.0  # a run that was killed holds its lock until its worker processes notice, up to five seconds


@dataclass
class TrainingResult:
    """What `train` returns.

    The model is without wrappers and in evaluation mode: with the averaged weights where `ema_decay` was set, with
    those of the best evaluation where `metric_for_best_model` was.
    """

    model: PreTrainedModel
    step: int
    epoch: float
    metrics: dict[str, float]  # scores of the last evaluation, or of the best if `metric_for_best_model` is set
    minutes: float  # over all starts of the run
    skipped_updates: int  # their loss or gradient was not finite
    checkpoint: Path
    train_log: Path
    is_main_process: bool  # whether this process is the one to save the model
    stopped_early: bool = False


def train(
    model: PreTrainedModel,
    updates: Update | Sequence[Update],
    train_dataset: Any,
    arguments: LoopArguments,
    *,
    collate_fn: Callable | None = None,
    companions: Mapping[str, nn.Module] | None = None,
    evaluate: Evaluate | None = None,
) -> TrainingResult:
    """Train `model` in place and return it with the scores of the run.

    Every iteration takes the next batch and makes each update in order: forward, backward, clipping, optimizer,
    schedule. Checkpoints, `train_log.jsonl` and trackers go to `arguments.output_dir`. Started again with the same
    arguments, a killed run goes on from its newest checkpoint and ends with the same weights bit for bit (on a CPU),
    provided that rows and batches draw from nothing but the global generators of Python, numpy and torch's CPU, which
    are seeded for each batch. A folder belongs to one run: other arguments or other data are refused, and so is a
    second run at the same time.

    On a CPU, numbers below the smallest normal one count as zero meanwhile (`torch.set_flush_denormal`).

    What has a method `set_epoch` (dataset, `collate_fn`, a step) gets the number of each epoch before it begins.

    Args:
        model (`PreTrainedModel`): the model to train.
        updates (`Update` or sequence of them): run in order in every iteration.
        train_dataset (map-style dataset): rows; may have just one, such as a graph.
        arguments (`LoopArguments`): everything else.
        collate_fn (`Callable`, *optional*): makes a batch of a list of rows.
        companions (`Mapping[str, torch.nn.Module]`, *optional*): further modules that steps are given by keyword (a
            discriminator, a teacher); moved, wrapped and checkpointed like the model, left in the mode they are in.
        evaluate (`Callable`, *optional*): `evaluate(model) -> dict[str, float]`, called at the end and as often as
            `eval_steps` or `eval_epochs` say, by the main process while others wait (half an hour at most), with the
            averaged weights where there are any, in evaluation mode and without gradients.

    Raises:
        DivergenceError: If updates in a row, or the model's statistics, are not finite; the last checkpoint is kept.
        CheckpointError: If there is no intact checkpoint to resume from, it is of another run, or a run is in progress
            in `output_dir`.
        OSError: If a checkpoint cannot be written.
    """
    updates = [updates] if isinstance(updates, Update) else list(updates)
    companions = dict(companions or {})
    arguments.check()
    if not updates or not all(isinstance(update, Update) for update in updates):
        raise TypeError(f"`updates` must hold at least one Update and nothing else; got {updates!r}.")
    if len(train_dataset) == 0:
        raise ValueError("`train_dataset` must have at least one row; got none.")
    for name, module in companions.items():
        if not isinstance(module, nn.Module):
            raise TypeError(f"`companions` must be modules; got {type(module).__name__} for {name!r}.")
    if evaluate is None and arguments.metric_for_best_model is not None:
        raise ValueError("`evaluate` must be given for `metric_for_best_model` to be found; got None.")
    loop = _Loop(model, updates, train_dataset, arguments, collate_fn, companions, evaluate)
    with loop.locked(), flushed_denormals():
        loop.resume()
        loop.run()
        return loop.finish()


class _Loop:
    """State and steps of one run."""

    def __init__(
        self,
        model: PreTrainedModel,
        updates: list[Update],
        train_dataset: Any,
        arguments: LoopArguments,
        collate_fn: Callable | None,
        companions: dict[str, nn.Module],
        evaluate: Evaluate | None,
    ):
        self.arguments = arguments
        self.updates = updates
        self.train_dataset = train_dataset
        self.collate_fn = collate_fn
        self.evaluate = evaluate
        self.accelerator = _build_accelerator(arguments)
        self.batches = EpochBatches(
            len(train_dataset),
            arguments.per_device_train_batch_size,
            accumulation_steps=arguments.gradient_accumulation_steps,
            seed=arguments.seed,
            rank=self.accelerator.process_index,
            num_processes=self.accelerator.num_processes,
            drop_last=arguments.dataloader_drop_last,
        )
        self.num_steps = arguments.max_steps or max(
            1, round(arguments.num_train_epochs * self.batches.steps_per_epoch)
        )
        self.runner = UpdateRunner(self.accelerator, model, companions, updates, arguments, self.num_steps)
        self.bare_model = self.runner.bare_model
        self.ema = None
        if arguments.ema_decay is not None:
            self.ema = ExponentialMovingAverage(self.bare_model, arguments.ema_decay, warmup=arguments.ema_warmup)
        self.checkpoints = CheckpointFolder(
            arguments.output_dir, self.accelerator, total_limit=arguments.save_total_limit
        )
        self.best = BestWeights(
            arguments.metric_for_best_model, arguments.greater_is_better, arguments.best_model_ties
        )
        self.log = TrainLog(arguments.output_dir)
        self.window = TermWindow()
        self.progress = Progress(settings=self._get_settings(), recipe=fingerprint_recipe(arguments))
        self.checkpoint = Path()
        self.seconds_since_log = 0.0
        self.rows_since_log = 0
        self.last_save_time = time.monotonic()
        self.lost_best = ""  # what is said of best weights that a resumed run had to give up

    def _get_settings(self) -> dict[str, Any]:
        """What must be equal in all starts of a run: it decides which rows a step sees and how they are drawn."""
        names = ("seed", "per_device_train_batch_size", "gradient_accumulation_steps", "dataloader_drop_last")
        return {
            **{name: getattr(self.arguments, name) for name in names},
            "num_processes": self.accelerator.num_processes,
            "num_rows": len(self.train_dataset),
            "num_updates": len(self.updates),
        }

    # Start and end

    def resume(self) -> None:
        """Clean the folder, and go back to the checkpoint that the arguments ask for."""
        self._refuse_model_folder()
        if self.accelerator.is_main_process:
            self.checkpoints.clean()
        self.progress.data = self._share(lambda: fingerprint_data(self.train_dataset))
        path = self.checkpoints.find(self.arguments.resume_from_checkpoint)
        if path is not None:
            self._load(path)
        if self.accelerator.is_main_process:
            self.log.truncate(self.progress.step, self.progress.evaluated_step)
            if self.lost_best:
                self._append_to_log({"note": self.lost_best})
        if self.arguments.report_to != "none":
            settings = asdict(self.arguments).items()
            simple = {name: value if isinstance(value, (int, float, str)) else str(value) for name, value in settings}
            self.accelerator.init_trackers("decahub", config=simple)
        self.accelerator.wait_for_everyone()

    def _refuse_model_folder(self) -> None:
        """A run would empty the log of a model that is kept in its folder."""
        folder = Path(self.arguments.output_dir)
        if found := [name for name in MODEL_FILES if (folder / name).is_file()]:
            raise CheckpointError(
                f"`output_dir` must be the folder of a run; {folder} holds a model ({found[0]}). Choose another one."
            )

    def _load(self, path: Path) -> None:
        saved = Progress.from_dict(read_progress(path))
        self._check_same_run(saved, path)
        if saved.step > self.num_steps:
            raise CheckpointError(
                f"The run must have at least the {saved.step} steps of {path}; got {self.num_steps}. "
                "Start with the run's own arguments, or in another `output_dir`."
            )
        lost = find_problem(path)  # whatever else is damaged was refused
        if lost:
            self._forget_best_weights(saved, path, lost)
        self.checkpoints.load(path, self.ema)
        self._find_best_weights(saved, path)
        saved.recipe, saved.data = self.progress.recipe, self.progress.data  # absent from old checkpoints
        self.progress = saved
        self.checkpoint = path
        if saved.windows:
            self.window.restore(saved.windows[self.accelerator.process_index])
        if self._is_finished():
            self._announce(f"{path.parent} is already finished at step {saved.step}; nothing to train.")
        else:
            self._announce(f"Resumed from step {saved.step} of {self.num_steps} ({path}).")

    def _check_same_run(self, saved: Progress, path: Path) -> None:
        differences = {
            **find_differences(saved.recipe, self.progress.recipe),
            **find_differences(saved.settings, self.progress.settings),
        }
        if saved.data not in ("", self.progress.data):
            differences["train_dataset"] = (f"data {saved.data}", f"data {self.progress.data}")
        if not differences:
            return
        (name, (old, new)), *others = differences.items()
        also = f" ({len(others)} more differ: {', '.join(other for other, _ in others)})" if others else ""
        raise CheckpointError(
            f"`{name}` must be {old!r} as in {path}; got {new!r}{also}. "
            "Start with the run's own arguments and data, or in another `output_dir`."
        )

    def _find_best_weights(self, saved: Progress, path: Path) -> None:
        if not saved.best_metrics:
            return
        if saved.best_step >= 0:
            self.best.path = path / get_best_name(saved.best_step)
            return
        saved.best_step, self.best.path = 0, path.parent / OLD_BEST_FILE
        if not self.best.path.is_file():
            raise CheckpointError(
                f"`output_dir` must hold {OLD_BEST_FILE}, the best weights of the run; {path.parent} does not. "
                "Restore the file, or start anew in another `output_dir`."
            )

    def _forget_best_weights(self, saved: Progress, path: Path, problem: str) -> None:
        """Go on without the best weights, which are damaged in every checkpoint; the best is sought anew."""
        score = saved.best_metrics.get(str(self.best.metric))
        lost = f"the best weights so far, of step {saved.best_step} with {self.best.metric} {score}, are lost"
        is_over = saved.step == self.num_steps or (
            self.arguments.early_stopping_patience is not None
            and saved.evaluations_since_best >= self.arguments.early_stopping_patience
        )
        if is_over:
            raise CheckpointError(
                f"`output_dir` must hold the best weights of a finished run; {problem} in {path}, so {lost}, and "
                "there is nothing left to train. Restore the file, or start anew in another `output_dir`."
            )
        logger.warning("%s: %s. The run goes on, and keeps the best of the evaluations to come.", problem, lost)
        saved.best_metrics, saved.best_step, saved.evaluations_since_best = {}, -1, 0
        self.lost_best = lost

    def _announce(self, text: str) -> None:
        if self.accelerator.is_main_process:
            tqdm.write(text, file=sys.stderr)

    def _share(self, compute: Callable[[], Any]) -> Any:
        """What `compute` returns in the main process, in all processes."""
        return broadcast_object_list([compute() if self.accelerator.is_main_process else None])[0]

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Context in which the run's folder belongs to this run; the main process holds the lock for all."""
        folder = Path(self.arguments.output_dir)
        lock = FileLock(folder / LOCK_FILE)

        def acquire() -> bool:
            folder.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(timeout=LOCK_SECONDS)
            except Timeout:
                return False
            return True

        if not self._share(acquire):
            raise CheckpointError(
                f"`output_dir` must be the folder of one run at a time; another process trains in {folder}. "
                "Wait until it has finished, or choose another `output_dir`."
            )
        try:
            yield
        finally:
            lock.release()

    # Iterations

    def run(self) -> None:
        """Make the remaining iterations, then the last evaluation."""
        self.runner.model.train()
        progress = self.progress
        with tqdm(
            total=self.num_steps,
            initial=progress.step,
            disable=not self.accelerator.is_main_process,
            unit="step",
            dynamic_ncols=True,
        ) as bar:
            while not self._is_finished():
                epoch, first_step = divmod(progress.step, self.batches.steps_per_epoch)
                self._run_epoch(epoch, first_step, bar)
        # The trained weights are saved by now: an evaluation that fails costs no more than itself.
        if self.evaluate is not None and progress.evaluated_step != progress.step:
            self._evaluate(self.evaluate)
            self.checkpoints.replace_progress(self.checkpoint, asdict(progress), self.best)

    def _run_epoch(self, epoch: int, first_step: int, bar: tqdm) -> None:
        for listener in (self.train_dataset, self.collate_fn, *(update.step for update in self.updates)):
            if hasattr(listener, "set_epoch"):
                listener.set_epoch(epoch)
        self.batches.set_position(epoch, first_step)
        rows = iterate_batches(
            self.train_dataset,
            self.batches,
            collate_fn=self.collate_fn,
            num_workers=self.arguments.dataloader_num_workers,
        )
        for step in range(first_step, self.batches.steps_per_epoch):
            started = time.monotonic()
            num_batches = self.batches.batches_in_step(step)
            batches = [send_to_device(next(rows), self.accelerator.device) for _ in range(num_batches)]
            self.window.add(self.runner.run(batches, self.progress))
            self.progress.step += 1
            if self.ema is not None:
                self.ema.update(num_updates=self.progress.step - 1)
            seconds = time.monotonic() - started
            self.progress.seconds += seconds
            self.seconds_since_log += seconds
            self.rows_since_log += self.batches.rows_in_step(step)
            bar.update()
            self._after_step(bar)
            if self._is_finished():
                break

    # Between iterations

    def _after_step(self, bar: tqdm) -> None:
        is_last = self.progress.step == self.num_steps
        if is_last or self.progress.step % self.arguments.logging_steps == 0:
            self._write_log(bar)
        if self.evaluate is not None and not is_last and self._is_evaluation_due():
            self._evaluate(self.evaluate)
            if self._is_out_of_patience():
                self._log_early_stop(bar)
        if self._is_finished() or self._is_save_due():
            self._save()

    def _is_finished(self) -> bool:
        return self.progress.step == self.num_steps or self._is_out_of_patience()

    def _is_out_of_patience(self) -> bool:
        """Whether the run ends early; equal in all processes and in all starts, since counters and scores are."""
        patience = self.arguments.early_stopping_patience
        return patience is not None and self.progress.evaluations_since_best >= patience

    def _log_early_stop(self, bar: tqdm) -> None:
        if self.window.counts:
            self._write_log(bar)
        number, metric = self.progress.evaluations_since_best, self.best.metric
        reason = f"early stopping: {number} evaluations without a new best {metric}"
        logger.info("The run ends at step %d, %s.", self.progress.step, reason)
        self._append_to_log({"stop_reason": reason})

    def _write_log(self, bar: tqdm) -> None:
        record: dict[str, Any] = compute_means(self.window.gather(self.accelerator))
        record.update(self.progress.learning_rates)
        record["samples_per_second"] = self.rows_since_log / max(self.seconds_since_log, 1e-9)
        if self.progress.skipped_updates:
            record["skipped_updates"] = self.progress.skipped_updates
        self._report(record)
        bar.set_postfix(
            {name: f"{value:.4g}" for name, value in record.items() if name.endswith(("loss", "rate", "second"))}
        )
        self.window.clear()
        self.seconds_since_log, self.rows_since_log = 0.0, 0

    def _append_to_log(self, record: dict[str, Any]) -> None:
        if self.accelerator.is_main_process:
            step = self.progress.step
            self.log.append({"step": step, "epoch": step / self.batches.steps_per_epoch, **record})

    def _report(self, record: dict[str, Any]) -> None:
        self._append_to_log(record)
        self.accelerator.log(record, step=self.progress.step)  # in the main process only

    def _is_evaluation_due(self) -> bool:
        step, arguments = self.progress.step, self.arguments
        every_epochs = (arguments.eval_epochs or 0) * self.batches.steps_per_epoch
        return any(every and step % every == 0 for every in (arguments.eval_steps, every_epochs))

    def _evaluate(self, evaluate: Evaluate) -> None:
        """Evaluate in the main process; the others wait."""
        started = time.monotonic()
        progress = self.progress

        def measure() -> dict[str, float]:
            averaged = nullcontext() if self.ema is None else self.ema.applied_to(self.bare_model)
            with averaged, evaluation_mode(self.bare_model), torch.no_grad():
                scores = {name: float(value) for name, value in evaluate(self.bare_model).items()}
                if self.best.is_better(scores, progress.best_metrics):
                    self.best.keep(self.bare_model)
            return scores

        progress.metrics = self._share(measure)
        progress.evaluated_step = progress.step
        progress.evaluations_since_best += 1
        if self.best.is_better(progress.metrics, progress.best_metrics):
            progress.best_metrics, progress.best_step = progress.metrics, progress.step
            progress.evaluations_since_best = 0
        self._report({f"{EVALUATED}{name}": value for name, value in progress.metrics.items()})
        progress.seconds += time.monotonic() - started

    def _is_save_due(self) -> bool:
        arguments = self.arguments
        due = arguments.save_steps is not None and self.progress.step % arguments.save_steps == 0
        if due or arguments.save_every_minutes is None:
            return due
        late = torch.tensor(float(time.monotonic() - self.last_save_time >= arguments.save_every_minutes * 60))
        if self.accelerator.num_processes > 1:  # clocks differ, the decision must not
            late = self.accelerator.reduce(late.to(self.accelerator.device), reduction="max")
        return bool(late.item())

    def _save(self) -> None:
        started = time.monotonic()
        self.progress.windows = self.window.gather(self.accelerator)
        self.checkpoint = self.checkpoints.save(asdict(self.progress), self.ema, self.best)
        self.last_save_time = time.monotonic()
        self.progress.seconds += self.last_save_time - started

    def finish(self) -> TrainingResult:
        """Load the best or averaged weights, if wanted, into the bare model and return it."""
        for tracker in self.accelerator.trackers:
            tracker.finish()
        model = self.accelerator.unwrap_model(self.runner.model, keep_fp32_wrapper=False)
        if self.best.path is not None:
            self.best.load(model)
        elif self.ema is not None:
            self.ema.copy_to(model)
        model.eval()
        progress = self.progress
        return TrainingResult(
            model=model,
            step=progress.step,
            epoch=progress.step / self.batches.steps_per_epoch,
            metrics=progress.best_metrics or progress.metrics,
            minutes=progress.seconds / 60,
            skipped_updates=progress.skipped_updates,
            checkpoint=self.checkpoint,
            train_log=self.log.path,
            is_main_process=self.accelerator.is_main_process,
            stopped_early=progress.step < self.num_steps,
        )


def _build_accelerator(arguments: LoopArguments) -> Accelerator:
    if arguments.report_to != "none" and importlib.util.find_spec(arguments.report_to) is None:
        raise ImportError(
            f"`report_to` is {arguments.report_to!r}, which is not installed: pip install {arguments.report_to}"
        )
    return Accelerator(
        cpu=arguments.use_cpu or not torch.accelerator.is_available(),
        mixed_precision=arguments.mixed_precision,
        # Accumulation is counted here, per update; given a plugin, Accelerate does not read the launcher's setting.
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        # Accelerate would step a schedule once for each process.
        step_scheduler_with_optimizer=False,
        log_with=None if arguments.report_to == "none" else arguments.report_to,
        project_dir=arguments.output_dir,
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=arguments.ddp_find_unused_parameters)],
    )
