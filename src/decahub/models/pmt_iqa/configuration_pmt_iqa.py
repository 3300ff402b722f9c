"""Configuration of PMT-IQA, a quality score and a quality level from multi-scale features (arXiv 2301.01182)."""

import math
from dataclasses import field
from typing import Any, ClassVar, Literal

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig
from transformers.configuration_utils import PreTrainedConfig, SubConfigSpec

from ..shared.checks import MAX_LABELS, MAX_WIDTH, CheckedConfig, check_maximum, check_minimum
from ..shared.variants import build_variant


STAGES = ("stage1", "stage2", "stage3", "stage4")
NUM_CALIBRATION_PARAMETERS = 4


def _resnet(layer_type: str, embedding_size: int, hidden_sizes: list[int], depths: list[int]) -> dict[str, Any]:
    return {
        "model_type": "resnet",
        "layer_type": layer_type,
        "embedding_size": embedding_size,
        "hidden_sizes": hidden_sizes,
        "depths": depths,
        "out_features": list(STAGES),
    }


_RESNET18 = _resnet("basic", 64, [64, 128, 256, 512], [2, 2, 2, 2])
_WIDE = {"lda_out_channels": 16, "target_in_size": 224, "num_levels": 11}

VARIANTS: dict[str, dict[str, Any]] = {
    "tiny": {"backbone_config": _resnet("basic", 32, [32, 64, 128, 256], [1, 1, 1, 1])},
    "resnet18": {"backbone_config": _RESNET18},
    "resnet18_wide": {"backbone_config": _RESNET18, **_WIDE},
    "resnet50": {},
    "resnet50_l11": {"num_levels": 11},
    "resnet50_wide": dict(_WIDE),
    "resnet50_mid": {"lda_out_channels": 16, "hidden_size": 56, "num_levels": 11},
}
"""What differs from the published model, `"resnet50"`; everything else is the default of [`PmtIqaConfig`].

`"resnet50_wide"`, `"resnet50_mid"` and `"resnet18"` are in the authors' code, not in their results; `"tiny"` is ours.
"""


