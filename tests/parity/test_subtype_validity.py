"""The checks of `subtype_validity` compute the reference's numbers from given draws; Ward is the clusterer throughout.

The reference is plain float64 from the papers' formulas; dip statistics and their p-values are those of `diptest`.
"""

import numpy as np
import pytest
from sklearn.metrics import normalized_mutual_info_score

from decahub.metrics.subtype_validity import discreteness, external, partitions, significance
from decahub.models.mpd_subtyping.consensus import compute_prediction_strength
from tests.parity.golden import golden_params


ATOL = 1e-9
ATOL_DIP_P = 1e-3  # the package interpolates a table
COVARIANCES = ("sample", "hard", "soft")
KNOWN_KEYS = [
    r"in\.(X|bootstrap_indices|clinical|dip\.\d+|gap_uniform|permutations|sigclust_normals|split_permutations)",
    r"in\.subsample_indices",
    r"out\.(ari_k2_k3|ci|dip\.\d+|dip_p_table\.\d+|eta2|gap_(box|pca)(_ref|_s)?|gap_log_w|jaccard(_mean)?|nmi_k2_k3)",
    r"out\.(perm_p|perm_p_maxT|prediction_strength_k\d+|subsample_ari|ward_labels_k\d+)",
    r"out\.sigclust\.(hard|sample|soft)\.(eigenvalues|null_ci|p_empirical|p_gaussian)",
]

files = pytest.mark.parametrize("golden", golden_params("mpd_subtyping", "validity"))


def numpy(golden, key):
    return golden[key].numpy()


def assert_equal(value, golden, key, atol=ATOL):
    expected = numpy(golden, key)
    np.testing.assert_allclose(np.reshape(value, expected.shape), expected, atol=atol, rtol=0, err_msg=key)


def find_numbers(golden, prefix):
    return sorted(int(key.removeprefix(prefix)) for key in golden.tensors if key.startswith(prefix))


def cluster(features, num_clusters):
    return partitions.cluster_ward(features, num_subtypes=num_clusters)


@files
def test_every_number_of_a_file_is_looked_at(golden):
    assert golden.unknown_keys(KNOWN_KEYS) == []


@files
def test_partitions(golden):
    table, number = numpy(golden, "in.X"), int(golden.metadata["k"])
    labels = {k: cluster(table, k) for k in {2, 3, number, *find_numbers(golden, "out.ward_labels_k")}}

    for k in find_numbers(golden, "out.ward_labels_k"):
        np.testing.assert_array_equal(labels[k], numpy(golden, f"out.ward_labels_k{k}"))
    assert_equal(partitions.compare(labels[2], labels[3]), golden, "out.ari_k2_k3")
    assert_equal(normalized_mutual_info_score(labels[2], labels[3]), golden, "out.nmi_k2_k3")
    drawn = [np.unique(rows) for rows in numpy(golden, "in.bootstrap_indices")]
    found = [partitions.compute_jaccard(labels[number], rows, cluster(table[rows], number)) for rows in drawn]
    assert_equal(found, golden, "out.jaccard")
    assert_equal(np.mean(found, axis=0), golden, "out.jaccard_mean")
    subsamples = numpy(golden, "in.subsample_indices")
    values = [partitions.compare(labels[number][rows], cluster(table[rows], number)) for rows in subsamples]
    assert_equal(values, golden, "out.subsample_ari")


@files
def test_prediction_strength(golden):
    table, orders = numpy(golden, "in.X"), numpy(golden, "in.split_permutations")

    for number in find_numbers(golden, "out.prediction_strength_k"):
        found = partitions.compute_prediction_strengths(table, lambda part, k=number: cluster(part, k), orders)
        of_the_room = compute_prediction_strength(table, lambda rows, k=number: cluster(table[rows], k), orders)

        assert_equal(found, golden, f"out.prediction_strength_k{number}")
        assert_equal(of_the_room, golden, f"out.prediction_strength_k{number}")


@files
@pytest.mark.parametrize(("box", "key"), [("features", "box"), ("axes", "pca")])
def test_gap_statistic(golden, box, key):
    expected = numpy(golden, f"out.gap_{key}")

    found = significance.compute_gaps(numpy(golden, "in.X"), numpy(golden, "in.gap_uniform"), len(expected), box=box)

    assert_equal(found["log_within"], golden, "out.gap_log_w")
    assert_equal(found["references"], golden, f"out.gap_{key}_ref")
    assert_equal(found["gaps"], golden, f"out.gap_{key}")
    assert_equal(found["errors"], golden, f"out.gap_{key}_s")


@files
@pytest.mark.parametrize("covariance", COVARIANCES)
def test_sigclust(golden, covariance):
    table, normals = numpy(golden, "in.X"), numpy(golden, "in.sigclust_normals")
    index = partitions.compute_cluster_index(table, cluster(table, 2))

    eigenvalues = significance.estimate_eigenvalues(table, covariance)
    tables = normals * np.sqrt(eigenvalues)
    simulated = np.array([partitions.compute_cluster_index(part, cluster(part, 2)) for part in tables])
    p_values = significance.compute_p_values(index, simulated)

    assert_equal(index, golden, "out.ci")
    assert_equal(eigenvalues, golden, f"out.sigclust.{covariance}.eigenvalues")
    assert_equal(simulated, golden, f"out.sigclust.{covariance}.null_ci")
    for name, value in p_values.items():
        assert_equal(value, golden, f"out.sigclust.{covariance}.{name}")


@files
def test_dip(golden):
    pytest.importorskip("diptest", reason="diptest is not installed")
    names = [key.removeprefix("in.dip.") for key in golden.tensors if key.startswith("in.dip.")]

    for name in names:
        statistic, p_value = discreteness.measure_dip(numpy(golden, f"in.dip.{name}"))
        assert_equal(statistic, golden, f"out.dip.{name}")
        assert_equal(p_value, golden, f"out.dip_p_table.{name}", ATOL_DIP_P)


@files
def test_associations(golden):
    labels = cluster(numpy(golden, "in.X"), int(golden.metadata["k"]))
    columns = numpy(golden, "in.clinical").T
    variables = [external.Variable(str(index), column) for index, column in enumerate(columns)]

    rows = external.measure_associations(labels, variables, numpy(golden, "in.permutations"))

    assert_equal([row["value"] for row in rows], golden, "out.eta2")
    assert_equal([row["p"] for row in rows], golden, "out.perm_p")
    assert_equal([row["p_max"] for row in rows], golden, "out.perm_p_maxT")
