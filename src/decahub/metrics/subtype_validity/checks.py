"""The checks, each with its values, repetitions, rule of thumb, outcome, and one sentence."""

import numpy as np

from .discreteness import combine_p_values, compute_bimodality, judge_mixture, measure_dip
from .external import Variable, draw_permutations, measure_associations
from .partitions import classify_to_centroids, compare, compute_jaccard, compute_prediction_strengths
from .significance import compute_gaps, judge_pipeline, judge_tree, judge_two_clusters


PASS, FAIL, NOT_APPLICABLE = "pass", "fail", "na"
LEVEL = 0.05
VALID, STRONG = 0.75, 0.8  # Jaccard (Hennig 2007), prediction strength (Tibshirani and Walther 2005)
NUISANCE_EFFECT = 0.10
MAX_GAP_CLUSTERS = 6
NUM_BINS = 30
TRAIN_SHARE, FOLDS = 0.8, 5
OVER_FIT = 1.25
LEAST_SITE = (15, 10)  # patients and controls of a site that is left out alone


class Study:
    """What all checks read.

    Args:
        features (array of shape (rows, columns)): features of patients.
        labels (array of shape (rows,)): their subtypes, 0 for the largest.
        cluster: `cluster(features, seed=0, num_subtypes=None)` gives labels.
        repetitions (dict): how often each check draws.
        seed (int): of every draw.
        site (array, optional): of the patients.
    """

    def __init__(self, features, labels, cluster, repetitions, seed, site=None):
        self.features, self.labels, self.cluster = features, labels, cluster
        self.repetitions, self.seed, self.site = repetitions, seed, site
        self.num_subtypes = int(labels.max()) + 1

    def generator(self, name):
        """Random numbers of one check: they do not depend on which others are made."""
        return np.random.default_rng([self.seed, *name.encode()])

    def recluster(self, features):
        """As many subtypes as the labels have."""
        return self.cluster(features, seed=self.seed, num_subtypes=self.num_subtypes)

    def build(self, name, values, rule, outcome, sentence, repetitions=None):
        """The record of a check."""
        if isinstance(outcome, bool | np.bool_):
            outcome = PASS if outcome else FAIL
        return {
            "name": name,
            "values": values,
            "repetitions": self.repetitions.get(name) if repetitions is None else repetitions,
            "seed": self.seed,
            "rule": rule,
            "outcome": outcome,
            "sentence": sentence,
        }

    def skip(self, name, reason):
        """The record of a check that cannot be made."""
        return self.build(name, {}, "", NOT_APPLICABLE, reason, 0)


# Stability


def check_jaccard(study):
    """Bootstrap stability of each cluster."""
    name, rule = "jaccard", "Hennig 2007: below 0.6 do not trust, 0.75 valid, 0.85 highly stable"
    generator, number = study.generator(name), len(study.labels)
    values = []
    for _ in range(study.repetitions[name]):
        rows = np.unique(generator.integers(0, number, number))
        values.append(compute_jaccard(study.labels, rows, study.recluster(study.features[rows])))
    means = np.nanmean(values, axis=0)
    lowest = float(means.min())
    words = "valid" if lowest >= VALID else "a pattern without certain membership" if lowest >= 0.6 else "not to trust"
    sentence = (
        "In bootstrap samples each cluster is found again with a mean Jaccard similarity of at least "
        f"{lowest:.2f}: {words}."
    )
    found = {
        "means": means.tolist(),
        "minimum": lowest,
        "dissolved": (np.array(values) < 0.5).sum(0).tolist(),
        "recovered": (np.array(values) >= VALID).sum(0).tolist(),
    }
    return study.build(name, found, rule, lowest >= VALID, sentence)


def check_subsampling(study):
    """Agreement with partitions of 80 percent of the patients."""
    name, generator, number = "subsampling", study.generator("subsampling"), len(study.labels)
    values = []
    for _ in range(study.repetitions[name]):
        rows = np.sort(generator.permutation(number)[: round(TRAIN_SHARE * number)])
        values.append(compare(study.labels[rows], study.recluster(study.features[rows])))
    mean, low = float(np.mean(values)), float(np.quantile(values, 0.05))
    sentence = (
        "Without a fifth of the patients the same partition is found with a mean adjusted Rand index of "
        f"{mean:.2f} (5th percentile {low:.2f})."
    )
    return study.build(name, {"mean": mean, "quantile_05": low}, "descriptive", NOT_APPLICABLE, sentence)