@strict
class PmtIqaConfig(CheckedConfig, PreTrainedConfig):
    """Configuration of [`PmtIqaModel`] and [`PmtIqaForImageQualityAssessment`]; the defaults are the published model.

    Args:
        backbone_config (`dict` or `PreTrainedConfig`, *optional*): Configuration of any backbone of `AutoBackbone`,
            with one feature map for each branch; ResNet-50 by default. Networks of timm come in through
            `{"model_type": "timm_backbone", "backbone": "tf_efficientnet_lite0", "out_indices": [1, 2, 3, 4]}`.
        feature_strides (`list[int]`): Pixels of the image per cell of each feature map.
        crop_size (`int`, defaults to 224): Height and width of a crop.
        strict_crop_size (`bool`, defaults to `True`): Whether crops of another size are refused. The authors' code
            also takes those that are up to 24 pixels larger, whose rim it ignores.
        lda_channels (`list[int]`): Channels of a branch after its 1x1 convolution; the last branch has none.
        pool_size (`int`, defaults to 7): Side of the average pooling in each branch, in cells.
        lda_out_channels (`int`, defaults to 28): Features of each branch but the last.
        target_in_size (`int`, defaults to 112): Features of all branches; the last one fills it up.
        hidden_size (`int`, defaults to 112): Width of the hidden layer before the heads.
        shared_size (`int`, defaults to 14): Width of the vector that both heads share.
        leaky_slope (`float`, defaults to 0.01): Slope of the leaky ReLUs below zero.
        num_levels (`int`, defaults to 10): Number of quality levels.
        score_low (`float`, defaults to 0): Lowest label of the dataset.
        score_high (`float`, defaults to 100): Highest label of the dataset.
        lower_is_better (`bool`, defaults to `False`): Whether the labels are DMOS: a larger score is a worse image.
            Scores are never flipped.
        label_scale (`str`, defaults to `"native"`): Scale on which the score head works: that of the labels, as in the
            authors' code, or `"unit"`, where `score_low` is 0 and `score_high` is 1. Scores are on the labels' scale.
        calibration (`list[float]`, *optional*): Parameters of a logistic curve from scores to labels, fitted after
            training: `(b1 - b2) / (1 + exp(-(score - b3) / |b4|)) + b2`.
        level_rule (`str`, defaults to `"floor"`): How labels become levels; see [`QualityLevelBinner`].
        level_width (`float`, *optional*): Width of a level; by default the range of labels divided by `num_levels`.
        level_overflow (`str`, defaults to `"clamp"`): What happens to labels outside of the levels, or `"error"`.
        task_schedule (`str`, defaults to `"progressive"`): Weights of the two losses over the epochs: from the level
            to the score (`"progressive"`), `w_reg` and `w_cls` throughout (`"constant"`), or `"score_only"`.
        w_reg (`float`, defaults to 1): Weight of the score's loss, where the schedule is constant and wherever no
            schedule is running.
        w_cls (`float`, defaults to 1): Weight of the level's loss, likewise.

    Raises:
        huggingface_hub.errors.StrictDataclassError: If a field has the wrong type or fields contradict each other.

    Example:
    ```python
    >>> from decahub import PmtIqaConfig
    >>> PmtIqaConfig.from_variant("resnet18", score_high=1.0).backbone_config.depths
    [2, 2, 2, 2]

    ```
    """

    model_type = "pmt_iqa"
    sub_configs_defaults: ClassVar[dict] = {
        "backbone_config": SubConfigSpec(
            config_class=AutoConfig, model_type="resnet", init_kwargs={"out_features": list(STAGES)}
        )
    }
    keys_to_ignore_at_inference: ClassVar[list[str]] = [
        "loss_reg", "loss_cls", "crop_scores", "level_logits", "level_probs", "hidden_states"
    ]  # fmt: skip

    # Inputs
    backbone_config: dict | PreTrainedConfig | None = None
    feature_strides: list[int] | tuple[int, ...] = field(default_factory=lambda: [4, 8, 16, 32])
    crop_size: int = 224
    strict_crop_size: bool = True

    # Architecture
    lda_channels: list[int] | tuple[int, ...] = field(default_factory=lambda: [16, 32, 64])
    pool_size: int = 7
    lda_out_channels: int = 28
    target_in_size: int = 112
    hidden_size: int = 112
    shared_size: int = 14
    leaky_slope: float | int = 0.01
    num_levels: int = 10

    # Labels
    score_low: float | int = 0.0
    score_high: float | int = 100.0
    lower_is_better: bool = False
    label_scale: Literal["native", "unit"] = "native"
    calibration: list[float | int] | tuple[float | int, ...] | None = None
    level_rule: Literal["floor", "round"] = "floor"
    level_width: float | int | None = None
    level_overflow: Literal["clamp", "error"] = "clamp"

    # Loss
    task_schedule: Literal["progressive", "constant", "score_only"] = "progressive"
    w_reg: float | int = 1.0
    w_cls: float | int = 1.0

    @classmethod
    def from_variant(cls, name: str, **overrides: Any) -> "PmtIqaConfig":
        """Configuration of a named variant, such as `"resnet50"` (published) or `"tiny"`."""
        return build_variant(cls, VARIANTS, name, overrides)

    @property
    def num_branches(self) -> int:
        """Number of feature maps that are read."""
        return len(self.feature_strides)

    @property
    def num_hidden_layers(self) -> int:
        """Number of feature maps, which is what `hidden_states` counts."""
        return self.num_branches

    @property
    def branch_sizes(self) -> list[int]:
        """Features of each branch."""
        sizes = [self.lda_out_channels] * (self.num_branches - 1)
        return [*sizes, self.target_in_size - sum(sizes)]

    @property
    def branch_grids(self) -> list[int]:
        """Rows, and columns, of pooled cells in each branch."""
        return [self.crop_size // stride // self.pool_size for stride in self.feature_strides]

    def validate_branches(self):
        check_minimum(self, 1, "pool_size", "lda_out_channels", "hidden_size", "shared_size", "crop_size")
        for name in ("lda_out_channels", "hidden_size", "shared_size", "target_in_size", "crop_size"):
            check_maximum(name, [getattr(self, name)], MAX_WIDTH)
        if not self.feature_strides or min(self.feature_strides) < 1:
            raise ValueError(f"`feature_strides` must hold positive numbers; got {self.feature_strides}.")
        if len(self.lda_channels) != self.num_branches - 1 or min(self.lda_channels, default=1) < 1:
            raise ValueError(
                f"`lda_channels` must hold a positive number for each of `feature_strides` but the last, "
                f"{self.num_branches - 1}; got {self.lda_channels}."
            )
        if self.branch_sizes[-1] < 1:
            raise ValueError(
                f"`target_in_size` must be greater than {self.num_branches - 1} * `lda_out_channels` "
                f"({self.target_in_size - self.branch_sizes[-1]}); got {self.target_in_size}."
            )
        if min(self.branch_grids) < 1:
            raise ValueError(
                f"`pool_size` must be at most {self.crop_size // max(self.feature_strides)}, the cells of the "
                f"coarsest map of a crop of {self.crop_size} pixels; got {self.pool_size}."
            )

    def validate_numbers(self):
        for name in ("leaky_slope", "score_low", "score_high", "level_width", "w_reg", "w_cls"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise ValueError(f"`{name}` must be finite; got {value}.")
        if not all(map(math.isfinite, self.calibration or ())):
            raise ValueError(f"`calibration` must be finite; got {self.calibration}.")

    def validate_labels(self):
        check_minimum(self, 2, "num_levels")
        check_maximum("num_levels", [self.num_levels], MAX_LABELS)
        if not self.score_low < self.score_high:
            raise ValueError(f"`score_low` must be less than `score_high` ({self.score_high}); got {self.score_low}.")
        if self.level_width is not None and self.level_width <= 0:
            raise ValueError(f"`level_width` must be positive; got {self.level_width}.")
        if self.level_width is not None:
            # Rounding makes one level more of the same width, or puts the best labels into the last one.
            num_wanted = (self.score_high - self.score_low) / self.level_width
            if abs(num_wanted - self.num_levels) > 1 + 1e-6:
                raise ValueError(
                    f"`level_width` must divide the labels from {self.score_low:g} to {self.score_high:g} into about "
                    f"`num_levels` ({self.num_levels}) levels; {self.level_width:g} gives {num_wanted:g}."
                )
        if self.calibration is not None:
            if len(self.calibration) != NUM_CALIBRATION_PARAMETERS:
                raise ValueError(
                    f"`calibration` must hold the {NUM_CALIBRATION_PARAMETERS} parameters of the logistic curve; got "
                    f"{len(self.calibration)}."
                )
            if not self.calibration[-1]:
                raise ValueError(f"the last of `calibration` must not be 0; got {self.calibration}.")

    def validate_weights(self):
        check_minimum(self, 0, "w_reg", "w_cls")
        if not self.w_reg + self.w_cls:
            raise ValueError("`w_reg` or `w_cls` must be positive; got 0 for both.")


__all__ = ["VARIANTS", "PmtIqaConfig"]
