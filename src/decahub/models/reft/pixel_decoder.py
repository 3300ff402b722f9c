"""Mask2Former's pixel decoder with a faster deformable attention, and with padding hidden on request.

Weights and numbers are those of transformers' module; the layout is another. Tokens are the innermost axis, so that
softmax, products and sums over the few sampling points run over contiguous memory.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import Mask2FormerConfig
from transformers.backbone_utils import load_backbone
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.mask2former.modeling_mask2former import (
    Mask2FormerPixelDecoder,
    Mask2FormerPixelDecoderEncoderLayer,
    Mask2FormerPixelDecoderEncoderMultiscaleDeformableAttention,
    Mask2FormerPixelLevelModule,
)


Sizes = list[tuple[int, int]]


class RefTDeformableAttention(Mask2FormerPixelDecoderEncoderMultiscaleDeformableAttention):
    r"""Multi-scale deformable attention: each token reads a few learned points of each map.

    $$ y_i = W_o \, \mathrm{concat}_h \sum_{l,p} a_{ihlp} \, (W_v x)_{h,l}(r_{il} + \Delta_{ihlp}) $$

    with $a$ a softmax over the points of all levels. Deformable DETR, equation 3.
    """

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        encoder_hidden_states: torch.Tensor | None = None,
        position_embeddings: torch.Tensor | None = None,
        reference_points: torch.Tensor | None = None,
        spatial_shapes_list: Sizes | None = None,
        output_attentions: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        batch_size, num_tokens, hidden_size = hidden_states.shape
        shape = (batch_size * self.n_heads, self.n_levels, self.n_points)
        values = _project(self.value_proj, encoder_hidden_states)  # (batch, hidden, tokens)
        if attention_mask is not None:
            values = values.masked_fill(attention_mask[:, None], 0.0)
        if position_embeddings is not None:
            hidden_states = hidden_states + position_embeddings
        offsets = _project(self.sampling_offsets, hidden_states).view(*shape, 2, num_tokens)
        weights = _project(self.attention_weights, hidden_states).view(shape[0], -1, num_tokens)
        weights = weights.softmax(1).view(*shape, num_tokens)

        levels = values.split([height * width for height, width in spatial_shapes_list], dim=-1)
        output = torch.zeros((), dtype=values.dtype, device=values.device)
        for level, (height, width) in enumerate(spatial_shapes_list):
            # Pixels of the map -> the [-1, 1] of grid_sample.
            scale = offsets.new_tensor([2 / width, 2 / height]).view(2, 1)
            centers = 2 * reference_points[:, :, level].transpose(1, 2) - 1  # (batch, 2, tokens)
            centers = centers[:, None, None].expand(-1, self.n_heads, 1, -1, -1).flatten(0, 1)
            grid = torch.addcmul(centers, offsets[:, level], scale).movedim(2, -1)  # (.., points, tokens, 2)
            feature_map = levels[level].reshape(shape[0], hidden_size // self.n_heads, height, width)
            sampled = F.grid_sample(feature_map, grid, align_corners=False)
            output = output + (sampled * weights[:, None, level]).sum(2)
        output = output.view(batch_size, hidden_size, num_tokens).transpose(1, 2)
        attentions = None
        if output_attentions:
            attentions = weights.view(batch_size, self.n_heads, self.n_levels, self.n_points, num_tokens)
            attentions = attentions.permute(0, 4, 1, 2, 3)  # as transformers returns them
        return self.output_proj(output), attentions


def _project(linear: nn.Linear, hidden_states: torch.Tensor) -> torch.Tensor:
    """Output of a linear layer with tokens last: `(batch_size, out_features, tokens)`, contiguous."""
    return linear(hidden_states).transpose(1, 2).contiguous()


class RefTPixelDecoderLayer(GradientCheckpointingLayer, Mask2FormerPixelDecoderEncoderLayer):
    """Deformable attention and a feed-forward network."""

    def __init__(self, config: Mask2FormerConfig):
        super().__init__(config)
        attention = self.self_attn
        self.self_attn = RefTDeformableAttention(
            attention.d_model, attention.n_heads, attention.n_levels, attention.n_points
        )


class RefTPixelDecoder(Mask2FormerPixelDecoder):
    """Feature maps of strides 32, 16 and 8, and mask features of stride 4."""

    def __init__(self, config: Mask2FormerConfig, feature_channels: list[int]):
        super().__init__(config, feature_channels)
        self.encoder.layers = nn.ModuleList(RefTPixelDecoderLayer(config) for _ in range(config.encoder_layers))

    def project_inputs(self, features: list[torch.Tensor]) -> list[torch.Tensor]:
        """Maps of the backbone in the decoder's width, coarse to fine: what incremental learning distills."""
        return [
            projection(feature_map)
            for projection, feature_map in zip(self.input_projections, features[::-1], strict=False)
        ]

    def forward(
        self, features: list[torch.Tensor], pixel_mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
        """Decodes the maps of the backbone.

        Args:
            features (`list[torch.Tensor]`): maps of strides 4 to 32.
            pixel_mask (`torch.Tensor` of shape `(batch_size, height, width)`, *optional*): 0 where a pixel is padding
                that must not be attended to.

        Returns:
            Mask features; the three maps, coarse to fine; the three projected inputs, coarse to fine.
        """
        projected = self.project_inputs(features)
        sizes = [tuple(feature_map.shape[-2:]) for feature_map in projected]
        paddings = [_shrink_padding(pixel_mask, feature_map) for feature_map in projected]
        positions = [
            self.position_embedding(feature_map.shape, feature_map.device, feature_map.dtype, visible)
            .flatten(2)
            .transpose(1, 2)
            + self.level_embed[level]
            for level, (feature_map, visible) in enumerate(
                zip(projected, [None if pixel_mask is None else ~padding for padding in paddings], strict=True)
            )
        ]
        valid_ratios = torch.stack(
            [self.get_valid_ratio(padding, dtype=projected[0].dtype) for padding in paddings], dim=1
        )
        hidden_states = torch.cat([feature_map.flatten(2).transpose(1, 2) for feature_map in projected], dim=1)
        reference_points = self.encoder.get_reference_points(sizes, valid_ratios, hidden_states.device)
        attention_mask = None
        if pixel_mask is not None:
            attention_mask = torch.cat([padding.flatten(1) for padding in paddings], dim=1)
        position_embeddings = torch.cat([tokens.expand(hidden_states.shape[0], -1, -1) for tokens in positions], dim=1)
        for layer in self.encoder.layers:
            (hidden_states,) = layer(
                hidden_states,
                attention_mask,
                position_embeddings=position_embeddings,
                reference_points=reference_points,
                spatial_shapes_list=sizes,
            )
        maps = [
            tokens.transpose(1, 2).reshape(tokens.shape[0], -1, height, width)
            for tokens, (height, width) in zip(
                hidden_states.split([height * width for height, width in sizes], dim=1), sizes, strict=True
            )
        ]
        finest = maps[-1]
        for feature_map, lateral, output in zip(
            features[: self.num_fpn_levels][::-1], self.lateral_convolutions, self.output_convolutions, strict=True
        ):
            lateral_map = lateral(feature_map)
            finest = F.interpolate(finest, size=lateral_map.shape[-2:], mode="bilinear", align_corners=False)
            finest = output(lateral_map + finest)
        return self.mask_projection(finest), tuple(maps), tuple(projected)


def _shrink_padding(pixel_mask: torch.Tensor | None, feature_map: torch.Tensor) -> torch.Tensor:
    """Whether a pixel of a map is padding, `(batch_size, height, width)`."""
    batch_size, _, height, width = feature_map.shape
    if pixel_mask is None:
        return torch.zeros((batch_size, height, width), dtype=torch.bool, device=feature_map.device)
    visible = F.adaptive_max_pool2d(pixel_mask[:, None].to(feature_map.dtype), (height, width))
    return visible[:, 0] == 0


class RefTPixelLevelModule(Mask2FormerPixelLevelModule):
    """Backbone and pixel decoder."""

    def __init__(self, config: Mask2FormerConfig):
        nn.Module.__init__(self)  # that of transformers would build a decoder that is thrown away
        self.encoder = load_backbone(config)
        self.decoder = RefTPixelDecoder(config, self.encoder.channels)

    def forward(
        self, pixel_values: torch.Tensor, pixel_mask: torch.Tensor | None = None
    ) -> tuple[list[torch.Tensor], torch.Tensor, tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
        """Maps of the backbone, mask features, feature maps and projected inputs; see [`RefTPixelDecoder`]."""
        # Convolutions are faster with channels last; torch's group norm is then less exact by a factor of ten.
        features = self.encoder(pixel_values.contiguous(memory_format=torch.channels_last)).feature_maps
        features = [feature_map.contiguous() for feature_map in features]
        return (features, *self.decoder(features, pixel_mask))


__all__ = ["RefTDeformableAttention", "RefTPixelDecoder", "RefTPixelLevelModule"]