def check_members(study, fit_report):
    """Agreement of runs, of embedding sizes, and of members."""
    if fit_report is None:
        return study.skip("members", "No report of a fit was given, so members were not compared.")
    found = {}
    for key in ("ari_between_runs", "ari_between_sizes"):
        matrix = np.asarray(fit_report[key])
        pairs = matrix[np.triu_indices(len(matrix), 1)]
        found[key] = matrix.tolist()
        found[f"mean_{key}"] = float(pairs.mean()) if len(pairs) else None
    found |= {key: float(fit_report[key]) for key in ("pac", "cophenetic_correlation")}
    mean = found["mean_ari_between_runs"]
    runs = (
        "There is one run."
        if mean is None
        else f"Runs with other seeds agree with a mean adjusted Rand index of {mean:.2f}."
    )
    sentence = f"{runs} {found['pac']:.0%} of the pairs of patients are ambiguous."
    return study.build("members", found, "descriptive", NOT_APPLICABLE, sentence, 0)


# Significance


def check_significance(study, covariance=None):
    """SigClust."""
    name, rule = "significance", f"p < {LEVEL} against one Gaussian (Liu et al. 2008)"
    found = judge_two_clusters(
        study.features, study.labels, repetitions=study.repetitions[name], seed=study.seed, covariance=covariance
    )
    p = found["p_empirical"]
    decisions = {part: values["p_empirical"] < LEVEL for part, values in found["by_covariance"].items()}
    sentence = (
        f"Two clusters are {'tighter than' if p < LEVEL else 'as tight as'} those of a single Gaussian cloud (p "
        f"= {p:.3g})."
        " A continuum that is not Gaussian may give the same."
    )
    if len(set(decisions.values())) > 1:
        sentence += " The estimates of the covariance disagree: read both."
    return study.build(name, found, rule, p < LEVEL, sentence)


def check_tree(study):
    """Significant splits of a Ward tree."""
    nodes = judge_tree(study.features, repetitions=study.repetitions["tree"], seed=study.seed)
    count = sum(node["rejected"] for node in nodes)
    splits = f"{count} significant split{'' if count == 1 else 's'}"
    clusters = f"{count + 1} cluster{'s' if count else ''}"
    sentence = f"A Ward tree has {splits} from its root, which speaks for {clusters}."
    rule = f"family-wise {LEVEL} (Kimes et al. 2017)"
    return study.build("tree", {"nodes": nodes, "num_clusters": count + 1}, rule, count > 0, sentence)


def check_pipeline_null(study):
    """The whole method on Gaussian patients."""
    name = "pipeline_null"
    found = judge_pipeline(
        study.features, study.labels, study.recluster, repetitions=study.repetitions[name], seed=study.seed
    )
    if found is None:
        return study.skip(name, "There is one subtype, so there is nothing to compare.")
    p = found["p_empirical"]
    sentence = (
        "On patients drawn from one Gaussian with the same covariance the method makes clusters that are "
        f"{'looser' if p < LEVEL else 'as tight'} (p = {p:.3g})."
    )
    return study.build(name, found, f"p < {LEVEL}", p < LEVEL, sentence)


def check_gap(study):
    """Number of clusters by the gap statistic."""
    name = "gap"
    shape = (study.repetitions[name], *study.features.shape)
    number = min(MAX_GAP_CLUSTERS, len(study.labels) - 1)
    found = compute_gaps(study.features, study.generator(name).random(shape, dtype=np.float32), number)
    chosen = found["num_clusters"]
    values = {"num_clusters": chosen, "gaps": found["gaps"].tolist(), "errors": found["errors"].tolist()}
    sentence = f"The gap statistic chooses {chosen} cluster{'s' if chosen > 1 else ''}."
    return study.build(name, values, "more than one cluster (Tibshirani et al. 2001)", chosen > 1, sentence)


# Discreteness


def check_mixture(study, scores):
    """Two Gaussians against one unimodal law."""
    name, rule = "mixture", f"p < {LEVEL} against the best unimodal law, combined over random halves"
    fits = [
        judge_mixture(values, repetitions=study.repetitions[name], seed=[study.seed, index])
        for index, values in enumerate(scores)
    ]
    p = combine_p_values([fit["p"] for fit in fits])
    counts, edges = np.histogram(scores[0], bins=NUM_BINS)
    found = {
        "p": p,
        "p_of_splits": [fit["p"] for fit in fits],
        "statistic": float(np.median([fit["statistic"] for fit in fits])),
        "fit": {key: fits[0][key] for key in ("mixture", "unimodal")},
        "histogram": {"counts": counts.tolist(), "edges": edges.tolist()},
        "bimodality_coefficient": compute_bimodality(scores[0]),
    }
    sentence = (
        f"Patients lie in two groups with few between (p = {p:.3g})."
        if p < LEVEL
        else f"One unimodal law describes the patients as well as two groups (p = {p:.3g}); it may be a continuum."
    )
    return study.build(name, found, rule, p < LEVEL, sentence)


