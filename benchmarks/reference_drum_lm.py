"""The text of a MIDI file by symusic, as a user writes it with arrays."""

import numpy as np


COLUMNS = ((49, 55, 57, 52), (51, 59, 53), (38, 40, 37), (36,), (42, 22, 46, 26), (50, 48, 47, 45, 43, 58))
COLUMN_OF = np.full(128, len(COLUMNS))
for column, pitches in enumerate(COLUMNS):
    COLUMN_OF[list(pitches)] = column


def encode_midi(data: bytes, num_steps: int = 256) -> str:
    """The text of a MIDI file of one track, one line for each sixteenth note."""
    import symusic

    score = symusic.Score.from_midi(data)
    step_ticks = score.ticks_per_quarter // 4
    notes = score.tracks[0].notes.numpy()
    steps, columns = (notes["time"] + step_ticks // 2) // step_ticks, COLUMN_OF[notes["pitch"]]
    used = (steps < num_steps) & (columns < len(COLUMNS))
    cells = np.full((num_steps, len(COLUMNS) + 1), ord("-"), dtype=np.uint8)
    cells[:, -1] = ord("\n")
    cells[steps[used], columns[used]] = ord("o")
    return cells.tobytes().decode()
