"""Could a single Gaussian have given these clusters? SigClust, its tree, the null of the whole pipeline, and gaps."""

import numpy as np
from scipy.cluster.hierarchy import linkage
from scipy.stats import norm

from .partitions import (
    MAX_VALUES,
    cluster_ward,
    compute_cluster_index,
    compute_within,
    cut,
    find_two_means,
)


COVARIANCES = ("sample", "hard", "soft")
LEAST_ROWS = 10  # of a node that is tested
NUM_BISECTIONS = 200


def compute_noise(features):
    """Variance of the background: (median absolute deviation of all entries / 0.6745)^2 (Huang et al. 2015)."""
    entries = features.ravel()
    return float((np.median(np.abs(entries - np.median(entries))) / norm.ppf(0.75)) ** 2)


def estimate_eigenvalues(features, covariance):
    """Eigenvalues of the null covariance in decreasing order.

    Args:
        features (array of shape (rows, columns)): the table.
        covariance (str): "sample": those of the sample, at least 0; "hard": at least the noise; "soft": lowered by tau
            and at least the noise, with tau such that the sum is kept.
    """
    if covariance not in COVARIANCES:
        raise ValueError(f"`covariance` must be one of {', '.join(COVARIANCES)}; got {covariance!r}.")
    values = np.maximum(np.linalg.eigvalsh(np.cov(features, rowvar=False, ddof=1))[::-1], 0)
    if covariance == "sample":
        return values
    noise, total = compute_noise(features), values.sum()
    if covariance == "hard" or noise * len(values) >= total:
        return np.maximum(values, noise)
    low, high = 0.0, float(values[0])
    for _ in range(NUM_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if np.maximum(values - middle, noise).sum() > total else (low, middle)
    return np.maximum(values - (low + high) / 2, noise)


def choose_covariance(features):
    """Name the covariance: "sample" where there are more than two rows for each column, else "soft"."""
    return "sample" if len(features) > 2 * features.shape[1] else "soft"


def compute_p_values(observed, simulated):
    """Empirical p-value, with the observed value among the simulated, and that of a Gaussian through them."""
    empirical = (1 + int((simulated <= observed).sum())) / (len(simulated) + 1)
    deviation = simulated.std(ddof=1)
    return {
        "p_empirical": float(empirical),
        "p_gaussian": float(norm.cdf((observed - simulated.mean()) / deviation)) if deviation else 1.0,
    }


def simulate_two_means(eigenvalues, num_rows, repetitions, seed):
    """Cluster indices of two means in tables of independent Gaussian columns with these variances.

    A rotation changes no distance, so that principal axes will do; columns without variance are left out.
    """
    generator = np.random.default_rng(seed)
    spread = np.sqrt(eigenvalues[eigenvalues > 1e-12 * eigenvalues.max()]).astype(np.float32)
    shape = (num_rows, len(spread))
    step = max(1, MAX_VALUES // (num_rows * len(spread)))  # tables that are in memory at once
    parts = []
    for start in range(0, repetitions, step):
        tables = generator.standard_normal((min(step, repetitions - start), *shape), dtype=np.float32) * spread
        parts.append(find_two_means(tables, [start, seed])[0])
    return np.concatenate(parts)


def judge_two_clusters(features, labels, *, repetitions, seed, covariance=None):
    """SigClust (Liu et al. 2008) of two means, and of given labels where they are two clusters.

    Args:
        features (array of shape (rows, columns)): the table.
        labels (array of shape (rows,)): clusters of the user.
        repetitions (int): simulated tables.
        seed (int): of the tables.
        covariance (str, optional): see `estimate_eigenvalues`; by default what the shape of the table asks for.

    Returns:
        dict: for each covariance `p_empirical`, `p_gaussian` of two means and `labels_p_empirical` of the labels;
        which covariance counts; and the two cluster indices.
    """
    chosen = covariance or choose_covariance(features)
    axes = rotate(features)
    index = float(find_two_means(axes[None], seed)[0][0])
    own = compute_cluster_index(features, labels) if labels.max() == 1 else None
    result = {"covariance": chosen, "cluster_index": index, "labels_cluster_index": own, "by_covariance": {}}
    for name in dict.fromkeys((chosen, "sample", "soft")):
        simulated = simulate_two_means(estimate_eigenvalues(features, name), len(features), repetitions, seed)
        found = compute_p_values(index, simulated)
        if own is not None:
            found |= {f"labels_{key}": value for key, value in compute_p_values(own, simulated).items()}
        result["by_covariance"][name] = found
    return result | result["by_covariance"][chosen]


def rotate(features):
    """Rows on the principal axes."""
    centered = features - features.mean(0)
    _, _, axes = np.linalg.svd(centered, full_matrices=False)
    return centered @ axes.T


def judge_tree(features, *, repetitions, seed, alpha=0.05, multiplicity="fwer", max_nodes=15):
    """Significance of the splits of a Ward tree, from the root (Kimes et al. 2017).

    A node is tested by SigClust on its rows, with Ward as the clusterer. Below a split that is not significant nothing
    is tested. With "fwer" the threshold of a node is alpha (rows of the node - 1) / (rows - 1).

    Returns:
        list of dict: for each tested node the number of rows, `p_gaussian`, `p_empirical`, `threshold`, `rejected`.
    """
    number, waiting = len(features), [np.arange(len(features))]
    tested: list[dict] = []
    while waiting and len(tested) < max_nodes:
        rows = waiting.pop(0)
        part = features[rows]
        if len(rows) < LEAST_ROWS:
            continue
        labels = cut(linkage(part, "ward"), 2)
        eigenvalues = estimate_eigenvalues(part, choose_covariance(part))
        generator = np.random.default_rng([seed, len(tested)])
        spread = np.sqrt(eigenvalues[eigenvalues > 0])
        simulated = np.array(
            [
                compute_cluster_index(table, cluster_ward(table))
                for table in (generator.normal(size=(len(rows), len(spread))) * spread for _ in range(repetitions))
            ]
        )
        found = compute_p_values(compute_cluster_index(part, labels), simulated)
        threshold = alpha * (len(rows) - 1) / (number - 1) if multiplicity == "fwer" else alpha
        rejected = found["p_gaussian"] < threshold
        tested.append({"num_rows": len(rows), **found, "threshold": threshold, "rejected": bool(rejected)})
        if rejected:
            waiting += [rows[labels == label] for label in (0, 1)]
    if multiplicity == "fdr" and tested:
        order = np.argsort([node["p_gaussian"] for node in tested])
        ranks = np.arange(1, len(tested) + 1)
        passed = np.array([tested[index]["p_gaussian"] for index in order]) <= alpha * ranks / len(tested)
        last = int(np.flatnonzero(passed).max()) + 1 if passed.any() else 0
        for rank, index in enumerate(order):
            tested[index]["rejected"] = bool(rank < last)
    return tested


def judge_pipeline(features, labels, cluster, *, repetitions, seed):
    """Cluster index of the method's own labels against the method on Gaussian patients with the same covariance.

    It guards against a method that makes its own clusters.
    """
    if labels.max() < 1:
        return None
    generator = np.random.default_rng(seed)
    spread = np.sqrt(estimate_eigenvalues(features, "sample"))
    simulated = []
    for _ in range(repetitions):
        table = generator.normal(size=features.shape) * spread
        simulated.append(compute_cluster_index(table, cluster(table)))
    observed = compute_cluster_index(features, labels)
    return {"cluster_index": observed, **compute_p_values(observed, np.array(simulated))}


def compute_log_within(features, num_clusters):
    """Log W_k of Ward clusters for k = 1, ..., num_clusters."""
    tree = linkage(features, "ward")
    return np.log([compute_within(features, cut(tree, number)) for number in range(1, num_clusters + 1)])


def compute_gaps(features, uniforms, num_clusters, box="axes"):
    """Gap statistic of Ward clusters (Tibshirani, Walther and Hastie 2001).

    Args:
        features (array of shape (rows, columns)): the table.
        uniforms (array of shape (repetitions, rows, columns)): uniform numbers in [0, 1].
        num_clusters (int): largest number of clusters.
        box (str): "axes" spreads the uniforms over the box along the principal axes, "features" along the columns.

    Returns:
        dict: `log_within` (k,), `references` (repetitions, k), `gaps` (k,), `errors` (k,), and `num_clusters`: the
        smallest k with gap(k) >= gap(k + 1) - error(k + 1).
    """
    frame = rotate(features) if box == "axes" else features
    low, high = frame.min(0), frame.max(0)
    log_within = compute_log_within(features, num_clusters)
    references = np.stack([compute_log_within(low + uniform * (high - low), num_clusters) for uniform in uniforms])
    gaps = references.mean(0) - log_within
    errors = references.std(0) * np.sqrt(1 + 1 / len(uniforms))
    enough = np.flatnonzero(gaps[:-1] >= gaps[1:] - errors[1:])
    chosen = int(enough[0]) + 1 if len(enough) else num_clusters
    return {
        "log_within": log_within, "references": references, "gaps": gaps, "errors": errors, "num_clusters": chosen,
    }  # fmt: skip
