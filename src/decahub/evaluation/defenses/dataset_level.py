"""Defenses that look for poisoned images among those that a classifier was trained on.

They compare images within a class. A distilled set has a handful of them, and all of the target class carry the
backdoor, so there is no clean part to compare with: with few images no verdict is given, whatever the numbers are.
"""

from collections.abc import Callable

import torch

from .subject import DefenseResult, Subject, compute_anomalies, compute_representations


MIN_IMAGES = 50  # of each class, for statistics within classes
TOO_FEW = (
    "only {number} images of a class: statistics within classes mean little, and all of the target class carry it"
)
ANOMALY_THRESHOLD = 7.3891  # e squared, as in the paper of SCAn; of ten clean classes one is often above 3
SMALL_CLUSTER, SEPARATE_CLUSTERS = 0.35, 0.5  # share of images, and silhouette, of suspicious clusters
NUM_COMPONENTS = 10
POISON_BUDGET = 0.015  # 1.5 times one percent
NEEDS_IMAGES = "needs the training images"


def _judge(
    subject: Subject, name: str, threshold: float, compute: Callable[[list[torch.Tensor]], tuple[torch.Tensor, dict]]
) -> DefenseResult:
    """A score for each class of the training images, and a verdict on the largest where there are enough images."""
    if subject.training_images is None or subject.training_labels is None:
        return DefenseResult(name, "dataset", None, {}, NEEDS_IMAGES)
    representations = compute_representations(subject.network, subject.training_images.detach()).double()
    classes = [representations[subject.training_labels == label] for label in range(subject.num_classes)]
    fewest = min(len(rows) for rows in classes)
    if fewest < 2:
        return DefenseResult(name, "dataset", None, {}, TOO_FEW.format(number=fewest))
    values, further = compute(classes)
    largest = int(values.argmax())
    scores = {
        "largest": float(values[largest]),
        "suspected_label": float(largest),
        "target": float(values[subject.target_label]),
        **further,
        **{f"class_{label}": float(value) for label, value in enumerate(values)},
    }
    if fewest < MIN_IMAGES:
        return DefenseResult(name, "dataset", None, scores, TOO_FEW.format(number=fewest))
    return DefenseResult(name, "dataset", bool(values[largest] > threshold), scores)


def spectral_signatures(subject: Subject) -> DefenseResult:
    """Spectral signatures: squared projections of centered representations on their top singular vector.

    Poisoned images of a class stand out. The score of a class is the anomaly of its mean squared projection among all
    classes. The study's code gave logits of all classes at once; here classes are looked at one by one.
    """

    def compute(classes: list[torch.Tensor]) -> tuple[torch.Tensor, dict]:
        means = torch.stack([_project(rows).square().mean() for rows in classes])
        is_high = means > means.median()
        others = torch.cat([means[: subject.target_label], means[subject.target_label + 1 :]])
        ratio = float(means[subject.target_label] / others.mean().clamp(min=1e-12))
        return compute_anomalies(means) * is_high, {"ratio_of_target_to_others": ratio}

    return _judge(subject, "spectral_signatures", ANOMALY_THRESHOLD, compute)


def _project(rows: torch.Tensor) -> torch.Tensor:
    centered = rows - rows.mean(0)
    return centered @ torch.linalg.svd(centered, full_matrices=False).Vh[0]


def spectre(subject: Subject) -> DefenseResult:
    """SPECTRE: like spectral signatures after whitening with a robust covariance, and with quantum entropy scores.

    The covariance is that of the rows with the smallest norms (all but 1.5 times the expected share of poison,
    doubled), in the leading components. With the whitened rows `z` and their covariance `C`, a row has the score
    `z^T Q z / tr(Q)`, `Q = exp(4 (C - I) / (|C| - 1))`. A class has the anomaly of its largest score.
    """

    def compute(classes: list[torch.Tensor]) -> tuple[torch.Tensor, dict]:
        largest = torch.stack([_compute_que(rows).max() for rows in classes])
        return compute_anomalies(largest) * (largest > largest.median()), {}

    return _judge(subject, "spectre", ANOMALY_THRESHOLD, compute)


def _compute_que(rows: torch.Tensor) -> torch.Tensor:
    rows = _reduce(rows)
    kept = rows.norm(dim=1).argsort()[: max(2, int(len(rows) * (1 - 2 * POISON_BUDGET)))]
    identity = torch.eye(rows.shape[1], dtype=rows.dtype)
    center, covariance = rows[kept].mean(0), _find_covariance(rows[kept]) + 1e-6 * identity
    whitened = torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), (rows - center).T, upper=False).T
    second = _find_covariance(whitened)
    norm = torch.linalg.matrix_norm(second, 2)
    weights = torch.linalg.matrix_exp(4 * (second - identity) / (norm - 1).clamp(min=1e-6))
    return ((whitened @ weights) * whitened).sum(1) / weights.trace()


