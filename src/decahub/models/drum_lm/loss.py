"""Loss of a drum text under a language model, and its cost in bits for each sixteenth note."""

import math

import torch
from torch import nn


IGNORED = -100


def shift(labels: torch.Tensor | None) -> torch.Tensor | None:
    """The target of each position: the label of the next one, and -100 for the last."""
    return None if labels is None else nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED)


def compute_token_losses(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Negative log likelihood of each token in nats, 0 where the target is -100.

    Args:
        logits (`torch.FloatTensor` of shape `(batch_size, num_tokens, num_scores)`): Scores for `targets`.
        targets (`torch.LongTensor` of shape `(batch_size, num_tokens)`): Columns of `logits`, or -100.

    Returns:
        `torch.FloatTensor` of shape `(batch_size, num_tokens)`.
    """
    losses = nn.functional.cross_entropy(
        logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="none"
    )
    return losses.view(targets.shape)


def find_completion(
    targets: torch.Tensor, prompt_lengths: torch.Tensor | None, attention_mask: torch.Tensor | None
) -> torch.Tensor:
    """Which targets are no part of the prompt.

    Args:
        targets (`torch.LongTensor` of shape `(batch_size, num_tokens)`): For each position the token after it.
        prompt_lengths (`torch.LongTensor` of shape `(batch_size,)`, *optional*): Tokens of each prompt, padding not
            counted; by default there is none.
        attention_mask (`torch.LongTensor` of shape `(batch_size, num_tokens)`, *optional*): 0 for padding.

    Returns:
        `torch.BoolTensor` of the shape of `targets`.
    """
    scored = targets != IGNORED
    if prompt_lengths is None:
        return scored
    positions = torch.arange(1, targets.shape[1] + 1, device=targets.device)[None]
    starts = 0 if attention_mask is None else attention_mask.long().argmax(1, keepdim=True)
    return scored & (positions >= starts + prompt_lengths.to(targets.device)[:, None])


def compute_weighted_mean(
    losses: torch.Tensor, is_scored: torch.Tensor, is_completion: torch.Tensor, weight: float
) -> torch.Tensor:
    """Mean over all scored tokens, those of the prompt with a weight of their own."""
    weights = torch.where(is_completion, 1.0, weight) * is_scored
    return (losses * weights).sum() / weights.sum().clamp_min(torch.finfo(losses.dtype).tiny)


def compute_bits_per_step(completion_loss: torch.Tensor, num_steps: torch.Tensor) -> torch.Tensor:
    """Bits for each sixteenth note, over all rows; separators and end are paid for, but count as no step.

    Args:
        completion_loss (`torch.FloatTensor` of shape `(batch_size,)`): Nats of each row.
        num_steps (`torch.LongTensor` of shape `(batch_size,)`): Sixteenth notes of each row.
    """
    return completion_loss.sum() / math.log(2) / num_steps.sum()


__all__ = ["compute_bits_per_step", "compute_token_losses", "compute_weighted_mean", "find_completion", "shift"]
