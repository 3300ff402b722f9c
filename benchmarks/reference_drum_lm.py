"""Drum LM's codec and metric in plain Python, from the formulas, and generation without a cache: the yardsticks.

The codec reads with mido, as is usual, and looks for the step of each note among all steps; the distance of two bars
fills its table cell by cell.
"""

import io
from itertools import pairwise

import torch


COLUMNS = ((49, 55, 57, 52), (51, 59, 53), (38, 40, 37), (36,), (42, 22, 46, 26), (50, 48, 47, 45, 43, 58))


def encode_midi(data: bytes, num_steps: int = 256) -> str:
    """The text of a MIDI file of one track, one line for each sixteenth note."""
    import mido

    file = mido.MidiFile(file=io.BytesIO(data))
    step = file.ticks_per_beat // 4
    column_of = {pitch: column for column, pitches in enumerate(COLUMNS) for pitch in pitches}
    cells = [["-"] * len(COLUMNS) for _ in range(num_steps)]
    tick = 0
    for message in file.tracks[0]:
        tick += message.time
        if message.type != "note_on" or not message.velocity or message.note not in column_of:
            continue
        for number in range(num_steps):
            if number * step - step // 2 <= tick < number * step + step // 2:
                cells[number][column_of[message.note]] = "o"
    return "".join("".join(line) + "\n" for line in cells)


def compute_distance(first: str, second: str) -> int:
    """Levenshtein distance by the recurrence."""
    row = list(range(len(second) + 1))
    for number, character in enumerate(first, start=1):
        previous, row[0] = row[0], number
        for column, other in enumerate(second, start=1):
            previous, row[column] = (
                row[column],
                min(row[column] + 1, row[column - 1] + 1, previous + (character != other)),
            )
    return row[-1]


def compute_stability(text: str) -> list[int]:
    """Distance of each inner bar to the nearer one of its neighbors."""
    lines = text.splitlines(keepends=True)
    bars = ["\n".join(lines[first : first + 16]) for first in range(0, len(lines), 16)]
    return [min(pair) for pair in pairwise([compute_distance(*pair) for pair in pairwise(bars)])]


@torch.no_grad()
def generate_without_cache(model: torch.nn.Module, input_ids: torch.Tensor, allowed: torch.Tensor, num_tokens: int):
    """The most probable of `allowed` tokens, again and again, each from a pass over all tokens before it."""
    for _ in range(num_tokens):
        logits = model(input_ids, use_cache=False, logits_to_keep=1).logits[:, -1]
        tokens = allowed[logits[:, allowed].argmax(-1)]
        input_ids = torch.cat([input_ids, tokens[:, None]], dim=1)
    return input_ids
