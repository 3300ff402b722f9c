"""Consensus clustering against slow loops and properties."""

import itertools

import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, linkage

from decahub.models.mpd_subtyping import consensus


@pytest.fixture
def base_labels():
    return np.random.default_rng(1).integers(0, 3, (7, 20))


def test_canonical_labels_are_ordered_by_size_then_occurrence():
    np.testing.assert_array_equal(consensus.canonical_labels(np.array([7, 2, 9, 9, 2, 5])), [2, 0, 1, 1, 0, 3])


@pytest.mark.parametrize("num_clusters", [1, 2, 5, 30])
def test_cut_equals_scipy_where_heights_differ(num_clusters):
    tree = linkage(np.random.default_rng(0).normal(size=(30, 2)), "ward")

    labels = consensus.cut(tree, num_clusters)

    expected = consensus.canonical_labels(fcluster(tree, num_clusters, "maxclust"))
    np.testing.assert_array_equal(labels, expected)


def test_cut_gives_the_number_asked_for_where_heights_are_equal():
    coassociation = np.eye(6)  # all pairs equally far apart

    assert len(np.unique(consensus.cut(consensus.build_tree(coassociation), 3))) == 3


def test_coassociation_is_the_share_of_members_that_agree(base_labels):
    found = consensus.compute_coassociation(base_labels)

    for first, second in itertools.product(range(20), repeat=2):
        assert found[first, second] == pytest.approx(np.mean(base_labels[:, first] == base_labels[:, second]))


def test_merging_joins_the_most_similar_pair_and_keeps_the_smaller_position(base_labels):
    coassociation = consensus.compute_coassociation(base_labels)
    fine = np.repeat(np.arange(5), 4)

    subtypes, merge_map, history = consensus.merge_clusters(coassociation, fine, 2)

    groups = [np.flatnonzero(fine == label) for label in range(5)]
    for first, second, similarity in history:
        pairs = {pair: coassociation[np.ix_(*(groups[i] for i in pair))].mean() for pair in
                 itertools.combinations(range(len(groups)), 2)}  # fmt: skip
        best = max(pairs, key=lambda pair: (round(pairs[pair], 9), -pair[0], -pair[1]))
        assert (first, second) == best
        assert similarity == pytest.approx(pairs[best])
        groups[best[0]] = np.concatenate([groups[best[0]], groups.pop(best[1])])
    for group in groups:
        assert len(set(subtypes[group])) == 1
    np.testing.assert_array_equal(merge_map[fine], subtypes)


def test_order_of_patients_does_not_matter(base_labels):
    order = np.random.default_rng(2).permutation(20)

    there = consensus.find_consensus(base_labels, 4, 2).subtypes[order]
    back = consensus.find_consensus(base_labels[:, order], 4, 2).subtypes

    assert consensus.compute_ari_matrix([there, back])[0, 1] == 1


def test_vote_table_holds_shares():
    table = consensus.build_vote_table(np.array([[0, 0, 0, 1]]), np.array([0, 0, 1, 1]), 3, 2)

    np.testing.assert_allclose(table[0], [[2 / 3, 1 / 3], [0, 1], [0, 0]])


def test_ambiguous_pairs():
    coassociation = np.array([[1, 0.05, 0.5], [0.05, 1, 0.95], [0.5, 0.95, 1]])

    assert consensus.compute_pac(coassociation) == pytest.approx(1 / 3)
    assert consensus.compute_histogram(coassociation).sum() == pytest.approx(1)


def test_prediction_strength_of_clear_clusters_is_one():
    generator = np.random.default_rng(0)
    features = np.concatenate([generator.normal(size=(20, 2)), generator.normal(9, 1, size=(20, 2))])
    orders = np.stack([generator.permutation(40) for _ in range(3)])

    strengths = consensus.compute_prediction_strength(
        features, lambda rows: consensus.cluster_ward(features[rows], 2), orders
    )

    np.testing.assert_array_equal(strengths, np.ones(6))
