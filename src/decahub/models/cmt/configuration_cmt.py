"""Configuration of CMT, a transformer that detects 3D boxes from cameras and LiDAR (arXiv 2301.01283)."""

import difflib
import math
from collections.abc import Sequence
from dataclasses import field
from itertools import accumulate
from operator import mul
from typing import Any, ClassVar, Literal

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig
from transformers.backbone_utils import BackboneConfigMixin
from transformers.configuration_utils import PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from ..shared.checks import (
    MAX_DEPTH,
    MAX_WIDTH,
    CheckedConfig,
    check_maximum,
    check_minimum,
    check_rates,
    refuse_other_type,
)
from ..shared.variants import build_variant


NUSCENES_CLASSES = (
    "car", "truck", "construction_vehicle", "bus", "trailer", "barrier", "motorcycle", "bicycle", "pedestrian",
    "traffic_cone",
)  # fmt: skip
CENTERPOINT_TASKS = (
    ("car",), ("truck", "construction_vehicle"), ("bus", "trailer"), ("barrier",), ("motorcycle", "bicycle"),
    ("pedestrian", "traffic_cone"),
)  # fmt: skip
NUM_STAGES = 4
BOX_CODE_SIZE = 10
MIN_COVERED_SHARE = 0.9
"""Least share of the range that voxels must cover; those of the published CMT-R50 cover 1024 of 1080 cells."""
IMAGE_STAGES = ("stage3", "stage4")
"""Stages of stride 16 and 32 in most backbones."""
OUTPUT_KERNEL_SIZE, OUTPUT_STRIDE = (3, 1, 1), (2, 1, 1)
"""Geometry (z, y, x) of the sparse encoder's last convolution."""
_BEV_LISTS = ("bev_depths", "bev_strides", "bev_neck_sizes", "bev_upsample_strides")

_SLIM = {"layer_sizes": [64, 80, 96, 112], "hidden_sizes": [112, 256, 384, 512], "num_layers_per_block": 3}
_WIDE = {"layer_sizes": [128, 160, 192, 224], "hidden_sizes": [256, 512, 768, 1024]}
_REGULAR = {"stem_sizes": [64, 64, 128], "use_depthwise": False}
_DEPTHWISE = {"stem_sizes": [64, 64, 64], "use_depthwise": True}
VOVNET_VARIANTS: dict[str, dict[str, Any]] = {
    "19-slim-dw": {**_SLIM, **_DEPTHWISE, "depths": [1, 1, 1, 1]},
    "19-dw": {**_WIDE, **_DEPTHWISE, "num_layers_per_block": 3, "depths": [1, 1, 1, 1]},
    "19-slim": {**_SLIM, **_REGULAR, "depths": [1, 1, 1, 1]},
    "19": {**_WIDE, **_REGULAR, "num_layers_per_block": 3, "depths": [1, 1, 1, 1]},
    "39": {**_WIDE, **_REGULAR, "num_layers_per_block": 5, "depths": [1, 1, 2, 2]},
    "57": {**_WIDE, **_REGULAR, "num_layers_per_block": 5, "depths": [1, 1, 4, 3]},
    "99": {**_WIDE, **_REGULAR, "num_layers_per_block": 5, "depths": [1, 3, 9, 3]},
}
"""VoVNet-eSE in the sizes that the authors' code names."""

_RESNET50 = {"model_type": "resnet", "out_features": ["stage3", "stage4"]}
_VOVNET99 = {"model_type": "cmt_vovnet", **VOVNET_VARIANTS["99"], "out_features": ["stage3", "stage4"]}
_VOXEL_0075 = {"model_type": "cmt_lidar", "voxel_size": [0.075, 0.075, 0.2], "sparse_shape": [41, 1440, 1440]}
_VOXEL_0100 = {"model_type": "cmt_lidar", "voxel_size": [0.1, 0.1, 0.2], "sparse_shape": [41, 1024, 1024]}
VARIANTS: dict[str, dict[str, Any]] = {
    "r50": {"modality": "fusion", "image_backbone_config": _RESNET50, "lidar_backbone_config": _VOXEL_0100},
    "vov99": {"modality": "fusion", "image_backbone_config": _VOVNET99, "lidar_backbone_config": _VOXEL_0075},
    "camera-vov99": {"modality": "camera", "image_backbone_config": _VOVNET99},
    "lidar": {"modality": "lidar", "lidar_backbone_config": _VOXEL_0075, "head_kernel_size": 3},
}
"""The published models: images of 320x800 pixels for `r50` and of 640x1600 for the other two with cameras."""


