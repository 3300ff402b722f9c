"""From a table of patients to a fitted model: train members, cluster embeddings, find subtypes."""

import copy
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ..shared.checks import refuse_unknown
from .cluster_state import NUM_QUANTILES, compute_votes
from .configuration_mpd_subtyping import AUTO, MpdSubtypingConfig
from .consensus import (
    CLUSTERERS,
    Consensus,
    build_vote_table,
    canonical_labels,
    compute_ari_matrix,
    compute_centroids,
    compute_cophenetic_correlation,
    compute_histogram,
    compute_pac,
    compute_prediction_strength,
    find_consensus,
    find_subtypes_per_run,
    scale_embedding,
    vote_over_runs,
)
from .member_bank import LinearBank
from .optimization import MemberRecord, build_parameter_groups, compute_errors, split_validation


logger = logging.getLogger(__name__)
PATIENTS_PER_CLUSTER = 4
MOST_SUBTYPES = 6  # that "auto" looks for
ENOUGH_STRENGTH = 0.8
NUM_STRENGTH_SPLITS = 10
OUTLIER_SHARE = 0.05
LEAST_SCALE = 1e-12
REFITS = ("frozen", "linear", "full")


@dataclass(frozen=True)
class MemberTraining:
    """How members are trained.

    Args:
        num_epochs (`int`): Epochs at most.
        batch_size (`int`): Patients of a step.
        learning_rate (`float`): Of AdamW.
        weight_decay (`float`): Of AdamW, for weights.
        validation_share (`float`): Share of the patients that members are chosen on.
        patience (`int`): Epochs without improvement after which a member is done.
    """

    num_epochs: int = 100
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    validation_share: float = 0.1
    patience: int = 10

    def __post_init__(self):
        for name in ("num_epochs", "batch_size", "patience", "learning_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` must be positive; got {getattr(self, name)!r}.")
        if not 0 < self.validation_share < 1:
            raise ValueError(f"`validation_share` must lie in (0, 1); got {self.validation_share!r}.")


