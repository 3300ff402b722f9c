"""Clusters, or a continuum? The mixture test and the dip test on scores that nobody's own label has shaped.

A partition of a continuum may be stable and significant. What tells clusters apart is the density between them: here
along the direction that separates them, found in one half of the patients and read off in the other.
"""

import numpy as np
from scipy.special import gammaln
from sklearn.covariance import ledoit_wolf


SHAPES = np.array([1, 1.3, 1.7, 2, 2.5, 3, 4, 6, 10, 20])  # beta: 1 is Laplace, 2 Gaussian, 20 nearly uniform
MODES = np.linspace(0.1, 0.9, 17)  # quantiles that are tried as the mode
STARTS = ((0.25, 0.75), (0.1, 0.6), (0.4, 0.9))  # quantiles at which the means of two Gaussians start
NUM_EM_STEPS = 60
MAX_MOVES, LEAST_SIDE = 10, 5  # of rows that change over; rows that a side must have
TINY = np.finfo(float).tiny
LEAST_VARIANCE = 1e-3  # of a component, as a share of the variance of all


def compute_scores(features, cluster, order):
    """Discriminant score of everybody, by a direction that was found without them.

    The half a is clustered in two; w = S^-1 (mean_0 - mean_1), with the Ledoit-Wolf estimate S of the covariance
    within clusters. Scores of b are (x w - median) / interquartile range. Then the halves swap, and signs are made
    equal.

    Args:
        features (array of shape (rows, columns)): the table.
        cluster: `cluster(features)` gives labels of two clusters.
        order (array of shape (rows,)): a permutation, whose first half is a.

    Returns:
        array of shape (rows,): scores.
    """
    halves = np.split(order, [len(order) // 2])
    directions = [_find_direction(features[half], cluster(features[half])) for half in halves]
    if directions[0] @ directions[1] < 0:
        directions[1] = -directions[1]
    scores = np.empty(len(features))
    for direction, other in zip(directions, reversed(halves), strict=True):
        values = features[other] @ direction
        low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
        scores[other] = (values - middle) / max(high - low, TINY)
    return scores


def draw_scores(study):
    """Scores by several random halves, `(splits, rows)`."""

    def cluster(features):
        return study.cluster(features, seed=study.seed, num_subtypes=2)

    generator = study.generator("mixture")
    orders = [generator.permutation(len(study.labels)) for _ in range(study.repetitions["splits"])]
    return np.stack([compute_scores(study.features, cluster, order) for order in orders])


def _find_direction(features, labels):
    """Direction between two clusters; rows on the wrong side of the middle change over, until none does.

    All this happens within one half, so that the scores of the other stay independent of it.
    """
    labels = np.minimum(labels, 1)
    for _ in range(MAX_MOVES):
        means = np.stack([features[labels == label].mean(0) for label in (0, 1)])
        covariance, _ = ledoit_wolf(features - means[labels], assume_centered=True)
        direction = np.linalg.solve(covariance, means[0] - means[1])
        moved = (features @ direction < means.mean(0) @ direction).astype(np.int64)
        if np.array_equal(moved, labels) or min(np.bincount(moved, minlength=2)) < LEAST_SIDE:
            break
        labels = moved
    return direction


def fit_two_gaussians(samples):
    """Largest log likelihood of two Gaussians of equal variance, by EM from three starts, for each row.

    Args:
        samples (array of shape (samples, values)): rows that are fitted alone.

    Returns:
        tuple: log likelihood (samples,), and weight of the second, means (2) and variance, each (samples,).
    """
    samples = np.atleast_2d(samples)
    number = samples.shape[1]
    total, squares = samples.sum(1), np.square(samples).sum(1)
    variance = squares / number - np.square(total / number)
    fits = []
    for quantiles in STARTS:
        first, second = np.quantile(samples, quantiles, axis=1)
        weight, spread = np.full(len(samples), 0.5), variance / 2
        for _ in range(NUM_EM_STEPS):
            slope = (second - first) / spread
            offset = np.log(weight / (1 - weight)) - slope * (first + second) / 2
            share = 1 / (1 + np.exp(-(samples * slope[:, None] + offset[:, None])))  # of the second Gaussian
            size = np.clip(share.sum(1), 1, number - 1)
            weighted = np.einsum("bn,bn->b", share, samples)
            second, first = weighted / size, (total - weighted) / (number - size)
            weight = size / number
            spread = (squares - size * second**2 - (number - size) * first**2) / number
            spread = np.maximum(spread, LEAST_VARIANCE * variance)
        fits.append((_compute_likelihood(samples, weight, first, second, spread), weight, first, second, spread))
    best = np.argmax([fit[0] for fit in fits], axis=0)
    return tuple(np.choose(best, [fit[part] for fit in fits]) for part in range(5))


def _compute_likelihood(samples, weight, first, second, spread):
    logs = [
        np.log(share)[:, None] - np.square(samples - mean[:, None]) / (2 * spread[:, None])
        for share, mean in ((1 - weight, first), (weight, second))
    ]
    return (np.logaddexp(*logs) - 0.5 * np.log(2 * np.pi * spread)[:, None]).sum(1)


def fit_unimodal(samples):
    """Largest log likelihood of a two-piece generalized normal law, over a grid of modes and shapes, for each row.

    Its density is beta / ((a1 + a2) Gamma(1 / beta)) exp(-(|x - m| / a)^beta), with a1 left and a2 right of the mode
    m. Given m and beta the scales have a closed form. It covers Gaussian, Laplace, uniform and skewed laws.

    Returns:
        tuple: log likelihood, mode, shape, left and right scale, each of shape (samples,).
    """
    samples = np.atleast_2d(samples)
    num_samples, number = samples.shape
    modes = np.quantile(samples, MODES, axis=1).T  # (samples, modes)
    distances = samples[:, None] - modes[:, :, None]
    is_left = (distances < 0).astype(np.float64)
    logs = np.log(np.abs(distances) + TINY)
    fits = np.empty((num_samples, len(MODES), len(SHAPES), 3))
    for index, shape in enumerate(SHAPES):
        powers = np.exp(shape * logs)
        left = np.einsum("bmn,bmn->bm", powers, is_left)
        # Rounding may leave less than nothing on a side without values.
        left, right = np.maximum(left, TINY), np.maximum(powers.sum(-1) - left, TINY)
        ratio = (right / left) ** (1 / (shape + 1))
        scale = (shape * left * (1 + ratio) / number) ** (1 / shape)
        likelihood = number * (np.log(shape) - np.log(scale * (1 + ratio)) - gammaln(1 / shape)) - number / shape
        fits[:, :, index] = np.stack([likelihood, scale, ratio * scale], axis=-1)
    flat = fits.reshape(num_samples, -1, 3)
    best = flat[:, :, 0].argmax(1)
    chosen = flat[np.arange(num_samples), best]
    mode = modes[np.arange(num_samples), best // len(SHAPES)]
    return chosen[:, 0], mode, SHAPES[best % len(SHAPES)], chosen[:, 1], chosen[:, 2]


def draw_unimodal(mode, shape, left, right, size, generator):
    """Draws from a two-piece generalized normal law."""
    distances = generator.gamma(1 / shape, size=size) ** (1 / shape)
    is_left = generator.random(size) < left / (left + right)
    return mode + np.where(is_left, -left, right) * distances


def judge_mixture(scores, *, repetitions, seed):
    """Whether two Gaussians describe scores better than one unimodal law could by chance.

    T is the difference of the two log likelihoods. Its p-value is that of tables drawn from the fitted unimodal law.

    Returns:
        dict: `statistic`, `p`, and what was fitted.
    """
    generator = np.random.default_rng(seed)
    mixture, unimodal = fit_two_gaussians(scores), fit_unimodal(scores)
    statistic = float(mixture[0][0] - unimodal[0][0])
    mode, shape, left, right = (float(part[0]) for part in unimodal[1:])
    draws = draw_unimodal(mode, shape, left, right, (repetitions, len(scores)), generator)
    simulated = fit_two_gaussians(draws)[0] - fit_unimodal(draws)[0]
    return {
        "statistic": statistic,
        "p": float((1 + (simulated >= statistic).sum()) / (repetitions + 1)),
        "mixture": dict(
            zip(("weight", "first", "second", "variance"), map(float, np.ravel(mixture[1:])), strict=True)
        ),
        "unimodal": {"mode": mode, "shape": shape, "left": left, "right": right},
    }


def combine_p_values(p_values):
    """min(1, 2 median): valid for the p-values of several splits, however they depend on each other."""
    return float(min(1.0, 2 * np.median(p_values)))


def measure_dip(scores):
    """Hartigan's dip statistic and its p-value.

    Raises:
        ImportError: If `diptest` is not installed.
    """
    try:
        import diptest
    except ImportError as error:
        raise ImportError('The dip test needs diptest: pip install "decahub[mpd_subtyping]".') from error
    statistic, p_value = diptest.diptest(np.ascontiguousarray(scores, dtype=np.float64))
    return float(statistic), float(p_value)


def compute_bimodality(scores):
    """Bimodality coefficient (skewness^2 + 1) / kurtosis; above 5/9 for two far points. Descriptive."""
    number = len(scores)
    centered = (scores - scores.mean()) / scores.std(ddof=1)
    skewness = (centered**3).sum() * number / ((number - 1) * (number - 2))
    kurtosis = (centered**4).sum() * number * (number + 1) / ((number - 1) * (number - 2) * (number - 3))
    return float((skewness**2 + 1) / kurtosis)