@strict
class CmtVovNetConfig(CheckedConfig, BackboneConfigMixin, PreTrainedConfig):
    r"""Configuration of [`CmtVovNetBackbone`], VoVNet with squeeze and excitation in every block.

    The defaults are those of V-19-slim-dw, the smallest. Lists have one entry for each of the four stages, which the
    authors number from 2 to 5.

    Args:
        num_channels (`int`, defaults to 3): Channels of `pixel_values`.
        stem_sizes (`list[int]`): Channels of the three convolutions of the stem; the first and last have stride 2.
        layer_sizes (`list[int]`): Channels of the convolutions inside a block.
        hidden_sizes (`list[int]`): Channels after a block.
        num_layers_per_block (`int`, defaults to 3): Convolutions in a block, whose outputs are concatenated.
        depths (`list[int]`): Blocks per stage.
        use_depthwise (`bool`, defaults to `True`): Whether 3x3 convolutions are depth-wise and then point-wise.
        batch_norm_eps (`float`, defaults to 1e-5): Epsilon of batch norms.
        out_features (`list[str]`, *optional*): Stages to return, of `stem, stage1, ..., stage4`.
        out_indices (`list[int]`, *optional*): The same by index; negative indices count from the end.

    Raises:
        huggingface_hub.errors.StrictDataclassError: If a field has the wrong type or fields contradict each other.

    Example:
    ```python
    >>> from decahub import CmtVovNetConfig
    >>> CmtVovNetConfig.from_variant("99").depths
    [1, 3, 9, 3]

    ```
    """

    model_type = "cmt_vovnet"

    num_channels: int = 3
    stem_sizes: list[int] | tuple[int, ...] = field(default_factory=lambda: [64, 64, 64])
    layer_sizes: list[int] | tuple[int, ...] = field(default_factory=lambda: [64, 80, 96, 112])
    hidden_sizes: list[int] | tuple[int, ...] = field(default_factory=lambda: [112, 256, 384, 512])
    num_layers_per_block: int = 3
    depths: list[int] | tuple[int, ...] = field(default_factory=lambda: [1, 1, 1, 1])
    use_depthwise: bool = True
    batch_norm_eps: float = 1e-5

    def __post_init__(self, **kwargs):
        self.stage_names = ["stem"] + [f"stage{index}" for index in range(1, NUM_STAGES + 1)]
        self.set_output_features_output_indices(
            out_features=kwargs.pop("out_features", None), out_indices=kwargs.pop("out_indices", None)
        )
        super().__post_init__(**kwargs)

    @classmethod
    def from_variant(cls, name: str, **overrides: Any) -> "CmtVovNetConfig":
        """Configuration of a size that the authors' code names: `"19-slim-dw"`, `"19"`, `"39"`, `"57"`, `"99"`, ..."""
        return build_variant(cls, VOVNET_VARIANTS, name, overrides)

    def validate_architecture(self):
        stages = {"layer_sizes": self.layer_sizes, "hidden_sizes": self.hidden_sizes, "depths": self.depths}
        for name, values in {"stem_sizes": self.stem_sizes, **stages}.items():
            wanted = 3 if name == "stem_sizes" else NUM_STAGES
            if len(values) != wanted or min(values) < 1:
                raise ValueError(f"`{name}` must hold {wanted} positive integers; got {list(values)}.")
            check_maximum(name, values, MAX_DEPTH if name == "depths" else MAX_WIDTH)
        check_minimum(self, 1, "num_channels", "num_layers_per_block")
        check_maximum("num_layers_per_block", [self.num_layers_per_block], MAX_DEPTH)


