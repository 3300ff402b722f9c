"""Drum grooves: MIDI files as rows, excerpts of them as training examples, whole ones for evaluation."""

import logging
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from decahub.models.drum_lm.midi.codec import DrumRoll
from decahub.models.shared.checks import check_probability
from decahub.models.shared.ignore_index import IGNORED_CLASS

from .family import DataFamily
from .groove_files import find_groove_files, read_groove_files


logger = logging.getLogger(__name__)

RIDE, HIHAT = "ride", "hihat"  # what a swap exchanges


@dataclass
class ExcerptTransform:
    """One row to the tokens of an excerpt: see [`build_train_transform`]."""

    processor: Any
    bars: int
    prompt_bars: int
    rotate: bool = False
    swap_prob: float = 0.0
    hide_prob: float = 0.0

    def __post_init__(self):
        columns = self.processor.build_codec().drum_map.columns
        self.swapped = [index for index, name in enumerate(columns) if name in (RIDE, HIHAT)]

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return self._encode(row)
        except ValueError as error:
            raise ValueError(f"{row.get('name') or 'A groove'} must be readable: {error}") from error

    def _encode(self, row: Mapping[str, Any]) -> dict[str, Any]:
        roll = row["roll"] if "roll" in row else self.processor.read(row["midi"])
        if self.rotate:
            roll = rotate_bars(roll)
        if random.random() < self.swap_prob:
            roll = roll.change_steps(self._swap)
        start = random.randint(0, max(0, self.processor.count_bars(roll) - self.bars))
        example = self.processor.encode_pair(roll, start, self.bars, self.prompt_bars)
        if self.hide_prob and random.random() < self.hide_prob:
            example["known_steps"] = 0
        return example

    def _swap(self, values: np.ndarray) -> np.ndarray:
        """Steps with ride and hi-hat exchanged."""
        swapped = values.copy()
        swapped[:, self.swapped] = values[:, self.swapped[::-1]]
        return swapped


