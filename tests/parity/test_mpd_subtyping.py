"""MPD subtyping computes the reference's numbers: every golden file, by kind.

There is no code of the authors. The reference follows the formulas in plain float64; the README of the golden folder
explains each key. Sizes are read from the file, so further files of the same kinds can be checked through
`DECAHUB_GOLDEN_DIR`.
"""

import json
import re

import numpy as np
import pytest
import torch

from decahub import MpdSubtypingConfig, MpdSubtypingFeatureExtractor, MpdSubtypingModel
from decahub.models.mpd_subtyping import consensus, selection
from decahub.models.mpd_subtyping.cluster_state import compute_votes
from decahub.models.mpd_subtyping.covariates import CovariateModel
from tests.parity.golden import assert_near, golden_params


# The golden README suggests these; they are far above rounding in float64 and far below any other formula.
ATOL_STATISTICS, ATOL_MODEL = 1e-9, 1e-10
ATOL_FLOAT32 = 1e-5

LAYERS = ("encoder.0", "encoder.2", "decoder.0", "decoder.2")
PARTS = r"(en|de)coder\.[02]\.(weight|bias)"
KNOWN_KEYS = {
    "autoencoder": [
        rf"d\d+\.(state|grad)\.{PARTS}",
        r"d\d+\.out\.(latent|loss|per_subject_mse|reconstruction)",
        r"in\.x",
    ],
    "covariates_selection": [
        r"in\.(X|age|dx|sex|site)",
        r"out\.(age_mean|age_sd|beta|cohen_d|design|levene_[pw]|p_mean_or_spread|[pt]_(pooled|welch))",
        r"out\.(q_(mean_or_spread|pooled)|residual_sd|z)",
    ],
    "ensemble": [
        r"run\d+\.d\d+\.(in\.embedding(_new)?|out\.(base_labels|centroids|linkage))",
        r"out\.(ari_base_pairs|ari_runs|coassociation(_per_run)?|consensus_linkage|fine_labels|fine_similarity)",
        r"out\.(item_consensus|merge_history|merge_map|pac|prob_new|prob_train|subtype(_per_run)?|vote_table)",
        r"truth\.subtype_(new|train)",  # how the file was made; nothing is computed from it
    ],
}


def numpy(golden, key):
    return golden[key].numpy()


# --- Autoencoders


def list_members(golden):
    return sorted({int(re.match(r"d(\d+)\.", key)[1]) for key in golden.tensors if re.match(r"d\d+\.", key)})


def build_bank(golden, dtype=torch.float64):
    """A model whose members are those of a file, with their weights padded to the largest embedding."""
    sizes = list_members(golden)
    num_features = golden["in.x"].shape[1]
    hidden = golden[f"d{sizes[0]}.state.encoder.0.weight"].shape[0]
    config = MpdSubtypingConfig(num_features=num_features, hidden_sizes=[hidden], latent_dims=sizes, num_runs=1)
    model = MpdSubtypingModel(config).to(torch.float64)
    for member, size in enumerate(sizes):
        for layer, name in zip(model.autoencoders.layers, LAYERS, strict=True):
            for kind in ("weight", "bias"):
                value = golden[f"d{size}.state.{name}.{kind}"]
                target = getattr(layer, kind).data[member]
                target.zero_()
                target[tuple(slice(0, length) for length in value.shape)] = value
    return model.to(dtype), sizes


autoencoder_files = pytest.mark.parametrize("golden", golden_params("mpd_subtyping", "autoencoder"))


@pytest.mark.parametrize("golden", golden_params("mpd_subtyping"))
def test_every_number_of_a_file_is_looked_at(golden):
    if golden.kind == "validity":
        pytest.skip("tests/parity/test_subtype_validity.py looks at it")
    assert golden.kind in KNOWN_KEYS, f"{golden.path.name}: no test for `golden_kind` {golden.kind!r}"
    assert golden.unknown_keys(KNOWN_KEYS[golden.kind]) == []


@autoencoder_files
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_forward_equals_single_members(golden, dtype):
    model, sizes = build_bank(golden, dtype)
    atol = ATOL_MODEL if dtype == torch.float64 else ATOL_FLOAT32

    with torch.no_grad():
        output = model(golden["in.x"].to(dtype), output_reconstructions=True)

    for member, size in enumerate(sizes):
        assert_near(output.embeddings[member, :, :size], golden[f"d{size}.out.latent"], atol)
        assert not output.embeddings[member, :, size:].any()
        assert_near(output.reconstructions[member], golden[f"d{size}.out.reconstruction"], atol)
        assert_near(output.reconstruction_loss[member], golden[f"d{size}.out.loss"].squeeze(), atol)
        errors = (output.reconstructions[member] - golden["in.x"].to(dtype)).square().mean(1)
        assert_near(errors, golden[f"d{size}.out.per_subject_mse"], atol)