@strict
class CmtLidarConfig(CheckedConfig, PreTrainedConfig):
    r"""Configuration of CMT's LiDAR branch: a sparse 3D encoder of voxels, then a 2D network on the bird's-eye view.

    Args:
        voxel_size (`list[float]`): Size of a voxel in meters, (x, y, z).
        sparse_shape (`list[int]`): Number of voxels, **(z, y, x)**; z has one more than the range holds.
        num_point_features (`int`, defaults to 5): Values of a point: x, y, z, intensity, time lag.
        hidden_sizes (`list[int]`): Channels of the residual blocks of each stage. The first convolution leads to the
            first of them; at the end of each stage but the last, one of stride 2 leads to the next.
        depths (`list[int]`): Residual blocks per stage.
        paddings (`list[list[int]]`): Padding (z, y, x) of each convolution of stride 2.
        output_size (`int`, defaults to 128): Channels of the last sparse convolution.
        bev_hidden_sizes (`list[int]`): Channels of each block of the 2D network.
        bev_depths (`list[int]`): Convolutions of each block after its first.
        bev_strides (`list[int]`): Stride of each block's first convolution.
        bev_neck_sizes (`list[int]`): Channels of each block's map before they are concatenated.
        bev_upsample_strides (`list[float]`): How much each block's map is enlarged before that; 0.5 halves it.
        batch_norm_eps (`float`, defaults to 1e-3): Epsilon of batch norms.
        batch_norm_momentum (`float`, defaults to 0.01): Momentum of batch norms.
        sparse_backend (`str`, defaults to `"auto"`): `"torch"`, `"spconv"`, or `"auto"`, which takes spconv where it
            is installed and the voxels are on a CUDA device.

    Raises:
        huggingface_hub.errors.StrictDataclassError: If a field has the wrong type or fields contradict each other.
    """

    model_type = "cmt_lidar"
    base_config_key = "lidar_backbone_config"

    voxel_size: list[float | int] | tuple[float | int, ...] = field(default_factory=lambda: [0.1, 0.1, 0.2])
    sparse_shape: list[int] | tuple[int, ...] = field(default_factory=lambda: [41, 1024, 1024])
    num_point_features: int = 5
    hidden_sizes: list[int] | tuple[int, ...] = field(default_factory=lambda: [16, 32, 64, 128])
    depths: list[int] | tuple[int, ...] = field(default_factory=lambda: [2, 2, 2, 2])
    paddings: list[list[int]] | list[tuple[int, ...]] | tuple[tuple[int, ...], ...] = field(
        default_factory=lambda: [[1, 1, 1], [1, 1, 1], [0, 1, 1]]
    )
    output_size: int = 128
    bev_hidden_sizes: list[int] | tuple[int, ...] = field(default_factory=lambda: [128, 256])
    bev_depths: list[int] | tuple[int, ...] = field(default_factory=lambda: [5, 5])
    bev_strides: list[int] | tuple[int, ...] = field(default_factory=lambda: [1, 2])
    bev_neck_sizes: list[int] | tuple[int, ...] = field(default_factory=lambda: [256, 256])
    bev_upsample_strides: list[float | int] | tuple[float | int, ...] = field(default_factory=lambda: [1, 2])
    batch_norm_eps: float = 1e-3
    batch_norm_momentum: float = 0.01
    sparse_backend: Literal["auto", "torch", "spconv"] = "auto"

    @property
    def encoder_shape(self) -> tuple[int, int, int]:
        """Size of the sparse encoder's output, (z, y, x)."""
        shape = list(self.sparse_shape)
        for padding in self.paddings:
            shape = [(size + 2 * pad - 3) // 2 + 1 for size, pad in zip(shape, padding, strict=True)]
        depth, height, width = shape
        return (depth - OUTPUT_KERNEL_SIZE[0]) // OUTPUT_STRIDE[0] + 1, height, width

    @property
    def bev_size(self) -> int:
        """Channels of the map on the bird's-eye view: those of all heights side by side."""
        return self.output_size * self.encoder_shape[0]

    def validate_architecture(self):
        for name in ("voxel_size", "sparse_shape"):
            values = getattr(self, name)
            if len(values) != 3 or not all(0 < value < math.inf for value in values):
                raise ValueError(f"`{name}` must hold 3 positive numbers; got {list(values)}.")
        check_maximum("sparse_shape", self.sparse_shape, MAX_WIDTH)
        check_minimum(self, 1, "num_point_features", "output_size")
        _check_lengths(self, "hidden_sizes", {"depths": 0, "paddings": -1})
        _check_lengths(self, "bev_hidden_sizes", dict.fromkeys(_BEV_LISTS, 0))
        for name in ("hidden_sizes", "bev_hidden_sizes", "bev_neck_sizes", "bev_strides"):
            if min(getattr(self, name)) < 1:
                raise ValueError(f"`{name}` must hold positive integers; got {list(getattr(self, name))}.")
            check_maximum(name, getattr(self, name), MAX_WIDTH)
        for name in ("depths", "bev_depths"):
            if min(getattr(self, name)) < 0:
                raise ValueError(f"`{name}` must hold integers of at least 0; got {list(getattr(self, name))}.")
            check_maximum(name, getattr(self, name), MAX_DEPTH)
        self._check_geometry()

    def _check_geometry(self):
        for padding in self.paddings:
            if len(padding) != 3 or not set(padding) <= {0, 1}:
                raise ValueError(f"`paddings` must hold triples of 0 and 1; got {list(padding)}.")
        if min(self.encoder_shape) < 1:
            raise ValueError(
                f"`sparse_shape` must leave a voxel on each axis; got {list(self.sparse_shape)}, of which "
                f"{self.encoder_shape} are left. Take smaller voxels or fewer stages."
            )
        strides = list(accumulate(self.bev_strides, mul))
        upsampling = self.bev_upsample_strides
        for scale in upsampling:
            if scale <= 0 or (scale if scale >= 1 else 1 / scale) % 1:
                raise ValueError(
                    f"`bev_upsample_strides` must hold whole numbers or their inverses; got {list(upsampling)}."
                )
        if len({stride / scale for stride, scale in zip(strides, upsampling, strict=True)}) > 1:
            raise ValueError(
                f"`bev_upsample_strides` must bring the maps, of strides {strides}, to one size; got "
                f"{list(upsampling)}."
            )


def _check_lengths(config: CmtLidarConfig, reference: str, differences: dict[str, int]) -> None:
    """Refuses lists that do not have as many entries as `reference`, plus a difference."""
    num_entries = len(getattr(config, reference))
    if not num_entries:
        raise ValueError(f"`{reference}` must have one entry at least; got none.")
    for name, difference in differences.items():
        wanted, given = num_entries + difference, len(getattr(config, name))
        if given != wanted:
            raise ValueError(f"`{name}` must have {wanted} entries for {num_entries} `{reference}`; got {given}.")


@strict
class CmtConfig(CheckedConfig, PreTrainedConfig):
    r"""Configuration of [`CmtModel`] and [`CmtForObjectDetection3D`].

    The defaults are those of CMT-R50, the smallest published model that fuses both sensors.

    Args:
        modality (`str`, defaults to `"fusion"`): Sensors of the model: `"fusion"`, `"camera"` or `"lidar"`.
        image_backbone_config (`PreTrainedConfig` or `dict`, *optional*): Backbone of the images, any that
            `AutoBackbone` knows. It returns two maps, the second half as high and wide as the first; in published
            models of stride 16 and 32. By default ResNet-50; none without cameras.
        lidar_backbone_config ([`CmtLidarConfig`] or `dict`, *optional*): Branch of the points; none without LiDAR.
        point_cloud_range (`list[float]`): x, y, z of the nearest and of the farthest corner that is seen, in meters.
        hidden_size (`int`, defaults to 256): Channels of tokens and queries.
        num_queries (`int`, defaults to 900): Boxes that are predicted.
        num_depth_bins (`int`, defaults to 64): Points along the ray of an image token.
        num_hidden_layers (`int`, defaults to 6): Layers of the decoder.
        num_attention_heads (`int`, defaults to 8): Attention heads.
        intermediate_size (`int`, defaults to 1024): Width of the feed-forward layers.
        attention_dropout (`float`, defaults to 0.1): Dropout on the weights of self-attention.
        cross_attention_dropout (`float`, defaults to 0): Dropout on those of cross-attention; the authors' has no
            effect.
        hidden_dropout (`float`, defaults to 0.1): Dropout on the output of attention.
        layer_norm_eps (`float`, defaults to 1e-5): Epsilon of the decoder's layer norms.
        tasks (`list[list[str]]`, *optional*): Classes by the head that predicts them; together they are `id2label`. By
            default one head has all classes. Label ids count through the tasks.
        head_hidden_size (`int`, defaults to 64): Channels inside a head.
        head_kernel_size (`int`, defaults to 1): Kernel of a head over neighboring queries; published CMT-L has 3.
        box_slot_order (`str`, defaults to `"official"`): How coded boxes are read: `"official"` has the logarithm of
            the length where the height belongs (authors' weights need it); `"natural"` is for training from scratch.
        missing_modality (`str`, defaults to `"zero"`): What a masked sensor gives: `"zero"` black images or a single
            voxel of zeros, as the authors train and test; `"drop"` no tokens at all, which is faster. Cameras whose
            images are not even given are left out in both.
        black_pixel (`list[float]`): A black pixel after normalization, which a masked camera shows: -mean / std in the
            order of the channels.
        freeze_batch_norm (`bool`, defaults to `True`): Whether the image backbone's batch norms keep their statistics.
        prior_bias (`bool`, defaults to `True`): Whether class scores of a new model start at 0.1; the authors meant
            to, and do not.
        class_cost (`float`, defaults to 2): Weight of the class in the matching cost.
        box_cost (`float`, defaults to 0.25): Weight of the box in the matching cost.
        class_loss_coefficient (`float`, defaults to 2): Weight of the focal loss.
        box_loss_coefficient (`float`, defaults to 0.25): Weight of the L1 loss.
        background_weight (`float`, defaults to 0.1): Share of a background query in the norm of the focal loss.
        focal_alpha (`float`, defaults to 0.25): Alpha of the focal loss.
        focal_gamma (`float`, defaults to 2): Gamma of the focal loss.
        code_weights (`list[float]`): Weights of the ten values of a coded box.
        denoising_groups (`int`, defaults to 10): Noised copies of the ground truth; 0 for none.
        denoising_scale (`float`, defaults to 1): Their noise in half sizes of a box.
        denoising_threshold (`float`, defaults to 0.75): Length of the noise from which on a copy is background.
        denoising_coefficient (`float`, defaults to 1): Weight of their losses.
        post_center_range (`list[float]`): Boxes whose centers lie outside are dropped.
        max_detections (`int`, defaults to 300): Boxes that are kept.

    Raises:
        huggingface_hub.errors.StrictDataclassError: If a field has the wrong type or fields contradict each other.

    Example:
    ```python
    >>> from decahub import CmtConfig
    >>> CmtConfig.from_variant("lidar").head_kernel_size
    3

    ```
    """

    model_type = "cmt"
    sub_configs: ClassVar[dict[str, Any]] = {
        "image_backbone_config": AutoConfig,
        "lidar_backbone_config": CmtLidarConfig,
    }

    # Sensors
    modality: Literal["fusion", "camera", "lidar"] = "fusion"
    image_backbone_config: dict | PreTrainedConfig | None = None
    lidar_backbone_config: dict | PreTrainedConfig | None = None
    point_cloud_range: list[float | int] | tuple[float | int, ...] = field(
        default_factory=lambda: [-54.0, -54.0, -5.0, 54.0, 54.0, 3.0]
    )
    missing_modality: Literal["zero", "drop"] = "zero"
    black_pixel: list[float | int] | tuple[float | int, ...] = field(
        default_factory=lambda: [-103.53 / 57.375, -116.28 / 57.12, -123.675 / 58.395]
    )
    freeze_batch_norm: bool = True

    # Decoder
    hidden_size: int = 256
    num_queries: int = 900
    num_depth_bins: int = 64
    num_hidden_layers: int = 6
    num_attention_heads: int = 8
    intermediate_size: int = 1024
    attention_dropout: float | int = 0.1
    cross_attention_dropout: float | int = 0.0
    hidden_dropout: float | int = 0.1
    layer_norm_eps: float = 1e-5

    # Heads
    tasks: list[list[str]] | tuple[tuple[str, ...], ...] | None = None
    head_hidden_size: int = 64
    head_kernel_size: int = 1
    box_slot_order: Literal["official", "natural"] = "official"
    prior_bias: bool = True

    # Losses
    class_cost: float | int = 2.0
    box_cost: float | int = 0.25
    class_loss_coefficient: float | int = 2.0
    box_loss_coefficient: float | int = 0.25
    background_weight: float | int = 0.1
    focal_alpha: float = 0.25
    focal_gamma: float | int = 2.0
    code_weights: list[float | int] | tuple[float | int, ...] = field(
        default_factory=lambda: [2.0, 2.0] + [1.0] * 6 + [0.2] * 2
    )
    denoising_groups: int = 10
    denoising_scale: float | int = 1.0
    denoising_threshold: float = 0.75
    denoising_coefficient: float | int = 1.0

    # Answers
    post_center_range: list[float | int] | tuple[float | int, ...] = field(
        default_factory=lambda: [-61.2, -61.2, -10.0, 61.2, 61.2, 10.0]
    )
    max_detections: int = 300

    def __post_init__(self, **kwargs):
        if self.image_backbone_config is not None or self.modality != "lidar":
            self.image_backbone_config = _build_backbone_config(self.image_backbone_config)
        if self.modality != "camera" and self.lidar_backbone_config is None:
            self.lidar_backbone_config = CmtLidarConfig()
        elif isinstance(self.lidar_backbone_config, dict):
            refuse_other_type(CmtLidarConfig, self.lidar_backbone_config)
            fields = {name: value for name, value in self.lidar_backbone_config.items() if name != "model_type"}
            self.lidar_backbone_config = CmtLidarConfig(**fields)
        if "id2label" not in kwargs and self.id2label is None and "num_labels" not in kwargs:
            names = [name for task in self.tasks or [list(NUSCENES_CLASSES)] for name in task]
            self.id2label = dict(enumerate(names))
            self.label2id = {name: index for index, name in enumerate(names)}
        super().__post_init__(**kwargs)

    @classmethod
    def from_variant(cls, name: str, **overrides: Any) -> "CmtConfig":
        """Configuration of a published model: `"r50"`, `"vov99"`, `"camera-vov99"` or `"lidar"`."""
        return build_variant(cls, VARIANTS, name, overrides)

    @property
    def has_camera(self) -> bool:
        """Whether the model takes images."""
        return self.modality != "lidar"

    @property
    def has_lidar(self) -> bool:
        """Whether the model takes points."""
        return self.modality != "camera"

    @property
    def num_attention_layers(self) -> int:
        """Number of layers of the decoder."""
        return self.num_hidden_layers

    @property
    def task_sizes(self) -> list[int]:
        """Number of classes of each head."""
        return [len(task) for task in self.tasks] if self.tasks is not None else [self.num_labels or 0]

    def validate_sensors(self):
        for name, is_used in (("image_backbone_config", self.has_camera), ("lidar_backbone_config", self.has_lidar)):
            if not is_used and getattr(self, name) is not None:
                raise ValueError(
                    f"`{name}` must be None for `modality={self.modality!r}`, which has no such sensor. Leave it out, "
                    "or choose another modality."
                )
        if self.modality != "fusion" and self.missing_modality != "zero":
            raise ValueError(
                f"`missing_modality` must be 'zero' for `modality={self.modality!r}`: its only sensor "
                "cannot be missing."
            )

    def validate_image_backbone(self):
        if not self.has_camera:
            return
        backbone = self.image_backbone_config
        chosen = getattr(backbone, "out_features", None)
        if chosen is None or len(chosen) != 2:
            raise ValueError(
                "`image_backbone_config` must choose two feature maps by `out_features`, in published models those "
                f"of stride 16 and 32; got {chosen} of {getattr(backbone, 'stage_names', None)}."
            )
        num_channels = getattr(backbone, "num_channels", len(self.black_pixel))
        if num_channels != len(self.black_pixel):
            raise ValueError(
                f"`black_pixel` must have one value for each of {num_channels} channels; got {list(self.black_pixel)}."
            )

    def validate_bounds(self):
        for name in ("point_cloud_range", "post_center_range"):
            check_bounds(name, getattr(self, name))
        if self.has_camera and self.point_cloud_range[3] <= 1:
            raise ValueError(
                "`point_cloud_range` must end beyond x = 1 m, where depths along a ray begin; got "
                f"{self.point_cloud_range[3]}."
            )

    def validate_grid(self):
        if not self.has_lidar:
            return
        lidar = self.lidar_backbone_config
        stride = 2 ** len(lidar.paddings) * math.prod(lidar.bev_strides)
        for name, size in zip("yx", lidar.sparse_shape[1:], strict=True):
            if size % stride:
                raise ValueError(
                    f"`sparse_shape` must be a multiple of {stride} along {name}, the stride of the coarsest map; got "
                    f"{size}. Change `voxel_size` or `point_cloud_range`."
                )
        low, high = self.point_cloud_range[:3], self.point_cloud_range[3:]
        for axis, name in enumerate("xyz"):
            given = lidar.sparse_shape[2 - axis]
            needed = round((high[axis] - low[axis]) / lidar.voxel_size[axis])
            most = needed + 1 if name == "z" else needed
            least = needed if name == "z" else math.ceil(MIN_COVERED_SHARE * needed)
            if not least <= given <= most:
                raise ValueError(
                    f"`sparse_shape` must have {least} to {most} voxels along {name}, since `point_cloud_range` is "
                    f"{high[axis] - low[axis]:g} m and a voxel {lidar.voxel_size[axis]:g} m; got {given}."
                )

    def validate_tasks(self):
        if self.tasks is None:
            return
        check_tasks(self.tasks)
        names = [name for task in self.tasks for name in task]
        wanted = [self.id2label[index] for index in range(self.num_labels)]
        if names != wanted:
            raise ValueError(
                f"`tasks` must list the classes of `id2label` in their order; got {names} instead of {wanted}. Give "
                "both, or neither for a single head."
            )

    def validate_sizes(self):
        check_minimum(
            self, 1, "hidden_size", "num_queries", "num_depth_bins", "num_hidden_layers", "num_attention_heads",
            "intermediate_size", "head_hidden_size", "head_kernel_size", "max_detections",
        )  # fmt: skip
        check_maximum("num_hidden_layers", [self.num_hidden_layers], MAX_DEPTH)
        widths = ("hidden_size", "intermediate_size", "head_hidden_size", "num_queries", "num_depth_bins")
        for name in widths:
            check_maximum(name, [getattr(self, name)], MAX_WIDTH)
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"`hidden_size` must be a multiple of `num_attention_heads` ({self.num_attention_heads}); got "
                f"{self.hidden_size}."
            )
        if self.head_kernel_size % 2 == 0:
            raise ValueError(f"`head_kernel_size` must be odd; got {self.head_kernel_size}.")

    def validate_losses(self):
        check_minimum(
            self, 0, "class_cost", "box_cost", "class_loss_coefficient", "box_loss_coefficient", "background_weight",
            "focal_gamma", "denoising_groups", "denoising_scale", "denoising_threshold", "denoising_coefficient",
        )  # fmt: skip
        if not 0 <= self.focal_alpha <= 1:
            raise ValueError(f"`focal_alpha` must lie in [0, 1]; got {self.focal_alpha}.")
        weights = list(self.code_weights)
        if len(weights) != BOX_CODE_SIZE or min(weights) < 0:
            raise ValueError(f"`code_weights` must hold {BOX_CODE_SIZE} numbers of at least 0; got {weights}.")

    def validate_rates(self):
        check_rates(self, "attention_dropout", "cross_attention_dropout", "hidden_dropout")


