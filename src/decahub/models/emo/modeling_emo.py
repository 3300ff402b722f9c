"""EMO: one residual block for everything, an inverted residual around window attention and a depth-wise convolution.

Paper: "Rethinking Mobile Block for Efficient Attention-based Models", arXiv 2301.01146, section 3. There is no
positional encoding; the depth-wise convolutions give position. Maps stay in `channels_last` memory throughout.

Same numbers as the authors' code, for the loss of pixels with `loss_avg_non_ignore=False`. What else the configuration
can change: `mask_padding` hides window padding from attention, `window_mode` makes windows contiguous, `stem_stride`
suits small images.
"""

import copy
import os
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import nn
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.backbone_utils import BackboneMixin, filter_output_hidden_states
from transformers.modeling_outputs import (
    BackboneOutput,
    BaseModelOutputWithPooling,
    ImageClassifierOutput,
    SemanticSegmenterOutput,
)
from transformers.modeling_utils import PreTrainedModel
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from ..shared.checks import refuse_unknown_inputs
from ..shared.initialization import ParentInitialization
from ..shared.losses import compute_classification_loss, compute_segmentation_loss
from .block import EmoConvolutionLayer, EmoInvertedResidualBlock, EmoWindowAttention, build_norm
from .configuration_emo import EmoConfig
from .decode_heads import DECODE_HEADS, EmoAuxiliaryHead, EmoPixelClassifier
from .fusion import fuse_layers


PIXEL_CLASSIFIER_STD = 0.01  # of the authors' decode heads


@dataclass
class EmoSemanticSegmenterOutput(SemanticSegmenterOutput):
    """Output of [`EmoForSemanticSegmentation`]; `EmoImageProcessor.post_process_semantic_segmentation` reads it.

    Args:
        loss (`torch.FloatTensor` of shape `(1,)`, returned with `labels`): `decode_loss + auxiliary_loss`.
        logits (`torch.FloatTensor` of shape `(batch_size, num_labels, height / s, width / s)`): scores at stride
            `s`, 32 for `"deeplabv3"` and `"pspnet"`, 4 for `"segformer"` and `"sem_fpn"`. Resize logits, not the
            argmax.
        hidden_states (`tuple(torch.FloatTensor)`): as in [`EmoModel`].
        attentions (`tuple(torch.FloatTensor)`): as in [`EmoModel`].
        decode_loss (`torch.FloatTensor` of shape `(1,)`, returned with `labels`): loss of the decode head.
        auxiliary_loss (`torch.FloatTensor` of shape `(1,)`, returned with `labels` if there is an auxiliary head): its
            loss times its weight.
        auxiliary_logits (`torch.FloatTensor` of shape `(batch_size, num_labels, height / 16, width / 16)`): its
            scores.
    """

    decode_loss: torch.FloatTensor | None = None
    auxiliary_loss: torch.FloatTensor | None = None
    auxiliary_logits: torch.FloatTensor | None = None


class EmoStem(nn.Module):
    """First convolution and a block without expansion or skip, but with squeeze-and-excitation."""

    def __init__(self, config: EmoConfig):
        super().__init__()
        size = config.stem_hidden_size
        self.patch_embedding = EmoConvolutionLayer(
            config.num_channels,
            size,
            config.depthwise_kernel_sizes[0],
            stride=config.stem_stride,
            bias=True,
            norm=build_norm(config.norm_types[0], size, config),
            hidden_act=None,
        )
        self.block = EmoInvertedResidualBlock(
            config,
            0,
            size,
            size,
            expansion_ratio=1.0,
            has_norm=False,
            has_skip=False,
            has_expansion=False,
            squeeze_excitation_ratio=1.0,
        )

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.block(self.patch_embedding(pixel_values))


class EmoStage(nn.Module):
    """Blocks of one resolution; the first halves the map and never attends."""

    def __init__(self, config: EmoConfig, index: int, drop_path_rates: list[float]):
        super().__init__()
        in_channels = config.stem_hidden_size if index == 0 else config.hidden_sizes[index - 1]
        size, ratio = config.hidden_sizes[index], config.expansion_ratios[index]
        self.blocks = nn.ModuleList(
            EmoInvertedResidualBlock(
                config,
                index,
                in_channels if block == 0 else size,
                size,
                expansion_ratio=2 * ratio if block == 0 else ratio,
                stride=2 if block == 0 else 1,
                attends=config.use_attention[index] and block > 0,
                has_skip=block > 0,
                squeeze_excitation_ratio=config.squeeze_excitation_ratios[index],
                drop_path_rate=rate,
            )
            for block, rate in enumerate(drop_path_rates)
        )

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            hidden_states = block(hidden_states)
        return hidden_states


