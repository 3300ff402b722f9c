"""Stochastic depth (arXiv 1603.09382)."""

import torch


def drop_path(hidden_states: torch.Tensor, rate: float, training: bool) -> torch.Tensor:
    """Zeroes the residual branch of whole samples and scales the others up by `1 / (1 - rate)`.

    Args:
        hidden_states (`torch.Tensor` of shape `(batch_size, ...)`): output of the branch.
        rate (`float`): probability to drop a sample, in [0, 1).
        training (`bool`): otherwise nothing is dropped.
    """
    if rate == 0.0 or not training:
        return hidden_states
    shape = (hidden_states.shape[0],) + (1,) * (hidden_states.ndim - 1)
    return hidden_states * (hidden_states.new_empty(shape).bernoulli_(1 - rate) / (1 - rate))
