"""The configuration refuses what contradicts itself, and variants are what the paper or the baseline has."""

import pytest
from huggingface_hub.errors import StrictDataclassError

from decahub import MpdSubtypingConfig, MpdSubtypingModel
from tests.tiny.mpd_subtyping import build_tiny_config


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"latent_dims": [2, 3, 12]}, r"`latent_dims` must be below the 12 columns .*got 12"),
        ({"latent_dims": [3, 2]}, r"`latent_dims` must increase, each size once; got \[3, 2\]"),
        ({"latent_dims": [2, 2, 3]}, r"`latent_dims` must increase, each size once; got \[2, 2, 3\]"),
        ({"latent_dims": []}, r"`latent_dims` must hold sizes of at least 1; got \[\]"),
        ({"hidden_sizes": [0]}, r"`hidden_sizes` must hold sizes of at least 1; got \[0\]"),
        ({"num_subtypes": 5}, r"`num_subtypes` must be at most `num_fine_clusters` \(4\); got 5"),
        ({"num_subtypes": "many"}, "`num_subtypes` must be at least 1, or 'auto'; got 'many'"),
        ({"base_num_clusters": 1}, "`base_num_clusters` must be at least 2; got 1"),
        ({"base_clusterer": "dbscan"}, "`base_clusterer` must be one of ward, kmeans, gmm; got 'dbscan'"),
        ({"assignment_temperature": 0}, "`assignment_temperature` must be positive; got 0"),
        ({"pre_pca_components": 13}, r"`pre_pca_components` must be at most `num_features` \(12\); got 13"),
        ({"feature_names": ["a", "b"]}, "`feature_names` must hold 12 different names; got 2"),
        ({"latent_dim": [2]}, "`latent_dim` must be a field of MpdSubtypingConfig.*Did you mean `latent_dims`"),
    ],
)
def test_refuses(fields, message):
    with pytest.raises((StrictDataclassError, ValueError), match=message):
        build_tiny_config(**fields)


def test_members_are_ordered_by_run_and_size():
    config = build_tiny_config(num_runs=2, latent_dims=[2, 5])

    assert config.members == [(0, 2), (0, 5), (1, 2), (1, 5)]


@pytest.mark.parametrize(("variant", "num_members"), [("paper", 54), ("small", 10), ("linear", 9)])
def test_variants(variant, num_members):
    assert MpdSubtypingConfig.from_variant(variant).num_members == num_members


@pytest.mark.parametrize("size", [2, 10])
def test_parameters_of_a_member(size):
    """2ph + h + p + 2hd + d + h, with every weight and bias (no padding in an ensemble of one size)."""
    features, hidden = 200, 64
    config = MpdSubtypingConfig(num_features=features, latent_dims=[size], num_runs=1)

    count = sum(parameter.numel() for parameter in MpdSubtypingModel(config).parameters())

    assert count == 2 * features * hidden + hidden + features + 2 * hidden * size + size + hidden


def test_names_of_subtypes_are_labels():
    config = build_tiny_config(num_subtypes=2, subtype_names=["archetypal", "atypical"])

    assert config.id2label == {0: "archetypal", 1: "atypical"}
    assert config.label2id == {"archetypal": 0, "atypical": 1}
