"""States of a teacher computed once for all training images, for teachers that are slow beside their student.

A flipped image has the states of the image with its tokens in another order, apart from what the teacher's position
embeddings make of them. So images that are only flipped and recolored need no further call of the teacher, and what
students imitate, relations or features, is made of the same states.
"""

import hashlib
import os
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.data import Dataset
from torchvision.transforms.v2 import functional
from tqdm.auto import tqdm

from decahub import TinyMimConfig, TinyMimTeacher
from decahub.data import image_classification
from decahub.data.image_classification import Normalization
from decahub.data.image_views import ColorJitter
from decahub.models.tinymim.relations import compute_relations


SOURCES = ("q", "k", "v", "block")
ROWS_AT_ONCE = 250


def get_pixels(row: Mapping[str, Any], processor: Any) -> torch.Tensor:
    """Bytes of an image in the student's size."""
    pixels, size = image_classification.image_to_tensor(row["image"]), image_classification.get_target_size(processor)
    return pixels if pixels.shape[-2:] == size else functional.resize(pixels, list(size), antialias=True)


def digest_rows(rows: Any, processor: Any) -> str:
    """Of the pixels of all rows, in their order."""
    digest = hashlib.sha256()
    for index in range(len(rows)):
        digest.update(get_pixels(rows[index], processor).contiguous().numpy())
    return digest.hexdigest()


def digest_weights(model: nn.Module) -> str:
    """Of the weights of a model."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.float().contiguous().numpy())
    return digest.hexdigest()


@torch.no_grad()
def load_states(
    path: Path, teacher: TinyMimTeacher, config: TinyMimConfig, rows: Any, processor: Any
) -> dict[str, torch.Tensor]:
    """States of all rows, from the file if there is one.

    Args:
        path (`Path`): A safetensors file; it appears once it is complete.
        teacher (`TinyMimTeacher`): Gives the states.
        config (`TinyMimConfig`): Of the student: its grid.
        rows: Decoded images.
        processor: The student's.

    Returns:
        `dict` of half-precision tensors: `q`, `k` and `v` of shape `(num_rows, num_heads, num_tokens, head_dim)`,
        `block` of shape `(num_rows, num_tokens, width)`.

    Raises:
        ValueError: If the file holds states of another teacher or of other rows.
    """
    digests = {
        "set of rows": digest_rows(rows, processor),
        "teacher": digest_weights(teacher.model),
        "size of images": f"{config.teacher_image_size}, for a grid of {config.grid_size}",
    }
    if path.exists():
        with safe_open(path, "pt") as file:
            found = file.metadata() or {}
        wrong = [name for name, digest in digests.items() if found.get(name) != digest]
        if wrong:
            raise ValueError(f"{path} must hold states of the teacher and rows of the run; its {wrong[0]} differs.")
    else:
        normalize = Normalization(processor)
        parts: dict[str, list[torch.Tensor]] = {name: [] for name in SOURCES}
        for start in tqdm(range(0, len(rows), ROWS_AT_ONCE), desc="Computing states"):
            indices = range(start, min(start + ROWS_AT_ONCE, len(rows)))
            pixel_values = torch.stack([normalize(get_pixels(rows[index], processor)) for index in indices])
            for name, states in teacher.compute(pixel_values, config.grid_size, SOURCES).items():
                parts[name].append(states.half())
        partial = path.with_name(f".{path.name}.partial")
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: torch.cat(tensors) for name, tensors in parts.items()}, partial, digests)
        os.replace(partial, path)
    return load_file(path)


class StateRows(Dataset):
    """Decoded images with the states of their teacher."""

    def __init__(self, rows: Any, states: Mapping[str, torch.Tensor]):
        self.rows = rows
        self.states = states

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self.rows[index], "states": {name: tensor[index] for name, tensor in self.states.items()}}


class FlipTransform:
    """One row to pixels and target: both flipped at random, colors jittered for the student."""

    def __init__(self, processor: Any, config: TinyMimConfig, color_jitter: float, flip_prob: float = 0.5):
        self.processor = processor
        self.config = config
        self.normalize = Normalization(processor)
        self.jitter = ColorJitter(color_jitter)
        self.flip_prob = flip_prob
        rows, columns = config.grid_size
        num_prefix = 1 if config.include_cls else 0
        patches = torch.arange(rows * columns).view(rows, columns).flip(1).flatten() + num_prefix
        self.flipped = torch.cat([torch.arange(num_prefix), patches])

    def __call__(self, row: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        pixels = get_pixels(row, self.processor)
        states = {name: tensor.float() for name, tensor in row["states"].items()}
        if random.random() < self.flip_prob:
            pixels = pixels.flip(-1)
            states = {name: tensor.index_select(-2, self.flipped) for name, tensor in states.items()}
        return {"pixel_values": self.normalize(self.jitter(pixels)), **self.build_target(states)}

    def build_target(self, states: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """What the configuration of the student names as its target."""
        config = self.config
        if config.distillation_target != "relations":
            return {"teacher_features": states[config.feature_source]}
        relations = compute_relations(states, config.relation_pairs, softmax=config.relation_softmax)
        return {"teacher_relations": torch.stack(list(relations))}