@dataclass(frozen=True)
class FitReport:
    """What a fit found; it holds no value of a patient but the subtypes.

    Args:
        subtypes (`np.ndarray` of shape `(num_patients,)`): Subtype of each patient.
        subtype_sizes (`list[int]`): Patients of each subtype.
        prediction_strengths (`dict[int, float]`): For each number of subtypes that was tried by `"auto"`.
        merge_history (`list`): Groups of fine clusters that were joined, and their similarity.
        reassignment_agreement (`float`): Share of the training patients to whom the fitted model gives their subtype.
        agreement_of_merges (`float`): Adjusted Rand index between the two ways of merging.
        ari_between_runs (`np.ndarray`): Adjusted Rand index between the subtypes of each two runs.
        ari_between_sizes (`np.ndarray`): The same between embedding sizes.
        pac (`float`): Proportion of ambiguous pairs.
        cophenetic_correlation (`float`): Of the consensus tree.
        warnings (`list[str]`): What a reader must know.
    """

    subtypes: np.ndarray
    subtype_sizes: list[int]
    merge_history: list[tuple[int, int, float]]
    reassignment_agreement: float
    agreement_of_merges: float
    ari_between_runs: np.ndarray
    ari_between_sizes: np.ndarray
    pac: float
    cophenetic_correlation: float
    prediction_strengths: dict[int, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def check_num_patients(config: MpdSubtypingConfig, num_patients: int) -> None:
    """Refuse fewer patients than four for each base cluster."""
    wanted = PATIENTS_PER_CLUSTER * max(config.base_num_clusters, config.num_fine_clusters)
    if num_patients < wanted:
        raise ValueError(
            f"`features` must hold at least {wanted} patients for {config.base_num_clusters} base clusters and "
            f"{config.num_fine_clusters} fine clusters; got {num_patients}."
        )


def prepare_members(model: Any, features: torch.Tensor) -> bool:
    """Fit what needs no training: projection and principal components. Returns whether members must be trained."""
    check_num_patients(model.config, len(features))
    if model.projection is not None:
        model.projection.fit(features)
    if isinstance(model.autoencoders, LinearBank):
        model.autoencoders.fit(model.project(features))
        return False
    return True


def fit_members(model: Any, features: torch.Tensor, **training: Any) -> MemberRecord | None:
    """Train every member on patients, in place; each ends with the weights of its own best epoch.

    Args:
        model (`MpdSubtypingModel`): The model.
        features (`torch.Tensor` of shape `(num_patients, num_features)`): Patients.
        training: Fields of [`MemberTraining`].
    """
    refuse_unknown(training, MemberTraining.__dataclass_fields__, "a field of MemberTraining")
    settings = MemberTraining(**training)
    if not prepare_members(model, features):
        return None
    train_rows, validation_rows = split_validation(len(features), settings.validation_share, model.config.seed)
    rows = features[torch.from_numpy(train_rows)]
    steps_per_epoch = max(1, math.ceil(len(rows) / settings.batch_size))
    validation = features[torch.from_numpy(validation_rows)]
    record = MemberRecord(model, validation, steps_per_epoch, settings.patience).to(features.device)
    groups = build_parameter_groups(model, settings.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, fused=True)
    generator = torch.Generator().manual_seed(model.config.seed)
    model.train()
    for _ in range(settings.num_epochs):
        for batch in torch.randperm(len(rows), generator=generator).split(settings.batch_size):
            optimizer.zero_grad(set_to_none=True)
            model(rows[batch]).loss.backward()
            optimizer.step()
            record.update(model)
        if record.is_done.all():
            break
    record.restore(model)
    optimizer.zero_grad(set_to_none=True)
    model.eval()
    return record


# Clusters


def embed_members(model: Any, features: torch.Tensor) -> tuple[list[np.ndarray], np.ndarray]:
    """Embedding of each member at its own size, divided by its scale, and the scales."""
    with torch.no_grad():
        embeddings = model.autoencoders.encode(model.project(features)).double().cpu().numpy()
    return scale_members([part[:, :size] for part, (_, size) in zip(embeddings, model.config.members, strict=True)])


def scale_members(embeddings: list[np.ndarray]) -> tuple[list[np.ndarray], np.ndarray]:
    """Embeddings of unit overall root mean square, and what they were divided by."""
    scales = np.array([scale_embedding(part) for part in embeddings])
    return [part / scale for part, scale in zip(embeddings, scales, strict=True)], scales


def cluster_members(config: MpdSubtypingConfig, embeddings: list[np.ndarray]) -> np.ndarray:
    """Base clusters of each member, `(num_members, num_patients)`."""
    cluster = CLUSTERERS[config.base_clusterer]
    return np.stack([cluster(part, config.base_num_clusters, config.seed) for part in embeddings])


def find_subtypes(
    config: MpdSubtypingConfig, base_labels: np.ndarray, num_subtypes: int
) -> tuple[Consensus, np.ndarray]:
    """Consensus of all members, and subtypes as the configuration merges."""
    consensus = find_consensus(base_labels, config.num_fine_clusters, num_subtypes)
    if config.merge == "similarity":
        return consensus, consensus.subtypes
    num_runs = len(base_labels) // len(config.latent_dims)
    per_run = find_subtypes_per_run(base_labels, num_runs, config.num_fine_clusters, num_subtypes)
    return consensus, vote_over_runs(per_run, num_subtypes)


def fit_clusters(model: Any, features: torch.Tensor) -> FitReport:
    """See `MpdSubtypingModel.fit_clusters`."""
    check_num_patients(model.config, len(features))
    model.eval()
    embeddings, scales = embed_members(model, features)
    base_labels = cluster_members(model.config, embeddings)
    strengths: dict[int, float] = {}
    if model.config.num_subtypes == AUTO:
        strengths = compute_strengths(model.config, embeddings, features.double().cpu().numpy())
        stable = [number for number, value in strengths.items() if value >= ENOUGH_STRENGTH]
        set_num_subtypes(model.config, max(stable, default=1))
    consensus, subtypes = find_subtypes(model.config, base_labels, model.config.num_subtypes)
    fill_state(model, features, embeddings, scales, base_labels, consensus, subtypes)
    return build_report(model, features, base_labels, consensus, subtypes, strengths)


def set_num_subtypes(config: MpdSubtypingConfig, num_subtypes: int) -> None:
    """Change the number of subtypes, and their names where it differs."""
    if config.num_subtypes != num_subtypes:
        names = [f"subtype {number}" for number in range(1, num_subtypes + 1)]
        config.num_subtypes, config.subtype_names = num_subtypes, None
        config.id2label = dict(enumerate(names))
        config.label2id = {name: index for index, name in enumerate(names)}


def recluster(model: Any, features: torch.Tensor, num_subtypes: int | str) -> FitReport:
    """See `MpdSubtypingModel.recluster`."""
    fields = {"num_fine_clusters": model.config.num_fine_clusters, "num_subtypes": num_subtypes}
    MpdSubtypingConfig(**fields)  # refuses numbers that do not fit
    if num_subtypes == AUTO:
        model.config.num_subtypes = AUTO
    else:
        set_num_subtypes(model.config, num_subtypes)
    return fit_clusters(model, features)


def compute_strengths(
    config: MpdSubtypingConfig, embeddings: list[np.ndarray], features: np.ndarray
) -> dict[int, float]:
    """Mean prediction strength of 2 to 6 subtypes over random halves, with the members as they are."""
    generator = np.random.default_rng(config.seed)
    orders = np.stack([generator.permutation(len(features)) for _ in range(NUM_STRENGTH_SPLITS)])
    strengths = {}
    for number in range(2, min(MOST_SUBTYPES, config.num_fine_clusters) + 1):

        def cluster(rows: np.ndarray, number: int = number) -> np.ndarray:
            labels = cluster_members(config, [part[rows] for part in embeddings])
            return find_subtypes(config, labels, number)[1]

        strengths[number] = float(np.mean(compute_prediction_strength(features, cluster, orders)))
    return strengths


def fill_state(
    model: Any,
    features: torch.Tensor,
    embeddings: list[np.ndarray],
    scales: np.ndarray,
    base_labels: np.ndarray,
    consensus: Consensus,
    subtypes: np.ndarray,
) -> None:
    """Fill the buffers of the model."""
    config = model.config
    num_clusters, num_subtypes, num_fine = config.base_num_clusters, config.num_subtypes, config.num_fine_clusters
    centroids = np.zeros((config.num_members, num_clusters, config.latent_dims[-1]))
    for target, part, labels in zip(centroids, embeddings, base_labels, strict=True):
        target[:, : part.shape[1]] = compute_centroids(part, labels, num_clusters)
    merge_map = consensus.merge_map
    if config.merge != "similarity":  # the subtype of most patients of a fine cluster
        merge_map = build_vote_table(consensus.fine_labels[None], subtypes, num_fine, num_subtypes)[0].argmax(1)
    errors = compute_errors(model, features).double()
    deviations, means = errors.std(1).clamp_min(LEAST_SCALE), errors.mean(1)
    standardized = ((errors - means[:, None]) / deviations[:, None]).mean(0)
    one_hot = np.eye(num_subtypes)[subtypes]
    profile = one_hot.T @ features.double().cpu().numpy() / one_hot.sum(0)[:, None]
    values: dict[str, Any] = {
        "latent_scale": scales,
        "centroids": centroids,
        "base_sizes": np.stack([np.bincount(labels, minlength=num_clusters) for labels in base_labels]),
        "vote_table": build_vote_table(base_labels, subtypes, num_clusters, num_subtypes),
        "fine_sizes": np.bincount(consensus.fine_labels, minlength=num_fine),
        "fine_similarity": consensus.fine_similarity,
        "merge_map": merge_map,
        "merge_similarity": consensus.merge_history[:, 2],
        "consensus_histogram": compute_histogram(consensus.coassociation),
        "pac": compute_pac(consensus.coassociation),
        "subtype_sizes": one_hot.sum(0),
        "subtype_profile": profile,
        "error_mean": means,
        "error_sd": deviations,
        "error_quantiles": torch.quantile(standardized, torch.linspace(0, 1, NUM_QUANTILES, dtype=torch.float64)),
    }
    model.cluster.fill({name: torch.as_tensor(value) for name, value in values.items()})
    if config.store_coassociation:
        config.num_patients = len(features)
        model.cluster.coassociation = torch.as_tensor(consensus.coassociation, dtype=model.cluster.pac.dtype)


def build_report(
    model: Any,
    features: torch.Tensor,
    base_labels: np.ndarray,
    consensus: Consensus,
    subtypes: np.ndarray,
    strengths: dict[int, float],
) -> FitReport:
    """What a fit found, with warnings."""
    from sklearn.metrics import adjusted_rand_score

    config = model.config
    sizes, num_subtypes, num_fine = np.bincount(subtypes).tolist(), config.num_subtypes, config.num_fine_clusters
    num_runs = config.num_runs
    per_run = find_subtypes_per_run(base_labels, num_runs, num_fine, num_subtypes)
    by_size = base_labels.reshape(num_runs, -1, base_labels.shape[1]).swapaxes(0, 1)
    per_size = np.stack([find_consensus(part, num_fine, num_subtypes).subtypes for part in by_size])
    other = vote_over_runs(per_run, num_subtypes) if config.merge == "similarity" else consensus.subtypes
    with torch.no_grad():
        embedded = model.autoencoders.encode(model.project(features))
        votes = compute_votes(embedded, model.cluster, config.assignment_temperature)
    warnings = [
        f"{config.id2label[number]} holds {size} of {len(subtypes)} patients: an outlier group."
        for number, size in enumerate(sizes)
        if size < OUTLIER_SHARE * len(subtypes)
    ]
    if strengths and num_subtypes == 1:
        warnings.append("No stable partition: no number of subtypes reaches a prediction strength of 0.8.")
    singles = int((np.stack([np.bincount(labels) for labels in base_labels]) == 1).sum())
    if singles:
        warnings.append(f"{singles} base clusters hold a single patient.")
    for text in warnings:
        logger.warning(text)
    return FitReport(
        subtypes=subtypes,
        subtype_sizes=sizes,
        merge_history=[(int(first), int(second), float(value)) for first, second, value in consensus.merge_history],
        reassignment_agreement=float(np.mean(votes.argmax(-1).cpu().numpy() == subtypes)),
        agreement_of_merges=float(adjusted_rand_score(subtypes, other)),
        ari_between_runs=compute_ari_matrix(per_run),
        ari_between_sizes=compute_ari_matrix(per_size),
        pac=compute_pac(consensus.coassociation),
        cophenetic_correlation=compute_cophenetic_correlation(consensus.coassociation, consensus.tree),
        prediction_strengths=strengths,
        warnings=warnings,
    )


# Resampling


def embed_linear(features: np.ndarray, latent_dims: list[int]) -> list[np.ndarray]:
    """The first principal components of rows, for each size that the rows allow."""
    centered = features - features.mean(0)
    num_rows, num_columns = centered.shape
    if num_rows >= num_columns:
        values, vectors = np.linalg.eigh(centered.T @ centered)
        scores = centered @ vectors[:, : -latent_dims[-1] - 1 : -1]
    else:
        values, vectors = np.linalg.eigh(centered @ centered.T)
        order = slice(None, -latent_dims[-1] - 1, -1)
        scores = vectors[:, order] * np.sqrt(np.maximum(values[order], 0))
    return [scores[:, :size] for size in latent_dims if size <= scores.shape[1]]


def build_clusterer(model: Any, refit: str, training: dict[str, Any]) -> Callable[..., np.ndarray]:
    """See `MpdSubtypingModel.build_clusterer`."""
    if refit not in REFITS:
        raise ValueError(f"`refit` must be one of {', '.join(REFITS)}; got {refit!r}.")
    if training and refit != "full":
        raise ValueError(f"`{next(iter(training))}` must be given with `refit='full'` only, which trains members.")
    config = model.config

    def cluster(features: np.ndarray, seed: int = 0, num_subtypes: int | None = None) -> np.ndarray:
        if num_subtypes is None:
            num_subtypes = config.fitted_subtypes
        if refit == "full":
            return _fit_anew(model, features, seed, num_subtypes, training)
        if refit == "linear":
            embeddings, _ = scale_members(embed_linear(np.asarray(features, dtype=np.float64), config.latent_dims))
        else:
            embeddings, _ = embed_members(model, model._to_features(features))
        return find_subtypes(config, cluster_members(config, embeddings), num_subtypes)[1]

    return cluster


def _fit_anew(model: Any, features: np.ndarray, seed: int, num_subtypes: int, training: dict) -> np.ndarray:
    config = copy.deepcopy(model.config)
    config.seed = seed
    set_num_subtypes(config, num_subtypes)
    fresh = type(model)(config)
    tensor = fresh._to_features(features)
    fit_members(fresh, tensor, **training)
    embeddings, _ = embed_members(fresh, tensor)
    return canonical_labels(find_subtypes(config, cluster_members(config, embeddings), num_subtypes)[1])


def measure_reconstruction(
    model: Any, train_features: torch.Tensor, test_features: torch.Tensor, training: dict[str, Any]
) -> dict[int, dict[str, float]]:
    """See `MpdSubtypingModel.measure_reconstruction`."""
    fresh = type(model)(copy.deepcopy(model.config))
    fit_members(fresh, train_features, **training)
    fresh.eval()
    config = model.config
    errors = {name: compute_errors(fresh, part).mean(1).double().cpu().numpy() for name, part in
              (("train", train_features), ("test", test_features))}  # fmt: skip
    inputs = {name: fresh.project(part).double().cpu().numpy() for name, part in
              (("train", train_features), ("test", test_features))}  # fmt: skip
    mean = inputs["train"].mean(0)
    centered = inputs["test"] - mean
    _, _, axes = np.linalg.svd(inputs["train"] - mean, full_matrices=False)
    table = {}
    for column, size in enumerate(config.latent_dims):
        members = slice(column, None, len(config.latent_dims))
        rest = centered - centered @ axes[:size].T @ axes[:size]
        table[size] = {
            "train_error": float(errors["train"][members].mean()),
            "test_error": float(errors["test"][members].mean()),
            "test_error_pca": float(np.square(rest).mean()),
            "train_variance": float(np.square(inputs["train"] - mean).mean()),
            "test_variance": float(np.square(centered).mean()),
        }
    return table


__all__ = [
    "FitReport",
    "MemberTraining",
    "build_clusterer",
    "embed_linear",
    "embed_members",
    "fit_clusters",
    "fit_members",
    "measure_reconstruction",
    "prepare_members",
    "recluster",
]
