"""PMT-IQA: the quality of an image from the local distortions at four scales, learned from easy to hard.

Paper: "PMT-IQA: Progressive Multi-task Learning for Blind Image Quality Assessment", arXiv 2301.01182. A backbone
gives four feature maps, a branch for each turns them into features, and two heads on a shared vector predict a quality
level (a class, the easy task) and a score (a number, the hard one). An image is scored by the mean over its crops.

The numbers are those of the authors' code. Defaults differ in training: the schedule of the task weights is on, and
crops have to be of the configured size (`strict_crop_size=False` takes what the authors' code takes).
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoBackbone
from transformers import initialization as init
from transformers.modeling_utils import PreTrainedModel
from transformers.utils.generic import ModelOutput, can_return_tuple

from ..shared.checks import can_look_at, refuse_unknown_inputs
from .configuration_pmt_iqa import PmtIqaConfig
from .levels import QualityLevelBinner
from .local_distortion import PmtIqaBranch, PmtIqaProjection
from .losses import IGNORED_LEVEL, check_labels, check_levels, compute_level_loss, compute_score_loss


FROM_THE_PROCESSOR = ("crop_boxes",)  # which are for people
# Of crops that a CPU computes at once, four of 224 pixels: larger maps are new memory in each layer, which costs a
# quarter to a half of the time.
MAX_PIXELS = 4 * 224**2


@dataclass
class PmtIqaModelOutput(ModelOutput):
    """Output of [`PmtIqaModel`].

    Args:
        last_hidden_state (`torch.FloatTensor` of shape `(batch_size, channels, rows, columns)`): Coarsest map.
        pooler_output (`torch.FloatTensor` of shape `(batch_size, target_in_size)`): Features of all branches.
        branch_features (`tuple(torch.FloatTensor)`): The features of each branch, finest map first.
        hidden_states (`tuple(torch.FloatTensor)`, with `output_hidden_states=True`): The backbone's feature maps.
    """

    last_hidden_state: torch.FloatTensor | None = None
    pooler_output: torch.FloatTensor | None = None
    branch_features: tuple[torch.FloatTensor, ...] | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None


@dataclass
class PmtIqaImageQualityOutput(ModelOutput):
    """Output of [`PmtIqaForImageQualityAssessment`]; `post_process_image_quality` of the processor reads it.

    Args:
        loss (`torch.FloatTensor` of shape `()`, returned with labels): `w_reg * loss_reg + w_cls * loss_cls`.
        score (`torch.FloatTensor` of shape `(batch_size,)`): Mean score of each image's crops, on the labels' scale.
        crop_scores (`torch.FloatTensor` of shape `(batch_size, num_crops)`): Score of each crop; 0 where it is only
            padding.
        level_logits (`torch.FloatTensor` of shape `(batch_size, num_crops, num_levels)`): Level of each crop.
        level_probs (`torch.FloatTensor` of shape `(batch_size, num_levels)`): Mean of the crops' probabilities.
        loss_reg (`torch.FloatTensor` of shape `()`, returned with `labels`): Mean absolute error over crops, on the
            scale of the score head.
        loss_cls (`torch.FloatTensor` of shape `()`, returned with labels): Cross entropy of the level over crops.
        hidden_states (`tuple(torch.FloatTensor)`, with `output_hidden_states=True`): Feature maps of all crops that
            are not padding.
    """

    loss: torch.FloatTensor | None = None
    score: torch.FloatTensor | None = None
    crop_scores: torch.FloatTensor | None = None
    level_logits: torch.FloatTensor | None = None
    level_probs: torch.FloatTensor | None = None
    loss_reg: torch.FloatTensor | None = None
    loss_cls: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None


@dataclass
class PmtIqaQualityMap(ModelOutput):
    """Quality over the area of images.

    Args:
        score (`torch.FloatTensor` of shape `(batch_size,)`): Mean of the map.
        score_map (`torch.FloatTensor` of shape `(batch_size, rows, columns)`): Score of each window of `crop_size`
            pixels; neighbors are `max(feature_strides)` pixels apart.
        level_probs (`torch.FloatTensor` of shape `(batch_size, num_levels)`): Mean of the windows' probabilities.
    """

    score: torch.FloatTensor | None = None
    score_map: torch.FloatTensor | None = None
    level_probs: torch.FloatTensor | None = None


class PmtIqaPreTrainedModel(PreTrainedModel):
    """Initialization, loading and what transformers needs to know about PMT-IQA."""

    config: PmtIqaConfig
    config_class = PmtIqaConfig
    base_model_prefix = "pmt_iqa"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    accepts_loss_kwargs = False  # the loss is a mean over one batch; `Trainer` divides it by the accumulated batches
    _no_split_modules = ["ResNetStage", "PmtIqaBranch"]
    _input_embed_layer = "backbone"

    @torch.no_grad()
    def _init_weights(self, module):
        # Heads keep torch's own initialization. The authors mean to change it, but their loop never reaches the heads.
        if isinstance(module, nn.Linear):
            if isinstance(module, PmtIqaProjection):
                init.kaiming_normal_(module.weight)
            else:
                init.kaiming_uniform_(module.weight, a=5**0.5)
            bound = module.in_features**-0.5
            init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight)


class PmtIqaModel(PmtIqaPreTrainedModel):
    """Backbone and local-distortion branches, without the heads.

    Args:
        config ([`PmtIqaConfig`]): The architecture.
    """

    def __init__(self, config: PmtIqaConfig):
        super().__init__(config)
        config.validate()
        self.backbone = AutoBackbone.from_config(config.backbone_config)
        channels = self.backbone.channels
        if len(channels) != config.num_branches:
            raise ValueError(
                f"`backbone_config` must give one feature map for each of `feature_strides` ({config.num_branches}); "
                f"got {len(channels)}. Set its `out_features` or `out_indices`."
            )
        self.lda = nn.ModuleList(
            PmtIqaBranch(*sizes)
            for sizes in zip(
                channels,
                [*config.lda_channels, None],
                [config.pool_size] * config.num_branches,
                config.branch_grids,
                config.branch_sizes,
                strict=True,
            )
        )
        self.post_init()

    def compute_feature_maps(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Feature maps of the backbone, finest first."""
        pixel_values = pixel_values.to(self.lda[0].proj.weight.dtype)
        if not torch.is_grad_enabled():  # a quarter faster; gradients keep the authors' order of sums
            pixel_values = pixel_values.contiguous(memory_format=torch.channels_last)
        outputs = self.backbone(pixel_values, return_dict=True)
        return tuple(outputs.feature_maps)

    def check_pixel_values(self, pixel_values: torch.Tensor | None, num_dims: tuple[int, ...]) -> None:
        if pixel_values is None:
            raise ValueError("`pixel_values` must be given.")
        if not pixel_values.is_floating_point():
            raise TypeError(
                f"`pixel_values` must be floating point; got {pixel_values.dtype}. Prepare images with "
                "`PmtIqaImageProcessor`."
            )
        if pixel_values.ndim not in num_dims or 0 in pixel_values.shape:
            shapes = " or ".join(
                {4: "(batch_size, channels, height, width)", 5: "(batch_size, num_crops, channels, height, width)"}[n]
                for n in num_dims
            )
            raise ValueError(f"`pixel_values` must have shape {shapes}; got {tuple(pixel_values.shape)}.")
        if can_look_at(pixel_values) and not pixel_values.sum(dtype=torch.float64).isfinite():
            raise ValueError("`pixel_values` must be finite; got NaN or infinity.")

    def check_crop_size(self, pixel_values: torch.Tensor) -> None:
        wanted = self.config.crop_size
        if self.config.strict_crop_size and tuple(pixel_values.shape[-2:]) != (wanted, wanted):
            raise ValueError(
                f"`pixel_values` must hold crops of {wanted} x {wanted} pixels (`crop_size`); got "
                f"{tuple(pixel_values.shape[-2:])}. Cut images with `PmtIqaImageProcessor`; `compute_quality_map` "
                "takes whole images."
            )

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.FloatTensor | None = None,
        pooled_maps: torch.FloatTensor | None = None,
        **kwargs: Any,
    ) -> PmtIqaModelOutput:
        """Features of crops.

        Args:
            pixel_values (`torch.FloatTensor` of shape `(batch_size, channels, crop_size, crop_size)`, *optional*):
                Normalized pixels.
            pooled_maps (`torch.FloatTensor` of shape `(batch_size, pooled_size)`, *optional*): What
                `compute_pooled_maps` gave, in place of pixels. The backbone is then not run, and there are no maps.
            kwargs: `output_hidden_states` and `return_dict`.

        Returns:
            [`PmtIqaModelOutput`].

        Raises:
            TypeError: If `pixel_values` are integers.
            ValueError: If shapes do not fit, values are not finite, or not one of both is given.
        """
        refuse_unknown_inputs(self, kwargs, FROM_THE_PROCESSOR)
        if pooled_maps is not None:
            if pixel_values is not None:
                raise ValueError("`pixel_values` and `pooled_maps` must not both be given; got both.")
            return self._project_pooled(pooled_maps)
        self.check_pixel_values(pixel_values, (4,))
        self.check_crop_size(pixel_values)
        feature_maps = self.compute_feature_maps(pixel_values)
        features = tuple(branch(maps) for branch, maps in zip(self.lda, feature_maps, strict=True))
        output_hidden_states = kwargs.get("output_hidden_states")
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        return PmtIqaModelOutput(
            last_hidden_state=feature_maps[-1],
            pooler_output=torch.cat(features, dim=1),
            branch_features=features,
            hidden_states=feature_maps if output_hidden_states else None,
        )

    @property
    def pooled_sizes(self) -> list[int]:
        """Numbers that each branch keeps of a crop before its weights: channels x rows x columns."""
        return [math.prod(branch.pooled_shape) for branch in self.lda]

    def compute_pooled_maps(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """All that branches and heads need to know of crops, for training them on a backbone that stays as it is.

        Args:
            pixel_values (`torch.FloatTensor` of shape `(batch_size, channels, crop_size, crop_size)`): Normalized
                pixels.

        Returns:
            `torch.FloatTensor` of shape `(batch_size, pooled_size)`, the windows' means of all feature maps.
        """
        self.check_pixel_values(pixel_values, (4,))
        self.check_crop_size(pixel_values)
        maps = zip(self.lda, self.compute_feature_maps(pixel_values), strict=True)
        return torch.cat([branch.pool(feature_map).flatten(1) for branch, feature_map in maps], dim=1)

    def _project_pooled(self, pooled_maps: torch.Tensor) -> PmtIqaModelOutput:
        wanted = sum(self.pooled_sizes)
        if pooled_maps.ndim != 2 or pooled_maps.shape[1] != wanted:
            raise ValueError(
                f"`pooled_maps` must have {wanted} numbers for each crop; got shape {tuple(pooled_maps.shape)}. Make "
                "them with `compute_pooled_maps` of the same model."
            )
        parts = zip(self.lda, pooled_maps.split(self.pooled_sizes, dim=1), strict=True)
        features = tuple(branch.project(part.unflatten(1, branch.pooled_shape)) for branch, part in parts)
        return PmtIqaModelOutput(pooler_output=torch.cat(features, dim=1), branch_features=features)

    def compute_dense_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Features of all windows of whole images, with one pass of the backbone.

        Args:
            pixel_values (`torch.FloatTensor` of shape `(batch_size, channels, height, width)`): Height and width are
                multiples of the coarsest stride, and at least `crop_size`.

        Returns:
            `torch.FloatTensor` of shape `(batch_size, target_in_size, rows, columns)`.
        """
        strides, size = self.config.feature_strides, self.config.crop_size
        step = max(strides)
        self.check_pixel_values(pixel_values, (4,))
        if any(step % stride for stride in strides) or size % step:
            raise ValueError(
                f"`feature_strides` must divide the largest of them, and that one `crop_size` ({size}), for dense "
                f"scores; got {strides}. Score crops instead."
            )
        height, width = pixel_values.shape[-2:]
        if height % step or width % step or min(height, width) < size:
            raise ValueError(
                f"`pixel_values` must have a height and width that are multiples of {step} and at least {size} for "
                f"dense scores; got {(height, width)}. `PmtIqaImageProcessor(crop_strategy='dense')` makes them."
            )
        rows, columns = (height - size) // step + 1, (width - size) // step + 1
        features = [
            branch.forward_dense(maps, step // stride)[..., :rows, :columns]
            for branch, maps, stride in zip(self.lda, self.compute_feature_maps(pixel_values), strides, strict=True)
        ]
        return torch.cat(features, dim=1)


class PmtIqaForImageQualityAssessment(PmtIqaPreTrainedModel):
    """PMT-IQA with its two heads: a score on the labels' scale, and a quality level.

    Args:
        config ([`PmtIqaConfig`]): The architecture, and what the labels mean.

    Attributes:
        task_weights (`tuple[float, float]`): Weights of score and level in the loss. They belong to a run and not to
            the model, so they are not saved; a schedule sets them, and until then they are `w_reg` and `w_cls`.
    """

    def __init__(self, config: PmtIqaConfig):
        super().__init__(config)
        self.pmt_iqa = PmtIqaModel(config)
        self.shared = nn.Sequential(
            nn.Linear(config.target_in_size, config.hidden_size),
            nn.LeakyReLU(config.leaky_slope),
            nn.Linear(config.hidden_size, config.shared_size),
            nn.LeakyReLU(config.leaky_slope),
        )
        self.score_head = nn.Linear(config.shared_size, 1)
        self.level_head = nn.Sequential(
            nn.Linear(config.shared_size, config.shared_size),
            nn.LeakyReLU(config.leaky_slope),
            nn.Linear(config.shared_size, config.num_levels),
        )
        is_score_only = config.task_schedule == "score_only"
        self.task_weights = (1.0, 0.0) if is_score_only else (float(config.w_reg), float(config.w_cls))
        self.post_init()

    @property
    def binner(self) -> QualityLevelBinner:
        """How labels become levels."""
        config = self.config
        return QualityLevelBinner(
            config.score_low,
            config.score_high,
            config.num_levels,
            config.level_rule,
            config.level_width,
            config.level_overflow,
        )

    def calibrate(self, score: torch.Tensor) -> torch.Tensor:
        """Scores through `config.calibration`, as they are without one; in float64."""
        score = score.double()
        if self.config.calibration is None:
            return score
        b1, b2, b3, b4 = self.config.calibration
        return (b1 - b2) * torch.sigmoid((score - b3) / abs(b4)) + b2

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.FloatTensor | None = None,
        crop_mask: torch.BoolTensor | None = None,
        labels: torch.FloatTensor | None = None,
        level_labels: torch.LongTensor | None = None,
        pooled_maps: torch.FloatTensor | None = None,
        **kwargs: Any,
    ) -> PmtIqaImageQualityOutput:
        """Quality of images.

        Args:
            pixel_values (`torch.FloatTensor` of shape `(batch_size, num_crops, channels, crop_size, crop_size)`):
                Normalized crops of each image; or `(batch_size, channels, crop_size, crop_size)`, one crop each.
            crop_mask (`torch.BoolTensor` of shape `(batch_size, num_crops)`, *optional*): True for crops, False for
                padding of images with fewer crops than others.
            labels (`torch.FloatTensor` of shape `(batch_size,)`, *optional*): Scores (MOS or DMOS) of the images, on
                their own scale. NaN is left out of the loss.
            level_labels (`torch.LongTensor` of shape `(batch_size,)`, *optional*): Quality levels in
                `[0, num_levels)`, -100 for none; by default those of `labels`.
            pooled_maps (`torch.FloatTensor` of shape `(batch_size, num_crops, pooled_size)`, *optional*): What
                `compute_pooled_maps` of [`PmtIqaModel`] gave for the crops, in place of `pixel_values`: training of
                the heads alone then runs the backbone once and not in each epoch.
            kwargs: As in [`PmtIqaModel`].

        Returns:
            [`PmtIqaImageQualityOutput`]. The loss is a mean over crops, each with the label of its image.

        Raises:
            TypeError: If `pixel_values` or `level_labels` are of the wrong kind.
            ValueError: If an input does not fit.
        """
        refuse_unknown_inputs(self, kwargs, FROM_THE_PROCESSOR)
        crops, name = pooled_maps, "pooled_maps"
        if pooled_maps is None:
            self.pmt_iqa.check_pixel_values(pixel_values, (4, 5))
            crops, name = pixel_values if pixel_values.ndim == 5 else pixel_values[:, None], "pixel_values"
        elif pixel_values is not None or pooled_maps.ndim != 3:
            raise ValueError(
                "`pooled_maps` must have shape (batch_size, num_crops, pooled_size), without `pixel_values`; got "
                f"{tuple(pooled_maps.shape)}{'' if pixel_values is None else ' and `pixel_values`'}."
            )
        batch_size, num_crops = crops.shape[:2]
        is_crop = self._read_crop_mask(crop_mask, crops)
        kwargs["return_dict"] = True
        # Padding is not computed: in training it would change the statistics of the batch norms.
        is_padded = crop_mask is not None and not torch.compiler.is_compiling()
        flat = crops[is_crop] if is_padded else crops.flatten(0, 1)
        parts = [self.pmt_iqa(**{name: part}, **kwargs) for part in self._split_crops(flat)]
        shared = self.shared(torch.cat([part.pooler_output for part in parts]))
        raw_scores, level_logits = self.score_head(shared).squeeze(-1), self.level_head(shared)
        if is_padded:
            raw_scores, level_logits = _put_back(raw_scores, is_crop), _put_back(level_logits, is_crop)
        raw_scores = raw_scores.view(batch_size, num_crops)
        level_logits = level_logits.view(batch_size, num_crops, -1)
        crop_scores = torch.where(is_crop, self._to_native(raw_scores), 0)
        loss, loss_reg, loss_cls = self._compute_losses(raw_scores, level_logits, is_crop, labels, level_labels)
        share = is_crop / is_crop.sum(1, keepdim=True)
        return PmtIqaImageQualityOutput(
            loss=loss,
            score=(crop_scores.float() * share).sum(1).to(crop_scores.dtype),
            crop_scores=crop_scores,
            level_logits=level_logits,
            level_probs=(level_logits.float().softmax(-1) * share[..., None]).sum(1).to(level_logits.dtype),
            loss_reg=loss_reg,
            loss_cls=loss_cls,
            hidden_states=None
            if parts[0].hidden_states is None
            else tuple(torch.cat(maps) for maps in zip(*(part.hidden_states for part in parts), strict=True)),
        )

    def _split_crops(self, crops: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Crops in parts whose maps fit into the memory that a processor has at hand; all at once where they learn."""
        is_free = self.training or torch.is_grad_enabled() or crops.device.type != "cpu" or crops.ndim != 4
        if is_free or torch.compiler.is_compiling() or not len(crops):
            return (crops,)
        return crops.split(max(1, MAX_PIXELS // (crops.shape[-2] * crops.shape[-1])))

    def compute_quality_map(self, pixel_values: torch.FloatTensor) -> PmtIqaQualityMap:
        """Scores of all windows of whole images, with one pass of the backbone ("dense").

        Windows see their surroundings where crops see zero padding, so scores differ a little from those of crops.

        Args:
            pixel_values (`torch.FloatTensor` of shape `(batch_size, channels, height, width)`): Normalized pixels;
                height and width are multiples of the coarsest stride, and at least `crop_size`.

        Returns:
            [`PmtIqaQualityMap`].
        """
        features = self.pmt_iqa.compute_dense_features(pixel_values)
        shared = self.shared(features.movedim(1, -1))  # (batch_size, rows, columns, shared_size)
        score_map = self._to_native(self.score_head(shared).squeeze(-1))
        level_probs = self.level_head(shared).float().softmax(-1).mean((1, 2))
        return PmtIqaQualityMap(
            score=score_map.float().mean((1, 2)).to(score_map.dtype), score_map=score_map, level_probs=level_probs
        )

    def _read_crop_mask(self, crop_mask: torch.Tensor | None, crops: torch.Tensor) -> torch.Tensor:
        shape = crops.shape[:2]
        if crop_mask is None:
            return torch.ones(shape, dtype=torch.bool, device=crops.device)
        if crop_mask.shape != shape:
            raise ValueError(
                f"`crop_mask` must have shape (batch_size, num_crops), {tuple(shape)}; got {tuple(crop_mask.shape)}."
            )
        is_crop = crop_mask.bool()
        if can_look_at(is_crop) and not is_crop.any(1).all():
            raise ValueError("`crop_mask` must leave at least one crop of each image; it leaves none of some.")
        return is_crop

    def _to_native(self, raw_scores: torch.Tensor) -> torch.Tensor:
        if self.config.label_scale == "native":
            return raw_scores
        return self.config.score_low + raw_scores * (self.config.score_high - self.config.score_low)

    def _to_target(self, labels: torch.Tensor) -> torch.Tensor:
        if self.config.label_scale == "native":
            return labels
        return (labels - self.config.score_low) / (self.config.score_high - self.config.score_low)

    def _compute_losses(
        self,
        raw_scores: torch.Tensor,
        level_logits: torch.Tensor,
        is_crop: torch.Tensor,
        labels: torch.Tensor | None,
        level_labels: torch.Tensor | None,
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        """Loss and its two parts; what has no labels is `None`."""
        loss_reg = loss_cls = None
        if labels is not None:
            check_labels(labels, len(raw_scores), self.config.score_low, self.config.score_high)
            labels = labels.to(raw_scores.device)
            targets = self._to_target(labels)[:, None].expand_as(raw_scores)
            loss_reg = compute_score_loss(raw_scores, torch.where(is_crop, targets, torch.nan))
            if level_labels is None:
                levels = self.binner(labels.float().nan_to_num(self.config.score_low))
                level_labels = torch.where(labels.isfinite(), levels, IGNORED_LEVEL)
        if level_labels is not None:
            check_levels(level_labels, len(raw_scores), self.config.num_levels)
            levels = torch.where(is_crop, level_labels.to(is_crop.device)[:, None], IGNORED_LEVEL)
            loss_cls = compute_level_loss(level_logits.flatten(0, 1), levels.flatten())
        w_reg, w_cls = self.task_weights
        parts = [weight * part for weight, part in ((w_reg, loss_reg), (w_cls, loss_cls)) if part is not None]
        return torch.stack(parts).sum() if parts else None, loss_reg, loss_cls


def _put_back(values: torch.Tensor, is_crop: torch.Tensor) -> torch.Tensor:
    """Values of crops among zeros for padding, in the order of the mask."""
    places = is_crop.flatten().nonzero().squeeze(1)
    return values.new_zeros(is_crop.numel(), *values.shape[1:]).index_copy(0, places, values)


__all__ = [
    "PmtIqaForImageQualityAssessment",
    "PmtIqaImageQualityOutput",
    "PmtIqaModel",
    "PmtIqaModelOutput",
    "PmtIqaPreTrainedModel",
    "PmtIqaQualityMap",
]
