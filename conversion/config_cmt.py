"""CMT's configuration from the names and shapes of the authors' tensors."""

import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import torch

from decahub import CmtConfig
from decahub.models.cmt.configuration_cmt import CENTERPOINT_TASKS, NUSCENES_CLASSES, VARIANTS

from .checkpoint import ConversionError, shapes_of
from .layouts_cmt import build_official_shapes, find_sparse_layout, to_spconv2


IMAGE_SIZES = {"r50": (320, 800), "vov99": (640, 1600), "camera-vov99": (640, 1600), "lidar": (640, 1600)}
"""Height and width of the images that the authors train each variant with; `"lidar"` sees none."""
TRACELESS_FIELDS = ("voxel_size", "sparse_shape", "num_attention_heads", "point_cloud_range")
"""What no tensor shows: taken from the variant, or from the command line."""
NUM_STAGES = 4
SEPARABLE, PLAIN = "pw_conv1x1", "conv"


class ShapeTable:
    """Shapes of a checkpoint by name, with questions that name the tensor when they cannot be answered."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]):
        self.shapes = shapes

    def size(self, name: str, axis: int = 0) -> int:
        """Size of a tensor along an axis."""
        if name not in self.shapes or axis >= len(self.shapes[name]):
            raise ConversionError(
                f"`checkpoint` must have a tensor {name} of at least {axis + 1} axes; it has "
                f"{list(self.shapes[name]) if name in self.shapes else 'none'}. Is it a CMT checkpoint?"
            )
        return self.shapes[name][axis]

    def has(self, prefix: str) -> bool:
        return any(name.startswith(prefix) for name in self.shapes)

    def count(self, pattern: str) -> int:
        """How many numbers a pattern with one group finds."""
        return len({found[1] for found in (re.match(pattern, name) for name in self.shapes) if found})


def find_variant(official: Mapping[str, torch.Tensor]) -> str | None:
    """The published model with exactly these names and shapes."""
    shapes = shapes_of(to_spconv2(official, find_sparse_layout(official)))
    for name in VARIANTS:
        if _build_published_shapes(name) == shapes:
            return name
    return None


@cache
def _build_published_shapes(variant: str) -> dict[str, tuple[int, ...]]:
    return build_official_shapes(CmtConfig.from_variant(variant))


def infer_config(official: Mapping[str, torch.Tensor], variant: str = "auto", **overrides: Any) -> CmtConfig:
    """Configuration of a checkpoint.

    Args:
        official (`Mapping[str, torch.Tensor]`): the authors' tensors.
        variant (`str`): a published model, refused if the tensors are not its own; `"auto"` finds it.
        overrides: `voxel_size` (x, y, z; m), `sparse_shape` (z, y, x) and `num_attention_heads`, which leave no trace
            in tensors and must be given for models that are not published; `point_cloud_range`, by default the
            published one; `tasks`; other fields of [`CmtConfig`].

    Raises:
        ConversionError: If the tensors are not those of a CMT, or of another variant, or if something that leaves no
            trace is not given.
        ValueError: If `variant` is unknown.
    """
    if variant not in ("auto", *VARIANTS):
        raise ValueError(f"`variant` must be one of {['auto', *VARIANTS]}; got {variant!r}.")
    name = find_variant(official)
    if variant not in ("auto", name):
        raise ConversionError(
            f"`variant` must be that of the checkpoint; got {variant!r} for the tensors of "
            f"{repr(name) if name else 'no published model'}."
        )
    lidar_fields = {key: overrides.pop(key) for key in ("voxel_size", "sparse_shape") if key in overrides}
    if name is not None:
        config = CmtConfig.from_variant(name)
        for key, value in {**lidar_fields, **overrides}.items():
            known = getattr(config.lidar_backbone_config if key in lidar_fields else config, key)
            if list(_as_list(known)) != list(_as_list(value)):
                raise ConversionError(f"`{key}` must be that of {name!r}, {known}; got {value}.")
        return config
    table = ShapeTable(shapes_of(to_spconv2(official, find_sparse_layout(official))))
    fields = _infer_head(table)
    has_camera, has_lidar = table.has("img_backbone."), table.has("pts_middle_encoder.")
    fields["modality"] = "fusion" if has_camera and has_lidar else "camera" if has_camera else "lidar"
    needed = ["num_attention_heads"] + (["voxel_size", "sparse_shape"] if has_lidar else [])
    missing = [key for key in needed if key not in {**lidar_fields, **overrides}]
    if missing:
        flags = ", ".join(f"`--{key}`" for key in missing)
        raise ConversionError(
            f"`checkpoint` must be of a published model, or {flags} must be given: they leave no trace in tensors."
        )
    if has_camera:
        fields["image_backbone_config"] = _infer_image_backbone(table)
    if has_lidar:
        fields["lidar_backbone_config"] = {**_infer_lidar(table), **lidar_fields}
    return CmtConfig(**{**fields, **_infer_tasks(table, fields["num_hidden_layers"], overrides), **overrides})


def _as_list(value: Any) -> Iterable[Any]:
    return value if isinstance(value, (list, tuple)) else [value]


def _infer_head(table: ShapeTable) -> dict[str, Any]:
    head = "pts_bbox_head."
    layers = table.count(r"pts_bbox_head\.transformer\.decoder\.layers\.(\d+)\.")
    fields = {
        "num_queries": table.size(f"{head}reference_points.weight"),
        "hidden_size": table.size(f"{head}bev_embedding.0.weight"),
        "num_hidden_layers": layers,
        "intermediate_size": table.size(f"{head}transformer.decoder.layers.0.ffns.0.layers.0.0.weight"),
        "head_hidden_size": table.size(f"{head}task_heads.0.center.0.weight") // max(layers, 1),
        "head_kernel_size": table.size(f"{head}task_heads.0.center.0.weight", 2),
    }
    if table.has(f"{head}rv_embedding."):
        fields["num_depth_bins"] = table.size(f"{head}rv_embedding.0.weight", 1) // 3
    return fields


def _infer_tasks(table: ShapeTable, num_layers: int, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Classes of each head: those of nuScenes where the numbers are theirs, else numbers, or what is given."""
    count = table.count(r"pts_bbox_head\.task_heads\.(\d+)\.")
    sizes = [table.size(f"pts_bbox_head.task_heads.{task}.cls_logits.3.bias") // num_layers for task in range(count)]
    if "tasks" in overrides:
        given = [len(task) for task in overrides["tasks"]]
        if given != sizes:
            raise ConversionError(f"`tasks` must have the numbers of classes of the checkpoint, {sizes}; got {given}.")
        return {}
    for tasks in ([list(NUSCENES_CLASSES)], [list(task) for task in CENTERPOINT_TASKS]):
        if [len(task) for task in tasks] == sizes:
            return {"tasks": tasks}
    ends = [sum(sizes[: task + 1]) for task in range(count)]
    numbered = [range(end - size, end) for end, size in zip(ends, sizes, strict=True)]
    return {"tasks": [[f"class_{number}" for number in numbers] for numbers in numbered]}


def _infer_image_backbone(table: ShapeTable) -> dict[str, Any]:
    return _infer_vovnet(table) if table.has("img_backbone.stem.") else _infer_resnet(table)


def _infer_vovnet(table: ShapeTable) -> dict[str, Any]:
    backbone = "img_backbone."
    is_separable = table.has(f"{backbone}stem.stem_2/{SEPARABLE}.")
    kind = SEPARABLE if is_separable else PLAIN
    stages = range(2, NUM_STAGES + 2)
    return {
        "model_type": "cmt_vovnet",
        "num_channels": table.size(f"{backbone}stem.stem_1/{PLAIN}.weight", 1),
        "stem_sizes": [
            table.size(f"{backbone}stem.stem_{layer}/{PLAIN if layer == 1 else kind}.weight") for layer in (1, 2, 3)
        ],
        "layer_sizes": [
            table.size(f"{backbone}stage{stage}.OSA{stage}_1.layers.0.OSA{stage}_1_0/{kind}.weight")
            for stage in stages
        ],
        "hidden_sizes": [
            table.size(f"{backbone}stage{stage}.OSA{stage}_1.concat.OSA{stage}_1_concat/{PLAIN}.weight")
            for stage in stages
        ],
        "num_layers_per_block": table.count(r"img_backbone\.stage2\.OSA2_1\.layers\.(\d+)\."),
        "depths": [table.count(rf"img_backbone\.stage{stage}\.OSA{stage}_(\d+)\.") for stage in stages],
        "use_depthwise": is_separable,
        "out_features": ["stage3", "stage4"],
    }


def _infer_resnet(table: ShapeTable) -> dict[str, Any]:
    backbone, stages = "img_backbone.", range(1, NUM_STAGES + 1)
    is_bottleneck = table.has(f"{backbone}layer1.0.conv3.")
    last = "conv3" if is_bottleneck else "conv2"
    return {
        "model_type": "resnet",
        "num_channels": table.size(f"{backbone}conv1.weight", 1),
        "embedding_size": table.size(f"{backbone}conv1.weight"),
        "hidden_sizes": [table.size(f"{backbone}layer{stage}.0.{last}.weight") for stage in stages],
        "depths": [table.count(rf"img_backbone\.layer{stage}\.(\d+)\.") for stage in stages],
        "layer_type": "bottleneck" if is_bottleneck else "basic",
        "out_features": ["stage3", "stage4"],
    }


def _infer_lidar(table: ShapeTable) -> dict[str, Any]:
    encoder = "pts_middle_encoder."
    num_stages = table.count(r"pts_middle_encoder\.encoder_layers\.encoder_layer(\d+)\.")
    num_blocks = table.count(r"pts_backbone\.blocks\.(\d+)\.")
    upsampled = [table.shapes.get(f"pts_neck.deblocks.{level}.0.weight", (0, 0)) for level in range(num_blocks)]
    return {
        "num_point_features": table.size(f"{encoder}conv_input.0.weight", 4),
        "hidden_sizes": [
            table.size(f"{encoder}encoder_layers.encoder_layer{stage + 1}.0.conv1.weight")
            for stage in range(num_stages)
        ],
        "depths": [
            table.count(rf"pts_middle_encoder\.encoder_layers\.encoder_layer{stage + 1}\.(\d+)\.conv1\.")
            for stage in range(num_stages)
        ],
        "output_size": table.size(f"{encoder}conv_out.0.weight"),
        "bev_hidden_sizes": [table.size(f"pts_backbone.blocks.{block}.0.weight") for block in range(num_blocks)],
        # Each convolution is followed by a norm and a ReLU, and only convolutions have four axes.
        "bev_depths": [
            sum(
                len(shape) == 4 and name.startswith(f"pts_backbone.blocks.{block}.")
                for name, shape in table.shapes.items()
            )
            - 1
            for block in range(num_blocks)
        ],
        "bev_neck_sizes": [table.size(f"pts_neck.deblocks.{level}.1.weight") for level in range(num_blocks)],
        "bev_upsample_strides": [shape[-1] for shape in upsampled],
    }


__all__ = ["IMAGE_SIZES", "TRACELESS_FIELDS", "find_variant", "infer_config"]
