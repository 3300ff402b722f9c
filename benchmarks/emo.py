"""EMO against its reference in plain PyTorch, and beside the models that it competes with.

The models keep the weights of their initialization, the same for EMO and its reference: speed does not depend on them.
Inference runs the fused model, as the documentation advises. Peers run in channels_last, their fastest form in eager
mode; folding the batch norms of those that `torch.fx` can trace made them no faster.

A training step of EMO-1M takes twice as long as one of EdgeNeXt-XXS, which has as many multiplications. The matrix
products of both take as long. The rest is the architecture: EMO's depth-wise convolutions, batch norms and one more
activation work on the expanded maps, EdgeNeXt's convolutions and norms on the narrow ones; the largest part is torch's
weight gradient of the 5 x 5 depth-wise convolutions.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from .timing import Case, Sampler, timed


NUM_LABELS = 1000  # ImageNet-1K
IMAGE_SIZE = 224
SMALL_IMAGES = {"stem_stride": 1, "window_sizes": [4, 4, 4, 2], "num_labels": 10}  # how EMO is set up for 32 pixels

TIMM_PEERS = ("mobilenetv4_conv_small", "mobilevit_xxs", "mobilevitv2_050")  # besides EdgeNeXt-XXS


def build_emo_pair(variant: str, **overrides):
    """An EMO classifier and its reference with the same weights."""
    import torch

    from conversion.convert_emo import revert_state_dict
    from decahub import EmoConfig, EmoForImageClassification

    from .reference_emo import ReferenceEmo

    torch.manual_seed(0)
    # The reference has no stochastic depth, so that both do the same work in a training step.
    config = EmoConfig.from_variant(variant, **{"num_labels": NUM_LABELS, "drop_path_rate": 0.0, **overrides})
    model, reference = EmoForImageClassification(config), ReferenceEmo(config)
    reference.load_state_dict(revert_state_dict(model.state_dict(), config))
    return model, reference


def build_inference(folder: Path, variant: str, batch_size: int, fuse: bool = True) -> tuple[Sampler, Sampler]:
    model, reference = build_emo_pair(variant)
    model = model.eval().fuse() if fuse else model.eval()
    pixel_values = build_pixel_values(batch_size)
    return timed_inference(model, pixel_values), timed_inference(reference.eval(), pixel_values)


def build_peer_inference(
    folder: Path, peer: str, variant: str, batch_size: int, image_size: int
) -> tuple[Sampler, Sampler]:
    import torch

    model, _ = build_emo_pair(variant)
    pixel_values = build_pixel_values(batch_size, image_size)
    ours = timed_inference(model.eval().fuse(), pixel_values)
    return ours, timed_inference(build_timm_peer(peer).eval(), pixel_values.to(memory_format=torch.channels_last))


def build_timm_peer(name: str):
    import timm
    import torch

    return timm.create_model(name, num_classes=NUM_LABELS).to(memory_format=torch.channels_last)


def build_pixel_values(batch_size: int, image_size: int = IMAGE_SIZE):
    import torch

    return torch.randn(batch_size, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))


def timed_inference(model, pixel_values) -> Sampler:
    import torch

    return timed(torch.inference_mode()(partial(model, pixel_values)))


def build_train_step(folder: Path, variant: str, batch_size: int, image_size: int, **overrides):
    model, reference = build_emo_pair(variant, **overrides)
    pixel_values = build_pixel_values(batch_size, image_size)
    ours = timed_step(model, lambda: model(pixel_values).logits)
    return ours, timed_step(reference, lambda: reference(pixel_values))


def build_peer_train_step(folder: Path, peer: str, variant: str, batch_size: int) -> tuple[Sampler, Sampler]:
    import torch

    (model, _), network = build_emo_pair(variant), build_timm_peer(peer)
    pixel_values = build_pixel_values(batch_size)
    ours = timed_step(model, lambda: model(pixel_values).logits)
    pixel_values_of_peer = pixel_values.to(memory_format=torch.channels_last)
    return ours, timed_step(network, lambda: network(pixel_values_of_peer))


def timed_step(network, compute_logits: Callable) -> Sampler:
    """A sampler of a training step with the classes 0, 1, ... as labels."""
    import torch

    optimizer = torch.optim.AdamW(network.train().parameters(), lr=1e-4)

    def step() -> None:
        logits = compute_logits()
        labels = torch.arange(len(logits)) % logits.shape[1]
        torch.nn.functional.cross_entropy(logits, labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    return timed(step)


def build_load(folder: Path, variant: str) -> tuple[Sampler, Sampler]:
    from transformers import AutoModelForImageClassification, MobileViTConfig, MobileViTForImageClassification

    from decahub import EmoConfig, EmoForImageClassification

    ours, peer = folder / "emo", folder / "mobilevit"
    EmoForImageClassification(EmoConfig.from_variant(variant, num_labels=NUM_LABELS)).save_pretrained(ours)
    MobileViTForImageClassification(MobileViTConfig(num_labels=NUM_LABELS)).save_pretrained(peer)
    load = AutoModelForImageClassification.from_pretrained
    return timed(partial(load, ours)), timed(partial(load, peer))


PLAIN = "torch: the formulas, written plainly"
EDGENEXT = "edgenext_xx_small"
CASES = [
    *(
        Case(
            f"inference emo-{variant} batch {batch_size}",
            PLAIN,
            partial(build_inference, variant=variant, batch_size=batch_size),
            (IMAGE_SIZE**2, "pixels"),
        )
        for variant in ("1m", "5m")
        for batch_size in (1, 8)
    ),
    *(
        Case(
            f"inference emo-1m batch {batch_size}",
            f"timm: {name}",
            partial(build_peer_inference, peer=name, variant="1m", batch_size=batch_size, image_size=image_size),
            (image_size**2, "pixels"),
        )
        for batch_size in (1, 8)
        for name, image_sizes in ((EDGENEXT, (128, IMAGE_SIZE, 384)), *((name, (IMAGE_SIZE,)) for name in TIMM_PEERS))
        for image_size in image_sizes
    ),
    Case(
        "inference emo-1m batch 8, not fused", PLAIN, partial(build_inference, variant="1m", batch_size=8, fuse=False)
    ),
    Case(
        "train step emo-1m batch 8",
        PLAIN,
        partial(build_train_step, variant="1m", batch_size=8, image_size=IMAGE_SIZE),
    ),
    Case(
        "train step emo-1m batch 8",
        f"timm: {EDGENEXT}",
        partial(build_peer_train_step, peer=EDGENEXT, variant="1m", batch_size=8),
    ),
    Case(
        "train step emo-1m batch 64, 32 pixels",
        PLAIN,
        partial(build_train_step, variant="1m", batch_size=64, image_size=32, **SMALL_IMAGES),
    ),
    Case("load emo-5m", "transformers: mobilevit-small", partial(build_load, variant="5m")),
]
