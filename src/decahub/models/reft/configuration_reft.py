"""Configuration of RefT: that of Mask2Former, and what the two references, the classifiers and distillation need.

Paper: "Reference Twice: A Simple and Unified Baseline for Few-Shot Instance Segmentation", arXiv 2301.01156. Defaults
are those of Mask2Former for COCO instances; the fields of the references are our reading of the paper.
"""

import dataclasses
import math
from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers import Mask2FormerConfig, PreTrainedConfig
from transformers.utils import logging

from ..shared.checks import MAX_DEPTH, MAX_WIDTH, CheckedConfig, check_maximum, check_minimum, check_rates


logger = logging.get_logger(__name__)

NUM_FEATURE_LEVELS = 3
NUM_GROUPS = 32  # of the group norms in Mask2Former's pixel decoder
MIN_SUPPORT_SIZE = 64  # below it, the coarsest map has one pixel, over which a group norm may be undefined
SUPPORTED_BACKBONES = ("resnet", "swin")
# What `PreTrainedConfig` fills in itself, or what names the class that wrote a file.
NOT_COPIED = ("architectures", "transformers_version")


@strict
class RefTConfig(CheckedConfig, Mask2FormerConfig):
    r"""Configuration of [`RefTModel`] and [`RefTForFewShotInstanceSegmentation`].

    Every field of [`~transformers.Mask2FormerConfig`] has the same name and default here; `from_mask2former` copies
    them. `decoder_layers` counts the prediction of the initial object queries, so that 10 means 9 layers.

    Args:
        backbone_config (`dict` or `PreTrainedConfig`, *optional*): ResNet or Swin with four stages; Swin-S by default.
        mask_padding (`bool`): hides padded pixels from the pixel decoder, which Mask2Former does not.
        feature_fusion (`str`): `"attention"` adds the class centers to the feature maps by attention, `"reweight"`
            scales the channels of the maps by them, `"none"` leaves the maps alone.
        query_enhancement_targets (`list[str]`): which heads see the enhanced object queries, of "class" and "mask".
        shot_reduction (`str`): `"mean"` weights the shots of a class equally, `"area"` by the area of their masks.
        query_selection (`str`): `"mask"` takes the object queries whose masks overlap most with the support mask,
            `"score"` those that are most certainly an object.
        support_topk (`int`): object queries that are taken of each shot.
        reference_attention_heads (`int`, *optional*): heads of the references; `num_attention_heads` by default.
        detach_support_queries (`bool`): stops gradients through the support object queries.
        support_grad (`bool`): whether support images are encoded with gradients; without, training takes half the
            memory.
        max_support_queries_per_class (`int`, *optional*): keeps the support object queries with the highest scores.
        support_chunk_size (`int`): support images that are encoded at once where no gradient is needed.
        classifier (`str`): `"linear"`; `"cosine"`, for adding classes; `"prototype"`, which compares object queries
            with the support of each class and needs no training on it. Its labels count the support classes.
        logit_scale_init (`float`): initial scale of cosine and prototype logits.
        freeze_batch_norm (`bool`): keeps the backbone's batch norms fixed. Set it to `False` to train from scratch.
        kd_feature_weight (`float`): weight of the feature distillation loss.
        kd_class_weight (`float`): weight of the class distillation loss.
        kd_threshold (`float`): probability from which the teacher's prediction of a base class is distilled.
        class_enhanced (`bool`): whether pixels that look like a base class count more in feature distillation.
        parity_mode (`str`, *optional*): `"transformers"` draws the random points of the loss one by one in the order
            of transformers' Mask2Former, which is slow; by default one set of points serves a whole step.
        support_size (`int`): side in pixels of a support crop; a multiple of 32.
        support_context (`float`): side of the crop as a multiple of the longer side of the instance's box.
        base_label_ids (`list[int]`, *optional*): base classes.
        novel_label_ids (`list[int]`, *optional*): classes that were added later.

    Example:
    ```python
    >>> from decahub import RefTConfig
    >>> RefTConfig(num_labels=80, classifier="cosine").hidden_dim
    256

    ```
    """

    model_type = "reft"
    backbones_supported = list(SUPPORTED_BACKBONES)

    # Base branch
    mask_padding: bool = False

    # References
    feature_fusion: Literal["attention", "reweight", "none"] = "attention"
    query_enhancement_targets: list[str] | tuple[str, ...] = ("class", "mask")
    shot_reduction: Literal["mean", "area"] = "mean"
    query_selection: Literal["mask", "score"] = "mask"
    support_topk: int = 2
    reference_attention_heads: int | None = None
    detach_support_queries: bool = False
    support_grad: bool = True
    max_support_queries_per_class: int | None = None
    support_chunk_size: int = 8

    # Classifier
    classifier: Literal["linear", "cosine", "prototype"] = "linear"
    logit_scale_init: float | int = 20.0

    # Training
    freeze_batch_norm: bool = True
    kd_feature_weight: float | int = 0.1
    kd_class_weight: float | int = 2.0
    kd_threshold: float | int = 0.3
    class_enhanced: bool = True
    parity_mode: Literal["transformers"] | None = None

    # Support crops, which the processor reads too
    support_size: int = 320
    support_context: float | int = 1.5

    # Classes
    base_label_ids: list[int] | None = None
    novel_label_ids: list[int] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        if self.reference_attention_heads is None:
            self.reference_attention_heads = self.num_attention_heads
        super().__post_init__(**kwargs)

    @classmethod
    def from_mask2former(cls, config: Mask2FormerConfig, **extra: Any) -> "RefTConfig":
        """A copy of a Mask2Former configuration with further fields.

        Args:
            config ([`~transformers.Mask2FormerConfig`]): the configuration.
            extra: fields of RefT, or fields of Mask2Former to change.

        Raises:
            TypeError: If `config` is of another class.
        """
        if not isinstance(config, Mask2FormerConfig):
            raise TypeError(f"`config` must be a Mask2FormerConfig; got {type(config).__name__}.")
        content = config.to_dict()
        names = [field.name for field in dataclasses.fields(type(config)) if field.name not in NOT_COPIED]
        fields = {name: content[name] for name in names if content.get(name) is not None}
        if "num_labels" in extra:
            fields = {name: value for name, value in fields.items() if name not in ("id2label", "label2id")}
        return cls(**{**fields, **extra})

    def validate_architecture(self) -> None:
        PreTrainedConfig.validate_architecture(self)
        backbone = self.backbone_config.model_type
        if backbone not in SUPPORTED_BACKBONES:
            logger.warning_once(
                f"`backbone_config` is a {backbone!r}; RefT is tested with {' and '.join(SUPPORTED_BACKBONES)} only."
            )
        self._check_sizes()
        if self.decoder_layers <= NUM_FEATURE_LEVELS:
            logger.warning_once(
                f"`decoder_layers` is {self.decoder_layers}, that is {self.decoder_layers - 1} layers: the finest of "
                f"{NUM_FEATURE_LEVELS} maps is never attended to, and its reference gets no gradient."
            )

    def _check_sizes(self) -> None:
        sizes = ("feature_size", "mask_feature_size", "hidden_dim", "encoder_feedforward_dim", "dim_feedforward")
        counts = ("num_attention_heads", "reference_attention_heads", "num_queries", "train_num_points")
        check_minimum(
            self, 1, *sizes, *counts, "support_chunk_size", "decoder_layers", "max_support_queries_per_class"
        )
        for name in sizes:
            check_maximum(name, [getattr(self, name)], MAX_WIDTH)
        for name in ("encoder_layers", "decoder_layers"):
            check_maximum(name, [getattr(self, name)], MAX_DEPTH)
        if self.feature_size % NUM_GROUPS:
            raise ValueError(
                f"`feature_size` must be a multiple of {NUM_GROUPS}, for the group norms; got {self.feature_size}."
            )
        divided = {"hidden_dim": self.hidden_dim, "feature_size": self.feature_size}
        for heads in ("num_attention_heads", "reference_attention_heads"):
            for name, size in divided.items():
                if size % getattr(self, heads):
                    raise ValueError(f"`{heads}` must divide `{name}` ({size}); got {getattr(self, heads)}.")

    def validate_references(self) -> None:
        unknown = [target for target in self.query_enhancement_targets if target not in ("class", "mask")]
        if unknown:
            raise ValueError(f"`query_enhancement_targets` must hold only 'class' and 'mask'; got {unknown[0]!r}.")
        if self.classifier == "prototype" and self.query_selection == "score":
            raise ValueError(
                "`query_selection` must be 'mask' with a prototype classifier, whose scores need the selection; got "
                "'score'."
            )
        if not 1 <= self.support_topk <= self.num_queries:
            raise ValueError(
                f"`support_topk` must be in [1, `num_queries` ({self.num_queries})]; got {self.support_topk}."
            )

    def validate_training(self) -> None:
        check_minimum(self, 0, "kd_feature_weight", "kd_class_weight", "class_weight", "mask_weight", "dice_weight")
        check_minimum(self, 1, "oversample_ratio")
        check_rates(self, "dropout")
        for name in ("kd_threshold", "importance_sample_ratio", "no_object_weight"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"`{name}` must be in [0, 1]; got {getattr(self, name)}.")
        if not 0 < self.logit_scale_init < math.inf:
            raise ValueError(f"`logit_scale_init` must be positive and finite; got {self.logit_scale_init}.")

    def validate_support(self) -> None:
        check_support_crop(self.support_size, self.support_context)

    def validate_label_ids(self) -> None:
        given = [("base_label_ids", self.base_label_ids or []), ("novel_label_ids", self.novel_label_ids or [])]
        for name, ids in given:
            if len(set(ids)) < len(ids):
                raise ValueError(f"`{name}` must hold each class once; got {ids}.")
            wrong = [label_id for label_id in ids if not 0 <= label_id < self.num_labels]
            if wrong:
                raise ValueError(f"`{name}` must hold ids in [0, {self.num_labels}); got {wrong[0]}.")
        both = sorted(set(given[0][1]) & set(given[1][1]))
        if both:
            raise ValueError(f"`base_label_ids` and `novel_label_ids` must be disjoint; both hold {both}.")


def check_support_crop(support_size: int, support_context: float) -> None:
    """Refuses a side of support crops that the pixel decoder cannot take, and crops that cut the instance."""
    if support_size < MIN_SUPPORT_SIZE or support_size % 32:
        raise ValueError(
            f"`support_size` must be a multiple of 32 and at least {MIN_SUPPORT_SIZE}; got {support_size}."
        )
    if not 1 <= support_context < math.inf:
        raise ValueError(
            f"`support_context` must be finite and at least 1, the instance's box; got {support_context}."
        )


__all__ = ["RefTConfig"]
