"""RefT: Mask2Former that looks twice at a few annotated examples of each class.

The support images go through the same weights as the image. First their features, averaged inside the masks, give a
center for each class, which enhances the feature maps; then the object queries that segment them enhance the object
queries of the image (arXiv 2301.01156; how the two references work inside is our reading of the paper). Without support
the numbers are those of Mask2Former, and so they are with support until the references are trained.
"""

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self

import torch
from torch import nn
from transformers import Mask2FormerForUniversalSegmentation
from transformers import initialization as init
from transformers.modeling_utils import PreTrainedModel
from transformers.models.mask2former.modeling_mask2former import (
    Mask2FormerPreTrainedModel,
    Mask2FormerTransformerModule,
)
from transformers.utils.generic import can_return_tuple

from ..shared.checks import can_look_at, refuse_unknown_inputs
from ..shared.modes import evaluation_mode
from .classifiers import RefTCosineClassifier, RefTPrototypeClassifier
from .configuration_reft import NUM_FEATURE_LEVELS, NUM_GROUPS, RefTConfig
from .distillation import compute_class_distillation_loss, compute_feature_distillation_loss
from .losses import Prediction, RefTLoss, build_class_weights
from .outputs import RefTForFewShotInstanceSegmentationOutput, RefTModelOutput
from .pixel_decoder import RefTPixelLevelModule
from .references import RefTReference, pool_support, select_object_queries
from .shots import Shots, read_shots
from .support_encoding import EncodedShots, build_class_support, build_support, encode_in_chunks, prepare_shots
from .support_memory import RefTSupport, RefTSupportMemory, compute_config_hash


STRIDE = 32
# What a Mask2Former checkpoint does not have.
NEW_KEYS = re.compile(r"(model\.)?(feature_reference\.\d+|query_reference)\..*|base_class_centers\..*")


class RefTBaseClassCenters(nn.Module):
    """Mean input of the pixel decoder inside the instances of each base class, at each level (`fit` fills it).

    Args:
        num_base (`int`): base classes.
        feature_size (`int`): channels.
    """

    def __init__(self, num_base: int, feature_size: int):
        super().__init__()
        for level in range(NUM_FEATURE_LEVELS):
            self.register_buffer(str(level), torch.zeros(num_base, feature_size))

    def get_levels(self) -> tuple[torch.Tensor, ...]:
        """The centers, coarse to fine."""
        return tuple(self.get_buffer(str(level)) for level in range(NUM_FEATURE_LEVELS))


class RefTPreTrainedModel(Mask2FormerPreTrainedModel):
    """Weights, loading and saving of RefT models."""

    config: RefTConfig
    config_class = RefTConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False  # the loss is a mean over one batch; `Trainer` divides it by the accumulated batches
    _no_split_modules = ["Mask2FormerMaskedAttentionDecoderLayer", "RefTPixelDecoderLayer"]
    _input_embed_layer = "pixel_level_module"

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, RefTLoss):
            weights = build_class_weights(len(module.empty_weight) - 1, module.no_object_weight)
            init.copy_(module.empty_weight, weights)
        elif isinstance(module, RefTReference):
            for linear in (module.q_proj, module.k_proj, module.v_proj):
                init.xavier_uniform_(linear.weight)
                init.zeros_(linear.bias)
            init.zeros_(module.out_proj.weight)
            init.zeros_(module.out_proj.bias)
        elif isinstance(module, RefTCosineClassifier):
            init.normal_(module.weight, std=self.config.init_std)
            init.constant_(module.logit_scale, module.initial_scale)
        elif isinstance(module, RefTPrototypeClassifier):
            for linear in (module.query_proj, module.support_proj):
                init.eye_(linear.weight)
                init.zeros_(linear.bias)
            init.normal_(module.no_object, std=self.config.init_std)
            init.constant_(module.logit_scale, module.initial_scale)
        elif isinstance(module, RefTBaseClassCenters):
            for centers in module.get_levels():
                init.zeros_(centers)
        else:
            super()._init_weights(module)


