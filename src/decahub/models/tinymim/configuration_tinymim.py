"""Configuration of TinyMIM, a plain vision transformer and its distillation (arXiv 2301.01296, section 3)."""

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
    "tiny": {"hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768},
    "small": {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536},
    "base": {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072},
    "tiny-star": {
        "hidden_size": 192,
        "num_attention_heads": 12,
        "intermediate_size": 768,
        "use_distillation_token": True,
        "pre_logits_dim": 1280,
    },
    "mae-small": {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536},
    "mae-base": {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072},
    "mae-large": {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
    },
}
"""What differs between the published students and teachers; everything else is the default of [`TinyMimConfig`]."""

NUM_IMAGENET_LABELS = 1000
NUM_PYRAMID_LEVELS = 4
MAX_PATCHES = 2**14  # attention between more tokens would take all memory
STATES = ("q", "k", "v")


@strict
class TinyMimConfig(CheckedConfig, BackboneConfigMixin, PreTrainedConfig):
    r"""Configuration of [`TinyMimModel`], its task classes and its pre-training.

    The defaults are those of TinyMIM-T with 3 attention heads. The authors pre-train it with 6 and fine-tune it with
    3: the weights are the same and only split otherwise, so `from_pretrained(..., num_attention_heads=3)` suffices.

    Args:
        image_size (`int` or `list[int]`, defaults to 224): Pixels of the images, or height and width.
        patch_size (`int`, defaults to 16): Side of a patch in pixels.
        num_channels (`int`, defaults to 3): Channels of `pixel_values`.
        hidden_size (`int`, defaults to 192): Width of a token; divisible by 4 and by the number of heads.
        num_hidden_layers (`int`, defaults to 12): Blocks.
        num_attention_heads (`int`, defaults to 3): Attention heads of a block.
        intermediate_size (`int`, defaults to 768): Width inside the MLP.
        hidden_act (`str`, defaults to `"gelu"`): Activation of the MLP.
        qkv_bias (`bool`, defaults to `True`): Whether query, key and value projections have a bias.
        layer_norm_eps (`float`, defaults to 1e-6): Epsilon of layer norms.
        pooling (`str`, defaults to `"mean"`): `"mean"` averages the patch tokens, `"cls"` takes the class token.
        feature_layer (`int`, defaults to -1): Block whose output `pooler_output` is made from. Use -2 after
            pre-training alone: the last block is then trained up to its query, key and value projections only.
        use_distillation_token (`bool`, defaults to `False`): A second learned token after the class token, as in
            TinyMIM\*-T.
        pre_logits_dim (`int`, *optional*): Width of a layer on all tokens after the last block, as in TinyMIM\*-T
            (1280).
        use_relative_position_bias (`bool`, defaults to `False`): A learned bias for each pair of positions and each
            head of a block, as in the authors' segmentation models. It ties the model to `image_size`.
        layer_scale_init_value (`float`, *optional*): Learned scale of a block's branches and its start, 1.0 in the
            authors' segmentation models; none by default.
        drop_path_rate (`float`, defaults to 0): Stochastic depth.
        drop_path_schedule (`str`, defaults to `"linear"`): `"linear"` grows from 0 in the first block to the rate in
            the last (fine-tuning); `"constant"` is the same everywhere but 0 in the last (pre-training).
        label_smoothing (`float`, defaults to 0): Label smoothing of the classification loss.
        distillation_target (`str`, defaults to `"relations"`): What the student imitates: `"relations"` between
            tokens, `"features"` of all tokens, or the `"cls"` token.
        teacher_layer (`int`, *optional*): Block of the teacher, counted from 1, or from the end if negative. By
            default the last one if the teacher is not deeper than the student, else that at three quarters of its
            depth.
        teacher_hidden_size (`int`, *optional*): Width of the teacher; needed for `"features"` and `"cls"`.
        teacher_num_attention_heads (`int`, *optional*): Heads of the teacher's block; by default those of the student.
        teacher_name_or_path (`str`, *optional*): Where the teacher came from.
        teacher_image_size (`int` or `"auto"`, *optional*): Size that the teacher's view is resized to; `"auto"` gives
            the student's grid of patches. By default the view is taken as it is.
        teacher_image_mean (`list[float]`, *optional*): Mean that the teacher expects, where not ImageNet's.
        teacher_image_std (`list[float]`, *optional*): Standard deviation that the teacher expects.
        include_cls (`bool`, defaults to `True`): Whether the class token takes part in targets. Must be false for
            teachers without one.
        head_alignment (`str`, defaults to `"adaptive_last_block"`): How relations of students and teachers with
            different numbers of heads are compared. `"adaptive_last_block"`: the student's last block takes the
            teacher's number in pre-training; `"relation_heads"`: both are split anew into `num_relation_heads`;
            `"extra_block"`: a further block with the teacher's number exists in pre-training only.
        num_relation_heads (`int`, *optional*): Heads for `"relation_heads"`.
        relation_pairs (`list[list[str]]`, defaults to `[["q", "k"], ["v", "v"]]`): Pairs of `"q"`, `"k"`, `"v"`.
        relation_softmax (`bool`, defaults to `True`): Whether relations are distributions or scaled scores.
        relation_loss (`str`, defaults to `"kl"`): `"kl"`, or `"mse"` or `"smooth_l1"`.
        feature_source (`str`, defaults to `"block"`): Features that are imitated: output of the `"block"`, its
            `"attention"` or `"ffn"`, `"q"`, `"k"`, `"v"`, or `"qkv"` together.
        feature_loss (`str`, defaults to `"smooth_l1"`): `"l1"`, `"smooth_l1"`, `"mse"` or `"cosine"`; for `"features"`
            and `"cls"`.
        normalize_teacher (`bool`, defaults to `True`): Whether the teacher's features pass a layer norm without
            parameters.
        smooth_l1_beta (`float`, defaults to 2.0): Where smooth L1 turns from a square to a line.
        student_input (`str`, defaults to `"clean"`): `"masked"` hides patches from the student.
        mask_ratio (`float`, defaults to 0.75): Share of hidden patches.
        reconstruction_weight (`float`, defaults to 0): Weight of an additional reconstruction of hidden patches.
        decoder_hidden_size (`int`, defaults to 64): Width of its decoder.
        decoder_num_hidden_layers (`int`, defaults to 1): Blocks of its decoder.
        decoder_num_attention_heads (`int`, defaults to 4): Heads of its decoder.
        norm_pix_loss (`bool`, defaults to `True`): Whether the pixels of a patch are normalized before the comparison.
        use_feature_pyramid (`bool`, defaults to `False`): Whether [`TinyMimBackbone`] turns four maps into a pyramid
            at strides of a quarter, a half, one and two patches.
        decode_hidden_size (`int`, defaults to 768): Channels of the UPerNet head.
        pool_scales (`list[int]`, defaults to `[1, 2, 3, 6]`): Bins of its pyramid pooling.
        decode_dropout_prob (`float`, defaults to 0.1): Dropout before the pixel classifiers.
        use_auxiliary_head (`bool`, defaults to `True`): Whether a second head on the third map helps training.
        auxiliary_hidden_size (`int`, defaults to 256): Channels of the auxiliary head.
        auxiliary_loss_weight (`float`, defaults to 0.4): Weight of its loss.
        semantic_loss_ignore_index (`int`, defaults to 255): Label of pixels that count for nothing.
        out_features (`list[str]`, *optional*): Maps that [`TinyMimBackbone`] returns, of `stem, stage1, ...`: the
            embedded patches and the output of each block. [`TinyMimForSemanticSegmentation`] takes four of them; by
            default those at a third, half, two thirds and the end of the depth.
        out_indices (`list[int]`, *optional*): The same by index; negative indices count from the end.

    Raises:
        huggingface_hub.errors.StrictDataclassError: If a field has the wrong type or fields contradict each other.

    Example:
    ```python
    >>> from decahub import TinyMimConfig
    >>> TinyMimConfig.from_variant("small", num_labels=10).hidden_size
    384

    ```
    """

    model_type = "tinymim"
    keys_to_ignore_at_inference: ClassVar[list[str]] = [
        "decode_loss", "auxiliary_loss", "hidden_states", "attentions"
    ]  # fmt: skip

    # Inputs
    image_size: int | list[int] | tuple[int, int] = 224
    patch_size: int = 16
    num_channels: int = 3

    # Architecture
    hidden_size: int = 192
    num_hidden_layers: int = 12
    num_attention_heads: int = 3
    intermediate_size: int = 768
    hidden_act: Literal["gelu", "relu", "silu"] = "gelu"
    qkv_bias: bool = True
    layer_norm_eps: float = 1e-6
    pooling: Literal["mean", "cls"] = "mean"
    feature_layer: int = -1
    use_distillation_token: bool = False
    pre_logits_dim: int | None = None
    use_relative_position_bias: bool = False
    layer_scale_init_value: float | int | None = None

    # Regularization
    drop_path_rate: float | int = 0.0
    drop_path_schedule: Literal["linear", "constant"] = "linear"
    label_smoothing: float | int = 0.0

    # Distillation: teacher
    distillation_target: Literal["relations", "features", "cls"] = "relations"
    teacher_layer: int | None = None
    teacher_hidden_size: int | None = None
    teacher_num_attention_heads: int | None = None
    teacher_name_or_path: str | None = None
    teacher_image_size: int | Literal["auto"] | None = None
    teacher_image_mean: list[float] | tuple[float, ...] | None = None
    teacher_image_std: list[float] | tuple[float, ...] | None = None
    include_cls: bool = True

    # Distillation: relations
    head_alignment: Literal["adaptive_last_block", "relation_heads", "extra_block"] = "adaptive_last_block"
    num_relation_heads: int | None = None
    relation_pairs: list[list[str]] | list[tuple[str, str]] | tuple[tuple[str, str], ...] = field(
        default_factory=lambda: [["q", "k"], ["v", "v"]]
    )
    relation_softmax: bool = True
    relation_loss: Literal["kl", "mse", "smooth_l1"] = "kl"

    # Distillation: features
    feature_source: Literal["block", "attention", "ffn", "q", "k", "v", "qkv"] = "block"
    feature_loss: Literal["smooth_l1", "l1", "mse", "cosine"] = "smooth_l1"
    normalize_teacher: bool = True
    smooth_l1_beta: float | int = 2.0

    # Distillation: masked input and reconstruction
    student_input: Literal["clean", "masked"] = "clean"
    mask_ratio: float = 0.75
    reconstruction_weight: float | int = 0.0
    decoder_hidden_size: int = 64
    decoder_num_hidden_layers: int = 1
    decoder_num_attention_heads: int = 4
    norm_pix_loss: bool = True

    # Semantic segmentation
    use_feature_pyramid: bool = False
    decode_hidden_size: int = 768
    pool_scales: list[int] | tuple[int, ...] = field(default_factory=lambda: [1, 2, 3, 6])
    decode_dropout_prob: float | int = 0.1
    use_auxiliary_head: bool = True
    auxiliary_hidden_size: int = 256
    auxiliary_loss_weight: float | int = 0.4
    semantic_loss_ignore_index: int = IGNORED_PIXEL

    def __post_init__(self, **kwargs):
        check_maximum("num_hidden_layers", [self.num_hidden_layers], MAX_DEPTH)  # before there is a name for each
        self.stage_names = ["stem"] + [f"stage{index}" for index in range(1, self.num_hidden_layers + 1)]
        self.set_output_features_output_indices(
            out_features=kwargs.pop("out_features", None), out_indices=kwargs.pop("out_indices", None)
        )
        super().__post_init__(**kwargs)

    @classmethod
    def from_variant(cls, name: str, **overrides: Any) -> "TinyMimConfig":
        """Configuration of a published student or teacher, a key of `VARIANTS`, with ImageNet-1k's 1000 labels."""
        return build_variant(cls, VARIANTS, name, overrides, num_labels=NUM_IMAGENET_LABELS)

    @property
    def grid_size(self) -> tuple[int, int]:
        """Rows and columns of patches in an image of `image_size`."""
        height, width = (self.image_size,) * 2 if isinstance(self.image_size, int) else self.image_size
        return height // self.patch_size, width // self.patch_size

    @property
    def num_prefix_tokens(self) -> int:
        """Tokens before the patches: the class token, and the distillation token where there is one."""
        return 2 if self.use_distillation_token else 1

    @property
    def output_size(self) -> int:
        """Width of the tokens that leave the model."""
        return self.pre_logits_dim or self.hidden_size

    @property
    def target_num_attention_heads(self) -> int:
        """Heads of the block that is compared with the teacher's; read again when this model is a teacher itself."""
        if self.head_alignment == "relation_heads" or self.teacher_num_attention_heads is None:
            return self.num_attention_heads
        return self.teacher_num_attention_heads

    @property
    def pyramid_indices(self) -> list[int]:
        """Four indices of `stage_names` that make the feature pyramid."""
        if len(self.out_indices) == NUM_PYRAMID_LEVELS:
            return list(self.out_indices)
        depth = self.num_hidden_layers
        return [max(1, depth // 3), max(1, depth // 2), max(1, 2 * depth // 3), depth]

    def validate_architecture(self):
        self._check_image()
        self._check_widths()
        if not -self.num_hidden_layers <= self.feature_layer < 0:
            raise ValueError(
                f"`feature_layer` must count from the last block, in [-{self.num_hidden_layers}, -1]; got "
                f"{self.feature_layer}."
            )
        if self.use_feature_pyramid and len(self.out_indices) != NUM_PYRAMID_LEVELS:
            raise ValueError(
                f"`use_feature_pyramid` must come with {NUM_PYRAMID_LEVELS} `out_features`; got {self.out_features}."
            )

        if not self.pool_scales or min(self.pool_scales) < 1:
            raise ValueError(f"`pool_scales` must hold numbers of at least 1; got {self.pool_scales}.")
        if self.pre_logits_dim is not None and self.pyramid_indices[-1] != self.num_hidden_layers:
            raise ValueError(
                f"`out_features` must end with the last block, 'stage{self.num_hidden_layers}', where there is a "
                f"`pre_logits_dim` and they are four; got {self.out_features}."
            )

    def _check_image(self):
        sizes = [self.image_size] if isinstance(self.image_size, int) else list(self.image_size)
        if self.patch_size < 1 or len(sizes) not in (1, 2):
            raise ValueError(
                f"`patch_size` must be at least 1 and `image_size` one or two numbers; got {self.patch_size} and "
                f"{self.image_size}."
            )
        if any(size < 1 or size % self.patch_size for size in sizes):
            raise ValueError(
                f"`image_size` must be a multiple of `patch_size` ({self.patch_size}); got {self.image_size}."
            )
        rows, columns = self.grid_size
        if rows * columns > MAX_PATCHES:
            raise ValueError(
                f"`image_size` must give at most {MAX_PATCHES} patches of {self.patch_size}; got {self.image_size}."
            )

    def _check_widths(self):
        sizes = (
            "num_channels", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
            "decoder_hidden_size", "decoder_num_hidden_layers", "decoder_num_attention_heads", "decode_hidden_size",
            "auxiliary_hidden_size", "pre_logits_dim", "num_relation_heads", "teacher_hidden_size",
            "teacher_num_attention_heads",
        )  # fmt: skip
        check_minimum(self, 1, *sizes)
        for name in sizes:
            check_maximum(name, [getattr(self, name)], MAX_DEPTH if name.endswith("_layers") else MAX_WIDTH)
        check_maximum("pool_scales", self.pool_scales, MAX_DEPTH)
        for name, heads in (
            ("hidden_size", "num_attention_heads"),
            ("decoder_hidden_size", "decoder_num_attention_heads"),
        ):
            if getattr(self, name) % getattr(self, heads):
                raise ValueError(
                    f"`{name}` must be a multiple of `{heads}` ({getattr(self, heads)}); got {getattr(self, name)}."
                )
            if getattr(self, name) % 4:
                raise ValueError(
                    f"`{name}` must be a multiple of 4, for sines and cosines of rows and columns; got "
                    f"{getattr(self, name)}."
                )

    def validate_rates(self):
        check_rates(self, "drop_path_rate", "decode_dropout_prob", "label_smoothing")
        if not 0 < self.mask_ratio < 1:
            raise ValueError(f"`mask_ratio` must lie in (0, 1); got {self.mask_ratio}.")
        for name in ("reconstruction_weight", "auxiliary_loss_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` must not be negative; got {getattr(self, name)}.")
        if self.smooth_l1_beta <= 0:
            raise ValueError(f"`smooth_l1_beta` must be positive; got {self.smooth_l1_beta}.")

    def validate_distillation(self):
        self._check_relations()
        self._check_heads()
        if self.teacher_layer == 0:
            raise ValueError("`teacher_layer` must count from 1, or from -1 backwards; got 0.")
        if (self.teacher_image_mean is None) != (self.teacher_image_std is None):
            raise ValueError("`teacher_image_mean` and `teacher_image_std` must be given together; got one of them.")
        if self.distillation_target == "cls" and not self.include_cls:
            raise ValueError(
                "`distillation_target` must not be 'cls' with `include_cls=False`; got both. Set `include_cls`."
            )
        if self.reconstruction_weight and self.student_input != "masked":
            raise ValueError(
                f"`reconstruction_weight` must be 0 unless `student_input` is 'masked'; got "
                f"{self.reconstruction_weight}. A clean input has nothing to reconstruct."
            )

    def _check_relations(self):
        if not self.relation_pairs:
            raise ValueError("`relation_pairs` must hold at least one pair, such as ['q', 'k']; got none.")
        for pair in self.relation_pairs:
            if len(pair) != 2 or any(name not in STATES for name in pair):
                raise ValueError(f"`relation_pairs` must hold pairs of {list(STATES)}; got {pair!r}.")
        if self.relation_loss == "kl" and not self.relation_softmax:
            raise ValueError(
                "`relation_loss` must be 'mse' or 'smooth_l1' with `relation_softmax=False`; got 'kl', which compares "
                "distributions."
            )

    def _check_heads(self):
        if self.distillation_target != "relations":
            return
        if self.head_alignment == "relation_heads":
            if self.num_relation_heads is None:
                raise ValueError("`num_relation_heads` must be given for head_alignment='relation_heads'; got None.")
            for name in ("hidden_size", "teacher_hidden_size"):
                size = getattr(self, name)
                if size is not None and size % self.num_relation_heads:
                    raise ValueError(
                        f"`num_relation_heads` must divide `{name}` ({size}); got {self.num_relation_heads}."
                    )
        elif self.hidden_size % self.target_num_attention_heads:
            raise ValueError(
                f"`hidden_size` must be a multiple of `teacher_num_attention_heads` "
                f"({self.target_num_attention_heads}); got {self.hidden_size}. Use head_alignment='relation_heads' "
                "with a `num_relation_heads` that divides both widths."
            )


__all__ = ["VARIANTS", "TinyMimConfig"]