@autoencoder_files
def test_gradients_do_not_mix_members(golden):
    model, sizes = build_bank(golden)

    model(golden["in.x"]).loss.backward()

    for member, size in enumerate(sizes):
        for layer, name in zip(model.autoencoders.layers, LAYERS, strict=True):
            for kind in ("weight", "bias"):
                expected = golden[f"d{size}.grad.{name}.{kind}"]
                gradient = getattr(layer, kind).grad[member]
                assert_near(gradient[tuple(slice(0, length) for length in expected.shape)], expected, ATOL_MODEL)
                assert gradient.count_nonzero() == expected.count_nonzero()  # nothing in the padding


# --- Covariates and selection

covariate_files = pytest.mark.parametrize("golden", golden_params("mpd_subtyping", "covariates_selection"))


def fit_covariates(golden):
    is_control = numpy(golden, "in.dx") == 0
    age, sex = numpy(golden, "in.age"), numpy(golden, "in.sex")
    site = [f"{value:06d}" for value in numpy(golden, "in.site")]  # names in the order of the numbers
    sites = sorted({name for name, own in zip(site, is_control, strict=True) if own})
    model = CovariateModel(
        terms=["age"],
        means=age[is_control].mean(keepdims=True),
        deviations=age[is_control].std(ddof=1, keepdims=True),
        has_sex=True,
        sites=sites,
        site_sizes=np.ones(len(sites)),
    )
    design = model.build_design(age[:, None], sex, site)
    model.fit(design[is_control], numpy(golden, "in.X")[is_control])
    return model, design, is_control


@covariate_files
def test_covariates_are_fitted_on_controls(golden):
    model, design, _ = fit_covariates(golden)

    for value, key in (
        (model.means, "age_mean"),
        (model.deviations, "age_sd"),
        (design, "design"),
        (model.coefficients, "beta"),
        (model.residual_deviations, "residual_sd"),
        (model.standardize(design, numpy(golden, "in.X")), "z"),
    ):
        np.testing.assert_allclose(value, numpy(golden, f"out.{key}"), atol=ATOL_STATISTICS, rtol=0, err_msg=key)


@covariate_files
def test_selection_statistics(golden):
    deviations, is_control = numpy(golden, "out.z"), numpy(golden, "in.dx") == 0
    groups = deviations[~is_control], deviations[is_control]

    t_pooled, p_pooled = selection.compare_means(*groups)
    t_welch, p_welch = selection.compare_means(*groups, equal_variances=False)
    levene_w, levene_p = selection.compare_spreads(*groups)
    combined = selection.combine_p_values(p_pooled, levene_p)

    for value, key in (
        (t_pooled, "t_pooled"),
        (p_pooled, "p_pooled"),
        (t_welch, "t_welch"),
        (p_welch, "p_welch"),
        (levene_w, "levene_w"),
        (levene_p, "levene_p"),
        (combined, "p_mean_or_spread"),
        (selection.adjust_p_values(p_pooled), "q_pooled"),
        (selection.adjust_p_values(combined), "q_mean_or_spread"),
        (selection.compute_cohens_d(*groups), "cohen_d"),
    ):
        np.testing.assert_allclose(value, numpy(golden, f"out.{key}"), atol=ATOL_STATISTICS, rtol=0, err_msg=key)


@covariate_files
@pytest.mark.parametrize("name", ["ttest_fdr", "mean_or_spread"])
def test_extractor_gives_the_same_deviations(golden, name):
    table = numpy(golden, "in.X")
    covariates = {key: numpy(golden, f"in.{key}") for key in ("age", "sex", "site")}
    group = np.where(numpy(golden, "in.dx") == 0, "control", "patient")
    extractor = MpdSubtypingFeatureExtractor(selection=name, min_features=1).fit(table, group, covariates)

    features = extractor(table, covariates=covariates, return_tensors="np")["features"]

    kind = "mean_or_spread" if name == "mean_or_spread" else "pooled"
    kept, p_values = numpy(golden, f"out.q_{kind}") < 0.05, numpy(golden, f"out.p_{kind}")
    if not kept.any():
        kept = np.arange(len(kept)) == p_values.argmin()
    np.testing.assert_allclose(features, numpy(golden, "out.z")[:, kept], atol=ATOL_FLOAT32, rtol=0)


# --- Ensemble

ensemble_files = pytest.mark.parametrize("golden", golden_params("mpd_subtyping", "ensemble"))


def read_ensemble(golden):
    metadata = golden.metadata
    sizes, num_runs = json.loads(metadata["dims"]), int(metadata["runs"])
    names = [f"run{run}.d{size}" for run in range(num_runs) for size in sizes]
    numbers = {name: int(metadata[f"{name}"]) for name in ("base_clusters", "fine_clusters", "subtypes")}
    return names, sizes, num_runs, numbers


