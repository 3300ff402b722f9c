"""Configuration of EMO, a backbone of inverted residual mobile blocks (arXiv 2301.01146, section 4)."""

from dataclasses import field
from typing import Any, ClassVar, Literal

from huggingface_hub.dataclasses import strict
from transformers.backbone_utils import BackboneConfigMixin
from transformers.configuration_utils import PreTrainedConfig

from ..shared.checks import (
    MAX_DEPTH,
    MAX_WIDTH,
    CheckedConfig,
    check_maximum,
    check_minimum,
    check_rates,
)
from ..shared.ignore_index import IGNORED_PIXEL
from ..shared.variants import build_variant


VARIANTS = {
    "1m": {
        "depths": [2, 2, 8, 3],
        "hidden_sizes": [32, 48, 80, 168],
        "expansion_ratios": [2.0, 2.5, 3.0, 3.5],
        "head_dims": [16, 16, 20, 21],
        "drop_path_rate": 0.04036,
    },
    "2m": {
        "depths": [3, 3, 9, 3],
        "hidden_sizes": [32, 48, 120, 200],
        "expansion_ratios": [2.0, 2.5, 3.0, 3.5],
        "head_dims": [16, 16, 20, 20],
        "drop_path_rate": 0.05,
    },
    "5m": {
        "depths": [3, 3, 9, 3],
        "hidden_sizes": [48, 72, 160, 288],
        "expansion_ratios": [2.0, 3.0, 4.0, 4.0],
        "head_dims": [24, 24, 32, 32],
        "drop_path_rate": 0.05,
    },
    "6m": {
        "depths": [3, 3, 9, 3],
        "hidden_sizes": [48, 72, 160, 320],
        "expansion_ratios": [2.0, 3.0, 4.0, 5.0],
        "head_dims": [16, 24, 20, 32],
        "drop_path_rate": 0.05,
    },
}
"""What differs between the published models; everything else is the default of [`EmoConfig`]."""

NUM_IMAGENET_LABELS = 1000
NUM_STAGES = 4
HIDDEN_ACTS = ("silu", "gelu", "relu")


