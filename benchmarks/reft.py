"""RefT against transformers' Mask2Former, and with a support memory against without one.

Both train the same network on the same made-up images with the same optimizer, batch norms and all. The ratio of the
memory is what 20 remembered classes cost: 0.91 is ten percent more. `register_support` is measured on 20 shots, beside
Mask2Former that sees them one at a time: 20 divided by our seconds is shots per second.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from .timing import Case, Sampler, timed


STAGES = ["stage1", "stage2", "stage3", "stage4"]
RESNET_18 = {
    "model_type": "resnet",
    "embedding_size": 64,
    "hidden_sizes": [64, 128, 256, 512],
    "depths": [2, 2, 2, 2],
    "layer_type": "basic",
    "out_features": STAGES,
}
TINY_RESNET = {
    "model_type": "resnet",
    "embedding_size": 32,
    "hidden_sizes": [32, 64, 128, 256],
    "depths": [1, 1, 1, 1],
    "layer_type": "basic",
    "out_features": STAGES,
}
NUM_LABELS, NUM_TARGETS, TARGET_SIZE = 8, 3, 30
NUM_CLASSES, NUM_SHOTS = 20, 5
TINY_SIZE, SUPPORT_SIZE = 128, 64
LEARNING_RATE = 1e-4


def build_fields(backbone: dict[str, Any], size: int, encoder_layers: int, ffn: int) -> dict[str, Any]:
    return {
        "backbone_config": backbone,
        "feature_size": size,
        "mask_feature_size": size,
        "hidden_dim": size,
        "encoder_feedforward_dim": ffn,
        "dim_feedforward": ffn,
        "encoder_layers": encoder_layers,
        "decoder_layers": 4,
        "num_queries": 20,
        "train_num_points": 1024,
        "num_labels": NUM_LABELS,
    }


def build_batch(batch_size: int, size: int) -> dict[str, Any]:
    import torch

    generator = torch.Generator().manual_seed(0)
    masks = torch.zeros(batch_size, NUM_TARGETS, size, size)
    for mask in masks.flatten(0, 1):
        top, left = torch.randint(size - TARGET_SIZE, (2,), generator=generator).tolist()
        mask[top : top + TARGET_SIZE, left : left + TARGET_SIZE] = 1
    return {
        "pixel_values": torch.randn(batch_size, 3, size, size, generator=generator),
        "mask_labels": list(masks),
        "class_labels": list(torch.randint(NUM_LABELS, (batch_size, NUM_TARGETS), generator=generator)),
    }


def build_mask2former(fields: dict[str, Any]):
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation

    return Mask2FormerForUniversalSegmentation(Mask2FormerConfig(**fields))


def build_reft(fields: dict[str, Any], **further: Any):
    from decahub import RefTConfig, RefTForFewShotInstanceSegmentation

    return RefTForFewShotInstanceSegmentation(RefTConfig(**fields, **further))


def build_train_step(
    folder: Path, size: int, encoder_layers: int, batch_size: int, image_size: int, freeze_batch_norm: bool
) -> tuple[Sampler, Sampler]:
    import torch

    fields = build_fields(RESNET_18, size, encoder_layers, 4 * size)
    batch = build_batch(batch_size, image_size)

    def build_step(model) -> Callable[[], None]:
        parameters = [parameter for parameter in model.train().parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, fused=True)

        def step() -> None:
            optimizer.zero_grad()
            model(**batch).loss.backward()
            optimizer.step()

        return step

    ours = build_reft(fields, freeze_batch_norm=freeze_batch_norm)
    ours.model.pixel_level_module.encoder.to(memory_format=torch.channels_last)  # as `decahub train` does
    return timed(build_step(ours)), timed(build_step(build_mask2former(fields)))


def build_tiny(**further: Any):
    import torch

    torch.manual_seed(0)
    fields = build_fields(TINY_RESNET, 64, 2, 256)
    return build_reft(fields, classifier="prototype", support_size=SUPPORT_SIZE, **further).eval(), fields


def build_shots(num_shots: int):
    import torch

    generator = torch.Generator().manual_seed(0)
    masks = torch.zeros(num_shots, SUPPORT_SIZE, SUPPORT_SIZE, dtype=torch.bool)
    masks[:, 12:50, 10:45] = True
    return torch.randn(num_shots, 3, SUPPORT_SIZE, SUPPORT_SIZE, generator=generator), masks


def build_memory(folder: Path, batch_size: int) -> tuple[Sampler, Sampler]:
    """With a memory of 20 classes of 5 shots, and the base branch with the same kind of head on one class."""
    import torch

    model, _ = build_tiny()
    memory = model.register_support({f"class {index}": build_shots(NUM_SHOTS) for index in range(NUM_CLASSES)})
    pixel_values = torch.randn(batch_size, 3, TINY_SIZE, TINY_SIZE)
    linear = build_reft(build_fields(TINY_RESNET, 64, 2, 256), support_size=SUPPORT_SIZE).eval()

    def run(network, **inputs) -> None:
        with torch.inference_mode():
            network(pixel_values, **inputs)

    return timed(partial(run, model, support_memory=memory)), timed(partial(run, linear))


def build_registration(folder: Path) -> tuple[Sampler, Sampler]:
    import torch

    model, fields = build_tiny()
    reference = build_mask2former(fields).eval()
    pixel_values, masks = build_shots(NUM_CLASSES)

    def run_reference() -> None:
        with torch.inference_mode():
            for index in range(len(pixel_values)):
                reference(pixel_values[index, None])

    return timed(lambda: model.register_support({"class": (pixel_values, masks)})), timed(run_reference)


SECOND = {"size": 64, "encoder_layers": 2, "batch_size": 8, "image_size": 128}
FIRST = {"size": 128, "encoder_layers": 3, "batch_size": 2, "image_size": 256}

MASK2FORMER = "transformers: Mask2Former"
CASES = [
    Case(
        "train step 64 wide, batch 8, 128 pixels",
        MASK2FORMER,
        partial(build_train_step, **SECOND, freeze_batch_norm=True),
    ),
    Case(
        "train step 64 wide, batch 8, 128 pixels, norms trained",
        MASK2FORMER,
        partial(build_train_step, **SECOND, freeze_batch_norm=False),
    ),
    Case(
        "train step 128 wide, batch 2, 256 pixels",
        MASK2FORMER,
        partial(build_train_step, **FIRST, freeze_batch_norm=True),
    ),
    *(
        Case(
            f"inference batch {batch_size} with 20 classes of 5 shots",
            "decahub: without a memory",
            partial(build_memory, batch_size=batch_size),
        )
        for batch_size in (1, 16)
    ),
    Case("register_support of 64 pixels", f"{MASK2FORMER}, one by one", build_registration, (20, "shots")),
]
