"""RefT: Mask2Former that looks twice at a few annotated examples of each class.

The support images go through the same weights as the image. First their features, averaged inside the masks, give a
center for each class, which enhances the feature maps; then the object queries that segment them enhance the object
queries of the image (arXiv 2301.01156; how the two references work inside is our reading of the paper). Without
support the numbers are those of Mask2Former, and so they are with support until the references are trained.
"""

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import nn
from transformers import initialization as init
from transformers.models.mask2former.modeling_mask2former import (
    Mask2FormerPreTrainedModel,
    Mask2FormerTransformerModule,
)
from transformers.utils.generic import can_return_tuple

from ..shared.checks import refuse_unknown_inputs
from ..shared.initialization import ParentInitialization
from .classifiers import RefTCosineClassifier, RefTPrototypeClassifier
from .configuration_reft import NUM_FEATURE_LEVELS, NUM_GROUPS, RefTConfig
from .incremental import IncrementalLearning, RefTBaseClassCenters
from .losses.labels import check_class_ids, check_labels
from .losses.mask_loss import Prediction, RefTLoss, build_class_weights
from .mask2former_weights import FromMask2Former
from .outputs import RefTForFewShotInstanceSegmentationOutput, RefTModelOutput
from .pixel_decoder import RefTPixelLevelModule
from .references import RefTReference, pool_support, select_object_queries
from .support.encoding import EncodedShots, build_support, encode_in_chunks, prepare_shots
from .support.memory import RefTSupport, RefTSupportMemory
from .support.registration import SupportRegistration


STRIDE = 32


class RefTPreTrainedModel(ParentInitialization, Mask2FormerPreTrainedModel):
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
            support_pixel_values (`torch.FloatTensor`, *optional*): crops around support instances, of shape
                `([batch_size,] num_ways, num_shots, 3, h, w)`; without a batch axis they serve all images.
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
        support = self.get_support(support_pixel_values, support_masks, support_valid, support_memory, class_predictor)
        if support is not None and support.prototypes.shape[0] not in (1, pixel_values.shape[0]):
            raise ValueError(
                f"`support_pixel_values` must have the batch size of `pixel_values` ({pixel_values.shape[0]}), or no "
                f"batch axis; got {len(support.prototypes)}."
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
                object_queries,
                support.object_queries.flatten(1, 2),
                None if support.object_query_mask is None else support.object_query_mask.flatten(1),
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
            if not hasattr(support_memory, "get_support"):  # a memory of remote code is of another class
                raise TypeError(
                    f"`support_memory` must be a RefTSupportMemory; got {type(support_memory).__name__}. Make it with "
                    "`register_support`."
                )
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
            raise ValueError(
                f"`{name}` must have shape (batch_size, 3, height, width); got {tuple(pixel_values.shape)}."
            )
        batch_size, _, height, width = pixel_values.shape
        if height % STRIDE or width % STRIDE or not height or not width:
            raise ValueError(
                f"`{name}` must have sides that are multiples of {STRIDE}; got {height} x {width}. `RefTProcessor` "
                "pads them."
            )
        values_per_group = (
            batch_size * (self.config.feature_size // NUM_GROUPS) * (height // STRIDE) * (width // STRIDE)
        )
        if values_per_group == 1:
            raise ValueError(
                f"`{name}` must be larger than {STRIDE} x {STRIDE} for a single image with `feature_size` "
                f"{self.config.feature_size}: a group norm over one value is undefined."
            )
        return pixel_values


def _move(support: RefTSupport, device: torch.device, dtype: torch.dtype) -> RefTSupport:
    class_mask, object_query_mask = support.class_mask, support.object_query_mask
    return RefTSupport(
        tuple(centers.to(device, dtype) for centers in support.class_centers),
        None if class_mask is None else class_mask.to(device),
        support.object_queries.to(device, dtype),
        None if object_query_mask is None else object_query_mask.to(device),
        support.prototypes.to(device, dtype),
    )


class RefTForFewShotInstanceSegmentation(
    SupportRegistration, IncrementalLearning, FromMask2Former, RefTPreTrainedModel
):
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
        self._teacher: tuple[nn.Module, RefTSupportMemory | None] | None = None
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
            support_pixel_values (`torch.FloatTensor`, *optional*): support crops, of shape
                `([batch_size,] num_ways, num_shots, 3, h, w)`.
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
        if config.classifier != "prototype":
            check_class_ids(support_class_ids, num_classes)
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
            check_labels(pixel_values, mask_labels, class_labels, num_classes)
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
            return int(self.config.num_labels)
        if outputs.prototypes is None:
            raise ValueError(
                "`support_pixel_values` or `support_memory` must be given to a prototype classifier: its classes are "
                "those of the support."
            )
        return outputs.prototypes.shape[1]

    def _classify(self, object_queries: torch.Tensor, outputs: RefTModelOutput) -> torch.Tensor:
        if self.config.classifier == "prototype":
            return self.class_predictor(object_queries, outputs.prototypes, outputs.prototypes.any(-1))
        return self.class_predictor(object_queries)


__all__ = ["RefTForFewShotInstanceSegmentation", "RefTModel", "RefTPreTrainedModel"]
