"""A tiny model, a rival and rows for tests of the training loop; also a command, for tests that start processes.

The run has all that makes resuming hard: batch norm, dropout, rows with noise from the global generators, two
optimizers of which one runs in every second iteration, schedules, accumulation, an average of the weights.
"""

import os
import random
import signal
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset
from transformers import PreTrainedConfig, PreTrainedModel

from decahub.training import LoopArguments, TrainingResult, Update, argument, load_recipe, train


NUM_FEATURES = 5
NUM_LABELS = 3
WEIGHTS_FILE = "result.safetensors"
BEST_NORM = 23.0


class ToyConfig(PreTrainedConfig):
    model_type = "training_toy"
    hidden_size: int = 7
    dropout: float = 0.25


class ToyModel(PreTrainedModel):
    config_class = ToyConfig

    def __init__(self, config: ToyConfig):
        super().__init__(config)
        self.hidden = nn.Linear(NUM_FEATURES, config.hidden_size)
        self.norm = nn.BatchNorm1d(config.hidden_size)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(config.hidden_size, NUM_LABELS)
        self.post_init()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.dropout(self.norm(self.hidden(features)).relu()))


class ToyRows(Dataset):
    """Rows whose features change at every look, with noise from all three global generators."""

    def __init__(self, num_rows: int = 46, noise: float = 0.1):
        generator = torch.Generator().manual_seed(0)
        self.features = torch.randn(num_rows, NUM_FEATURES, generator=generator)
        self.labels = self.features[:, :NUM_LABELS].argmax(-1)
        self.noise = noise

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        noise = torch.randn(NUM_FEATURES) + np.random.randn() + random.gauss(0, 1)
        return {"features": self.features[index] + self.noise * noise, "labels": self.labels[index]}


@dataclass
class ToyArguments(LoopArguments):
    kill_before_step: int | None = argument(None, "Step function call at which the process ends itself.")


def build_model(seed: int = 0, **config) -> ToyModel:
    torch.manual_seed(seed)
    return ToyModel(ToyConfig(**config))


def compute_loss(model: nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {"loss": F.cross_entropy(model(batch["features"]), batch["labels"])}


def compute_rival_loss(model: nn.Module, batch: dict[str, torch.Tensor], rival: nn.Module) -> dict[str, torch.Tensor]:
    logits = model(batch["features"])
    return {"loss": F.mse_loss(rival(logits.detach()), batch["features"])}


def compute_rivaled_loss(
    model: nn.Module, batch: dict[str, torch.Tensor], rival: nn.Module
) -> dict[str, torch.Tensor]:
    logits = model(batch["features"])
    entropy = F.cross_entropy(logits, batch["labels"])
    rivalry = F.mse_loss(rival(logits), batch["features"])
    return {"loss": entropy - 0.1 * rivalry, "rivalry": rivalry}


def run_toy(
    arguments: LoopArguments, before_step: Callable[[], None] = lambda: None, rows: Dataset | None = None
) -> TrainingResult:
    """Train the toy against its rival; `before_step` is called before each step function."""
    model = build_model()
    rival = nn.Sequential(nn.Linear(NUM_LABELS, 4), nn.Dropout(0.2), nn.Linear(4, NUM_FEATURES))

    def step(model: nn.Module, batch: dict[str, torch.Tensor], rival: nn.Module) -> dict[str, torch.Tensor]:
        before_step()
        return compute_rivaled_loss(model, batch, rival)

    updates = [
        Update(torch.optim.AdamW(model.parameters(), lr=0.01), step, arguments.build_scheduler, name="model"),
        Update(torch.optim.SGD(rival.parameters(), lr=0.1, momentum=0.9), compute_rival_loss, every=2, name="rival"),
    ]
    return train(
        model,
        updates,
        ToyRows() if rows is None else rows,
        arguments,
        companions={"rival": rival.train()},
        evaluate=evaluate,
    )


def evaluate(model: nn.Module) -> dict[str, float]:
    """The norm of the weights and statistics, which grows with each step, and a score that is best at `BEST_NORM`."""
    norm = compute_norm(model)
    return {"norm": norm, "nearness": -abs(norm - BEST_NORM)}


def compute_norm(model: nn.Module) -> float:
    return sum(tensor.double().norm().item() for tensor in model.state_dict().values())


def kill_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    arguments = load_recipe(ToyArguments)
    calls = 0

    def count_down() -> None:
        nonlocal calls
        if calls == arguments.kill_before_step:
            kill_itself()
        calls += 1

    result = run_toy(arguments, before_step=count_down)
    if result.is_main_process:
        save_file(result.model.state_dict(), result.checkpoint.parent / WEIGHTS_FILE)
        print(f"processes: {torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1}")


if __name__ == "__main__":
    main()
