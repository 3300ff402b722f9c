"""The runs of the study: one synthetic cohort each, its verdict, and how well each method finds the subtypes."""

import time
from importlib.metadata import version
from typing import Any

import numpy as np
import results
import smile_gan
from sklearn.cluster import HDBSCAN, KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture

from decahub import MpdSubtypingConfig, MpdSubtypingFeatureExtractor, MpdSubtypingModel
from decahub.data.mpd_synthetic import FEATURE_PATTERNS, Cohort, make_cohort
from decahub.models.mpd_subtyping.consensus import cluster_ward
from decahub.tasks import get_task


CORE = ("jaccard", "significance", "mixture", "prediction_strength", "nuisance", "dip")
NUISANCE = ("scanner", "age", "sex", "motion")
NUM_COMPONENTS = 10
PARTS = ("raw", "PCA")


def prepare(cohort: Cohort, selection: str = "mean_or_spread") -> tuple[np.ndarray, np.ndarray]:
    """Features of the patients of a cohort, and which rows of the table they are."""
    extractor = MpdSubtypingFeatureExtractor(list(FEATURE_PATTERNS), selection=selection).fit(cohort.columns)
    batch = extractor(cohort.columns, return_tensors="np")
    return batch["features"][batch["is_patient"]].astype(np.float64), batch["is_patient"]


def build_model(features: np.ndarray, variant: str, seed: int, **fields: Any) -> MpdSubtypingModel:
    """An ensemble of a variant, without the sizes that are too large for the features."""
    sizes = [size for size in MpdSubtypingConfig.from_variant(variant).latent_dims if size < features.shape[1]]
    fields |= {"num_features": features.shape[1], "latent_dims": sizes, "seed": seed}
    return MpdSubtypingModel(MpdSubtypingConfig.from_variant(variant, **fields))


def judge(cohort: Cohort, seed: int, repetitions: dict[str, int], ensemble: dict[str, Any]) -> dict[str, Any]:
    """Verdict, outcome of each check, and main values for one cohort, with the linear ensemble."""
    started = time.process_time()
    features, is_patient = prepare(cohort)
    model = build_model(features, "linear", seed, **ensemble)
    fit = model.fit(features)
    nuisance = {name: cohort.columns[name][is_patient] for name in NUISANCE}
    metric = get_task("patient-subtyping").build_metric()
    found = metric.measure(
        features=features,
        labels=fit.subtypes,
        model=model,
        refit="linear",
        checks=CORE,
        quick=True,
        nuisance=nuisance,
        site=cohort.columns["site"][is_patient],
        repetitions=repetitions,
        seed=seed,
        num_controls=int((~is_patient).sum()),
    )
    truth = cohort.subtypes
    return {
        "verdict": found["verdict"],
        "naive_verdict": found["naive_verdict"],
        "outcomes": {name: record["outcome"] for name, record in found["checks"].items()},
        "scores": found["scores"],
        "ari": adjusted_rand_score(truth, fit.subtypes) if truth.min() >= 0 else None,
        "num_features": features.shape[1],
        "cpu_seconds": time.process_time() - started,
    }


def compare(cohort: Cohort, seed: int, variant: str, training: dict[str, Any]) -> dict[str, Any]:
    """Agreement with the true subtypes of the ensembles and of common methods, on the same features."""
    started = time.process_time()
    truth, number = cohort.subtypes, int(cohort.subtypes.max()) + 1
    raw, _ = prepare(cohort, "none")
    selected, _ = prepare(cohort)
    components = PCA(NUM_COMPONENTS, random_state=seed).fit_transform(raw)
    labels = {}
    for name, table in zip(PARTS, (raw, components), strict=True):
        labels[f"k-means, {name}"] = KMeans(number, n_init=10, random_state=seed).fit_predict(table)
        labels[f"Ward, {name}"] = cluster_ward(table, number)
        mixture = GaussianMixture(number, covariance_type="diag", n_init=3, random_state=seed)
        labels[f"Gaussian mixture, {name}"] = mixture.fit_predict(table)
        labels[f"HDBSCAN, {name}"] = HDBSCAN(min_cluster_size=20, copy=True).fit_predict(table)
    labels["k-means, selected"] = KMeans(number, n_init=10, random_state=seed).fit_predict(selected)
    labels["linear ensemble"] = build_model(selected, "linear", seed).fit(selected).subtypes
    pairs = build_model(selected, "linear", seed, base_clusterer="kmeans", base_num_clusters=2)
    labels["linear ensemble, k-means in pairs"] = pairs.fit(selected).subtypes
    labels["autoencoder ensemble"] = build_model(selected, variant, seed).fit(selected, **training).subtypes
    scores = {name: adjusted_rand_score(truth, found) for name, found in labels.items()}
    return {"ari": scores, "num_features": selected.shape[1], "cpu_seconds": time.process_time() - started}


def run_smile_gan(cohort: Cohort, seed: int) -> dict[str, Any]:
    """Agreement of SmileGAN with the true subtypes, on all features."""
    started = time.process_time()
    found, converged = smile_gan.find_subtypes(cohort, seed)
    return {
        "ari": {results.SMILE_GAN: adjusted_rand_score(cohort.subtypes, found)},
        "converged": converged,
        "epochs": [smile_gan.FIRST_EPOCH, smile_gan.MAX_EPOCHS],
        "version": version("SmileGAN"),
        "cpu_seconds": time.process_time() - started,
    }


def make(kind: str, seed: int) -> Cohort:
    """The cohort of a design: a kind, or a level of the kind with two subtypes."""
    if kind in ("easy", "medium", "hard"):
        return make_cohort(seed, kind="subtypes", gap=kind)
    return make_cohort(seed, kind=kind)
