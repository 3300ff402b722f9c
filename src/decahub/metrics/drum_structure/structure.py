"""Structure of one drum text: how much each bar differs from its neighbors, and how far fills stand out."""

import io
from itertools import pairwise

import numpy as np


BAR_LINES = 16  # sixteenth notes in a bar of 4/4
MAX_BARS = 16
NUM_CLUSTERS = 2


def levenshtein(first: str, second: str) -> int:
    """Number of insertions, deletions and substitutions of characters that turn one text into the other."""
    try:
        from rapidfuzz.distance import Levenshtein
    except ImportError as error:
        raise ImportError('The distance of bars needs rapidfuzz: pip install "decahub[drum_lm]".') from error
    return Levenshtein.distance(first, second)


def split_bars(text: str, bar_lines: int = BAR_LINES, max_bars: int | None = MAX_BARS) -> list[str]:
    """The bars of a drum text without separators, as the authors' script compares them.

    The lines of a bar, with their line ends, are joined by one more; what is left at the end is a bar.
    """
    lines = list(io.StringIO(text))
    bars = ["\n".join(lines[start : start + bar_lines]) for start in range(0, len(lines), bar_lines)]
    return bars[:max_bars]


def compute_stability(text: str, bar_lines: int = BAR_LINES, max_bars: int | None = MAX_BARS) -> list[int]:
    """How much each bar but the first and the last differs from the neighbor that is nearer to it, in characters.

    Low: the bar repeats. High: it differs from the bar before and the bar after, as a fill or a break does.
    """
    bars = split_bars(text, bar_lines, max_bars)
    distances = [levenshtein(*pair) for pair in pairwise(bars)]
    return take_nearer(distances)


def take_nearer(distances: list[int]) -> list[int]:
    """The smaller of the distances to the bar before and to the bar after, for all bars that have both."""
    return [min(pair) for pair in pairwise(distances)]


def split_two_means(values: list[int] | np.ndarray, cluster: str = "exact") -> tuple[float, float]:
    """Divide the stabilities of one text into those of steady bars and those of fills, by 2-means.

    Gives `centre_gap`, the distance of the two means (the script's option `intra`), and `centre_spread`, the mean
    distance of a value to its own (`inter`): NaN for fewer than two values, 0 for equal ones. `cluster="exact"` takes
    the division with the least sum of squares; `"sklearn"` the one that scikit-learn finds from one random start, as
    the script does.
    """
    values = np.asarray(values, dtype=np.float64)
    if cluster not in _DIVISIONS:
        raise ValueError(f"`cluster` must be one of {', '.join(_DIVISIONS)}; got {cluster!r}.")
    if len(values) < NUM_CLUSTERS:
        return float("nan"), float("nan")
    if values.min() == values.max():
        return 0.0, 0.0
    is_upper = _DIVISIONS[cluster](values)
    lower, upper = values[~is_upper].mean(), values[is_upper].mean()
    spread = np.abs(values - np.where(is_upper, upper, lower)).mean()
    return float(upper - lower), float(spread)


def divide_exactly(values: np.ndarray) -> np.ndarray:
    """Which of values that are not all equal are in the upper of the two clusters with the least sum of squares.

    In one dimension clusters do not overlap, so that all divisions are cuts of the sorted values; of equals the
    lowest.
    """
    ascending = np.sort(values)
    counts, sums = np.arange(1, len(values)), np.cumsum(ascending)
    # The sum of squares within is that of all values minus this one, which is between the clusters.
    between = sums[:-1] ** 2 / counts + (sums[-1] - sums[:-1]) ** 2 / (len(values) - counts)
    between[ascending[1:] == ascending[:-1]] = -np.inf
    return values > ascending[between.argmax()]


def divide_by_sklearn(values: np.ndarray) -> np.ndarray:
    """The division that the authors' script makes, which depends on the order of the values; as `divide_exactly`."""
    from sklearn.cluster import KMeans

    found = KMeans(NUM_CLUSTERS, random_state=0).fit(values[:, None])
    return found.labels_ == int(found.cluster_centers_.argmax())


_DIVISIONS = {"exact": divide_exactly, "sklearn": divide_by_sklearn}