def compute_drop_path_rates(config: EmoConfig) -> list[list[float]]:
    """Rates per stage and block, linear from 0 to `drop_path_rate` over all blocks."""
    num_blocks = sum(config.depths)
    rates = iter(config.drop_path_rate * index / max(num_blocks - 1, 1) for index in range(num_blocks))
    return [[next(rates) for _ in range(depth)] for depth in config.depths]


class EmoPreTrainedModel(ParentInitialization, PreTrainedModel):
    """Weights, loading and saving of EMO models."""

    config: EmoConfig
    config_class = EmoConfig
    base_model_prefix = "emo"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False  # the loss is a mean over one batch; `Trainer` divides it by the accumulated batches
    _no_split_modules = ["EmoStem", "EmoInvertedResidualBlock"]
    _input_embed_layer = "stem"
    _supports_sdpa = True
    _supports_attention_backend = True
    _can_record_outputs = {"hidden_states": OutputRecorder(EmoStage), "attentions": EmoWindowAttention}
    _is_fused = False

    @torch.no_grad()
    def _init_weights(self, module):
        # Convolutions keep torch's own initialization, with which the authors train.
        if isinstance(module, nn.Conv2d):
            init.kaiming_uniform_(module.weight, a=5**0.5)
            if module.bias is not None:
                bound = (module.weight.shape[1] * module.kernel_size[0] * module.kernel_size[1]) ** -0.5
                init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, nn.Linear):
            init.trunc_normal_(module.weight, std=self.config.initializer_range)
            if module.bias is not None:
                init.zeros_(module.bias)
        else:
            super()._init_weights(module)
        if isinstance(module, EmoPixelClassifier):
            for child in module.modules():
                if isinstance(child, EmoConvolutionLayer):
                    init.kaiming_normal_(child.convolution.weight, mode="fan_out", nonlinearity="relu")
            init.normal_(module.classifier.weight, std=PIXEL_CLASSIFIER_STD)
            init.zeros_(module.classifier.bias)

    def fuse(self):
        """A copy for inference in which batch norms are folded into the convolutions beside them.

        Same outputs up to rounding, fewer passes over memory. The copy is in evaluation mode; it can neither be
        trained nor saved (save this model instead).

        Returns:
            A model of the same class.
        """
        with torch.inference_mode(False):  # whose tensors do not tell of changes
            fused = copy.deepcopy(self).eval().requires_grad_(False)
            fuse_layers(fused)
            fused.to(memory_format=torch.channels_last)
        for module in fused.modules():
            if isinstance(module, EmoPreTrainedModel):
                module._is_fused = True
        return fused

    def train(self, mode: bool = True) -> Self:
        if mode and self._is_fused:
            raise ValueError("A fused model has no batch norms to train. Train the model that `fuse()` was called on.")
        return super().train(mode)

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Saves weights and configuration; see [`~transformers.PreTrainedModel.save_pretrained`].

        Raises:
            ValueError: If the model is fused.
        """
        if self._is_fused:
            raise ValueError("A fused model has lost its batch norms. Save the model that `fuse()` was called on.")
        return super().save_pretrained(save_directory, **kwargs)


class EmoTrunk(EmoPreTrainedModel):
    """Stem and stages, which [`EmoModel`] and [`EmoBackbone`] share."""

    def __init__(self, config: EmoConfig):
        super().__init__(config)
        config.validate()
        self.stem = EmoStem(config)
        rates = compute_drop_path_rates(config)
        self.stages = nn.ModuleList(EmoStage(config, index, rates[index]) for index in range(len(config.depths)))
        for module in self.frozen_modules():
            module.requires_grad_(False)

    def frozen_modules(self) -> list[nn.Module]:
        return [self.stem, *self.stages][: self.config.frozen_stages + 1]

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if mode:
            for module in self.frozen_modules():
                module.eval()
            for module in self.modules():
                if self.config.freeze_batch_norm and isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def compute_feature_maps(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Maps of the stem and each stage, finest first."""
        self.check_pixel_values(pixel_values)
        dtype = next(self.stem.parameters()).dtype
        hidden_states = self.stem(pixel_values.to(dtype, memory_format=torch.channels_last))
        feature_maps = [hidden_states]
        for stage in self.stages:
            hidden_states = stage(hidden_states)
            feature_maps.append(hidden_states)
        return tuple(feature_maps)

    def check_pixel_values(self, pixel_values: torch.Tensor | None) -> None:
        if pixel_values is None:
            raise ValueError("`pixel_values` must be given.")
        if not pixel_values.is_floating_point():
            raise TypeError(
                f"`pixel_values` must be floating point; got {pixel_values.dtype}. Prepare images with "
                "`EmoImageProcessor`."
            )
        if pixel_values.ndim != 4 or pixel_values.shape[1] != self.config.num_channels:
            raise ValueError(
                f"`pixel_values` must have shape (batch_size, {self.config.num_channels}, height, width); got "
                f"{tuple(pixel_values.shape)}. `num_channels` of the config is {self.config.num_channels}."
            )
        if 0 in pixel_values.shape:
            raise ValueError(f"`pixel_values` must hold at least one pixel; got shape {tuple(pixel_values.shape)}.")
        # Elsewhere looking at values would wait for the device or break the traced graph.
        can_look = pixel_values.device.type == "cpu" and not torch.compiler.is_compiling()
        if can_look and not torch.isfinite(
            pixel_values.sum(dtype=torch.promote_types(pixel_values.dtype, torch.float32))
        ):
            raise ValueError("`pixel_values` must be finite; got NaN or infinity.")


