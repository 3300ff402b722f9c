"""EMO against its reference in plain PyTorch, and beside the models that it competes with.

The models keep the weights of their initialization, the same for EMO and its reference: speed does not depend on them.
Inference runs the fused model, as the documentation advises. Peers are built as their libraries build them.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from .timing import Case, Sampler, timed


NUM_LABELS = 1000  # ImageNet-1K
IMAGE_SIZE = 224
SMALL_IMAGES = {"stem_stride": 1, "window_sizes": [4, 4, 4, 2], "num_labels": 10}  # how EMO is set up for 32 pixels

TIMM_PEERS = ("mobilevit_xxs", "edgenext_xx_small")
# What `apple/mobilevit-xx-small` changes from transformers' defaults, which are those of MobileViT-S.
MOBILEVIT_XXS = {
    "hidden_sizes": [64, 80, 96],
    "neck_hidden_sizes": [16, 16, 24, 48, 64, 80, 320],
    "expand_ratio": 2.0,
}


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


def build_peer_inference(folder: Path, build_peer: Callable, variant: str, batch_size: int) -> tuple[Sampler, Sampler]:
    model, _ = build_emo_pair(variant)
    pixel_values = build_pixel_values(batch_size)
    return timed_inference(model.eval().fuse(), pixel_values), timed_inference(build_peer().eval(), pixel_values)


def build_timm_peer(name: str):
    import timm

    return timm.create_model(name, num_classes=NUM_LABELS)


def build_mobilevit(**overrides):
    from transformers import MobileViTConfig, MobileViTForImageClassification

    return MobileViTForImageClassification(MobileViTConfig(num_labels=NUM_LABELS, **overrides))


def build_pixel_values(batch_size: int, image_size: int = IMAGE_SIZE):
    import torch

    return torch.randn(batch_size, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))


def timed_inference(model, pixel_values) -> Sampler:
    import torch

    return timed(torch.inference_mode()(partial(model, pixel_values)))


def build_train_step(folder: Path, variant: str, batch_size: int, image_size: int, **overrides):
    import torch

    model, reference = build_emo_pair(variant, **overrides)
    pixel_values = build_pixel_values(batch_size, image_size)
    labels = torch.arange(batch_size) % model.config.num_labels

    def build_step(network, compute_logits: Callable) -> Callable:
        optimizer = torch.optim.AdamW(network.train().parameters(), lr=1e-4)

        def step() -> None:
            loss = torch.nn.functional.cross_entropy(compute_logits(network(pixel_values)), labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

        return step

    ours = build_step(model, lambda outputs: outputs.logits)
    return timed(ours), timed(build_step(reference, lambda logits: logits))


def build_load(folder: Path, variant: str) -> tuple[Sampler, Sampler]:
    from transformers import AutoModelForImageClassification

    from decahub import EmoConfig, EmoForImageClassification

    ours, peer = folder / "emo", folder / "mobilevit"
    EmoForImageClassification(EmoConfig.from_variant(variant, num_labels=NUM_LABELS)).save_pretrained(ours)
    build_mobilevit().save_pretrained(peer)
    load = AutoModelForImageClassification.from_pretrained
    return timed(partial(load, ours)), timed(partial(load, peer))


PLAIN = "torch: the formulas, written plainly"
CASES = [
    *(
        Case(
            f"inference emo-{variant} batch {batch_size}",
            PLAIN,
            partial(build_inference, variant=variant, batch_size=batch_size),
        )
        for variant in ("1m", "5m")
        for batch_size in (1, 8)
    ),
    Case(
        "inference emo-1m batch 8 not fused", PLAIN, partial(build_inference, variant="1m", batch_size=8, fuse=False)
    ),
    Case(
        "train step emo-1m batch 8",
        PLAIN,
        partial(build_train_step, variant="1m", batch_size=8, image_size=IMAGE_SIZE),
    ),
    Case(
        "train step emo-1m batch 64, 32 pixels",
        PLAIN,
        partial(build_train_step, variant="1m", batch_size=64, image_size=32, **SMALL_IMAGES),
    ),
    *(
        Case(
            "inference emo-1m batch 1",
            name,
            partial(build_peer_inference, build_peer=build_peer, variant="1m", batch_size=1),
        )
        for name, build_peer in [
            *((f"timm: {name}", partial(build_timm_peer, name)) for name in TIMM_PEERS),
            ("transformers: mobilevit-xx-small", partial(build_mobilevit, **MOBILEVIT_XXS)),
        ]
    ),
    Case("load emo-5m", "transformers: mobilevit-small", partial(build_load, variant="5m")),
]