def check_dip(study, scores):
    """Hartigan's dip test on the same scores."""
    results = [measure_dip(values) for values in scores]
    statistic, p = (float(np.median(values)) for values in zip(*results, strict=True))
    sentence = f"The dip test, which assumes nothing and misses most mixtures, gives p = {p:.3g}."
    return study.build(
        "dip", {"statistic": statistic, "p": p}, f"p < {LEVEL} (conservative)", p < LEVEL, sentence, len(scores)
    )


# Generalization


def check_prediction_strength(study):
    """Prediction strength of half splits."""
    name, generator = "prediction_strength", study.generator("prediction_strength")
    orders = [generator.permutation(len(study.labels)) for _ in range(study.repetitions[name])]
    mean = float(np.mean(compute_prediction_strengths(study.features, study.recluster, orders)))
    sentence = (
        "A partition of one half of the patients is found again in the other half with a prediction strength of "
        f"{mean:.2f}."
    )
    return study.build(
        name, {"mean": mean}, f"at least {STRONG} (Tibshirani and Walther 2005)", mean >= STRONG, sentence
    )


def check_transfer(study, transfer):
    """Assignment of patients who took no part in a fit, against a fit on them."""
    name, generator, number = "assignment_transfer", study.generator("assignment_transfer"), len(study.labels)
    fit_and_assign = transfer or _build_transfer(study)
    values = []
    for _ in range(study.repetitions[name]):
        for fold in np.array_split(generator.permutation(number), FOLDS):
            values.append(_compare_transfer(fit_and_assign, np.setdiff1d(np.arange(number), fold), np.sort(fold)))
    mean = float(np.mean(values))
    how = "with covariates and selection" if transfer else "on given features"
    sentence = (
        f"New patients get the subtype that a fit on them would give with an adjusted Rand index of {mean:.2f} "
        f"({how})."
    )
    return study.build(name, {"mean": mean}, "descriptive", NOT_APPLICABLE, sentence)


def check_sites(study, transfer):
    """The same, site by site."""
    name = "leave_site_out"
    if study.site is None or len(np.unique(study.site)) < 2:
        return study.skip(name, "There are not several sites.")
    fit_and_assign = transfer or _build_transfer(study)
    names, counts = np.unique(study.site, return_counts=True)
    large = [site for site, count in zip(names, counts, strict=True) if count >= LEAST_SITE[0]]
    groups = {str(site): np.flatnonzero(study.site == site) for site in large}
    pooled = np.flatnonzero(~np.isin(study.site, large))
    if len(pooled) >= LEAST_SITE[0]:
        groups["small sites"] = pooled
    rows = []
    for site, members in groups.items():
        rest = np.setdiff1d(np.arange(len(study.labels)), members)
        if len(rest) >= LEAST_SITE[0]:
            rows.append(
                {"site": site, "num_patients": len(members), "ari": _compare_transfer(fit_and_assign, rest, members)}
            )
    if not rows:
        return study.skip(name, f"No site has {LEAST_SITE[0]} patients.")
    mean = float(np.average([row["ari"] for row in rows], weights=[row["num_patients"] for row in rows]))
    sentence = (
        "Patients of a site that took no part get the subtype that a fit on that site would give with an "
        f"adjusted Rand index of {mean:.2f}."
    )
    return study.build(name, {"mean": mean, "sites": rows}, "descriptive", NOT_APPLICABLE, sentence, len(rows))


def _compare_transfer(fit_and_assign, train, test):
    assigned, own = fit_and_assign(train, test)
    return compare(assigned, own)


def _build_transfer(study):
    def fit_and_assign(train, test):
        known = study.recluster(study.features[train])
        assigned = classify_to_centroids(study.features[train], known, study.features[test])
        return assigned, study.recluster(study.features[test])

    return fit_and_assign


# Representation


