"""Networks and distilled datasets small enough for a test, with no two widths equal that could be mixed up."""

import torch

from decahub import ConvNetConfig, DoorpingConfig


MEAN, STD = [0.4, 0.5, 0.3], [0.2, 0.3, 0.25]


def tiny_network(**overrides) -> ConvNetConfig:
    """Maps of 12, 6 and 3 pixels."""
    fields = {"image_size": 12, "hidden_size": 5, "num_hidden_layers": 2, "classifier_hidden_size": 7, "num_labels": 4}
    return ConvNetConfig(**{**fields, **overrides})


def tiny_config(**overrides) -> DoorpingConfig:
    """Four classes of three images of 12 x 12 pixels."""
    fields = {
        "image_size": 12,
        "num_labels": 4,
        "images_per_class": 3,
        "image_mean": MEAN,
        "image_std": STD,
        "backbone_config": {"hidden_size": 5, "num_hidden_layers": 2, "classifier_hidden_size": 7},
        "distill_steps": 3,
        "distill_epochs": 2,
        "outer_loops": 2,
        "inner_loops": 2,
        "trigger_steps": 5,
    }
    return DoorpingConfig(**{**fields, **overrides})


def draw_real_images(num_per_class: int = 6, num_classes: int = 4, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Images of 12 x 12 pixels that differ between classes by their mean, class by class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(num_classes).repeat_interleave(num_per_class)
    images = torch.randn(len(labels), 3, 12, 12, generator=generator) * 0.3
    return images + (labels - num_classes / 2).view(-1, 1, 1, 1) * 0.5, labels
