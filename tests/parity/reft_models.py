"""RefT models with the weights of golden files."""

import torch

from decahub import RefTConfig, RefTForFewShotInstanceSegmentation
from tests.parity.golden import Golden, load_golden


def build_base_model(
    golden: Golden, dtype: torch.dtype = torch.float64, **fields
) -> RefTForFewShotInstanceSegmentation:
    """The base branch; batch norms have gradients, as in the port that made the file."""
    config = RefTConfig(**{**golden.json("config"), "freeze_batch_norm": False, **fields})
    model = RefTForFewShotInstanceSegmentation(config).eval()
    model.load_mask2former_weights(golden.group("state_dict."))
    return model.to(dtype)


def build_full_model(
    golden: Golden, dtype: torch.dtype = torch.float64, **fields
) -> RefTForFewShotInstanceSegmentation:
    """Base weights from the file that the metadata names, and the references from this one."""
    options = golden.json("options")
    base = load_golden(golden.path.with_name(golden.metadata["base_weights"]))
    model = build_base_model(
        base,
        dtype,
        shot_reduction=options["shot_reduction"],
        feature_fusion=options["feature_fusion"],
        query_selection=options["query_selection"],
        query_enhancement_targets=options["targets"],
        support_topk=options["T"],
        **fields,
    )
    loaded = model.load_state_dict(golden.group("state_dict."), strict=False)
    assert loaded.unexpected_keys == []
    return model


def read_labels(golden: Golden) -> dict[str, list[torch.Tensor]]:
    """`mask_labels` and `class_labels` of all images."""
    return {
        name: [golden[f"input.{name}.{image}"] for image in range(len(golden["input.pixel_values"]))]
        for name in ("mask_labels", "class_labels")
    }


def read_support(golden: Golden, dtype: torch.dtype = torch.float64) -> dict[str, torch.Tensor]:
    return {
        "support_pixel_values": golden["input.support_pixel_values"].to(dtype),
        "support_masks": golden["input.support_masks"],
    }
