"""From many embeddings to subtypes: base clusters, co-association, fine clusters, merges, votes. NumPy, float64.

Labels have no meaning across members, so they are never matched: two patients are similar as often as members put
them together. Everywhere labels are canonical: 0 is the largest cluster, and of equal ones the one that occurs first.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np


try:
    from scipy.cluster.hierarchy import cophenet, linkage
    from scipy.spatial.distance import squareform
except ImportError as error:
    raise ImportError('Clustering needs scipy: pip install "decahub[mpd_subtyping]".') from error

AMBIGUOUS = (0.1, 0.9)  # a pair between these shares of members is ambiguous (PAC)
NUM_BINS = 20
TIE = 1e-12  # shares are fractions of small integers; rounding is far below
KMEANS_STARTS = 3  # few, since what one start misses the other members find


@dataclass(frozen=True)
class Consensus:
    """What the clusterings of all members agree on.

    Args:
        coassociation (`np.ndarray` of shape `(n, n)`): share of members that put two patients together.
        tree (`np.ndarray` of shape `(n - 1, 4)`): average linkage of 1 - co-association.
        fine_labels (`np.ndarray` of shape `(n,)`): fine clusters.
        fine_similarity (`np.ndarray` of shape `(K, K)`): mean co-association between fine clusters.
        merge_map (`np.ndarray` of shape `(K,)`): subtype of each fine cluster.
        merge_history (`np.ndarray` of shape `(merges, 3)`): positions and similarity of the groups joined.
        subtypes (`np.ndarray` of shape `(n,)`): subtype of each patient.
    """

    coassociation: np.ndarray
    tree: np.ndarray
    fine_labels: np.ndarray
    fine_similarity: np.ndarray
    merge_map: np.ndarray
    merge_history: np.ndarray
    subtypes: np.ndarray


def canonical_labels(labels: np.ndarray) -> np.ndarray:
    """Renumber labels by decreasing size, ties by first occurrence."""
    _, first, inverse, counts = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
    order = np.lexsort((first, -counts))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return rank[inverse]


def cut(tree: np.ndarray, num_clusters: int) -> np.ndarray:
    """Canonical labels of a linkage tree cut into a number of clusters: the first merges are made, the others not.

    SciPy's `fcluster` gives fewer clusters where heights are equal, which co-associations often are.
    """
    num_rows = len(tree) + 1
    num_merges = max(0, num_rows - num_clusters)
    root = list(range(num_rows + num_merges))
    children = tree[:num_merges, :2].astype(int).tolist()
    for node in range(num_rows + num_merges - 1, num_rows - 1, -1):  # parents come after their children
        for child in children[node - num_rows]:
            root[child] = root[node]
    return canonical_labels(np.array(root[:num_rows]))


def cluster_ward(features: np.ndarray, num_clusters: int, seed: int = 0) -> np.ndarray:
    """Ward clusters of rows; `seed` is unused, since nothing is drawn."""
    return cut(linkage(features, "ward"), num_clusters)


def cluster_kmeans(features: np.ndarray, num_clusters: int, seed: int = 0) -> np.ndarray:
    """k-means clusters of rows, the best of three starts."""
    from sklearn.cluster import KMeans

    found = KMeans(num_clusters, n_init=KMEANS_STARTS, random_state=seed).fit_predict(features)
    return canonical_labels(found)


def cluster_gmm(features: np.ndarray, num_clusters: int, seed: int = 0) -> np.ndarray:
    """Clusters of rows by a mixture of Gaussians with full covariances."""
    from sklearn.mixture import GaussianMixture

    found = GaussianMixture(num_clusters, random_state=seed, reg_covar=1e-4).fit_predict(features)
    return canonical_labels(found)


CLUSTERERS: dict[str, Callable[[np.ndarray, int, int], np.ndarray]] = {
    "ward": cluster_ward,
    "kmeans": cluster_kmeans,
    "gmm": cluster_gmm,
}


def scale_embedding(embedding: np.ndarray) -> float:
    """Overall root mean square of an embedding, by which it is divided; 1 for an embedding of zeros."""
    return float(np.sqrt(np.mean(np.square(embedding)))) or 1.0


def compute_coassociation(base_labels: np.ndarray) -> np.ndarray:
    """Share of members that put two patients together, by one product of stacked one-hot labels.

    Args:
        base_labels (`np.ndarray` of shape `(members, n)`): clusters of each member.

    Returns:
        `np.ndarray` of shape `(n, n)`, with ones on the diagonal.
    """
    num_members, num_rows = base_labels.shape
    width = int(base_labels.max()) + 1
    columns = base_labels + width * np.arange(num_members)[:, None]
    one_hot = np.zeros((num_rows, num_members * width), dtype=np.float32)  # counts are exact in float32
    one_hot[np.arange(num_rows), columns] = 1
    return (one_hot @ one_hot.T).astype(np.float64) / num_members


def build_tree(coassociation: np.ndarray) -> np.ndarray:
    """Average linkage of the distances 1 - co-association."""
    distances = 1 - coassociation
    np.fill_diagonal(distances, 0)
    return linkage(squareform(distances, checks=False), "average")


def compute_similarity(coassociation: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean co-association over the pairs of each two clusters; a patient and itself are a pair, too."""
    one_hot = np.eye(int(labels.max()) + 1)[labels]
    sizes = one_hot.sum(0)
    return one_hot.T @ coassociation @ one_hot / np.outer(sizes, sizes)


