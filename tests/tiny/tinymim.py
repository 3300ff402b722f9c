"""The smallest TinyMIM: every width differs from every other."""

from typing import Any

import torch

from decahub import TinyMimConfig, TinyMimForPreTraining, TinyMimModel, TinyMimTeacher


HEIGHT, WIDTH, PATCH = 32, 48, 8
GRID = (HEIGHT // PATCH, WIDTH // PATCH)
NUM_TOKENS = 1 + GRID[0] * GRID[1]
NUM_TEACHER_HEADS = 6


def tiny_config(**fields: Any) -> TinyMimConfig:
    defaults = {
        "image_size": [HEIGHT, WIDTH],
        "patch_size": PATCH,
        "hidden_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 40,
        "decoder_hidden_size": 16,
        "decoder_num_attention_heads": 2,
        "num_labels": 5,
    }
    return TinyMimConfig(**{**defaults, **fields})


def tiny_teacher(layer: int | None = 4, **fields: Any) -> TinyMimTeacher:
    torch.manual_seed(1)
    sizes = {"hidden_size": 36, "num_hidden_layers": 5, "num_attention_heads": NUM_TEACHER_HEADS}
    return TinyMimTeacher(TinyMimModel(tiny_config(**sizes)).eval(), layer=layer, **fields)


def tiny_student(teacher: TinyMimTeacher | None = None, **fields: Any) -> TinyMimForPreTraining:
    teacher = teacher or tiny_teacher()
    torch.manual_seed(2)
    student = TinyMimForPreTraining(tiny_config(**{**teacher.to_config_fields(), **fields}))
    student.attach_teacher(teacher)
    return student


def tiny_pixels(batch_size: int = 2) -> torch.Tensor:
    return torch.randn(batch_size, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(3)) + 0.5
