"""Counting models of drum lines: what a language model has to beat, in bits for each sixteenth note.

    python examples/drum_lm/counting.py [--data_dir FOLDER]

A line is predicted from other lines at fixed distances, by how often it followed them in the training texts. Where
those were never seen, or seldom, fewer of them count: each context is mixed with the next shorter one by the number of
different lines that followed it (Witten-Bell smoothing), down to equal chances of all lines.
"""

import argparse
import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from decahub.data import load_dataset
from decahub.models.drum_lm.midi.codec import DrumCodec
from decahub.models.drum_lm.midi.reader import read_midi


NUM_LINES = 64
STEPS_PER_BAR = 16
PROMPT_LINES = 32
POSITION = "position"


@dataclass(frozen=True)
class Context:
    """What a line is predicted from.

    Args:
        name: In tables.
        distances: Numbers of steps back, the most telling first; or `POSITION`, the step in the bar.
    """

    name: str
    distances: tuple[Any, ...]


CONTEXTS = (
    Context("none", ()),
    Context("position in the bar", (POSITION,)),
    Context("previous line", (1,)),
    Context("4 previous lines", (1, 2, 3, 4)),
    Context("line one bar ago", (16,)),
    Context("lines one bar and one step ago", (16, 1)),
    Context("lines 16, 1, 32 and 15 steps ago", (16, 1, 32, 15)),
)
UNIFORM = math.log2(NUM_LINES)


class CountingModel:
    """A line given others before it.

    Args:
        context (`Context`): Which ones.
    """

    def __init__(self, context: Context):
        self.context = context
        self.counts: dict[Hashable, Counter] = defaultdict(Counter)

    def find_contexts(self, lines: Sequence[str], index: int) -> list[tuple]:
        """From none to all: of each length one."""
        distances = self.context.distances
        parts = [
            index % STEPS_PER_BAR if distance == POSITION else lines[index - distance] if index >= distance else None
            for distance in distances
        ]
        return [tuple(parts[:length]) for length in range(len(parts) + 1)]

    def fit(self, texts: Sequence[Sequence[str]]) -> "CountingModel":
        for lines in texts:
            for index, line in enumerate(lines):
                for key in self.find_contexts(lines, index):
                    self.counts[key][line] += 1
        return self

    def compute_probability(self, lines: Sequence[str], index: int) -> float:
        probability = 1 / NUM_LINES
        for key in self.find_contexts(lines, index):
            counter = self.counts.get(key)
            if counter:
                total, different = counter.total(), len(counter)
                probability = (counter[lines[index]] + different * probability) / (total + different)
        return probability

    def compute_bits(self, texts: Sequence[Sequence[str]], first_line: int = PROMPT_LINES) -> float:
        """Bits for each line from `first_line` on."""
        costs = [
            -math.log2(self.compute_probability(lines, index))
            for lines in texts
            for index in range(first_line, len(lines))
        ]
        return sum(costs) / len(costs)


def read_lines(rows: Any) -> list[list[str]]:
    """Lines of each groove as the method writes them, silence included."""
    codec = DrumCodec.official()
    return [codec.to_text(codec.encode(read_midi(midi))).splitlines() for midi in rows["midi"]]


def measure_contexts(splits: Any, names: Sequence[str] = ("validation", "test")) -> dict[str, dict[str, float]]:
    """Bits for each line of splits, by context."""
    texts = {name: read_lines(splits[name]) for name in ("train", *names)}
    scores = {"uniform": dict.fromkeys(names, UNIFORM)}
    for context in CONTEXTS:
        model = CountingModel(context).fit(texts["train"])
        scores[context.name] = {name: model.compute_bits(texts[name]) for name in names}
    return scores


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", help="folder of the datasets; by default $DECAHUB_DATA_DIR")
    splits = load_dataset("groove", parser.parse_args().data_dir)
    for name, bits in measure_contexts(splits).items():
        print(f"{name:34}" + "".join(f"{split} {value:.3f}  " for split, value in bits.items()))


if __name__ == "__main__":
    main()
