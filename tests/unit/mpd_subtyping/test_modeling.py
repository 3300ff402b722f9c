"""The model: members do not depend on each other, fits are reproducible, answers hold what they promise."""

import numpy as np
import pytest
import torch

from decahub import MpdSubtypingModel
from decahub.models.mpd_subtyping.fitting_mpd_subtyping import embed_linear
from tests.tiny.mpd_subtyping import NUM_FEATURES, NUM_PATIENTS, build_tiny_config, build_tiny_features


SHORT = {"num_epochs": 6, "batch_size": 16, "learning_rate": 1e-2}
ATOL_LOOP = 1e-6  # products of other shapes


def fit_tiny(features=None, **overrides):
    model = MpdSubtypingModel(build_tiny_config(**overrides))
    report = model.fit(build_tiny_features() if features is None else features, **SHORT)
    return model, report


def test_bank_equals_a_loop_over_members():
    model = MpdSubtypingModel(build_tiny_config()).eval()
    features, bank = build_tiny_features(), model.autoencoders

    output = model(features, output_reconstructions=True)

    for member, (_, size) in enumerate(model.config.members):
        layers = [torch.nn.Linear(*layer.weight.shape[:0:-1]) for layer in bank.layers]
        for single, stacked in zip(layers, bank.layers, strict=True):
            single.weight.data, single.bias.data = stacked.weight[member].data, stacked.bias[member].data
        latent = layers[1](layers[0](features).relu())[:, :size]
        back = layers[3](layers[2](torch.nn.functional.pad(latent, (0, 5 - size))).relu())
        torch.testing.assert_close(output.embeddings[member, :, :size], latent, atol=ATOL_LOOP, rtol=0)
        torch.testing.assert_close(output.reconstructions[member], back, atol=ATOL_LOOP, rtol=0)
    torch.testing.assert_close(output.loss, output.reconstruction_loss.sum())


def test_a_member_starts_alike_in_any_ensemble():
    large = MpdSubtypingModel(build_tiny_config(num_runs=2, latent_dims=[2, 3, 5])).autoencoders
    small = MpdSubtypingModel(build_tiny_config(num_runs=2, latent_dims=[3])).autoencoders

    assert torch.equal(large.encoder_in.weight[4], small.encoder_in.weight[1])  # run 1, size 3
    assert torch.equal(large.encoder_out.weight[4, :3], small.encoder_out.weight[1])
    assert not torch.equal(small.encoder_in.weight[0], small.encoder_in.weight[1])


def test_a_member_trains_alike_in_any_ensemble():
    large, _ = fit_tiny(latent_dims=[2, 3, 5])
    small, _ = fit_tiny(latent_dims=[3])

    torch.testing.assert_close(
        large.autoencoders.encoder_in.weight[1], small.autoencoders.encoder_in.weight[0], atol=1e-5, rtol=1e-4
    )


def test_padding_stays_zero():
    model, _ = fit_tiny()

    for member, (_, size) in enumerate(model.config.members):
        assert not model.autoencoders.encoder_out.weight[member, size:].any()
        assert not model.autoencoders.decoder_in.weight[member, :, size:].any()


def test_fit_is_reproducible_to_the_bit():
    first, second = fit_tiny()[0].state_dict(), fit_tiny()[0].state_dict()

    assert all(torch.equal(first[name], second[name]) for name in first)


def test_finds_two_clear_groups():
    _, report = fit_tiny(build_tiny_features(gap=9.0), encoder="linear", num_runs=1)

    np.testing.assert_array_equal(report.subtypes, np.arange(NUM_PATIENTS) >= 24)
    assert report.subtype_sizes == [24, 16]
    assert report.reassignment_agreement >= 0.95


def test_saved_model_assigns_alike(tmp_path):
    model, _ = fit_tiny()
    model.save_pretrained(tmp_path)
    loaded = MpdSubtypingModel.from_pretrained(tmp_path)
    new = build_tiny_features(7, seed=5)

    with torch.inference_mode():
        there, back = model(new), loaded(new)

    assert torch.equal(there.subtype_probabilities, back.subtype_probabilities)
    assert torch.equal(there.reconstruction_error, back.reconstruction_error)


