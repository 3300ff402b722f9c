"""Which features differ between patients and controls.

A subtype pattern and its opposite cancel in the mean: at 60 against 40 percent of the patients, a fifth of the effect
is left. The spread grows instead. `"mean_or_spread"` looks at both.
"""

from collections.abc import Callable

import numpy as np


try:
    from scipy import stats
except ImportError as error:
    raise ImportError('Selecting features needs scipy: pip install "decahub[mpd_subtyping]".') from error


def compare_means(patients: np.ndarray, controls: np.ndarray, *, equal_variances: bool = True) -> tuple:
    """Two-sample t statistics (patients minus controls) and two-sided p-values; Welch's if variances may differ."""
    result = stats.ttest_ind(patients, controls, equal_var=equal_variances)
    return np.asarray(result.statistic), np.asarray(result.pvalue)


def compare_spreads(patients: np.ndarray, controls: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Brown-Forsythe statistics and p-values: whether distances from the group's median differ."""
    result = stats.levene(patients, controls, center="median")
    return np.asarray(result.statistic), np.asarray(result.pvalue)


def combine_p_values(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """min(1, 2 min(p, p')): p-value of the smaller of two."""
    return np.minimum(1.0, 2 * np.minimum(first, second))


def adjust_p_values(p_values: np.ndarray) -> np.ndarray:
    """q-values of Benjamini and Hochberg."""
    return stats.false_discovery_control(p_values, method="bh")


def compute_cohens_d(patients: np.ndarray, controls: np.ndarray) -> np.ndarray:
    """Difference of means in pooled standard deviations, patients minus controls."""
    first, second = len(patients), len(controls)
    pooled = ((first - 1) * patients.var(0, ddof=1) + (second - 1) * controls.var(0, ddof=1)) / (first + second - 2)
    return (patients.mean(0) - controls.mean(0)) / np.sqrt(pooled)


def _by_mean(patients: np.ndarray, controls: np.ndarray) -> np.ndarray:
    return compare_means(patients, controls)[1]


def _by_welch(patients: np.ndarray, controls: np.ndarray) -> np.ndarray:
    return compare_means(patients, controls, equal_variances=False)[1]


def _by_mean_or_spread(patients: np.ndarray, controls: np.ndarray) -> np.ndarray:
    return combine_p_values(_by_mean(patients, controls), compare_spreads(patients, controls)[1])


# Selection to the p-value of a feature, and whether its false discovery rate is controlled.
SELECTIONS: dict[str, tuple[Callable[[np.ndarray, np.ndarray], np.ndarray], bool]] = {
    "ttest_fdr": (_by_mean, True),
    "welch_fdr": (_by_welch, True),
    "ttest_p": (_by_mean, False),
    "top_k": (_by_mean, False),
    "mean_or_spread": (_by_mean_or_spread, True),
}


def select_features(
    patients: np.ndarray,
    controls: np.ndarray,
    selection: str,
    *,
    false_discovery_rate: float,
    p_threshold: float,
    top_k: int,
    min_features: int,
) -> tuple[np.ndarray, int]:
    """Features to keep, and how many passed.

    Where fewer than `min_features` pass, those with the smallest p-values are kept instead.

    Returns:
        `tuple`: mask of shape `(features,)`, and the number that passed the threshold.
    """
    compute, is_adjusted = SELECTIONS[selection]
    p_values = compute(patients, controls)
    order = np.argsort(p_values, kind="stable")
    kept = np.zeros(len(p_values), dtype=bool)
    if selection == "top_k":
        kept[order[:top_k]] = True
        return kept, int(kept.sum())
    kept = (adjust_p_values(p_values) < false_discovery_rate) if is_adjusted else p_values < p_threshold
    num_passed = int(kept.sum())
    if num_passed < min_features:
        kept[order[:min_features]] = True
    return kept, num_passed


__all__ = [
    "SELECTIONS",
    "adjust_p_values",
    "combine_p_values",
    "compute_cohens_d",
    "select_features",
    "compare_means",
    "compare_spreads",
]