def check_bounds(name: str, values: Sequence[float]) -> None:
    """Refuses a range in space that is no box: finite x, y, z of its nearest and of its farthest corner."""
    values = list(values)
    is_box = len(values) == 6 and all(low < high for low, high in zip(values[:3], values[3:], strict=True))
    if not is_box or not all(map(math.isfinite, values)):
        raise ValueError(
            f"`{name}` must hold x, y, z of the nearest and then of the farthest corner, 6 finite numbers that grow "
            f"from one corner to the other; got {values}."
        )


def check_tasks(tasks: Sequence[Sequence[str]]) -> None:
    """Refuses tasks without classes, and classes that belong to several."""
    if not tasks or not all(tasks):
        raise ValueError("`tasks` must hold at least one class each; got an empty one.")
    names = [name for task in tasks for name in task]
    if len(set(names)) < len(names):
        twice = next(name for index, name in enumerate(names) if name in names[:index])
        raise ValueError(f"`tasks` must name each class once; got {twice!r} twice.")


def _build_backbone_config(given: dict | PreTrainedConfig | None) -> PreTrainedConfig:
    if isinstance(given, PreTrainedConfig):
        return given
    fields = dict(_RESNET50 if given is None else given)
    model_type = fields.pop("model_type", None)
    # Files hold both; a choice of our own would contradict the other one.
    if not {"out_features", "out_indices"} & fields.keys():
        fields["out_features"] = list(IMAGE_STAGES)
    if model_type == CmtVovNetConfig.model_type:
        return CmtVovNetConfig(**fields)
    if model_type not in CONFIG_MAPPING:
        nearest = difflib.get_close_matches(str(model_type), list(CONFIG_MAPPING), n=1)
        hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
        raise ValueError(
            "`image_backbone_config` must name the `model_type` of a backbone that transformers or decahub knows, "
            f"such as 'resnet', 'emo' or 'cmt_vovnet'; got {model_type!r}.{hint}"
        )
    return CONFIG_MAPPING[model_type](**fields)


__all__ = [
    "VARIANTS",
    "VOVNET_VARIANTS",
    "CmtConfig",
    "CmtLidarConfig",
    "CmtVovNetConfig",
    "check_bounds",
    "check_tasks",
]
