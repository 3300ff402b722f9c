"""Outputs of RefT's models: those of Mask2Former under their names, and what the references add."""

from dataclasses import dataclass

import torch
from transformers.models.mask2former.modeling_mask2former import (
    Mask2FormerForUniversalSegmentationOutput,
    Mask2FormerModelOutput,
)


@dataclass
class RefTModelOutput(Mask2FormerModelOutput):
    """Output of [`RefTModel`]; what is not listed is as in [`~transformers.Mask2FormerModel`].

    Args:
        masks_queries_logits (`tuple(torch.FloatTensor)` of shape `(batch_size, num_queries, height / 4, width / 4)`):
            of the initial object queries and of each layer; the last is the final prediction.
        transformer_decoder_intermediate_states (`tuple(torch.FloatTensor)` of shape
            `(num_queries, batch_size, hidden_dim)`): normalized states of the initial object queries and of each
            layer.
        object_queries (`torch.FloatTensor` of shape `(batch_size, num_queries, hidden_dim)`): the last of them,
            enhanced by the support where there is one.
        class_centers (`tuple(torch.FloatTensor)` of shape `(batch_size or 1, num_ways, feature_size)`): centers of
            the support classes at each level, coarse to fine.
        support_object_queries (`torch.FloatTensor` of shape `(batch_size or 1, num_ways, num_tokens, hidden_dim)`):
            selected object queries of all shots.
        prototypes (`torch.FloatTensor` of shape `(batch_size or 1, num_ways, hidden_dim)`): means of the normalized
            first ones; zeros for a class without valid shots.
        projected_hidden_states (`tuple(torch.FloatTensor)`): inputs of the pixel decoder in its width, coarse to fine,
            which distillation compares.
        referenced_hidden_states (`tuple(torch.FloatTensor)`): maps that the decoder attends to, coarse to fine.
        feature_attentions (`tuple(torch.FloatTensor)`, returned with `output_attentions`): weights of shape
            `(batch_size, num_heads, pixels, num_ways)` for each level.
        query_attentions (`torch.FloatTensor`, returned with `output_attentions`): weights of shape
            `(batch_size, num_heads, num_queries, num_ways * num_tokens)`.
    """

    object_queries: torch.FloatTensor | None = None
    class_centers: tuple[torch.FloatTensor, ...] | None = None
    support_object_queries: torch.FloatTensor | None = None
    prototypes: torch.FloatTensor | None = None
    projected_hidden_states: tuple[torch.FloatTensor, ...] | None = None
    referenced_hidden_states: tuple[torch.FloatTensor, ...] | None = None
    feature_attentions: tuple[torch.FloatTensor, ...] | None = None
    query_attentions: torch.FloatTensor | None = None


@dataclass
class RefTForFewShotInstanceSegmentationOutput(Mask2FormerForUniversalSegmentationOutput):
    """Output of [`RefTForFewShotInstanceSegmentation`]; `post_process_instance_segmentation` reads it.

    Args:
        loss (`torch.FloatTensor` of shape `()`, returned with labels): sum of `loss_dict`.
        class_queries_logits (`torch.FloatTensor` of shape `(batch_size, num_queries, num_labels + 1)`): the last
            column is no object. With the prototype classifier there is a column for each support class instead.
        masks_queries_logits (`torch.FloatTensor` of shape `(batch_size, num_queries, height / 4, width / 4)`): masks.
        auxiliary_logits (`list[dict[str, torch.FloatTensor]]`, returned with `output_auxiliary_logits`): predictions
            of the layers before the last.
        loss_dict (`dict[str, torch.FloatTensor]`, returned with labels): weighted terms of the loss.
        class_centers (`tuple(torch.FloatTensor)`): as in [`RefTModelOutput`].
        support_object_queries (`torch.FloatTensor`): as in [`RefTModelOutput`].
        feature_attentions (`tuple(torch.FloatTensor)`): as in [`RefTModelOutput`].
        query_attentions (`torch.FloatTensor`): as in [`RefTModelOutput`].
    """

    loss_dict: dict[str, torch.FloatTensor] | None = None
    class_centers: tuple[torch.FloatTensor, ...] | None = None
    support_object_queries: torch.FloatTensor | None = None
    feature_attentions: tuple[torch.FloatTensor, ...] | None = None
    query_attentions: torch.FloatTensor | None = None


__all__ = ["RefTForFewShotInstanceSegmentationOutput", "RefTModelOutput"]