class RefTModel(RefTPreTrainedModel):
    """Backbone, pixel decoder, transformer decoder and both references, without heads for classes.

    Args:
        config ([`RefTConfig`]): the architecture.
    """

    def __init__(self, config: RefTConfig):
        super().__init__(config)
        config.validate()
        self.pixel_level_module = RefTPixelLevelModule(config)
        self.transformer_module = Mask2FormerTransformerModule(in_features=config.feature_size, config=config)
        heads = config.reference_attention_heads
        self.feature_reference = nn.ModuleList()
        if config.feature_fusion != "none":
            self.feature_reference.extend(
                RefTReference(config.feature_size, heads, reweights=config.feature_fusion == "reweight")
                for _ in range(NUM_FEATURE_LEVELS)
            )
        self.query_reference = None
        if config.query_enhancement_targets:
            self.query_reference = RefTReference(config.hidden_dim, heads)
        for module in self._frozen_norms():
            module.requires_grad_(False)
        self.post_init()

    def _frozen_norms(self) -> list[nn.Module]:
        if not self.config.freeze_batch_norm:
            return []
        return [module for module in self.pixel_level_module.encoder.modules() if isinstance(module, nn.BatchNorm2d)]

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for module in self._frozen_norms():
            module.eval()
        return self

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.FloatTensor | None = None,
        pixel_mask: torch.LongTensor | None = None,
        support_pixel_values: torch.FloatTensor | None = None,
        support_masks: torch.Tensor | None = None,
        support_valid: torch.BoolTensor | None = None,
        support_memory: RefTSupportMemory | None = None,
        class_predictor: Callable[[torch.Tensor], torch.Tensor] | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        **kwargs: Any,
    ) -> RefTModelOutput:
        """Object queries and masks of images, seen with the support.

        Args:
            pixel_values (`torch.FloatTensor` of shape `(batch_size, 3, height, width)`): normalized images, padded to
                multiples of 32.
            pixel_mask (`torch.LongTensor` of shape `(batch_size, height, width)`, *optional*): 1 for pixels of the
                image, 0 for padding. It matters only with `config.mask_padding`.
            support_pixel_values (`torch.FloatTensor` of shape `([batch_size,] num_ways, num_shots, 3, h, w)`,
                *optional*): crops around support instances; without a batch axis they serve all images.
            support_masks (`torch.Tensor` of shape `([batch_size,] num_ways, num_shots, h, w)`): the mask of one
                instance for each.
            support_valid (`torch.BoolTensor` of shape `([batch_size,] num_ways, num_shots)`, *optional*): False for
                padding; by default a shot counts if its mask has a pixel.
            support_memory ([`RefTSupportMemory`], *optional*): support that was encoded before.
            class_predictor (`Callable`, *optional*): head that scores object queries, for `query_selection="score"`.
            output_hidden_states (`bool`, *optional*): whether to return the states of backbone and decoders.
            output_attentions (`bool`, *optional*): whether to return attention weights.
            kwargs: `return_dict`.

        Raises:
            TypeError: If `pixel_values` are integers.
            ValueError: If a shape does not fit, or support is given twice.
        """
        refuse_unknown_inputs(self, kwargs)
        config = self.config
        output_hidden_states = config.output_hidden_states if output_hidden_states is None else output_hidden_states
        output_attentions = config.output_attentions if output_attentions is None else output_attentions
        pixel_values = self._check_pixel_values(pixel_values, "pixel_values")
        support = self.get_support(
            support_pixel_values, support_masks, support_valid, support_memory, class_predictor
        )
        features, mask_features, maps, projected = self.pixel_level_module(
            pixel_values, pixel_mask if config.mask_padding else None
        )
        referenced, feature_attentions = self._refer_features(maps, support)
        decoded = self.transformer_module(
            multi_scale_features=referenced,
            mask_features=mask_features,
            output_hidden_states=True,
            output_attentions=output_attentions,
        )
        masks = decoded.masks_queries_logits
        object_queries, query_attentions = decoded.intermediate_hidden_states[-1].transpose(0, 1), None
        if support is not None and self.query_reference is not None:
            object_queries, query_attentions = self.query_reference(
                object_queries, support.object_queries.flatten(1, 2), support.object_query_mask.flatten(1)
            )
            if "mask" in config.query_enhancement_targets:
                embedder = self.transformer_module.decoder.mask_predictor.mask_embedder
                masks = (*masks[:-1], torch.einsum("bqc,bchw->bqhw", embedder(object_queries), mask_features))
        return RefTModelOutput(
            encoder_last_hidden_state=features[-1],
            pixel_decoder_last_hidden_state=mask_features,
            transformer_decoder_last_hidden_state=decoded.last_hidden_state,
            encoder_hidden_states=tuple(features) if output_hidden_states else None,
            pixel_decoder_hidden_states=maps if output_hidden_states else None,
            transformer_decoder_hidden_states=decoded.hidden_states if output_hidden_states else None,
            transformer_decoder_intermediate_states=decoded.intermediate_hidden_states,
            masks_queries_logits=masks,
            attentions=decoded.attentions,
            object_queries=object_queries,
            class_centers=None if support is None else support.class_centers,
            class_mask=None if support is None else support.class_mask,
            support_object_queries=None if support is None else support.object_queries,
            prototypes=None if support is None else support.prototypes,
            projected_hidden_states=projected,
            referenced_hidden_states=referenced,
            feature_attentions=feature_attentions if output_attentions else None,
            query_attentions=query_attentions if output_attentions else None,
        )

    def _refer_features(
        self, maps: tuple[torch.Tensor, ...], support: RefTSupport | None
    ) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...] | None]:
        """Maps enhanced by the class centers, and the attention weights."""
        if support is None or not len(self.feature_reference):
            return maps, None
        referenced, attentions = [], []
        for feature_map, centers, reference in zip(maps, support.class_centers, self.feature_reference, strict=True):
            tokens, weights = reference(feature_map.flatten(2).transpose(1, 2), centers, support.class_mask)
            referenced.append(tokens.transpose(1, 2).reshape(feature_map.shape))
            attentions.append(weights)
        return tuple(referenced), tuple(attentions)

    def get_support(
        self,
        support_pixel_values: torch.Tensor | None,
        support_masks: torch.Tensor | None,
        support_valid: torch.Tensor | None = None,
        support_memory: RefTSupportMemory | None = None,
        class_predictor: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> RefTSupport | None:
        """Support for the references: encoded, remembered, or none. Arguments are those of `forward`."""
        if support_memory is not None:
            if support_pixel_values is not None:
                raise ValueError("`support_memory` must not be given with `support_pixel_values`; choose one of them.")
            support_memory.check(self.config)
            return _move(support_memory.get_support(), self.device, self.dtype)
        if support_pixel_values is None:
            given = [name for name, value in (("masks", support_masks), ("valid", support_valid)) if value is not None]
            if given:
                raise ValueError(f"`support_{given[0]}` must come with `support_pixel_values`, which are missing.")
            return None
        pixels, masks, valid = prepare_shots(support_pixel_values, support_masks, support_valid)
        if pixels.shape[1] == 0 or pixels.shape[2] == 0:
            return None
        valid = valid.to(self.device)
        shots = self.encode_shots(pixels.flatten(0, 2), masks.flatten(0, 2), class_predictor)
        return build_support(shots, valid, self.config)

    def encode_shots(
        self,
        pixel_values: torch.Tensor,
        masks: torch.Tensor,
        class_predictor: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> EncodedShots:
        """Runs the base branch over support images.

        With gradients all at once; without, `config.support_chunk_size` at a time.

        Args:
            pixel_values (`torch.FloatTensor` of shape `(num_images, 3, height, width)`): support crops.
            masks (`torch.Tensor` of shape `(num_images, height, width)`): their masks, in [0, 1].
            class_predictor (`Callable`, *optional*): as in `forward`.
        """
        pixel_values = self._check_pixel_values(pixel_values, "support_pixel_values").to(self.device, self.dtype)
        masks = masks.to(pixel_values)
        if self.config.query_selection == "score" and class_predictor is None:
            raise ValueError(
                "`class_predictor` must be given for `query_selection='score'`; use "
                "RefTForFewShotInstanceSegmentation, which has one, or `query_selection='mask'`."
            )

        def encode(pixel_values: torch.Tensor, masks: torch.Tensor) -> EncodedShots:
            return self._encode_chunk(pixel_values, masks, class_predictor)

        if torch.is_grad_enabled() and self.config.support_grad:
            return encode(pixel_values, masks)
        with torch.no_grad():
            return encode_in_chunks(encode, pixel_values, masks, self.config.support_chunk_size)

    def _encode_chunk(
        self, pixel_values: torch.Tensor, masks: torch.Tensor, class_predictor: Callable | None
    ) -> EncodedShots:
        _, mask_features, maps, _ = self.pixel_level_module(pixel_values)
        pooled = [pool_support(feature_map, masks) for feature_map in maps]
        decoded = self.transformer_module(maps, mask_features)
        object_queries = decoded.intermediate_hidden_states[-1].transpose(0, 1)
        with torch.no_grad():
            logits = class_predictor(object_queries) if self.config.query_selection == "score" else None
            indices, scores = select_object_queries(
                self.config.query_selection,
                self.config.support_topk,
                decoded.masks_queries_logits[-1],
                masks,
                logits,
            )
        if self.config.detach_support_queries:
            object_queries = object_queries.detach()
        selected = object_queries.gather(1, indices[..., None].expand(-1, -1, object_queries.shape[-1]))
        sums, areas = zip(*pooled, strict=True)
        return EncodedShots(sums, areas, selected, scores.gather(1, indices), indices)

    def _check_pixel_values(self, pixel_values: torch.Tensor | None, name: str) -> torch.Tensor:
        if pixel_values is None:
            raise ValueError(f"`{name}` must be given.")
        if not pixel_values.is_floating_point():
            raise TypeError(
                f"`{name}` must be floating point; got {pixel_values.dtype}. Prepare images with `RefTProcessor`."
            )
        if pixel_values.ndim != 4 or pixel_values.shape[1] != 3:
            raise ValueError(f"`{name}` must have shape (batch_size, 3, height, width); got {tuple(pixel_values.shape)}.")
        batch_size, _, height, width = pixel_values.shape
        if height % STRIDE or width % STRIDE or not height or not width:
            raise ValueError(
                f"`{name}` must have sides that are multiples of {STRIDE}; got {height} x {width}. `RefTProcessor` pads "
                "them."
            )
        values_per_group = batch_size * (self.config.feature_size // NUM_GROUPS) * (height // STRIDE) * (width // STRIDE)
        if values_per_group == 1:
            raise ValueError(
                f"`{name}` must be larger than {STRIDE} x {STRIDE} for a single image with `feature_size` "
                f"{self.config.feature_size}: a group norm over one value is undefined."
            )
        return pixel_values


def _move(support: RefTSupport, device: torch.device, dtype: torch.dtype) -> RefTSupport:
    return RefTSupport(
        tuple(centers.to(device, dtype) for centers in support.class_centers),
        support.class_mask.to(device),
        support.object_queries.to(device, dtype),
        support.object_query_mask.to(device),
        support.prototypes.to(device, dtype),
    )


class RefTForFewShotInstanceSegmentation(RefTPreTrainedModel):
    """RefT with heads for classes and masks, the losses, and a memory for support.

    Args:
        config ([`RefTConfig`]): the architecture; `config.classifier` chooses the head.

    Example:
    ```python
    >>> import torch
    >>> from decahub import RefTConfig, RefTForFewShotInstanceSegmentation
    >>> backbone = {"model_type": "resnet", "depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 24, 32]}
    >>> backbone |= {"embedding_size": 8, "layer_type": "basic", "out_features": [f"stage{i}" for i in range(1, 5)]}
    >>> sizes = {"feature_size": 32, "mask_feature_size": 32, "hidden_dim": 32, "num_queries": 10, "encoder_layers": 1}
    >>> config = RefTConfig(backbone_config=backbone, classifier="prototype", support_size=64, **sizes)
    >>> model = RefTForFewShotInstanceSegmentation(config).eval()
    >>> crops, masks = torch.zeros(2, 3, 64, 64), torch.ones(2, 64, 64)
    >>> memory = model.register_support({"forklift": (crops, masks)})
    >>> model(torch.zeros(1, 3, 64, 96), support_memory=memory).class_queries_logits.shape
    torch.Size([1, 10, 2])

    ```
    """

    def __init__(self, config: RefTConfig):
        super().__init__(config)
        self.model = RefTModel(config)
        if config.classifier == "linear":
            self.class_predictor = nn.Linear(config.hidden_dim, config.num_labels + 1)
        elif config.classifier == "cosine":
            self.class_predictor = RefTCosineClassifier(config.hidden_dim, config.num_labels, config.logit_scale_init)
        else:
            self.class_predictor = RefTPrototypeClassifier(config.hidden_dim, config.logit_scale_init)
        self.criterion = RefTLoss(config)
        self.base_class_centers = None
        if config.base_label_ids:
            self.base_class_centers = RefTBaseClassCenters(len(config.base_label_ids), config.feature_size)
        self._teacher: tuple[RefTForFewShotInstanceSegmentation, RefTSupportMemory | None] | None = None
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.FloatTensor | None = None,
        pixel_mask: torch.LongTensor | None = None,
        support_pixel_values: torch.FloatTensor | None = None,
        support_masks: torch.Tensor | None = None,
        support_valid: torch.BoolTensor | None = None,
        support_class_ids: torch.LongTensor | None = None,
        mask_labels: list[torch.Tensor] | None = None,
        class_labels: list[torch.LongTensor] | None = None,
        support_memory: RefTSupportMemory | None = None,
        output_hidden_states: bool | None = None,
        output_auxiliary_logits: bool | None = None,
        output_attentions: bool | None = None,
        **kwargs: Any,
    ) -> RefTForFewShotInstanceSegmentationOutput:
        """Masks and classes of the instances in images; the loss, if labels are given.

        Args:
            pixel_values (`torch.FloatTensor` of shape `(batch_size, 3, height, width)`): as in [`RefTModel`], as are
                `pixel_mask`, `support_pixel_values`, `support_masks`, `support_valid` and `support_memory`.
            pixel_mask (`torch.LongTensor` of shape `(batch_size, height, width)`, *optional*): padding.
            support_pixel_values (`torch.FloatTensor` of shape `([batch_size,] num_ways, num_shots, 3, h, w)`,
                *optional*): support crops.
            support_masks (`torch.Tensor` of shape `([batch_size,] num_ways, num_shots, h, w)`): their masks.
            support_valid (`torch.BoolTensor` of shape `([batch_size,] num_ways, num_shots)`, *optional*): which count.
            support_class_ids (`torch.LongTensor` of shape `([batch_size,] num_ways)`, *optional*): label id of each
                support class. The references do not read it; ids are checked against the head.
            mask_labels (`list[torch.Tensor]` of shape `(num_targets, height, width)`, *optional*): the instances of
                each image, at its padded size.
            class_labels (`list[torch.LongTensor]` of shape `(num_targets,)`, *optional*): their label ids; for the
                prototype classifier the places of their classes in the support.
            support_memory ([`RefTSupportMemory`], *optional*): remembered support.
            output_hidden_states (`bool`, *optional*): whether to return the states of backbone and decoders.
            output_auxiliary_logits (`bool`, *optional*): whether to return the predictions of the layers before the
                last, which otherwise are computed for the loss only.
            output_attentions (`bool`, *optional*): whether to return attention weights.
            kwargs: `return_dict`.

        Raises:
            TypeError: If `pixel_values` are integers.
            ValueError: If inputs do not fit each other or the model.
        """
        refuse_unknown_inputs(self, kwargs)
        config = self.config
        if output_auxiliary_logits is None:
            output_auxiliary_logits = config.output_auxiliary_logits
        has_labels = mask_labels is not None or class_labels is not None
        outputs = self.model(
            pixel_values=pixel_values,
            pixel_mask=pixel_mask,
            support_pixel_values=support_pixel_values,
            support_masks=support_masks,
            support_valid=support_valid,
            support_memory=support_memory,
            class_predictor=self.class_predictor if config.query_selection == "score" else None,
            output_hidden_states=output_hidden_states,
            output_attentions=output_attentions,
            return_dict=True,
        )
        num_classes = self._count_classes(outputs)
        self._check_class_ids(support_class_ids, num_classes)
        states = outputs.transformer_decoder_intermediate_states
        enhances_classes = "class" in config.query_enhancement_targets
        final_states = outputs.object_queries if enhances_classes else states[-1].transpose(0, 1)
        final = Prediction(self._classify(final_states, outputs), outputs.masks_queries_logits[-1])
        auxiliary = []
        if output_auxiliary_logits or (has_labels and config.use_auxiliary_loss):
            auxiliary = [
                Prediction(self._classify(state.transpose(0, 1), outputs), masks)
                for state, masks in zip(states[:-1], outputs.masks_queries_logits[:-1], strict=True)
            ]
        loss, loss_dict = None, None
        if has_labels:
            self._check_labels(pixel_values, mask_labels, class_labels, num_classes)
            predictions = [final, *(auxiliary if config.use_auxiliary_loss else [])]
            loss_dict, matches = self.criterion(predictions, mask_labels, class_labels)
            if self._teacher is not None:
                loss_dict |= self._compute_distillation_losses(
                    pixel_values, pixel_mask, outputs, final, mask_labels, class_labels, matches
                )
            loss = torch.stack(list(loss_dict.values())).sum()
        return RefTForFewShotInstanceSegmentationOutput(
            loss=loss,
            class_queries_logits=final.class_logits,
            masks_queries_logits=final.mask_logits,
            auxiliary_logits=[
                {"masks_queries_logits": prediction.mask_logits, "class_queries_logits": prediction.class_logits}
                for prediction in auxiliary
            ]
            if output_auxiliary_logits
            else None,
            encoder_last_hidden_state=outputs.encoder_last_hidden_state,
            pixel_decoder_last_hidden_state=outputs.pixel_decoder_last_hidden_state,
            transformer_decoder_last_hidden_state=outputs.transformer_decoder_last_hidden_state,
            encoder_hidden_states=outputs.encoder_hidden_states,
            pixel_decoder_hidden_states=outputs.pixel_decoder_hidden_states,
            transformer_decoder_hidden_states=outputs.transformer_decoder_hidden_states,
            attentions=outputs.attentions,
            loss_dict=loss_dict,
            class_centers=outputs.class_centers,
            support_object_queries=outputs.support_object_queries,
            feature_attentions=outputs.feature_attentions,
            query_attentions=outputs.query_attentions,
        )

    def _count_classes(self, outputs: RefTModelOutput) -> int:
        if self.config.classifier != "prototype":
            return self.config.num_labels
        if outputs.prototypes is None:
            raise ValueError(
                "`support_pixel_values` or `support_memory` must be given to a prototype classifier: its classes are "
                "those of the support."
            )
        return outputs.prototypes.shape[1]

    def _classify(self, object_queries: torch.Tensor, outputs: RefTModelOutput) -> torch.Tensor:
        if self.config.classifier == "prototype":
            return self.class_predictor(object_queries, outputs.prototypes, outputs.class_mask)
        return self.class_predictor(object_queries)

    def _check_class_ids(self, support_class_ids: torch.Tensor | None, num_classes: int) -> None:
        if support_class_ids is None or self.config.classifier == "prototype" or not can_look_at(support_class_ids):
            return
        wrong = support_class_ids[(support_class_ids < 0) | (support_class_ids >= num_classes)]
        if len(wrong):
            raise ValueError(f"`support_class_ids` must be in [0, {num_classes}); got {int(wrong[0])}.")

    def _check_labels(
        self,
        pixel_values: torch.Tensor,
        mask_labels: Sequence[torch.Tensor] | None,
        class_labels: Sequence[torch.Tensor] | None,
        num_classes: int,
    ) -> None:
        """Refuses labels that do not fit, before anything is matched."""
        if mask_labels is None or class_labels is None:
            missing = "mask_labels" if mask_labels is None else "class_labels"
            raise ValueError(f"`{missing}` must be given as well: the loss compares masks and classes.")
        batch_size, _, *size = pixel_values.shape
        for name, labels in (("mask_labels", mask_labels), ("class_labels", class_labels)):
            if len(labels) != batch_size:
                raise ValueError(f"`{name}` must hold one tensor per image ({batch_size}); got {len(labels)}.")
        for image, (masks, classes) in enumerate(zip(mask_labels, class_labels, strict=True)):
            if masks.shape != (len(classes), *size):
                raise ValueError(
                    f"`mask_labels` must have shape {(len(classes), *size)}, a mask of the padded image's size for each "
                    f"of the `class_labels`; image {image} has {tuple(masks.shape)}."
                )
            if can_look_at(classes) and ((classes < 0) | (classes >= num_classes)).any():
                wrong = classes[(classes < 0) | (classes >= num_classes)][0]
                raise ValueError(f"`class_labels` must be in [0, {num_classes}); image {image} has {int(wrong)}.")

    # --- Incremental learning

    def attach_teacher(
        self, teacher: "RefTForFewShotInstanceSegmentation", support_memory: RefTSupportMemory | None = None
    ) -> None:
        """Adds the distillation losses to the loss: this model is not to forget what `teacher` knows.

        The teacher is held outside of the modules: it is neither trained nor saved.

        Args:
            teacher ([`RefTForFewShotInstanceSegmentation`]): the model before the new classes came, with fitted
                `base_class_centers` if `config.class_enhanced`.
            support_memory ([`RefTSupportMemory`], *optional*): support of the base classes for the teacher.

        Raises:
            ValueError: If base classes are not named, or their centers not fitted.
        """
        base_ids = self.config.base_label_ids
        if not base_ids:
            raise ValueError("`base_label_ids` of the config must name the classes that are not to be forgotten.")
        if "prototype" in (self.config.classifier, teacher.config.classifier):
            raise ValueError("`classifier` must be 'linear' or 'cosine' for distillation; a prototype head has no rows.")
        if self.config.class_enhanced and (
            teacher.base_class_centers is None or not any(level.any() for level in teacher.base_class_centers.get_levels())
        ):
            raise ValueError(
                "`teacher` must have fitted base class centers; call `teacher.fit_base_class_centers` with base images, "
                "or set `class_enhanced=False`."
            )
        self._teacher = (teacher.eval().requires_grad_(False), support_memory)

    def _compute_distillation_losses(
        self,
        pixel_values: torch.Tensor,
        pixel_mask: torch.Tensor | None,
        outputs: RefTModelOutput,
        final: Prediction,
        mask_labels: Sequence[torch.Tensor],
        class_labels: Sequence[torch.Tensor],
        matches: list[tuple[torch.Tensor, torch.Tensor]],
    ) -> dict[str, torch.Tensor]:
        teacher, memory = self._teacher
        teacher.to(pixel_values.device)
        with torch.no_grad():
            known = teacher.model(pixel_values, pixel_mask, support_memory=memory, return_dict=True)
            enhances = "class" in teacher.config.query_enhancement_targets
            states = known.transformer_decoder_intermediate_states[-1].transpose(0, 1)
            teacher_logits = teacher.class_predictor(known.object_queries if enhances else states)
        base_ids = self.config.base_label_ids
        columns = torch.tensor([*base_ids, -1], device=pixel_values.device)
        if teacher.config.num_labels > len(base_ids):
            teacher_logits = teacher_logits[..., columns]
        base = torch.tensor(base_ids, device=pixel_values.device)
        is_novel = [~torch.isin(classes, base) for classes in class_labels]
        unions = [masks[novel].any(0) for masks, novel in zip(mask_labels, is_novel, strict=True)]
        is_matched = torch.zeros(final.class_logits.shape[:2], dtype=torch.bool, device=pixel_values.device)
        for image, (queries, targets) in enumerate(matches):
            is_matched[image, queries[is_novel[image][targets]]] = True
        feature_loss = compute_feature_distillation_loss(
            outputs.projected_hidden_states,
            known.projected_hidden_states,
            torch.stack(unions),
            teacher.base_class_centers.get_levels() if self.config.class_enhanced else None,
        )
        class_loss = compute_class_distillation_loss(
            final.class_logits[..., columns], teacher_logits, is_matched, self.config.kd_threshold
        )
        return {
            "loss_kd_feature": self.config.kd_feature_weight * feature_loss,
            "loss_kd_class": self.config.kd_class_weight * class_loss,
        }

    @torch.no_grad()
    def fit_base_class_centers(self, batches: Iterable[Mapping[str, Any]]) -> None:
        """Fills `base_class_centers`: the mean over all instances of each base class.

        Args:
            batches (`Iterable[Mapping[str, Any]]`): each with `pixel_values`, `mask_labels` and `class_labels`.

        Raises:
            ValueError: If `config.base_label_ids` is not set.
        """
        if self.base_class_centers is None:
            raise ValueError("`base_label_ids` of the config must name the base classes.")
        levels = self.base_class_centers.get_levels()
        places = {label_id: place for place, label_id in enumerate(self.config.base_label_ids)}
        sums = [torch.zeros_like(level, dtype=torch.float64) for level in levels]
        counts = torch.zeros(len(places), dtype=torch.float64, device=levels[0].device)
        with evaluation_mode(self):
            for batch in batches:
                projected = self.model(batch["pixel_values"].to(self.device)).projected_hidden_states
                for image, (masks, classes) in enumerate(zip(batch["mask_labels"], batch["class_labels"], strict=True)):
                    for mask, label_id in zip(masks, classes.tolist(), strict=True):
                        if label_id not in places:
                            continue
                        counts[places[label_id]] += 1
                        for level, feature_map in enumerate(projected):
                            total, area = pool_support(feature_map[image, None], mask[None].to(feature_map))
                            sums[level][places[label_id]] += (total / (area + 1e-6)[:, None])[0]
        for level, total in zip(levels, sums, strict=True):
            level.copy_(total / counts.clamp(min=1)[:, None])

    # --- Support memory

    def register_support(
        self,
        support: Mapping[str, Shots],
        memory: RefTSupportMemory | None = None,
        processor: Any = None,
        imprint: bool = False,
    ) -> RefTSupportMemory:
        """Encodes a few examples of each class, once and without training.

        Args:
            support (`Mapping[str, Shots]`): class name to its shots: a list of pairs of an image and its instance
                (mask, box `[x0, y0, x1, y1]`, COCO RLE or polygons), or a pair of normalized crops
                `(num_shots, 3, height, width)` and their masks `(num_shots, height, width)`.
            memory ([`RefTSupportMemory`], *optional*): what to extend; it is not changed itself.
            processor ([`RefTProcessor`] or [`RefTImageProcessor`], *optional*): prepares images; by default with the
                `support_size` and `support_context` of the configuration.
            imprint (`bool`): for the cosine classifier, whether an unknown name becomes a new class, whose row is the
                mean of its first object queries, and novel classes (`config.novel_label_ids`) get theirs anew.

        Returns:
            A memory with all classes of `memory` and `support`.

        Raises:
            ValueError: If a class has no usable shot, or its name is not a label of the model.
        """
        if memory is None:
            memory = RefTSupportMemory({}, compute_config_hash(self.config), self.config.max_support_queries_per_class)
        memory.check(self.config)
        if not support:
            raise ValueError("`support` must hold at least one class; got none.")
        shots = {name: read_shots(name, given, processor, self.config) for name, given in support.items()}
        ids = {name: self._find_class_id(name, imprint) for name in support}
        with torch.no_grad(), evaluation_mode(self):
            predictor = self.class_predictor if self.config.query_selection == "score" else None
            for name, (pixel_values, masks) in shots.items():
                encoded = self.model.encode_shots(pixel_values, masks, predictor)
                class_support = build_class_support(encoded, ids[name], self.config.shot_reduction)
                if imprint and (ids[name] is None or ids[name] in (self.config.novel_label_ids or [])):
                    total = memory.add(name, class_support).classes[name] if name in memory else class_support
                    class_support = self._imprint(name, ids[name], class_support, total.prototype)
                memory = memory.add(name, class_support)
        return memory

    def _find_class_id(self, name: str, imprint: bool) -> int | None:
        """Label id of a class; none where it has no row in the head."""
        if self.config.classifier == "prototype":
            if imprint:
                raise ValueError("`imprint` must be False for a prototype classifier, which has no rows.")
            return None
        if imprint and self.config.classifier != "cosine":
            raise ValueError("`imprint` must be False for a linear classifier; it needs `classifier='cosine'`.")
        label_id = self.config.label2id.get(name)
        if label_id is None and not imprint:
            fix = "Use `imprint=True`" if self.config.classifier == "cosine" else "Use a prototype or cosine classifier"
            raise ValueError(
                f"`support` must name labels of the model; {name!r} is none of {list(self.config.label2id)[:10]}. {fix}, "
                "or fine-tune the model with the class."
            )
        return label_id

    def _imprint(self, name: str, label_id: int | None, support: Any, prototype: torch.Tensor) -> Any:
        """Writes the row of a class into the head, at the end if it has none; the support with its id."""
        predictor, config = self.class_predictor, self.config
        row = nn.functional.normalize(prototype, dim=0)
        if label_id is not None:
            predictor.weight.data[label_id] = row
            return support
        label_id = config.num_labels
        weight = torch.cat([predictor.weight.data[:-1], row[None], predictor.weight.data[-1:]])
        predictor.weight = nn.Parameter(weight, requires_grad=predictor.weight.requires_grad)
        config.id2label = {**config.id2label, label_id: name}
        config.label2id = {**config.label2id, name: label_id}
        self.criterion.empty_weight = build_class_weights(label_id + 1, config.no_object_weight).to(weight)
        return type(support)(**{**vars(support), "class_id": label_id})

    # --- Files

    def save_pretrained(
        self,
        save_directory: str | os.PathLike,
        *args: Any,
        support_memory: RefTSupportMemory | None = None,
        **kwargs: Any,
    ) -> None:
        """Saves weights and configuration, and a memory beside them; see [`~transformers.PreTrainedModel`].

        Args:
            save_directory (`str` or path): the folder.
            args: as in transformers.
            support_memory ([`RefTSupportMemory`], *optional*): written as `support_memory.safetensors`.
            kwargs: as in transformers.
        """
        if support_memory is not None:
            support_memory.check(self.config)
        super().save_pretrained(save_directory, *args, **kwargs)
        if support_memory is not None:
            support_memory.save_pretrained(save_directory)

    @classmethod
    def from_mask2former(
        cls,
        pretrained_model_name_or_path: str | os.PathLike | PreTrainedModel,
        ignore_mismatched_sizes: bool = False,
        load_options: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> Self:
        """RefT from a Mask2Former checkpoint: equal outputs without support, and with support until it is trained.

        A cosine classifier begins with the rows of the linear one, a prototype classifier with that of no object.

        Args:
            pretrained_model_name_or_path (`str`, path or [`~transformers.Mask2FormerForUniversalSegmentation`]): a
                repository of the Hub, a folder, or the model.
            ignore_mismatched_sizes (`bool`): whether the class head may have another size, and then begins anew.
            load_options (`Mapping[str, Any]`, *optional*): of transformers' `from_pretrained`, such as `revision`.
            fields: of [`RefTConfig`], such as `classifier="prototype"`.

        Raises:
            ValueError: If the checkpoint lacks weights or has others.
        """
        source = pretrained_model_name_or_path
        if not isinstance(source, PreTrainedModel):
            source, info = Mask2FormerForUniversalSegmentation.from_pretrained(
                source, output_loading_info=True, **(load_options or {})
            )
            # `swin.layernorm` exists in transformers' module and in no checkpoint; nothing reads it.
            missing = [key for key in info["missing_keys"] if not re.search(r"\.swin\.layernorm\.", key)]
            if missing:
                raise ValueError(
                    f"The checkpoint must hold all weights of Mask2Former; {len(missing)} are missing, such as "
                    f"{sorted(missing)[0]!r}."
                )
        model = cls(RefTConfig.from_mask2former(source.config, **fields)).to(source.dtype)
        model.load_mask2former_weights(source.state_dict(), ignore_mismatched_sizes)
        return model.eval()

    def load_mask2former_weights(
        self, state_dict: Mapping[str, torch.Tensor], ignore_mismatched_sizes: bool = False
    ) -> None:
        """Loads the weights of a Mask2Former; the references, and a head of another kind, stay as they are.

        Raises:
            ValueError: If a tensor is missing, unexpected or of another shape.
        """
        weights = dict(state_dict)
        head = {name: weights.pop(f"class_predictor.{name}", None) for name in ("weight", "bias")}
        if head["weight"] is None:
            raise ValueError("`state_dict` must be that of a Mask2Former with a class head; `class_predictor` is missing.")
        if len(head["weight"]) != self.config.num_labels + 1:
            if not ignore_mismatched_sizes:
                raise ValueError(
                    f"`num_labels` must be that of the checkpoint ({len(head['weight']) - 1}); got "
                    f"{self.config.num_labels}. Set `ignore_mismatched_sizes=True` to begin with a new class head."
                )
            weights.pop("criterion.empty_weight", None)
            head = {}
        if head and self.config.classifier == "linear":
            weights |= {f"class_predictor.{name}": tensor for name, tensor in head.items()}
        elif head and self.config.classifier == "cosine":
            weights["class_predictor.weight"] = head["weight"]
        elif head:
            weights["class_predictor.no_object"] = head["weight"][-1]
        own = self.state_dict()
        misshapen = [name for name, tensor in weights.items() if name in own and own[name].shape != tensor.shape]
        unexpected = sorted(weights.keys() - own.keys())
        missing = sorted(
            name
            for name in own.keys() - weights.keys()
            if not NEW_KEYS.fullmatch(name) and not name.startswith(("class_predictor.", "criterion."))
        )
        for problem, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen)):
            if names:
                raise ValueError(
                    f"`state_dict` must hold the weights of Mask2Former with this configuration; {len(names)} "
                    f"{'is' if len(names) == 1 else 'are'} {problem}, such as {names[0]!r}."
                )
        self.load_state_dict(weights, strict=False)


__all__ = ["RefTForFewShotInstanceSegmentation", "RefTModel", "RefTPreTrainedModel"]
