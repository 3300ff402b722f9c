"""The authors' names of the tensors of CMT's LiDAR branch and ours, and the order of axes in spconv's files."""

from collections.abc import Mapping

import torch


_SPARSE_LAYERS = (
    ("conv_input.0.*", "stem.convolution.*"),
    ("conv_input.1.*", "stem.normalization.*"),
    ("conv_out.0.*", "output_layer.convolution.*"),
    ("conv_out.1.*", "output_layer.normalization.*"),
)
SPARSE_WEIGHT_DIMENSIONS = 5


def build_sparse_encoder_key_map(num_stages: int, depths: list[int]) -> list[tuple[str, str]]:
    """The authors' templates of the sparse encoder -> ours.

    Args:
        num_stages (`int`): Number of stages.
        depths (`list[int]`): Residual blocks of each stage. The authors number the convolution after them like a
            further block.
    """
    rows = list(_SPARSE_LAYERS)
    for stage in range(num_stages):
        theirs, ours = f"encoder_layers.encoder_layer{stage + 1}", f"stages.{stage}"
        rows += [
            (f"{theirs}.{{block}}.conv{{layer+1}}.*", f"{ours}.blocks.{{block}}.layers.{{layer}}.convolution.*"),
            (f"{theirs}.{{block}}.bn{{layer+1}}.*", f"{ours}.blocks.{{block}}.layers.{{layer}}.normalization.*"),
        ]
        if stage + 1 < num_stages:
            rows += [
                (f"{theirs}.{depths[stage]}.0.*", f"{ours}.downsample.convolution.*"),
                (f"{theirs}.{depths[stage]}.1.*", f"{ours}.downsample.normalization.*"),
            ]
    return rows


BEV_BACKBONE_KEY_MAP = (
    # Every third place is a ReLU.
    ("blocks.{block}.{3*layer}.*", "blocks.{block}.{layer}.convolution.*"),
    ("blocks.{block}.{3*layer+1}.*", "blocks.{block}.{layer}.normalization.*"),
)
BEV_NECK_KEY_MAP = (
    ("deblocks.{level}.0.*", "levels.{level}.convolution.*"),
    ("deblocks.{level}.1.*", "levels.{level}.normalization.*"),
)


def to_spconv2_layout(state_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Sparse weights in the layout of spconv 2, (out_channels, depth, height, width, in_channels), from spconv 1's."""
    return {
        name: tensor.permute(4, 0, 1, 2, 3).contiguous() if tensor.ndim == SPARSE_WEIGHT_DIMENSIONS else tensor
        for name, tensor in state_dict.items()
    }
