"""Forward, backward, clipping, optimizer and schedule of one update, on one or several processes."""

import logging
import math
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer

from decahub.seeding import seed_everything

from .arguments import LoopArguments
from .checkpoint import Progress
from .updates import Update, check_terms


logger = logging.getLogger(__name__)

# One bad batch happens; a run in which ten updates in a row are not finite has diverged and does not come back.
MAX_CONSECUTIVE_SKIPS = 10

# Where Accelerate leaves backward pass and optimizer as they are; losses are not scaled, as there is no float16. Its
# wrappers would look for a package that is not there at each call, which is felt beside the step of a small model.
PLAIN_BACKENDS = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)


class DivergenceError(ValueError):
    """Training that cannot go on because losses, gradients or statistics are no longer finite."""


class UpdateRunner:
    """Makes updates on what it prepared for the accelerator.

    Modules, optimizers and schedules are prepared in a fixed order, which is also the order of files in a checkpoint.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        model: nn.Module,
        companions: dict[str, nn.Module],
        updates: list[Update],
        arguments: LoopArguments,
        num_steps: int,
    ):
        self.accelerator = accelerator
        self.arguments = arguments
        self.updates = updates
        self.model = accelerator.prepare(model)
        self.companions = {name: accelerator.prepare(module) for name, module in companions.items()}
        self.is_plain = accelerator.distributed_type in PLAIN_BACKENDS
        self.bare_model = accelerator.unwrap_model(self.model)
        self.bare_companions = {name: accelerator.unwrap_model(module) for name, module in self.companions.items()}
        self.optimizers = [self._prepare_optimizer(update.optimizer) for update in updates]
        self.schedulers = []
        for update in updates:
            scheduler = update.scheduler
            if callable(scheduler) and update.optimizer is not None:
                scheduler = scheduler(update.optimizer, update.count_runs(num_steps))
            self.schedulers.append(None if scheduler is None else accelerator.prepare(scheduler))

    def _prepare_optimizer(self, optimizer: Optimizer | None) -> Any:
        if optimizer is None:
            return None
        prepared = self.accelerator.prepare(optimizer)
        return prepared.optimizer if self.is_plain else prepared

    def run(self, batches: Sequence[Any], progress: Progress) -> dict[str, torch.Tensor]:
        """Make the updates of one iteration and return the terms to log, scalars on their device.

        The rates that were used are in `progress.learning_rates` afterwards.
        """
        terms: dict[str, torch.Tensor] = {}
        for index, update in enumerate(self.updates):
            if progress.step % update.every == 0:
                prefix = "" if len(self.updates) == 1 else f"{update.name or index}/"
                optimizer = self.optimizers[index]
                if optimizer is not None:
                    progress.learning_rates[f"{prefix}learning_rate"] = float(optimizer.param_groups[0]["lr"])
                for name, value in self._run_update(index, batches, progress).items():
                    terms[prefix + name] = value
        return terms

    def _run_update(self, index: int, batches: Sequence[Any], progress: Progress) -> dict[str, torch.Tensor]:
        update, optimizer, scheduler = self.updates[index], self.optimizers[index], self.schedulers[index]
        if optimizer is not None:
            optimizer.zero_grad()
        terms = self._accumulate_terms(index, batches, progress.step)
        if optimizer is not None:
            terms["grad_norm"] = get_total_norm(_get_gradients(optimizer))
        decisive = [terms[name] for name in ("loss", "grad_norm") if name in terms]
        finite = not decisive or self._is_finite_everywhere(torch.stack(decisive).sum())
        if not finite:
            self._skip(terms, progress)
        elif optimizer is not None:
            self._step(optimizer, terms["grad_norm"])
            progress.consecutive_skips = 0
        if scheduler is not None:
            scheduler.step()  # also after a skip: the schedule depends on the step alone
        if finite and update.after is not None:
            with torch.no_grad():
                update.after(self.bare_model, batches[-1], **self.bare_companions)
        return terms if finite else {}

    def _step(self, optimizer: Optimizer, grad_norm: torch.Tensor) -> None:
        limit = self.arguments.max_grad_norm
        if limit is not None and grad_norm.item() > limit:
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            clip_grads_with_norm_(parameters, limit, grad_norm)
        optimizer.step()

    def _accumulate_terms(self, index: int, batches: Sequence[Any], step: int) -> dict[str, torch.Tensor]:
        """The mean of each term over the micro-batches; with an optimizer, also the gradient of the mean loss."""
        means: dict[str, torch.Tensor] = {}
        learns = self.optimizers[index] is not None
        for number, batch in enumerate(batches):
            seed_everything(self.arguments.seed, "update", index, step, number, self.accelerator.process_index)
            is_last = number == len(batches) - 1
            with self._synchronized(is_last), torch.set_grad_enabled(learns):
                terms = self.updates[index].step(self.model, batch, **self.companions)
                terms = check_terms(terms, with_gradients=learns)
                if learns and self.is_plain:
                    (terms["loss"] / len(batches)).backward()
                elif learns:
                    self.accelerator.backward(terms["loss"] / len(batches))
            for name, value in terms.items():
                means[name] = means.get(name, 0) + value.detach() / len(batches)
        return means

    def _synchronized(self, synchronize: bool) -> ExitStack:
        """Context whose backward pass shares gradients among processes only if asked: once a step is enough."""
        stack = ExitStack()
        if not synchronize:
            for module in (self.model, *self.companions.values()):
                stack.enter_context(self.accelerator.no_sync(module))
        return stack

    def _is_finite_everywhere(self, value: torch.Tensor) -> bool:
        """Whether `value` is finite in all processes, so that all of them make or skip an update."""
        infinite = (~torch.isfinite(value.detach())).float()
        if self.accelerator.num_processes > 1:
            infinite = self.accelerator.reduce(infinite, reduction="max")
        return not infinite.item()

    def _skip(self, terms: dict[str, torch.Tensor], progress: Progress) -> None:
        progress.skipped_updates += 1
        progress.consecutive_skips += 1
        given = f"loss {terms['loss'].item():g}"
        if "grad_norm" in terms:
            given += f", gradient norm {terms['grad_norm'].item():g}"
        logger.warning("Step %d is skipped: %s.", progress.step, given)
        if not self._is_finite_everywhere(_find_statistics_extreme(self.model, *self.companions.values())):
            raise DivergenceError(
                f"Running statistics of the model must be finite; they are not after step {progress.step} "
                f"({given}). Look for infinite values in the data; the last checkpoint is kept."
            )
        if progress.consecutive_skips >= MAX_CONSECUTIVE_SKIPS:
            raise DivergenceError(
                f"`loss` and its gradient must be finite; they were not in {progress.consecutive_skips} updates in a "
                f"row up to step {progress.step} ({given}). Lower `learning_rate` or "
                "set `max_grad_norm`; the last checkpoint is kept."
            )


def _get_gradients(optimizer: Optimizer) -> list[torch.Tensor]:
    return [
        parameter.grad
        for group in optimizer.param_groups
        for parameter in group["params"]
        if parameter.grad is not None
    ]


def _find_statistics_extreme(*modules: nn.Module) -> torch.Tensor:
    """Largest magnitude in all running statistics (batch norm): not finite if one of them is not."""
    statistics = [
        buffer
        for module in modules
        for name, buffer in module.named_buffers()
        if name.endswith(("running_mean", "running_var"))
    ]
    return get_total_norm(statistics, norm_type=math.inf)
