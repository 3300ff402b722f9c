"""TinyMIM as a careful user writes it by hand: what the speed of `decahub.models.tinymim` is measured against.

Attention is torch's fused one, and the teacher ends at the target block.
Parameter names are the authors', so that `conversion.convert_tinymim.revert_state_dict` loads weights of ours.
Only what pre-training uses is here: relations of query and key and of value and value, no drop path.

Source: "TinyMIM: An Empirical Study of Distilling MIM Pre-trained Models", arXiv 2301.01296.
"""

import torch
import torch.nn.functional as F
from torch import nn


class PatchEmbedding(nn.Module):
    """Patches to tokens; the name `proj` is the authors'."""

    def __init__(self, config):
        super().__init__()
        self.proj = nn.Conv2d(config.num_channels, config.hidden_size, config.patch_size, stride=config.patch_size)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.proj(pixel_values).flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """Multi-head self-attention that returns query, key and value as well."""

    def __init__(self, hidden_size: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size)
        self.proj = nn.Linear(hidden_size, hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        batch_size, num_tokens, hidden_size = hidden_states.shape
        split = self.qkv(hidden_states).reshape(batch_size, num_tokens, 3, self.num_heads, -1)
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind(0)
        attended = F.scaled_dot_product_attention(query, key, value)
        attended = attended.transpose(1, 2).reshape(batch_size, num_tokens, hidden_size)
        return self.proj(attended), (query, key, value)


class Mlp(nn.Module):
    def __init__(self, hidden_size: int, intermediate_size: int):
        super().__init__()
        self.fc1 = nn.Linear(hidden_size, intermediate_size)
        self.fc2 = nn.Linear(intermediate_size, hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.fc2(F.gelu(self.fc1(hidden_states)))


class Block(nn.Module):
    """Attention and MLP on a residual stream, each after a layer norm."""

    def __init__(self, config, num_heads: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attn = Attention(config.hidden_size, num_heads)
        self.norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = Mlp(config.hidden_size, config.intermediate_size)

    def forward(self, hidden_states: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        attended, states = self.attn(self.norm1(hidden_states))
        hidden_states = hidden_states + attended
        return hidden_states + self.mlp(self.norm2(hidden_states)), states


class ReferenceTinyMim(nn.Module):
    """A plain vision transformer whose every block returns query, key and value.

    Args:
        config (`TinyMimConfig`): the architecture.
        last_num_heads (`int`, *optional*): attention heads of the last block, where they differ.
    """

    def __init__(self, config, last_num_heads: int | None = None):
        super().__init__()
        heads = [config.num_attention_heads] * config.num_hidden_layers
        heads[-1] = last_num_heads or heads[-1]
        rows, columns = config.grid_size
        self.patch_embed = PatchEmbedding(config)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + rows * columns, config.hidden_size), requires_grad=False)
        self.blocks = nn.ModuleList(Block(config, num_heads) for num_heads in heads)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(
        self, pixel_values: torch.Tensor, num_blocks: int | None = None
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """Tokens, and query, key and value of the last of `num_blocks` blocks."""
        patches = self.patch_embed(pixel_values)
        hidden_states = torch.cat([self.cls_token.expand(len(patches), -1, -1), patches], dim=1) + self.pos_embed
        for block in self.blocks[:num_blocks]:
            hidden_states, states = block(hidden_states)
        return self.norm(hidden_states), states


def compute_relations(states: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    """Scaled products of query and key, and of value and value."""
    query, key, value = states
    scale = query.shape[-1] ** -0.5
    return [first @ other.transpose(-2, -1) * scale for first, other in ((query, key), (value, value))]


def compute_loss(student: ReferenceTinyMim, teacher: ReferenceTinyMim, pixel_values: torch.Tensor, layer: int):
    """Sum over both relations of the mean divergence of the student from block `layer` of the teacher."""
    with torch.no_grad():
        targets = compute_relations(teacher(pixel_values, layer)[1])
    relations = compute_relations(student(pixel_values)[1])
    return sum(
        F.kl_div(relation.log_softmax(-1), target.softmax(-1), reduction="none").sum(-1).mean()
        for relation, target in zip(relations, targets, strict=True)
    )