def merge_clusters(coassociation: np.ndarray, fine_labels: np.ndarray, num_subtypes: int) -> tuple:
    """Join the two most similar groups of fine clusters until `num_subtypes` are left.

    Similarity is the mean co-association over pairs; of equal ones the smallest pair of positions is joined, and the
    joined group takes the smaller position.

    Returns:
        `tuple`: canonical subtypes of the patients `(n,)`, the subtype of each fine cluster, and the history, one row
        of positions and similarity for each merge.
    """
    one_hot = np.eye(int(fine_labels.max()) + 1)[fine_labels]
    totals = one_hot.T @ coassociation @ one_hot
    sizes = one_hot.sum(0)
    groups = [[index] for index in range(len(sizes))]
    history = []
    while len(groups) > num_subtypes:
        similarity = np.where(np.tri(len(groups), dtype=bool), -1.0, totals / np.outer(sizes, sizes))
        first, second = np.argwhere(similarity >= similarity.max() - TIE)[0]
        history.append((first, second, similarity[first, second]))
        groups[first] += groups.pop(second)
        totals[first] += totals[second]
        totals[:, first] += totals[:, second]
        totals = np.delete(np.delete(totals, second, 0), second, 1)
        sizes[first] += sizes[second]
        sizes = np.delete(sizes, second)
    group_of = np.empty(int(fine_labels.max()) + 1, dtype=np.int64)
    for number, group in enumerate(groups):
        group_of[group] = number
    subtypes = canonical_labels(group_of[fine_labels])
    merge_map = np.array([subtypes[fine_labels == fine][0] for fine in range(len(group_of))])
    return subtypes, merge_map, np.array(history, dtype=np.float64).reshape(-1, 3)


def find_consensus(
    base_labels: np.ndarray, num_fine_clusters: int, num_subtypes: int, *, coassociation: np.ndarray | None = None
) -> Consensus:
    """Fine clusters and subtypes of the co-association of members.

    Args:
        base_labels (`np.ndarray` of shape `(members, n)`): clusters of each member.
        num_fine_clusters (`int`): clusters of the tree.
        num_subtypes (`int`): what is left after merging.
        coassociation (`np.ndarray`, *optional*): of the same members, where it is at hand.
    """
    coassociation = compute_coassociation(base_labels) if coassociation is None else coassociation
    tree = build_tree(coassociation)
    fine = cut(tree, num_fine_clusters)
    subtypes, merge_map, history = merge_clusters(coassociation, fine, num_subtypes)
    similarity = compute_similarity(coassociation, fine)
    return Consensus(coassociation, tree, fine, similarity, merge_map, history, subtypes)


def find_subtypes_per_run(
    base_labels: np.ndarray, num_runs: int, num_fine_clusters: int, num_subtypes: int
) -> np.ndarray:
    """Subtypes from the members of each run alone, `(num_runs, n)`."""
    parts = base_labels.reshape(num_runs, -1, base_labels.shape[1])
    return np.stack([find_consensus(part, num_fine_clusters, num_subtypes).subtypes for part in parts])


def vote_over_runs(subtypes_per_run: np.ndarray, num_subtypes: int) -> np.ndarray:
    """Subtypes by average linkage on the co-association of the runs' partitions."""
    return cut(build_tree(compute_coassociation(subtypes_per_run)), num_subtypes)


def build_vote_table(
    base_labels: np.ndarray, subtypes: np.ndarray, num_clusters: int, num_subtypes: int
) -> np.ndarray:
    """Share of the patients of each base cluster that are of each subtype, `(members, clusters, subtypes)`."""
    one_hot = np.eye(num_subtypes)[subtypes]
    table = np.zeros((len(base_labels), num_clusters, num_subtypes))
    for votes, labels in zip(table, base_labels, strict=True):
        np.add.at(votes, labels, one_hot)
    return table / np.maximum(table.sum(-1, keepdims=True), 1)


