"""CMT models that hold the weights of a golden file of the head, and its inputs in our form."""

from collections.abc import Mapping

import torch

from conversion.layouts_cmt_head import HEAD_KEY_MAP, pack_projections, split_projections
from conversion.name_map import NameMap
from decahub import CmtConfig, CmtForObjectDetection3D
from tests.parity.golden import Golden
from tests.tiny.cmt import VOVNET


HEAD_PREFIX = "pts_bbox_head."
NO_DROPOUT = {"attention_dropout": 0.0, "cross_attention_dropout": 0.0, "hidden_dropout": 0.0}
# Branches of a task head in the order of a coded box, with their widths.
BOX_BRANCHES = {"center": 2, "height": 1, "dim": 3, "rot": 2, "vel": 2}
BACKBONES = ("model.image_backbone.", "model.image_neck.", "model.lidar_backbone.")
NAMES = NameMap(HEAD_KEY_MAP)


def config_of_head(golden: Golden, **overrides) -> CmtConfig:
    """Configuration of a `head` file, with tiny backbones, since it begins at their feature maps."""
    metadata = golden.metadata
    tasks = [task.split(",") for task in metadata["tasks"].split("|")]
    limits = [float(limit) for limit in metadata["pc_range"].split(",")]
    grid = int(metadata["grid"])
    fields = {
        "modality": metadata["kind"],
        "point_cloud_range": limits,
        "hidden_size": int(metadata["hidden"]),
        "num_queries": int(metadata["queries"]),
        "num_depth_bins": int(metadata["depth_bins"]),
        "num_hidden_layers": int(metadata["layers"]),
        "num_attention_heads": int(metadata["heads"]),
        "intermediate_size": int(metadata["ffn"]),
        "tasks": tasks,
        "head_kernel_size": int(metadata["head_kernel"]),
        "denoising_groups": int(metadata["dn_groups"]),
        "max_detections": int(metadata["max_num"]),
        **NO_DROPOUT,
    }
    if metadata["kind"] != "lidar":
        fields["image_backbone_config"] = VOVNET
    if metadata["kind"] != "camera":
        fields["lidar_backbone_config"] = {
            "voxel_size": [(high - low) / grid for low, high in zip(limits[:2], limits[3:5], strict=True)] + [0.2],
            "sparse_shape": [round((limits[5] - limits[2]) / 0.2) + 1, grid, grid],
            "hidden_sizes": [2, 2, 2, 2],
            "depths": [0, 0, 0, 0],
            "output_size": 2,
            "bev_hidden_sizes": [2],
            "bev_depths": [0],
            "bev_strides": [1],
            "bev_neck_sizes": [int(metadata["bev_in_channels"])],
            "bev_upsample_strides": [1],
        }
    return CmtConfig(**{**fields, **overrides})


def convert_head(official: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Our tensors of the authors' head."""
    return split_projections(
        {NAMES.convert(name.removeprefix(HEAD_PREFIX)): value for name, value in official.items()}
    )


def revert_head(ours: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The authors' tensors of our head."""
    packed = pack_projections({name: value for name, value in ours.items() if not name.startswith(BACKBONES)})
    return {HEAD_PREFIX + NAMES.revert(name): value for name, value in packed.items()}


def build_head_model(golden: Golden, way: str = "sdpa", **overrides) -> CmtForObjectDetection3D:
    model = CmtForObjectDetection3D(config_of_head(golden, **overrides))
    weights = convert_head(golden.group("state_dict."))
    report = model.load_state_dict(weights, strict=False)
    assert report.unexpected_keys == []
    assert [name for name in report.missing_keys if not name.startswith(BACKBONES)] == []
    model.set_attn_implementation(way)
    return model.eval()


def head_labels(golden: Golden) -> list[dict[str, torch.Tensor]]:
    batch_size = int(golden.metadata["batch"])
    return [
        {"boxes": golden[f"input.gt_boxes.{sample}"], "class_labels": golden[f"input.gt_labels.{sample}"]}
        for sample in range(batch_size)
    ]


def run_head(model: CmtForObjectDetection3D, golden: Golden, bev=None, images=None, denoising=None):
    """States of the queries from the feature maps of the file, or from those that are given."""
    if bev is None and "input.bev_features" in golden and model.config.has_lidar:
        bev = golden["input.bev_features"]
    if images is None and model.config.has_camera:
        images = golden["input.image_features"]
    return model.model.decode(
        None if bev is None else model.model.bev_projection(bev),
        None if images is None else images.unflatten(0, (int(golden.metadata["batch"]), -1)),
        golden["input.lidar2img"],
        tuple(golden["input.image_size"].tolist()),
        denoising=denoising,
    )


def split_boxes(coded: torch.Tensor, num_tasks: int, task: int) -> dict[str, torch.Tensor]:
    """Branches of one task from coded boxes `(num_layers, batch_size, num_tasks * num_queries, 10)`."""
    own = coded.unflatten(2, (num_tasks, -1))[:, :, task]
    return dict(zip(BOX_BRANCHES, own.split(list(BOX_BRANCHES.values()), dim=-1), strict=True))


__all__ = [
    "build_head_model",
    "config_of_head",
    "convert_head",
    "head_labels",
    "revert_head",
    "run_head",
    "split_boxes",
]
