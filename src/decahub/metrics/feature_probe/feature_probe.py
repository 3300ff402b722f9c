"""How well simple classifiers read the classes off the features of a frozen network."""

import datasets
import evaluate
import numpy as np


_DESCRIPTION = """
Accuracy of two classifiers on features of a frozen network, fitted on features of training examples: a linear one
(ridge regression on indicators of the classes) and the vote of the nearest neighbors by cosine similarity, weighted by
exp(similarity / 0.07) as in Wu et al. (arXiv 1805.01978).

Features are standardized with the mean and the deviation of the training examples. The strength of the ridge is chosen
on every fifth training example, held out for it; then the classifier is fitted on all of them. Test examples are
looked at once.
"""

_INPUTS = """
Args:
    predictions (list, array or tensor of shape (num_examples, num_features)): features of test examples.
    references (list, array or tensor of shape (num_examples,)): their class ids.
    train_predictions, train_references: the same of training examples; only for `compute`.
    num_neighbors (int, optional, defaults to 20): neighbors that vote, at most all; only for `compute`.

Returns:
    dict of float in [0, 1]: "linear_probe_accuracy" and "knn_accuracy".

Example:
    >>> metric = decahub.load_metric("feature_probe")
    >>> features, labels = [[0.0], [0.1], [1.0], [1.1], [0.2], [1.2]], [0, 0, 1, 1, 0, 1]
    >>> train = {"train_predictions": features, "train_references": labels}
    >>> metric.compute(predictions=[[0.0], [1.0]], references=[0, 1], num_neighbors=3, **train)
    {'linear_probe_accuracy': 1.0, 'knn_accuracy': 1.0}
"""

_CITATION = ""

RIDGE_STRENGTHS = 10.0 ** np.arange(-6, 3)  # times the number of examples
HELD_OUT_STRIDE = 5
TEMPERATURE = 0.07
ROWS_AT_ONCE = 1000  # of similarities, to bound memory


def fit_ridge(features: np.ndarray, labels: np.ndarray, num_labels: int, strengths: np.ndarray) -> np.ndarray:
    """Weights of ridge regression on indicators of the classes, `(num_strengths, num_features + 1, num_labels)`.

    The strengths are penalties of the squared weights, per example; the last row is the bias, without penalty.
    """
    indicators = np.eye(num_labels)[labels]
    center, bias = features.mean(0), indicators.mean(0)
    centered = features - center
    # One decomposition serves all strengths.
    values, vectors = np.linalg.eigh(centered.T @ centered / len(features))
    projected = vectors.T @ (centered.T @ (indicators - bias) / len(features))
    solutions = []
    for strength in strengths:
        weights = vectors @ (projected / (values.clip(0) + strength)[:, None])
        solutions.append(np.vstack([weights, bias - center @ weights]))
    return np.stack(solutions)


def measure_linear_probe(
    train_features: np.ndarray, train_labels: np.ndarray, features: np.ndarray, labels: np.ndarray, num_labels: int
) -> float:
    """Accuracy of ridge regression whose strength is chosen on held-out training examples."""
    held_out = np.arange(len(train_labels)) % HELD_OUT_STRIDE == 0
    held_out_features, held_out_labels = train_features[held_out], train_labels[held_out]
    indicators = np.eye(num_labels)[held_out_labels]

    def rate(weights: np.ndarray) -> tuple[float, float]:
        scores = held_out_features @ weights[:-1] + weights[-1]
        # Of strengths with equal accuracy the one with the smallest error: few examples leave many of them equal.
        return float((scores.argmax(1) == held_out_labels).mean()), -float(((scores - indicators) ** 2).mean())

    candidates = fit_ridge(train_features[~held_out], train_labels[~held_out], num_labels, RIDGE_STRENGTHS)
    best = max(range(len(candidates)), key=lambda index: rate(candidates[index]))
    weights = fit_ridge(train_features, train_labels, num_labels, RIDGE_STRENGTHS[best : best + 1])[0]
    return float(((features @ weights[:-1] + weights[-1]).argmax(1) == labels).mean())


def measure_neighbors(
    train_features: np.ndarray,
    train_labels: np.ndarray,
    features: np.ndarray,
    labels: np.ndarray,
    num_labels: int,
    num_neighbors: int,
) -> float:
    """Accuracy of the weighted vote of the training examples with the highest cosine similarity."""
    train_features, features = _normalize(train_features), _normalize(features)
    indicators = np.eye(num_labels)[train_labels]
    num_right = 0
    for start in range(0, len(features), ROWS_AT_ONCE):
        similarities = features[start : start + ROWS_AT_ONCE] @ train_features.T
        nearest = np.argpartition(-similarities, num_neighbors - 1, axis=1)[:, :num_neighbors]
        weights = np.exp(np.take_along_axis(similarities, nearest, axis=1) / TEMPERATURE)
        votes = np.einsum("nk,nkc->nc", weights, indicators[nearest])
        num_right += int((votes.argmax(1) == labels[start : start + ROWS_AT_ONCE]).sum())
    return num_right / len(labels)


def _normalize(features: np.ndarray) -> np.ndarray:
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), np.finfo(np.float64).tiny)


def _check(name: str, features: np.ndarray, labels: np.ndarray) -> None:
    if features.ndim != 2 or labels.shape != features.shape[:1] or not len(labels):
        raise ValueError(
            f"`{name}` must be (num_examples, num_features), at least one, with one class id for each; got "
            f"{features.shape} and {labels.shape}."
        )
    if not np.isfinite(features).all():
        row = int(np.argmin(np.isfinite(features).all(axis=1)))
        raise ValueError(f"`{name}` must be finite; those of example {row} are not. Has training diverged?")
    if labels.min() < 0:
        raise ValueError(f"class ids of `{name}` must not be negative; got {labels.min()}.")


class FeatureProbe(evaluate.Metric):
    """See the module's description."""

    def _info(self):
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features(
                predictions=datasets.Sequence(datasets.Value("float32")), references=datasets.Value("int64")
            ),
        )

    def _compute(self, predictions, references, train_predictions=None, train_references=None, num_neighbors=20):
        if train_predictions is None or train_references is None:
            raise ValueError(
                "`train_predictions` and `train_references` must be features and classes of training examples; got "
                "none."
            )
        features, labels = np.asarray(predictions, dtype=np.float64), np.asarray(references)
        train_features, train_labels = np.asarray(train_predictions, np.float64), np.asarray(train_references)
        _check("predictions", features, labels)
        _check("train_predictions", train_features, train_labels)
        if features.shape[1] != train_features.shape[1]:
            raise ValueError(
                f"`predictions` must have {train_features.shape[1]} features as `train_predictions`; got "
                f"{features.shape[1]}."
            )
        if num_neighbors < 1:
            raise ValueError(f"`num_neighbors` must be at least 1; got {num_neighbors}.")
        if len(train_labels) < 2:
            raise ValueError("`train_predictions` must hold at least two examples, of which one is held out; got one.")
        num_labels = int(max(labels.max(), train_labels.max())) + 1
        center, scale = train_features.mean(0), train_features.std(0)
        scale[scale == 0] = 1.0  # a feature that never changes says nothing
        train_features, features = (train_features - center) / scale, (features - center) / scale
        split = (train_features, train_labels, features, labels, num_labels)
        return {
            "linear_probe_accuracy": measure_linear_probe(*split),
            "knn_accuracy": measure_neighbors(*split, min(num_neighbors, len(train_labels))),
        }
