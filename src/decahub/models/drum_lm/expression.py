"""How each hit of a groove is played: its velocity, and how early or late it comes.

The language model writes which drums are struck. A small network then reads the finished roll in both directions, with
what is known of the prompt's velocities and timing, and predicts both for each other hit as normal distributions. So
the writing of the method stays as it is, and a groove without any expression can be played as well.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


MAX_VELOCITY = 127
MAX_OFFSET = 0.5  # of a sixteenth note; a hit further away belongs to another step
MIN_LOG_STD, MAX_LOG_STD = math.log(0.01), math.log(1.0)
STEPS_PER_QUARTER = 4
TYPICAL_VELOCITY = 0.5  # as a share of 127, where nothing is known of a drum


class KnownMeans(NamedTuple):
    """Means of what is known, each `(batch_size, num_steps, columns)`; 0 where nothing is."""

    velocity: torch.Tensor
    offset: torch.Tensor
    is_present: torch.Tensor  # 1 or 0


def _average(known_hits: torch.Tensor, shares: torch.Tensor, delays: torch.Tensor, groups: torch.Tensor) -> KnownMeans:
    """Means of the known hits of each column over the steps of one group, at every step of it.

    `groups`, `(batch_size, num_steps)`, are numbers from 0 to below the number of steps.
    """
    index = groups[..., None].expand_as(known_hits)

    def total(values: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(values).scatter_add(1, index, values).gather(1, index)

    count = total(known_hits)
    scale = count.clamp_min(1).reciprocal()
    return KnownMeans(total(shares) * scale, total(delays) * scale, (count > 0).to(shares.dtype))


@dataclass
class HitDistributions:
    """Normal distributions for each step and column, all of shape `(batch_size, num_steps, columns, 2)`.

    The last axis is the velocity, as a share of 127, and the offset in sixteenth notes.
    """

    means: torch.Tensor
    log_stds: torch.Tensor


class DrumExpression(nn.Module):
    r"""Velocity and timing of the hits of a roll, by a bidirectional GRU.

    With \(v\) the velocity divided by 127 and \(o\) the offset, each hit has the loss
    \(-\log N(v; \mu_v, \sigma_v) - \log N(o; \mu_o, \sigma_o)\), up to a constant. \(\mu_v\) begins at what
    is known of the drum: halfway between its mean in the known steps and that in the same step of the known bars.

    Args:
        columns (`int`): Columns of the roll.
        hidden_size (`int`): Width of each direction.
        num_layers (`int`): Layers of the GRU.

    Shapes:
        velocities (batch, steps, columns), offsets (batch, steps, columns), known_steps (batch,), bar_steps (batch,).
    """

    def __init__(self, columns: int, hidden_size: int, num_layers: int):
        super().__init__()
        self.columns = columns
        # The hits; of the known steps velocities and offsets, their means by drum and by step of the bar, with what is
        # known of each; and the place in the quarter note.
        features = 9 * columns + 1 + STEPS_PER_QUARTER
        self.recurrence = nn.GRU(features, hidden_size, num_layers, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * hidden_size, 4 * columns)

    def forward(
        self,
        hits: torch.Tensor,
        velocities: torch.Tensor,
        offsets: torch.Tensor,
        known_steps: torch.Tensor,
        bar_steps: torch.Tensor,
    ) -> HitDistributions:
        """Distributions of all hits, given those of the first `known_steps` steps of each row.

        Silence at the end of a row is not read, so that padding changes nothing.
        """
        dtype, steps = self.head.weight.dtype, torch.arange(hits.shape[1], device=hits.device)
        is_known = (steps < known_steps[:, None])[..., None]
        known_hits = (hits & is_known).to(dtype)
        shares, delays = velocities.to(dtype) / MAX_VELOCITY * known_hits, offsets.to(dtype) * known_hits
        by_drum = _average(known_hits, shares, delays, torch.zeros_like(steps).expand(len(hits), -1))
        by_step = _average(known_hits, shares, delays, steps % bar_steps[:, None])
        beats = nn.functional.one_hot(steps % STEPS_PER_QUARTER, STEPS_PER_QUARTER).expand(len(hits), -1, -1)
        inputs = torch.cat(
            [hits.to(dtype), shares, delays, *by_drum, *by_step, is_known.to(dtype), beats.to(dtype)], -1
        )
        lengths = ((steps + 1) * hits.any(-1)).amax(1).clamp_min(1)
        packed = pack_padded_sequence(inputs, lengths.cpu(), batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.recurrence(packed)[0], batch_first=True, total_length=hits.shape[1])
        means, log_stds = self.head(states).unflatten(-1, (2, self.columns, 2)).unbind(2)
        start = torch.where(by_drum.is_present > 0, by_drum.velocity, TYPICAL_VELOCITY)
        start = torch.where(by_step.is_present > 0, (start + by_step.velocity) / 2, start)
        means = means + torch.stack([start, torch.zeros_like(start)], dim=-1)
        return HitDistributions(means, log_stds.clamp(MIN_LOG_STD, MAX_LOG_STD))

    def compute_loss(
        self, velocities: torch.Tensor, offsets: torch.Tensor, known_steps: torch.Tensor, bar_steps: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean loss of the hits after the known steps, and for each row the summed errors of the means.

        Returns:
            The loss `()`, and `(batch_size, 3)`: the absolute errors of velocities (1 to 127) and of offsets (in
            sixteenth notes), and the number of hits.
        """
        hits = velocities > 0
        distributions = self(hits, velocities, offsets, known_steps, bar_steps)
        steps = torch.arange(hits.shape[1], device=hits.device)
        is_scored = hits & (steps >= known_steps[:, None])[..., None]
        targets = torch.stack([velocities / MAX_VELOCITY, offsets], dim=-1).to(distributions.means.dtype)
        distances = targets - distributions.means
        terms = (distances * (-distributions.log_stds).exp()).square() / 2 + distributions.log_stds
        loss = (terms.sum(-1) * is_scored).sum() / is_scored.sum().clamp_min(1)
        errors = (distances.abs() * is_scored[..., None]).sum((1, 2)) * distances.new_tensor([MAX_VELOCITY, 1])
        return loss, torch.cat([errors, is_scored.sum((1, 2))[:, None].to(errors.dtype)], dim=1)

    def sample(
        self,
        hits: torch.Tensor,
        velocities: torch.Tensor,
        offsets: torch.Tensor,
        known_steps: torch.Tensor,
        bar_steps: torch.Tensor,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Velocities (1 to 127) and offsets (from -0.5 to 0.5) of all hits, 0 elsewhere; the known ones stay.

        Standard deviations are multiplied by `temperature`; 0 gives the means.
        """
        distributions = self(hits, velocities, offsets, known_steps, bar_steps)
        values = distributions.means
        if temperature:
            noise = torch.randn(values.shape, generator=generator, dtype=values.dtype, device=values.device)
            values = values + temperature * distributions.log_stds.exp() * noise
        drawn = (values[..., 0] * MAX_VELOCITY).round().clamp(1, MAX_VELOCITY).long()
        delays = values[..., 1].clamp(-MAX_OFFSET, MAX_OFFSET)
        steps = torch.arange(hits.shape[1], device=hits.device)
        is_known = (steps < known_steps[:, None])[..., None]
        drawn = torch.where(is_known, velocities, drawn) * hits
        return drawn, torch.where(is_known, offsets.to(delays.dtype), delays) * hits


__all__ = ["DrumExpression"]
