"""How the weights of TinyMIM begin, as in the authors' code."""

import math

from torch import nn
from transformers import initialization as init

from .configuration_tinymim import TinyMimConfig
from .decode_heads import TinyMimPixelClassifier
from .decoder import TinyMimDecoder
from .layers import TinyMimAttention, TinyMimClassifier, TinyMimEmbeddings, TinyMimLayer
from .position_embeddings import build_position_embeddings
from .relative_position import build_relative_position_index


TOKEN_STD = 0.02
CLASSIFIER_STD = 2e-5
PIXEL_CLASSIFIER_STD = 0.01


def init_layer(module: nn.Module) -> bool:
    """Initialize a layer of torch; whether it is one that the authors initialize in their own way."""
    if isinstance(module, TinyMimClassifier):
        init.trunc_normal_(module.weight, std=CLASSIFIER_STD)
        init.zeros_(module.bias)
    elif isinstance(module, TinyMimPixelClassifier):
        init.normal_(module.weight, std=PIXEL_CLASSIFIER_STD)
        init.zeros_(module.bias)
    elif isinstance(module, nn.Linear):
        init.xavier_uniform_(module.weight)
        if module.bias is not None:
            init.zeros_(module.bias)
    elif isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        # torch's own initialization, with which the authors train the convolutions of their pyramid.
        init.kaiming_uniform_(module.weight, a=5**0.5)
        if module.bias is not None:
            bound = module.weight[0].numel() ** -0.5
            init.uniform_(module.bias, -bound, bound)
    else:
        return False
    return True


def init_parameters(module: nn.Module, config: TinyMimConfig) -> None:
    """What belongs to no layer of torch, and layers whose initialization depends on their place."""
    if isinstance(module, TinyMimEmbeddings):
        _init_embeddings(module, config)
    elif isinstance(module, TinyMimAttention) and module.relative_position_bias_table is not None:
        init.zeros_(module.relative_position_bias_table)
        index = build_relative_position_index(config.grid_size, config.num_prefix_tokens)
        init.copy_(module.relative_position_index, index)
    elif isinstance(module, TinyMimLayer) and module.layer_scale_attention is not None:
        init.constant_(module.layer_scale_attention, config.layer_scale_init_value)
        init.constant_(module.layer_scale_mlp, config.layer_scale_init_value)
    elif isinstance(module, TinyMimDecoder):
        init.normal_(module.mask_token, std=TOKEN_STD)
        _init_positions(module.position_embeddings, config)


def _init_embeddings(module: TinyMimEmbeddings, config: TinyMimConfig) -> None:
    init.normal_(module.cls_token, std=TOKEN_STD)
    if module.distillation_token is not None:
        init.normal_(module.distillation_token, std=TOKEN_STD)
    _init_positions(module.position_embeddings, config)
    # Xavier of the matrix that the convolution is: pixels of a patch to its token.
    weight = module.patch_embeddings.weight
    bound = math.sqrt(6 / (weight.shape[0] + weight[0].numel()))
    init.uniform_(weight, -bound, bound)


def _init_positions(table: nn.Parameter, config: TinyMimConfig) -> None:
    init.copy_(table, build_position_embeddings(table.shape[-1], config.grid_size, config.num_prefix_tokens))


__all__ = ["init_layer", "init_parameters"]
