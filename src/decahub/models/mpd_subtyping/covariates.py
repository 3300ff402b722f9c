"""Features of people as deviations from controls: covariates are regressed out by a fit on controls only.

With the design D = [1, age, sex, sites] of controls and their features Y, beta = argmin |Y - D beta|^2, and for
everybody z = (y - d beta) / sd with sd^2 = RSS / (controls - rank D). So controls have mean 0 and unit spread.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np


LEAST_SPREAD = 1e-12  # a feature of controls below this is constant
MAX_COMBAT_STEPS, COMBAT_TOLERANCE = 200, 1e-8
SEX_CODES = {"f": 0.0, "female": 0.0, "m": 1.0, "male": 1.0}


@dataclass
class CovariateModel:
    """The fit on controls.

    Args:
        terms (`list[str]`): names of the numeric columns of the design, in order: `age`, `age^2`, further covariates.
        means (`np.ndarray` of shape `(terms,)`): means of controls.
        deviations (`np.ndarray` of shape `(terms,)`): standard deviations of controls, with n - 1.
        has_sex (`bool`): whether both sexes occur among controls.
        sites (`list[str]`): sites with controls, sorted; the first has no column.
        site_sizes (`np.ndarray` of shape `(sites,)`): controls of each site.
        coefficients (`np.ndarray` of shape `(columns, features)`): beta.
        residual_deviations (`np.ndarray` of shape `(features,)`): sd.
        site_shifts, site_scales (`np.ndarray` of shape `(sites, features)`): of ComBat; empty where sites are
            regressed out.
    """

    terms: list[str]
    means: np.ndarray
    deviations: np.ndarray
    has_sex: bool
    sites: list[str]
    site_sizes: np.ndarray
    coefficients: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    residual_deviations: np.ndarray = field(default_factory=lambda: np.zeros(0))
    site_shifts: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    site_scales: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))

    def build_design(self, numeric: np.ndarray, sex: np.ndarray | None, site: Sequence[str] | None) -> np.ndarray:
        """Design matrix `(people, columns)`; rows of an unknown site have NaN in the columns of sites.

        Args:
            numeric (`np.ndarray` of shape `(people, terms)`): values of `terms`.
            sex (`np.ndarray` of shape `(people,)`, *optional*): 0 or 1.
            site (`Sequence[str]`, *optional*): site of each person.
        """
        columns = [np.ones((len(numeric), 1)), (numeric - self.means) / self.deviations]
        if self.has_sex:
            columns.append(sex[:, None] - 0.5)
        if len(self.sites) > 1:
            number = {name: index for index, name in enumerate(self.sites)}
            index = np.array([number.get(name, -1) for name in site])
            one_hot = (index[:, None] == np.arange(1, len(self.sites))).astype(np.float64)
            one_hot[index < 0] = np.nan
            columns.append(one_hot)
        return np.concatenate(columns, axis=1)

    def fit(self, design: np.ndarray, features: np.ndarray) -> None:
        """Least squares on controls; values that are missing are left out feature by feature."""
        is_known = np.isfinite(features)
        complete = is_known.all(0)
        coefficients = np.empty((design.shape[1], features.shape[1]))
        deviations = np.empty(features.shape[1])
        groups = [(complete, np.ones(len(features), dtype=bool))] if complete.any() else []
        groups += [
            (np.arange(features.shape[1]) == column, is_known[:, column]) for column in np.flatnonzero(~complete)
        ]
        for columns, rows in groups:
            part, values = design[rows], features[np.ix_(rows, columns)]
            solution, _, rank, _ = np.linalg.lstsq(part, values, rcond=None)
            coefficients[:, columns] = solution
            freedom = len(part) - rank
            if freedom < 1:
                raise ValueError(
                    f"`table` must have more controls than covariates and sites ({rank}); got {len(part)} with values."
                )
            deviations[columns] = np.sqrt(np.square(values - part @ solution).sum(0) / freedom)
        self.coefficients, self.residual_deviations = coefficients, deviations

    def pool_sites(self, design: np.ndarray) -> np.ndarray:
        """The design with the mean site, weighted by numbers of controls, where the site is unknown."""
        first = design.shape[1] - (len(self.sites) - 1)
        weights = self.site_sizes[1:] / self.site_sizes.sum()
        pooled = design.copy()
        pooled[:, first:] = np.where(np.isnan(design[:, first:]), weights, design[:, first:])
        return pooled

    def standardize(self, design: np.ndarray, features: np.ndarray, site: Sequence[str] | None = None) -> np.ndarray:
        """Deviations from what controls of the same covariates have, in standard deviations of controls.

        With ComBat, from what controls at the mean site have, then shifted and scaled by `site`.
        """
        if not len(self.site_shifts):
            return (features - design @ self.coefficients) / self.residual_deviations
        deviations = self._compare_with_mean_site(design, features)
        number = {name: index for index, name in enumerate(self.sites)}
        rows = np.array([number.get(name, -1) for name in site])
        shifts = np.vstack([self.site_shifts, np.zeros(features.shape[1])])[rows]  # -1: the mean site
        scales = np.vstack([self.site_scales, np.ones(features.shape[1])])[rows]
        deviations = (deviations - shifts) / scales
        deviations[np.isnan(design).any(1)] = np.nan  # of a site without controls, where that was asked for
        return deviations

    def _compare_with_mean_site(self, design: np.ndarray, features: np.ndarray) -> np.ndarray:
        first = design.shape[1] - (len(self.sites) - 1)
        nowhere = design.copy()
        nowhere[:, first:] = np.nan
        return (features - self.pool_sites(nowhere) @ self.coefficients) / self.residual_deviations

    def fit_combat(self, design: np.ndarray, features: np.ndarray, site: Sequence[str]) -> None:
        """Shift and scale of each site from its controls, shrunken over features (Johnson, Li and Rabinovic 2007).

        The mean g and variance v of deviations at a site have the priors N(m, t) and inverse gamma(a, b), whose
        parameters come from the moments over features. Their posterior means solve
        g* = (n t g + v* m) / (n t + v*), v* = (b + sum((z - g*)^2) / 2) / (n / 2 + a - 1).
        """
        if len(self.sites) < 2:
            return
        with np.errstate(divide="ignore", invalid="ignore"):
            deviations = np.nan_to_num(self._compare_with_mean_site(design, features))  # missing: as the mean
        varies = self.residual_deviations >= LEAST_SPREAD
        names = np.asarray(site)
        shifts, scales = np.zeros((len(self.sites), features.shape[1])), np.ones((len(self.sites), features.shape[1]))
        for index, name in enumerate(self.sites):
            part = deviations[names == name][:, varies]
            if len(part) < 2 or part.shape[1] < 2:
                raise ValueError(
                    f"ComBat must have at least 2 controls at each site and 2 features; {name!r} has {len(part)} "
                    f"and {part.shape[1]}. Set `harmonize='regress'`."
                )
            shift, variance = _shrink_site(part)
            shifts[index, varies], scales[index, varies] = shift, np.sqrt(variance)
        self.site_shifts, self.site_scales = shifts, scales


def _shrink_site(deviations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Posterior mean and variance of each feature at one site."""
    number = len(deviations)
    mean, variance = deviations.mean(0), deviations.var(0, ddof=1)
    prior_mean, prior_variance = mean.mean(), mean.var(ddof=1)
    level, spread = variance.mean(), max(variance.var(ddof=1), LEAST_SPREAD)
    shape, rate = (2 * spread + level**2) / spread, (level * spread + level**3) / spread
    shift, scale = mean, variance
    for _ in range(MAX_COMBAT_STEPS):
        new_shift = (number * prior_variance * mean + scale * prior_mean) / (number * prior_variance + scale)
        squares = np.square(deviations - new_shift).sum(0)
        new_scale = (rate + squares / 2) / (number / 2 + shape - 1)
        change = max(np.abs(new_shift - shift).max(), np.abs(new_scale - scale).max())
        shift, scale = new_shift, new_scale
        if change < COMBAT_TOLERANCE:
            break
    return shift, scale


def encode_sex(values: np.ndarray) -> np.ndarray:
    """0 for female, 1 for male; numbers 0 and 1 stay, 1 and 2 become 0 and 1.

    Raises:
        ValueError: If a value is something else.
    """
    if values.dtype.kind in "iufb":
        numbers = values.astype(np.float64)
        if np.isnan(numbers).any():
            raise ValueError("`sex` must be known for everybody; got a missing value.")
        found = set(np.unique(numbers))
        if found <= {0.0, 1.0}:
            return numbers
        if found <= {1.0, 2.0}:
            return numbers - 1
        raise ValueError(f"`sex` must be F or M, 0 or 1, or 1 or 2; got {sorted(found)[:4]}.")
    encoded = [SEX_CODES.get(str(value).strip().lower()) for value in values]
    if None in encoded:
        raise ValueError(f"`sex` must be F or M, 0 or 1, or 1 or 2; got {values[encoded.index(None)]!r}.")
    return np.array(encoded, dtype=np.float64)


__all__ = ["LEAST_SPREAD", "CovariateModel", "encode_sex"]