def rotate_bars(roll: DrumRoll) -> DrumRoll:
    """A groove that begins at another of its bars, which ends where that bar began; silence at the end stays there."""
    played = np.flatnonzero(roll.hits.any(1))
    num_bars = -(-(int(played[-1]) + 1) // roll.steps_per_bar) if len(played) else 0
    if num_bars < 2:
        return roll
    steps = num_bars * roll.steps_per_bar
    shift = random.randrange(num_bars) * roll.steps_per_bar
    return roll.change_steps(lambda values: np.concatenate([np.roll(values[:steps], -shift, axis=0), values[steps:]]))


def build_train_transform(
    processor: Any,
    bars: int | None = None,
    prompt_bars: int | None = None,
    *,
    rotate: bool = False,
    swap_prob: float = 0.0,
    hide_prob: float = 0.0,
) -> ExcerptTransform:
    """Random transform of a row into `{"input_ids", "labels", "prompt_length", "num_steps", ...}`.

    Wrap it into `SeededTransform`, which makes its draws repeatable: the bar that an excerpt of `bars` bars begins at;
    with `rotate` the bar that the groove begins at, what was before following at the end; and with the probability
    `swap_prob` whether ride and hi-hat change places. With an expressive processor the velocities and the timing of
    the prompt are hidden with the probability `hide_prob`, so that a model learns to play texts as well. `bars` and
    `prompt_bars` are by default those of the processor.
    """
    bars = processor.bars if bars is None else bars
    prompt_bars = processor.prompt_bars if prompt_bars is None else prompt_bars
    if not 0 <= prompt_bars < bars:
        raise ValueError(f"`prompt_bars` must be in [0, `bars` ({bars})); got {prompt_bars}.")
    check_probability("swap_prob", swap_prob)
    check_probability("hide_prob", hide_prob)
    columns = processor.build_codec().drum_map.columns
    if swap_prob and not {RIDE, HIHAT} <= {*columns}:
        raise ValueError(f"`swap_prob` must be 0 with the columns {', '.join(columns)}; got {swap_prob}.")
    if hide_prob and not processor.expressive:
        raise ValueError(f"`hide_prob` must be 0 with a processor that is not `expressive`; got {hide_prob}.")
    return ExcerptTransform(processor, bars, prompt_bars, rotate, swap_prob, hide_prob)


def build_eval_transform(processor: Any) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Transform of a row into the tokens of the whole groove, its first bars a prompt."""
    return ExcerptTransform(processor, processor.bars, processor.prompt_bars)


def read_grooves(rows: Iterable[Mapping[str, Any]], processor: Any) -> list[dict[str, Any]]:
    """Rows whose MIDI files have been read, each with its `roll`.

    A groove that cannot be read or has no bar after the prompt is left out, with a warning that names it; if none is
    left, a `ValueError` says why.
    """
    kept: list[dict[str, Any]] = []
    last_error: ValueError | None = None
    for number, row in enumerate(rows):
        name = row.get("name") or f"row {number}"
        try:
            roll = processor.read(row["midi"])
            processor.encode_pair(roll)
        except ValueError as error:
            logger.warning(f"Left out {name}: {error}")
            last_error = error
            continue
        kept.append({**row, "roll": roll})
    if last_error and not kept:
        raise ValueError(f"`rows` must hold a groove to learn from; the last of those left out says: {last_error}")
    return kept


def collate(examples: Sequence[Mapping[str, Any]], pad_to_multiple_of: int = 1) -> dict[str, torch.Tensor]:
    """Examples of the transforms, padded on the right to the longest or to a multiple of `pad_to_multiple_of` tokens.

    Kernels are built for few lengths with a multiple, and not for each batch anew. `is_mark` tells which tokens are
    separators and end marks. The padding of `input_ids` is the last token again, which the mask hides.
    """
    longest = max(len(example["input_ids"]) for example in examples)
    length = -(-longest // pad_to_multiple_of) * pad_to_multiple_of

    def pad(rows: Sequence[Sequence[int]], values: Sequence[int]) -> torch.Tensor:
        padded = [[*row, *[value] * (length - len(row))] for row, value in zip(rows, values, strict=True)]
        return torch.tensor(padded, dtype=torch.long)

    ids = [example["input_ids"] for example in examples]
    count = len(examples)
    expression = {}
    if "velocities" in examples[0]:
        rows = [torch.as_tensor(example["velocities"]) for example in examples]
        delays = [torch.as_tensor(example["offsets"]) for example in examples]
        expression = {
            "velocities": pad_sequence(rows, batch_first=True),
            "offsets": pad_sequence(delays, batch_first=True),
            **{name: torch.tensor([example[name] for example in examples]) for name in ("known_steps", "bar_steps")},
        }
    return {
        "input_ids": pad(ids, [row[-1] for row in ids]),
        "attention_mask": pad([[1] * len(row) for row in ids], [0] * count),
        "labels": pad([example["labels"] for example in examples], [IGNORED_CLASS] * count),
        "is_mark": pad([example["is_mark"] for example in examples], [0] * count).bool(),
        "prompt_lengths": torch.tensor([example["prompt_length"] for example in examples]),
        "num_steps": torch.tensor([example["num_steps"] for example in examples]),
        **expression,
    }


def collate_training(examples: Sequence[Mapping[str, Any]], pad_to_multiple_of: int = 1) -> dict[str, torch.Tensor]:
    """What the model's `forward` takes of [`collate`]."""
    batch = collate(examples, pad_to_multiple_of)
    del batch["is_mark"]
    return batch


FAMILY = DataFamily(
    columns={"midi": datasets.Value},
    build_eval_transform=build_eval_transform,
    build_train_transform=build_train_transform,
    collate=collate,
    find_files=find_groove_files,
    read_files=read_groove_files,
)

__all__ = [
    "FAMILY",
    "build_eval_transform",
    "build_train_transform",
    "collate",
    "collate_training",
    "read_grooves",
    "rotate_bars",
]
