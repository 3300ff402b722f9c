"""NewMethod: the idea of the paper in three lines.

Paper: NEW_PAPER. This starts as a small vision transformer; replace it part by part. List what differs from the
authors' code, and the field of the configuration that restores it.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPooling, ImageClassifierOutput
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from ..shared.attention import eager_attention_forward
from .configuration_new_method import NewMethodConfig


class NewMethodEmbeddings(nn.Module):
    """Patches and their positions: `(batch_size, num_patches, hidden_size)`."""

    def __init__(self, config: NewMethodConfig):
        super().__init__()
        self.patch_embeddings = nn.Conv2d(
            config.num_channels, config.hidden_size, config.patch_size, config.patch_size
        )
        self.position_embeddings = nn.Parameter(torch.zeros(1, config.num_patches, config.hidden_size))

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.patch_embeddings(pixel_values).flatten(2).transpose(1, 2) + self.position_embeddings


class NewMethodAttention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, config: NewMethodConfig):
        super().__init__()
        self.config = config
        self.num_heads = config.num_attention_heads
        self.is_causal = False
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.output = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
        query, key, value = (
            states.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for states in self.qkv(hidden_states).chunk(3, dim=-1)
        )  # (batch_size, num_heads, num_patches, head_dim)
        attend: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        dropout = self.config.attention_probs_dropout_prob if self.training else 0.0
        scaling = query.shape[-1] ** -0.5
        attended, weights = attend(self, query, key, value, None, scaling=scaling, dropout=dropout, **kwargs)
        return self.output(attended.flatten(2)), weights


class NewMethodLayer(GradientCheckpointingLayer):
    """Attention and MLP, each after a layer norm, on a residual stream."""

    def __init__(self, config: NewMethodConfig):
        super().__init__()
        self.layernorm_before = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = NewMethodAttention(config)
        self.layernorm_after = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = ACT2FN[config.hidden_act]
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        attended, _ = self.attention(self.layernorm_before(hidden_states), **kwargs)
        hidden_states = hidden_states + attended
        return hidden_states + self.fc2(self.activation(self.fc1(self.layernorm_after(hidden_states))))


class NewMethodPreTrainedModel(PreTrainedModel):
    """Initialization, loading and what transformers needs to know about NewMethod."""

    config: NewMethodConfig
    config_class = NewMethodConfig
    base_model_prefix = "new_method"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False  # the loss is a mean over one batch; `Trainer` divides it by the accumulated batches
    _no_split_modules = ["NewMethodEmbeddings", "NewMethodLayer"]
    _input_embed_layer = "patch_embeddings"
    _supports_sdpa = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": NewMethodLayer, "attentions": NewMethodAttention}

    @torch.no_grad()
    def _init_weights(self, module):
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            init.trunc_normal_(module.weight, std=self.config.initializer_range)
            init.zeros_(module.bias)
        elif isinstance(module, NewMethodEmbeddings):
            init.trunc_normal_(module.position_embeddings, std=self.config.initializer_range)
        else:
            super()._init_weights(module)


class NewMethodModel(NewMethodPreTrainedModel):
    """The network without a head."""

    def __init__(self, config: NewMethodConfig):
        super().__init__(config)
        self.embeddings = NewMethodEmbeddings(config)
        self.layers = nn.ModuleList(NewMethodLayer(config) for _ in range(config.num_hidden_layers))
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(self, pixel_values: torch.FloatTensor | None = None, **kwargs: Any) -> BaseModelOutputWithPooling:
        """Features of images.

        Args:
            pixel_values (`torch.FloatTensor` of shape `(batch_size, num_channels, height, width)`): Normalized pixels.
            kwargs: `output_hidden_states`, `output_attentions` and `return_dict`.

        Returns:
            [`~transformers.modeling_outputs.BaseModelOutputWithPooling`] with `last_hidden_state` of shape
            `(batch_size, num_patches, hidden_size)` and `pooler_output`, its mean over patches.

        Raises:
            ValueError: If `pixel_values` are missing or their shape does not fit the configuration.
        """
        config = self.config
        wanted = (config.num_channels, config.image_size, config.image_size)
        if pixel_values is None or tuple(pixel_values.shape[1:]) != wanted:
            given = None if pixel_values is None else tuple(pixel_values.shape)
            raise ValueError(
                f"`pixel_values` must have shape (batch_size, {', '.join(map(str, wanted))}); got {given}."
            )
        hidden_states = self.embeddings(pixel_values.to(self.embeddings.patch_embeddings.weight.dtype))
        for layer in self.layers:
            hidden_states = layer(hidden_states, **kwargs)
        hidden_states = self.layernorm(hidden_states)
        return BaseModelOutputWithPooling(last_hidden_state=hidden_states, pooler_output=hidden_states.mean(1))


class NewMethodForImageClassification(NewMethodPreTrainedModel):
    """The network with a linear classifier on the mean of its tokens."""

    def __init__(self, config: NewMethodConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.new_method = NewMethodModel(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        **kwargs: Any,
    ) -> ImageClassifierOutput:
        """Class scores of images.

        Args:
            pixel_values (`torch.FloatTensor` of shape `(batch_size, num_channels, height, width)`): Normalized pixels.
            labels (`torch.LongTensor` of shape `(batch_size,)`, *optional*): Class ids in `[0, num_labels)`; other
                labels as `config.problem_type` says.
            kwargs: As in [`NewMethodModel`].

        Returns:
            [`~transformers.modeling_outputs.ImageClassifierOutput`] with `loss` if `labels` are given, and `logits`
            of shape `(batch_size, num_labels)`.

        Raises:
            ValueError: If `pixel_values` or `labels` do not fit.
        """
        kwargs["return_dict"] = True
        outputs = self.new_method(pixel_values, **kwargs)
        logits = self.classifier(outputs.pooler_output)
        if labels is not None and len(labels) != len(logits):
            raise ValueError(f"`labels` must have one row per image ({len(logits)}); got {len(labels)}.")
        loss = None if labels is None else self.loss_function(labels, logits, self.config)
        return ImageClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


__all__ = ["NewMethodForImageClassification", "NewMethodModel", "NewMethodPreTrainedModel"]
