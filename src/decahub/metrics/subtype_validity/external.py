"""Do subtypes differ in what did not make them? Effect sizes with permutation p-values, within site."""

import numpy as np
from scipy.stats import rankdata


KINDS = ("continuous", "ordinal", "categorical")
MAX_CATEGORIES = 12  # integers with more values are taken as continuous


class Variable:
    """One measure of people, ready for many permutations at once.

    Args:
        name (str): of the measure.
        values (array of shape (rows,)): numbers, or names of categories; missing values are left out.
        kind (str, optional): "continuous" (eta^2), "ordinal" (eta^2 of ranks) or "categorical" (Cramer's V); by
            default text is categorical, and numbers are continuous.
    """

    def __init__(self, name, values, kind=None):
        values = np.asarray(values)
        is_text = values.dtype.kind in "OUSb"
        self.name = name
        self.kind = kind or ("categorical" if is_text else "continuous")
        if self.kind not in KINDS:
            raise ValueError(f"the kind of {name!r} must be one of {', '.join(KINDS)}; got {self.kind!r}.")
        if is_text:
            self.known = np.array([value is not None and value == value for value in values.tolist()])
        else:
            self.known = np.isfinite(values.astype(np.float64))
        kept = values[self.known]
        if self.kind == "categorical":
            names, codes = np.unique(kept.astype(str) if is_text else kept, return_inverse=True)
            self.columns = np.zeros((len(values), len(names)))
            self.columns[np.flatnonzero(self.known), codes] = 1
        else:
            numbers = rankdata(kept) if self.kind == "ordinal" else kept.astype(np.float64)
            self.columns = np.zeros((len(values), 1))
            self.columns[self.known, 0] = numbers - (numbers.mean() if len(numbers) else 0)

    @property
    def effect(self):
        """Name of the effect size."""
        return "cramers_v" if self.kind == "categorical" else "eta_squared"

    @property
    def is_testable(self):
        """Whether at least two people differ."""
        if self.kind == "categorical":
            return (self.columns.sum(0) > 0).sum() > 1
        return bool(np.square(self.columns).sum() > 0)

    def count_freedom(self, num_clusters):
        """What a share of variation is divided by to have a mean of 1/rows where there is no association.

        Without it a site of twenty values would always be the largest of several effects.
        """
        others = (self.columns.sum(0) > 0).sum() - 1 if self.kind == "categorical" else 1
        return max(num_clusters - 1, others, 1)

    def measure(self, one_hot):
        """Strength of association for each of many labelings.

        Args:
            one_hot (array of shape (labelings, clusters, rows)): 1 where a row is in the cluster.

        Returns:
            array of shape (labelings,): eta^2, or the square of Cramer's V; both are shares of variation.
        """
        sizes = one_hot @ self.known.astype(np.float64)  # (labelings, clusters)
        sums = one_hot @ self.columns  # (labelings, clusters, columns)
        if self.kind != "categorical":
            between = (np.square(sums[..., 0]) / np.maximum(sizes, 1)).sum(1)
            return between / np.square(self.columns).sum()
        totals = self.columns.sum(0)
        number = totals.sum()
        expected = sizes[..., None] * totals / number
        chi_squared = (np.square(sums - expected) / np.where(expected > 0, expected, 1)).sum((1, 2))
        freedom = np.minimum((sizes > 0).sum(1), (totals > 0).sum()) - 1
        return chi_squared / (number * np.maximum(freedom, 1))


def draw_permutations(num_rows, repetitions, strata, seed):
    """Permutations of rows, within strata where there are such, `(repetitions, rows)`."""
    generator = np.random.default_rng(seed)
    orders = np.tile(np.arange(num_rows), (repetitions, 1))
    groups = [np.arange(num_rows)] if strata is None else [np.flatnonzero(strata == s) for s in np.unique(strata)]
    for rows in groups:
        orders[:, rows] = generator.permuted(orders[:, rows], axis=1)
    return orders


def measure_associations(labels, variables, permutations):
    """Effect size of each variable, its permutation p-value, and that of the largest over variables.

    The largest is sought among effects for each degree of freedom.

    Args:
        labels (array of shape (rows,)): clusters.
        variables (list of Variable): measures.
        permutations (array of shape (repetitions, rows)): orders in which the labels are dealt out again.

    Returns:
        list of dict: for each variable `name`, `effect`, `value`, `p`, `p_max` (Westfall and Young), `num_people`.
    """
    clusters = np.arange(int(labels.max()) + 1)
    observed_one_hot = (labels[None, None] == clusters[:, None]).astype(np.float64)
    shuffled = (labels[permutations][:, None] == clusters[:, None]).astype(np.float64)
    tested = [variable for variable in variables if variable.is_testable]
    observed = np.array([variable.measure(observed_one_hot)[0] for variable in tested])
    simulated = np.stack([variable.measure(shuffled) for variable in tested], axis=1) if tested else np.zeros((1, 0))
    slack = 1e-12  # equal labelings must count as equal
    freedom = np.array([variable.count_freedom(len(clusters)) for variable in tested])
    exceeds = simulated >= observed - slack
    largest = (simulated / freedom).max(1, initial=0)[:, None] >= observed / freedom - slack
    p_values = (1 + exceeds.sum(0)) / (len(permutations) + 1)
    p_max = (1 + largest.sum(0)) / (len(permutations) + 1)
    rows = {
        variable.name: {
            "name": variable.name,
            "effect": variable.effect,
            "value": float(np.sqrt(value) if variable.kind == "categorical" else value),
            "p": float(p),
            "p_max": float(p_largest),
            "num_people": int(variable.known.sum()),
        }
        for variable, value, p, p_largest in zip(tested, observed, p_values, p_max, strict=True)
    }
    absent = {"value": None, "p": None, "p_max": None}
    return [
        rows.get(variable.name, {"name": variable.name, "effect": variable.effect, **absent, "num_people": 0})
        for variable in variables
    ]


def regress_out(features, nuisance, kinds):
    """Features without what is linear in nuisance variables; missing values are taken as the mean."""
    columns = [np.ones((len(features), 1))]
    for key, values in nuisance.items():
        variable = Variable(key, values, (kinds or {}).get(key))
        columns.append(variable.columns[:, 1:] if variable.kind == "categorical" else variable.columns)
    design = np.concatenate(columns, axis=1)
    return features - design @ np.linalg.lstsq(design, features, rcond=None)[0] + features.mean(0)