def _find_covariance(rows: torch.Tensor) -> torch.Tensor:
    centered = rows - rows.mean(0)
    return centered.T @ centered / max(1, len(rows) - 1)


def _reduce(rows: torch.Tensor) -> torch.Tensor:
    """Rows in their leading components."""
    centered = rows - rows.mean(0)
    number = min(NUM_COMPONENTS, len(rows) - 1, rows.shape[1])
    return centered @ torch.linalg.svd(centered, full_matrices=False).Vh[:number].T


def scan(
    subject: Subject, *, num_clean: int = 3000, max_iterations: int = 100, tolerance: float = 1e-2
) -> DefenseResult:
    """SCAn: is a class better explained by two groups than by one, with the spread within classes of clean images?

    The covariance within classes comes from clean test images. A class is split along the direction that separates two
    groups best under it, until the split stays; its score is the likelihood ratio of two groups to one, as an anomaly
    among all classes.

    Args:
        subject ([`Subject`]): The classifier, its training images and clean images.
        num_clean (`int`): Clean images of the covariance.
        max_iterations (`int`): Of a split.
        tolerance (`float`): Share of images that may change groups at the end.
    """

    def compute(classes: list[torch.Tensor]) -> tuple[torch.Tensor, dict]:
        clean = compute_representations(subject.network, subject.images[:num_clean]).double()
        labels = subject.labels[:num_clean]
        means = torch.stack([clean[labels == label].mean(0) for label in range(subject.num_classes)])
        within = _find_covariance(clean - means[labels])
        within += 1e-3 * within.diagonal().mean().clamp(min=1e-12) * torch.eye(len(within), dtype=within.dtype)
        factor = torch.linalg.cholesky(within)
        ratios = []
        for rows in classes:
            whitened = torch.linalg.solve_triangular(factor, rows.T, upper=False).T
            ratios.append(_compare_groups(whitened, max_iterations, tolerance))
        values = torch.stack(ratios)
        values = values / values.max().clamp(min=1e-12)
        return compute_anomalies(values) * (values > values.median()), {}

    return _judge(subject, "scan", ANOMALY_THRESHOLD, compute)


def _compare_groups(rows: torch.Tensor, max_iterations: int, tolerance: float) -> torch.Tensor:
    """Likelihood ratio of two groups to one for whitened rows: the drop of their squared distances to the means."""
    groups = _project(rows) > 0
    for _ in range(max_iterations):
        if groups.all() or not groups.any():
            return torch.zeros((), dtype=rows.dtype)
        first, second = rows[groups].mean(0), rows[~groups].mean(0)
        changed = (rows - first).square().sum(1) < (rows - second).square().sum(1)
        moved = (changed != groups).double().mean()
        groups = changed
        if moved <= tolerance:
            break
    if groups.all() or not groups.any():
        return torch.zeros((), dtype=rows.dtype)
    one = (rows - rows.mean(0)).square().sum()
    two = sum((part - part.mean(0)).square().sum() for part in (rows[groups], rows[~groups]))
    return (one - two) / len(rows)


def activation_clustering(subject: Subject) -> DefenseResult:
    """Activation clustering: two clusters of a class's leading components, one of them small and well separated.

    The score of a class is the silhouette of two clusters where the smaller one has at most 35 % of the images, 0
    elsewhere.

    Raises:
        ImportError: If scikit-learn is missing.
    """
    try:
        from sklearn.cluster import KMeans
        from sklearn.metrics import silhouette_score
    except ImportError as error:
        raise ImportError('activation clustering needs scikit-learn: pip install "decahub[doorping]"') from error

    def compute(classes: list[torch.Tensor]) -> tuple[torch.Tensor, dict]:
        values, smallest = [], []
        for rows in classes:
            reduced = _reduce(rows).numpy()
            clusters = KMeans(2, n_init=10, random_state=0).fit_predict(reduced)
            share = min(clusters.mean(), 1 - clusters.mean())
            is_split = 1 < clusters.sum() + 1 < len(rows) + 1 and len(rows) > 2
            silhouette = silhouette_score(reduced, clusters) if is_split else 0.0
            smallest.append(float(share))
            values.append(silhouette if share <= SMALL_CLUSTER else 0.0)
        return torch.tensor(values, dtype=torch.double), {"smaller_share_of_target": smallest[subject.target_label]}

    return _judge(subject, "activation_clustering", SEPARATE_CLUSTERS, compute)


__all__ = ["activation_clustering", "scan", "spectral_signatures", "spectre"]