class EmoModel(EmoTrunk):
    """EMO without a head.

    Args:
        config ([`EmoConfig`]): the architecture.
        add_pooling_layer (`bool`): whether the last map is normalized and averaged; dense heads take the maps as they
            are.
    """

    def __init__(self, config: EmoConfig, add_pooling_layer: bool = True):
        super().__init__(config)
        self.norm = build_norm(config.norm_types[-1], config.hidden_sizes[-1], config) if add_pooling_layer else None
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(self, pixel_values: torch.FloatTensor | None = None, **kwargs: Any) -> BaseModelOutputWithPooling:
        """Features of images.

        Args:
            pixel_values (`torch.FloatTensor` of shape `(batch_size, num_channels, height, width)`): normalized pixels
                of any size; each stage halves it, rounded up.
            kwargs: `output_hidden_states`, `output_attentions` and `return_dict`.

        Returns:
            [`~transformers.modeling_outputs.BaseModelOutputWithPooling`] with `last_hidden_state` of shape
            `(batch_size, hidden_sizes[-1], height / 32, width / 32)`, normalized unless `add_pooling_layer` is false;
            `pooler_output` of shape `(batch_size, hidden_sizes[-1])`; with `output_hidden_states=True`,
            `hidden_states`: the five maps of stem and stages, at strides 2 to 32; with `output_attentions=True` and
            eager attention, `attentions`: one tensor of shape `(num_windows, num_heads, pixels, pixels)` for each
            attending block.

        Raises:
            TypeError: If `pixel_values` are integers.
            ValueError: If their shape does not fit, they are empty, or not finite.
        """
        refuse_unknown_inputs(self, kwargs)
        hidden_states = self.compute_feature_maps(pixel_values)[-1]
        if self.norm is None:
            return BaseModelOutputWithPooling(last_hidden_state=hidden_states)
        hidden_states = self.norm(hidden_states)
        return BaseModelOutputWithPooling(last_hidden_state=hidden_states, pooler_output=hidden_states.mean((2, 3)))


class EmoBackbone(BackboneMixin, EmoTrunk):
    """EMO as a feature extractor for detectors and other frameworks; classification checkpoints load as they are.

    No norm is applied to the maps. `config.frozen_stages` and `config.freeze_batch_norm` keep parts fixed in training.

    Args:
        config ([`EmoConfig`]): `out_features` or `out_indices` choose the maps.
    """

    _keys_to_ignore_on_load_unexpected = [r"^(emo\.)?norm\.", r"^(pre_)?classifier\."]

    def __init__(self, config: EmoConfig):
        super().__init__(config)
        self.num_features = [config.stem_hidden_size, *config.hidden_sizes]
        self.post_init()

    @can_return_tuple
    @filter_output_hidden_states
    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(self, pixel_values: torch.FloatTensor, **kwargs: Any) -> BackboneOutput:
        """Feature maps of images.

        Args:
            pixel_values (`torch.FloatTensor` of shape `(batch_size, num_channels, height, width)`): normalized pixels.
            kwargs: as in [`EmoModel`].

        Returns:
            [`~transformers.modeling_outputs.BackboneOutput`] with `feature_maps`, one tensor of shape
            `(batch_size, channels, height / stride, width / stride)` for each of `out_features`.
        """
        refuse_unknown_inputs(self, kwargs)
        feature_maps = self.compute_feature_maps(pixel_values)
        named = zip(self.stage_names, feature_maps, strict=True)
        return BackboneOutput(feature_maps=tuple(maps for name, maps in named if name in self.out_features))


