"""From sums of single texts to scores of a set of texts, with bootstrap intervals."""

import numpy as np


LEVEL = 0.95


class Corpus:
    """Sums of the texts of one set.

    Args:
        sums (`dict[str, np.ndarray of shape (num_texts, 2)]`): Numerators and denominators of each score, 0 for a text
            without it.
        counts (`dict[str, np.ndarray of shape (num_texts, num_values)]`, *optional*): What distributions are made of.
    """

    def __init__(self, sums: dict[str, np.ndarray], counts: dict[str, np.ndarray] | None = None):
        self.sums = sums
        self.counts = counts or {}

    @property
    def num_texts(self) -> int:
        return max((len(values) for values in self.sums.values()), default=0)

    def count_excluded(self) -> dict[str, int]:
        """Number of texts without a score, for scores that some text lacks."""
        excluded = {name: int((values[:, 1] == 0).sum()) for name, values in self.sums.items()}
        return {name: number for name, number in excluded.items() if number}

    def pool(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Scores of sets in which each text occurs several times or not at all; NaN where no text has it.

        `weights` `(num_sets, num_texts)` tells how often.
        """
        pooled = {}
        for name, values in self.sums.items():
            numerators, denominators = (weights @ values).T
            pooled[name] = np.divide(
                numerators, denominators, out=np.full(len(weights), np.nan), where=denominators > 0
            )
        return pooled

    def pool_counts(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Distributions of such sets, of shape `(num_sets, num_values)`; NaN where there is nothing to count."""
        pooled = {name: weights @ values for name, values in self.counts.items()}
        with np.errstate(invalid="ignore"):
            return {name: values / values.sum(1, keepdims=True) for name, values in pooled.items()}


def compute_divergence(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Jensen-Shannon divergence in bits of distributions in rows: 0 for equal, 1 for those without common values."""
    middle = (first + second) / 2
    halves = []
    for share in (first, second):
        ratio = np.divide(share, middle, out=np.ones_like(share), where=share > 0)
        halves.append((share * np.log2(ratio)).sum(1))
    return (halves[0] + halves[1]) / 2


def measure(
    corpus: Corpus, weights: np.ndarray, reference: Corpus | None = None, reference_weights: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Scores of sets by their weights, and divergences from the distributions of a reference where there is one."""
    scores = corpus.pool(weights)
    if reference is not None and reference_weights is not None:
        ours, theirs = corpus.pool_counts(weights), reference.pool_counts(reference_weights)
        scores |= {name: compute_divergence(ours[name], theirs[name]) for name in ours if name in theirs}
    return scores


def draw_weights(num_texts: int, num_resamples: int, generator: np.random.Generator) -> np.ndarray:
    """How often each text occurs when as many as there are, are drawn with replacement."""
    return generator.multinomial(num_texts, np.full(num_texts, 1 / num_texts), size=num_resamples).astype(np.float64)


def find_interval(values: np.ndarray) -> list[float] | None:
    """The middle 95 percent of resampled values; None if none of them is defined."""
    values = values[~np.isnan(values)]
    if not len(values):
        return None
    return np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
