"""Training of the members: parameter groups, the inner validation split, and the best weights of each member.

Members do not mix: the loss is a sum over them, and AdamW acts on each weight alone. So all train in one step, and
each keeps the weights of its own best epoch.
"""

from typing import Any

import numpy as np
import torch
from torch import nn

from ..shared.parameter_names import is_free_of_decay, iterate_trained, split_groups


def build_parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Parameters of the members for AdamW: weights with decay, biases without."""
    named = list(iterate_trained(model))
    return split_groups([is_free_of_decay(*pair) for pair in named], [value for _, value in named], weight_decay)


def split_validation(num_patients: int, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on and rows to validate on, in increasing order; at least one row each."""
    order = np.random.default_rng(seed).permutation(num_patients)
    num_validation = min(max(1, round(share * num_patients)), num_patients - 1)
    return np.sort(order[num_validation:]), np.sort(order[:num_validation])


class MemberRecord(nn.Module):
    """The best weights of each member so far, by its reconstruction error on validation patients.

    A member that has not improved for `patience` epochs is done: what it learns later is not kept. All is in buffers,
    so that a resumed run goes on with the same bits.

    Args:
        model (`MpdSubtypingModel`): The model in training.
        validation (`torch.Tensor` of shape `(rows, features)`): Patients to validate on.
        steps_per_epoch (`int`): Optimizer steps between two looks.
        patience (`int`): Epochs without improvement after which a member is done.
    """

    def __init__(self, model: Any, validation: torch.Tensor, steps_per_epoch: int, patience: int):
        super().__init__()
        num_members = model.config.num_members
        self.steps_per_epoch, self.patience = steps_per_epoch, patience
        self.register_buffer("validation", validation.detach().clone())
        self.register_buffer("step", torch.zeros((), dtype=torch.long))
        self.register_buffer("num_improvements", torch.zeros((), dtype=torch.long))
        self.register_buffer("best_error", torch.full((num_members,), torch.inf))
        self.register_buffer("best_epoch", torch.zeros(num_members, dtype=torch.long))
        self.register_buffer("stale_epochs", torch.zeros(num_members, dtype=torch.long))
        for name, parameter in model.autoencoders.named_parameters():
            self.register_buffer(self._rename(name), parameter.detach().clone())

    # Buffers, for type checkers.
    step: torch.Tensor
    num_improvements: torch.Tensor
    best_error: torch.Tensor
    best_epoch: torch.Tensor
    stale_epochs: torch.Tensor
    validation: torch.Tensor

    @staticmethod
    def _rename(name: str) -> str:
        return "best_" + name.replace(".", "_")

    @property
    def is_done(self) -> torch.Tensor:
        """Which members are done, `(num_members,)`."""
        return self.stale_epochs >= self.patience

    @torch.no_grad()
    def update(self, model: Any) -> None:
        """Count a step; after the last one of an epoch, look which members have improved."""
        self.step += 1
        if self.step % self.steps_per_epoch:
            return
        was_training = model.training
        model.eval()
        errors = compute_errors(model, self.validation).mean(1)
        model.train(was_training)
        improved = (errors < self.best_error) & ~self.is_done
        self.stale_epochs = torch.where(improved, 0, self.stale_epochs + 1)
        self.best_error = torch.where(improved, errors, self.best_error)
        self.best_epoch = torch.where(improved, self.step // self.steps_per_epoch, self.best_epoch)
        self.num_improvements += improved.sum()
        for name, parameter in model.autoencoders.named_parameters():
            best = getattr(self, self._rename(name))
            best[improved] = parameter.detach()[improved]

    @torch.no_grad()
    def restore(self, model: Any) -> None:
        """Put the best weights of each member into the model."""
        for name, parameter in model.autoencoders.named_parameters():
            parameter.copy_(getattr(self, self._rename(name)))


@torch.no_grad()
def compute_errors(model: Any, features: torch.Tensor) -> torch.Tensor:
    """Mean squared reconstruction error of each patient by each member, `(num_members, num_patients)`."""
    inputs = model.project(features)
    reconstructions = model.autoencoders.decode(model.autoencoders.encode(inputs))
    return (reconstructions - inputs).square().mean(-1)


__all__ = ["MemberRecord", "build_parameter_groups", "compute_errors", "split_validation"]