class EmoForImageClassification(EmoPreTrainedModel):
    """EMO with a linear classifier on the mean of the last map.

    Args:
        config ([`EmoConfig`]): with `num_labels=0` the logits are the pooled features.
    """

    def __init__(self, config: EmoConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.emo = EmoModel(config)
        size = config.hidden_sizes[-1]
        self.pre_classifier, self.activation = nn.Identity(), nn.Identity()
        if config.pre_classifier_size > 0:
            self.pre_classifier = nn.Linear(size, config.pre_classifier_size)
            self.activation = ACT2FN[config.hidden_acts[-1]]
            size = config.pre_classifier_size
        self.classifier = nn.Linear(size, config.num_labels) if config.num_labels > 0 else nn.Identity()
        self.post_init()

    @can_return_tuple
    def forward(
        self, pixel_values: torch.FloatTensor | None = None, labels: torch.Tensor | None = None, **kwargs: Any
    ) -> ImageClassifierOutput:
        """Class scores of images.

        Args:
            pixel_values (`torch.FloatTensor` of shape `(batch_size, num_channels, height, width)`): normalized pixels.
            labels (`torch.LongTensor` of shape `(batch_size,)`, *optional*): class ids in `[0, num_labels)`; -100 is
                ignored. Floats of shape `(batch_size, num_labels)` are probabilities (mixup), or what
                `config.problem_type` says.
            kwargs: as in [`EmoModel`].

        Returns:
            [`~transformers.modeling_outputs.ImageClassifierOutput`] with `loss` if `labels` are given and `logits` of
            shape `(batch_size, num_labels)`; `hidden_states` and `attentions` as in [`EmoModel`].

        Raises:
            TypeError: If `pixel_values` are integers.
            ValueError: If `pixel_values` or `labels` do not fit.
        """
        refuse_unknown_inputs(self, kwargs)
        kwargs["return_dict"] = True
        outputs = self.emo(pixel_values, **kwargs)
        logits = self.classifier(self.activation(self.pre_classifier(outputs.pooler_output)))
        loss = None if labels is None else compute_classification_loss(logits, labels, self.config)
        return ImageClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


class EmoForSemanticSegmentation(EmoPreTrainedModel):
    """EMO with a decode head, and for training an auxiliary head.

    Args:
        config ([`EmoConfig`]): `decode_head` chooses the head.
    """

    _keys_to_ignore_on_load_unexpected = [r"^emo\.norm\.", r"^(pre_)?classifier\."]

    def __init__(self, config: EmoConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.emo = EmoModel(config, add_pooling_layer=False)
        self.decode_head = DECODE_HEADS[config.decode_head](config)
        self.auxiliary_head = EmoAuxiliaryHead(config) if config.has_auxiliary_head else None
        self.post_init()

    @can_return_tuple
    @filter_output_hidden_states
    def forward(
        self,
        pixel_values: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        **kwargs: Any,
    ) -> EmoSemanticSegmenterOutput:
        """Class scores of pixels.

        Args:
            pixel_values (`torch.FloatTensor` of shape `(batch_size, num_channels, height, width)`): normalized pixels.
            labels (`torch.LongTensor` of shape `(batch_size, height, width)`, *optional*): class ids, at any
                resolution; `config.semantic_loss_ignore_index` marks pixels without one.
            kwargs: as in [`EmoModel`].

        Returns:
            [`EmoSemanticSegmenterOutput`].

        Raises:
            TypeError: If `pixel_values` are integers.
            ValueError: If `pixel_values` or `labels` do not fit.
        """
        refuse_unknown_inputs(self, kwargs)
        kwargs["return_dict"] = True
        outputs = self.emo(pixel_values, **kwargs)
        feature_maps = outputs.hidden_states[1:]
        logits = self.decode_head(feature_maps)
        losses = {} if labels is None else self.compute_losses(feature_maps, logits, labels)
        return EmoSemanticSegmenterOutput(
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            **losses,
        )

    def compute_losses(
        self, feature_maps: tuple[torch.Tensor, ...], logits: torch.Tensor, labels: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        ignore_index, over_all = self.config.semantic_loss_ignore_index, not self.config.loss_avg_non_ignore
        loss = compute_segmentation_loss(logits, labels, ignore_index, average_over_all=over_all)
        if self.auxiliary_head is None:
            return {"loss": loss, "decode_loss": loss}
        auxiliary_logits = self.auxiliary_head(feature_maps)
        auxiliary_loss = compute_segmentation_loss(auxiliary_logits, labels, ignore_index, average_over_all=over_all)
        auxiliary_loss = self.config.auxiliary_loss_weight * auxiliary_loss
        return {
            "loss": loss + auxiliary_loss,
            "decode_loss": loss,
            "auxiliary_loss": auxiliary_loss,
            "auxiliary_logits": auxiliary_logits,
        }


__all__ = [
    "EmoBackbone",
    "EmoForImageClassification",
    "EmoForSemanticSegmentation",
    "EmoModel",
    "EmoPreTrainedModel",
    "EmoSemanticSegmenterOutput",
]