@strict
class EmoConfig(CheckedConfig, BackboneConfigMixin, PreTrainedConfig):
    r"""Configuration of [`EmoModel`] and its task classes.

    The defaults are those of EMO-1M, the smallest published
    variant.

    Lists have one entry for each of the four stages; the stem has its own fields and takes the kernel size, norm
    and activation of the first stage.

    Args:
        num_channels (`int`, defaults to 3): Channels of `pixel_values`.
        stem_hidden_size (`int`, defaults to 24): Channels after the stem.
        stem_stride (`int`, defaults to 2): Stride of the first convolution; 1 suits images of about 32 pixels.
            The published models use 2.
        depths (`list[int]`): Blocks per stage; the first block of a stage halves the resolution and never attends.
        hidden_sizes (`list[int]`): Channels per stage.
        expansion_ratios (`list[float]`): Width inside a block relative to its input; doubled in the first block of a
            stage. The product is truncated to an integer, as in the authors' code.
        depthwise_kernel_sizes (`list[int]`): Kernel of the depth-wise convolution.
        norm_types (`list[str]`): `"batch_norm"` or `"layer_norm"`, applied to a block's input; the last entry is also
            the norm after the last stage.
        hidden_acts (`list[str]`): `"silu"`, `"gelu"` (exact) or `"relu"`, applied after the expansion.
        use_attention (`list[bool]`): Whether blocks after the first of a stage attend within windows.
        head_dims (`list[int]`): Channels per attention head.
        window_sizes (`list[int]`): Side of an attention window in pixels of the stage; 0 or less makes it global.
            Changing the window never changes the weights.
        squeeze_excitation_ratios (`list[float]`): Reduction of a squeeze-and-excitation inside the blocks; 0 for none.
        qkv_bias (`bool`, defaults to `True`): Whether query, key and value projections have a bias.
        attention_before_expansion (`bool`, defaults to `True`): Whether attention averages the block's input, before
            it is expanded; all published models do.
        grouped_value (`bool`, defaults to `False`): Whether the value projection of an attending block has one group
            per head.
        window_mode (`str`, defaults to `"grid"`): `"grid"` windows take every n-th pixel and reach over the whole map,
            as in the authors' code; `"tile"` windows are contiguous.
        mask_padding (`bool`, defaults to `False`): Whether the zero padding that completes the last windows is
            hidden from attention. The authors' code lets it take part.
        pre_classifier_size (`int`, defaults to 0): Width of a hidden layer before the classifier; 0 for none.
        hidden_dropout_prob (`float`, defaults to 0): Dropout before a block's last projection.
        attention_probs_dropout_prob (`float`, defaults to 0): Dropout on attention weights.
        drop_path_rate (`float`, defaults to 0.04036): Stochastic depth of the last block; rates grow linearly from 0.
        batch_norm_eps (`float`, defaults to 1e-6): Epsilon of the backbone's batch norms (decode heads use 1e-5).
        layer_norm_eps (`float`, defaults to 1e-6): Epsilon of layer norms.
        initializer_range (`float`, defaults to 0.02): Standard deviation of the truncated normal for linear layers.
        frozen_stages (`int`, defaults to -1): Stem (0) and stages up to this index are kept fixed in training.
        freeze_batch_norm (`bool`, defaults to `False`): Whether batch norms keep their statistics in training.
        label_smoothing (`float`, defaults to 0): Label smoothing of the classification loss; the paper trains with
            0.1.
        decode_head (`str`, defaults to `"deeplabv3"`): `"deeplabv3"`, `"pspnet"`, `"segformer"` or `"sem_fpn"`.
        decode_hidden_size (`int`, defaults to 256): Channels of the decode head. The feature pyramid of `"sem_fpn"` is
            twice as wide.
        decode_dropout_prob (`float`, defaults to 0.1): Dropout of whole channels before the pixel classifier.
        use_auxiliary_head (`bool`, *optional*): Whether a second head on the last but one stage helps training;
            by default true for `"deeplabv3"` and `"pspnet"`.
        auxiliary_hidden_size (`int`, defaults to 256): Channels of the auxiliary head.
        auxiliary_loss_weight (`float`, defaults to 0.4): Weight of its loss.
        semantic_loss_ignore_index (`int`, defaults to 255): Label of pixels that count for nothing.
        loss_avg_non_ignore (`bool`, defaults to `True`): Whether the pixel loss is averaged over labeled pixels only.
            The authors' code divides by the number of all pixels.
        out_features (`list[str]`, *optional*): Stages that [`EmoBackbone`] returns, of `stem, stage1, ..., stage4`.
        out_indices (`list[int]`, *optional*): The same by index; negative indices count from the end.

    Raises:
        huggingface_hub.errors.StrictDataclassError: If a field has the wrong type or fields contradict each other.

    Example:
    ```python
    >>> from decahub import EmoConfig
    >>> EmoConfig.from_variant("5m", num_labels=10).hidden_sizes
    [48, 72, 160, 288]

    ```
    """

    model_type = "emo"
    keys_to_ignore_at_inference: ClassVar[list[str]] = [
        "decode_loss", "auxiliary_loss", "auxiliary_logits", "hidden_states", "attentions"
    ]  # fmt: skip

    # Inputs and stem
    num_channels: int = 3
    stem_hidden_size: int = 24
    stem_stride: int = 2

    # Stages
    depths: list[int] | tuple[int, ...] = field(default_factory=lambda: [2, 2, 8, 3])
    hidden_sizes: list[int] | tuple[int, ...] = field(default_factory=lambda: [32, 48, 80, 168])
    expansion_ratios: list[float | int] | tuple[float | int, ...] = field(default_factory=lambda: [2.0, 2.5, 3.0, 3.5])
    depthwise_kernel_sizes: list[int] | tuple[int, ...] = field(default_factory=lambda: [3, 3, 5, 5])
    norm_types: list[str] | tuple[str, ...] = field(
        default_factory=lambda: ["batch_norm", "batch_norm", "layer_norm", "layer_norm"]
    )
    hidden_acts: list[str] | tuple[str, ...] = field(default_factory=lambda: ["silu", "silu", "gelu", "gelu"])
    squeeze_excitation_ratios: list[float | int] | tuple[float | int, ...] = field(default_factory=lambda: [0.0] * 4)

    # Attention
    use_attention: list[bool] | tuple[bool, ...] = field(default_factory=lambda: [False, False, True, True])
    head_dims: list[int] | tuple[int, ...] = field(default_factory=lambda: [16, 16, 20, 21])
    window_sizes: list[int] | tuple[int, ...] = field(default_factory=lambda: [7, 7, 7, 7])
    qkv_bias: bool = True
    attention_before_expansion: bool = True
    grouped_value: bool = False
    window_mode: Literal["grid", "tile"] = "grid"
    mask_padding: bool = False

    # Classifier
    pre_classifier_size: int = 0
    label_smoothing: float | int = 0.0

    # Regularization, norms and initialization
    hidden_dropout_prob: float | int = 0.0
    attention_probs_dropout_prob: float | int = 0.0
    drop_path_rate: float | int = 0.04036
    batch_norm_eps: float = 1e-6
    layer_norm_eps: float = 1e-6
    initializer_range: float = 0.02
    frozen_stages: int = -1
    freeze_batch_norm: bool = False

    # Semantic segmentation
    decode_head: Literal["deeplabv3", "pspnet", "segformer", "sem_fpn"] = "deeplabv3"
    decode_hidden_size: int = 256
    decode_dropout_prob: float | int = 0.1
    use_auxiliary_head: bool | None = None
    auxiliary_hidden_size: int = 256
    auxiliary_loss_weight: float | int = 0.4
    semantic_loss_ignore_index: int = IGNORED_PIXEL
    loss_avg_non_ignore: bool = True

    def __post_init__(self, **kwargs):
        self.stage_names = ["stem"] + [f"stage{index}" for index in range(1, NUM_STAGES + 1)]
        self.set_output_features_output_indices(
            out_features=kwargs.pop("out_features", None), out_indices=kwargs.pop("out_indices", None)
        )
        super().__post_init__(**kwargs)

    @classmethod
    def from_variant(cls, name: str, **overrides: Any) -> "EmoConfig":
        """Configuration of a published variant, `"1m"`, `"2m"`, `"5m"` or `"6m"`, with ImageNet-1k's 1000 labels."""
        return build_variant(cls, VARIANTS, name, overrides, num_labels=NUM_IMAGENET_LABELS)

    @property
    def has_auxiliary_head(self) -> bool:
        """Whether segmentation models carry an auxiliary head: `use_auxiliary_head`, or what suits the decode head."""
        if self.use_auxiliary_head is None:
            return self.decode_head in ("deeplabv3", "pspnet")
        return self.use_auxiliary_head

    @property
    def num_hidden_layers(self) -> int:
        """Number of stages, which is what `hidden_states` counts (plus one for the stem)."""
        return len(self.depths)

    def validate_architecture(self):
        # In this order: each check relies on those before it, while validators of their own run in order of name.
        self._check_stage_lists()
        self._check_stage_choices()
        self._check_widths()
        self._check_heads()

    def _check_stage_lists(self):
        per_stage = {
            "depths": (self.depths, 1),
            "hidden_sizes": (self.hidden_sizes, 1),
            "expansion_ratios": (self.expansion_ratios, 0),
            "depthwise_kernel_sizes": (self.depthwise_kernel_sizes, 1),
            "squeeze_excitation_ratios": (self.squeeze_excitation_ratios, 0),
            "head_dims": (self.head_dims, 1),
            "window_sizes": (self.window_sizes, None),
            "norm_types": (self.norm_types, None),
            "hidden_acts": (self.hidden_acts, None),
            "use_attention": (self.use_attention, None),
        }
        for name, (values, minimum) in per_stage.items():
            if len(values) != NUM_STAGES:
                raise ValueError(
                    f"`{name}` must have one entry per stage ({NUM_STAGES}); got {len(values)}: {values}."
                )
            if minimum is not None and min(values) < minimum:
                raise ValueError(f"`{name}` must hold values of at least {minimum}; got {values}.")
            if minimum is not None:
                check_maximum(name, values, MAX_DEPTH if name == "depths" else MAX_WIDTH)
        if any(size % 2 == 0 for size in self.depthwise_kernel_sizes):
            raise ValueError(f"`depthwise_kernel_sizes` must be odd; got {self.depthwise_kernel_sizes}.")

    def _check_stage_choices(self):
        for name, values, allowed in (
            ("norm_types", self.norm_types, ("batch_norm", "layer_norm")),
            ("hidden_acts", self.hidden_acts, HIDDEN_ACTS),
        ):
            unknown = [value for value in values if value not in allowed]
            if unknown:
                raise ValueError(f"`{name}` must hold only {list(allowed)}; got {unknown[0]!r}.")

    def _check_widths(self):
        sizes = ("num_channels", "stem_hidden_size", "decode_hidden_size", "auxiliary_hidden_size")
        check_minimum(self, 1, *sizes)
        for name in (*sizes, "pre_classifier_size"):
            check_maximum(name, [getattr(self, name)], MAX_WIDTH)
        if self.stem_stride not in (1, 2):
            raise ValueError(f"`stem_stride` must be 1 or 2; got {self.stem_stride}.")
        if self.pre_classifier_size < 0:
            raise ValueError(f"`pre_classifier_size` must be 0 (none) or more; got {self.pre_classifier_size}.")
        in_sizes = [self.stem_hidden_size, *self.hidden_sizes[:-1]]
        for in_size, size, ratio in zip(in_sizes, self.hidden_sizes, self.expansion_ratios, strict=True):
            if min(int(2 * ratio * in_size), int(ratio * size)) < 1:
                raise ValueError(
                    f"`expansion_ratios` must leave at least one channel; got {ratio} for {size} channels."
                )
            check_maximum("expansion_ratios", [2 * ratio * max(in_size, size)], MAX_WIDTH)

    def validate_rates(self):
        check_rates(
            self,
            "drop_path_rate",
            "hidden_dropout_prob",
            "attention_probs_dropout_prob",
            "decode_dropout_prob",
            "label_smoothing",
        )

    def validate_frozen_stages(self):
        if not -1 <= self.frozen_stages <= NUM_STAGES:
            raise ValueError(f"`frozen_stages` must lie in [-1, {NUM_STAGES}]; got {self.frozen_stages}.")

    def _check_heads(self):
        for index, attends in enumerate(self.use_attention):
            # The first block of a stage never attends.
            if not attends or self.depths[index] == 1:
                continue
            size, head_dim = self.hidden_sizes[index], self.head_dims[index]
            if size % head_dim:
                raise ValueError(
                    f"`hidden_sizes` must be multiples of `head_dims` where there is attention; got {size} and "
                    f"{head_dim} in stage {index + 1}."
                )
            expanded_size, num_heads = int(size * self.expansion_ratios[index]), size // head_dim
            if (self.grouped_value or not self.attention_before_expansion) and expanded_size % num_heads:
                raise ValueError(
                    "`expansion_ratios` must give a multiple of the number of heads when `attention_before_expansion` "
                    f"is false or `grouped_value` is true; got {expanded_size} channels and {num_heads} heads in "
                    f"stage {index + 1}. Change it or `head_dims`."
                )


__all__ = ["VARIANTS", "EmoConfig"]