def compute_centroids(embedding: np.ndarray, labels: np.ndarray, num_clusters: int) -> np.ndarray:
    """Mean of each cluster, `(num_clusters, size)`; zeros for an empty one."""
    one_hot = np.eye(num_clusters)[labels]
    return one_hot.T @ embedding / np.maximum(one_hot.sum(0), 1)[:, None]


def get_pairs(coassociation: np.ndarray) -> np.ndarray:
    """Entries above the diagonal."""
    return coassociation[np.triu_indices(len(coassociation), 1)]


def compute_pac(coassociation: np.ndarray) -> float:
    """Proportion of ambiguous pairs: together in more than a tenth and less than nine tenths of the members."""
    pairs = get_pairs(coassociation)
    return float(np.mean((pairs > AMBIGUOUS[0]) & (pairs < AMBIGUOUS[1])))


def compute_histogram(coassociation: np.ndarray) -> np.ndarray:
    """Share of pairs in each of 20 bins of co-association."""
    counts, _ = np.histogram(get_pairs(coassociation), bins=NUM_BINS, range=(0, 1))
    return counts / counts.sum()


def compute_item_consensus(coassociation: np.ndarray, subtypes: np.ndarray) -> np.ndarray:
    """Mean co-association of each patient with the others of the same subtype, 0 for one that is alone."""
    together = subtypes[:, None] == subtypes
    np.fill_diagonal(together, False)
    return (coassociation * together).sum(1) / np.maximum(together.sum(1), 1)


def compute_cophenetic_correlation(coassociation: np.ndarray, tree: np.ndarray) -> float:
    """Correlation of 1 - co-association with the heights at which the tree joins each pair; 0 if all are equal."""
    distances = 1 - get_pairs(coassociation)
    heights = cophenet(tree)
    if np.ptp(distances) < TIE or np.ptp(heights) < TIE:
        return 0.0
    return float(np.corrcoef(distances, heights)[0, 1])


def compute_ari_matrix(partitions: Sequence[np.ndarray]) -> np.ndarray:
    """Adjusted Rand index of each two partitions."""
    from sklearn.metrics import adjusted_rand_score

    matrix = np.eye(len(partitions))
    for row, first in enumerate(partitions):
        for column, second in enumerate(partitions[:row]):
            matrix[row, column] = matrix[column, row] = adjusted_rand_score(first, second)
    return matrix


def compute_prediction_strength(
    features: np.ndarray, cluster: Callable[[np.ndarray], np.ndarray], permutations: np.ndarray
) -> np.ndarray:
    """Prediction strength of each half split in both directions (Tibshirani and Walther 2005).

    Half b is clustered, and classified to the nearest centroid of the clusters of half a. Of each cluster of b it is
    the share of pairs that stay together; the lowest one counts, and a single patient counts 1.

    Args:
        features (`np.ndarray` of shape `(n, p)`): what centroids are computed of.
        cluster (`Callable`): labels of rows, given their numbers.
        permutations (`np.ndarray` of shape `(splits, n)`): the first half of each is a, the rest b.

    Returns:
        `np.ndarray` of shape `(2 * splits,)`.
    """
    values = []
    for order in permutations:
        halves = np.split(order, [len(order) // 2])
        labels = [cluster(half) for half in halves]
        for known, new in ((0, 1), (1, 0)):
            centroids = compute_centroids(features[halves[known]], labels[known], labels[known].max() + 1)
            distances = np.square(features[halves[new]][:, None] - centroids).sum(-1)
            values.append(_compute_lowest_strength(distances.argmin(1), labels[new]))
    return np.array(values)


def _compute_lowest_strength(predicted: np.ndarray, labels: np.ndarray) -> float:
    strengths = []
    for label in np.unique(labels):
        members = predicted[labels == label]
        size = len(members)
        counts = np.bincount(members)
        strengths.append(float((counts * (counts - 1)).sum() / (size * (size - 1))) if size > 1 else 1.0)
    return min(strengths)


__all__ = [
    "CLUSTERERS",
    "Consensus",
    "build_tree",
    "build_vote_table",
    "canonical_labels",
    "cluster_ward",
    "compute_ari_matrix",
    "compute_centroids",
    "compute_coassociation",
    "compute_cophenetic_correlation",
    "compute_histogram",
    "compute_item_consensus",
    "compute_pac",
    "compute_prediction_strength",
    "compute_similarity",
    "cut",
    "find_consensus",
    "find_subtypes_per_run",
    "merge_clusters",
    "scale_embedding",
    "vote_over_runs",
]
