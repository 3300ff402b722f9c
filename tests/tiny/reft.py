"""The smallest RefT, with widths that differ where they may, images, support and labels for it."""

from typing import Any

import torch
from transformers import Mask2FormerConfig

from decahub import RefTConfig, RefTForFewShotInstanceSegmentation


HEIGHT, WIDTH, SUPPORT_SIZE = 64, 96, 64
NUM_WAYS, NUM_SHOTS, NUM_QUERIES, NUM_LABELS = 3, 2, 7, 5
RESNET = {
    "model_type": "resnet",
    "embedding_size": 8,
    "hidden_sizes": [8, 12, 16, 24],
    "depths": [1, 1, 1, 1],
    "layer_type": "basic",
    "out_features": ["stage1", "stage2", "stage3", "stage4"],
}
SWIN = {
    "model_type": "swin",
    "image_size": 64,
    "patch_size": 4,
    "embed_dim": 8,
    "depths": [1, 1, 1, 1],
    "num_heads": [1, 2, 2, 4],
    "window_size": 4,
    "out_features": ["stage1", "stage2", "stage3", "stage4"],
}
REFERENCE_STD = 0.2


def tiny_config(**fields: Any) -> RefTConfig:
    defaults = {
        "backbone_config": RESNET,
        "feature_size": 32,
        "mask_feature_size": 24,
        "hidden_dim": 48,
        "encoder_feedforward_dim": 40,
        "dim_feedforward": 56,
        "encoder_layers": 1,
        "decoder_layers": 4,
        "num_attention_heads": 4,
        "num_queries": NUM_QUERIES,
        "train_num_points": 60,
        "support_size": SUPPORT_SIZE,
        "num_labels": NUM_LABELS,
    }
    if "id2label" in fields:
        del defaults["num_labels"]
    return RefTConfig(**{**defaults, **fields})


def tiny_mask2former_fields(config: RefTConfig | None = None) -> dict[str, Any]:
    """The same configuration for transformers' Mask2Former."""
    content = (config or tiny_config()).to_dict()
    fields = {name: content[name] for name in Mask2FormerConfig().to_dict() if name in content}
    return {name: value for name, value in fields.items() if name not in ("model_type", "transformers_version")}


def tiny_model(seed: int = 0, trained: bool = True, **fields: Any) -> RefTForFewShotInstanceSegmentation:
    """In evaluation mode; `trained` references change their input, as new ones do not."""
    torch.manual_seed(seed)
    model = RefTForFewShotInstanceSegmentation(tiny_config(**fields)).eval()
    if trained:
        for name, parameter in model.named_parameters():
            if "_reference." in name:
                torch.nn.init.normal_(parameter, std=REFERENCE_STD)
    return model


def tiny_pixels(batch_size: int = 2, seed: int = 1) -> torch.Tensor:
    return torch.randn(batch_size, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(seed)) + 0.3


def tiny_support(
    num_ways: int = NUM_WAYS, num_shots: int = NUM_SHOTS, batch_size: int | None = None, seed: int = 2
) -> dict[str, torch.Tensor]:
    """Random crops with a rectangle in each as the instance."""
    generator = torch.Generator().manual_seed(seed)
    lead = (num_ways, num_shots) if batch_size is None else (batch_size, num_ways, num_shots)
    pixel_values = torch.randn(*lead, 3, SUPPORT_SIZE, SUPPORT_SIZE, generator=generator)
    masks = torch.zeros(*lead, SUPPORT_SIZE, SUPPORT_SIZE, dtype=torch.bool)
    for mask in masks.view(-1, SUPPORT_SIZE, SUPPORT_SIZE):
        top, left = torch.randint(4, 30, (2,), generator=generator).tolist()
        mask[top : top + 25, left : left + 17] = True
    return {"support_pixel_values": pixel_values, "support_masks": masks}


def tiny_labels(counts: tuple[int, ...] = (3, 2), seed: int = 3, num_labels: int = NUM_LABELS) -> dict[str, list]:
    """Rectangles in images, and their classes."""
    generator = torch.Generator().manual_seed(seed)
    mask_labels, class_labels = [], []
    for count in counts:
        masks = torch.zeros(count, HEIGHT, WIDTH)
        for mask in masks:
            top, left = torch.randint(2, 34, (2,), generator=generator).tolist()
            mask[top : top + 20, left : left + 31] = 1
        mask_labels.append(masks)
        class_labels.append(torch.randint(num_labels, (count,), generator=generator))
    return {"mask_labels": mask_labels, "class_labels": class_labels}
