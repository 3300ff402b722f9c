"""TinyMIM beside its distillation by hand, vision transformers of the same size, and a teacher that runs to its end.

The models keep the weights of their initialization: speed does not depend on them. Each distillation case first checks
that both compute the same loss.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from .timing import Case, Sampler, timed


ATOL = 1e-5  # float32, two orders of summation
IMAGE_SIZE = 224

# As "tiny" from a teacher as wide and deep as "small".
LARGE_IMAGES: dict[str, Any] = {
    "student": {"hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768},
    "teacher": {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536},
    "sizes": {"image_size": IMAGE_SIZE, "patch_size": 16},
    "depths": (8, 12),
}
# As in the experiments on CIFAR-10.
SMALL_IMAGES: dict[str, Any] = {
    "student": {"hidden_size": 96, "num_attention_heads": 3, "intermediate_size": 384},
    "teacher": {"hidden_size": 128, "num_attention_heads": 4, "intermediate_size": 512},
    "depths": (4, 6),
}


def build_distillation_pair(
    student: dict[str, int], teacher: dict[str, int], sizes: dict[str, int], depths: tuple[int, int], batch_size: int
) -> tuple[Callable, Callable]:
    """Two functions that make one optimizer step and return its loss: ours and the reference's."""
    import torch

    from conversion.convert_tinymim import revert_state_dict
    from decahub import TinyMimConfig, TinyMimForPreTraining, TinyMimModel, TinyMimTeacher
    from decahub.models.tinymim.optimization import build_pretraining_parameter_groups

    from .reference_tinymim import ReferenceTinyMim, compute_loss

    torch.manual_seed(0)
    student_depth, teacher_depth = depths
    source = TinyMimModel(TinyMimConfig(**sizes, **teacher, num_hidden_layers=teacher_depth)).eval()
    wrapped = TinyMimTeacher(source, student_num_hidden_layers=student_depth)
    config = TinyMimConfig(**sizes, **student, num_hidden_layers=student_depth, **wrapped.to_config_fields())
    model = TinyMimForPreTraining(config).train()
    model.attach_teacher(wrapped)
    reference = ReferenceTinyMim(config, last_num_heads=config.target_num_attention_heads)
    reference.load_state_dict(revert_state_dict(model.state_dict(), config))
    reference_teacher = ReferenceTinyMim(source.config).eval()
    reference_teacher.load_state_dict(revert_state_dict(source.state_dict(), source.config))
    pixel_values = build_pixel_values(batch_size, sizes["image_size"])

    def build_step(network, call: Callable) -> Callable:
        optimizer = torch.optim.AdamW(build_pretraining_parameter_groups(network, weight_decay=0.05), lr=1e-4)

        def step() -> torch.Tensor:
            optimizer.zero_grad()
            loss = call()
            loss.backward()
            optimizer.step()
            return loss.detach()

        return step

    ours = build_step(model, lambda: model(pixel_values).loss)
    call_reference = partial(compute_loss, reference, reference_teacher, pixel_values, wrapped.layer)
    return ours, build_step(reference, call_reference)


def build_distillation(folder: Path, **options: Any) -> tuple[Sampler, Sampler]:
    import torch

    ours, reference = build_distillation_pair(**options)
    torch.testing.assert_close(ours(), reference(), atol=ATOL, rtol=0)
    return timed(ours), timed(reference)


def build_early_exit(folder: Path, batch_size: int) -> tuple[Sampler, Sampler]:
    """A teacher's states at three quarters of its depth, beside a full pass of the same model of transformers."""
    import torch
    from transformers import ViTConfig, ViTModel

    from decahub import TinyMimTeacher

    torch.manual_seed(0)
    sizes = {**LARGE_IMAGES["teacher"], **LARGE_IMAGES["sizes"]}
    model = ViTModel(ViTConfig(**sizes, num_hidden_layers=12), add_pooling_layer=False).eval()
    teacher, pixel_values = TinyMimTeacher(model, layer=9), build_pixel_values(batch_size)
    grid = (IMAGE_SIZE // teacher.patch_size,) * 2
    return timed(partial(teacher.compute, pixel_values, grid)), timed(
        torch.no_grad()(partial(model, pixel_values, output_hidden_states=True))
    )


def build_inference(folder: Path, peer: Callable, batch_size: int) -> tuple[Sampler, Sampler]:
    import torch

    from decahub import TinyMimConfig, TinyMimModel

    torch.manual_seed(0)
    model, reference = TinyMimModel(TinyMimConfig.from_variant("tiny")).eval(), peer().eval()
    pixel_values = build_pixel_values(batch_size)
    ours, theirs = (torch.inference_mode()(partial(network, pixel_values)) for network in (model, reference))
    return timed(ours), timed(theirs)


def build_timm_vit():
    import timm

    return timm.create_model("vit_tiny_patch16_224", num_classes=0)


def build_transformers_vit():
    from transformers import ViTConfig, ViTModel

    sizes = {"hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768}
    return ViTModel(ViTConfig(**sizes, num_hidden_layers=12), add_pooling_layer=False)


def build_pixel_values(batch_size: int, image_size: int = IMAGE_SIZE):
    import torch

    return torch.randn(batch_size, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))


BY_HAND = "torch: by hand, fused attention"
CASES = [
    Case("train step distillation tiny batch 4", BY_HAND, partial(build_distillation, **LARGE_IMAGES, batch_size=4)),
    *(
        Case(
            f"train step distillation batch {batch_size}, 32 pixels, patch {patch_size}",
            BY_HAND,
            partial(
                build_distillation,
                **SMALL_IMAGES,
                sizes={"image_size": 32, "patch_size": patch_size},
                batch_size=batch_size,
            ),
        )
        for patch_size, batch_size in ((4, 32), (8, 128))
    ),
    *(
        Case(f"inference tiny batch {batch_size}", peer, partial(build_inference, peer=build, batch_size=batch_size))
        for batch_size in (1, 8)
        for peer, build in (
            ("timm: vit_tiny_patch16_224", build_timm_vit),
            ("transformers: ViTModel", build_transformers_vit),
        )
    ),
    Case(
        "states of block 9 of a teacher of 12, batch 4",
        "transformers: ViTModel, all hidden states",
        partial(build_early_exit, batch_size=4),
    ),
]
