"""MPD subtyping: members that train as one against a loop over them, in plain PyTorch.

Both make the same steps of AdamW on the same made-up patients. The reference has one autoencoder for each member.
"""

from functools import partial
from pathlib import Path

from .timing import Case, Sampler, timed


BATCH_SIZE, NUM_STEPS = 64, 3
NUM_FEATURES = (128, 200)  # principal components of voxels; regions
LEARNING_RATE, WEIGHT_DECAY = 1e-3, 1e-4


def build_reference(config):
    """One small network for each member."""
    from torch import nn

    (hidden,) = config.hidden_sizes
    return [
        nn.Sequential(
            nn.Linear(config.num_features, hidden), nn.ReLU(), nn.Linear(hidden, size),
            nn.Linear(size, hidden), nn.ReLU(), nn.Linear(hidden, config.num_features),
        )
        for _, size in config.members
    ]  # fmt: skip


def build_steps(folder: Path, num_features: int) -> tuple[Sampler, Sampler]:
    """A few training steps of all 54 members."""
    import torch

    from decahub import MpdSubtypingConfig, MpdSubtypingModel

    config = MpdSubtypingConfig(num_features=num_features)
    features = torch.randn(BATCH_SIZE, num_features, generator=torch.Generator().manual_seed(0))
    model, members = MpdSubtypingModel(config), build_reference(config)
    options = {"lr": LEARNING_RATE, "weight_decay": WEIGHT_DECAY, "fused": True}
    optimizer = torch.optim.AdamW(model.parameters(), **options)
    optimizers = [torch.optim.AdamW(member.parameters(), **options) for member in members]

    def train_as_one() -> None:
        for _ in range(NUM_STEPS):
            optimizer.zero_grad()
            model(features).loss.backward()
            optimizer.step()

    def train_in_a_loop() -> None:
        for _ in range(NUM_STEPS):
            for member, own in zip(members, optimizers, strict=True):
                own.zero_grad()
                (member(features) - features).square().mean().backward()
                own.step()

    return timed(train_as_one), timed(train_in_a_loop)


CASES = [
    Case(
        f"{NUM_STEPS} training steps of 54 members",
        "torch: a loop over the members",
        partial(build_steps, num_features=number),
        (number, "features"),
    )
    for number in NUM_FEATURES
]
