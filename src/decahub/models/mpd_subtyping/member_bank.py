"""All members of the ensemble as one module: stacked autoencoders, or principal components.

Members read the same rows. So their first layers are one product, `(rows, p) x (p, members * hidden)`, and the others
are batched products. Nothing loops over members, and inputs are never copied for each of them.
"""

import itertools
import math

import torch
from torch import nn
from transformers.activations import ACT2FN

from .configuration_mpd_subtyping import MpdSubtypingConfig


SEEDS_PER_RUN = 1000  # the seed of a member depends on its own run and size only


class MemberLinear(nn.Module):
    """One linear layer for each member.

    Args:
        num_members (`int`): number of members.
        in_features (`int`): width of the input.
        out_features (`int`): width of the output.

    Shapes:
        `weight` `(num_members, out_features, in_features)`, `bias` `(num_members, out_features)`.
    """

    def __init__(self, num_members: int, in_features: int, out_features: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_members, out_features, in_features))
        self.bias = nn.Parameter(torch.empty(num_members, out_features))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Apply each member's layer to its own rows: `(members, rows, in)` to `(members, rows, out)`."""
        return torch.baddbmm(self.bias.unsqueeze(1), hidden_states, self.weight.transpose(1, 2))

    def forward_shared(self, features: torch.Tensor) -> torch.Tensor:
        """Apply every member's layer to the same rows: `(rows, in)` to `(members, rows, out)`."""
        num_members, out_features, in_features = self.weight.shape
        weight = self.weight.reshape(num_members * out_features, in_features)
        hidden = nn.functional.linear(features, weight, self.bias.reshape(-1))
        return hidden.view(-1, num_members, out_features).transpose(0, 1)


class MemberBank(nn.Module):
    """What the two kinds of members share: `sizes`, the embedding size of each."""

    sizes: list[int]

    def build_latent_mask(self) -> torch.Tensor:
        """Ones in the columns that belong to each member, `(members, largest size)`."""
        return (torch.arange(max(self.sizes)) < torch.tensor(self.sizes)[:, None]).float()


class AutoencoderBank(MemberBank):
    """Stacked autoencoders: Linear, activation, Linear to the embedding, and the mirror image back.

    Embeddings are padded to the largest size; columns beyond a member's own size are zero.

    Args:
        config ([`MpdSubtypingConfig`]): sizes.
    """

    def __init__(self, config: MpdSubtypingConfig):
        super().__init__()
        num_members, widths = config.num_members, [config.input_size, *config.hidden_sizes]
        largest = config.latent_dims[-1]
        self.seeds = [config.seed + SEEDS_PER_RUN * run + size for run, size in config.members]
        self.sizes = [size for _, size in config.members]
        self.activation = ACT2FN[config.activation]
        self.encoder_in = MemberLinear(num_members, widths[0], widths[1])
        self.encoder_hidden = nn.ModuleList(
            MemberLinear(num_members, *pair) for pair in itertools.pairwise(widths[1:])
        )
        self.encoder_out = MemberLinear(num_members, widths[-1], largest)
        self.decoder_in = MemberLinear(num_members, largest, widths[-1])
        self.decoder_hidden = nn.ModuleList(
            MemberLinear(num_members, *pair) for pair in itertools.pairwise(widths[:0:-1])
        )
        self.decoder_out = MemberLinear(num_members, widths[1], widths[0])
        self.register_buffer("latent_mask", self.build_latent_mask())

    @property
    def layers(self) -> list[MemberLinear]:
        """Layers in the order in which rows pass through them."""
        return [
            self.encoder_in, *self.encoder_hidden, self.encoder_out,
            self.decoder_in, *self.decoder_hidden, self.decoder_out,
        ]  # fmt: skip

    def encode(self, features: torch.Tensor) -> torch.Tensor:
        """Embeddings of rows, `(rows, input_size)` to `(members, rows, largest size)`."""
        hidden = self.activation(self.encoder_in.forward_shared(features))
        for layer in self.encoder_hidden:
            hidden = self.activation(layer(hidden))
        return self.encoder_out(hidden) * self.latent_mask.unsqueeze(1)

    def decode(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Reconstructions, `(members, rows, largest size)` to `(members, rows, input_size)`."""
        hidden = self.activation(self.decoder_in(embeddings))
        for layer in self.decoder_hidden:
            hidden = self.activation(layer(hidden))
        return self.decoder_out(hidden)

    def draw_weights(self) -> list[torch.Tensor]:
        """New weights of each layer: uniform within 1/sqrt(fan in), padding zero, each member from its own seed.

        A member has the weights that it would have in an ensemble of any other runs and sizes.
        """
        weights = [torch.zeros(layer.weight.shape) for layer in self.layers]
        num_encoder = 2 + len(self.encoder_hidden)
        for member, (seed, size) in enumerate(zip(self.seeds, self.sizes, strict=True)):
            generator = torch.Generator().manual_seed(seed)
            for number, weight in enumerate(weights):
                rows, columns = weight.shape[1:]
                rows = size if number == num_encoder - 1 else rows
                columns = size if number == num_encoder else columns
                draws = torch.rand(rows, columns, generator=generator)
                weight[member, :rows, :columns] = (2 * draws - 1) / math.sqrt(columns)
        return weights


class LinearBank(MemberBank):
    """Members whose embeddings are the first principal components of the training patients.

    Args:
        config ([`MpdSubtypingConfig`]): sizes.

    Shapes:
        `components` `(largest size, input_size)`, orthonormal rows by decreasing variance; `mean` `(input_size,)`.
    """

    def __init__(self, config: MpdSubtypingConfig):
        super().__init__()
        largest = config.latent_dims[-1]
        self.sizes = [size for _, size in config.members]
        self.components = nn.Parameter(torch.empty(largest, config.input_size))
        self.mean = nn.Parameter(torch.empty(config.input_size))
        self.register_buffer("latent_mask", self.build_latent_mask())

    def encode(self, features: torch.Tensor) -> torch.Tensor:
        """Embeddings of rows, `(rows, input_size)` to `(members, rows, largest size)`."""
        scores = (features - self.mean) @ self.components.T
        return scores * self.latent_mask.unsqueeze(1)

    def decode(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Reconstructions, `(members, rows, largest size)` to `(members, rows, input_size)`."""
        return embeddings @ self.components + self.mean

    @torch.no_grad()
    def fit(self, features: torch.Tensor) -> None:
        """Take mean and leading components of rows `(rows, input_size)`."""
        features = features.double()
        mean = features.mean(0)
        components = compute_principal_axes(features - mean)[: len(self.components)]
        self.mean.copy_(mean)
        self.components.zero_()
        self.components[: len(components)] = components.to(self.components.dtype)


def compute_principal_axes(centered: torch.Tensor) -> torch.Tensor:
    """Orthonormal rows by decreasing variance; the largest entry of each is positive, so that signs are determined."""
    _, _, axes = torch.linalg.svd(centered, full_matrices=False)
    largest = axes.abs().argmax(1, keepdim=True)
    return axes * axes.gather(1, largest).sign()


__all__ = ["AutoencoderBank", "LinearBank", "MemberBank", "MemberLinear", "compute_principal_axes"]
