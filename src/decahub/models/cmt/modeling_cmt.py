"""CMT finds 3D boxes from cameras, LiDAR, or both (arXiv 2301.01283).

Tokens of images and of the bird's-eye view form one memory. Each has a position in 3D, and so has each query, by its
anchor; a plain DETR decoder does the rest. Without suppression of overlaps, each query is a box.

Different from the authors' code: a sensor that is missing may be left out instead of being shown as zeros
(`missing_modality`), an empty cloud or a batch without boxes is no error, NaN stops a training, and class scores of a
new model start low as the authors meant them to (`prior_bias=False` for theirs).
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoBackbone, PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from ..shared.checks import can_look_at, refuse_unknown_inputs
from .boxes.coder import Detections, select_detections
from .boxes.denoising import DenoisingQueries, build_denoising_queries
from .boxes.geometry import BOX_SIZE
from .boxes.loss import CmtLoss
from .camera.image_neck import CmtImageNeck
from .camera.vovnet import CmtVovNetBackbone
from .configuration_cmt import CmtConfig, CmtVovNetConfig
from .head.decoder import CmtAttention, CmtDecoder, CmtDecoderLayer
from .head.position_encoding import (
    CmtPositionMlp,
    build_pixel_grid,
    compute_depths,
    encode_bev_grid,
    encode_ground_points,
    encode_rays,
    inverse_sigmoid,
    invert_projections,
    project_points,
)
from .head.task_heads import CmtHeadBranch, CmtTaskHead
from .lidar.backbone import CmtLidarBackbone


RAY_EXPANSION = 4  # width of the ray encoder's hidden layer in hidden sizes
PRIOR_BIAS = -2.19  # logit of 0.1, rounded as by the authors


@dataclass
class CmtModelOutput(ModelOutput):
    """Output of [`CmtModel`].

    Args:
        last_hidden_state (`torch.FloatTensor` of shape `(batch_size, num_queries, hidden_size)`): states of the queries
            after the last layer and the norm. Denoising queries, if there are any, come first, here and below.
        intermediate_hidden_states (`torch.FloatTensor` of shape `(num_layers, batch_size, num_queries, hidden_size)`):
            the same after each layer.
        reference_points (`torch.FloatTensor` of shape `(batch_size, num_queries, 3)`): anchors of the queries, x, y, z
            relative to the range.
        hidden_states (`tuple(torch.FloatTensor)`, *optional*): input and output of each layer, without the last norm.
        attentions (`tuple(torch.FloatTensor)`, *optional*): self-attention of the queries in each layer.
        cross_attentions (`tuple(torch.FloatTensor)`, *optional*): attention to the tokens, those of the bird's-eye view
            first.
    """

    last_hidden_state: torch.FloatTensor | None = None
    intermediate_hidden_states: torch.FloatTensor | None = None
    reference_points: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None
    cross_attentions: tuple[torch.FloatTensor, ...] | None = None


@dataclass
class CmtObjectDetection3DOutput(ModelOutput):
    """Output of [`CmtForObjectDetection3D`]; `post_process_object_detection_3d` of the processor reads it.

    Args:
        loss (`torch.FloatTensor` of shape `()`, *optional*): sum of the terms.
        loss_dict (`dict[str, torch.FloatTensor]`, *optional*): terms by name: `loss_cls` and `loss_bbox` of the last
            layer, `d0.loss_cls`, ... of the others, `dn_...` of denoising queries.
        logits (`torch.FloatTensor` of shape `(num_layers, batch_size, num_queries, num_labels)`): class scores of each
            layer; the last is the prediction.
        pred_boxes (`torch.FloatTensor` of shape `(num_layers, batch_size, num_tasks * num_queries, 10)`): coded boxes
            in the slots of `config.box_slot_order`, those of the first task first.
        denoising_logits (`torch.FloatTensor` of shape `(num_layers, batch_size, num_slots, num_labels)`, *optional*):
            scores of denoising queries, in training.
        denoising_boxes (`torch.FloatTensor` of shape `(num_layers, batch_size, num_tasks * num_slots, 10)`,
            *optional*): their boxes.
        last_hidden_state (`torch.FloatTensor` of shape `(batch_size, num_queries, hidden_size)`): as in
            [`CmtModelOutput`], with the three below.
        hidden_states, attentions, cross_attentions (`tuple(torch.FloatTensor)`, *optional*): on request.
    """

    loss: torch.FloatTensor | None = None
    loss_dict: dict[str, torch.FloatTensor] | None = None
    logits: torch.FloatTensor | None = None
    pred_boxes: torch.FloatTensor | None = None
    denoising_logits: torch.FloatTensor | None = None
    denoising_boxes: torch.FloatTensor | None = None
    last_hidden_state: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None
    cross_attentions: tuple[torch.FloatTensor, ...] | None = None