def test_probabilities_are_means_of_votes_of_the_nearest_clusters():
    model, _ = fit_tiny()
    new, state = build_tiny_features(4, seed=5), model.cluster

    with torch.inference_mode():
        output = model(new)

    for row in range(4):
        votes = []
        for member, embedding in enumerate(output.embeddings[:, row]):
            distances = [
                (embedding / state.latent_scale[member] - centroid).norm() for centroid in state.centroids[member]
            ]
            votes.append(state.vote_table[member, int(torch.stack(distances).argmin())])
        torch.testing.assert_close(output.subtype_probabilities[row], torch.stack(votes).mean(0))


def test_temperature_gives_soft_votes():
    model, _ = fit_tiny(assignment_temperature=1e-6)
    hard, _ = fit_tiny()
    new = build_tiny_features(4, seed=5)

    with torch.inference_mode():
        torch.testing.assert_close(model(new).subtype_probabilities, hard(new).subtype_probabilities)
        model.config.assignment_temperature = 10.0
        assert not torch.equal(model(new).subtype_probabilities, hard(new).subtype_probabilities)


def test_strange_patients_are_out_of_distribution():
    model, _ = fit_tiny()
    strange = build_tiny_features(3, seed=5)
    strange[1] = 40 * torch.randn(NUM_FEATURES, generator=torch.Generator().manual_seed(0))

    with torch.inference_mode():
        assert model(strange).out_of_distribution[1]


def test_recluster_changes_the_number_of_subtypes(tmp_path):
    model, _ = fit_tiny()
    encoder = model.autoencoders.encoder_in.weight.clone()

    report = model.recluster(build_tiny_features(), 3)
    model.save_pretrained(tmp_path)

    assert len(report.subtype_sizes) == 3
    assert torch.equal(model.autoencoders.encoder_in.weight, encoder)
    assert MpdSubtypingModel.from_pretrained(tmp_path)(build_tiny_features()).subtype_probabilities.shape[1] == 3


@pytest.mark.parametrize(("gap", "expected"), [(9.0, 2), (0.0, 1)])
def test_auto_takes_the_largest_stable_number(gap, expected):
    features = build_tiny_features(90, gap=gap)

    model, report = fit_tiny(features, encoder="linear", num_runs=1, num_subtypes="auto")

    assert len(report.subtype_sizes) == model.config.num_subtypes == expected
    assert set(report.prediction_strengths) == {2, 3, 4}
    assert any("No stable partition" in text for text in report.warnings) == (expected == 1)


def test_consensus_vote_is_another_way_to_merge():
    _, report = fit_tiny(build_tiny_features(gap=9.0), merge="consensus_vote", encoder="linear")

    assert report.subtype_sizes == [24, 16]


def test_projection_reduces_what_encoders_read():
    features = build_tiny_features(60, num_features=30)

    model, _ = fit_tiny(features, num_features=30, pre_pca_components=8)

    inputs = model.project(features)
    assert inputs.shape == (60, 8)
    assert model.autoencoders.encoder_in.weight.shape[2] == 8
    assert model.cluster.subtype_profile.shape == (2, 30)
    torch.testing.assert_close(inputs.square().mean(), torch.tensor(1.0), atol=1e-5, rtol=0)


@pytest.mark.parametrize("refit", ["frozen", "linear"])
def test_fewer_patients_than_features(refit):
    features = build_tiny_features(24, num_features=50, gap=9.0)
    model, report = fit_tiny(features, num_features=50, encoder="linear", num_runs=1)

    labels = model.build_clusterer(refit)(features.double().numpy())

    np.testing.assert_array_equal(labels, report.subtypes)
    np.testing.assert_array_equal(labels, np.arange(24) >= 14)


def test_linear_members_are_principal_components():
    features = build_tiny_features()
    model, _ = fit_tiny(encoder="linear", num_runs=1)

    with torch.no_grad():
        embeddings = model(features).embeddings

    expected = embed_linear(features.double().numpy(), [2, 3, 5])
    for found, scores in zip(embeddings, expected, strict=True):
        size = scores.shape[1]
        np.testing.assert_allclose(np.abs(found[:, :size]), np.abs(scores), atol=1e-4)


