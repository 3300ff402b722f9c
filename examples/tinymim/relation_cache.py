"""Relations of a teacher computed once for all training images, for teachers that are slow beside their student.

A flipped image has the relations of the image with its tokens in another order, apart from what the teacher's
position embeddings make of it. So images that are only flipped and recolored need no further call of the teacher.
"""

import os
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.utils.data import Dataset
from torchvision.transforms.v2 import functional
from tqdm.auto import tqdm

from decahub import TinyMimConfig, TinyMimTeacher
from decahub.data import image_classification
from decahub.data.image_classification import Normalization
from decahub.data.image_views import ColorJitter
from decahub.models.tinymim.relations import compute_relations


RELATIONS = "relations"
ROWS_AT_ONCE = 250


def get_pixels(row: Mapping[str, Any], processor: Any) -> torch.Tensor:
    """Bytes of an image in the student's size."""
    pixels, size = image_classification.image_to_tensor(row["image"]), image_classification.get_target_size(processor)
    return pixels if pixels.shape[-2:] == size else functional.resize(pixels, list(size), antialias=True)


@torch.no_grad()
def load_relations(
    path: Path, teacher: TinyMimTeacher, config: TinyMimConfig, rows: Any, processor: Any
) -> torch.Tensor:
    """Relations of all rows, from the file if there is one.

    Args:
        path (`Path`): A safetensors file; it appears once it is complete.
        teacher (`TinyMimTeacher`): Gives the relations.
        config (`TinyMimConfig`): Of the student: its grid and pairs.
        rows: Decoded images.
        processor: The student's.

    Returns:
        `torch.HalfTensor` of shape `(num_rows, num_pairs, num_heads, num_tokens, num_tokens)`.
    """
    if not path.exists():
        normalize = Normalization(processor)
        parts = []
        for start in tqdm(range(0, len(rows), ROWS_AT_ONCE), desc="Computing relations"):
            indices = range(start, min(start + ROWS_AT_ONCE, len(rows)))
            pixel_values = torch.stack([normalize(get_pixels(rows[index], processor)) for index in indices])
            states = teacher.compute(pixel_values, grid=config.grid_size)
            pairs = compute_relations(states, config.relation_pairs, softmax=config.relation_softmax)
            parts.append(torch.stack(list(pairs), dim=1).half())
        partial = path.with_name(f".{path.name}.partial")
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({RELATIONS: torch.cat(parts)}, partial)
        os.replace(partial, path)
    return load_file(path)[RELATIONS]


class RelationRows(Dataset):
    """Decoded images with the relations of their teacher."""

    def __init__(self, rows: Any, relations: torch.Tensor):
        self.rows = rows
        self.relations = relations

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self.rows[index], "teacher_relations": self.relations[index]}


class FlipTransform:
    """One row to `{"pixel_values", "teacher_relations"}`: flipped at random, colors jittered for the student."""

    def __init__(self, processor: Any, config: TinyMimConfig, color_jitter: float, flip_prob: float = 0.5):
        self.processor = processor
        self.normalize = Normalization(processor)
        self.jitter = ColorJitter(color_jitter)
        self.flip_prob = flip_prob
        rows, columns = config.grid_size
        num_prefix = 1 if config.include_cls else 0
        patches = torch.arange(rows * columns).view(rows, columns).flip(1).flatten() + num_prefix
        self.flipped = torch.cat([torch.arange(num_prefix), patches])

    def __call__(self, row: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        pixels, relations = get_pixels(row, self.processor), row["teacher_relations"]
        if random.random() < self.flip_prob:
            pixels = pixels.flip(-1)
            relations = relations.index_select(-2, self.flipped).index_select(-1, self.flipped)
        return {"pixel_values": self.normalize(self.jitter(pixels)), "teacher_relations": relations.float()}
