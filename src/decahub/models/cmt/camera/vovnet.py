"""VoVNet: blocks that concatenate the outputs of a chain of convolutions, each with a channel gate ("eSE").

Papers: "An Energy and GPU-Computation Efficient Backbone Network", arXiv 1904.09730, and "CenterMask", arXiv
1911.06667. The gate is on every block, as in the authors' code, whose switch for it is never read.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import initialization as init
from transformers.backbone_utils import BackboneMixin, filter_output_hidden_states
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BackboneOutput
from transformers.modeling_utils import PreTrainedModel
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from ...shared.checks import refuse_unknown_inputs
from ..configuration_cmt import CmtVovNetConfig


class CmtVovNetConvolution(nn.Module):
    """Convolution, batch norm, ReLU; a depth-wise convolution before it makes it separable."""

    def __init__(
        self,
        config: CmtVovNetConfig,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        is_separable: bool = False,
    ):
        super().__init__()
        geometry = {"stride": stride, "padding": kernel_size // 2, "bias": False}
        self.depthwise = None
        if is_separable:
            self.depthwise = nn.Conv2d(in_channels, in_channels, kernel_size, groups=in_channels, **geometry)
            kernel_size, geometry = 1, {"bias": False}
        self.convolution = nn.Conv2d(in_channels, out_channels, kernel_size, **geometry)
        self.normalization = nn.BatchNorm2d(out_channels, eps=config.batch_norm_eps)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        if self.depthwise is not None:
            hidden_states = self.depthwise(hidden_states)
        return functional.relu(self.normalization(self.convolution(hidden_states)))


class CmtVovNetGate(nn.Module):
    r"""Effective squeeze and excitation: scales channels by a hard sigmoid of their means.

    $x \cdot \mathrm{ReLU6}(W \bar x + b + 3) / 6$ with $\bar x$ the mean over the map.
    """

    def __init__(self, num_channels: int):
        super().__init__()
        self.projection = nn.Conv2d(num_channels, num_channels, 1)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        weights = self.projection(hidden_states.mean((2, 3), keepdim=True))
        return hidden_states * functional.hardsigmoid(weights)


class CmtVovNetBlock(GradientCheckpointingLayer):
    """One-shot aggregation: input and outputs of a chain of convolutions are concatenated once and projected.

    Blocks after the first of a stage add their input to the result.
    """

    def __init__(self, config: CmtVovNetConfig, stage: int, block: int):
        super().__init__()
        size, layer_size = config.hidden_sizes[stage], config.layer_sizes[stage]
        in_channels = size
        if block == 0:
            in_channels = config.stem_sizes[-1] if stage == 0 else config.hidden_sizes[stage - 1]
        self.has_skip = block > 0
        chain_size = in_channels
        self.reduction = None
        if config.use_depthwise and in_channels != layer_size:
            # Only the chain takes the reduced map; the concatenation keeps the whole input.
            self.reduction = CmtVovNetConvolution(config, in_channels, layer_size, kernel_size=1)
            chain_size = layer_size
        self.layers = nn.ModuleList(
            CmtVovNetConvolution(
                config, chain_size if layer == 0 else layer_size, layer_size, is_separable=config.use_depthwise
            )
            for layer in range(config.num_layers_per_block)
        )
        concatenated_size = in_channels + config.num_layers_per_block * layer_size
        self.projection = CmtVovNetConvolution(config, concatenated_size, size, kernel_size=1)
        self.gate = CmtVovNetGate(size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        block_input = hidden_states
        collected = [hidden_states]
        if self.reduction is not None:
            hidden_states = self.reduction(hidden_states)
        for layer in self.layers:
            hidden_states = layer(hidden_states)
            collected.append(hidden_states)
        hidden_states = self.gate(self.projection(torch.cat(collected, dim=1)))
        return hidden_states + block_input if self.has_skip else hidden_states


class CmtVovNetStem(nn.Module):
    """Three convolutions, of which the first and the last have stride 2."""

    def __init__(self, config: CmtVovNetConfig):
        super().__init__()
        sizes = [config.num_channels, *config.stem_sizes]
        self.layers = nn.ModuleList(
            CmtVovNetConvolution(
                config,
                sizes[layer],
                sizes[layer + 1],
                stride=1 if layer == 1 else 2,
                is_separable=config.use_depthwise and layer > 0,
            )
            for layer in range(len(config.stem_sizes))
        )

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            hidden_states = layer(hidden_states)
        return hidden_states


class CmtVovNetStage(nn.Module):
    """Blocks of one resolution; all stages but the first halve the map, rounded up where a window fits half."""

    def __init__(self, config: CmtVovNetConfig, stage: int):
        super().__init__()
        self.pooling = nn.MaxPool2d(3, stride=2, ceil_mode=True) if stage > 0 else None
        self.blocks = nn.ModuleList(CmtVovNetBlock(config, stage, block) for block in range(config.depths[stage]))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        if self.pooling is not None:
            hidden_states = self.pooling(hidden_states)
        for block in self.blocks:
            hidden_states = block(hidden_states)
        return hidden_states


class CmtVovNetPreTrainedModel(PreTrainedModel):
    """Weights, loading and saving of VoVNet."""

    config: CmtVovNetConfig
    config_class = CmtVovNetConfig
    main_input_name = "pixel_values"
    accepts_loss_kwargs = False  # it has no loss
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    _no_split_modules = ["CmtVovNetStem", "CmtVovNetBlock"]
    _input_embed_layer = "stem"
    _can_record_outputs = {"hidden_states": OutputRecorder(CmtVovNetStage)}

    @torch.no_grad()
    def _init_weights(self, module):
        if isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
            if module.bias is not None:
                init.zeros_(module.bias)
        else:
            super()._init_weights(module)


class CmtVovNetBackbone(BackboneMixin, CmtVovNetPreTrainedModel):
    """VoVNet as a backbone; `stage3` and `stage4` (strides 16 and 32) are what CMT uses.

    Args:
        config ([`CmtVovNetConfig`]): `out_features` or `out_indices` choose the maps.
    """

    def __init__(self, config: CmtVovNetConfig):
        super().__init__(config)
        self.stem = CmtVovNetStem(config)
        self.stages = nn.ModuleList(CmtVovNetStage(config, stage) for stage in range(len(config.depths)))
        self.num_features = [config.stem_sizes[-1], *config.hidden_sizes]
        self.post_init()

    @can_return_tuple
    @filter_output_hidden_states
    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(self, pixel_values: torch.FloatTensor, **kwargs: Any) -> BackboneOutput:
        """Feature maps of images.

        Args:
            pixel_values (`torch.FloatTensor` of shape `(batch_size, num_channels, height, width)`): normalized pixels.
            kwargs: `output_hidden_states` and `return_dict`.

        Returns:
            [`~transformers.modeling_outputs.BackboneOutput`] with `feature_maps`, one tensor of shape
            `(batch_size, channels, height / stride, width / stride)` for each of `out_features`; the stem has stride
            4, the stages 4, 8, 16 and 32.

        Raises:
            ValueError: If `pixel_values` has another shape.
        """
        refuse_unknown_inputs(self, kwargs)
        if pixel_values.ndim != 4 or pixel_values.shape[1] != self.config.num_channels:
            raise ValueError(
                f"`pixel_values` must have shape (batch_size, {self.config.num_channels}, height, width); got "
                f"{tuple(pixel_values.shape)}."
            )
        hidden_states = self.stem(pixel_values.to(self.stem.layers[0].convolution.weight.dtype))
        feature_maps = [hidden_states]
        for stage in self.stages:
            hidden_states = stage(hidden_states)
            feature_maps.append(hidden_states)
        named = zip(self.stage_names, feature_maps, strict=True)
        return BackboneOutput(feature_maps=tuple(maps for name, maps in named if name in self.out_features))


__all__ = ["CmtVovNetBackbone", "CmtVovNetPreTrainedModel"]
