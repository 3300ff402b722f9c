"""How the pipeline "drum-generation" chooses tokens, what it records of them, and where it stops."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from transformers import (
    LogitsProcessor,
    StoppingCriteria,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)


def build_generator(seed: int | None, device: torch.device) -> torch.Generator | None:
    """Random numbers of their own; `None` without a seed, which draws from the global generator."""
    return None if seed is None else torch.Generator(device).manual_seed(seed)


def build_sampling(
    generator: torch.Generator | None,
    temperature: float = 0.9,
    top_k: int = 0,
    top_p: float = 1.0,
    do_sample: bool = True,
) -> list[LogitsProcessor]:
    """What chooses tokens, to be the last among the processors of a greedy generation; nothing without sampling."""
    if not do_sample or not temperature:
        return []
    steps: list[Any] = [TemperatureLogitsWarper(float(temperature))]
    steps += [TopKLogitsWarper(top_k)] if top_k else []
    steps += [TopPLogitsWarper(float(top_p))] if top_p < 1 else []
    return [*steps, Sampler(generator)]


class Sampler(LogitsProcessor):
    """Draws a token for each row, and leaves no other: `generate` itself draws from the global generator only."""

    def __init__(self, generator: torch.Generator | None):
        self.generator = generator

    def __call__(self, input_ids: torch.LongTensor, scores: Any) -> Any:
        drawn = torch.multinomial(scores.softmax(-1), num_samples=1, generator=self.generator)
        return scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).scatter_(1, drawn, False), -math.inf)


class LogProbRecorder(LogitsProcessor):
    """Sums the log probabilities of the tokens that are taken, as they are before temperature, top-k and top-p.

    It stands after the processor of the grammar, which tells which tokens there are.
    """

    def __init__(self, grammar: Any):
        self.grammar = grammar
        self._scores: torch.Tensor | None = None
        self._total: Any = 0.0
        self._is_over: Any = False

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        self.finish(input_ids)
        self._scores = scores[:, self.grammar.ids].float().log_softmax(-1)
        return scores

    def finish(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Counts the last token of each row and returns the sums; no token after the end mark counts."""
        if self._scores is not None:
            tokens = input_ids[:, -1:]
            columns = (tokens == self.grammar.ids).int().argmax(1, keepdim=True)
            is_over = self._is_over | ~torch.isin(tokens[:, 0], self.grammar.ids)
            self._total = self._total + torch.where(is_over, 0.0, self._scores.gather(1, columns)[:, 0])
            self._is_over = is_over | (tokens[:, 0] == self.grammar.stop_id)
            self._scores = None
        return torch.as_tensor(self._total)


class EndOfBar(StoppingCriteria):
    """Stops each row after the token ids of the separator."""

    def __init__(self, separator: Iterable[int]):
        self.separator = list(separator)

    def __call__(self, input_ids: torch.LongTensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        ending = input_ids[:, -len(self.separator) :]
        return (ending == torch.tensor(self.separator, device=input_ids.device)).all(1)


__all__ = ["EndOfBar", "LogProbRecorder", "build_generator", "build_sampling"]