def cluster_members(golden):
    names, _, _, numbers = read_ensemble(golden)
    cluster = consensus.CLUSTERERS["ward"]
    return np.stack([cluster(numpy(golden, f"{name}.in.embedding"), numbers["base_clusters"], 0) for name in names])


@ensemble_files
def test_base_clusters(golden):
    names, _, _, numbers = read_ensemble(golden)
    base_labels = cluster_members(golden)

    for labels, name in zip(base_labels, names, strict=True):
        embedding = numpy(golden, f"{name}.in.embedding")
        np.testing.assert_array_equal(labels, numpy(golden, f"{name}.out.base_labels"))
        tree = consensus.linkage(embedding, "ward")
        np.testing.assert_allclose(tree, numpy(golden, f"{name}.out.linkage"), atol=ATOL_MODEL, rtol=0)
        np.testing.assert_allclose(
            consensus.compute_centroids(embedding, labels, numbers["base_clusters"]),
            numpy(golden, f"{name}.out.centroids"), atol=ATOL_MODEL, rtol=0,
        )  # fmt: skip


@ensemble_files
def test_consensus(golden):
    _, _, num_runs, numbers = read_ensemble(golden)
    base_labels = cluster_members(golden)

    found = consensus.find_consensus(base_labels, numbers["fine_clusters"], numbers["subtypes"])
    per_run = consensus.find_subtypes_per_run(base_labels, num_runs, numbers["fine_clusters"], numbers["subtypes"])
    runs = base_labels.reshape(num_runs, -1, base_labels.shape[1])

    np.testing.assert_array_equal(found.fine_labels, numpy(golden, "out.fine_labels"))
    np.testing.assert_array_equal(found.merge_map, numpy(golden, "out.merge_map"))
    np.testing.assert_array_equal(found.subtypes, numpy(golden, "out.subtype"))
    np.testing.assert_array_equal(per_run, numpy(golden, "out.subtype_per_run"))
    for value, key in (
        (found.coassociation, "coassociation"),
        (np.stack([consensus.compute_coassociation(run) for run in runs]), "coassociation_per_run"),
        (found.tree, "consensus_linkage"),
        (found.fine_similarity, "fine_similarity"),
        (found.merge_history, "merge_history"),
        (consensus.compute_item_consensus(found.coassociation, found.subtypes), "item_consensus"),
        (consensus.compute_pac(found.coassociation), "pac"),
        (consensus.compute_ari_matrix(base_labels), "ari_base_pairs"),
        (consensus.compute_ari_matrix(per_run), "ari_runs"),
    ):
        np.testing.assert_allclose(
            value, numpy(golden, f"out.{key}").reshape(np.shape(value)), atol=ATOL_MODEL, rtol=0
        )


@ensemble_files
def test_votes_of_training_and_new_patients(golden):
    names, sizes, num_runs, numbers = read_ensemble(golden)
    base_labels, subtypes = cluster_members(golden), numpy(golden, "out.subtype")
    num_clusters, num_subtypes = numbers["base_clusters"], numbers["subtypes"]
    votes = consensus.build_vote_table(base_labels, subtypes, num_clusters, num_subtypes)
    config = MpdSubtypingConfig(
        num_features=sizes[-1] + 1, latent_dims=sizes, num_runs=num_runs, base_num_clusters=num_clusters,
        num_fine_clusters=numbers["fine_clusters"], num_subtypes=num_subtypes,
    )  # fmt: skip
    state = MpdSubtypingModel(config).double().cluster
    centroids, embeddings = np.zeros(state.centroids.shape), {}
    for target, labels, name in zip(centroids, base_labels, names, strict=True):
        embedding = numpy(golden, f"{name}.in.embedding")
        target[:, : embedding.shape[1]] = consensus.compute_centroids(embedding, labels, num_clusters)
    for kind in ("embedding", "embedding_new"):
        rows = [golden[f"{name}.in.{kind}"] for name in names]
        padded = [torch.nn.functional.pad(part, (0, sizes[-1] - part.shape[1])) for part in rows]
        embeddings[kind] = torch.stack(padded)
    state.fill(
        {
            "latent_scale": torch.ones(len(names)),
            "centroids": torch.from_numpy(centroids),
            "base_sizes": torch.from_numpy(np.stack([np.bincount(labels) for labels in base_labels])),
            "vote_table": torch.from_numpy(votes),
        }
    )

    np.testing.assert_allclose(votes, numpy(golden, "out.vote_table"), atol=ATOL_MODEL, rtol=0)
    assert_near(compute_votes(embeddings["embedding"], state), golden["out.prob_train"], ATOL_MODEL)
    assert_near(compute_votes(embeddings["embedding_new"], state), golden["out.prob_new"], ATOL_MODEL)
