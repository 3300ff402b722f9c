"""Weights of transformers' plain vision transformers (ViT, ViTMAE, DeiT) as a [`TinyMimModel`], and back again."""

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from .configuration_tinymim import TinyMimConfig
from .modeling_tinymim import TinyMimModel


LAYER_PARTS = {
    "layernorm_before": "layernorm_before",
    "attention.o_proj": "attention.output",
    "layernorm_after": "layernorm_after",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}


def _get_encoder(model: nn.Module) -> nn.Module:
    return getattr(model, getattr(model, "base_model_prefix", ""), model)


def build_config_from_vit(config: Any, **fields: Any) -> TinyMimConfig:
    """Configuration of the [`TinyMimModel`] that computes what a ViT, ViTMAE or DeiT does.

    Args:
        config (`ViTConfig`, `ViTMAEConfig` or `DeiTConfig`): of the model.
        fields: further fields of [`TinyMimConfig`].
    """
    return TinyMimConfig(
        **{
            "image_size": config.image_size,
            "patch_size": config.patch_size,
            "num_channels": config.num_channels,
            "hidden_size": config.hidden_size,
            "num_hidden_layers": config.num_hidden_layers,
            "num_attention_heads": config.num_attention_heads,
            "intermediate_size": config.intermediate_size,
            "hidden_act": config.hidden_act,
            "qkv_bias": config.qkv_bias,
            "layer_norm_eps": config.layer_norm_eps,
            "use_distillation_token": config.model_type == "deit",
            **fields,
        }
    )


@torch.no_grad()
def from_vit(model: PreTrainedModel, **fields: Any) -> TinyMimModel:
    """The encoder of a ViT, ViTMAE or DeiT as a [`TinyMimModel`] with a copy of its weights.

    A decoder, a head and a pooler are left out.

    Args:
        model (`PreTrainedModel`): of transformers, with or without a head.
        fields: further fields of the configuration, such as `feature_layer`.

    Raises:
        ValueError: If the model is no plain vision transformer.
    """
    encoder = _get_encoder(model)
    if not hasattr(encoder, "layers") or not hasattr(encoder.layers[0], "layernorm_before"):
        raise ValueError(f"`model` must be a ViT, ViTMAE or DeiT of transformers; got {type(model).__name__}.")
    converted = TinyMimModel(build_config_from_vit(encoder.config, **fields))
    converted.load_state_dict(convert_vit_state_dict(encoder.state_dict()))
    return converted.to(encoder.dtype).train(model.training)


def convert_vit_state_dict(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Names and fused projections of a [`TinyMimModel`] for the weights of an encoder of transformers."""
    converted = {
        "embeddings.cls_token": weights["embeddings.cls_token"],
        "embeddings.position_embeddings": weights["embeddings.position_embeddings"],
    }
    if "embeddings.distillation_token" in weights:
        converted["embeddings.distillation_token"] = weights["embeddings.distillation_token"]
    for kind in ("weight", "bias"):
        converted[f"embeddings.patch_embeddings.{kind}"] = weights[f"embeddings.patch_embeddings.projection.{kind}"]
        converted[f"layernorm.{kind}"] = weights[f"layernorm.{kind}"]
    num_layers = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("layers."))
    for index in range(num_layers):
        layer = f"layers.{index}."
        for kind in ("weight", "bias"):
            for theirs, ours in LAYER_PARTS.items():
                converted[f"{layer}{ours}.{kind}"] = weights[f"{layer}{theirs}.{kind}"]
            parts = [weights.get(f"{layer}attention.{name}_proj.{kind}") for name in "qkv"]
            if parts[0] is not None:
                converted[f"{layer}attention.qkv.{kind}"] = torch.cat(parts)
    return converted


__all__ = ["build_config_from_vit", "convert_vit_state_dict", "from_vit"]
