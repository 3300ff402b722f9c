"""Partitions: canonical labels, Ward, two means of many tables at once, and how alike two partitions are."""

import numpy as np
from scipy.cluster.hierarchy import linkage
from sklearn.metrics import adjusted_rand_score


NUM_STARTS, NUM_STEPS = 10, 25  # of two means
MAX_VALUES = 2**24  # of tables that are clustered at once by a caller


def canonical_labels(labels):
    """Labels by decreasing size of their cluster, ties by first occurrence."""
    _, first, inverse, counts = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
    order = np.lexsort((first, -counts))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return rank[inverse]


def cut(tree, num_clusters):
    """Canonical labels of a linkage tree cut into a number of clusters."""
    num_rows = len(tree) + 1
    num_merges = max(0, num_rows - num_clusters)
    root = list(range(num_rows + num_merges))
    children = tree[:num_merges, :2].astype(int).tolist()
    for node in range(num_rows + num_merges - 1, num_rows - 1, -1):
        for child in children[node - num_rows]:
            root[child] = root[node]
    return canonical_labels(np.array(root[:num_rows]))


def cluster_ward(features, seed=0, num_subtypes=2):
    """Ward clusters of rows."""
    return cut(linkage(features, "ward"), num_subtypes)


def cluster_kmeans(features, seed=0, num_subtypes=2):
    """k-means clusters of rows, the best of ten starts."""
    from sklearn.cluster import KMeans

    return canonical_labels(KMeans(num_subtypes, n_init=NUM_STARTS, random_state=seed).fit_predict(features))


def compute_within(features, labels):
    """Sum over clusters of the squared distances to their means."""
    one_hot = np.eye(int(labels.max()) + 1)[labels]
    means = one_hot.T @ features / np.maximum(one_hot.sum(0), 1)[:, None]
    return float(np.square(features - means[labels]).sum())


def compute_cluster_index(features, labels):
    """Within-cluster sum of squares over the total one: the statistic of SigClust."""
    return compute_within(features, labels) / float(np.square(features - features.mean(0)).sum())


def find_two_means(tables, seed=0):
    """Smallest cluster index of two clusters in each of many tables, by Lloyd's steps from ten starts.

    One start divides the rows at the mean of the first column, so that tables on principal axes begin along the
    longest; the others are pairs of rows. All starts of all tables move at once.

    Args:
        tables (array of shape (tables, rows, columns)): the tables.
        seed (int): of the pairs of rows.

    Returns:
        tuple: cluster index of each table, (tables,), and its labels, (tables, rows).
    """
    generator = np.random.default_rng(seed)
    tables = (tables - tables.mean(1, keepdims=True)).astype(np.float32)
    num_tables, num_rows, _ = tables.shape
    total = np.square(tables, dtype=np.float64).sum((1, 2))
    high = (tables[:, :, 0] > 0).astype(np.float32)
    pairs = generator.integers(0, num_rows, (num_tables, NUM_STARTS - 1, 2))
    rows = np.arange(num_tables)[:, None]
    differences = tables[rows, pairs[..., 0]] - tables[rows, pairs[..., 1]]
    middles = (tables[rows, pairs[..., 0]] + tables[rows, pairs[..., 1]]) / 2
    thresholds = (differences * middles).sum(-1)
    sides = tables @ differences.transpose(0, 2, 1) > thresholds[:, None]  # (tables, rows, starts - 1)
    sides = np.concatenate([high[:, :, None], sides.astype(np.float32)], axis=2)
    for _ in range(NUM_STEPS):
        sizes = np.clip(sides.sum(1), 1, num_rows - 1)  # (tables, starts)
        sums = sides.transpose(0, 2, 1) @ tables  # (tables, starts, columns); those of the other side are -sums
        first, second = sums / sizes[..., None], -sums / (num_rows - sizes)[..., None]
        differences = first - second
        thresholds = (differences * (first + second) / 2).sum(-1)
        moved = (tables @ differences.transpose(0, 2, 1) > thresholds[:, None]).astype(np.float32)
        if np.array_equal(moved, sides):
            break
        sides = moved
    sizes = np.clip(sides.sum(1, dtype=np.float64), 1, num_rows - 1)
    sums = (sides.transpose(0, 2, 1) @ tables).astype(np.float64)
    between = np.square(sums).sum(-1) * (1 / sizes + 1 / (num_rows - sizes))
    best = between.argmax(1)
    labels = sides[np.arange(num_tables), :, best].astype(np.int64)
    return 1 - between.max(1) / total, labels


def compute_jaccard(labels, rows, new_labels):
    """Of each original cluster in some rows, the largest Jaccard similarity to a new cluster; NaN if none is there."""
    return _max_jaccard(labels[rows], new_labels, int(labels.max()) + 1)


def _max_jaccard(old, new, num_clusters):
    table = np.zeros((num_clusters, int(new.max()) + 1))
    np.add.at(table, (old, new), 1)
    union = table.sum(1, keepdims=True) + table.sum(0) - table
    best = (table / union).max(1)
    return np.where(table.sum(1) > 0, best, np.nan)


def compute_prediction_strengths(features, cluster, permutations):
    """Prediction strength of half splits, two values each (Tibshirani and Walther 2005).

    Half b is clustered, and classified to the nearest centroid of the clusters of half a. Of each cluster of b it is
    the share of pairs that stay together; the lowest one counts, and a single row counts 1.
    """
    values = []
    for order in permutations:
        halves = np.split(order, [len(order) // 2])
        labels = [cluster(features[half]) for half in halves]
        for known, new in ((0, 1), (1, 0)):
            predicted = classify_to_centroids(features[halves[known]], labels[known], features[halves[new]])
            values.append(compute_lowest_strength(predicted, labels[new]))
    return np.array(values)


def classify_to_centroids(known, labels, new):
    """Nearest mean of the clusters of some rows, for each of other rows."""
    one_hot = np.eye(int(labels.max()) + 1)[labels]
    means = one_hot.T @ known / one_hot.sum(0)[:, None]
    return (np.square(means).sum(1) - 2 * new @ means.T).argmin(1)


def compute_lowest_strength(predicted, labels):
    """Share of pairs of a cluster that are predicted together, in the cluster where it is the lowest."""
    strengths = []
    for label in np.unique(labels):
        counts = np.bincount(predicted[labels == label])
        size = counts.sum()
        strengths.append(float((counts * (counts - 1)).sum() / (size * (size - 1))) if size > 1 else 1.0)
    return min(strengths)


def compare(first, second):
    """Adjusted Rand index."""
    return float(adjusted_rand_score(first, second))
