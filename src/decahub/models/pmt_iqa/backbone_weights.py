"""Pre-trained weights for the backbone alone: of torchvision, of timm, or of transformers.

Names differ between these libraries, tensors do not. Which library a file comes from shows in its names.
"""

import re
from collections.abc import Mapping

import torch
from torch import nn


# Of torchvision's ResNet, and of the authors' code behind `res.`, to transformers' ResNet.
_RESNET_RULES: tuple[tuple[str, str], ...] = (
    (r"conv1\.", "embedder.embedder.convolution."),
    (r"bn1\.", "embedder.embedder.normalization."),
    (r"layer(\d+)\.(\d+)\.conv(\d+)\.", "encoder.stages.{0}.layers.{1}.layer.{2}.convolution."),
    (r"layer(\d+)\.(\d+)\.bn(\d+)\.", "encoder.stages.{0}.layers.{1}.layer.{2}.normalization."),
    (r"layer(\d+)\.(\d+)\.downsample\.0\.", "encoder.stages.{0}.layers.{1}.shortcut.convolution."),
    (r"layer(\d+)\.(\d+)\.downsample\.1\.", "encoder.stages.{0}.layers.{1}.shortcut.normalization."),
)
MAX_NAMES_SHOWN = 5


def load_backbone_weights(backbone: nn.Module, state_dict: Mapping[str, torch.Tensor]) -> list[str]:
    """Load pre-trained weights of another library into a backbone.

    Args:
        backbone (`torch.nn.Module`): `PmtIqaModel.backbone`, which is changed in place.
        state_dict (`Mapping[str, torch.Tensor]`): Of torchvision's or transformers' ResNet, of a network of timm, or
            of the backbone itself.

    Returns:
        `list[str]`: Names of tensors that the backbone has no place for, such as those of a classifier.

    Raises:
        ValueError: If a tensor of the backbone is missing, of another shape, or not finite.
    """
    wanted = backbone.state_dict()
    renamed = max(
        ({rename(name): name for name in state_dict} for rename in _RENAMINGS),
        key=lambda names: len(names.keys() & wanted.keys()),
    )
    # Counters of batches, which only matter for cumulative averages; files of timm often lack them.
    missing = [name for name in wanted if name not in renamed and not name.endswith("num_batches_tracked")]
    if missing:
        shown = ", ".join(missing[:MAX_NAMES_SHOWN])
        raise ValueError(
            f"`state_dict` must hold all weights of the backbone; {len(missing)} of {len(wanted)} are missing, such "
            f"as {shown}. Is `backbone_config` that of the file?"
        )
    tensors = {name: state_dict[renamed[name]] for name in wanted if name in renamed}
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name].shape:
            raise ValueError(
                f"`state_dict` must fit the backbone; `{renamed[name]}` has shape {tuple(tensor.shape)}, "
                f"`{name}` has {tuple(wanted[name].shape)}. Is `backbone_config` that of the file?"
            )
        if not torch.isfinite(tensor).all():
            raise ValueError(f"`state_dict` must be finite; `{renamed[name]}` holds NaN or infinity.")
    backbone.load_state_dict({**wanted, **tensors})
    return [name for ours, name in renamed.items() if ours not in wanted]


def rename_torchvision(name: str) -> str:
    """Name in transformers' ResNet of a tensor of torchvision's."""
    for pattern, template in _RESNET_RULES:
        found = re.match(pattern, name)
        if found:
            numbers = [int(text) for text in found.groups()]
            if numbers:
                numbers = [numbers[0] - 1, numbers[1], *(number - 1 for number in numbers[2:])]
            return template.format(*numbers) + name[found.end() :]
    return name


_RENAMINGS = (
    lambda name: name,
    rename_torchvision,
    lambda name: f"_backbone.{name}",  # timm
    lambda name: name.removeprefix("resnet."),  # transformers' ResNet with a head
)

__all__ = ["load_backbone_weights", "rename_torchvision"]