@pytest.mark.parametrize("refit", ["frozen", "linear", "full"])
def test_clusterers_find_clear_groups(refit):
    features = build_tiny_features(gap=9.0)
    model, _ = fit_tiny(features, encoder="linear", num_runs=1)

    labels = model.build_clusterer(refit)(features.double().numpy(), seed=1)

    np.testing.assert_array_equal(labels, np.arange(NUM_PATIENTS) >= 24)


def test_contributions_add_up_to_the_margin():
    model, _ = fit_tiny()

    (answer,) = model.explain(build_tiny_features(1, seed=5))

    assert sum(answer["contributions"].values()) == pytest.approx(answer["margin"], rel=1e-4)


def test_subtypes_match_whatever_their_order():
    model, _ = fit_tiny()
    other, _ = fit_tiny()
    other.cluster.subtype_profile = other.cluster.subtype_profile.flip(0)

    assert model.match_subtypes(other) == {0: 1, 1: 0}


def test_coassociation_is_kept_on_request_only(tmp_path):
    assert "cluster.coassociation" not in fit_tiny()[0].state_dict()

    model, _ = fit_tiny(store_coassociation=True)
    model.save_pretrained(tmp_path)

    assert MpdSubtypingModel.from_pretrained(tmp_path).cluster.coassociation.shape == (NUM_PATIENTS, NUM_PATIENTS)


def test_assignment_loss_is_no_part_of_the_loss():
    model, _ = fit_tiny()
    features, labels = build_tiny_features(), torch.arange(NUM_PATIENTS) % 2

    with torch.no_grad():
        output, plain = model(features, labels=labels), model(features)

    chosen = output.subtype_probabilities[torch.arange(NUM_PATIENTS), labels]
    torch.testing.assert_close(output.assignment_loss, -chosen.clamp_min(torch.finfo(torch.float32).tiny).log().mean())
    assert torch.equal(output.loss, plain.loss)


def test_member_mask_chooses_members():
    model, _ = fit_tiny()
    features, mask = build_tiny_features(), torch.tensor([True, False, False, False, True, False])

    with torch.no_grad():
        output = model(features, member_mask=mask)

    torch.testing.assert_close(output.loss, output.reconstruction_loss[mask].sum())


def forward(**inputs):
    return MpdSubtypingModel(build_tiny_config()).eval()(**inputs)


@pytest.mark.parametrize(
    ("act", "error", "message"),
    [
        (lambda: forward(), ValueError, "`features` must be given"),
        (lambda: forward(features=torch.ones(3, NUM_FEATURES).long()), TypeError, "must be floating point"),
        (lambda: forward(features=torch.ones(3, 5)), ValueError, r"shape \(num_patients, 12\); got \(3, 5\)"),
        (
            lambda: forward(features=torch.full((3, NUM_FEATURES), torch.nan)),
            ValueError,
            "must be finite; got NaN or infinity in row 0",
        ),
        (
            lambda: forward(features=torch.ones(3, NUM_FEATURES), member_mask=torch.zeros(6).bool()),
            ValueError,
            "`member_mask` must select at least one member",
        ),
        (
            lambda: forward(features=torch.ones(3, NUM_FEATURES), labels=torch.zeros(3).long()),
            ValueError,
            "`labels` must be given to a fitted model",
        ),
        (lambda: fit_tiny(build_tiny_features(15)), ValueError, "must hold at least 16 patients .*got 15"),
        (
            lambda: MpdSubtypingModel(build_tiny_config()).explain(build_tiny_features()),
            ValueError,
            "call `fit` first",
        ),
        (
            lambda: MpdSubtypingModel(build_tiny_config()).fit(build_tiny_features(), epochs=3),
            ValueError,
            "`epochs` must be a field of MemberTraining",
        ),
        (
            lambda: MpdSubtypingModel(build_tiny_config()).build_clusterer("none"),
            ValueError,
            "`refit` must be one of frozen, linear, full; got 'none'",
        ),
        (
            lambda: fit_tiny(build_tiny_features(20, num_features=40), num_features=40, pre_pca_components=25),
            ValueError,
            r"`pre_pca_components` must be below the number of patients \(20\); got 25",
        ),
    ],
)
def test_refuses(act, error, message):
    with pytest.raises(error, match=message):
        act()