def check_representation(study, model, training):
    """Error of the autoencoders on patients they were not trained on, beside that of principal components."""
    name = "representation"
    if model is None or not hasattr(model, "measure_reconstruction"):
        return study.skip(name, "No model was given, so its representation was not measured.")
    if model.config.encoder == "linear":
        return study.skip(name, "The encoder is linear: it is its own baseline.")
    generator, number = study.generator(name), len(study.labels)
    folds = np.array_split(generator.permutation(number), FOLDS)
    parts = []
    for fold in folds[: study.repetitions[name]]:
        rest = np.setdiff1d(np.arange(number), fold)
        parts.append(model.measure_reconstruction(study.features[rest], study.features[fold], **(training or {})))
    rows = []
    for size in parts[0]:
        table = {key: np.array([part[size][key] for part in parts]) for key in parts[0][size]}
        excess = table["test_error"] - table["test_error_pca"]
        error = excess.std(ddof=1) / np.sqrt(len(excess)) if len(excess) > 1 else 0.0
        ratio = table["test_error"].mean() / table["train_error"].mean()
        rows.append(
            {
                "size": int(size),
                **{key: float(values.mean()) for key, values in table.items()},
                "ratio": float(ratio),
                "over_fits": bool(ratio > OVER_FIT),
                "beats_pca": bool(excess.mean() < -error),
                "learns_nothing": bool(table["test_error"].mean() >= table["test_variance"].mean()),
            }
        )
    counts = {key: sum(row[key] for row in rows) for key in ("over_fits", "beats_pca", "learns_nothing")}
    sentence = (
        f"Of {len(rows)} embedding sizes {counts['over_fits']} over-fit, and {counts['beats_pca']} give back "
        "unseen patients "
        "better than as many principal components do."
    )
    rule = (
        f"error on unseen patients at most {OVER_FIT} times that on training patients, and below that of "
        "principal components"
    )
    outcome = counts["over_fits"] == 0 and counts["learns_nothing"] == 0
    return study.build(name, {"sizes": rows, **counts}, rule, outcome, sentence, len(parts))


# External validity


def check_external(study, clinical, kinds):
    """Differences between subtypes in clinical measures."""
    name = "external"
    if not clinical:
        return study.skip(name, "No clinical measures were given.")
    rows = _measure(study, name, clinical, kinds)
    found = [row["name"] for row in rows if row["p_max"] is not None and row["p_max"] < LEVEL]
    sentence = f"Subtypes differ in {', '.join(found)}." if found else "Subtypes differ in no clinical measure."
    return study.build(name, {"variables": rows}, f"p < {LEVEL} over all measures", bool(found), sentence)


def check_nuisance(study, nuisance, kinds):
    """Association of subtypes with what must not make them."""
    name = "nuisance"
    if not nuisance:
        return study.skip(name, "No site, motion or other nuisance was given.")
    rows = _measure(study, name, nuisance, kinds, within_site=False)
    found = [
        row["name"]
        for row in rows
        if row["p_max"] is not None and row["p_max"] < LEVEL and row["value"] >= NUISANCE_EFFECT
    ]
    sentence = (
        f"Subtypes go along with {', '.join(found)}: they may be made by it."
        if found
        else f"Subtypes go along with none of {', '.join(nuisance)}."
    )
    values = {"variables": rows, "associated": found}
    rule = f"no effect of at least {NUISANCE_EFFECT} at p < {LEVEL} over all"
    return study.build(name, values, rule, not found, sentence)


def check_diagnosis(study, diagnosis):
    """Whether subtypes cut across diagnoses."""
    name = "diagnosis"
    if diagnosis is None or len(np.unique(diagnosis)) < 2:
        return study.skip(name, "There are not several diagnoses.")
    (row,) = _measure(study, name, {"diagnosis": diagnosis}, {"diagnosis": "categorical"})
    names = np.unique(diagnosis)
    table = [[int(((study.labels == s) & (diagnosis == d)).sum()) for d in names] for s in range(study.num_subtypes)]
    value, p = row["value"], row["p"]
    words = "follow diagnoses" if p < LEVEL and value >= NUISANCE_EFFECT else "cut across diagnoses"
    sentence = f"Subtypes {words} (Cramer's V {value:.2f}, p = {p:.3g})."
    found = {"cramers_v": value, "p": p, "diagnoses": names.tolist(), "table": table}
    return study.build(name, found, "descriptive", NOT_APPLICABLE, sentence)


def _measure(study, name, table, kinds, within_site=True):
    variables = [Variable(key, values, (kinds or {}).get(key)) for key, values in table.items()]
    strata = study.site if within_site else None
    orders = draw_permutations(len(study.labels), study.repetitions[name], strata, [study.seed, *name.encode()])
    return measure_associations(study.labels, variables, orders)
