"""DoorPing against its reference in plain PyTorch: an update of the trigger, and an iteration of DC.

The authors' code adds a hook to the network in every step of the trigger, which makes each step slower than the one
before; the reference does not.
"""

from functools import partial
from pathlib import Path

from .timing import Case, Sampler, timed


NUM_CLASSES, IMAGES_PER_CLASS = 10, 10
STEPS = 200
OUTER, INNER = 2, 5


def build_pair(width: int = 32, num_channels: int = 1):
    """A ConvNet whose hidden units are active, and its reference with the same weights."""
    import torch

    from decahub import ConvNetConfig, ConvNetForImageClassification

    from .reference_doorping import ReferenceConvNet

    torch.manual_seed(0)
    config = ConvNetConfig(hidden_size=width, num_channels=num_channels, num_labels=NUM_CLASSES)
    network = ConvNetForImageClassification(config)
    with torch.no_grad():
        network.classifier[0].bias += 0.3
    return network, ReferenceConvNet(network)


def build_trigger(num_channels: int):
    """A random patch, and its mask."""
    import torch

    from decahub.models.doorping.triggers import build_mask, draw_bytes

    mask = build_mask(num_channels, 32, 2, 1)
    return draw_bytes(mask, 255, torch.Generator().manual_seed(0))[None] / 255, mask


def build_trigger_update(folder: Path, width: int, num_channels: int) -> tuple[Sampler, Sampler]:
    from decahub.models.doorping.triggers import update_trigger

    from . import reference_doorping

    network, reference = build_pair(width, num_channels)
    trigger, mask = build_trigger(num_channels)
    ours = partial(update_trigger, network, trigger, mask, steps=STEPS, loss_threshold=0.0)
    return timed(ours), timed(partial(reference_doorping.update_trigger, reference, trigger, mask, STEPS))


def build_matching(real_batch_size: int, num_channels: int = 1):
    """Functions that make one iteration of DC from the same start, and the images that each changes."""
    import torch

    from decahub import DistilledDataset, DoorpingConfig
    from decahub.procedures.doorping import MatchingStep, RealImages

    from .reference_doorping import run_iteration

    network, reference = build_pair(32, num_channels)
    config = DoorpingConfig(
        num_channels=num_channels,
        num_labels=NUM_CLASSES,
        images_per_class=IMAGES_PER_CLASS,
        outer_loops=OUTER,
        inner_loops=INNER,
        real_batch_size=real_batch_size,
        backbone_config=network.config,
    )
    model = DistilledDataset(config)
    labels = torch.arange(NUM_CLASSES).repeat_interleave(real_batch_size)
    images = torch.randn(len(labels), num_channels, 32, 32)
    step = MatchingStep(RealImages(images, labels), num_steps=OUTER)
    synthetic = model.synthetic_images.detach().clone().requires_grad_()
    optimizers = [torch.optim.SGD([values], lr=0.1, momentum=0.5) for values in (model.synthetic_images, synthetic)]

    def run_ours() -> None:
        for loop in range(OUTER):
            model.num_updates.fill_(loop + OUTER * (loop == 0) + (loop == 0))  # never 0: the network stays as it is
            optimizers[0].zero_grad()
            step(model, {}, network)["loss"].backward()
            optimizers[0].step()
            model.num_updates.fill_(loop)
            step.train_network(model, {}, network)

    real = list(images.split(real_batch_size))
    run_reference = partial(
        run_iteration, reference, synthetic, model.synthetic_labels, real, optimizers[1], OUTER, INNER
    )
    return run_ours, run_reference, model.synthetic_images, synthetic


def build_dc_iteration(folder: Path, real_batch_size: int, num_channels: int) -> tuple[Sampler, Sampler]:
    ours, reference, *_ = build_matching(real_batch_size, num_channels)
    return timed(ours), timed(reference)


PLAIN = "torch: the formulas, written plainly"
CASES = [
    Case("trigger update width 32 gray", PLAIN, partial(build_trigger_update, width=32, num_channels=1)),
    Case("trigger update width 128 RGB", PLAIN, partial(build_trigger_update, width=128, num_channels=3)),
    *(
        Case(
            "iteration of DC",
            PLAIN,
            partial(build_dc_iteration, real_batch_size=number, num_channels=1),
            (number, "real images a class"),
        )
        for number in (64, 256)
    ),
]
