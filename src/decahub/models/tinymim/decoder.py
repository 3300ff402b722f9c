"""Reconstruction of hidden patches beside a distillation: masking, decoder, loss (MAE, 2111.06377)."""

import copy

import torch
from torch import nn

from .configuration_tinymim import TinyMimConfig
from .layers import TinyMimLayer


PIXEL_EPS = 1e-6  # of the variance within a patch


def choose_tokens(batch_size: int, num_patches: int, mask_ratio: float, device: torch.device) -> torch.Tensor:
    """Random patches that stay visible, in ascending order: `(batch_size, num_kept)`, at least one of each sample."""
    num_kept = max(1, int(num_patches * (1 - mask_ratio)))
    order = torch.rand(batch_size, num_patches, device=device).argsort(dim=1)
    return order[:, :num_kept].sort(dim=1).values


def cut_patches(pixel_values: torch.Tensor, patch_size: int) -> torch.Tensor:
    """Images `(batch_size, channels, height, width)` to `(batch_size, num_patches, patch_size**2 * channels)`."""
    maps = pixel_values.unflatten(3, (-1, patch_size)).unflatten(2, (-1, patch_size))
    # batch_size, channels, rows, patch_size, columns, patch_size
    return maps.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


class TinyMimDecoder(nn.Module):
    """Decoder of a masked autoencoder: visible tokens and a learned token for the others to pixels (2111.06377)."""

    def __init__(self, config: TinyMimConfig):
        super().__init__()
        self.config = config
        inner = copy.deepcopy(config)
        inner.hidden_size = config.decoder_hidden_size
        inner.intermediate_size = 4 * config.decoder_hidden_size
        inner.num_attention_heads = config.decoder_num_attention_heads
        rows, columns = config.grid_size
        self.embedding = nn.Linear(config.hidden_size, inner.hidden_size)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, inner.hidden_size))
        num_tokens = config.num_prefix_tokens + rows * columns
        self.position_embeddings = nn.Parameter(torch.zeros(1, num_tokens, inner.hidden_size), requires_grad=False)
        self.layers = nn.ModuleList(TinyMimLayer(inner) for _ in range(config.decoder_num_hidden_layers))
        self.layernorm = nn.LayerNorm(inner.hidden_size, eps=config.layer_norm_eps)
        self.prediction = nn.Linear(inner.hidden_size, config.patch_size**2 * config.num_channels)

    def forward(self, hidden_states: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        """Pixels of all patches, `(batch_size, num_patches, patch_size**2 * num_channels)`.

        Args:
            hidden_states (`torch.Tensor` of shape `(batch_size, num_prefix_tokens + num_kept, hidden_size)`): tokens.
            indices (`torch.LongTensor` of shape `(batch_size, num_kept)`): patches that they belong to.
        """
        num_prefix = self.config.num_prefix_tokens
        embedded = self.embedding(hidden_states)
        num_patches = self.position_embeddings.shape[1] - num_prefix
        patches = self.mask_token.to(embedded.dtype).expand(len(embedded), num_patches, -1)
        index = indices[..., None].expand(-1, -1, embedded.shape[-1])
        patches = patches.scatter(1, index, embedded[:, num_prefix:])
        tokens = torch.cat([embedded[:, :num_prefix], patches], dim=1) + self.position_embeddings
        for layer in self.layers:
            tokens = layer(tokens)
        return self.prediction(self.layernorm(tokens))[:, num_prefix:]


def compute_reconstruction_loss(
    predicted: torch.Tensor, pixel_values: torch.Tensor, indices: torch.Tensor, config: TinyMimConfig
) -> torch.Tensor:
    """Mean squared error of hidden patches, whose pixels are normalized patch by patch if `norm_pix_loss`.

    Args:
        predicted (`torch.Tensor` of shape `(batch_size, num_patches, patch_size**2 * num_channels)`): pixels.
        pixel_values (`torch.Tensor` of shape `(batch_size, num_channels, height, width)`): images.
        indices (`torch.LongTensor` of shape `(batch_size, num_kept)`): patches that were visible.
        config ([`TinyMimConfig`]): gives `patch_size` and `norm_pix_loss`.
    """
    target = cut_patches(pixel_values, config.patch_size).to(torch.promote_types(predicted.dtype, torch.float32))
    if config.norm_pix_loss:
        variance, mean = torch.var_mean(target, dim=-1, keepdim=True)
        target = (target - mean) / (variance + PIXEL_EPS) ** 0.5
    errors = (predicted.to(target.dtype) - target).square().mean(-1)
    is_hidden = torch.ones_like(errors).scatter(1, indices, 0.0)
    return (errors * is_hidden).sum() / is_hidden.sum()


__all__ = ["TinyMimDecoder", "choose_tokens", "compute_reconstruction_loss", "cut_patches"]
